//! Removes units beside running builds.
//!
//! While the gate is closed it is looked again who needs what, and what goes is only moved into scratch space: builds
//! wait for that long. Files are unlinked afterwards. Who is killed in between leaves scratch space, which is swept.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::{Kind, Pins, Unit};
use crate::ballast;
use crate::digest::{DiffId, Digest, Key};
use crate::layer::TreePath;
use crate::leases::{Closed, Item};
use crate::lock::FileLock;
use crate::root::Root;
use crate::store::{Store, StoreError};

/// How many units go at most while the gate is closed once, …
const BATCH: usize = 64;
/// … and about how much: then it is asked again whether to go on.
const BATCH_BYTES: u64 = 512 << 20;
/// How many things may be gone before the index is told: each time costs a disk's waiting.
const UNTOLD: usize = 1024;
/// For how long records are kept whose layers are gone: they still explain why a step runs.
const DEAD_RECORD_MS: i64 = 30 * 24 * 3600 * 1000;

/// What came of a removal.
#[derive(Debug, Default)]
pub struct Removed {
    /// What is gone.
    pub units: Vec<Unit>,
    /// What is needed after all: somebody began to use it.
    pub kept: Vec<Unit>,
}

impl Store {
    /// Removes units, but for what images or running processes need by now; `pins` says what images need, and is asked
    /// again whenever builds are kept waiting; its error ends the removal. The index remembers what went, and why, for steps that run again for it.
    pub fn remove_units<E: From<StoreError>>(
        &self,
        units: Vec<Unit>,
        (now_unix, because): (i64, &str),
        pins: &mut dyn FnMut() -> Result<Pins, E>,
    ) -> Result<Removed, E> {
        let mut removed = Removed::default();
        if self.leases().keeps_gate() {
            // This process would wait for itself.
            removed.kept = units;
            return Ok(removed);
        }
        let (damaged, units): (Vec<Unit>, Vec<Unit>) =
            units.into_iter().partition(|unit| unit.kind == Kind::Damaged);
        // Nobody needs it, and it needs no index.
        let root = Root::open_host(self.root()).map_err(StoreError::from)?;
        for unit in damaged {
            root.remove_tree(&TreePath::clean(unit.name.as_bytes()))
                .map_err(StoreError::from)?;
            removed.units.push(unit);
        }
        let (mounts, stored): (Vec<Unit>, Vec<Unit>) =
            units.into_iter().partition(|unit| unit.kind == Kind::Mount);
        let mut stored = stored.into_iter().peekable();
        let mut untold = Vec::new();
        let mut is_over = Ok(());
        while stored.peek().is_some() && is_over.is_ok() {
            // Files go before anything is written: the disk may be full.
            is_over = self.remove_batch(&mut stored, pins, &mut untold, &mut removed);
            if untold.len() >= UNTOLD {
                self.forget(&std::mem::take(&mut untold), now_unix, because)?;
            }
        }
        if !untold.is_empty() {
            self.forget(&untold, now_unix, because)?;
        }
        is_over?;
        for unit in mounts {
            let is_gone = self.mounts().remove(&unit.name, self.incomplete());
            match is_gone.map_err(StoreError::from)? {
                true => removed.units.push(unit),
                false => removed.kept.push(unit),
            }
        }
        ballast::take_in(self.root());
        Ok(removed)
    }

    /// Removes some of the units that are left.
    fn remove_batch<E: From<StoreError>>(
        &self,
        left: &mut impl Iterator<Item = Unit>,
        pins: &mut dyn FnMut() -> Result<Pins, E>,
        gone: &mut Vec<Item>,
        removed: &mut Removed,
    ) -> Result<(), E> {
        let mut moved = Vec::new();
        let closed = self.close_gate()?;
        let pins = pins()?;
        let mut n_bytes = 0_u64;
        for unit in left.take(BATCH) {
            n_bytes = n_bytes.saturating_add(unit.size_bytes);
            match self.move_away(&unit, &closed, &pins, &mut moved)? {
                true => {
                    gone.extend(unit.items.iter().cloned());
                    removed.units.push(unit);
                }
                false => removed.kept.push(unit),
            }
            if n_bytes >= BATCH_BYTES {
                break;
            }
        }
        drop(closed);
        Ok(self.discard(&moved)?)
    }

    fn forget(&self, gone: &[Item], now_unix: i64, because: &str) -> Result<(), StoreError> {
        let blobs: Vec<Digest> = gone.iter().filter_map(blob).collect();
        let layers: Vec<DiffId> = gone.iter().filter_map(layer).collect();
        self.index().forget_blobs(&blobs)?;
        Ok(self.index().put_evicted(&layers, now_unix, because)?)
    }

    pub(super) fn taken_now(&self) -> Result<HashSet<Item>, StoreError> {
        match self.leases().keeps_gate() {
            // It would wait for itself.
            true => Ok(HashSet::new()),
            false => self.leases().taken_now().map_err(|source| self.locked(source)),
        }
    }

