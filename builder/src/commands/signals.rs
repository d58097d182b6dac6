//! What asks a command to stop: Ctrl-C, `kill` and a terminal that goes away send signals; and time may be over.

use std::io;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::stuck;
use crate::report::{self, Failure, Kind};
use crate::runtime::elapsed;

/// Watches for signals from here on; what is received is their numbers. A hang-up that was ignored before this process
/// was started (`nohup`) stays so.
pub(crate) fn asking_to_stop() -> Result<UnboundedReceiver<i32>, Failure> {
    let (sender, receiver) = unbounded_channel();
    let hangup = (!ignores_hangup()).then(SignalKind::hangup);
    let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
    for kind in kinds.into_iter().chain(hangup) {
        let mut signals =
            signal(kind).map_err(|error| Failure::machine(format!("cannot watch for signals: {error}")))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // Nobody listens any more when the command is done.
                let _done = sender.send(kind.as_raw_value());
            }
        });
    }
    Ok(receiver)
}

/// How long a command may take to stop. Reading a context, compressing and writing outputs don't look up from their
/// work; what they leave half done counts for nothing, and the next build removes it from the store.
const PATIENCE: Duration = Duration::from_millis(2500);

/// Why a command is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The number of a signal.
    Signal(i32),
    /// It was given no more time than this.
    Timeout(Duration),
}

impl Reason {
    /// Returns what the command comes to.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Signal(number) => Failure::cancelled(number),
            Self::Timeout(after) => Failure::new(
                Kind::TimedOut,
                format!("the build timed out after {} s", after.as_secs()),
            ),
        }
    }
}

/// Calls `stop` with the first signal that asks to stop, or when the time is over, on a thread of its own, which nothing
/// keeps busy. When another signal comes, or the process is still there after [`PATIENCE`], the process ends at once, and
/// its containers with it; what the kernel holds is named.
pub(crate) fn watch(
    limit: Option<Duration>,
    stop: impl FnOnce(Reason) + Send + 'static,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::machine(format!("cannot watch for signals: {error}"));
    let (told, ready) = std::sync::mpsc::channel();
    let wait = move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(told.send(Err(failed(error)))),
        };
        runtime.block_on(async {
            let mut signals = match asking_to_stop() {
                Ok(signals) => signals,
                Err(failure) => return drop(told.send(Err(failure))),
            };
            let _listens = told.send(Ok(()));
            let reason = tokio::select! {
                number = signals.recv() => match number {
                    Some(number) => Reason::Signal(number),
                    None => return,
                },
                after = elapsed(limit) => Reason::Timeout(after),
            };
            stop(reason);
            let was_patient = tokio::time::timeout(PATIENCE, signals.recv()).await.is_err();
            let failure = reason.failure();
            let stuck = if was_patient {
                stuck::processes()
            } else {
                Vec::new()
            };
            if !stuck.is_empty() {
                let why = format!("no signal reaches what waits in the kernel: {}", stuck.join(", "));
                report::error(&failure.with_help(format!("{why}; it ends when what it waits for happens")));
            } else if let Reason::Timeout(_) = reason {
                report::error(&failure);
            }
            std::process::exit(reason.failure().exit_code().into());
        });
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(wait).map_err(failed)?;
    ready
        .recv()
        .unwrap_or_else(|_| Err(Failure::bug("the thread for signals ended")))
}

fn ignores_hangup() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, libc::SIGHUP))
}

/// Says whether a process of this status ignores a signal. Spec: proc_pid_status(5), `SigIgn`.
fn ignores(status: &str, signal: i32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_seen() {
        let check = |mask: &str, expected: bool| {
            let status = format!("Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
            assert_eq!(ignores(&status, libc::SIGHUP), expected, "{mask}");
        };
        check("0000000000000001", true);
        check("0000000000001001", true);
        check("0000000000001000", false);
        check("", false);
        assert!(!ignores("", libc::SIGHUP));
    }
}
