//! Permission changes: `--chmod` in octal and symbolic form. Spec: chmod(1), dockerfile.md §10.5.
//!
//! The umask is 0 throughout: `+x` means `a+x`. The setuid, setgid and sticky bits have their letters `s` and `t`.

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModeChange {
    /// These bits exactly, 0 to 0o7777.
    Octal(u32),
    /// Symbolic clauses, as written (`u=rwX,go=rX`); checked when parsed.
    Symbolic(String),
}

/// Says why a text is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseModeError {
    /// Digits, but not an octal number up to 7777.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Octal(String),
    /// Neither digits nor symbolic clauses.
    #[error("invalid chmod parameter: '{0}'. expected octal digits or clauses such as u=rwX,go=rX")]
    Symbolic(String),
}

/// Longest symbolic mode that is read; each file of a copy evaluates it.
const MAX_SYMBOLIC_BYTES: usize = 1024;

impl ModeChange {
    /// Reads `0755`, `755` or symbolic clauses.
    pub fn parse(text: &str) -> Result<Self, ParseModeError> {
        if text.is_empty() || text.starts_with(|first: char| first.is_ascii_digit()) {
            let octal = text.len() <= 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
            return Some(text)
                .filter(|_| octal)
                .and_then(|text| u32::from_str_radix(text, 8).ok())
                .filter(|&mode| mode <= 0o7777)
                .map(Self::Octal)
                .ok_or_else(|| ParseModeError::Octal(text.to_owned()));
        }
        let valid = text.len() <= MAX_SYMBOLIC_BYTES && evaluate(text, 0, false).is_some();
        valid
            .then(|| Self::Symbolic(text.to_owned()))
            .ok_or_else(|| ParseModeError::Symbolic(text.chars().take(100).collect()))
    }

    /// Returns the permission bits of an entry that had `mode`. A hand-made `Symbolic` that doesn't parse changes
    /// nothing.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(text) => evaluate(text, mode & 0o7777, is_dir).unwrap_or(mode & 0o7777),
        }
    }
}

/// Applies all clauses from left to right; `None` when one is malformed.
fn evaluate(text: &str, mode: u32, is_dir: bool) -> Option<u32> {
    text.split(',')
        .try_fold(mode, |mode, clause| apply_clause(clause, mode, is_dir))
}

fn apply_clause(clause: &str, mut mode: u32, is_dir: bool) -> Option<u32> {
    let is_action = |char: char| matches!(char, '+' | '-' | '=');
    let first_action = clause.find(is_action)?;
    let (classes, mut rest) = clause.split_at(first_action);
    let mut who = 0;
    for class in classes.chars() {
        who |= class_bits(class)?;
    }
    if classes.is_empty() {
        who = 0o7777;
    }
    while let Some(action) = rest.chars().next() {
        let permissions = &rest[1..];
        let end = permissions.find(is_action).unwrap_or(permissions.len());
        let bits = permission_bits(&permissions[..end], mode, is_dir)? & who;
        mode = match action {
            '+' => mode | bits,
            '-' => mode & !bits,
            // chmod(1): a directory keeps setuid and setgid unless they are named.
            _ => {
                let kept = if is_dir { mode & 0o6000 } else { 0 };
                (mode & !who) | bits | kept
            }
        };
        rest = &permissions[end..];
    }
    Some(mode)
}

/// Returns the bits that belong to a class of users, its special bit included.
fn class_bits(class: char) -> Option<u32> {
    Some(match class {
        'u' => 0o4700,
        'g' => 0o2070,
        'o' => 0o1007,
        'a' => 0o7777,
        _ => return None,
    })
}

/// Returns what the letters after `+`, `-` or `=` stand for, for all classes at once.
fn permission_bits(letters: &str, mode: u32, is_dir: bool) -> Option<u32> {
    let copied = match letters {
        "u" => Some(mode >> 6 & 7),
        "g" => Some(mode >> 3 & 7),
        "o" => Some(mode & 7),
        _ => None,
    };
    if let Some(bits) = copied {
        return Some(bits * 0o111);
    }
    let mut bits = 0;
    for letter in letters.chars() {
        bits |= match letter {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            'X' if is_dir || mode & 0o111 != 0 => 0o111,
            'X' => 0,
            's' => 0o6000,
            't' => 0o1000,
            _ => return None,
        };
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_parse_and_apply() {
        // Text, mode before, result for a file, result for a directory.
        for (text, before, file, dir) in [
            ("0755", 0o4644, 0o755, 0o755),
            ("755", 0, 0o755, 0o755),
            ("4755", 0o644, 0o4755, 0o4755),
            ("u=rwX,go=rX", 0o600, 0o644, 0o755),
            ("u=rwX,go=rX", 0o711, 0o755, 0o755),
            ("a+x", 0o644, 0o755, 0o755),
            ("+x", 0o644, 0o755, 0o755),
            ("+w", 0o444, 0o666, 0o666),
            ("go-w", 0o666, 0o644, 0o644),
            ("u+s", 0o755, 0o4755, 0o4755),
            ("g+s,o+t", 0o755, 0o3755, 0o3755),
            ("g=u", 0o740, 0o770, 0o770),
            ("o=", 0o777, 0o770, 0o770),
            ("u=rw", 0o4755, 0o655, 0o4655),
            ("u+x-w", 0o644, 0o544, 0o544),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(before, false), file, "{text} on a file {before:o}");
            assert_eq!(
                change.apply(before, true),
                dir,
                "{text} on a directory {before:o}"
            );
        }
    }

    #[test]
    fn bad_modes_are_refused() {
        for text in ["", "64a", "888", "10000", "0o755"] {
            let error = ModeChange::parse(text).unwrap_err();
            assert_eq!(error, ParseModeError::Octal(text.to_owned()));
        }
        for text in ["x", "u", "u=q", "z+x", "u=r,", "-1", "+é"] {
            // `-1`: an action with a bad letter.
            assert!(
                matches!(ModeChange::parse(text), Err(ParseModeError::Symbolic(_))),
                "{text}"
            );
        }
    }
}
