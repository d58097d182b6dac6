//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?` only, matched in time linear in the value.

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// `*`
    Many,
    /// `?`
    One,
    /// Itself.
    Char(char),
}

/// Reads a pattern. The error is the character that needs no escape, `None` for an escape at the end.
pub(crate) fn parse(text: &str) -> Result<Vec<Token>, Option<char>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        tokens.push(match char {
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => match chars.next() {
                // The slash and the brace are escaped for the substitution around the pattern.
                Some(next @ ('*' | '?' | '\\' | '/' | '}')) => Token::Char(next),
                other => return Err(other),
            },
            other => Token::Char(other),
        });
    }
    Ok(tokens)
}

/// The set of positions in a pattern that a text read so far may stand at.
struct Positions<'a> {
    tokens: &'a [Token],
    active: Vec<bool>,
}

impl<'a> Positions<'a> {
    fn new(tokens: &'a [Token]) -> Self {
        let mut positions = Self {
            tokens,
            active: vec![false; tokens.len() + 1],
        };
        positions.begin();
        positions
    }

    /// Adds the start of the pattern, and what is reached from it without reading.
    fn begin(&mut self) {
        self.active[0] = true;
        self.skip_stars();
    }

    fn skip_stars(&mut self) {
        for (at, token) in self.tokens.iter().enumerate() {
            self.active[at + 1] |= self.active[at] && *token == Token::Many;
        }
    }

    fn read(&mut self, char: char) {
        // From the back, so that each position is read before it is overwritten.
        self.active[self.tokens.len()] = false;
        for (at, token) in self.tokens.iter().enumerate().rev() {
            let stood = std::mem::replace(&mut self.active[at], false);
            match token {
                Token::Many => self.active[at] = stood,
                Token::One => self.active[at + 1] |= stood,
                Token::Char(wanted) => self.active[at + 1] |= stood && *wanted == char,
            }
        }
        self.skip_stars();
    }

    fn accepts(&self) -> bool {
        self.active[self.tokens.len()]
    }

    fn is_dead(&self) -> bool {
        !self.active.contains(&true)
    }
}

/// Returns the shortest or longest number of leading characters that the pattern matches.
fn prefix(tokens: &[Token], chars: &[char], longest: bool) -> Option<usize> {
    let mut positions = Positions::new(tokens);
    let mut found = positions.accepts().then_some(0);
    for (at, char) in chars.iter().enumerate() {
        if (found.is_some() && !longest) || positions.is_dead() {
            break;
        }
        positions.read(*char);
        if positions.accepts() {
            found = Some(at + 1);
        }
    }
    found
}

/// Removes the shortest or longest matching prefix.
pub(crate) fn trim_prefix(tokens: &[Token], value: &str, longest: bool) -> String {
    let chars: Vec<char> = value.chars().collect();
    let cut = prefix(tokens, &chars, longest).unwrap_or(0);
    chars[cut..].iter().collect()
}

/// Removes the shortest or longest matching suffix.
pub(crate) fn trim_suffix(tokens: &[Token], value: &str, longest: bool) -> String {
    let reversed: Vec<Token> = tokens.iter().rev().copied().collect();
    let chars: Vec<char> = value.chars().rev().collect();
    let cut = prefix(&reversed, &chars, longest).unwrap_or(0);
    chars[cut..].iter().rev().collect()
}

/// Replaces the first match, or all; each match is the leftmost, then the longest. An empty match counts, but not right
/// behind another one. `None` when the result would be longer than `limit` bytes.
pub(crate) fn replace(tokens: &[Token], value: &str, with: &str, all: bool, limit: usize) -> Option<String> {
    let chars: Vec<char> = value.chars().collect();
    let starts = starts(tokens, &chars);
    let may_be_empty = tokens.iter().all(|token| *token == Token::Many);
    let mut out = String::new();
    let mut at = 0;
    let mut done = false;
    let mut is_behind_match = false;
    while at <= chars.len() {
        let length = match starts.get(at) {
            _ if done => None,
            Some(true) => prefix(tokens, &chars[at..], true),
            _ => (may_be_empty && !is_behind_match).then_some(0),
        };
        if let Some(length) = length {
            out.push_str(with);
            done = !all;
            at += length;
        }
        is_behind_match = length.is_some_and(|length| length > 0);
        if !is_behind_match {
            out.extend(chars.get(at));
            at += 1;
        }
        if out.len() > limit {
            return None;
        }
    }
    Some(out)
}

/// Says for each character whether a match starts there: the reversed pattern is run over the reversed text once.
fn starts(tokens: &[Token], chars: &[char]) -> Vec<bool> {
    let reversed: Vec<Token> = tokens.iter().rev().copied().collect();
    let mut positions = Positions::new(&reversed);
    let mut starts = vec![false; chars.len()];
    for (at, char) in chars.iter().enumerate().rev() {
        positions.read(*char);
        starts[at] = positions.accepts();
        positions.begin();
    }
    starts
}
