//! Variable expansion: a word and an environment to a text, or to several words. Spec: dockerfile.md §6.

mod glob;
#[cfg(test)]
mod tests;
mod word;

use std::collections::{HashMap, HashSet};

use glob::Token;
use word::{Modifier, Piece, Variable};

/// Says why a word can't be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A `'` without its end.
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    /// A `"` without its end.
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    /// `${name` without its end.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${name/pattern` without a replacement.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}` and the like.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${name=…}` and the like.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${name:?message}`: name and message.
    #[error("{0}: {1}")]
    Required(String, String),
    /// More nesting than anyone writes.
    #[error("substitutions are nested more than {0} deep")]
    TooDeep(usize),
    /// `${name#pattern}` with an escape of something that needs none: pattern and the character.
    #[error("invalid pattern ({0}) in substitution: invalid escape '\\{1}'")]
    InvalidEscape(String, String),
    /// Whether this variable is set isn't known yet.
    #[error("variable {0} is not known yet")]
    Unknown(String),
    /// The result is larger than anyone needs.
    #[error("the result is larger than {0} bytes")]
    TooLarge(usize),
    /// More copying and matching than anyone needs.
    #[error("expanding it takes more than {0} steps")]
    TooCostly(usize),
    /// The pattern is longer than anyone needs.
    #[error("the pattern is longer than {0} characters")]
    PatternTooLong(usize),
}

/// What quotes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They group, and vanish.
    Remove,
    /// They are characters like others: the bodies of heredocs.
    Plain,
    /// They group and stay, escapes too, and unknown variables stay as written: names of steps.
    Keep,
}

/// Largest result, beyond the length of the word itself.
const MAX_GROWTH_BYTES: usize = 1 << 20;
/// Most work for one word: bytes copied, and characters compared with those of a pattern.
const MAX_STEPS: usize = 32 << 20;
/// Longest pattern: matching costs its length times the value's.
const MAX_PATTERN: usize = 1024;

/// Variables in the order in which they were first set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables {
    list: Vec<(String, String)>,
    index: HashMap<String, usize>,
    /// Names that aren't here may be set all the same.
    is_open: bool,
}

impl Variables {
    /// Returns variables of which none is known yet.
    pub(crate) fn unknown() -> Self {
        Self {
            is_open: true,
            ..Self::default()
        }
    }

    /// Sets a variable; one that is there keeps its position.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.index.get(name) {
            Some(&at) => value.clone_into(&mut self.list[at].1),
            None => {
                self.index.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|&at| self.list[at].1.as_str())
    }

    pub(crate) fn list(&self) -> &[(String, String)] {
        &self.list
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }
}

/// A word, expanded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expansion {
    /// As one text.
    pub(crate) text: String,
    /// Split at blanks that are neither quoted nor escaped.
    pub(crate) words: Vec<String>,
    /// Names that were used, are not set, and had no word to stand in.
    pub(crate) unset: Vec<String>,
    /// The work that it took, for the account of the whole build: a short result can be dear.
    pub(crate) steps: usize,
}

impl ExpandError {
    /// Returns how much work an expansion that ended so may have been.
    pub(crate) fn steps(&self) -> usize {
        match self {
            Self::TooCostly(_) | Self::TooLarge(_) => MAX_STEPS,
            _ => 0,
        }
    }
}

/// Expands `text` with the variables of `env`.
pub(crate) fn expand(
    text: &str,
    escape: char,
    quotes: Quotes,
    env: &Variables,
) -> Result<Expansion, ExpandError> {
    let pieces = word::parse(text, escape, quotes)?;
    let mut writer = Writer {
        env,
        keep_unset: quotes == Quotes::Keep,
        limit: text.len() + MAX_GROWTH_BYTES,
        out: Expansion::default(),
        in_word: false,
    };
    writer.pieces(&pieces)?;
    writer.out.words.retain(|word| !word.is_empty());
    Ok(writer.out)
}

/// Returns the names of the variables that a text uses, each once; none for a text that can't be expanded.
pub(crate) fn names(text: &str, escape: char) -> Vec<String> {
    let pieces = word::parse(text, escape, Quotes::Remove).unwrap_or_default();
    let mut work: Vec<&Piece> = pieces.iter().rev().collect();
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    while let Some(piece) = work.pop() {
        if let Piece::Variable { variable, .. } = piece {
            if seen.insert(variable.name.as_str()) {
                names.push(variable.name.clone());
            }
            work.extend(variable.modifier.words().into_iter().flatten());
        }
    }
    names
}

struct Writer<'a> {
    env: &'a Variables,
    keep_unset: bool,
    limit: usize,
    out: Expansion,
    in_word: bool,
}

