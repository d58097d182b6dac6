//! The container's terminal: made by the runtime in the container's own devpts, and sent to a socket that it is told of.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::Winsize;

use super::super::error::{Result, SandboxError, Step as _};
use super::super::place;
use super::super::spec::TerminalSize;

/// Where the runtime finds the socket.
pub(super) fn path() -> String {
    place::path("console")
}

/// A socket that one terminal is to come through.
pub(super) struct Console {
    listener: UnixListener,
    size: TerminalSize,
}

impl Console {
    /// Makes the socket. The runtime connects while it creates the container.
    pub(super) fn listen(size: TerminalSize) -> Result<Self> {
        let step = "make a socket for a terminal";
        let listener = UnixListener::bind(path()).setup(step)?;
        listener.set_nonblocking(true).setup(step)?;
        Ok(Self { listener, size })
    }

    /// Returns the terminal's master side, once the container was created; by then it has been sent.
    pub(super) fn receive(&self) -> Result<OwnedFd> {
        let step = "receive the container's terminal";
        let (connection, _) = self.listener.accept().setup(step)?;
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        rustix::net::recvmsg(
            connection.as_fd(),
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags,
        )
        .setup(step)?;
        let sent = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let master = sent.ok_or_else(|| SandboxError::Refused {
            reason: "the runtime sent no terminal".to_owned(),
        })?;
        let size = Winsize {
            ws_row: self.size.rows,
            ws_col: self.size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&master, size).setup("set the terminal's size")?;
        Ok(master)
    }
}
