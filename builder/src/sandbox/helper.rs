//! The process between builder and container: one thread, no allocation games, gone with either.
//!
//! Reads what the builder sends, mounts the overlay (in the builder's mount namespace, attached nowhere) where the kernel
//! can do that, makes the namespaces, and waits. Everything inside the container is `init`'s.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use rustix::thread::LinkNameSpaceType;

use super::attach::{MAX_MOUNTS, Point};
use super::error::{Result, SandboxError, Step as _};
use super::init::{Init, Root};
use super::mount::errno_of;
use super::oci::Runtime;
use super::overlay::Way;
use super::rootfs::Provision;
use super::spec::{Exit, Net, Settings, Spec};
use super::wire::{self, Lowers, Report, Request, STANDARD_FDS, Start};
use super::{init, network, overlay, seccomp, sys};

/// The helper's `argv[0]`. Not enough by itself: the socket must be there too.
pub(super) const MARKER: &str = "ashlar-sandbox-helper";
/// One for each hierarchy that there could be.
const MAX_CGROUPS: usize = 16;
/// Refuses to be misused by whatever executes `/proc/self/exe` in a container.
const REFUSED: i32 = 125;

/// Returns the exit code if this process was started as a helper, `None` if it is an ordinary `ashlar`. To be called
/// first in `main`, before any thread starts.
pub(crate) fn helper_entry() -> Option<i32> {
    let name = std::env::args_os().next()?;
    (name == MARKER).then(|| match control_socket() {
        Some(socket) => fork_for_each(socket),
        None => REFUSED,
    })
}

/// Forks a process for each container and each network that the builder asks for, until it is gone. Executing a program and linking it
/// takes longer than all the rest, so it is done once per build.
fn fork_for_each(socket: OwnedFd) -> i32 {
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
    while let Ok(Some((request, mut fds))) = wire::receive::<Request>(socket.as_fd()) {
        let Some(job) = fds.pop() else { continue };
        let namespaces = match request {
            Request::Container => 0,
            Request::Network(_) => network::NAMESPACES,
        };
        match sys::clone3(namespaces) {
            Ok(sys::Side::Child) => {
                drop(socket);
                sys::default_signal(libc::SIGCHLD);
                return match request {
                    Request::Container => serve(job.as_fd(), own.as_fd()),
                    Request::Network(plan) => network::keep(&plan, job.as_fd(), own.as_fd()),
                };
            }
            Ok(sys::Side::Parent(_)) => {}
            Err(error) => {
                let report = Report::Failed {
                    step: "fork the sandbox helper".to_owned(),
                    os_error: errno_of(&error),
                };
                let _gone = wire::send(job.as_fd(), &report, &[]);
            }
        }
    }
    0
}

/// Takes the control socket from standard input: a connected seqpacket socket made by this process's own parent.
fn control_socket() -> Option<OwnedFd> {
    let stdin = std::io::stdin();
    let kind = rustix::net::sockopt::socket_type(&stdin).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stdin).ok()?;
    if kind != rustix::net::SocketType::SEQPACKET || Some(peer.pid) != rustix::process::getppid() {
        return None;
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).ok()?;
    // Standard input must not stay a second way to the builder.
    let null = File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(&null).ok()?;
    Some(socket)
}

/// Makes one container and reports how it went. Dies with the process that it was forked from.
fn serve(socket: BorrowedFd<'_>, parent: BorrowedFd<'_>) -> i32 {
    let report = match init::die_with(parent).and_then(|()| contain(socket)) {
        Ok(exit) => Report::Ended(exit),
        Err(error) => report_of(error),
    };
    // If the builder is gone, there is nobody to tell.
    i32::from(wire::send(socket, &report, &[]).is_err())
}

/// Turns an error into what the builder is told.
pub(super) fn report_of(error: SandboxError) -> Report {
    match error {
        SandboxError::Setup { step, source } | SandboxError::System { step, source } => {
            let os_error = errno_of(&source);
            let step = if source.raw_os_error().is_some() {
                step
            } else {
                format!("{step} ({source})")
            };
            Report::Failed {
                step: step.chars().take(2000).collect(),
                os_error,
            }
        }
        SandboxError::Refused { reason } => Report::Refused {
            reason: reason.chars().take(2000).collect(),
        },
        SandboxError::Runtime { program, reason } => Report::Runtime {
            program,
            reason: reason.chars().take(2000).collect(),
        },
        other => Report::Refused {
            reason: other.to_string(),
        },
    }
}

