//! What happens during a build, told to whoever shows it.
//!
//! Sending never blocks and never fails a build. State changes always arrive; output of steps is dropped, and the
//! number of dropped bytes told, while more of it is under way than the receiver digests: a slow terminal must neither slow
//! down a step nor make memory grow.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::graph::VertexId;
use crate::miss::Miss;

/// How much output of steps may be under way.
const LOG_BUDGET_BYTES: usize = 4 << 20;

/// How much output is passed on however fast it comes, and then in every second. Showing a flood takes the processor
/// from the step that makes it, and nobody reads it.
const LOG_BURST_BYTES: f64 = (16 << 20) as f64;
const LOG_BYTES_PER_SECOND: f64 = (1 << 20) as f64;

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
    allowance: Arc<Mutex<Allowance>>,
}

/// How much output may be passed on.
#[derive(Debug)]
struct Allowance {
    bytes: f64,
    at: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            bytes: LOG_BURST_BYTES,
            at: Instant::now(),
        }
    }
}

impl Allowance {
    /// Takes so many bytes out of it, if they are there.
    fn take(&mut self, n_bytes: usize, now: Instant) -> bool {
        let grown = now.saturating_duration_since(self.at).as_secs_f64() * LOG_BYTES_PER_SECOND;
        self.bytes = (self.bytes + grown).min(LOG_BURST_BYTES);
        self.at = now;
        let is_there = self.bytes >= n_bytes as f64;
        if is_there {
            self.bytes -= n_bytes as f64;
        }
        is_there
    }
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
            allowance: Arc::default(),
        }
    }

    /// Tells what happened.
    pub fn send(&self, event: Event) {
        if let Some(sender) = &self.sender {
            // Without a receiver there is no one to tell, and nothing to do about it.
            let _ = sender.send(event);
        }
    }

    /// Passes on output of a step, or drops it when too much is under way, or was a moment ago. Says whether it was
    /// passed on.
    pub fn log(&self, subject: &Subject, stream: Stream, bytes: &[u8]) -> bool {
        if self.sender.is_none() || bytes.is_empty() {
            return true;
        }
        let fits = self.under_way.load(Ordering::Relaxed).saturating_add(bytes.len()) <= LOG_BUDGET_BYTES;
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        if !fits || !allowance.take(bytes.len(), Instant::now()) {
            self.skipped.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return false;
        }
        drop(allowance);
        self.pass_on(subject.clone(), stream, bytes);
        true
    }

    /// Passes on the last bytes of what was dropped of a step's output, whatever is under way: they say how it ended.
    pub fn log_last(&self, subject: &Subject, stream: Stream, bytes: &[u8]) {
        if !bytes.is_empty() {
            // Another step's chunk may have told of them already.
            let n_bytes = bytes.len() as u64;
            let less = |skipped: u64| Some(skipped.saturating_sub(n_bytes));
            let _always = self
                .skipped
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            self.pass_on(subject.clone(), stream, bytes);
        }
    }

    fn pass_on(&self, subject: Subject, stream: Stream, bytes: &[u8]) {
        self.under_way.fetch_add(bytes.len(), Ordering::Relaxed);
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
            events.log(&subject, Stream::Stdout, &block);
        }
        let arrived: Vec<Event> = receiver.try_iter().collect();
        assert_eq!(arrived.len(), 2);
        drop(arrived);
        assert!(events.log(&subject, Stream::Stdout, b"after"));
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

    /// hardening R43
    #[test]
    fn a_flood_is_shown_at_a_bounded_rate_and_its_end_always() {
        let now = Instant::now();
        let mut allowance = Allowance {
            bytes: LOG_BURST_BYTES,
            at: now,
        };
        let chunk = 64 << 10;
        let n_burst = (0..).take_while(|_| allowance.take(chunk, now)).count();
        assert_eq!(n_burst * chunk, LOG_BURST_BYTES as usize);
        let later = now + Duration::from_secs(2);
        let n_later = (0..).take_while(|_| allowance.take(chunk, later)).count();
        assert_eq!(n_later * chunk, 2 * LOG_BYTES_PER_SECOND as usize);
        let (events, receiver) = Events::channel();
        let subject = Subject::internal("x");
        assert!(!events.log(&subject, Stream::Stdout, &vec![b'x'; LOG_BUDGET_BYTES + 1]));
        events.log_last(&subject, Stream::Stdout, b"x");
        match receiver.try_recv() {
            Ok(Event::Log { chunk, .. }) => {
                assert_eq!(
                    (chunk.bytes(), chunk.skipped_bytes()),
                    (&b"x"[..], LOG_BUDGET_BYTES as u64)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
