//! Wildcard patterns, compiled: one component of a COPY source (Go's `filepath.Match`), or one line of an ignore
//! file (moby's `patternmatcher`, where `**` crosses slashes).
//!
//! Matching follows all alternatives at once, so its time is at most pattern × path, whatever the pattern.

/// One step of a pattern; characters are code points, bytes that aren't UTF-8 stand for themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(u32),
    /// `?`: one character but a slash.
    Any,
    Class {
        negated: bool,
        ranges: Vec<(u32, u32)>,
    },
    /// `*`: any run of characters without a slash.
    Star,
    /// `**` at the end: anything.
    Rest,
    /// `**/`: nothing, or anything up to and including a slash. Followed by its [`Token::Deep`].
    MaybeDeep,
    /// The inside of a [`Token::MaybeDeep`].
    Deep,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
    /// Bytes that every match begins and ends with: most paths are refused by these alone.
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    exact: bool,
}

/// Says whether a COPY source needs matching; a backslash keeps the next character from counting.
pub(super) fn has_wildcards(text: &[u8]) -> bool {
    let mut escaped = false;
    text.iter().any(|&byte| {
        let special = !escaped && matches!(byte, b'*' | b'?' | b'[');
        escaped = !escaped && byte == b'\\';
        special
    })
}

impl Pattern {
    /// Compiles one component of Go's `filepath.Match`; `None` when it is malformed.
    pub(super) fn component(text: &[u8]) -> Option<Self> {
        let mut rest = text;
        let mut tokens = Vec::new();
        while !rest.is_empty() {
            tokens.push(simple_token(&mut rest)?);
        }
        Some(Self::new(tokens))
    }

    /// Compiles a whole path of moby's `patternmatcher`; `None` when it is malformed.
    pub(super) fn ignore(text: &[u8]) -> Option<Self> {
        let mut rest = text;
        let mut tokens = Vec::new();
        if let Some(tail) = text.strip_prefix(b"**")
            && !tail.starts_with(b"/")
            && !tail.iter().any(|byte| b"*?[\\".contains(byte))
        {
            // `**name` alone is "ends with name"; in the company of other wildcards it isn't.
            tokens.push(Token::Rest);
            rest = tail;
        }
        while !rest.is_empty() {
            let Some(tail) = rest.strip_prefix(b"**") else {
                tokens.push(simple_token(&mut rest)?);
                continue;
            };
            rest = tail.strip_prefix(b"/").unwrap_or(tail);
            if rest.is_empty() {
                tokens.push(Token::Rest);
            } else {
                tokens.extend([Token::MaybeDeep, Token::Deep]);
            }
        }
        Some(Self::new(tokens))
    }

    fn new(tokens: Vec<Token>) -> Self {
        let literal = |token: &Token| match token {
            Token::Literal(c) => Some(encode(*c)),
            _ => None,
        };
        let prefix: Vec<u8> = tokens.iter().map_while(literal).flatten().collect();
        let n_last = tokens.iter().rev().map_while(literal).count();
        let suffix = tokens[tokens.len() - n_last..]
            .iter()
            .filter_map(literal)
            .flatten()
            .collect();
        Self {
            exact: n_last == tokens.len(),
            tokens,
            prefix,
            suffix,
        }
    }

    /// Says whether the whole of `text` matches.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        if self.exact {
            return text == self.prefix;
        }
        if !text.starts_with(&self.prefix) || !text.ends_with(&self.suffix) {
            return false;
        }
        let end = self.tokens.len();
        let mut states = vec![false; end + 1];
        self.enter(&mut states, 0);
        let mut next = vec![false; end + 1];
        let mut rest = text;
        while !rest.is_empty() {
            let c = decode(&mut rest);
            next.fill(false);
            for state in (0..end).filter(|&state| states[state]) {
                self.step(state, c, &mut next);
            }
            std::mem::swap(&mut states, &mut next);
        }
        states[end]
    }

    /// Marks `state` as reached, and what is reached from it without a character.
    fn enter(&self, states: &mut [bool], mut state: usize) {
        // What is reached from a marked state was marked with it: a run of stars costs its length once, not squared.
        while !states[state] {
            states[state] = true;
            match self.tokens.get(state) {
                Some(Token::Star | Token::Rest) => state += 1,
                Some(Token::MaybeDeep) => {
                    states[state + 1] = true;
                    state += 2;
                }
                _ => return,
            }
        }
    }

    fn step(&self, state: usize, c: u32, next: &mut [bool]) {
        let slash = u32::from(b'/');
        match &self.tokens[state] {
            Token::Literal(expected) if *expected == c => self.enter(next, state + 1),
            Token::Any if c != slash => self.enter(next, state + 1),
            Token::Class { negated, ranges } => {
                if ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated {
                    self.enter(next, state + 1);
                }
            }
            Token::Star if c != slash => self.enter(next, state),
            Token::Rest => self.enter(next, state),
            Token::Deep => {
                next[state] = true;
                if c == slash {
                    self.enter(next, state + 1);
                }
            }
            Token::Literal(_) | Token::Any | Token::Star | Token::MaybeDeep => {}
        }
    }
}