    fn close_gate(&self) -> Result<Closed, StoreError> {
        self.leases().close_gate().map_err(|source| self.locked(source))
    }

    fn locked(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            action: "lock",
            path: self.root().join("gate"),
            source,
        }
    }

    /// Moves what a unit consists of out of the way; `false` where its first part must stay.
    fn move_away(
        &self,
        unit: &Unit,
        closed: &Closed,
        pins: &Pins,
        moved: &mut Vec<PathBuf>,
    ) -> Result<bool, StoreError> {
        let must_stay = |item: &Item| closed.is_taken(item) || pins.hold(item);
        if unit.items.first().is_some_and(must_stay) {
            return Ok(false);
        }
        let mut is_gone = false;
        for item in unit.items.iter().filter(|item| !must_stay(item)) {
            let path = self.place(item);
            let failed = |source| StoreError::Io {
                action: "remove",
                path: path.clone(),
                source,
            };
            let beside = match self.incomplete().path() {
                // There is no room for scratch space; a file goes as well at once, a directory when there is.
                Err(error) if is_full(&error) && is_unpacked(item) => continue,
                Err(error) if is_full(&error) => None,
                other => Some(other.map_err(failed)?),
            };
            let outcome = match &beside {
                Some(beside) => std::fs::rename(&path, beside),
                None => std::fs::remove_file(&path),
            };
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Of users that exist only in a namespace, and we are outside of it.
                Err(error) if is_unpacked(item) && error.kind() == io::ErrorKind::PermissionDenied => {
                    continue;
                }
                other => {
                    other.map_err(failed)?;
                    moved.extend(beside);
                }
            }
            is_gone = true;
        }
        Ok(is_gone)
    }

    fn place(&self, item: &Item) -> PathBuf {
        let root = self.root();
        match item {
            Item::Layer(layer) => root.join("layers").join(layer.hex()),
            Item::Blob(digest) => root.join("blobs/sha256").join(digest.hex()),
            Item::Unpacked(name) => root.join("unpacked").join(name),
        }
    }

    /// Removes what was moved into scratch space.
    fn discard(&self, moved: &[PathBuf]) -> Result<(), StoreError> {
        let Some(first) = moved.first().and_then(|path| path.parent()) else {
            return Ok(());
        };
        let scratch = Root::open_host(first)?;
        for name in moved.iter().filter_map(|path| path.file_name()) {
            match scratch.remove_tree(&TreePath::clean(name.as_encoded_bytes())) {
                // Of users that exist only in a namespace: a sweep inside of one takes it.
                Err(error) if error.is_denied() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes what killed processes left behind, and forgets records whose layers are gone for long.
    pub fn sweep_leftovers(&self, now_unix: i64, pins: &Pins) -> Result<(), StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io {
                action: "sweep",
                path,
                source,
            }
        };
        for part in ["leases", "locks"] {
            let dir = self.root().join(part);
            for entry in std::fs::read_dir(&dir).map_err(failed(&dir))? {
                let path = entry.map_err(failed(&dir))?.path();
                // Letting go of a lock that was nobody's removes its file.
                drop(FileLock::try_now(path.clone()).map_err(failed(&path))?);
            }
        }
        self.forget_dead_records(now_unix, pins)
    }

    /// What an image needs may never have been fetched, and isn't gone.
    pub(super) fn forget_dead_records(&self, now_unix: i64, pins: &Pins) -> Result<(), StoreError> {
        let mut there: HashSet<DiffId> = pins.layers.clone();
        let mut gone: HashSet<DiffId> = HashSet::new();
        let oldest = now_unix.saturating_mul(1000).saturating_sub(DEAD_RECORD_MS);
        let mut is_gone = |layer: &DiffId| {
            if there.contains(layer) || gone.contains(layer) {
                return gone.contains(layer);
            }
            let is_here = is_file(&self.place(&Item::Layer(*layer)));
            match is_here {
                true => there.insert(*layer),
                false => gone.insert(*layer),
            };
            !is_here
        };
        let records = self.index().records()?;
        let dead: Vec<Key> = records
            .iter()
            .filter(|record| record.created_unix_ms < oldest)
            .filter(|record| record.layers.iter().any(&mut is_gone))
            .map(|record| record.key)
            .collect();
        match dead.is_empty() {
            true => Ok(()),
            false => Ok(self.index().forget_records(&dead)?),
        }
    }
}

fn blob(item: &Item) -> Option<Digest> {
    match item {
        Item::Blob(digest) => Some(*digest),
        Item::Layer(_) | Item::Unpacked(_) => None,
    }
}

fn layer(item: &Item) -> Option<DiffId> {
    match item {
        Item::Layer(layer) => Some(*layer),
        Item::Blob(_) | Item::Unpacked(_) => None,
    }
}

fn is_unpacked(item: &Item) -> bool {
    matches!(item, Item::Unpacked(_))
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}
