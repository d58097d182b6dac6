//! Shows how far the blobs of `ashlar pull` and `push` are: live on a terminal, a line for each elsewhere.
//!
//! A signal ends the command here, so that the terminal is left as it was.

use std::time::Instant;

use solver::{Event, Events, Subject};

use super::signals;
use crate::progress::Progress;
use crate::report::{self, Failure};

/// Transfers that are being shown.
pub(crate) struct Transfers {
    live: Option<Progress>,
    sink: Sink,
}

/// Where the blobs of one image are told of.
#[derive(Clone)]
pub(crate) struct Sink {
    events: Option<Events>,
    subject: Subject,
    is_quiet: bool,
}

impl Transfers {
    /// Begins to show what is done to `image`; nothing, where nobody wants to see it.
    pub(crate) fn show(verb: &'static str, image: &str, is_quiet: bool) -> Self {
        let live = match is_quiet {
            true => None,
            false => Progress::live(verb),
        };
        let sink = Sink {
            events: live.as_ref().map(Progress::events),
            subject: Subject::internal(image),
            is_quiet,
        };
        Self { live, sink }
    }

    /// Returns where to tell of blobs.
    pub(crate) fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Does the work, until a signal asks to stop.
    pub(crate) async fn during<T>(
        self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let (Some(live), Some(events)) = (self.live, self.sink.events) else {
            return work.await;
        };
        let subject = self.sink.subject;
        let mut signals = signals::asking_to_stop()?;
        let begun = Instant::now();
        events.send(Event::Started {
            subject: subject.clone(),
            why: None,
        });
        let result = tokio::select! {
            result = work => result,
            Some(number) = signals.recv() => Err(Failure::cancelled(number)),
        };
        events.send(match &result {
            Ok(_) => Event::Finished {
                subject,
                took: begun.elapsed(),
            },
            Err(failure) => Event::Failed {
                subject,
                error: failure.message().to_owned(),
            },
        });
        live.finish();
        result
    }
}

impl Sink {
    /// Tells how far a blob is. What became of it, in words, when it is there.
    pub(crate) fn tell(&self, blob: &str, done_bytes: u64, total_bytes: u64, outcome: Option<String>) {
        if let Some(events) = &self.events {
            events.send(Event::Progress {
                subject: self.subject.clone(),
                part: blob.to_owned(),
                current_bytes: done_bytes,
                total_bytes: Some(total_bytes),
                done: outcome.is_some(),
            });
        } else if let Some(outcome) = outcome.filter(|_| !self.is_quiet) {
            report::note(&outcome);
        }
    }
}
