//! Makes what steps write safe to show: on a terminal, in a CI log, in an error report.
//!
//! Output of a step may try to move the cursor, set the clipboard, ask the terminal questions or forge lines of ours.
//! Colours (SGR) pass if asked for; every other escape sequence, control character and direction override goes. What
//! comes out is lines of bounded length, whatever comes in; the raw bytes are the log file's business.

/// Longer lines are broken.
const LINE_BYTES: usize = 8 << 10;

/// Longer parameters of an escape sequence aren't a colour.
const SGR_BYTES: usize = 48;

/// Where in a control sequence the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    /// After ESC.
    Escape,
    /// After `ESC [`.
    Csi,
    /// In an OSC, DCS, APC, PM or SOS string, up to BEL or ST, or the line's end: one that is never ended must not hide the
    /// rest.
    Text,
    /// In such a string, after ESC.
    TextEscape,
}

/// Turns the bytes of one stream into safe lines. Memory is bounded by one line.
#[derive(Debug)]
pub(crate) struct Sanitizer {
    keep_colours: bool,
    state: State,
    /// Parameters of the sequence that is being read.
    parameters: String,
    /// Start of a UTF-8 character whose rest has not come yet.
    partial: Vec<u8>,
    line: String,
    coloured: bool,
    /// A carriage return came: what follows overwrites the line, unless it is a line feed.
    returned: bool,
}

impl Sanitizer {
    /// Returns a sanitizer at the start of a line.
    pub(crate) fn new(keep_colours: bool) -> Self {
        Self {
            keep_colours,
            state: State::Ground,
            parameters: String::new(),
            partial: Vec::new(),
            line: String::new(),
            coloured: false,
            returned: false,
        }
    }

    /// Takes bytes and passes every line that they complete to `emit`.
    pub(crate) fn push(&mut self, bytes: &[u8], emit: &mut impl FnMut(String)) {
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            joined = [&self.partial[..], bytes].concat();
            self.partial.clear();
            &joined[..]
        };
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.push_text(text, emit);
                    return;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    let good = std::str::from_utf8(good).expect("because it is valid up to there");
                    self.push_text(good, emit);
                    match error.error_len() {
                        Some(length) => {
                            self.take(char::REPLACEMENT_CHARACTER, emit);
                            rest = &bad[length..];
                        }
                        None => {
                            // At most three bytes: the start of one character.
                            self.partial.extend_from_slice(bad);
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Ends the stream: returns the line that no line feed ended.
    pub(crate) fn finish(&mut self) -> Option<String> {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.line.push(char::REPLACEMENT_CHARACTER);
        }
        self.state = State::Ground;
        self.returned = false;
        (!self.line.is_empty()).then(|| self.end_line())
    }

    /// Returns the line so far.
    pub(crate) fn current(&self) -> &str {
        &self.line
    }

    fn push_text(&mut self, text: &str, emit: &mut impl FnMut(String)) {
        for character in text.chars() {
            self.take(character, emit);
        }
    }

    fn take(&mut self, character: char, emit: &mut impl FnMut(String)) {
        self.state = match (self.state, character) {
            // A new sequence interrupts any other; a line feed ends what was left open by mistake.
            (State::Text, '\u{1b}') => State::TextEscape,
            (_, '\u{1b}') => State::Escape,
            (State::Ground, _) | (_, '\n') => {
                self.take_plain(character, emit);
                State::Ground
            }
            (State::Escape, '[') => {
                self.parameters.clear();
                State::Csi
            }
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => State::Text,
            // Intermediates of a longer sequence, such as `ESC ( B`.
            (State::Escape, ' '..='/') => State::Escape,
            (State::Escape, _) => State::Ground,
            (State::Csi, 'm') => {
                self.take_colour(emit);
                State::Ground
            }
            (State::Csi, '@'..='~') => State::Ground,
            (State::Csi, _) => {
                if self.parameters.len() < SGR_BYTES {
                    self.parameters.push(character);
                }
                State::Csi
            }
            (State::Text, '\u{7}' | '\u{9c}') | (State::TextEscape, '\\') => State::Ground,
            (State::Text | State::TextEscape, _) => State::Text,
        };
    }

    fn take_plain(&mut self, character: char, emit: &mut impl FnMut(String)) {
        match character {
            '\n' => {
                self.returned = false;
                emit(self.end_line());
            }
            '\r' => self.returned = true,
            '\t' => self.append("\t", emit),
            _ if is_unsafe(character) => {}
            _ => self.append(character.encode_utf8(&mut [0; 4]), emit),
        }
    }

    fn take_colour(&mut self, emit: &mut impl FnMut(String)) {
        let is_sgr = self.parameters.len() < SGR_BYTES
            && self
                .parameters
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b';' || byte == b':');
        if self.keep_colours && is_sgr {
            let sequence = format!("\u{1b}[{}m", self.parameters);
            self.append(&sequence, emit);
            self.coloured = true;
        }
    }

