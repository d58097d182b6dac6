//! The process that holds a network namespace with access to the outside: process 1 of a pid namespace, in which the
//! program that passes the traffic on runs too. It ends with the builder, and the program with it, however either dies.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};

use crate::sandbox::error::{Result, SandboxError, Step as _};
use crate::sandbox::wire::{self, Report};
use crate::sandbox::{helper, init, mount, sys};

/// The namespaces that the keeper is made in.
pub(in crate::sandbox) const NAMESPACES: libc::c_int = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
/// The program finds the namespace here: a file that is everywhere, covered in the keeper's own mount namespace only.
/// A descriptor in `/proc` won't do: without all capabilities the program may not look into the keeper.
pub(super) const NAMESPACE_PATH: &str = "/proc/version";

/// How a namespace is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct Plan {
    /// Absolute path of the program.
    pub(super) program: String,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// It has ended well, and goes on behind, when the network is there; others write to descriptor 0 then.
    pub(super) goes_to_background: bool,
}

/// Makes the namespace, hands it over, and stays until the builder's side of `socket` is closed.
pub(in crate::sandbox) fn keep(plan: &Plan, socket: BorrowedFd<'_>, parent: BorrowedFd<'_>) -> i32 {
    match init::die_with(parent).and_then(|()| connected(plan)) {
        Ok(namespace) => {
            if wire::send(socket, &Report::Network, &[namespace.as_fd()]).is_ok() {
                let mut closed = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
                let _hung_up = rustix::io::retry_on_intr(|| rustix::event::poll(&mut closed, None));
            }
            0
        }
        Err(error) => i32::from(wire::send(socket, &helper::report_of(error), &[]).is_err()),
    }
}

fn connected(plan: &Plan) -> Result<OwnedFd> {
    mount::make_all_private().setup("make all mounts private")?;
    let outside = own_namespace()?;
    sys::unshare_network().setup("make a network namespace")?;
    init::loopback_up()?;
    let inside = own_namespace()?;
    rustix::thread::move_into_link_name_space(outside.as_fd(), Some(LinkNameSpaceType::Network))
        .setup("return to the machine's network")?;
    let mount =
        mount::bind(inside.as_fd(), "", MountAttrFlags::empty()).setup("mount the network namespace")?;
    mount::attach_at(mount.as_fd(), NAMESPACE_PATH).setup("mount the network namespace")?;
    start(plan)?;
    Ok(inside)
}

fn own_namespace() -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/proc/self/ns/net", flags, Mode::empty()).setup("open the network namespace")
}

/// Starts the program, and returns when the network is there.
fn start(plan: &Plan) -> Result<()> {
    let step = || format!("start {}", plan.program);
    let mut command = Command::new(&plan.program);
    command.args(&plan.args).env_clear().current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if plan.goes_to_background {
        let output = command.output().setup(step())?;
        return match output.status.success() {
            true => Ok(()),
            false => Err(failed(plan, &output.stderr)),
        };
    }
    let (ready, tells) = pipe_with(PipeFlags::CLOEXEC).setup(step())?;
    // Nobody may fill a pipe that nobody reads.
    command.stdin(tells).stderr(Stdio::null());
    let _runs_on = command.spawn().setup(step())?;
    drop(command);
    match File::from(ready).read(&mut [0]) {
        Ok(1..) => Ok(()),
        _ => Err(failed(plan, b"")),
    }
}

fn failed(plan: &Plan, said: &[u8]) -> SandboxError {
    let name = plan.program.rsplit('/').next().unwrap_or_default();
    let said = String::from_utf8_lossy(said);
    // The last words say why; before them come those about a missing log.
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let last: String = last.unwrap_or("no reason given").chars().take(300).collect();
    SandboxError::Network {
        reason: format!("{name} failed: {last}"),
    }
}
