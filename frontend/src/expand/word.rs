//! The grammar of words: quotes, escapes, `$name`, `${name…}`. Spec: dockerfile.md §6.2.

use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::{anychar, char, digit1, one_of};
use nom::combinator::recognize;
use nom::error::{ErrorKind, ParseError};
use nom::{IResult, Parser};

use super::{ExpandError, Quotes};

/// Deepest nesting of `${a:-${b:-…}}`; what is deeper is refused, so the recursion below is bounded.
const MAX_DEPTH: usize = 64;

/// A piece of a word.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Neither quoted nor escaped: blanks separate words, `*` is a wildcard.
    Plain(String),
    /// Only itself.
    Literal(String),
    /// A variable.
    Variable {
        variable: Variable,
        /// Inside double quotes.
        quoted: bool,
    },
}

/// `$name` or `${name…}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    /// As written, from the `$` on; empty where nobody needs it.
    pub(super) source: String,
    pub(super) modifier: Modifier,
}

/// What follows the name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Modifier {
    None,
    /// `-`, `+`, `?`; with a colon, empty counts as unset.
    Default {
        word: Vec<Piece>,
        or_empty: bool,
    },
    Alternate {
        word: Vec<Piece>,
        or_empty: bool,
    },
    Required {
        word: Vec<Piece>,
        or_empty: bool,
    },
    /// `#`, `##`
    TrimPrefix {
        pattern: Vec<Piece>,
        longest: bool,
    },
    /// `%`, `%%`
    TrimSuffix {
        pattern: Vec<Piece>,
        longest: bool,
    },
    /// `/`, `//`
    Replace {
        pattern: Vec<Piece>,
        with: Vec<Piece>,
        all: bool,
    },
}

impl Modifier {
    /// Returns the words that it holds.
    pub(super) fn words(&self) -> [&[Piece]; 2] {
        match self {
            Self::None => [&[], &[]],
            Self::Default { word, .. } | Self::Alternate { word, .. } | Self::Required { word, .. } => {
                [word, &[]]
            }
            Self::TrimPrefix { pattern, .. } | Self::TrimSuffix { pattern, .. } => [pattern, &[]],
            Self::Replace { pattern, with, .. } => [pattern, with],
        }
    }
}

type Parsed<'a, T> = IResult<&'a str, T, ExpandError>;

impl ParseError<&str> for ExpandError {
    fn from_error_kind(_: &str, _: ErrorKind) -> Self {
        Self::BadSubstitution
    }
    fn append(_: &str, _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// Splits a word into its pieces.
pub(super) fn parse(text: &str, escape: char, quotes: Quotes) -> Result<Vec<Piece>, ExpandError> {
    let grammar = Grammar {
        escape,
        quotes,
        keep_escapes: false,
    };
    match grammar.pieces(text, None, 0) {
        Ok((_, pieces)) => Ok(pieces),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => Err(error),
        Err(nom::Err::Incomplete(_)) => Err(ExpandError::BadSubstitution),
    }
}

#[derive(Clone, Copy)]
struct Grammar {
    escape: char,
    quotes: Quotes,
    /// Escapes stay, with what they protect: in patterns they mean something, and in replacements BuildKit leaves
    /// them, too.
    keep_escapes: bool,
}

fn fail<T>(error: ExpandError) -> Parsed<'static, T> {
    Err(nom::Err::Failure(error))
}

impl Grammar {
    fn with_escapes(self, keep_escapes: bool) -> Self {
        Self { keep_escapes, ..self }
    }