    fn append(&mut self, text: &str, emit: &mut impl FnMut(String)) {
        if std::mem::take(&mut self.returned) {
            self.line.clear();
            self.coloured = false;
        }
        if self.line.len() + text.len() > LINE_BYTES {
            emit(self.end_line());
        }
        self.line.push_str(text);
    }

    fn end_line(&mut self) -> String {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.coloured) {
            line.push_str("\u{1b}[0m");
        }
        line
    }
}

/// Says whether a character does something else than stand there.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// Makes one line of safe text of a name or message: line breaks and tabs become spaces, colours go.
pub(crate) fn one_line(text: &str) -> String {
    let spaced: String = frontend::redact(text)
        .chars()
        .map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c })
        .collect();
    let mut sanitizer = Sanitizer::new(false);
    let mut out = String::new();
    sanitizer.push(spaced.as_bytes(), &mut |line| out.push_str(&line));
    out.push_str(&sanitizer.finish().unwrap_or_default());
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(keep_colours: bool, chunks: &[&[u8]]) -> Vec<String> {
        let mut sanitizer = Sanitizer::new(keep_colours);
        let mut lines = Vec::new();
        for chunk in chunks {
            sanitizer.push(chunk, &mut |line| lines.push(line));
        }
        lines.extend(sanitizer.finish());
        lines
    }

    #[track_caller]
    fn check(input: &[u8], expected: &[&str]) {
        assert_eq!(lines(true, &[input]), expected, "in one piece");
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(lines(true, &bytes), expected, "byte by byte");
    }

    #[test]
    fn text_and_colours_pass() {
        check(b"a\tb\nc", &["a\tb", "c"]);
        check("gr\u{fc}n \u{65e5}\n\n".as_bytes(), &["gr\u{fc}n \u{65e5}", ""]);
        check(b"\x1b[1;31mred\x1b[0m x\n", &["\x1b[1;31mred\x1b[0m x\x1b[0m"]);
        assert_eq!(lines(false, &[b"\x1b[1;31mred\x1b[m x\n"]), ["red x"]);
    }

    #[test]
    fn what_acts_on_the_terminal_goes() {
        check(b"a\x1b]52;c;aGk=\x07b\n", &["ab"]);
        check(b"a\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\\n", &["ab"]);
        check(b"\x1b[2J\x1b[6n\x1b[?1049h\x1b[10;10Hx\x1b(B\x1bcy\n", &["xy"]);
        check(b"a\x1bP1;2q...\x1b\\b\x1b_x\x1b\\c\n", &["abc"]);
        check("a\u{9b}2Jb\u{90}\u{202e}c\u{2066}\n".as_bytes(), &["a2Jbc"]);
        check(b"a\0\x08\x07\x7f\x0eb\n", &["ab"]);
        check(b"\x1b[>4;1mx\x1b[31\nnext\n", &["x", "next"]);
        check(
            b"a\x1b]0;never ended\nnext\x1bP\x1b\nlast\n",
            &["a", "next", "last"],
        );
        check(b"\x1b[31;\x1b[1mx\n", &["\x1b[1mx\x1b[0m"]);
    }

    #[test]
    fn a_carriage_return_overwrites() {
        check(b"10%\r20%\r30%\n", &["30%"]);
        check(b"dos\r\nlines\r\n", &["dos", "lines"]);
        check(b"last\r", &["last"]);
    }

    #[test]
    fn invalid_text_is_marked() {
        check(
            b"a\xff\xc3(\xed\xa0\x80b\n",
            &["a\u{fffd}\u{fffd}(\u{fffd}\u{fffd}\u{fffd}b"],
        );
        check(b"cut \xe6\x97", &["cut \u{fffd}"]);
    }

    #[test]
    fn endless_lines_and_sequences_take_constant_memory() {
        let mut sanitizer = Sanitizer::new(true);
        let mut n_lines = 0;
        for start in [&b""[..], b"\x1b[", b"\x1b]0;"] {
            sanitizer.push(start, &mut |_| ());
            for _ in 0..64 {
                sanitizer.push(&[b'1'; 4096], &mut |line| {
                    assert!(line.len() <= LINE_BYTES + 4);
                    n_lines += 1;
                });
                assert!(
                    sanitizer.line.capacity() <= 4 * LINE_BYTES && sanitizer.parameters.len() <= SGR_BYTES
                );
            }
        }
        assert_eq!(n_lines, 31);
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(
            one_line("RUN \x1b[31ma\n  b\u{202e}\t\x1b]0;x\x07c\n"),
            "RUN a   b c"
        );
    }
}
