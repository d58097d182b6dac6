//! `--build-arg-file`: files of `NAME=value` lines, as if each had been typed as a `--build-arg` before all others.
//!
//! Values are taken as they stand: no quotes, no escapes, no variables.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::report::Failure;

/// A file of more bytes is a mistake.
const MAX_BYTES: u64 = 1 << 20;
/// Most arguments of one file.
const MAX_LINES: usize = 10_000;

/// Reads a file's lines into words of `--build-arg`: `NAME=value`, or `NAME` for one from the environment.
pub(crate) fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let failure = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read --build-arg-file {}: {why}", path.display()))
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| failure(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failure(&format!("it is larger than {MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| failure(&"it is not UTF-8"))?;
    parse(&text).map_err(|(line, why)| {
        let message = format!("{}:{line}: {why}", path.display());
        Failure::usage(message).with_help("each line is NAME=value, a comment that begins with #, or blank")
    })
}

/// The error is a line's number and what is wrong with it.
fn parse(text: &str) -> Result<Vec<String>, (usize, String)> {
    let mut words = Vec::new();
    let text = text.trim_start_matches('\u{feff}');
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.trim_end().is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line.trim_end(), |(name, _)| name);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err((at + 1, format!("`{name}` is no name of a build argument")));
        }
        words.push(match line.contains('=') {
            true => line.to_owned(),
            false => name.to_owned(),
        });
        if words.len() > MAX_LINES {
            return Err((at + 1, format!("more than {MAX_LINES} build arguments")));
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_arguments() {
        for (text, expected) in [
            ("a=1\nb=2 3 \n", Ok(vec!["a=1", "b=2 3 "])),
            ("# comment\n\n   \n  a=#x\r\n", Ok(vec!["a=#x"])),
            ("\u{feff}a=\"q\"", Ok(vec!["a=\"q\""])),
            ("HOME\na=b=c\nempty=", Ok(vec!["HOME", "a=b=c", "empty="])),
            ("a=1\n=x", Err(2)),
            ("export a=1", Err(1)),
            ("a b", Err(1)),
            ("a =1", Err(1)),
        ] {
            let words = parse(text).map_err(|(line, _)| line);
            let expected = expected.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(words, expected, "{text:?}");
        }
        assert_eq!(parse(&"a=1\n".repeat(20_000)).unwrap_err().0, MAX_LINES + 1);
    }
}
