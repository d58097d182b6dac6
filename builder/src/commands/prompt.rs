//! Questions to whoever sits at the terminal: in the clear, or without showing what is typed.
//!
//! Not a library's: those leave the terminal mute when Ctrl-C ends the program in the middle of a password.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::signals;
use crate::report::{self, Failure};
use crate::runtime::{self, blocking};

/// Longest answer that is read; a terminal's own limit is 4 KiB.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Whether an answer can be seen while it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Shown,
    Hidden,
}

/// Says whether there is anybody to ask.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal()
}

/// Asks, and returns the answer without its newline; it may be empty. A signal ends the question, and the terminal is
/// as it was before.
pub(super) fn ask(question: &str, answer: Answer) -> Result<String, Failure> {
    runtime::run(async {
        let mut signals = signals::asking_to_stop()?;
        let _mute = match answer {
            Answer::Shown => None,
            Answer::Hidden => Some(Mute::begin().map_err(|error| cannot(&error.into()))?),
        };
        report::question(question);
        tokio::select! {
            line = blocking(read_line) => line.map_err(|error| cannot(&error)),
            Some(number) = signals.recv() => {
                report::question("\n");
                Err(Failure::cancelled(number))
            }
        }
    })
}

fn cannot(error: &io::Error) -> Failure {
    Failure::machine(format!("cannot ask at the terminal: {error}"))
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(MAX_ANSWER_BYTES).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// A terminal that shows nothing of what is typed but the newline. Dropping it brings back what was.
struct Mute {
    before: Termios,
}

impl Mute {
    fn begin() -> rustix::io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut mute = before.clone();
        mute.local_modes.remove(LocalModes::ECHO);
        mute.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Now, &mute)?;
        Ok(Self { before })
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that went away.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
