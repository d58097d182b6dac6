//! What builder and helper say to each other: one seqpacket socket, JSON in it, descriptors beside it.
//!
//! builder → helper: a [`Request`] with a socket, and on that for a container: one [`Start`] with [`STANDARD_FDS`], then the descriptors of lowers and mounts in batches, as it says. After that the
//! builder only ever closes its sending side, by will (cancel) or by dying; both mean "kill".
//! helper → builder: a [`Report::Made`] for each mountpoint that had to be made, at most one [`Report::Terminal`], then
//! one report that ends the talk.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

use super::network::Plan;
use super::overlay::Way;
use super::spec::Exit;

/// Descriptors that come with [`Start`]: settings, seccomp program, the three streams.
pub(super) const STANDARD_FDS: usize = 5;
/// The kernel takes 253 descriptors a message (SCM_MAX_FD).
pub(super) const FDS_PER_MESSAGE: usize = 200;
/// Reports are short; a longer one is cut by the sender.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// What the process that forks is asked for; a socket for all further talk comes along. Whoever stands by hears it first,
/// says the same of a container that it makes itself, and passes the rest on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// A container: a [`Start`] follows on the socket.
    Container,
    /// A network namespace that is connected like this.
    Network(Plan),
}

/// The first message about a container: what else will come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// The lower layers, top first.
    pub(super) lowers: Lowers,
    /// Whether an upper comes after [`STANDARD_FDS`].
    pub(super) has_upper: bool,
    /// Whether a network namespace comes after that.
    pub(super) has_network: bool,
    /// This many lists of processes of control groups come after that.
    pub(super) n_cgroups: usize,
    /// This many descriptors of mounts follow, after those of the lowers.
    pub(super) n_mounts: usize,
}

/// How the helper gets at the lower layers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Lowers {
    /// This many descriptors follow, for [`Way::Detached`].
    Follow(usize),
    /// They are attached under these names, for the other ways.
    Attached(Way, Vec<u32>),
}

/// What the helper's side says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// This had to be made in the root for a mount; relative to the root.
    Made { path: String },
    /// The terminal's master side comes with this message.
    Terminal,
    /// The network namespace comes with this message; it is connected.
    Network,
    /// Nothing ran: a step failed.
    Failed { step: String, os_error: i32 },
    /// Nothing ran: refused.
    Refused { reason: String },
    /// The process that a runtime executed ended so; that everything around it is gone is the next report.
    Contained(Exit),
    /// Nothing ran: the runtime failed.
    Runtime { program: String, reason: String },
    /// The process ended, or could not be executed.
    Ended(Exit),
}

/// Sends one message.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message and its descriptors; `None` when the other side is gone.
pub(super) fn receive<T: for<'de> Deserialize<'de>>(
    socket: BorrowedFd<'_>,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut bytes = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    let received = match received {
        Err(Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let fds = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        })
        .collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    let message = bytes.get(..received.bytes).ok_or(Errno::MSGSIZE)?;
    Ok(Some((
        serde_json::from_slice(message).map_err(|_| Errno::BADMSG)?,
        fds,
    )))
}
