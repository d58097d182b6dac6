//! Cuts a template into text and actions, and actions into tokens.

use serde_json::Value;

use super::invalid;
use crate::report::Failure;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Piece {
    /// Shown as it is.
    Text(String),
    /// Between `{{` and `}}`: how it was written, and its tokens.
    Action(String, Vec<Token>),
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `name`: a function or a keyword.
    Name(String),
    /// `.A.B`; empty for the dot alone.
    Fields(Vec<String>),
    /// `$name.A.B`; the name is empty for `$`.
    Variable(String, Vec<String>),
    /// `"text"`, `` `text` ``, a number.
    Literal(Value),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)` with the fields that follow it at once: `(index .A 0).B`.
    Close(Vec<String>),
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `,`
    Comma,
}

/// Cuts a whole template. `{{-` and `-}}` take the white space beside them along, comments vanish.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Failure> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut is_trimmed = false;
    loop {
        let open = rest.find("{{");
        let mut before = &rest[..open.unwrap_or(rest.len())];
        if is_trimmed {
            before = before.trim_start();
        }
        let Some(open) = open else {
            pieces.push(Piece::Text(before.to_owned()));
            return Ok(pieces);
        };
        let inside = &rest[open + 2..];
        let trims_before = inside
            .strip_prefix('-')
            .filter(|rest| rest.starts_with(char::is_whitespace));
        if trims_before.is_some() {
            before = before.trim_end();
        }
        pieces.push(Piece::Text(before.to_owned()));
        let inside = trims_before.unwrap_or(inside);
        let close = end(inside).ok_or_else(|| Failure::usage("invalid format: `{{` without `}}`"))?;
        rest = &inside[close + 2..];
        let action = &inside[..close];
        let trimmed = action
            .strip_suffix('-')
            .filter(|rest| rest.ends_with(char::is_whitespace));
        is_trimmed = trimmed.is_some();
        let action = trimmed.unwrap_or(action).trim();
        if !action.starts_with("/*") {
            pieces.push(Piece::Action(action.to_owned(), tokens(action)?));
        }
    }
}

/// Finds the `}}` that ends an action: not one in a text or a comment.
fn end(inside: &str) -> Option<usize> {
    if let Some(comment) = inside.trim_start().strip_prefix("/*") {
        let start = inside.len() - comment.len();
        let closed = start + comment.find("*/")?;
        return Some(closed + inside[closed..].find("}}")?);
    }
    let mut quote = None;
    let mut is_escaped = false;
    for (at, c) in inside.char_indices() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some('"') if c == '\\' => is_escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if inside[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    // Then the mistake is the quote's, and is told as such.
    quote.and_then(|_| inside.find("}}"))
}

/// Cuts an action.
fn tokens(action: &str) -> Result<Vec<Token>, Failure> {
    let mut tokens = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => {
                let (fields, length) = fields(action, &rest[1..])?;
                (Token::Close(fields), 1 + length)
            }
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '"' | '`' => quoted(action, rest)?,
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let (fields, length) = fields(action, rest)?;
                (Token::Fields(fields), length)
            }
            '$' => {
                let name = word(&rest[1..]);
                let (fields, length) = fields(action, &rest[1 + name.len()..])?;
                (Token::Variable(name.to_owned(), fields), 1 + name.len() + length)
            }
            _ => plain(action, rest)?,
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// Reads `.A.B`, or nothing, or the dot alone. Returns how long it is, too.
fn fields(action: &str, text: &str) -> Result<(Vec<String>, usize), Failure> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix('.') {
        let name = word(after);
        if name.is_empty() {
            let is_dot_alone = names.is_empty() && !after.starts_with('.');
            match is_dot_alone {
                true => return Ok((names, 1)),
                false => {
                    let shown: String = text.chars().take_while(|c| !c.is_whitespace()).collect();
                    return Err(invalid(action, &format!("`{shown}` is no field")));
                }
            }
        }
        names.push(name.to_owned());
        rest = &after[name.len()..];
    }
    Ok((names, text.len() - rest.len()))
}

/// Returns the letters, digits and underscores that a text begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

fn quoted(action: &str, text: &str) -> Result<(Token, usize), Failure> {
    let quote = &text[..1];
    let open = || invalid(action, "a quote is not closed");
    if quote == "`" {
        let close = text[1..].find('`').ok_or_else(open)?;
        return Ok((Token::Literal(Value::from(&text[1..=close])), close + 2));
    }
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => {
                // Line breaks and tabs may stand in it as they are: `\n` and `\t` were replaced before.
                let json = text[..=at].replace('\n', "\\n").replace('\t', "\\t");
                let value: Value = serde_json::from_str(&json)
                    .map_err(|_| invalid(action, &format!("`{}` is no text", &text[..=at])))?;
                return Ok((Token::Literal(value), at + 1));
            }
            _ => {}
        }
    }
    Err(open())
}

/// Reads a number or a name.
fn plain(action: &str, text: &str) -> Result<(Token, usize), Failure> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.');
    let end = text.find(|c: char| !is_part(c)).unwrap_or(text.len());
    let whole = &text[..end];
    if whole.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') {
        return match serde_json::from_str(whole) {
            Ok(number @ Value::Number(_)) => Ok((Token::Literal(number), end)),
            _ => Err(invalid(action, &format!("`{whole}` is no number"))),
        };
    }
    let name = word(text);
    match name.len() {
        0 => Err(invalid(
            action,
            &format!("`{}` means nothing here", text.chars().next().unwrap_or(' ')),
        )),
        length => Ok((Token::Name(name.to_owned()), length)),
    }
}
