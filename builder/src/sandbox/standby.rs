//! The process that containers and networks are forked from, and the one that stands by for the next container: forked,
//! with what every container needs, before anybody asks for one.
//!
//! The one that stands by listens where the builder talks; it says when it has something to do, and while it does that
//! the next is forked. Knows nothing of what a container is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, PidfdFlags, Signal};

use super::mount::errno_of;
use super::network::{self, Plan};
use super::rootfs::Provision;
use super::wire::{self, Report, Request};
use super::{helper, init, sys};

/// The helper's `argv[0]`. Not enough by itself: the socket must be there too.
pub(super) const MARKER: &str = "ashlar-sandbox-helper";
/// Refuses to be misused by whatever executes `/proc/self/exe` in a container.
pub(super) const REFUSED: i32 = 125;
/// So many of those that stand by may end in a row without a word: somebody kills them.
const MAX_LOST: usize = 16;
/// At the end, those that were forked are waited for so long. They only take mounts apart.
const FAREWELL: Duration = Duration::from_secs(2);

/// Returns the exit code if this process was started as a helper, `None` if it is an ordinary `ashlar`. To be called
/// first in `main`, before any thread starts.
pub(crate) fn helper_entry() -> Option<i32> {
    let name = std::env::args_os().next()?;
    (name == MARKER).then(|| match control_socket() {
        Some(socket) => fork_for_each(socket),
        None => REFUSED,
    })
}

/// Takes the control socket from standard input: a connected seqpacket socket made by this process's own parent.
fn control_socket() -> Option<OwnedFd> {
    let stdin = std::io::stdin();
    let kind = rustix::net::sockopt::socket_type(&stdin).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stdin).ok()?;
    if kind != SocketType::SEQPACKET || Some(peer.pid) != rustix::process::getppid() {
        return None;
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).ok()?;
    // Standard input must not stay a second way to the builder.
    let null = File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(&null).ok()?;
    Some(socket)
}

/// What a forked process is for.
enum Task {
    /// To wait for the next container; who forked it hears of that here.
    StandBy(OwnedFd),
    /// To hold a network, for whoever has the other end of the socket.
    Keep(Plan, OwnedFd),
}

/// What comes next.
enum Turn {
    /// This process was just forked, for this.
    Forked(Task),
    /// Another is needed to stand by; the last has a container to make.
    Taken,
    /// Another is needed; the last is gone without a word.
    Lost,
    /// The builder is gone.
    Over,
}

/// Forks a process for each container and each network that the builder asks for, until it is gone. Executing a program
/// and linking it takes longer than all the rest, so it is done once per build.
fn fork_for_each(control: OwnedFd) -> i32 {
    // Nobody may look into this process or trace it, nor into those that it forks. What the terminal sends is the
    // builder's to hear. Nobody waits for what is forked: it reports.
    let prepared = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| rustix::process::setsid())
        .is_ok();
    if !prepared {
        return REFUSED;
    }
    sys::reap_children();
    let Ok(own) = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) else {
        return REFUSED;
    };
    let mut forked = Vec::new();
    let mut n_lost = 0;
    while n_lost < MAX_LOST {
        match turn(control.as_fd(), &mut forked) {
            Turn::Taken => n_lost = 0,
            Turn::Lost => n_lost += 1,
            Turn::Over => break,
            Turn::Forked(task) => {
                drop(forked);
                sys::default_signal(libc::SIGCHLD);
                return match task {
                    Task::StandBy(parent) => stand_by(control, parent, own.as_fd()),
                    Task::Keep(plan, job) => {
                        drop(control);
                        network::keep(&plan, job.as_fd(), own.as_fd())
                    }
                };
            }
        }
    }
    part_with(&forked);
    0
}

/// Forks one that stands by, and waits until another is needed.
fn turn(control: BorrowedFd<'_>, forked: &mut Vec<OwnedFd>) -> Turn {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    let hears = match pair
        .map_err(io::Error::from)
        .and_then(|pair| Ok((pair, sys::clone3(0)?)))
    {
        Ok(((_, tells), sys::Side::Child)) => return Turn::Forked(Task::StandBy(tells)),
        Ok(((hears, _), sys::Side::Parent(pidfd))) => {
            forked.retain(|pidfd| !is_readable(pidfd.as_fd(), Duration::ZERO));
            forked.push(pidfd);
            hears
        }
        Err(error) => {
            return match wire::receive::<Request>(control) {
                Ok(Some((_, fds))) => {
                    refuse(&fds, &error);
                    Turn::Taken
                }
                _ => Turn::Over,
            };
        }
    };
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(hears.as_fd(), PollFlags::IN),
            // What comes here is for those that stand by; that nobody is there any more concerns all.
            PollFd::from_borrowed_fd(control, PollFlags::empty()),
        ];
        let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None));
        if polled.is_err() || !fds[1].revents().is_empty() {
            return Turn::Over;
        }
        match wire::receive::<Request>(hears.as_fd()) {
            Ok(Some((Request::Container, _))) => return Turn::Taken,
            Ok(Some((Request::Network(plan), mut fds))) => match sys::clone3(network::NAMESPACES) {
                Ok(sys::Side::Child) => {
                    let Some(job) = fds.pop() else { return Turn::Over };
                    return Turn::Forked(Task::Keep(plan, job));
                }
                Ok(sys::Side::Parent(_)) => {}
                Err(error) => refuse(&fds, &error),
            },
            Ok(None) | Err(_) => return Turn::Lost,
        }
    }
}

/// Tells whoever asked that no process could be forked.
fn refuse(jobs: &[OwnedFd], error: &io::Error) {
    for job in jobs {
        let report = Report::Failed {
            step: "fork the sandbox helper".to_owned(),
            os_error: errno_of(error),
        };
        let _gone = wire::send(job.as_fd(), &report, &[]);
    }
}

/// Prepares a container, waits for the builder to ask for one, and makes it.
fn stand_by(control: OwnedFd, parent: OwnedFd, parent_process: BorrowedFd<'_>) -> i32 {
    if init::die_with(parent_process).is_err() {
        return REFUSED;
    }
    // Modes given below are meant exactly.
    rustix::process::umask(Mode::empty());
    // Whether that worked is of interest once somebody asks: then it is tried again.
    let provision = Provision::new().ok();
    loop {
        let Ok(Some((request, fds))) = wire::receive::<Request>(control.as_fd()) else {
            return 0;
        };
        match (&request, &fds[..]) {
            // Where nobody hears it, this process is about to be killed.
            (Request::Container, [job]) => {
                let _gone = wire::send(parent.as_fd(), &request, &[]);
                drop((parent, control));
                return helper::serve(job.as_fd(), parent_process, provision);
            }
            (Request::Network(_), [job]) => {
                let _gone = wire::send(parent.as_fd(), &request, &[job.as_fd()]);
            }
            _ => {}
        }
    }
}

/// Ends all that were forked and waits until they have ended, so that nothing is left when this process has.
fn part_with(forked: &[OwnedFd]) {
    for pidfd in forked {
        // An error means that it is dead already.
        let _dead = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    }
    let began = Instant::now();
    for pidfd in forked {
        is_readable(pidfd.as_fd(), FAREWELL.saturating_sub(began.elapsed()));
    }
}

/// Waits so long for something to read; of a process that is its end.
fn is_readable(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let patience = Timespec::try_from(patience).ok();
    matches!(rustix::event::poll(&mut fds, patience.as_ref()), Ok(1..))
}
