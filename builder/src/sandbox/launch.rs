//! The builder's side of a run: starts the helper, hands over settings and descriptors, waits for the report.
//!
//! Mounts nothing and forks nothing by itself: this side has threads.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio as ProcessStdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};

use super::attach::{MAX_MOUNTS, MountPoint};
use super::error::{Result, SandboxError, Step as _};
use super::mount::{NODEV, NOSUID, RDONLY};
use super::network::Plan;
use super::oci::Runtime;
use super::overlay::Way;
use super::spec::{Exit, Spec, Stdio};
use super::standby::MARKER;
use super::wire::{self, FDS_PER_MESSAGE, Lowers, Report, Request, Start};
use super::{mount, place, profile, seccomp, sys, userns};

/// Making a network takes milliseconds, and seconds where the machine is busy with a hundred other things. More than this
/// is taken for a program that hangs.
const NETWORK_TIMEOUT: Timespec = Timespec {
    tv_sec: 15,
    tv_nsec: 0,
};

/// Returns an error if this process can't run containers.
pub(super) fn probe() -> Result<()> {
    if let Some(reason) = userns::refusal() {
        let reason = reason.to_owned();
        return Err(SandboxError::NoNamespace { reason });
    }
    if userns::has_rights() {
        Ok(())
    } else {
        let uid = rustix::process::geteuid().as_raw();
        Err(SandboxError::NotRoot { uid })
    }
}

/// Says whether this process has the rights that containers need, or tried to get them.
pub(crate) fn has_tried() -> bool {
    userns::refusal().is_some() || userns::has_rights()
}

/// Has this process hear of its children's ends. Started by somebody who ignores SIGCHLD it would not, for any of them:
/// that survives `execve`.
pub(crate) fn keep_children() {
    sys::default_signal(libc::SIGCHLD);
}

/// Has a file that grows beyond what this process may write be an error of that write, and not the end of the process.
/// Programs that it starts get the signal again.
pub(crate) fn outlive_file_limit() {
    sys::catch_signal(libc::SIGXFSZ);
}

/// Gives this process a mount namespace of its own, which nothing leaks from. Must be called before any thread starts.
pub(crate) fn enter_private_mounts() -> Result<()> {
    sys::unshare_mounts().step("enter a private mount namespace")?;
    make_mounts_private()
}

/// Cuts the mounts of this process's own, new namespace off from all others.
pub(super) fn make_mounts_private() -> Result<()> {
    match mount::make_all_private() {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let missing = "mount_setattr(2) (Linux 5.12)";
            return Err(SandboxError::Missing { missing });
        }
        other => other.step("make all mounts private")?,
    }
    place::is_private();
    Ok(())
}

/// The process that containers are forked from, and the compiled filter.
///
/// Its program is this one, seen through a read-only mount of that one file which is attached nowhere: what a container
/// could reach as `/proc/self/exe` can't be written. Where the file can't be had so, it is a sealed copy in memory.
#[derive(Debug)]
pub(crate) struct Helper {
    process: Child,
    /// Taken when this value goes, which ends the process.
    socket: Option<OwnedFd>,
    filter: OwnedFd,
    way: Way,
    runtime: Option<Runtime>,
}

impl Helper {
    /// Starts the helper, compiles the filter and finds out how the kernel takes layers; once per process.
    pub(crate) fn load() -> Result<Self> {
        probe()?;
        Self::with(Way::find()?)
    }

    /// As [`Helper::load`], with a way that was found or, by a test, chosen.
    pub(super) fn with(way: Way) -> Result<Self> {
        let program = match mounted_program() {
            Some(program) => program,
            None => copied_program()?,
        };
        let (ours, theirs) = socket_pair()?;
        let process = spawn(program.as_fd(), theirs)?;
        let code = seccomp::compile(&profile::default_profile());
        let filter = memfd_with("ashlar-filter", &seccomp::encode(&code))?;
        Ok(Self {
            process,
            socket: Some(ours),
            filter,
            way,
            runtime: None,
        })
    }

