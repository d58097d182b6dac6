//! What the program says when it is not drawing progress: results on stdout, notes and errors on stderr.
//!
//! Besides `progress/` the only room that prints. It knows how a failure looks and which exit code it means; it
//! doesn't know what failed: the rooms' errors become a [`Failure`] where they are understood.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use crate::remedy::{self, Remedy};

/// Longest cause chain that is shown; errors are ours, but their sources may be anybody's.
const MAX_CAUSES: usize = 16;

/// What a failure means for whoever started the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The build failed: the Dockerfile, a step, a missing file. Exit code 1.
    Build,
    /// The command line. Exit code 2.
    Usage,
    /// The machine or the network: disk, kernel, registry, output. Exit code 3.
    Machine,
    /// A signal asked to stop. Exit code 128 and the signal's number.
    Cancelled(i32),
    /// It took longer than it was allowed to. Exit code 124, as with timeout(1).
    TimedOut,
    /// Whoever read stdout went away. Says nothing; exit code 141, as SIGPIPE would make it.
    Hangup,
    /// Our own mistake. Exit code 101.
    Bug,
}

/// The place in a file that a failure is about, with the lines to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// The file, as the user named it.
    pub(crate) file: String,
    /// Number of the first of `lines`, from 1.
    pub(crate) line: usize,
    /// Which of `lines` is meant, from 0.
    pub(crate) marked: usize,
    /// Column of it that is meant, in characters, from 1.
    pub(crate) column: usize,
    /// How many of its characters are marked; 0 marks nothing.
    pub(crate) width: usize,
    /// Text beside the mark.
    pub(crate) label: Option<String>,
    /// The lines, as written.
    pub(crate) lines: Vec<String>,
}

/// Why the program ends without success, in the parts that are shown.
///
/// Made by one of the constructors and refined by the `with_…` methods. Texts may hold anything: control characters
/// are made visible when it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    /// Boxed, because results are passed on more often than failures are made.
    parts: Box<Parts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Parts {
    message: String,
    rendered: Vec<String>,
    excerpt: Option<Excerpt>,
    tail: Vec<String>,
    causes: Vec<String>,
    help: Option<String>,
    remedy: Option<Remedy>,
}

impl Failure {
    /// Makes a failure of any kind. `message` says what happened: lower case, no period.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let parts = Parts {
            message: message.into(),
            ..Parts::default()
        };
        Self {
            kind,
            parts: Box::new(parts),
        }
    }

    /// The build failed.
    pub(crate) fn build(message: impl Into<String>) -> Self {
        Self::new(Kind::Build, message)
    }

    /// The command line is wrong, or asks for what isn't supported.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The machine or the network failed.
    pub(crate) fn machine(message: impl Into<String>) -> Self {
        Self::new(Kind::Machine, message)
    }

    /// A signal asked to stop.
    pub(crate) fn cancelled(signal: i32) -> Self {
        Self::new(Kind::Cancelled(signal), "cancelled")
    }

    /// Our own mistake.
    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// Makes a failure of an error: its own message, its sources as causes, and what can be done about them.
    pub(crate) fn of(kind: Kind, error: &(dyn Error + 'static)) -> Self {
        Self::new(kind, error.to_string()).with_causes_of(error)
    }

    /// Makes a failure whose whole text was made elsewhere: `frontend::render`'s diagnostics, in order, which are
    /// harmless for terminals already.
    pub(crate) fn rendered(kind: Kind, diagnostics: Vec<String>) -> Self {
        let parts = Parts {
            rendered: diagnostics,
            ..Parts::default()
        };
        Self {
            kind,
            parts: Box::new(parts),
        }
    }

    /// Adds the sources of `error`, but not its own message. A source whose text its parent repeats is left out.
    pub(crate) fn with_causes_of(mut self, error: &(dyn Error + 'static)) -> Self {
        self.parts.remedy = self.parts.remedy.or_else(|| remedy::of_error(error));
        let mut said = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next.filter(|_| self.parts.causes.len() < MAX_CAUSES) {
            let text = cause.to_string();
            if !said.contains(&text) {
                self.parts.causes.push(text.clone());
            }
            said = text;
            next = cause.source();
        }
        self
    }

    /// Adds `error` as a cause, and its sources.
    pub(crate) fn caused_by(mut self, error: &(dyn Error + 'static)) -> Self {
        self.parts.causes.push(error.to_string());
        self.with_causes_of(error)
    }

    /// Says what to do.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.parts.help = Some(help.into());
        self
    }

    /// Says where in a file.
    pub(crate) fn with_excerpt(mut self, excerpt: Excerpt) -> Self {
        self.parts.excerpt = Some(excerpt);
        self
    }

    /// Adds the last lines that the failed step wrote.
    pub(crate) fn with_tail(mut self, lines: Vec<String>) -> Self {
        self.parts.tail = lines;
        self
    }

    /// Takes away what could be done about it: it was done, or mustn't be.
    pub(crate) fn take_remedy(&mut self) -> Option<Remedy> {
        self.parts.remedy.take()
    }

    /// Returns what happened, without the rest.
    pub(crate) fn message(&self) -> &str {
        &self.parts.message
    }

    /// Returns what kind of failure it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the exit code of the program.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Build => 1,
            Kind::Usage => 2,
            Kind::Machine => 3,
            Kind::Cancelled(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(0)),
            Kind::TimedOut => 124,
            Kind::Hangup => 141,
            Kind::Bug => 101,
        }
    }

    /// Returns the text for people, with a newline at the end. `colour` adds ANSI colours, and nothing else.
    pub(crate) fn render(&self, colour: bool) -> String {
        let mut out = self.parts.rendered.concat();
        if self.kind == Kind::Hangup {
            return out;
        }
        if !self.parts.message.is_empty() {
            push(&mut out, &paint("1;31", "error", colour), &self.parts.message);
        }
        if let Some(excerpt) = &self.parts.excerpt {
            show_excerpt(&mut out, excerpt);
        }
        if !self.parts.tail.is_empty() {
            out.push_str("last output of the step:\n");
            for line in &self.parts.tail {
                let _ = writeln!(out, "  | {}", visible(line));
            }
        }
        for cause in &self.parts.causes {
            push(&mut out, "caused by", cause);
        }
        if let Some(help) = &self.parts.help {
            push(&mut out, &paint("1;36", "help", colour), help);
        }
        if self.kind == Kind::Bug {
            push(
                &mut out,
                &paint("1;36", "help", colour),
                "this is a bug in ashlar; please report it",
            );
        }
        out
    }
}

