//! Process 1 of a container, from its first instruction to `execve`. Spec: execution.md §4, whose order this follows.
//!
//! Runs in a copy of the helper's memory, with one thread. Whatever fails here is a report to the builder, which reads
//! the first one only; a command that can't be executed ends like one that a shell can't find (126, 127).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::Signal;
use rustix::termios::Winsize;

use super::attach::Point;
use super::error::{Result, SandboxError, Step as _};
use super::limits::Ulimit;
use super::overlay::Parts;
use super::rootfs::{self, Provision};
use super::spec::{Exit, Net, Settings, TerminalSize};
use super::userns::Namespace;
use super::wire::{self, Report};
use super::{helper, identity, mount, reaper, sys};

/// The default `PATH`, where the environment has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The root is attached here for a moment, in a mount namespace that only this process is in.
const STAGING: &str = "/proc";

/// What process 1 has from the helper.
pub(super) struct Init<'a> {
    pub(super) settings: &'a Settings,
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

/// Becomes the command. Returns only if that didn't work.
pub(super) fn become_command(init: &Init<'_>) -> Report {
    let prepared = prepare(init).and_then(|command| {
        if init.settings.has_init {
            reaper::fork_below()?;
        }
        Ok(command)
    });
    match prepared {
        Ok(command) => Report::Ended(command.execute()),
        Err(error) => helper::report_of(error),
    }
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
    let assembled;
    let root = match &init.root {
        Root::Mounted(root) => *root,
        Root::Parts(parts) => {
            assembled = parts.assemble()?;
            assembled.as_fd()
        }
    };
    mount::attach_at(root, STAGING).setup("attach the root")?;
    let made = rootfs::furnish(root, init, settings)?;
    for path in made.paths(root, STAGING) {
        wire::send(init.socket, &Report::Made { path }, &[]).setup("tell of a mountpoint")?;
    }
    drop(made);
    rustix::system::sethostname(settings.hostname.as_bytes()).setup("set the host name")?;
    if settings.net == Net::None {
        loopback_up()?;
    }
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
    for signal in 1..=64 {
        sys::default_signal(signal);
    }
    sys::unblock_signals().setup("unblock signals")?;
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

/// Makes the streams (or the terminal) descriptors 0 to 2. Pipes become the user's, so that `/dev/stdout` can be opened.
fn connect(streams: [BorrowedFd<'_>; 3], terminal: Option<OwnedFd>, uid: u32) -> Result<()> {
    let step = "connect the standard streams";
    let [stdin, stdout, stderr] = match &terminal {
        Some(terminal) => {
            rustix::process::ioctl_tiocsctty(terminal).setup("make the terminal the session's")?;
            [terminal.as_fd(); 3]
        }
        None => streams,
    };
    for stream in [stdin, stdout, stderr] {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(stream).setup(step)?.st_mode);
        if kind == FileType::Fifo || terminal.is_some() {
            match rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None) {
                // Somebody's who doesn't exist in this user namespace; it can be used, but not opened anew.
                Err(Errno::PERM | Errno::INVAL) if !Namespace::current().is_initial() => {}
                other => other.setup(step)?,
            }
        }
    }
    rustix::stdio::dup2_stdin(stdin).setup(step)?;
    rustix::stdio::dup2_stdout(stdout).setup(step)?;
    rustix::stdio::dup2_stderr(stderr).setup(step)
}

/// The command, as the kernel wants it: everything is allocated before rights are dropped.
struct Command {
    name: String,
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    fn new(settings: &Settings) -> Result<Self> {
        let text = |text: String| {
            CString::new(text).map_err(|_| SandboxError::Refused {
                reason: "a NUL in an argument or variable".to_owned(),
            })
        };
        let Some(name) = settings.args.first().cloned() else {
            return Err(SandboxError::Refused {
                reason: "no command to run".to_owned(),
            });
        };
        let path = settings
            .env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map_or(PATH, |(_, value)| value);
        let candidates = if name.contains('/') {
            vec![text(name.clone())?]
        } else {
            // An empty element means the working directory to a shell; that is how surprises are executed.
            let directories = path.split(':').filter(|directory| directory.starts_with('/'));
            directories
                .map(|directory| text(format!("{directory}/{name}")))
                .collect::<Result<_>>()?
        };
        let mut env: Vec<CString> = settings
            .env
            .iter()
            .map(|(name, value)| text(format!("{name}={value}")))
            .collect::<Result<_>>()?;
        if let (Some(home), false) = (
            &settings.home,
            settings.env.iter().any(|(name, _)| name == "HOME"),
        ) {
            env.push(text(format!("HOME={home}"))?);
        }
        let args = settings.args.iter().cloned().map(text).collect::<Result<_>>()?;
        Ok(Self {
            name,
            candidates,
            args,
            env,
        })
    }

    /// Executes the first candidate that can be; says why none could.
    fn execute(self) -> Exit {
        let mut outcome = self.missing();
        for candidate in &self.candidates {
            if self.name.is_empty() {
                break;
            }
            let error = sys::execve(candidate, &self.args, &self.env);
            let found = rustix::fs::statat(CWD, candidate.as_c_str(), AtFlags::empty());
            let place = candidate.to_string_lossy().into_owned();
            match Errno::from_io_error(&error) {
                // Not there: the next directory. There, and yet not found: what it needs is missing.
                Some(Errno::NOENT | Errno::NOTDIR) if found.is_err() => {}
                Some(Errno::NOENT) => {
                    return exit(
                        127,
                        format!("{place}: its interpreter or loader is missing in the image"),
                    );
                }
                Some(Errno::ACCESS) => {
                    let directory =
                        found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
                    let why = if directory {
                        "is a directory"
                    } else {
                        "is not executable (permission denied)"
                    };
                    outcome = exit(126, format!("{place} {why}"));
                }
                Some(Errno::NOEXEC) => {
                    let why = "is not a program for this machine, and has no #! line (exec format error)";
                    return exit(126, format!("{place} {why}"));
                }
                _ => return exit(126, format!("{place}: {error}")),
            }
        }
        outcome
    }

    fn missing(&self) -> Exit {
        let place = if self.name.contains('/') {
            "in the image"
        } else {
            "in the PATH of the container"
        };
        exit(127, format!("`{}` not found {place}", self.name))
    }
}

fn exit(code: i32, why: String) -> Exit {
    Exit {
        code,
        signal: None,
        oom: false,
        limit: None,
        why: Some(why.chars().take(4000).collect()),
    }
}