/// Takes one token that both dialects have.
fn simple_token(rest: &mut &[u8]) -> Option<Token> {
    let c = decode(rest);
    Some(match u8::try_from(c) {
        Ok(b'*') => Token::Star,
        Ok(b'?') => Token::Any,
        Ok(b'[') => class(rest)?,
        Ok(b'\\') if rest.is_empty() => return None,
        Ok(b'\\') => Token::Literal(decode(rest)),
        _ => Token::Literal(c),
    })
}

/// Takes the inside of a bracket expression and its end.
fn class(rest: &mut &[u8]) -> Option<Token> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&b']') && !ranges.is_empty() {
            *rest = &rest[1..];
            return Some(Token::Class { negated, ranges });
        }
        let low = class_character(rest)?;
        let high = match rest.strip_prefix(b"-") {
            Some(tail) => {
                *rest = tail;
                class_character(rest)?
            }
            None => low,
        };
        ranges.push((low, high));
    }
}

fn class_character(rest: &mut &[u8]) -> Option<u32> {
    match rest.first()? {
        b'-' | b']' => None,
        b'\\' => {
            *rest = &rest[1..];
            (!rest.is_empty()).then(|| decode(rest))
        }
        _ => Some(decode(rest)),
    }
}

/// Bytes that aren't UTF-8 get numbers above all code points.
const RAW_BYTES: u32 = 0x11_0000;

