//! Flags of instructions: `--name`, `--name=value`. Spec: dockerfile.md §5.

use crate::diagnostic::Diagnostic;
use crate::lines::{LogicalLine, Text};
use crate::parse::traced::Traced;
use crate::source::Span;

/// Most flags of one instruction.
const MAX_FLAGS: usize = 1000;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Bool,
    One,
    Many,
}

/// Returns the flags of an instruction.
fn known(instruction: &str) -> &'static [(&'static str, Takes)] {
    use Takes::{Bool, Many, One};
    match instruction {
        "FROM" => &[("platform", One)],
        "RUN" => &[
            ("mount", Many),
            ("network", One),
            ("security", One),
            ("device", Many),
        ],
        "COPY" => &[
            ("from", One),
            ("chown", One),
            ("chmod", One),
            ("link", Bool),
            ("parents", Bool),
            ("exclude", Many),
        ],
        "ADD" => &[
            ("chown", One),
            ("chmod", One),
            ("link", Bool),
            ("keep-git-dir", Bool),
            ("checksum", One),
            ("unpack", Bool),
            ("exclude", Many),
        ],
        "HEALTHCHECK" => &[
            ("interval", One),
            ("timeout", One),
            ("start-period", One),
            ("start-interval", One),
            ("retries", One),
        ],
        _ => &[],
    }
}

/// Returns the names of an instruction's flags.
#[cfg(test)]
pub(crate) fn names(instruction: &str) -> impl Iterator<Item = &'static str> {
    known(instruction).iter().map(|(name, _)| *name)
}

/// The flags of one instruction, checked against what it knows.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<Flag>);

#[derive(Debug)]
struct Flag {
    name: &'static str,
    /// The value with its quotes removed, and the place of the whole flag.
    value: Text,
    /// The value with the places of its bytes.
    traced: Traced,
    enabled: bool,
}

impl Flags {
    /// Returns the value of a flag that is given at most once.
    pub(crate) fn value(&self, name: &str) -> Option<&Text> {
        self.0
            .iter()
            .find(|flag| flag.name == name)
            .map(|flag| &flag.value)
    }

    /// Returns the values of a flag that may be repeated, in order.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &Text> {
        self.0
            .iter()
            .filter(move |flag| flag.name == name)
            .map(|flag| &flag.value)
    }

    /// Returns a boolean flag; `None` when it isn't given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.0
            .iter()
            .find(|flag| flag.name == name)
            .map(|flag| flag.enabled)
    }

    /// Returns the values of a flag that may be repeated, in order, with the places of the flags.
    pub(crate) fn traced(&self, name: &str) -> impl Iterator<Item = (&Traced, Span)> {
        self.0
            .iter()
            .filter(move |flag| flag.name == name)
            .map(|flag| (&flag.traced, flag.value.span))
    }

    /// Returns the place of the first flag.
    pub(crate) fn first(&self) -> Option<&Text> {
        self.0.first().map(|flag| &flag.value)
    }
}

/// Splits the flag words off `text`: each as a slice and dequoted, and what follows them. Places are offsets in `text`.
fn split(text: &str, escape: char) -> (Vec<(&str, Traced)>, &str) {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let base = text.len() - rest.len();
        let mut word = Traced::default();
        let mut quote = None;
        let mut end = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, char)) = chars.next() {
            match quote {
                Some(open) if char == open => quote = None,
                _ if char == escape => {
                    if let Some((at, char)) = chars.next() {
                        word.push(char, base + at);
                    }
                }
                Some(_) => word.push(char, base + at),
                None if char == '"' || char == '\'' => quote = Some(char),
                None if char.is_whitespace() => {
                    end = at;
                    break;
                }
                None => word.push(char, base + at),
            }
        }
        let slice = &rest[..end];
        rest = rest[end..].trim_start();
        if slice == "--" {
            break;
        }
        // One more than are allowed is enough to see it.
        if words.len() <= MAX_FLAGS {
            words.push((slice, word));
        }
    }
    (words, rest)
}

/// Returns what follows the flags.
pub(crate) fn skip(text: &str, escape: char) -> &str {
    split(text, escape).1
}

/// Reads the flags of `instruction`; returns them and what follows.
pub(crate) fn parse<'a>(
    line: &LogicalLine,
    instruction: &str,
    text: &'a str,
    escape: char,
) -> Result<(Flags, &'a str), Diagnostic> {
    let (words, rest) = split(text, escape);
    let mut flags = Flags::default();
    if words.len() > MAX_FLAGS {
        let message = format!("more than {MAX_FLAGS} flags in one instruction");
        return Err(Diagnostic::error(message).at(line.text_of(words[MAX_FLAGS].0).span));
    }
    let base = line.offset_of(text);
    for (slice, mut word) in words {
        word.shift(base);
        let span = line.text_of(slice).span;
        let (written, value) = match word.text[2..].split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&word.text[2..], None),
        };
        let shown: String = written.chars().take(64).collect();
        let all = known(instruction);
        let Some(&(name, takes)) = all.iter().find(|(name, _)| *name == written) else {
            let names: Vec<String> = all.iter().map(|(name, _)| format!("--{name}")).collect();
            let written = format!("--{written}");
            let error = Diagnostic::error(format!("unknown flag: --{shown}")).at(span);
            return Err(error.suggest(&written, names.iter().map(String::as_str)));
        };
        if takes != Takes::Many && flags.0.iter().any(|flag| flag.name == name) {
            return Err(Diagnostic::error(format!("duplicate flag specified: --{name}")).at(span));
        }
        let missing = || Diagnostic::error(format!("missing a value on flag: --{name}")).at(span);
        let enabled = match (takes, value) {
            (Takes::Bool, None) => true,
            (_, None | Some("")) => return Err(missing()),
            (Takes::Bool, Some(value)) => match value.to_ascii_lowercase().as_str() {
                "true" => true,
                "false" => false,
                _ => {
                    let message = format!("expecting boolean value for flag --{name}, not: {value}");
                    return Err(Diagnostic::error(message).at(span));
                }
            },
            (Takes::One | Takes::Many, Some(_)) => true,
        };
        flags.0.push(Flag {
            name,
            value: Text {
                value: value.unwrap_or_default().to_owned(),
                span,
            },
            traced: word.part(word.text.len() - value.map_or(0, str::len)..word.text.len()),
            enabled,
        });
    }
    Ok((flags, rest))
}