    /// Has containers made by this program.
    pub(crate) fn by(mut self, runtime: Option<Runtime>) -> Self {
        self.runtime = runtime;
        self
    }

    /// Returns the id of the process that containers are forked from.
    #[cfg(test)]
    pub(super) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Says how the kernel takes layers.
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Makes a network namespace that is connected to the outside; it is until the socket that comes first is closed.
    pub(super) fn network(&self, plan: Plan, cancel: Cancel<'_>) -> Result<(OwnedFd, OwnedFd)> {
        let socket = self.fork(&Request::Network(plan))?;
        let network = |reason: String| SandboxError::Network { reason };
        let mut fds = vec![PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        fds.extend(cancel.0.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let n_ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&NETWORK_TIMEOUT)))
            .step("wait for a network")?;
        if n_ready == 0 {
            return Err(network("the network was not there in time".to_owned()));
        }
        if fds.first().is_none_or(|answer| answer.revents().is_empty()) {
            return Err(SandboxError::Cancelled);
        }
        match wire::receive::<Report>(socket.as_fd()).step("hear from the network's process")? {
            Some((Report::Network, fds)) => match fds.into_iter().next() {
                Some(namespace) => Ok((socket, namespace)),
                None => Err(SandboxError::HelperDied),
            },
            Some((Report::Refused { reason }, _)) => Err(network(reason)),
            Some((Report::Failed { step, os_error }, _)) => {
                let source = std::io::Error::from_raw_os_error(os_error);
                Err(network(format!("cannot {step}: {source}")))
            }
            _ => Err(SandboxError::HelperDied),
        }
    }

    /// Returns a socket to a new process that does what is asked for.
    fn fork(&self, request: &Request) -> Result<OwnedFd> {
        let (ours, theirs) = socket_pair()?;
        let socket = self
            .socket
            .as_ref()
            .expect("because it is taken when this value goes");
        wire::send(socket.as_fd(), request, &[theirs.as_fd()]).step("reach the sandbox helper")?;
        Ok(ours)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.socket.take());
        // It ends when its socket does; what it could still say is of no use.
        let _ended = self.process.wait();
    }
}

/// Returns the two ends of a connection that carries messages and descriptors.
pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .step("make a socket pair")
}

/// Returns this program's file on a read-only mount of its own; `None` where that can't be had: the file was replaced or
/// removed, or lies outside of what this mount namespace shows.
fn mounted_program() -> Option<OwnedFd> {
    // The link leads to a mount of the namespace that this process was started in, which may be another one by now.
    let path = rustix::fs::readlinkat(CWD, "/proc/self/exe", Vec::new()).ok()?;
    let file = rustix::fs::openat(
        CWD,
        &path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let running = rustix::fs::stat("/proc/self/exe").ok()?;
    let found = rustix::fs::fstat(&file).ok()?;
    if (found.st_dev, found.st_ino) != (running.st_dev, running.st_ino) {
        return None;
    }
    mount::bind(file.as_fd(), "", RDONLY | NOSUID | NODEV).ok()
}

/// Copies this program into a sealed memfd, page by page: milliseconds.
fn copied_program() -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let exe =
        rustix::fs::openat(CWD, "/proc/self/exe", flags, Mode::empty()).step("open this program's file")?;
    let program = memfd("ashlar-helper", MemfdFlags::EXEC)?;
    let size = rustix::fs::fstat(&exe)
        .step("ask for this program's size")?
        .st_size
        .cast_unsigned();
    let mut copied = 0;
    while copied < size {
        let left = usize::try_from(size - copied).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(&program, &exe, None, left).step("copy this program")? {
            0 => break,
            n => copied += n as u64,
        }
    }
    seal(program.as_fd())?;
    Ok(program)
}

