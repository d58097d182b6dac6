//! What happens during a build, told to whoever shows it.
//!
//! Sending never blocks and never fails a build. State changes always arrive; output of steps is dropped, and the
//! number of dropped bytes told, while more of it is under way than the receiver digests: a slow terminal must neither slow
//! down a step nor make memory grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::graph::VertexId;
use crate::miss::Miss;

/// How much output of steps may be under way.
const LOG_BUDGET_BYTES: usize = 4 << 20;

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A step of the graph.
    Vertex(VertexId),
    /// Work that is not a vertex, by its name: `[internal] load build context`, `exporting to image`.
    Internal(Arc<str>),
}

impl Subject {
    /// Returns the subject for work that is not a vertex.
    pub fn internal(name: &str) -> Self {
        Self::Internal(name.into())
    }
}

/// Where a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output of a step. Holds its share of the budget until it is dropped.
#[derive(Debug)]
pub struct LogChunk {
    bytes: Vec<u8>,
    skipped_bytes: u64,
    under_way: Arc<AtomicUsize>,
}

impl LogChunk {
    /// Returns the output, raw.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns how many bytes, of any step, were dropped before this chunk.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }
}

impl Drop for LogChunk {
    fn drop(&mut self) {
        self.under_way.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// Work begins.
    Started {
        /// On what.
        subject: Subject,
        /// Why it could not be answered from the cache; `None` for what is never cached, and where
        /// [`Explained`](Self::Explained) follows.
        why: Option<Miss>,
    },
    /// More is known of why work was begun.
    Explained {
        /// Which.
        subject: Subject,
        /// All of the reason.
        why: Miss,
    },
    /// A step was answered without work: its result is recorded, or that of a step that needs it.
    Cached {
        /// Which.
        subject: Subject,
    },
    /// Work ended well.
    Finished {
        /// Which.
        subject: Subject,
        /// How long it took.
        took: Duration,
    },
    /// Work failed.
    Failed {
        /// Which.
        subject: Subject,
        /// Why.
        error: String,
    },
    /// Work was stopped because something else failed, or on request.
    Cancelled {
        /// Which.
        subject: Subject,
    },
    /// A step wrote something.
    Log {
        /// Which.
        subject: Subject,
        /// Where to.
        stream: Stream,
        /// What.
        chunk: LogChunk,
    },
    /// Part of some work moved on: a layer being pulled.
    Progress {
        /// Which work.
        subject: Subject,
        /// Which part of it.
        part: String,
        /// Bytes done.
        current_bytes: u64,
        /// Bytes to do, when known.
        total_bytes: Option<u64>,
        /// Whether the part is complete.
        done: bool,
    },
    /// Something to know that stops nothing.
    Warning {
        /// One line.
        text: String,
    },
    /// All is over: nothing that matters follows.
    End,
}

/// The sending end. Clones send to the same receiver.
#[derive(Debug, Clone)]
pub struct Events {
    sender: Option<mpsc::Sender<Event>>,
    under_way: Arc<AtomicUsize>,
    skipped: Arc<AtomicU64>,
}

impl Events {
    /// Returns both ends.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel();
        (
            Self {
                sender: Some(sender),
                ..Self::none()
            },
            receiver,
        )
    }

    /// Returns an end that no one listens to.
    pub fn none() -> Self {
        Self {
            sender: None,
            under_way: Arc::default(),
            skipped: Arc::default(),
        }
    }

    /// Tells what happened.
    pub fn send(&self, event: Event) {
        if let Some(sender) = &self.sender {
            // Without a receiver there is no one to tell, and nothing to do about it.
            let _ = sender.send(event);
        }
    }

    /// Passes on output of a step, or drops it when too much is under way.
    pub fn log(&self, subject: Subject, stream: Stream, bytes: &[u8]) {
        if self.sender.is_none() || bytes.is_empty() {
            return;
        }
        let before = self.under_way.fetch_add(bytes.len(), Ordering::Relaxed);
        if before.saturating_add(bytes.len()) > LOG_BUDGET_BYTES {
            self.under_way.fetch_sub(bytes.len(), Ordering::Relaxed);
            self.skipped.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return;
        }
        let chunk = LogChunk {
            bytes: bytes.to_vec(),
            skipped_bytes: self.skipped.swap(0, Ordering::Relaxed),
            under_way: Arc::clone(&self.under_way),
        };
        self.send(Event::Log {
            subject,
            stream,
            chunk,
        });
    }

    /// Warns.
    pub fn warn(&self, text: impl Into<String>) {
        self.send(Event::Warning { text: text.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_beyond_the_budget_is_dropped_and_told() {
        let (events, receiver) = Events::channel();
        let subject = Subject::internal("x");
        let block = vec![b'x'; LOG_BUDGET_BYTES / 2];
        for _ in 0..3 {
            events.log(subject.clone(), Stream::Stdout, &block);
        }
        let arrived: Vec<Event> = receiver.try_iter().collect();
        assert_eq!(arrived.len(), 2);
        drop(arrived);
        events.log(subject, Stream::Stdout, b"after");
        match receiver.try_recv() {
            Ok(Event::Log { chunk, .. }) => {
                assert_eq!(
                    (chunk.bytes(), chunk.skipped_bytes()),
                    (&b"after"[..], block.len() as u64)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
