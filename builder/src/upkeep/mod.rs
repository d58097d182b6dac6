//! Keeping the store small: what images need, and what is done after each build. What may go, in which order and how, is
//! `cache::gc`'s.
//!
//! It never makes a build fail: what can't be tidied up costs a warning.

mod ceiling;
mod needs;
mod unnamed;

use cache::Store;
use cache::blobs::BlobError;
use cache::gc::GcError;
use solver::Cancel;

pub(crate) use ceiling::{Amount, Ceiling};
pub(crate) use needs::{ImageNeeds, Needs};
pub(crate) use unnamed::only_unnamed;

use crate::clock;
use crate::commands::human;
use crate::failure;
use crate::options::{BuildOptions, Environment};
use crate::progress::Mode;
use crate::report::{self, Failure};

/// Why layers are gone that nobody asked to remove.
const BECAUSE: &str = "the store's ceiling";

/// Says why a store can't be tidied up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpkeepError {
    /// What is stored.
    #[error(transparent)]
    Gc(#[from] GcError),
    /// Somebody waits for this process to end.
    #[error("stopped")]
    Stopped,
    /// What an image needs can't be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl From<cache::index::IndexError> for UpkeepError {
    fn from(error: cache::index::IndexError) -> Self {
        Self::Gc(error.into())
    }
}

/// Removes the least valuable of what nobody needs, where the store has outgrown its ceiling. What the build used stays as
/// long as its process lives.
pub(crate) fn after_build(store: &Store, options: &BuildOptions, cancel: &Cancel) {
    // Nothing came, nothing goes: most builds find all they need.
    if cancel.is_cancelled() || !store.has_arrivals() {
        return;
    }
    match keep_below_ceiling(store, options, cancel) {
        Ok(0) => {}
        Err(_) if cancel.is_cancelled() => {}
        Ok(_) if options.progress == Mode::Quiet => {}
        Ok(bytes) => report::note(&format!(
            "the store had outgrown its ceiling: {} of its cache are removed (`ashlar df` says what is left)",
            human::size(bytes)
        )),
        Err(failure) => report::warn(&format!(
            "the store can't be kept below its ceiling: {}",
            failure.message()
        )),
    }
}

/// Returns how much went.
fn keep_below_ceiling(store: &Store, options: &BuildOptions, cancel: &Cancel) -> Result<u64, Failure> {
    let failed = |error: UpkeepError| failure::of_upkeep(&error);
    let files = Ceiling::of_files(&Environment::of_process())?;
    let disk_bytes = store.space(0).map_err(|error| failed(error.into()))?.disk_bytes;
    let limits = options.ceiling.or(files).limits(disk_bytes);
    let now_unix = clock::now_unix();
    let mut needs = Needs::default();
    let mut removed_bytes = 0;
    loop {
        let mut pins = || match cancel.is_cancelled() {
            true => Err(UpkeepError::Stopped),
            false => needs.pins(store),
        };
        let kept = store
            .keep_below(limits, now_unix, BECAUSE, &mut pins)
            .map_err(failed)?;
        let Some(kept) = kept else {
            return Ok(removed_bytes);
        };
        removed_bytes += kept.removed_bytes;
        if kept.over_bytes == 0
            || !unnamed::forget(store, &mut needs, kept.over_bytes, now_unix).map_err(failed)?
        {
            return Ok(removed_bytes);
        }
    }
}
