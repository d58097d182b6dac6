//! Process 1 of a container, from its first instruction to `execve`. Spec: execution.md §4, whose order this follows.
//!
//! Runs in a copy of the helper's memory, with one thread. Whatever fails here is a report to the builder, which reads
//! the first one only. With a runtime it stays process 1 of the namespaces around the container, and that does the rest
//! (`oci`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::Signal;
use rustix::termios::Winsize;

use super::attach::Point;
use super::command::Command;
use super::error::{Result, SandboxError, Step as _};
use super::limits::Ulimit;
use super::oci::{self, Runtime};
use super::overlay::Parts;
use super::rootfs::{self, Provision};
use super::spec::{Net, Settings, TerminalSize};
use super::userns::Namespace;
use super::wire::{self, Report};
use super::{helper, identity, mount, reaper, sys};

/// The root is attached here for a moment, in a mount namespace that only this process is in.
const STAGING: &str = "/proc";

/// What process 1 has from the helper.
pub(super) struct Init<'a> {
    pub(super) settings: &'a Settings,
    /// Who executes the command, if not this process itself.
    pub(super) runtime: Option<&'a Runtime>,
    pub(super) filter: &'a [sys::Instruction],
    pub(super) streams: [BorrowedFd<'a>; 3],
    pub(super) root: Root<'a>,
    /// What else is mounted, and the mounts, in the same order.
    pub(super) points: &'a [Point],
    pub(super) mounts: &'a [OwnedFd],
    /// The control groups' lists of processes, to become a member of.
    pub(super) cgroups: &'a [OwnedFd],
    pub(super) provision: &'a Provision,
    pub(super) socket: BorrowedFd<'a>,
    /// Refers to the helper.
    pub(super) helper: BorrowedFd<'a>,
}

/// What becomes the container's root.
pub(super) enum Root<'a> {
    /// The overlay, attached nowhere.
    Mounted(BorrowedFd<'a>),
    /// To be mounted here, because overlayfs takes layers of the mounting process's own namespace only.
    Parts(Parts<'a>),
}

/// Becomes the command, or has the runtime execute it and waits. The former returns only if that didn't work.
pub(super) fn become_command(init: &Init<'_>) -> Report {
    let report = match init.runtime {
        None => prepare(init).and_then(|command| {
            if init.settings.has_init {
                reaper::fork_below()?;
            }
            Ok(Report::Ended(command.execute()))
        }),
        Some(runtime) => oci::contain(init, runtime).map(Report::Contained),
    };
    report.unwrap_or_else(helper::report_of)
}

fn prepare(init: &Init<'_>) -> Result<Command> {
    let settings = init.settings;
    let command = Command::new(settings)?;
    die_with(init.helper)?;
    for procs in init.cgroups {
        // Before anything is made: what is used from here on counts.
        rustix::io::write(procs, b"0").setup("enter a control group")?;
    }
    rustix::process::setsid().setup("start a session")?;
    mount::make_all_private().setup("make all mounts private")?;
    let root = assemble(init)?;
    let root = root.as_fd();
    mount::attach_at(root, STAGING).setup("attach the root")?;
    furnish(root, init, STAGING)?;
    let terminal = settings
        .terminal
        .map(|size| open_terminal(init, root, size))
        .transpose()?;
    let cwd = rootfs::working_directory(root, &settings.cwd, settings.uid, settings.gid)?;
    enter(root)?;
    connect(init.streams, terminal, settings.uid)?;
    rustix::process::fchdir(&cwd).setup(format!("enter the working directory {}", settings.cwd))?;
    drop(cwd);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    ordinary_signals()?;
    sys::close_on_exec_from(3).setup("let descriptors close")?;
    // While the right to raise them is there, and nothing has to be opened any more.
    settings.ulimits.iter().try_for_each(Ulimit::apply)?;
    identity::assume(settings, init.filter)?;
    // Again: whoever becomes another user has none any more.
    die_with(init.helper)?;
    // After the rights are gone, and as late as can be: the directory must be below the root that we are in.
    let reached = rustix::process::getcwd(Vec::new()).setup("ask for the working directory")?;
    if !reached.to_bytes().starts_with(b"/") {
        return Err(SandboxError::Refused {
            reason: "the working directory is outside of the container".to_owned(),
        });
    }
    Ok(command)
}

/// Returns the overlay, attached nowhere.
pub(super) fn assemble(init: &Init<'_>) -> Result<OwnedFd> {
    match &init.root {
        Root::Mounted(root) => root.try_clone_to_owned().setup("refer to the root"),
        Root::Parts(parts) => parts.assemble(),
    }
}

/// Mounts everything into the root, which is attached at `root_at`, and makes this process's namespaces the container's.
pub(super) fn furnish(root: BorrowedFd<'_>, init: &Init<'_>, root_at: &str) -> Result<()> {
    let settings = init.settings;
    let made = rootfs::furnish(root, init, settings)?;
    for path in made.paths(root, root_at) {
        wire::send(init.socket, &Report::Made { path }, &[]).setup("tell of a mountpoint")?;
    }
    rustix::system::sethostname(settings.hostname.as_bytes()).setup("set the host name")?;
    match settings.net {
        Net::None => loopback_up(),
        Net::Host | Net::Own => Ok(()),
    }
}

/// Gives all signals their default actions, and lets them come.
pub(super) fn ordinary_signals() -> Result<()> {
    for signal in 1..=64 {
        sys::default_signal(signal);
    }
    sys::unblock_signals().setup("unblock signals")
}

/// Arms the death signal, and looks whether it came too late. `parent` refers to the process that forked this one.
pub(super) fn die_with(parent: BorrowedFd<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).setup("set the death signal")?;
    let mut fds = [PollFd::from_borrowed_fd(parent, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut fds, Some(&now)).setup("look for the helper")? {
        0 => Ok(()),
        _ => Err(SandboxError::Refused {
            reason: "the sandbox helper is gone".to_owned(),
        }),
    }
}

/// Brings the loopback interface of the network namespace up.
pub(super) fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .setup("make a socket")?;
    sys::interface_up(socket.as_fd(), "lo").setup("bring the loopback interface up")
}

