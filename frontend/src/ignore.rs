//! The text of an ignore file to patterns. Matching them is `cache::tree`'s. Spec: dockerfile.md §15.

/// Says why an ignore file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A line with nothing after its `!`.
    #[error("illegal exclusion pattern: \"!\" (line {line})")]
    LoneExclamation {
        /// From 1.
        line: usize,
    },
    /// More than anyone needs: each path is matched against each pattern.
    #[error("ignore file has more than {MAX_PATTERNS} patterns")]
    TooMany,
}

/// Most patterns of one file.
pub const MAX_PATTERNS: usize = 10_000;

/// Returns the patterns in order, cleaned, without leading slash; re-including ones start with `!`.
///
/// A byte order mark is dropped, `#` in column 0 starts a comment. Bytes that aren't UTF-8 become U+FFFD and so
/// match nothing.
pub fn parse(bytes: &[u8]) -> Result<Vec<String>, IgnoreError> {
    let text = String::from_utf8_lossy(bytes);
    let mut patterns = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').split('\n').enumerate() {
        if line.starts_with('#') {
            continue;
        }
        let trimmed = line.trim();
        let (sign, path) = match trimmed.strip_prefix('!') {
            Some(path) => ("!", path.trim()),
            None => ("", trimmed),
        };
        if path.is_empty() {
            if sign.is_empty() {
                continue;
            }
            return Err(IgnoreError::LoneExclamation { line: index + 1 });
        }
        patterns.push(format!("{sign}{}", clean(path)));
        if patterns.len() > MAX_PATTERNS {
            return Err(IgnoreError::TooMany);
        }
    }
    Ok(patterns)
}

/// Cleans as Go's `filepath.Clean` does, then drops a leading slash.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            name => parts.push(name),
        }
    }
    if parts.is_empty() {
        if rooted { String::new() } else { ".".to_owned() }
    } else {
        parts.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cleaned() {
        let text =
            "\u{feff}# comment\n # pattern\r\n\r\n/foo\r\nbar/\n!  a/./b//c \na/../b\n**/x\n./\n../up\n!/etc";
        let expected = [
            "# pattern",
            "foo",
            "bar",
            "!a/b/c",
            "b",
            "**/x",
            ".",
            "../up",
            "!etc",
        ];
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn there_is_a_largest_number_of_patterns() {
        assert_eq!(
            parse("a\n".repeat(MAX_PATTERNS).as_bytes()).unwrap().len(),
            MAX_PATTERNS
        );
        assert_eq!(parse("a\n".repeat(100_000).as_bytes()), Err(IgnoreError::TooMany));
    }

    #[test]
    fn a_lone_exclamation_mark_is_refused() {
        assert_eq!(parse(b"a\n ! \n"), Err(IgnoreError::LoneExclamation { line: 2 }));
    }
}
