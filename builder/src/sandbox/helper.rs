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
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use rustix::thread::LinkNameSpaceType;

use super::attach::{MAX_MOUNTS, Point};
use super::error::{Result, SandboxError, Step as _};
use super::init::{Init, Root};
use super::mount::errno_of;
use super::oci::Runtime;
use super::overlay::Way;
use super::rootfs::Provision;
use super::spec::{Exit, Net, Settings, Spec};
use super::standby::REFUSED;
use super::wire::{self, Lowers, Report, STANDARD_FDS, Start};
use super::{init, overlay, seccomp, sys};

/// One for each hierarchy that there could be.
const MAX_CGROUPS: usize = 16;
/// Makes one container and reports how it went. Dies with the process that it was forked from. `provision` is what was
/// made before anybody asked.
pub(super) fn serve(socket: BorrowedFd<'_>, parent: BorrowedFd<'_>, provision: Option<Provision>) -> i32 {
    let (report, leftover) = match init::die_with(parent).and_then(|()| contain(socket, provision)) {
        Ok((exit, leftover)) => (Report::Ended(exit), leftover),
        Err(error) => (report_of(error), None),
    };
    // If the builder is gone, there is nobody to tell.
    let told = wire::send(socket, &report, &[]);
    // From here on nobody waits.
    drop(leftover);
    i32::from(told.is_err())
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

/// The container's mount namespace, kept for longer than its processes: taking its mounts apart is half of the time
/// between a process's last instruction and its parent's knowing, and nothing that they show is read any more.
type Leftover = Option<OwnedFd>;

/// Makes the container and waits for its end.
fn contain(socket: BorrowedFd<'_>, provision: Option<Provision>) -> Result<(Exit, Leftover)> {
    let job = receive(socket)?;
    // Modes given below are meant exactly.
    rustix::process::umask(Mode::empty());
    let provision = match provision {
        Some(provision) => provision,
        None => Provision::new()?,
    };
    let provision = provision.fill(&job.settings, &job.points)?;
    let material = match job.layers {
        // The overlay holds them from here on.
        Layers::Detached(mounts, upper) => Material::Mounted(detached_root(mounts, upper, &provision)?),
        Layers::Attached(way, names, upper) => Material::Attached(way, names, upper),
    };

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
            // Where the kernel doesn't say it, the namespace goes with the process.
            let leftover = sys::mount_namespace(pidfd.as_fd()).ok();
            wait(socket, pidfd.as_fd()).map(|exit| (exit, leftover))
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
fn wait(socket: BorrowedFd<'_>, pidfd: BorrowedFd<'_>) -> Result<Exit> {
    // While the process prepares itself; it can't have used up much yet.
    let before = oom_kills();
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
    let exit = exit_of(&status);
    let has_grown = || {
        before
            .zip(oom_kills())
            .is_some_and(|(before, after)| before < after)
    };
    let oom = exit.code == 137 && has_grown();
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