/// Opens a terminal of the container's own devpts; the builder gets the master.
fn open_terminal(init: &Init<'_>, root: BorrowedFd<'_>, size: TerminalSize) -> Result<OwnedFd> {
    let master = rootfs::open_terminal(root)?;
    rustix::pty::unlockpt(&master).setup("unlock the terminal")?;
    let peer = sys::terminal_peer(master.as_fd()).setup("open the terminal's other end")?;
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&peer, size).setup("set the terminal's size")?;
    wire::send(init.socket, &Report::Terminal, &[master.as_fd()]).setup("hand the terminal over")?;
    Ok(peer)
}

/// Makes `root` the root, and forgets the old one.
fn enter(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).setup("enter the root")?;
    rustix::process::pivot_root(".", ".").setup("change the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).setup("let go of the old root")?;
    rustix::process::chdir("/").setup("enter the root")
}

/// Makes the streams (or the terminal) descriptors 0 to 2.
fn connect(streams: [BorrowedFd<'_>; 3], terminal: Option<OwnedFd>, uid: u32) -> Result<()> {
    let step = "connect the standard streams";
    let [stdin, stdout, stderr] = match &terminal {
        Some(terminal) => {
            rustix::process::ioctl_tiocsctty(terminal).setup("make the terminal the session's")?;
            [terminal.as_fd(); 3]
        }
        None => streams,
    };
    give([stdin, stdout, stderr], terminal.is_some(), uid)?;
    rustix::stdio::dup2_stdin(stdin).setup(step)?;
    rustix::stdio::dup2_stdout(stdout).setup(step)?;
    rustix::stdio::dup2_stderr(stderr).setup(step)
}

/// Makes pipes (or the terminal) the user's, so that `/dev/stdout` can be opened.
pub(super) fn give(streams: [BorrowedFd<'_>; 3], is_terminal: bool, uid: u32) -> Result<()> {
    let step = "give the standard streams to the user";
    for stream in streams {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(stream).setup(step)?.st_mode);
        if kind == FileType::Fifo || is_terminal {
            match rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None) {
                // Somebody's who doesn't exist in this user namespace; it can be used, but not opened anew.
                Err(Errno::PERM | Errno::INVAL) if !Namespace::current().is_initial() => {}
                other => other.setup(step)?,
            }
        }
    }
    Ok(())
}
