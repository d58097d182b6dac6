//! A container in the foreground: connected to this process's streams or terminal, and killed by its signals. Keys typed
//! at a terminal reach the container as keys. What runs is not this file's business.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::signal::unix::{SignalKind, signal};

use super::signals;
use super::terminal::Terminal;
use crate::report::{self, Failure};
use crate::runtime::blocking;
use crate::sandbox::{Cancel, Exit, Stdio};

/// How a container is connected.
pub(crate) struct Foreground {
    /// A terminal of its own, shown on the user's.
    pub(crate) terminal: Option<Terminal>,
    /// Without a terminal: this process's stdin is its own.
    pub(crate) interactive: bool,
}

impl Foreground {
    /// Runs a container on a thread of its own, kills it when a signal asks to, and passes changes of the window on.
    /// `work` blocks until the container has ended.
    pub(crate) async fn run<W>(self, work: W) -> Result<Exit, Failure>
    where
        W: FnOnce(Stdio<'_>, Cancel<'_>) -> Result<Exit, Failure> + Send + 'static,
    {
        let mut stop = signals::asking_to_stop()?;
        let mut window = signal(SignalKind::window_change())
            .map_err(|error| Failure::machine(format!("cannot watch for signals: {error}")))?;
        let (kill, alive) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|error| Failure::machine(format!("cannot make a pipe: {error}")))?;
        let master = Arc::new(OnceLock::new());
        let work = {
            let master = Arc::clone(&master);
            blocking(move || self.connected(&kill, &master, work))
        };
        tokio::pin!(work);
        let mut alive = Some(alive);
        let mut received = None;
        loop {
            let number = tokio::select! {
                result = &mut work => {
                    return match received {
                        Some(number) => Err(Failure::cancelled(number)),
                        None => result,
                    };
                }
                Some(number) = stop.recv() => number,
                _ = window.recv() => {
                    if let Some(master) = master.get() {
                        Terminal::pass_size_on(master);
                    }
                    continue;
                }
            };
            // Hanging up is what the sandbox polls for.
            drop(alive.take());
            received = Some(number);
        }
    }

    fn connected<W>(self, kill: &OwnedFd, master: &OnceLock<OwnedFd>, work: W) -> Result<Exit, Failure>
    where
        W: FnOnce(Stdio<'_>, Cancel<'_>) -> Result<Exit, Failure>,
    {
        let (stdin, stdout, stderr) = (io::stdin(), report::stdout(), report::stderr());
        let raw = self.terminal.map(Terminal::connect).transpose()?;
        let stdio = Stdio {
            stdin: self.interactive.then(|| stdin.as_fd()),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
            on_terminal: raw.as_ref().map(|raw| {
                let give = |fd| raw.serve(fd, master);
                Box::new(give) as Box<dyn FnOnce(OwnedFd) + Send + '_>
            }),
        };
        let exit = work(stdio, Cancel::on(kill.as_fd()));
        if let Some(raw) = raw {
            raw.finish();
        }
        exit
    }
}
