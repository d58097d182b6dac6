//! Shows what happens during a build, on stderr, from a thread of its own.
//!
//! Decides nothing and keeps nothing but the last lines of every step, for the error report. Results go to stdout
//! elsewhere; the error report is `report`'s.

mod plain;
mod rawjson;
mod sanitize;
mod steps;
mod tty;

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use cache::Wait;
use solver::{Event, Events, Graph, Subject};

pub(crate) use rawjson::{warnings as json_warnings, warnings_line as json_warnings_line};
pub(crate) use sanitize::{Sanitizer, one_line};
pub(crate) use steps::Told;
use steps::{Steps, Update};
use tty::{Look, Size};

/// How long nothing may happen until time itself is shown to pass.
const TICK: Duration = Duration::from_millis(100);

/// A way of showing progress (`--progress`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A live picture on a terminal, a log otherwise.
    Auto,
    /// A log.
    Plain,
    /// A live picture.
    Tty,
    /// JSON for programs.
    RawJson,
    /// Nothing; the caller prints the result's digest only.
    Quiet,
    /// Nothing.
    None,
}

/// Says that a mode isn't one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid progress mode `{0}`: expected auto, plain, tty, rawjson, quiet or none")]
pub(crate) struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        Ok(match text {
            "auto" => Self::Auto,
            "plain" => Self::Plain,
            "tty" => Self::Tty,
            "rawjson" => Self::RawJson,
            "quiet" => Self::Quiet,
            "none" => Self::None,
            _ => return Err(UnknownMode(one_line(text))),
        })
    }
}

/// How progress is shown.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The mode asked for.
    pub(crate) mode: Mode,
    /// Uses colours, and lets those of steps pass.
    pub(crate) colour: bool,
    /// Height of a step's log window.
    pub(crate) log_lines: usize,
    /// The terminal can't move its cursor.
    pub(crate) dumb: bool,
    /// What is being done, for the headline of a live picture.
    pub(crate) verb: &'static str,
}

impl Settings {
    /// Returns what the environment wants: `NO_COLOR`, `TERM`, `BUILDKIT_TTY_LOG_LINES`.
    pub(crate) fn from_environment(mode: Mode) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let log_lines = set("BUILDKIT_TTY_LOG_LINES").and_then(|value| value.to_str()?.parse().ok());
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        Self {
            mode,
            colour: set("NO_COLOR").is_none() && !dumb,
            log_lines: log_lines.unwrap_or(6),
            dumb,
            verb: "Building",
        }
    }

    /// Says whether a picture can be shown that moves.
    fn is_live(&self) -> bool {
        match self.mode {
            Mode::Auto => std::io::stderr().is_terminal() && !self.dumb,
            Mode::Tty => !self.dumb,
            _ => false,
        }
    }
}

/// Returns how waiting for another process is shown: as a step of its own.
pub(crate) fn of_wait(wait: Wait<'_>) -> Event {
    match wait {
        Wait::Begun(line) => Event::Started {
            subject: Subject::internal(line),
            why: None,
        },
        Wait::Over(line, took) => Event::Finished {
            subject: Subject::internal(line),
            took,
        },
    }
}

/// One way of showing updates. `now` is time since the build began.
trait Display {
    /// Shows what just happened.
    fn show(&mut self, update: &Update, steps: &Steps, now: Duration);
    /// Is called every now and then.
    fn tick(&mut self, steps: &Steps, now: Duration);
    /// Shows what remains, and leaves the terminal as it was.
    fn finish(&mut self, steps: &Steps, now: Duration);
}

/// Shows nothing.
struct Silent;

impl Display for Silent {
    fn show(&mut self, _: &Update, _: &Steps, _: Duration) {}
    fn tick(&mut self, _: &Steps, _: Duration) {}
    fn finish(&mut self, _: &Steps, _: Duration) {}
}

/// Progress that is being shown. Dropping it ends the display and restores the terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    events: Events,
    names: Arc<OnceLock<Vec<String>>>,
    thread: Option<JoinHandle<Told>>,
}

