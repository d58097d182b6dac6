//! Keeping the store small: what images need, and what is done after each build, and whenever else images arrive. What may go, in which order and how, is
//! `cache::gc`'s.
//!
//! It never makes a build fail: what can't be tidied up costs a warning.

mod ceiling;
mod needs;
mod unnamed;

use cache::blobs::BlobError;
use cache::gc::{Limits, choose};
use cache::{Store, StoreError};
use solver::Cancel;

pub(crate) use ceiling::{Amount, Ceiling};
pub(crate) use needs::{ImageNeeds, Needs};
pub(crate) use unnamed::only_unnamed;

use crate::cli::CeilingArgs;
use crate::clock;
use crate::commands::human;
use crate::failure;
use crate::options::{self, BuildOptions, Environment};
use crate::progress::Mode;
use crate::report::{self, Failure};

/// Why layers are gone that nobody asked to remove.
const BECAUSE: &str = "the store's ceiling";
/// The same, where a build met a full disk.
const FULL: &str = "a full disk";

/// Says why a store can't be tidied up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpkeepError {
    /// What is stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody waits for this process to end.
    #[error("stopped")]
    Stopped,
    /// What an image needs can't be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl From<cache::index::IndexError> for UpkeepError {
    fn from(error: cache::index::IndexError) -> Self {
        Self::Store(error.into())
    }
}

/// How the store is kept below its ceiling.
#[derive(Debug, Clone, Copy)]
struct Wants {
    /// What was said of the ceiling, but for files.
    ceiling: Ceiling,
    told: Told,
}

/// What is said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// What went, and what went wrong.
    All,
    /// What went wrong.
    Faults,
}

impl Told {
    /// Returns what a command says that was, or wasn't, told to be quiet.
    pub(crate) fn unless(is_quiet: bool) -> Self {
        match is_quiet {
            true => Self::Faults,
            false => Self::All,
        }
    }
}

/// Removes the least valuable of what nobody needs, where the store has outgrown its ceiling. What the build used stays as
/// long as its process lives.
pub(crate) fn after_build(store: &Store, options: &BuildOptions, cancel: &Cancel) {
    let wants = Wants {
        ceiling: options.ceiling,
        told: Told::unless(options.progress == Mode::Quiet),
    };
    after(store, wants, cancel);
}

/// Does the same after an image came that wasn't built. There are no flags for it: variables and files say what the ceiling is.
pub(crate) fn after_arrival(store: &Store, environment: &Environment, told: Told) {
    match options::ceiling(&CeilingArgs::default(), environment) {
        Ok(ceiling) => after(store, Wants { ceiling, told }, &Cancel::new()),
        Err(failure) => unkept(&failure),
    }
}

fn after(store: &Store, wants: Wants, cancel: &Cancel) {
    // Nothing came, nothing goes: most builds find all they need.
    if cancel.is_cancelled() || !store.has_arrivals() {
        return;
    }
    match keep_below_ceiling(store, wants.ceiling, cancel) {
        Ok(0) => {}
        Err(_) if cancel.is_cancelled() => {}
        Ok(_) if wants.told == Told::Faults => {}
        Ok(bytes) => report::note(&format!(
            "the store had outgrown its ceiling: {} of its cache are removed (`ashlar df` says what is left)",
            human::size(bytes)
        )),
        Err(failure) => unkept(&failure),
    }
}

/// Removes the less valuable half of the store's cache, and more where a tenth of the disk isn't free then: whoever has met
/// a full disk has to make room, whatever the ceiling says. Returns how much went.
pub(crate) fn make_room(store: &Store) -> Result<u64, UpkeepError> {
    let now_unix = clock::now_unix();
    let mut needs = Needs::default();
    let pins = needs.pins(store)?;
    let units = store.units(&pins)?;
    let used_bytes = units
        .iter()
        .map(|unit| unit.size_bytes)
        .fold(0, u64::saturating_add);
    let space = store.space(used_bytes)?;
    let limits = Limits {
        max_used_bytes: Some(used_bytes / 2),
        min_free_bytes: Some(space.disk_bytes / 10),
        reserved_bytes: 0,
    };
    let going = choose(units, limits, space, now_unix);
    let removed = store.remove_units(going, (now_unix, FULL), &mut || needs.pins(store))?;
    store.sweep_leftovers(now_unix, &pins)?;
    let sizes = removed.units.iter().map(|unit| unit.size_bytes);
    Ok(sizes.fold(0, u64::saturating_add))
}

fn unkept(failure: &Failure) {
    report::warn(&format!(
        "the store can't be kept below its ceiling: {}",
        failure.message()
    ));
}

/// Returns how much went.
fn keep_below_ceiling(store: &Store, ceiling: Ceiling, cancel: &Cancel) -> Result<u64, Failure> {
    let failed = |error: UpkeepError| failure::of_upkeep(&error);
    let files = Ceiling::of_files(&Environment::of_process())?;
    let disk_bytes = store.space(0).map_err(|error| failed(error.into()))?.disk_bytes;
    let limits = ceiling.or(files).limits(disk_bytes);
    keep_below(store, limits, clock::now_unix(), cancel).map_err(failed)
}

/// Returns how much went.
fn keep_below(store: &Store, limits: Limits, now_unix: i64, cancel: &Cancel) -> Result<u64, UpkeepError> {
    let mut needs = Needs::default();
    let mut removed_bytes = 0;
    loop {
        let mut pins = || match cancel.is_cancelled() {
            true => Err(UpkeepError::Stopped),
            false => needs.pins(store),
        };
        let kept = store.keep_below(limits, now_unix, BECAUSE, &mut pins)?;
        let Some(kept) = kept else {
            return Ok(removed_bytes);
        };
        removed_bytes += kept.removed_bytes;
        if kept.over_bytes == 0 || !unnamed::forget(store, &mut needs, kept.over_bytes, now_unix)? {
            return Ok(removed_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::unnamed::tests::make;

    #[test]
    fn what_has_a_name_stays_and_what_has_none_goes_last() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(&dir.path().join("store")).unwrap();
        let maker = open();
        make(&maker, "named", &["docker.io/library/named:1"]);
        make(&maker, "unnamed", &[]);
        drop(maker);
        let store = open();
        let tight = Limits {
            max_used_bytes: Some(1),
            ..Limits::default()
        };
        let n_layers = || {
            std::fs::read_dir(dir.path().join("store/layers"))
                .unwrap()
                .count()
        };
        let keep = |hours: i64| {
            let later = clock::now_unix() + hours * 3600;
            let removed_bytes = keep_below(&store, tight, later, &Cancel::new()).unwrap();
            (
                removed_bytes > 0,
                n_layers(),
                store.index().images().unwrap().len(),
            )
        };
        assert_eq!(keep(0), (false, 2, 2));
        assert_eq!(keep(2), (true, 1, 1));
        assert_eq!(keep(200), (false, 1, 1));
        let cancelled = Cancel::new();
        cancelled.cancel();
        assert!(matches!(
            keep_below(&store, tight, 0, &cancelled),
            Err(UpkeepError::Stopped)
        ));
    }
}