/// Makes a sealable memfd; kernels before 6.3 don't know the flag that says whether it may be executed.
fn memfd(name: &str, kind: MemfdFlags) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, flags | kind) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        Err(Errno::ACCESS) => {
            let missing = "executable memfds (the sysctl vm.memfd_noexec forbids them)";
            return Err(SandboxError::Missing { missing });
        }
        other => other,
    }
    .step(format!("create {name}"))
}

fn memfd_with(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let mut file = File::from(memfd(name, MemfdFlags::NOEXEC_SEAL)?);
    file.write_all(bytes).step(format!("write {name}"))?;
    seal(file.as_fd())?;
    Ok(file.into())
}

fn seal(fd: BorrowedFd<'_>) -> Result<()> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(fd, seals).step("seal a memfd")
}

/// Something to poll: once its descriptor is readable (or hung up), the container is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cancel<'a>(Option<BorrowedFd<'a>>);

impl<'a> Cancel<'a> {
    /// Returns a cancellation by `fd`: an eventfd, or a pipe whose other end is written to or closed.
    pub(crate) fn on(fd: BorrowedFd<'a>) -> Self {
        Self(Some(fd))
    }

    /// Returns a cancellation that never happens.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(None)
    }
}

/// Runs a process in a container and waits for its end. Blocking; may be called from any thread.
///
/// `Ok` says that every process of the container is gone, and that the upper is complete.
pub(crate) fn run(helper: &Helper, spec: &Spec<'_>, stdio: Stdio<'_>, cancel: Cancel<'_>) -> Result<Exit> {
    if spec.lowers.len() > Spec::MAX_LOWERS {
        let reason = format!(
            "{} layers: overlayfs takes {}",
            spec.lowers.len(),
            Spec::MAX_LOWERS
        );
        return Err(SandboxError::Refused { reason });
    }
    if spec.mounts.len() > MAX_MOUNTS {
        let reason = format!("{} mounts: at most {MAX_MOUNTS} are possible", spec.mounts.len());
        return Err(SandboxError::Refused { reason });
    }
    require_user(spec)?;
    let socket = helper.fork(&Request::Container)?;
    let mut made = Vec::new();
    // However it goes: closing the socket makes a process that is still there kill its container and end.
    start(helper, spec, &stdio, socket.as_fd())
        .and_then(|()| follow(socket.as_fd(), stdio, cancel, &mut made))?
        .ok_or(SandboxError::HelperDied)
        .and_then(|mut exit| {
            spec.cgroup.iter().for_each(|cgroup| cgroup.explain(&mut exit));
            // Every process of the container is gone: nobody races with this.
            spec.upper.map_or(Ok(()), |upper| upper.remove_stubs(&made))?;
            Ok(exit)
        })
}

/// Refuses a user that doesn't exist here before anything is made for it.
fn require_user(spec: &Spec<'_>) -> Result<()> {
    let settings = spec.settings;
    let what = || format!("the process `{}`", settings.args.join(" "));
    userns::Namespace::current().require(what, settings.uid, settings.gid)
}

/// The socket becomes the helper's standard input, so nothing has to be inheritable: no other child can get it.
fn spawn(program: BorrowedFd<'_>, socket: OwnedFd) -> Result<Child> {
    Command::new(mount::fd_path(program))
        .arg0(MARKER)
        .env_clear()
        .stdin(socket)
        .stdout(ProcessStdio::null())
        .stderr(ProcessStdio::null())
        .spawn()
        .step("start the sandbox helper")
}