fn push(out: &mut String, word: &str, text: &str) {
    let _ = writeln!(out, "{word}: {}", visible(text).replace('\n', "\n  "));
}

fn paint(code: &str, text: &str, colour: bool) -> String {
    match colour {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

fn show_excerpt(out: &mut String, excerpt: &Excerpt) {
    let Excerpt {
        file, line, column, ..
    } = excerpt;
    let last = line + excerpt.lines.len().saturating_sub(1);
    let gutter = last.to_string().len();
    let meant = line + excerpt.marked;
    let _ = writeln!(out, "{:gutter$}--> {}:{meant}:{column}", "", visible(file));
    for (number, text) in (*line..).zip(&excerpt.lines) {
        let _ = writeln!(out, "{number:gutter$} | {}", visible(text).replace('\t', " "));
        if number == meant && excerpt.width > 0 {
            let indent = column.saturating_sub(1);
            let marks = "^".repeat(excerpt.width);
            let label = excerpt.label.as_deref().map(visible).unwrap_or_default();
            let mark = format!("{:gutter$} | {:indent$}{marks} {label}", "", "");
            let _ = writeln!(out, "{}", mark.trim_end());
        }
    }
}

/// Makes control characters visible, but for line breaks and tabs: texts come from files and registries.
fn visible(text: &str) -> String {
    text.trim_end_matches('\n')
        .chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\u{7f}' => '\u{2421}',
            c if c < ' ' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
            c if c.is_control() || is_bidi(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Returns text of images and Dockerfiles as one line that does a terminal no harm, for results.
pub(crate) fn one_line(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

/// Characters that reorder what follows them, and so could make a message read as another one.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Says whether stderr may be coloured: a terminal, and nobody set `NO_COLOR`.
pub(crate) fn stderr_colour() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns stdout, for results that aren't text of ours: an archive, the output of a container.
pub(crate) fn stdout() -> io::Stdout {
    io::stdout()
}

/// Returns stderr, for a container's output.
pub(crate) fn stderr() -> io::Stderr {
    io::stderr()
}

/// Writes a result to stdout, whole or not at all as far as the program can tell.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| stdout_failure(&error))
}

/// Explains why stdout could not be written.
pub(crate) fn stdout_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Kind::Hangup, ""),
        _ => Failure::machine(format!("cannot write to stdout: {error}")),
    }
}

/// Shows text on stderr that clap made: a usage error.
pub(crate) fn usage(text: &str) {
    talk(text);
}

/// Shows a diagnostic that was made harmless and laid out elsewhere.
pub(crate) fn rendered(text: &str) {
    talk(text);
}

/// Says something worth knowing.
pub(crate) fn note(text: &str) {
    talk(&format!("note: {}\n", visible(text)));
}

/// Asks something; the answer is typed behind it.
pub(crate) fn question(text: &str) {
    talk(text);
}

/// Says something that may surprise later.
pub(crate) fn warn(text: &str) {
    talk(&format!(
        "{}: {}\n",
        paint("1;33", "warning", stderr_colour()),
        visible(text)
    ));
}

/// Shows why the program fails.
pub(crate) fn error(failure: &Failure) {
    talk(&failure.render(stderr_colour()));
}

/// Talk that nobody can hear is not worth failing for: the exit code still says what happened. Whatever it quotes, it tells
/// nobody the secrets of an address.
fn talk(text: &str) {
    let _ = io::stderr().lock().write_all(frontend::redact(text).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failure: &Failure, expected: &str, code: u8) {
        assert_eq!(failure.render(false), expected);
        assert_eq!(failure.exit_code(), code);
    }

    #[test]
    fn failures_show_their_parts_in_order() {
        let failure = Failure::build("process `/bin/sh -c make` did not complete successfully: exit code: 2")
            .with_excerpt(Excerpt {
                file: "Dockerfile".to_owned(),
                line: 9,
                marked: 0,
                column: 1,
                width: 3,
                label: Some("in stage build".to_owned()),
                lines: vec!["RUN make \\".to_owned(), "\t-j8".to_owned()],
            })
            .with_tail(vec![
                "cc: not found".to_owned(),
                "make: *** [a] Error 127".to_owned(),
            ])
            .caused_by(&io::Error::other("something deeper"))
            .with_help("install a compiler");
        insta::assert_snapshot!(failure.render(false), @r"
        error: process `/bin/sh -c make` did not complete successfully: exit code: 2
          --> Dockerfile:9:1
         9 | RUN make \
           | ^^^ in stage build
        10 |  -j8
        last output of the step:
          | cc: not found
          | make: *** [a] Error 127
        caused by: something deeper
        help: install a compiler
        ");
    }

    #[test]
    fn kinds_have_their_exit_codes() {
        check(&Failure::build("x"), "error: x\n", 1);
        check(&Failure::usage("x"), "error: x\n", 2);
        check(&Failure::machine("x"), "error: x\n", 3);
        check(&Failure::cancelled(2), "error: cancelled\n", 130);
        check(&Failure::cancelled(15), "error: cancelled\n", 143);
        check(&Failure::new(Kind::TimedOut, "x"), "error: x\n", 124);
        check(&Failure::new(Kind::Hangup, ""), "", 141);
        check(
            &Failure::bug("x"),
            "error: x\nhelp: this is a bug in ashlar; please report it\n",
            101,
        );
        check(
            &Failure::rendered(
                Kind::Build,
                vec!["error: a\n".to_owned(), "error: b\n".to_owned()],
            ),
            "error: a\nerror: b\n",
            1,
        );
    }

    #[test]
    fn texts_cannot_drive_the_terminal() {
        check(
            &Failure::build("a\x1b[2Jb\u{202e}c\u{9b}d\x7f\nsecond"),
            "error: a␛[2Jb\u{fffd}c\u{fffd}d␡\n  second\n",
            1,
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn causes_are_shown_once() {
        let inner = Link {
            text: "no space left",
            source: None,
        };
        let middle = Link {
            text: "cannot write x",
            source: Some(Box::new(inner)),
        };
        let outer = Link {
            text: "cannot commit: cannot write x",
            source: Some(Box::new(middle)),
        };
        check(
            &Failure::of(Kind::Machine, &outer),
            "error: cannot commit: cannot write x\ncaused by: no space left\n",
            3,
        );
    }

    #[test]
    fn a_reader_that_left_is_no_error_message() {
        assert_eq!(
            stdout_failure(&io::ErrorKind::BrokenPipe.into()).kind(),
            Kind::Hangup
        );
        assert_eq!(stdout_failure(&io::Error::from_raw_os_error(28)).exit_code(), 3);
    }
}
