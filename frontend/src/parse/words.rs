//! Splitting the rest of a line into words, with and without regard to quotes. Spec: dockerfile.md §2.4.

use nom::bytes::complete::{take_while, take_while1};
use nom::multi::fold_many0;
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// What separates words.
fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r' | '\n')
}

/// Splits at runs of blanks; quotes mean nothing.
pub(crate) fn blank_separated(text: &str) -> Vec<&str> {
    let word = take_while1::<_, _, nom::error::Error<&str>>(|char| !is_blank(char));
    let parsed: IResult<&str, Vec<&str>> = fold_many0(
        preceded(take_while(is_blank), word),
        Vec::new,
        |mut words, word| {
            words.push(word);
            words
        },
    )
    .parse(text);
    parsed.map_or_else(|_| Vec::new(), |(_, words)| words)
}

/// Splits at blanks that are neither quoted nor escaped; quotes and escapes stay in the words.
pub(crate) fn quote_aware(text: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if quote.is_none() && is_blank(char) {
            words.extend(start.take().map(|start| &text[start..at]));
            continue;
        }
        start = start.or(Some(at));
        match quote {
            Some(open) if char == open => quote = None,
            Some('\'') => {}
            _ if char == escape => {
                chars.next();
            }
            None if char == '"' || char == '\'' => quote = Some(char),
            _ => {}
        }
    }
    words.extend(start.map(|start| &text[start..]));
    words
}
