//! Which units go, and in which order: numbers in, units out, nothing touched.

use super::{Kind, Unit};

/// Until when units go; without any limit all do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The most that the store may occupy.
    pub max_used_bytes: Option<u64>,
    /// What is to be free on its disk.
    pub min_free_bytes: Option<u64>,
    /// What the store may always occupy, however little is free.
    pub reserved_bytes: u64,
}

/// How things are on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// What the store occupies.
    pub used_bytes: u64,
    /// What is free for the user of the store.
    pub free_bytes: u64,
    /// What the disk has in all.
    pub disk_bytes: u64,
}

impl Limits {
    /// Returns how many bytes have to go; `None`: all that can.
    pub fn to_remove(&self, space: Space) -> Option<u64> {
        if self.max_used_bytes.is_none() && self.min_free_bytes.is_none() {
            return match self.reserved_bytes {
                0 => None,
                reserved => Some(space.used_bytes.saturating_sub(reserved)),
            };
        }
        let over = |max| space.used_bytes.saturating_sub(max);
        let short = |min: u64| min.saturating_sub(space.free_bytes);
        let wanted = self
            .max_used_bytes
            .map_or(0, over)
            .max(self.min_free_bytes.map_or(0, short));
        Some(wanted.min(space.used_bytes.saturating_sub(self.reserved_bytes)))
    }
}

/// Returns those of `units` that go, the least valuable first, as many as the limits want. What is pinned or leased stays.
pub fn choose(units: Vec<Unit>, limits: Limits, space: Space, now_unix: i64) -> Vec<Unit> {
    let mut going: Vec<Unit> = units
        .into_iter()
        .filter(|unit| !unit.is_pinned && !unit.is_leased)
        .collect();
    going.sort_by(|a, b| {
        let keys = (weight(a, now_unix), weight(b, now_unix));
        keys.1
            .total_cmp(&keys.0)
            .then_with(|| a.used_unix.cmp(&b.used_unix))
            .then_with(|| a.name.cmp(&b.name))
    });
    let Some(mut left) = limits.to_remove(space) else {
        return going;
    };
    let n_going = going
        .iter()
        .take_while(|unit| {
            let is_needed = left > 0;
            left = left.saturating_sub(unit.size_bytes);
            is_needed
        })
        .count();
    going.truncate(n_going);
    going
}

/// What nothing finds any more counts as if it were this much older.
const LOST_SECONDS: i64 = 365 * 24 * 3600;
/// Nobody knows how long the content of a cache mount took: as if it had come over a network, so many bytes a millisecond.
const MOUNT_BYTES_PER_MS: u64 = 20_000;
/// A unit that took no time isn't for free: something has to find out, read, write.
const LEAST_MS: u64 = 100;

/// Says how much a unit is in the way: bytes that nobody used for so long, by what it would take to have them again.
fn weight(unit: &Unit, now_unix: i64) -> f64 {
    let lost = if unit.is_findable { 0 } else { LOST_SECONDS };
    let unused = now_unix
        .saturating_sub(unit.used_unix)
        .max(1)
        .saturating_add(lost);
    let bytes = unit.size_bytes.max(1);
    let took_ms = match unit.kind {
        Kind::Mount => bytes / MOUNT_BYTES_PER_MS,
        Kind::Layer | Kind::Blob | Kind::Unpacked | Kind::Damaged => unit.took_ms,
    };
    #[expect(clippy::cast_precision_loss, reason = "an order of sizes, not a sum")]
    let weight = unused as f64 * bytes as f64 / took_ms.saturating_add(LEAST_MS) as f64;
    weight
}
