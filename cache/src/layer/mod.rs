//! Layer files: one file per layer, never unpacked. See `ARCHITECTURE.md`, "A layer is one file".
//!
//! `writer`, `import` and `pack` make them (entries, a foreign tar, an overlay's upper directory), `file` reads
//! them, `merge` writes one image over many, `verify` compares one with its tar. Below these: `tar` (the stream), `sink` (one pass: write and hash),
//! `fold` and `names` (what the entries amount to), `erofs` (the mountable metadata), `index`, `head`.

mod entry;
mod erofs;
mod file;
mod fold;
mod head;
mod import;
mod index;
mod merge;
mod names;
mod pack;
mod sink;
mod tar;
#[cfg(test)]
mod tests;
pub mod unpack;
mod verify;
mod whiteout;
mod writer;
mod xattr;

pub use entry::{Entry, FileData, Kind, Meta, Timestamp, TreePath, Xattrs};
pub use file::{CheckedTar, FileReader, LayerFile};
pub use import::import;
pub use merge::write_merged;
pub use pack::{PackOptions, pack};
pub use tar::is_tar_header;
pub use verify::verify;
pub use writer::{Body, LayerWriter, Written};

/// Where the tar begins in a layer file. Part of the on-disk format.
pub const TAR_OFFSET: u64 = 4096;
/// The longest path that a layer may hold: four times what one system call takes, so that trees which were made
/// step by step fit, and short enough that a tar of a few kilobytes can't make gigabytes of implied parents.
pub const MAX_PATH_BYTES: usize = 16 * 1024;
/// The longest name of one file, as on every file system of Linux.
pub const MAX_COMPONENT_BYTES: usize = 255;

/// What a layer may cost. For archives from outside; our own packing uses the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the tar stream, with everything after its end marker.
    pub max_bytes: u64,
    /// Entries, with the parents that are only implied.
    pub max_entries: usize,
    /// Logical bytes of all sparse files together: they are hashed, holes too.
    pub max_sparse_bytes: u64,
    /// Bytes of all paths together: bounds the memory that an index takes.
    pub max_names_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 40,
            max_entries: 10_000_000,
            max_sparse_bytes: 64 << 30,
            max_names_bytes: 512 << 20,
        }
    }
}
