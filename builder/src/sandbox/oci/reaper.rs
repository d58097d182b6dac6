//! The small process 1 of `--init`, where a runtime makes the container.
//!
//! The runtime's containers have no place for a program of ours that isn't a file of the image. So process 1 is made first,
//! here, with a pid namespace that the runtime is told to join; it becomes one of the container when there is one: its
//! mounts, its control groups, its user and rights. The command's end is not its business: the command is a child of the
//! process around the container, as ever.

use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use super::super::error::{Result, SandboxError, Step as _};
use super::super::init::Init;
use super::super::{identity, launch, reaper, sys, wire};

/// Process 1 of the namespace that the container's processes are to be in.
pub(super) struct Reaper {
    number: String,
    socket: OwnedFd,
}

impl Reaper {
    /// Makes the process and its namespace. It goes with the calling process, whose own namespace is around it.
    pub(super) fn start(init: &Init<'_>) -> Result<Self> {
        let (ours, theirs) = launch::socket_pair()?;
        match sys::clone3(libc::CLONE_NEWPID).setup("fork process 1")? {
            sys::Side::Child => {
                drop(ours);
                let failed = stay(init, theirs).is_err();
                std::process::exit(i32::from(failed))
            }
            sys::Side::Parent(pidfd) => Ok(Self {
                number: number_of(pidfd.as_fd())?,
                socket: ours,
            }),
        }
    }

    /// Returns where a runtime finds its pid namespace.
    pub(super) fn pid_namespace(&self) -> String {
        format!("/proc/{}/ns/pid", self.number)
    }

    /// Has it become one of the container with these mounts. `Ok` says that it did.
    pub(super) fn enter(&self, init: &Init<'_>, mounts: BorrowedFd<'_>) -> Result<()> {
        for procs in init.cgroups {
            rustix::io::write(procs, self.number.as_bytes()).setup("move process 1 into a control group")?;
        }
        wire::send(self.socket.as_fd(), &(), &[mounts]).setup("reach process 1")?;
        match wire::receive::<()>(self.socket.as_fd()).setup("hear from process 1")? {
            Some(_) => Ok(()),
            None => Err(SandboxError::Refused {
                reason: "the small process 1 of --init can't enter the container".to_owned(),
            }),
        }
    }
}

/// The process's own part; returns only what went wrong.
fn stay(init: &Init<'_>, socket: OwnedFd) -> Result<()> {
    let (_, mounts): ((), _) = match wire::receive(socket.as_fd()).setup("wait for the container")? {
        Some(message) => message,
        // There will be none.
        None => return Ok(()),
    };
    for namespace in &mounts {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .setup("enter the container's mounts")?;
    }
    identity::assume(init.settings, init.filter)?;
    reaper::hide()?;
    wire::send(socket.as_fd(), &(), &[]).setup("say that process 1 is there")?;
    reaper::reap_for_ever().map(drop)
}

/// Returns the process's number in this process's namespace. Spec: proc(5), fdinfo of pidfds.
fn number_of(pidfd: BorrowedFd<'_>) -> Result<String> {
    use std::os::fd::AsRawFd as _;
    let step = "look for process 1";
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let info = rustix::fs::openat(CWD, path, flags, Mode::empty()).setup(step)?;
    let mut text = String::new();
    std::fs::File::from(info).read_to_string(&mut text).setup(step)?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    let number = number
        .map(str::trim)
        .filter(|number| number.parse::<u32>().is_ok());
    number.map(str::to_owned).ok_or_else(|| SandboxError::Refused {
        reason: "the kernel doesn't tell the number of process 1".to_owned(),
    })
}
