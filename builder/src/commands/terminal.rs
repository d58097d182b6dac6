//! The user's terminal, lent to a container: raw while it runs, with the bytes passed on both ways, and put back.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::report::{self, Failure};
use crate::sandbox::TerminalSize;

/// What a container sees where there is no terminal to take the size of.
const DEFAULT_SIZE: TerminalSize = TerminalSize {
    rows: 24,
    columns: 80,
};

/// The wish for a terminal, checked.
#[derive(Debug)]
pub(crate) struct Terminal {
    interactive: bool,
}

impl Terminal {
    /// Checks that what is typed can come from stdin, where that is wanted.
    pub(crate) fn of_stdin(interactive: bool) -> Result<Self, Failure> {
        match interactive && !io::stdin().is_terminal() {
            true => {
                Err(Failure::usage("-i and -t together need a terminal on stdin").with_help("leave -t away"))
            }
            false => Ok(Self { interactive }),
        }
    }

    /// Returns the size of the user's terminal.
    pub(crate) fn size(&self) -> TerminalSize {
        window().map_or(DEFAULT_SIZE, |size| TerminalSize {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }

    /// Gives a container's terminal the size of the user's.
    pub(crate) fn pass_size_on(master: &OwnedFd) {
        if let Some(size) = window() {
            // The container may have ended meanwhile; then nobody looks at it any more.
            let _ = tcsetwinsize(master, size);
        }
    }

    /// Makes the user's terminal raw, where input comes from it.
    pub(crate) fn connect(self) -> Result<Connection, Failure> {
        let cannot =
            |error: rustix::io::Errno| Failure::machine(format!("cannot set up the terminal: {error}"));
        let before = match self.interactive {
            true => Some(make_raw().map_err(cannot)?),
            false => None,
        };
        Ok(Connection {
            interactive: self.interactive,
            before,
            output: Mutex::new(None),
        })
    }
}

fn window() -> Option<Winsize> {
    [
        report::stdout().as_fd(),
        io::stdin().as_fd(),
        report::stderr().as_fd(),
    ]
    .into_iter()
    .find_map(|fd| tcgetwinsize(fd).ok())
    .filter(|size| size.ws_row > 0 && size.ws_col > 0)
}

fn make_raw() -> rustix::io::Result<Termios> {
    let before = tcgetattr(io::stdin())?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
    Ok(before)
}

/// A terminal that is connected to a container. Dropping it puts the user's terminal back.
#[derive(Debug)]
pub(crate) struct Connection {
    interactive: bool,
    before: Option<Termios>,
    output: Mutex<Option<JoinHandle<()>>>,
}

impl Connection {
    /// Passes bytes on between the user and the container's terminal, and keeps its master side in `master`.
    pub(crate) fn serve(&self, fd: OwnedFd, master: &OnceLock<OwnedFd>) {
        let Ok(copies) = fd.try_clone().and_then(|first| Ok((first, fd.try_clone()?))) else {
            return;
        };
        let (from, to) = (File::from(copies.0), File::from(copies.1));
        // Set once per container.
        let _ = master.set(fd);
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(std::thread::spawn(move || pass_on(from, report::stdout())));
        if self.interactive {
            // Never joined: it waits for a key, and ends with the process.
            std::thread::spawn(move || pass_on(io::stdin(), to));
        }
    }

    /// Waits until everything that the container wrote is shown. Call when its processes are gone.
    pub(crate) fn finish(self) {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(output) = output {
            // A panic in it has ended the process already.
            let _ = output.join();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing can be done about a terminal that went away.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Copies until one side ends; a master side ends with EIO, when nobody has the other one open any more.
fn pass_on(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 8 << 10];
    while let Ok(n_read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n_read]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}
