//! Keeps a store below its ceiling, and costs next to nothing when there is nothing to do.
//!
//! The file `tidied` says, by its time, when it was looked last, and in its text what was too slow to be measured each time:
//! cache mounts and unpacked layers. What arrived since shows in the times of two directories, so that a build that made
//! nothing new looks at three files only.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use super::{Kind, Limits, Pins, Space, choose};
use crate::ballast;
use crate::lock;
use crate::store::{Store, StoreError};

/// Names the file.
const TIDIED: &str = "tidied";
/// What was measured is believed for so long.
const MEASURED_SECONDS: i64 = 24 * 3600;
/// When something goes, so much more does that there is room for the next builds: a tenth.
const ROOM: u64 = 10;

/// What came of keeping a store below its ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// How much went.
    pub removed_bytes: u64,
    /// How much too much there still is: somebody needs it.
    pub over_bytes: u64,
}

impl Limits {
    /// Returns limits that leave some room below these, and above what is to be free.
    fn with_room(self) -> Self {
        Self {
            max_used_bytes: self.max_used_bytes.map(|max| max - max / ROOM),
            min_free_bytes: self.min_free_bytes.map(|min| min.saturating_add(min / ROOM)),
            reserved_bytes: self.reserved_bytes,
        }
    }

    /// Says whether there is too much in a store.
    fn are_passed(self, space: Space) -> bool {
        // Without limits nothing is too much.
        let has_any = self.max_used_bytes.is_some() || self.min_free_bytes.is_some();
        has_any && self.to_remove(space).is_some_and(|bytes| bytes > 0)
    }
}

impl Store {
    /// Returns how things are on the disk of the store, which occupies `used_bytes`.
    pub fn space(&self, used_bytes: u64) -> Result<Space, StoreError> {
        let disk = rustix::fs::statvfs(self.root()).map_err(|error| StoreError::Io {
            action: "look at the disk of",
            path: self.root().to_owned(),
            source: error.into(),
        })?;
        Ok(Space {
            used_bytes,
            free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            disk_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }

    /// Says whether anything came into the store since it was looked at last, as far as the times of directories tell.
    pub fn has_arrivals(&self) -> bool {
        let changed = |part: &str| {
            std::fs::metadata(self.root().join(part))
                .ok()
                .map(|meta| time(&meta))
        };
        match changed(TIDIED) {
            None => true,
            // A clock that went wrong for a while must not put an end to looking.
            Some(looked) if looked > now() => true,
            // Times are coarse: what came at the same time may have come later.
            Some(looked) => ["layers", "blobs/sha256"]
                .into_iter()
                .any(|part| changed(part).is_none_or(|changed| changed >= looked)),
        }
    }

    /// Removes the least valuable of what nobody needs, where the store has outgrown `limits`. `None`: it hasn't.
    pub fn keep_below<E: From<StoreError>>(
        &self,
        limits: Limits,
        now_unix: i64,
        because: &str,
        pins: &mut dyn FnMut() -> Result<Pins, E>,
    ) -> Result<Option<Kept>, E> {
        if self.leases().keeps_gate() {
            return Ok(None);
        }
        ballast::take_in(self.root());
        let measured = self.measured(now_unix);
        // First of all, so that what arrives from now on counts as new.
        let looked = self.note_look()?;
        let quick = self.quick_size_bytes()?;
        if let Some(slow) = measured
            && !limits.are_passed(self.space(quick.saturating_add(slow))?)
        {
            return Ok(None);
        }
        let mut units = self.units(&pins()?)?;
        let slow = |kind| matches!(kind, Kind::Mount | Kind::Unpacked | Kind::Damaged);
        let size = |only_slow: bool| {
            let counted = units.iter().filter(|unit| !only_slow || slow(unit.kind));
            counted.map(|unit| unit.size_bytes).fold(0, u64::saturating_add)
        };
        self.note_measured(size(true), now_unix, looked)?;
        let space = self.space(size(false))?;
        if !limits.are_passed(space) {
            return Ok(None);
        }
        // Somebody may want to look at it, and it counts, so that it is noticed.
        units.retain(|unit| unit.kind != Kind::Damaged);
        let going = choose(units, limits.with_room(), space, now_unix);
        let removed = self.remove_units(going, (now_unix, because), pins)?;
        self.sweep_leftovers(now_unix, &pins()?)?;
        let sizes = removed.units.iter().map(|unit| unit.size_bytes);
        let removed_bytes = sizes.fold(0, u64::saturating_add);
        let left = Space {
            used_bytes: space.used_bytes.saturating_sub(removed_bytes),
            free_bytes: space.free_bytes.saturating_add(removed_bytes),
            ..space
        };
        Ok(Some(Kept {
            removed_bytes,
            over_bytes: limits.to_remove(left).unwrap_or(0),
        }))
    }

    /// Returns what was measured, unless that is too long ago.
    fn measured(&self, now_unix: i64) -> Option<u64> {
        let file = File::open(self.root().join(TIDIED)).ok()?;
        let mut text = String::new();
        file.take(64).read_to_string(&mut text).ok()?;
        let (bytes, at_unix) = text.trim_end().split_once(' ')?;
        let age = now_unix.saturating_sub(at_unix.parse().ok()?);
        (0..MEASURED_SECONDS).contains(&age).then(|| bytes.parse().ok())?
    }

    /// Notes that it is looked now; returns the time that the file system has for that.
    fn note_look(&self) -> Result<SystemTime, StoreError> {
        let note = || {
            let file = lock::open(&self.root().join(TIDIED))?;
            let now = rustix::fs::Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_NOW,
            };
            let times = rustix::fs::Timestamps {
                last_access: now,
                last_modification: now,
            };
            rustix::fs::futimens(&file, &times)?;
            file.metadata()?.modified()
        };
        note().map_err(|source| self.unnoted(source))
    }

    /// Writes down what was measured, as of the time when it was looked.
    fn note_measured(&self, bytes: u64, now_unix: i64, looked: SystemTime) -> Result<(), StoreError> {
        let note = || {
            let mut file = File::create(self.root().join(TIDIED))?;
            file.write_all(format!("{bytes} {now_unix}\n").as_bytes())?;
            file.set_modified(looked)
        };
        note().map_err(|source| self.unnoted(source))
    }

    fn unnoted(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            action: "write",
            path: self.root().join(TIDIED),
            source,
        }
    }
}

fn now() -> (i64, i64) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (now.tv_sec, now.tv_nsec)
}

fn time(meta: &std::fs::Metadata) -> (i64, i64) {
    (meta.mtime(), meta.mtime_nsec())
}