/// What the builder sent.
struct Job {
    settings: Settings,
    runtime: Option<Runtime>,
    filter: Vec<sys::Instruction>,
    streams: [OwnedFd; 3],
    layers: Layers,
    network: Option<OwnedFd>,
    /// The control groups' lists of processes.
    cgroups: Vec<OwnedFd>,
    points: Vec<Point>,
    mounts: Vec<OwnedFd>,
}

/// The layers and the upper.
enum Layers {
    /// Attached nowhere: to be mounted by the helper.
    Detached(Vec<OwnedFd>, Option<OwnedFd>),
    /// Attached under these names: to be mounted by the container's first process.
    Attached(Way, Vec<u32>, Option<OwnedFd>),
}

/// What the container's first process gets of them.
enum Material {
    Mounted(OwnedFd),
    Attached(Way, Vec<u32>, Option<OwnedFd>),
}

/// Makes the container and waits for its end.
fn contain(socket: BorrowedFd<'_>) -> Result<Exit> {
    let job = receive(socket)?;
    // Modes given below are meant exactly.
    rustix::process::umask(Mode::empty());
    let provision = Provision::new(&job.settings, &job.points)?;
    let material = match job.layers {
        // The overlay holds them from here on.
        Layers::Detached(mounts, upper) => Material::Mounted(detached_root(mounts, upper, &provision)?),
        Layers::Attached(way, names, upper) => Material::Attached(way, names, upper),
    };

    let oom_kills = oom_kills();
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if job.runtime.is_some() {
        // It is shown control groups, and mounting those in the machine's own namespace would change their options for all.
        namespaces |= libc::CLONE_NEWCGROUP;
    }
    match (job.settings.net, &job.network) {
        (Net::Host, None) => {}
        (Net::None, None) => namespaces |= libc::CLONE_NEWNET,
        // This process makes one container and needs no network: it can go there itself.
        (Net::Own, Some(network)) => {
            rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .setup("enter the network")?;
        }
        (net, _) => {
            let reason = format!("the network {net:?} and its namespace don't belong together");
            return Err(SandboxError::Refused { reason });
        }
    }
    let helper = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .setup("refer to the sandbox helper")?;
    match sys::clone3(namespaces).setup("make the namespaces")? {
        sys::Side::Child => {
            let [stdin, stdout, stderr] = &job.streams;
            let root = match &material {
                Material::Mounted(root) => Root::Mounted(root.as_fd()),
                Material::Attached(way, names, upper) => {
                    Root::Parts(provision.parts(*way, names, upper.as_ref().map(AsFd::as_fd)))
                }
            };
            let init = Init {
                settings: &job.settings,
                runtime: job.runtime.as_ref(),
                filter: &job.filter,
                streams: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
                root,
                points: &job.points,
                mounts: &job.mounts,
                provision: &provision,
                cgroups: &job.cgroups,
                socket,
                helper: helper.as_fd(),
            };
            let report = init::become_command(&init);
            // The builder hears the first report that says how it ended, so the helper's own, which follows, does no harm.
            let _gone = wire::send(socket, &report, &[]);
            std::process::exit(match report {
                Report::Contained(exit) => exit.code,
                _ => REFUSED,
            })
        }
        sys::Side::Parent(pidfd) => {
            // The descriptors that only the container needs: its end must close them for good.
            drop((job.streams, job.mounts, material, provision));
            wait(socket, pidfd.as_fd(), oom_kills)
        }
    }
}

/// Mounts the overlay in the builder's mount namespace, attached nowhere.
fn detached_root(mounts: Vec<OwnedFd>, upper: Option<OwnedFd>, provision: &Provision) -> Result<OwnedFd> {
    let mut lowers: Vec<BorrowedFd<'_>> = mounts.iter().map(AsFd::as_fd).collect();
    lowers.push(provision.stubs());
    overlay::overlay(&lowers, upper.as_ref().map(AsFd::as_fd)).setup("mount the root's layers")
}

