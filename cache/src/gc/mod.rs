//! Garbage collection: what is in a store, what of it nobody needs, in which order that goes, and how.
//!
//! `ceiling` says whether there is anything to do, cheaply. `inventory` finds units: things that go together. `choice` decides, from numbers alone, which of them go. `removal`
//! removes them beside running builds. What images need is said by the caller, who can read their configs; what running
//! processes need, by their leases; who uses a cache mount, by its lock. Records of steps don't keep anything: they
//! are worth what their layers are.

mod ceiling;
mod choice;
mod inventory;
mod removal;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::digest::{DiffId, Digest};
use crate::leases::Item;
use crate::mounts::Scope;

pub use ceiling::Kept;
pub use choice::{Limits, Space, choose};
pub use removal::Removed;

/// What images need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// Layers.
    pub layers: HashSet<DiffId>,
    /// Configs, manifests, and compressed layers that can't be made again.
    pub blobs: HashSet<Digest>,
}

impl Pins {
    fn hold(&self, item: &Item) -> bool {
        match item {
            Item::Layer(layer) => self.layers.contains(layer),
            Item::Blob(digest) => self.blobs.contains(digest),
            // Can be unpacked again.
            Item::Unpacked(_) => false,
        }
    }
}

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A layer, with its compressed forms and what was unpacked of it.
    Layer,
    /// A blob that belongs to no layer of its own: a file of a web server, a manifest, a form of a layer that stays.
    Blob,
    /// A layer that was unpacked, and stays.
    Unpacked,
    /// A cache mount.
    Mount,
    /// What was found damaged, and set aside for a look: only who asks for it removes it.
    Damaged,
}

impl Kind {
    /// Returns the word of BuildKit for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Layer => "regular",
            Self::Blob | Self::Unpacked => "internal",
            Self::Mount => "exec.cachemount",
            Self::Damaged => "damaged",
        }
    }
}

/// Things of a store that go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What it is.
    pub kind: Kind,
    /// Names it: the digits of a digest, a directory, a cache mount; of what is damaged the path in the store.
    pub name: String,
    /// What people know it as: the step that made it, the id of a cache mount; may be empty.
    pub about: String,
    /// Whose builds share it, of a cache mount.
    pub scope: Option<Scope>,
    /// What it occupies.
    pub size_bytes: u64,
    /// When it was last used, in seconds since the Unix epoch.
    pub used_unix: i64,
    /// How long all steps took that are lost with it.
    pub took_ms: u64,
    /// Whether any step's result, or anything else that a build would look for, is lost with it.
    pub is_findable: bool,
    /// Whether an image needs it.
    pub is_pinned: bool,
    /// Whether a running process relies on it.
    pub is_leased: bool,
    /// The first is what the others are of. Empty for cache mounts and what is damaged.
    items: Vec<Item>,
}

impl Unit {
    /// Returns the layer that it is.
    pub fn layer(&self) -> Option<DiffId> {
        match self.items.first() {
            Some(Item::Layer(layer)) => Some(*layer),
            _ => None,
        }
    }

    /// Returns the blob that it is.
    pub fn blob(&self) -> Option<Digest> {
        match self.items.first() {
            Some(Item::Blob(digest)) => Some(*digest),
            _ => None,
        }
    }
}
