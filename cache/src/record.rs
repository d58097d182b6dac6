//! What the index remembers of a finished step: its key with the parts the key was made of, and its result.

use serde::{Deserialize, Serialize};

use crate::digest::{DiffId, Key};

/// One part of a key, by name. Kept so that a later miss can say what changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// What it is: `ENV VERSION`, `input context`, `command`.
    pub name: String,
    /// Its value, or a hash of it where it is long.
    pub value: String,
}

/// A finished step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key that finds it.
    pub key: Key,
    /// The resulting tree, base layer first.
    pub layers: Vec<DiffId>,
    /// What the key was made of, in order.
    pub components: Vec<Component>,
    /// Identity of the step across changes of its values.
    pub step: String,
    /// When it finished, in seconds since the Unix epoch.
    pub created_unix: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}
