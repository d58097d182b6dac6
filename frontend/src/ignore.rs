//! The text of an ignore file to patterns that know their lines. Matching them is `cache::tree`'s.
//! Spec: dockerfile.md §15.

use cache::layer::TreePath;
use cache::tree::IgnoreList;

/// Says why an ignore file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A line with nothing after its `!`.
    #[error("illegal exclusion pattern: \"!\" (line {line})")]
    LoneExclamation {
        /// From 1.
        line: usize,
    },
    /// A line that is no pattern.
    #[error("{source} (line {line})")]
    BadPattern {
        /// From 1.
        line: usize,
        /// Why not.
        source: cache::tree::IgnoreError,
    },
    /// More than anyone needs: each path is matched against each pattern.
    #[error("ignore file has more than {MAX_PATTERNS} patterns")]
    TooMany,
}

/// Most patterns of one file.
pub const MAX_PATTERNS: usize = 10_000;

/// One line of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnorePattern {
    /// Cleaned, without leading slash; a re-including one starts with `!`.
    pub text: String,
    /// From 1.
    pub line: usize,
}

/// An ignore file; the default one keeps nothing out.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    name: String,
    patterns: Vec<IgnorePattern>,
    list: IgnoreList,
}

impl IgnoreFile {
    /// Reads the text of the file that errors will call `name`.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, IgnoreError> {
        let patterns = parse(bytes)?;
        let list = IgnoreList::new(patterns.iter().map(|pattern| pattern.text.as_str()));
        let list = list.map_err(|source| {
            let bad = |pattern: &&IgnorePattern| IgnoreList::new([pattern.text.as_str()]).is_err();
            let line = patterns.iter().find(bad).map_or(0, |pattern| pattern.line);
            IgnoreError::BadPattern { line, source }
        })?;
        Ok(Self {
            name: name.to_owned(),
            patterns,
            list,
        })
    }

    /// Returns the name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the compiled patterns.
    pub fn list(&self) -> &IgnoreList {
        &self.list
    }

    /// Says whether something that was excluded comes back.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.text.starts_with('!'))
    }

    /// Returns the line that keeps `path` out; `None` when it isn't kept out. The context itself is kept out by a line
    /// that keeps out everything.
    pub fn excluding(&self, path: &TreePath) -> Option<&IgnorePattern> {
        if path.is_root() {
            let everything = |pattern: &&IgnorePattern| ["*", "**", "."].contains(&pattern.text.as_str());
            return self.patterns.iter().find(everything);
        }
        self.list.reason(path).map(|position| &self.patterns[position])
    }
}

/// Returns the patterns in order, cleaned, without leading slash; re-including ones start with `!`.
///
/// A byte order mark is dropped, `#` in column 0 starts a comment. Bytes that aren't UTF-8 become U+FFFD and so
/// match nothing.
pub fn parse(bytes: &[u8]) -> Result<Vec<IgnorePattern>, IgnoreError> {
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
        patterns.push(IgnorePattern {
            text: format!("{sign}{}", clean(path)),
            line: index + 1,
        });
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
        let patterns = parse(text.as_bytes()).unwrap();
        let texts: Vec<&str> = patterns.iter().map(|pattern| pattern.text.as_str()).collect();
        assert_eq!(texts, expected);
        assert_eq!(patterns[0].line, 2);
        assert_eq!(patterns[8].line, 11);
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
    fn a_path_knows_the_line_that_keeps_it_out() {
        let file = IgnoreFile::parse("x", b"# c\n\n../up\nsrc\n!src/keep\n**/*.log\n").unwrap();
        for (path, line) in [
            ("src", Some(4)),
            ("src/a/b", Some(4)),
            ("src/keep", None),
            ("src/keep/x.log", Some(6)),
            ("other", None),
            ("", None),
        ] {
            let found = file.excluding(&TreePath::clean(path.as_bytes()));
            assert_eq!(found.map(|pattern| pattern.line), line, "{path}");
        }
        let file = IgnoreFile::parse("x", b"a\n*\n").unwrap();
        let found = file.excluding(&TreePath::root()).map(|pattern| pattern.line);
        assert_eq!(found, Some(2));
    }

    #[test]
    fn a_bad_pattern_is_told_with_its_line() {
        let error = IgnoreFile::parse("x", b"a\nb[\n").unwrap_err();
        assert_eq!(error.to_string(), "syntax error in pattern `b[` (line 2)");
    }

    #[test]
    fn a_lone_exclamation_mark_is_refused() {
        assert_eq!(parse(b"a\n ! \n"), Err(IgnoreError::LoneExclamation { line: 2 }));
    }
}
