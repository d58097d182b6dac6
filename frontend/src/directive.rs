//! Parser directives: `syntax`, `escape`, `check`. Spec: dockerfile.md §2.2.

use nom::bytes::complete::take_while;
use nom::character::complete::{alpha1, alphanumeric0, char, space0};
use nom::combinator::{recognize, rest, verify};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use crate::check::Check;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lines::Text;
use crate::options::Options;
use crate::source::{SourceText, Span};

/// What the top of the file says.
#[derive(Debug, Clone)]
pub struct Directives {
    /// The frontend that the file asks for: the whole value. [`reference`](Self::syntax_reference) is its first word.
    pub syntax: Option<Text>,
    /// Continues lines and protects characters: a backslash, or a backquote.
    pub escape: char,
    /// Which lint rules are off, and whether warnings are errors.
    pub check: Check,
}

impl Directives {
    /// Returns the image reference in `syntax`, without its command line.
    pub fn syntax_reference(&self) -> Option<&str> {
        self.syntax
            .as_ref()
            .and_then(|text| text.value.split_whitespace().next())
    }
}

/// Returns the error of a file that asks for a language which isn't built in, whatever else it holds.
///
/// Such a file needn't be a Dockerfile: to read it as one would find mistakes that are none.
pub fn foreign_syntax(name: &str, bytes: &[u8], options: &Options) -> Option<Diagnostic> {
    let source = SourceText::new(name, bytes);
    let (directives, _) = read(&source, &mut Diagnostics::default());
    refuse_syntax(directives.syntax.as_ref(), options)
}

/// Only the language that is built in can be spoken.
pub(crate) fn refuse_syntax(directive: Option<&Text>, options: &Options) -> Option<Diagnostic> {
    let (value, span) = match (options.build_arg("BUILDKIT_SYNTAX"), directive) {
        (Some(value), _) => (value, None),
        (None, Some(text)) => (text.value.as_str(), Some(text.span)),
        (None, None) => return None,
    };
    let reference = value.split_whitespace().next().unwrap_or_default();
    let path = reference.strip_prefix("docker.io/").unwrap_or(reference);
    if reference.is_empty() || reference == "dockerfile.v0" || path.starts_with("docker/dockerfile") {
        return None;
    }
    let error = Diagnostic::error(format!("syntax {reference} is not supported")).help(
        "only docker/dockerfile, which is built in, can be named; drop the directive or set BUILDKIT_SYNTAX",
    );
    Some(Diagnostic { span, ..error })
}

/// Key and value, and what is left of the line.
type Setting<'a> = IResult<&'a str, (&'a str, &'a str)>;

/// Returns key and value of `# key = value`.
fn directive(line: &str) -> Setting<'_> {
    let key = recognize((alpha1, alphanumeric0));
    let blank = |char: char| char.is_whitespace();
    (
        preceded((take_while(blank), char('#'), take_while(blank)), key),
        preceded(
            (take_while(blank), char('='), take_while(blank)),
            verify(rest, |value: &str| !value.is_empty()),
        ),
    )
        .parse(line)
}

/// Returns the value of `// syntax=…`.
fn slashes(line: &str) -> Setting<'_> {
    let key = recognize((alpha1, alphanumeric0));
    (
        preceded((take_while(|char: char| char == '/'), space0), key),
        preceded(
            delimited(space0, char('='), space0),
            verify(rest, |value: &str| !value.is_empty()),
        ),
    )
        .parse(line)
}

/// Reads the directives; returns them and the number of the first line after them.
pub(crate) fn read(source: &SourceText, diagnostics: &mut Diagnostics) -> (Directives, usize) {
    let mut syntax: Option<Text> = None;
    let mut escape: Option<Text> = None;
    let mut check: Option<Text> = None;
    let mut number = 1;
    loop {
        let (start, line) = source.line(number);
        let text = if number == 1 {
            line.trim_start_matches('\u{feff}')
        } else {
            line
        };
        let Ok((_, (key, value))) = directive(text) else {
            break;
        };
        let slot = match key.to_ascii_lowercase().as_str() {
            "syntax" => &mut syntax,
            "escape" => &mut escape,
            "check" => &mut check,
            _ => break,
        };
        let value = value.trim_end();
        let place = start + line.rfind(value).unwrap_or(0);
        let span = Span {
            start: place,
            end: place + value.len(),
        };
        if slot.is_some() {
            let key = key.to_ascii_lowercase();
            let whole = Span {
                start,
                end: start + line.len(),
            };
            diagnostics
                .push(Diagnostic::error(format!("only one {key} parser directive can be used")).at(whole));
        }
        *slot = Some(Text {
            value: value.to_owned(),
            span,
        });
        number += 1;
    }
    let escape = escape.map_or('\\', |token| match token.value.as_str() {
        "\\" => '\\',
        "`" => '`',
        other => {
            let message = format!("invalid escape token '{other}' does not match ` or \\");
            diagnostics.push(Diagnostic::error(message).at(token.span));
            '\\'
        }
    });
    let check = match check {
        Some(text) => {
            let check = Check::parse(&text.value).unwrap_or_else(|message| {
                diagnostics.push(Diagnostic::error(message).at(text.span));
                Check::default()
            });
            check.warn_of_unknown(Some(text.span), diagnostics);
            check
        }
        None => Check::default(),
    };
    (
        Directives {
            syntax: syntax.or_else(|| elsewhere(source)),
            escape,
            check,
        },
        number,
    )
}

/// Finds `syntax` where only its detection looks: after a `#!` line, in `//` comments, or in a JSON document.
fn elsewhere(source: &SourceText) -> Option<Text> {
    let first = if source.line(1).1.trim_start_matches('\u{feff}').starts_with("#!") {
        2
    } else {
        1
    };
    for prefix in ["#", "//"] {
        let mut number = first;
        loop {
            let (start, line) = source.line(number);
            let text = line.trim_start_matches('\u{feff}').trim_start();
            let setting = if prefix == "#" {
                directive(text)
            } else {
                slashes(text)
            };
            let Ok((_, (key, value))) = setting else {
                break;
            };
            if !text.starts_with(prefix) {
                break;
            }
            if key.eq_ignore_ascii_case("syntax") {
                let span = Span {
                    start,
                    end: start + line.len(),
                };
                return Some(Text {
                    value: value.trim_end().to_owned(),
                    span,
                });
            }
            number += 1;
        }
    }
    let text = source.text().trim_start_matches('\u{feff}');
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let document: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = document.get("syntax")?.as_str()?.to_owned();
    Some(Text {
        value,
        span: Span {
            start: 0,
            end: source.text().len(),
        },
    })
}
