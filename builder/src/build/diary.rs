//! Where a build begins to write down what happens in it; `crate::journal` says what.

use std::sync::Arc;

use super::{Stops, unkept};
use crate::journal::{About, Journal};

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