impl Writer<'_> {
    fn pieces(&mut self, pieces: &[Piece]) -> Result<(), ExpandError> {
        for piece in pieces {
            match piece {
                Piece::Plain(text) => self.split(text)?,
                Piece::Literal(text) => self.whole(text)?,
                Piece::Variable { variable, quoted } => {
                    let value = self.value(variable)?;
                    if *quoted {
                        self.whole(&value)?
                    } else {
                        self.split(&value)?
                    }
                }
            }
        }
        Ok(())
    }

    fn work(&mut self, steps: usize) -> Result<(), ExpandError> {
        self.out.steps = self.out.steps.saturating_add(steps);
        if self.out.steps > MAX_STEPS {
            return Err(ExpandError::TooCostly(MAX_STEPS));
        }
        Ok(())
    }

    fn grow(&mut self, text: &str) -> Result<(), ExpandError> {
        self.work(text.len())?;
        if self.out.text.len() + text.len() > self.limit {
            return Err(ExpandError::TooLarge(self.limit));
        }
        self.out.text.push_str(text);
        Ok(())
    }

    /// Adds text that no blank splits.
    fn whole(&mut self, text: &str) -> Result<(), ExpandError> {
        self.grow(text)?;
        if !self.in_word {
            self.out.words.push(String::new());
            self.in_word = true;
        }
        self.out
            .words
            .last_mut()
            .expect("because a word was begun")
            .push_str(text);
        Ok(())
    }

    /// Adds text that blanks split.
    fn split(&mut self, text: &str) -> Result<(), ExpandError> {
        self.grow(text)?;
        for (at, part) in text.split(char::is_whitespace).enumerate() {
            self.in_word &= at == 0;
            if part.is_empty() {
                continue;
            }
            if !self.in_word {
                self.out.words.push(String::new());
                self.in_word = true;
            }
            let word = self.out.words.last_mut();
            word.expect("because a word was begun").push_str(part);
        }
        Ok(())
    }

    /// Expands a nested word to one text.
    fn nested(&mut self, pieces: &[Piece]) -> Result<String, ExpandError> {
        let mut inner = Writer {
            env: self.env,
            keep_unset: self.keep_unset,
            limit: self.limit,
            out: Expansion {
                steps: self.out.steps,
                ..Expansion::default()
            },
            in_word: false,
        };
        inner.pieces(pieces)?;
        self.out.steps = inner.out.steps;
        self.out.unset.append(&mut inner.out.unset);
        Ok(inner.out.text)
    }

    fn value(&mut self, variable: &Variable) -> Result<String, ExpandError> {
        let Variable {
            name,
            source,
            modifier,
        } = variable;
        let set = self.env.get(name);
        if set.is_none() && self.env.is_open && !self.keep_unset {
            return Err(ExpandError::Unknown(name.clone()));
        }
        if set.is_none() && self.keep_unset {
            return Ok(source.clone());
        }
        let value = set.unwrap_or_default();
        self.work(value.len())?;
        let absent = |or_empty: &bool| set.is_none() || (*or_empty && value.is_empty());
        match modifier {
            Modifier::Default { word, or_empty } if absent(or_empty) => return self.nested(word),
            Modifier::Alternate { word, or_empty } if !absent(or_empty) => return self.nested(word),
            Modifier::Alternate { .. } => return Ok(String::new()),
            Modifier::Required { word, or_empty } if absent(or_empty) => {
                let mut message = self.nested(word)?;
                if message.is_empty() {
                    let state = if set.is_none() { "unset" } else { "empty" };
                    message = format!("is not allowed to be {state}");
                }
                return Err(ExpandError::Required(name.clone(), message));
            }
            Modifier::Default { .. } | Modifier::Required { .. } => return Ok(value.to_owned()),
            _ => {}
        }
        // The special names and positions are never set, and nobody expects them to be.
        if set.is_none() && name.starts_with(|first: char| first.is_alphabetic() || first == '_') {
            self.out.unset.push(name.clone());
        }
        Ok(match modifier {
            Modifier::TrimPrefix { pattern, longest } => {
                let pattern = self.pattern_for(pattern, value)?;
                glob::trim_prefix(&pattern, value, *longest)
            }
            Modifier::TrimSuffix { pattern, longest } => {
                let pattern = self.pattern_for(pattern, value)?;
                glob::trim_suffix(&pattern, value, *longest)
            }
            Modifier::Replace { pattern, with, all } => {
                let pattern = self.pattern_for(pattern, value)?;
                let with = self.nested(with)?;
                glob::replace(&pattern, value, &with, *all, self.limit)
                    .ok_or(ExpandError::TooLarge(self.limit))?
            }
            _ => value.to_owned(),
        })
    }

    /// Expands a pattern that is matched with `value`.
    fn pattern_for(&mut self, pieces: &[Piece], value: &str) -> Result<Vec<Token>, ExpandError> {
        let tokens = self.pattern(pieces)?;
        self.work(tokens.len().saturating_mul(value.len()))?;
        Ok(tokens)
    }

    /// Expands a pattern. Quotes don't protect wildcards in it, escapes do; and those may come from a variable.
    fn pattern(&mut self, pieces: &[Piece]) -> Result<Vec<Token>, ExpandError> {
        let text = self.nested(pieces)?;
        let tokens = glob::parse(&text).map_err(|escaped| {
            let shown: String = text.chars().take(128).collect();
            ExpandError::InvalidEscape(shown, escaped.map(String::from).unwrap_or_default())
        })?;
        if tokens.len() > MAX_PATTERN {
            return Err(ExpandError::PatternTooLong(MAX_PATTERN));
        }
        Ok(tokens)
    }
}