/// Takes the first character of a text that isn't empty.
fn decode(rest: &mut &[u8]) -> u32 {
    let first = rest[0];
    let length = match first {
        0..=0x7f => {
            *rest = &rest[1..];
            return first.into();
        }
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let text = rest
        .get(..length)
        .and_then(|bytes| std::str::from_utf8(bytes).ok());
    match text.and_then(|text| text.chars().next()) {
        Some(c) => {
            *rest = &rest[length..];
            c.into()
        }
        None => {
            *rest = &rest[1..];
            RAW_BYTES + u32::from(first)
        }
    }
}

fn encode(c: u32) -> Vec<u8> {
    match char::from_u32(c) {
        Some(c) => c.to_string().into_bytes(),
        None => vec![u8::try_from(c - RAW_BYTES).expect("because only raw bytes lie above the code points")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(compile: fn(&[u8]) -> Option<Pattern>, table: &str) {
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (pattern, cases) = line.split_once(" : ").unwrap();
            let compiled = compile(pattern.trim().as_bytes());
            if cases.trim() == "bad" {
                assert!(compiled.is_none(), "{line}");
                continue;
            }
            let compiled = compiled.unwrap_or_else(|| panic!("{line}: malformed"));
            for case in cases.split_whitespace() {
                let (text, expected) = case.strip_prefix('-').map_or((case, true), |text| (text, false));
                assert_eq!(
                    compiled.matches(text.as_bytes()),
                    expected,
                    "`{pattern}` on `{text}`"
                );
            }
        }
    }

    /// Go's own table for `filepath.Match`, a `-` before what must not match.
    #[test]
    fn components_match_as_in_go() {
        check(
            Pattern::component,
            r"
            abc : abc -abcd -ab
            * : abc a
            *c : abc -abcd
            a* : a abc -ba
            a*b*c*d*e*x : axbxcxdxexxx -axbxcxdxexxxf axbxcxdxexxx
            a*b?c*x : abxbbxdbxebxczzx -abxbbxdbxebxczzy
            ab[c] : abc -abd
            ab[b-d] : abc -abe
            ab[e-g] : -abc
            ab[^c] : -abc abd
            ab[^b-d] : -abc abe
            a\*b : a*b -ab
            a?b : a☺b -a☺☺b
            a[^a]b : a☺b
            a???b : -a☺b
            [a-ζ]* : α
            *[a-ζ] : -A
            a?b : -a/b
            a*b : -a/b
            [\]a] : ] a
            [x\-] : x -z
            []a] : bad
            [-] : bad
            [x-] : bad
            [-x] : bad
            \ : bad
            [a-b-c] : bad
            [ : bad
            [^ : bad
            [^bc : bad
            a[ : bad
            *x : xxx
            [[]x] : [x]
            ",
        );
    }

    /// Behaviour of moby's patternmatcher.
    #[test]
    fn ignore_lines_match_as_in_moby() {
        check(
            Pattern::ignore,
            r"
            ** : file file/ dir/file
            **/ : file file/ dir/file
            **/** : dir/file dir/file/
            dir/** : dir/file dir/dir2/file -dir -dirx/file
            **/dir : dir dir/dir a/b/dir -xdir -dir/file
            **/dir2/* : dir/dir2/file dir2/x -dir/dir2/file/x
            **file : file dir/file dir/dir.file -file/oops
            **/file : file dir/file dir/dir/file -dir/dir.file
            **/file* : dir/file dir/file.txt -file/oops
            **file*txt : file.txt dir/file.txt
            **/**/*.txt : dir/dir/file.txt file.txt -file.txt/oops
            **/*.txt : file.txt a/b.txt -a/b.txtx
            a**/*.txt : a/file.txt a/dir/file.txt a/dir/dir/file.txt
            a/*.txt : -a/dir/file.txt a/file.txt -a/file.txt/oops
            a[b-d]e : -ae ace -aee
            a/**/b : a/b a/x/b a/x/y/b -ab -a/xb
            abc.def : abc.def -abcdef -abcZdef
            abc?def : abcZdef -abcdef -abc/def
            a\\b : a\b
            a\*b : a*b -axb
            **/foo/bar : foo/bar dir/foo/bar abc/foo/bar -foo/bar/x
            abc/** : -abc abc/def abc/def/ghi
            **/.* : .foo .config/.x -a.foo bar/.foo
            a.| : a.| -ab|
            *☺? : x☺y -x☺
            ",
        );
    }

    #[test]
    fn hostile_patterns_stay_cheap() {
        let pattern = Pattern::ignore("**/*a".repeat(200).as_bytes()).unwrap();
        let mut text = "a/".repeat(150).into_bytes();
        assert!(!pattern.matches(&text));
        text.push(b'a');
        assert!(
            !pattern.matches(&text),
            "there are only 151 places for 200 letters"
        );
        assert!(
            pattern.matches(
                "a/".repeat(199)
                    .as_bytes()
                    .iter()
                    .copied()
                    .chain(*b"a")
                    .collect::<Vec<_>>()
                    .as_slice()
            )
        );
    }

    /// Squared, the length of these would be minutes.
    #[test]
    fn long_runs_of_wildcards_cost_their_length() {
        let name = [b'a'; 255];
        let stars = Pattern::component(&[b'*'; 60_000]).unwrap();
        assert!(stars.matches(&name));
        let mixed = Pattern::component("*?".repeat(30_000).as_bytes()).unwrap();
        assert!(!mixed.matches(&name));
        let path = "a/".repeat(200) + "b";
        let deep = Pattern::ignore(("**/".repeat(20_000) + "a*a*a*b").as_bytes()).unwrap();
        assert!(!deep.matches(path.as_bytes()));
        let deep = Pattern::ignore(("**/".repeat(20_000) + "b").as_bytes()).unwrap();
        assert!(deep.matches(path.as_bytes()));
    }

    #[test]
    fn wildcards_are_seen_unless_escaped() {
        for (text, expected) in [
            ("a*", true),
            (r"a\*", false),
            (r"a\\*", true),
            ("[", true),
            ("a]", false),
        ] {
            assert_eq!(has_wildcards(text.as_bytes()), expected, "{text}");
        }
    }
}