impl Progress {
    /// Starts to show progress on stderr.
    pub(crate) fn start(settings: Settings) -> Self {
        let (events, receiver) = Events::channel();
        let names = Arc::<OnceLock<Vec<String>>>::default();
        let known = Arc::clone(&names);
        let thread = std::thread::spawn(move || {
            let (mut display, keep_colours) = display(&settings);
            show_all(&receiver, &mut *display, Steps::new(known, keep_colours))
        });
        Self {
            events,
            names,
            thread: Some(thread),
        }
    }

    /// Starts a live picture of something else than a build, on a terminal. `None` where there is none.
    pub(crate) fn live(verb: &'static str) -> Option<Self> {
        let settings = Settings {
            verb,
            ..Settings::from_environment(Mode::Auto)
        };
        settings.is_live().then(|| Self::start(settings))
    }

    /// Returns where to send events to.
    pub(crate) fn events(&self) -> Events {
        self.events.clone()
    }

    /// Makes the vertices' names known; before that, and for vertices without one, their events are not shown. Only the
    /// first graph counts.
    pub(crate) fn name_vertices(&self, graph: &Graph, hide: impl Fn(&str) -> String) {
        self.names
            .get_or_init(|| graph.ids().map(|id| hide(&graph.vertex(id).label.name)).collect());
    }

    /// Waits until all that was sent is shown, and ends the display.
    pub(crate) fn finish(mut self) -> Told {
        self.end()
    }

    fn end(&mut self) -> Told {
        self.events.send(Event::End);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(told)) => told,
            // It panicked, and said so; the build's result is worth more than its display.
            Some(Err(_)) | None => Told::default(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

/// A stream that somebody reads. When they go away it is as if the terminal had: a hang-up, which ends the build unless
/// it is to be ignored (`nohup`).
struct Heard<W> {
    out: W,
    is_over: bool,
}

impl<W> Heard<W> {
    fn new(out: W) -> Self {
        Self { out, is_over: false }
    }
}

impl<W: Write> Write for Heard<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        let is_gone = matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        if is_gone && !std::mem::replace(&mut self.is_over, true) {
            // It can't fail: this process is there, and may.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Chooses the display, and whether colours of steps pass.
fn display(settings: &Settings) -> (Box<dyn Display>, bool) {
    let stderr = std::io::stderr;
    let live = settings.is_live();
    let look = Look {
        verb: settings.verb,
        colour: settings.colour,
        log_lines: settings.log_lines,
    };
    match settings.mode {
        _ if live => (Box::new(tty::Tty::new(stderr(), terminal_size, look)), false),
        Mode::Auto | Mode::Plain | Mode::Tty => {
            let plain = plain::Plain::new(Heard::new(stderr()));
            (Box::new(plain), settings.colour)
        }
        Mode::RawJson => {
            let json = rawjson::RawJson::new(Heard::new(stderr()), SystemTime::now());
            (Box::new(json), false)
        }
        Mode::Quiet | Mode::None => (Box::new(Silent), settings.colour),
    }
}

fn terminal_size() -> Size {
    let or = |n: u16, otherwise: usize| if n == 0 { otherwise } else { usize::from(n) };
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) => Size {
            columns: or(size.ws_col, 80),
            rows: or(size.ws_row, 24),
        },
        Err(_) => Size {
            columns: 80,
            rows: 24,
        },
    }
}

/// Shows events until the end; returns what became of the steps.
fn show_all(receiver: &Receiver<Event>, display: &mut dyn Display, mut steps: Steps) -> Told {
    let begun = Instant::now();
    let mut ticked = Duration::ZERO;
    loop {
        let received = receiver.recv_timeout(TICK);
        let now = begun.elapsed();
        match received {
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(event) => {
                for update in steps.apply(event, now) {
                    display.show(&update, &steps, now);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Also while events come without a pause.
        if now.saturating_sub(ticked) >= TICK {
            ticked = now;
            display.tick(&steps, now);
        }
    }
    display.finish(&steps, begun.elapsed());
    steps.into_told()
}

#[cfg(test)]
mod tests;
