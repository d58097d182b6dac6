//! What is remembered of a finished build step: its result, and of what its key was made.
//!
//! Plain data; where records are kept is the index's business.

use serde::{Deserialize, Serialize};

use crate::digest::{DiffId, Key};

/// One part of a key, kept so that a later miss can be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Which part: `args`, `env VERSION`, `base`.
    pub name: String,
    /// Its value: short printable text as it is, anything else as a hash. Equal parts have equal values.
    pub value: String,
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the step was: its op and how it saw its inputs.
    pub key: Key,
    /// All layers of the result, base first, those of the inputs below included.
    pub layers: Vec<DiffId>,
    /// Of what the key was made, in the order in which it was hashed.
    pub components: Vec<Component>,
    /// Where in its build the step stands, the same from build to build, to find the record to compare with.
    pub step: String,
    /// When it was made, in milliseconds since the epoch: of the records of a step the newest counts.
    pub created_unix_ms: i64,
    /// How long making it took.
    pub took_ms: u64,
}