    /// Reads up to and including `stop`, or to the end.
    fn pieces<'a>(&self, mut input: &'a str, stop: Option<char>, depth: usize) -> Parsed<'a, Vec<Piece>> {
        if depth > MAX_DEPTH {
            return fail(ExpandError::TooDeep(MAX_DEPTH));
        }
        let mut out = Vec::new();
        let special =
            |char: char| Some(char) == stop || char == self.escape || matches!(char, '$' | '\'' | '"');
        while let Some(next) = input.chars().next() {
            if Some(next) == stop {
                return Ok((&input[next.len_utf8()..], out));
            }
            let (rest, piece) = match next {
                '$' => self.dollar(input, depth, false)?,
                '\'' if self.quotes != Quotes::Plain => self.single(input)?,
                '"' if self.quotes != Quotes::Plain => {
                    input = self.double(input, depth, &mut out)?.0;
                    continue;
                }
                _ if next == self.escape => self.escaped(input)?,
                '\'' | '"' => (&input[1..], Piece::Plain(next.to_string())),
                _ => {
                    let (rest, text) = take_while1(|char| !special(char)).parse(input)?;
                    (rest, Piece::Plain(text.to_owned()))
                }
            };
            out.push(piece);
            input = rest;
        }
        match stop {
            None => Ok((input, out)),
            Some('/') => fail(ExpandError::MissingSlash),
            Some(_) => fail(ExpandError::MissingBrace),
        }
    }

    /// Reads an escape outside of quotes.
    fn escaped<'a>(&self, input: &'a str) -> Parsed<'a, Piece> {
        let (rest, token) = anychar(input)?;
        let Some(next) = rest.chars().next() else {
            let kept = if self.keep_escapes || self.quotes == Quotes::Keep {
                token.to_string()
            } else {
                String::new()
            };
            return Ok((rest, Piece::Literal(kept)));
        };
        let text = match (self.quotes, next) {
            _ if self.keep_escapes => format!("{token}{next}"),
            (Quotes::Keep, _) => format!("{token}{next}"),
            (Quotes::Plain, '\n') => String::new(),
            _ => next.to_string(),
        };
        Ok((&rest[next.len_utf8()..], Piece::Literal(text)))
    }

    fn single<'a>(&self, input: &'a str) -> Parsed<'a, Piece> {
        let (rest, (_, text)) = (char('\''), take_while(|char| char != '\'')).parse(input)?;
        let Ok((rest, _)) = char::<_, ExpandError>('\'').parse(rest) else {
            return fail(ExpandError::SingleQuote);
        };
        let keep = self.quotes == Quotes::Keep;
        Ok((
            rest,
            Piece::Literal(if keep {
                format!("'{text}'")
            } else {
                text.to_owned()
            }),
        ))
    }

    fn double<'a>(&self, input: &'a str, depth: usize, out: &mut Vec<Piece>) -> Parsed<'a, ()> {
        let keep = self.quotes == Quotes::Keep;
        let mut text = String::from(if keep { "\"" } else { "" });
        let mut input = &input[1..];
        loop {
            let Some(next) = input.chars().next() else {
                return fail(ExpandError::DoubleQuote);
            };
            let rest = &input[next.len_utf8()..];
            match next {
                '"' => {
                    text.push_str(if keep { "\"" } else { "" });
                    out.push(Piece::Literal(text));
                    return Ok((rest, ()));
                }
                '$' => {
                    out.push(Piece::Literal(std::mem::take(&mut text)));
                    let (rest, variable) = self.dollar(input, depth, true)?;
                    out.push(variable);
                    input = rest;
                    continue;
                }
                _ if next == self.escape => {
                    let protected = rest
                        .chars()
                        .next()
                        .filter(|char| matches!(char, '"' | '$') || *char == self.escape);
                    if keep || self.keep_escapes || (protected.is_none() && !rest.is_empty()) {
                        text.push(next);
                    }
                    if self.keep_escapes && protected.is_none() {
                        // It is a character like others here, so that it has to be protected itself.
                        text.push(next);
                    }
                    text.extend(protected);
                    input = &rest[protected.map_or(0, char::len_utf8)..];
                    continue;
                }
                _ => text.push(next),
            }
            input = rest;
        }
    }

    fn dollar<'a>(&self, input: &'a str, depth: usize, quoted: bool) -> Parsed<'a, Piece> {
        let rest = &input[1..];
        if let Some(inner) = rest.strip_prefix('{') {
            let (rest, (name, modifier)) = self.braced(inner, depth)?;
            // Each level of nesting would hold its text once more.
            let source = match self.quotes {
                Quotes::Keep => input[..input.len() - rest.len()].to_owned(),
                _ => String::new(),
            };
            return Ok((
                rest,
                Piece::Variable {
                    variable: Variable {
                        name,
                        source,
                        modifier,
                    },
                    quoted,
                },
            ));
        }
        let Ok((rest, name)) = name(rest) else {
            return Ok((rest, Piece::Literal("$".to_owned())));
        };
        let variable = Variable {
            name: name.to_owned(),
            source: format!("${name}"),
            modifier: Modifier::None,
        };
        Ok((rest, Piece::Variable { variable, quoted }))
    }

    /// Reads what follows `${`, the closing brace included.
    fn braced<'a>(&self, input: &'a str, depth: usize) -> Parsed<'a, (String, Modifier)> {
        match input.chars().next() {
            None => return fail(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return fail(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let (rest, name) = name(input).unwrap_or((input, ""));
        let Some(sign) = rest.chars().next() else {
            return fail(ExpandError::MissingBrace);
        };
        let rest = &rest[sign.len_utf8()..];
        let (rest, modifier) = match sign {
            '}' => (rest, Modifier::None),
            '/' => self.replacement(rest, depth)?,
            ':' => match rest.chars().next() {
                None => return fail(ExpandError::MissingBrace),
                Some(sign @ ('-' | '+' | '?')) => self.conditional(sign, &rest[1..], true, depth)?,
                Some(other) => return fail(ExpandError::UnsupportedModifier(format!(":{other}"))),
            },
            '-' | '+' | '?' => self.conditional(sign, rest, false, depth)?,
            '#' | '%' => {
                let longest = rest.starts_with(sign);
                let rest = &rest[usize::from(longest)..];
                let (rest, pattern) = self.with_escapes(true).pieces(rest, Some('}'), depth + 1)?;
                (
                    rest,
                    match sign {
                        '#' => Modifier::TrimPrefix { pattern, longest },
                        _ => Modifier::TrimSuffix { pattern, longest },
                    },
                )
            }
            other => return fail(ExpandError::UnsupportedModifier(other.to_string())),
        };
        Ok((rest, (name.to_owned(), modifier)))
    }

    fn conditional<'a>(
        &self,
        sign: char,
        input: &'a str,
        or_empty: bool,
        depth: usize,
    ) -> Parsed<'a, Modifier> {
        let (rest, word) = self.with_escapes(false).pieces(input, Some('}'), depth + 1)?;
        Ok((
            rest,
            match sign {
                '-' => Modifier::Default { word, or_empty },
                '+' => Modifier::Alternate { word, or_empty },
                _ => Modifier::Required { word, or_empty },
            },
        ))
    }

    fn replacement<'a>(&self, input: &'a str, depth: usize) -> Parsed<'a, Modifier> {
        let all = input.starts_with('/');
        let inner = self.with_escapes(true);
        let (rest, pattern) = inner.pieces(&input[usize::from(all)..], Some('/'), depth + 1)?;
        let (rest, with) = inner.pieces(rest, Some('}'), depth + 1)?;
        Ok((rest, Modifier::Replace { pattern, with, all }))
    }
}

/// Reads a name: letters of any alphabet, digits and underscores; or digits only; or one special character.
fn name(input: &str) -> Parsed<'_, &str> {
    let ordinary = recognize((
        take_while1(|char: char| char.is_alphabetic() || char == '_'),
        take_while(|char: char| char.is_alphanumeric() || char == '_'),
    ));
    nom::branch::alt((ordinary, digit1, recognize(one_of("@*#?-$!")))).parse(input)
}
