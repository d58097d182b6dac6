//! What is stored: digests, content store, layer files and their indexes, cache records, tree hashes.
//!
//! The store on disk:
//!
//! ```text
//! <root>/                0700
//!   lock                 held shared by every process that has the store open
//!   blobs/sha256/<hex>   configs, manifests, compressed layers as pulled or as made for an output
//!   layers/<diff id>     one file per layer: tar stream, EROFS metadata and index in one, never unpacked
//!   unpacked/<name>/     layers as directories, only where EROFS can't be mounted; made when first needed
//!   incomplete/<id>/     scratch space of one process, held by <id>.lock; swept when nobody holds it
//!   index                SQLite: step records, tree hashes, image names, compressed forms of layers
//!   files.memo           stat identity of context files → content hash; may be lost at any time
//!   mounts/<identity>-<n> cache mounts, each beside its kernel lock; made when first needed
//!   locks/<key>          a kernel lock per running step or transfer
//!   tidied               when garbage collection looked last, and what it measured
//!   ballast              room that is given up first when the disk is full
//!   leases/<id>, gate    what running processes rely on, and what keeps it from being removed meanwhile
//!   damaged/<kind>-<hex> what wasn't what it should be, kept for a look; nothing reads it
//! ```
//!
//! What is written becomes visible by one rename of a complete, synced file; the index is told last. So a crash at any
//! instant leaves either nothing or the whole, and what the index says is never believed without the file.
//!
//! Synchronous throughout. Knows digests, blobs, layers and indexes; not ops, stages or registries. Never mounts.

mod ballast;
pub mod blobs;
pub mod check;
pub mod compress;
pub mod digest;
mod error;
pub mod gc;
pub mod incomplete;
pub mod index;
pub mod layer;
pub mod layers;
pub mod leases;
pub mod lock;
pub mod mounts;
pub mod record;
pub mod root;
pub mod store;
pub mod tree;

pub use digest::{ChainId, ContentHash, DiffId, Digest, Key, TreeHash};
pub use error::{EntryName, Error, Problem, Result};
pub use record::{Component, Record};
pub use store::{Purpose, Store, StoreError, Wait};
