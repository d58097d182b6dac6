//! Heredocs: where a line opens them. Spec: dockerfile.md §3.1.

use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{char, digit0};
use nom::combinator::{not, opt, recognize};
use nom::{IResult, Parser};

use crate::diagnostic::Diagnostic;
use crate::lines::LogicalLine;
use crate::parse::{command, flags, keyword};
use crate::source::Span;

/// Most heredocs of one instruction.
const MAX_HEREDOCS: usize = 1000;

/// A heredoc with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter: also the file's name in a COPY.
    pub name: String,
    /// Variables in it are expanded: no part of the delimiter was quoted.
    pub expand: bool,
    /// Leading tabs are removed: opened by `<<-`.
    pub chomp: bool,
    /// The lines, tabs still there, each with its `\n`.
    pub content: String,
    /// Body and terminator.
    pub span: Span,
}

impl Heredoc {
    /// Returns the content with the leading tabs of each line removed if the opener says so.
    pub fn chomped(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

/// `<<NAME` in a line.
#[derive(Debug)]
pub(crate) struct Opener {
    /// The delimiter, dequoted.
    pub(crate) name: String,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
    /// Range in the logical line.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Finds the heredocs that an instruction opens.
pub(crate) fn openers(line: &LogicalLine, escape: char) -> Result<Vec<Opener>, Diagnostic> {
    let text = line.text.as_str();
    if !text.contains("<<") {
        return Ok(Vec::new());
    }
    let (mut word, mut rest) = keyword(text);
    if word.eq_ignore_ascii_case("ONBUILD") {
        (word, rest) = keyword(rest);
    }
    let allowed = ["RUN", "COPY", "ADD"]
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name));
    let rest = flags::skip(rest, escape);
    if !allowed || command::is_json_array(rest) {
        return Ok(Vec::new());
    }
    let base = line.offset_of(rest);
    let mut found = Vec::new();
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        let blanks = here.len() - here.trim_start().len();
        if blanks > 0 {
            at += blanks;
            continue;
        }
        let opened = match opener(here) {
            Ok((after, chomp)) => {
                let end = word_end(after, escape);
                delimiter(&after[..end], escape)
                    .map_err(|message| {
                        let start = base + at;
                        Diagnostic::error(message).at(line.span_of(start, start + here.len()))
                    })?
                    .map(|(name, expand)| (name, expand, chomp, rest.len() - after.len() + end))
            }
            Err(_) => None,
        };
        match opened {
            Some((name, expand, chomp, end)) => {
                found.push(Opener {
                    name,
                    expand,
                    chomp,
                    start: base + at,
                    end: base + end,
                });
                at = end;
            }
            None => at += word_end(here, escape).max(1),
        }
        if found.len() > MAX_HEREDOCS {
            return Err(
                Diagnostic::error(format!("more than {MAX_HEREDOCS} heredocs in one instruction"))
                    .at(line.span),
            );
        }
    }
    Ok(found)
}

/// Reads `3<<-`; returns what follows and whether there was a dash.
fn opener(input: &str) -> IResult<&str, bool> {
    let (rest, (_, _, (), chomp, _)) = (
        recognize(digit0),
        tag("<<"),
        not(char('<')),
        opt(char('-')),
        take_while(|char: char| char == ' ' || char == '\t'),
    )
        .parse(input)?;
    Ok((rest, chomp.is_some()))
}

/// Returns how long the shell word at the start of `text` is; quotes and escapes protect blanks.
fn word_end(text: &str, escape: char) -> usize {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match quote {
            Some(open) if char == open => quote = None,
            Some('\'') => {}
            _ if char == escape => {
                chars.next();
            }
            Some(_) => {}
            None if char == '"' || char == '\'' => quote = Some(char),
            None if char.is_whitespace() => return at,
            None => {}
        }
    }
    text.len()
}

/// Dequotes a delimiter; `None` when it isn't one.
fn delimiter(word: &str, escape: char) -> Result<Option<(String, bool)>, String> {
    let mut name = String::new();
    let mut quote = None;
    let mut quoted = false;
    let mut chars = word.chars();
    while let Some(char) = chars.next() {
        match quote {
            Some(open) if char == open => quote = None,
            Some('\'') => name.push(char),
            _ if char == escape => {
                quoted = true;
                name.extend(chars.next());
            }
            Some(_) => name.push(char),
            None if char == '"' || char == '\'' => {
                quoted = true;
                quote = Some(char);
            }
            None if char == '<' => return Ok(None),
            None => name.push(char),
        }
    }
    if let Some(quote) = quote {
        let kind = if quote == '"' {
            "double-quote"
        } else {
            "single-quote"
        };
        return Err(format!(
            "unexpected end of statement while looking for matching {kind}"
        ));
    }
    Ok((!name.is_empty()).then_some((name, !quoted)))
}