fn receive(socket: BorrowedFd<'_>) -> Result<Job> {
    let gone = || SandboxError::Refused {
        reason: "the builder is gone".to_owned(),
    };
    let odd = || SandboxError::Refused {
        reason: "the builder sent an unexpected message".to_owned(),
    };
    let step = "hear from the builder";
    let (start, mut fds) = wire::receive::<Start>(socket).setup(step)?.ok_or_else(gone)?;
    let n_lowers = match &start.lowers {
        Lowers::Follow(n_lowers) => *n_lowers,
        Lowers::Attached(_, names) => names.len(),
    };
    if n_lowers > Spec::MAX_LOWERS
        || start.n_mounts > MAX_MOUNTS
        || fds.len()
            != STANDARD_FDS + usize::from(start.has_upper) + usize::from(start.has_network) + start.n_cgroups
        || start.n_cgroups > MAX_CGROUPS
    {
        return Err(odd());
    }
    let cgroups = fds.split_off(fds.len() - start.n_cgroups);
    let network = if start.has_network { fds.pop() } else { None };
    let upper = if start.has_upper { fds.pop() } else { None };
    let [settings, filter, stdin, stdout, stderr] =
        <[OwnedFd; STANDARD_FDS]>::try_from(fds).map_err(|_| odd())?;
    let n_lowers = match &start.lowers {
        Lowers::Follow(n_lowers) => *n_lowers,
        Lowers::Attached(..) => 0,
    };
    let mut following: Vec<OwnedFd> = Vec::with_capacity(n_lowers + start.n_mounts);
    while following.len() < n_lowers + start.n_mounts {
        let ((), batch) = wire::receive(socket).setup(step)?.ok_or_else(gone)?;
        if batch.is_empty() {
            return Err(odd());
        }
        following.extend(batch);
    }
    let mounts = following.split_off(n_lowers);
    let layers = match start.lowers {
        Lowers::Attached(way, names) => Layers::Attached(way, names, upper),
        Lowers::Follow(_) => Layers::Detached(following, upper),
    };
    let (settings, points, runtime): (Settings, Vec<Point>, Option<Runtime>) =
        serde_json::from_slice(&contents(settings).setup(step)?).map_err(|_| odd())?;
    if points.len() != mounts.len() {
        return Err(odd());
    }
    let filter = seccomp::decode(&contents(filter).setup(step)?).ok_or_else(odd)?;
    Ok(Job {
        settings,
        runtime,
        filter,
        streams: [stdin, stdout, stderr],
        layers,
        network,
        cgroups,
        points,
        mounts,
    })
}

/// Reads a whole memfd, from its start: its offset is shared with other helpers.
fn contents(memfd: OwnedFd) -> std::io::Result<Vec<u8>> {
    let file = File::from(memfd);
    let size = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Waits for process 1; kills it when the builder closes its side or dies. Process 1 can be waited for only after every
/// other process of its namespace is gone.
fn wait(socket: BorrowedFd<'_>, pidfd: BorrowedFd<'_>, oom_kills: Option<u64>) -> Result<Exit> {
    let mut listening = true;
    loop {
        let ended = PollFd::from_borrowed_fd(pidfd, PollFlags::IN);
        let control = PollFd::from_borrowed_fd(socket, PollFlags::IN);
        let mut fds = [ended, control];
        let polled = if listening { &mut fds[..] } else { &mut fds[..1] };
        rustix::io::retry_on_intr(|| rustix::event::poll(polled, None)).setup("wait for the container")?;
        let [ended, control] = &fds;
        if !ended.revents().is_empty() {
            break;
        }
        if !control.revents().is_empty() {
            // An error means that it is dead already.
            let _dead = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
            listening = false;
        }
    }
    let status = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)
        .setup("wait for the container")?
        .ok_or_else(|| SandboxError::Refused {
            reason: "the container's process vanished".to_owned(),
        })?;
    let killed_meanwhile = oom_kills
        .zip(self::oom_kills())
        .is_some_and(|(before, after)| before < after);
    let exit = exit_of(&status);
    let oom = exit.code == 137 && killed_meanwhile;
    Ok(Exit { oom, ..exit })
}

/// Says how a process ended.
pub(super) fn exit_of(status: &WaitIdStatus) -> Exit {
    let signal = status.terminating_signal();
    let code = status.exit_status().or(signal.map(|signal| 128 + signal));
    Exit {
        code: code.unwrap_or(REFUSED),
        signal,
        oom: false,
        limit: None,
        why: None,
    }
}

/// The machine's count of OOM kills: without a cgroup of its own this is the best hint at why a process was killed.
fn oom_kills() -> Option<u64> {
    let mut text = String::new();
    File::open("/proc/vmstat").ok()?.read_to_string(&mut text).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
}
