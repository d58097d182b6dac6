//! What is stored: digests, content store, layer files and their indexes, cache records, tree hashes, GC.

pub mod compress;
pub mod digest;
pub mod layer;
pub mod root;
pub mod tree;

pub use digest::{ChainId, ContentHash, DiffId, Digest, Key, TreeHash};
pub use root::Root;