fn start(helper: &Helper, spec: &Spec<'_>, stdio: &Stdio<'_>, socket: BorrowedFd<'_>) -> Result<()> {
    let points: Vec<_> = spec.mounts.iter().map(MountPoint::point).collect::<Result<_>>()?;
    let settings = serde_json::to_vec(&(spec.settings, points, &helper.runtime))
        .map_err(std::io::Error::from)
        .step("encode the settings")?;
    let settings = memfd_with("ashlar-settings", &settings)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    let null = rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty()).step("open /dev/null")?;
    let stdin = stdio.stdin.unwrap_or(null.as_fd());
    let mut fds = vec![
        settings.as_fd(),
        helper.filter.as_fd(),
        stdin,
        stdio.stdout,
        stdio.stderr,
    ];
    fds.extend(spec.upper.map(super::Upper::base));
    fds.extend(spec.network);
    let doors = spec.cgroup.map(super::Cgroup::doors).unwrap_or_default();
    fds.extend(&doors);
    let (lowers, mut following) = match helper.way {
        Way::Detached => {
            let mounts: Vec<_> = spec.lowers.iter().map(|lower| lower.mounted()).collect();
            (Lowers::Follow(mounts.len()), mounts)
        }
        way @ (Way::Added | Way::Listed) => {
            let names = spec.lowers.iter().map(|lower| lower.attach());
            (Lowers::Attached(way, names.collect::<Result<_>>()?), Vec::new())
        }
    };
    following.extend(spec.mounts.iter().map(MountPoint::mount));
    let message = Start {
        lowers,
        has_upper: spec.upper.is_some(),
        has_network: spec.network.is_some(),
        n_cgroups: doors.len(),
        n_mounts: spec.mounts.len(),
    };
    let step = "hand a container over to the helper";
    wire::send(socket, &message, &fds).step(step)?;
    for mounts in following.chunks(FDS_PER_MESSAGE) {
        wire::send(socket, &(), mounts).step(step)?;
    }
    Ok(())
}

/// Waits for the report; `None` if the helper ended without one.
fn follow(
    socket: BorrowedFd<'_>,
    stdio: Stdio<'_>,
    cancel: Cancel<'_>,
    made: &mut Vec<String>,
) -> Result<Option<Exit>> {
    let mut on_terminal = stdio.on_terminal;
    let mut cancelled = false;
    let mut contained = None;
    loop {
        if let (Some(fd), false) = (cancel.0, cancelled) {
            let mut fds = [
                PollFd::from_borrowed_fd(socket, PollFlags::IN),
                PollFd::from_borrowed_fd(fd, PollFlags::IN),
            ];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))
                .step("wait for the container")?;
            let [report, stop] = &fds;
            if !stop.revents().is_empty() && report.revents().is_empty() {
                // The helper sees its socket end, kills the container and reports as usual.
                rustix::net::shutdown(socket, Shutdown::Write).step("stop the container")?;
                cancelled = true;
                continue;
            }
        }
        let Some((report, fds)) = wire::receive::<Report>(socket).step("hear from the sandbox helper")?
        else {
            return if cancelled {
                Err(SandboxError::Cancelled)
            } else {
                Ok(None)
            };
        };
        match report {
            Report::Made { path } => made.push(path),
            Report::Terminal => {
                if let (Some(give), Some(fd)) = (on_terminal.take(), fds.into_iter().next()) {
                    give(fd);
                }
            }
            // That is said by the keeper of a network, to somebody else.
            Report::Network => {}
            Report::Ended(_) if cancelled => return Err(SandboxError::Cancelled),
            Report::Contained(exit) => contained = Some(exit),
            Report::Ended(exit) => {
                let oom = exit.oom;
                return Ok(Some(
                    contained.map_or(exit, |contained| Exit { oom, ..contained }),
                ));
            }
            Report::Runtime { program, reason } => return Err(SandboxError::Runtime { program, reason }),
            Report::Refused { reason } => return Err(SandboxError::Refused { reason }),
            Report::Failed { step, os_error } => {
                let source = std::io::Error::from_raw_os_error(os_error);
                return Err(SandboxError::Setup { step, source });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// hardening T02: what a container could reach of this program can't be written, in either way.
    #[test]
    fn the_program_that_containers_see_cannot_be_written() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP the_program_that_containers_see_cannot_be_written: needs root");
            return;
        }
        let mounted = mounted_program().expect("the file is where it was");
        let flags = rustix::fs::fstatvfs(&mounted).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
        let copied = copied_program().unwrap();
        let error = rustix::io::write(&copied, b"x").unwrap_err();
        assert_eq!(error, Errno::PERM);
    }
}
