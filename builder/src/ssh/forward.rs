//! Agents: a socket in the container, and a thread that passes on what is asked there. Only two questions are: which keys
//! there are, and for a signature. Nothing that a step says can add, remove or lock keys of the user's agent.
//!
//! Spec: draft-ietf-sshm-ssh-agent, whose messages are a length (4 bytes, big-endian) and that many bytes.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Agent;
use super::keyring::{FAILURE, REQUEST_IDENTITIES, SIGN_REQUEST};

/// Largest message, as in OpenSSH.
const MAX_MESSAGE_BYTES: u32 = 256 << 10;
/// Connections of one step at once.
const MAX_CONNECTIONS: usize = 64;

/// A socket that is served. Dropping this stops the thread; connections end with the processes that made them.
pub(crate) struct Forwarding {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarding {
    /// Serves the listener with what the agent answers.
    pub(crate) fn start(listener: UnixListener, agent: &Agent) -> io::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let agent = agent.clone();
        let thread = std::thread::Builder::new()
            .name("ssh agent".to_owned())
            .spawn(move || accept(&listener, &stopped, &agent))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it was reported by the hook.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &UnixListener, stopped: &OwnedFd, agent: &Agent) {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
        ];
        let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None));
        let [_, stop] = &fds;
        if polled.is_err() || !stop.revents().is_empty() {
            return;
        }
        let Ok((client, _)) = listener.accept() else {
            return;
        };
        if connections.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            // Closed at once: the client sees an agent that is gone.
            continue;
        }
        connections.fetch_add(1, Ordering::Relaxed);
        let (agent, connections) = (agent.clone(), Arc::clone(&connections));
        let serving = std::thread::Builder::new().spawn(move || {
            // Either side may go at any time; the client hears of it by the end of the connection.
            let _ = serve(client, &agent);
            connections.fetch_sub(1, Ordering::Relaxed);
        });
        if serving.is_err() {
            return;
        }
    }
}

/// Answers one client until either side is gone.
fn serve(client: UnixStream, agent: &Agent) -> io::Result<()> {
    match agent {
        Agent::Socket(path) => {
            let mut agent = UnixStream::connect(path)?;
            relay(client, |question| ask(&mut agent, question))
        }
        Agent::Keys(keyring) => relay(client, |question| Ok(keyring.answer(question))),
    }
}

/// Asks another agent.
fn ask(agent: &mut (impl Read + Write), question: &[u8]) -> io::Result<Vec<u8>> {
    agent.write_all(question)?;
    message(agent)
}

/// Passes questions on and answers back until either side is gone.
fn relay(
    mut client: impl Read + Write,
    mut answer: impl FnMut(&[u8]) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let question = message(&mut client)?;
        match question.get(4) {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => client.write_all(&answer(&question)?)?,
            _ => client.write_all(&FAILURE)?,
        }
    }
}

/// Reads one message, with its length.
fn message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let n_bytes = u32::from_be_bytes(length);
    if n_bytes > MAX_MESSAGE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut whole = length.to_vec();
    whole.resize(length.len() + n_bytes as usize, 0);
    from.read_exact(&mut whole[length.len()..])?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both directions of a connection, in memory.
    struct Talk<'a> {
        heard: &'a [u8],
        said: &'a mut Vec<u8>,
    }

    impl Read for Talk<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.heard.read(into)
        }
    }

    impl Write for Talk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.said.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn agents_are_asked_for_keys_and_signatures_only() {
        let check = |question: &[u8], passed: &[u8], answer: &[u8]| {
            let (mut to_client, mut to_agent) = (Vec::new(), Vec::new());
            let client = Talk {
                heard: question,
                said: &mut to_client,
            };
            let mut agent = Talk {
                heard: &[0, 0, 0, 2, 12, 0],
                said: &mut to_agent,
            };
            relay(client, |question| ask(&mut agent, question)).unwrap_err();
            assert_eq!((&to_agent[..], &to_client[..]), (passed, answer), "{question:?}");
        };
        let (list, sign) = ([0, 0, 0, 1, 11], [0, 0, 0, 3, 13, 1, 2]);
        check(&list, &list, &[0, 0, 0, 2, 12, 0]);
        check(&sign, &sign, &[0, 0, 0, 2, 12, 0]);
        for kind in (0..=255).filter(|kind| ![11, 13].contains(kind)) {
            check(&[0, 0, 0, 1, kind], &[], &FAILURE);
        }
        check(&[0, 0, 0, 0], &[], &FAILURE);
        check(&[0, 4, 0, 1, 11], &[], &[]);
        check(&[0, 0, 0, 9, 11], &[], &[]);
    }
}
