//! Where a build begins to write down what happens in it, and where that ends; `crate::journal` says what.

use std::sync::Arc;

use super::Stops;
use crate::journal::{About, Ending, Journal, StepFacts};
use crate::report::{self, Failure};

impl Stops<'_> {
    /// Begins to write down what happens. What can't be written down happens all the same.
    pub(super) fn begin_journal(&self) {
        let about = About {
            dockerfile: self.inputs.dockerfile_name.clone(),
            target: self.options.target.clone().unwrap_or_default(),
            tags: self.options.tags.clone(),
        };
        match Journal::begin(self.store.root(), about) {
            Ok(journal) => drop(self.journal.set(Arc::new(journal))),
            Err(error) => self.progress.events().warn(unkept(&error)),
        }
    }
}

/// Writes down how the build ended.
pub(super) fn end(journal: &Journal, failure: Option<&Failure>, is_cancelled: bool, steps: Vec<StepFacts>) {
    let ending = match failure {
        None => Ending::Done,
        Some(_) if is_cancelled => Ending::Cancelled,
        Some(failure) => Ending::Failed(failure.message().to_owned()),
    };
    let ended = journal.end(ending, steps);
    ended.unwrap_or_else(|error| report::warn(&unkept(&error)));
}

fn unkept(error: &std::io::Error) -> String {
    format!("this build can't be written down for `ashlar logs`: {error}")
}
