//! Layer files: one file per layer, never unpacked. See `ARCHITECTURE.md`, "A layer is one file".

mod entry;
pub mod unpack;

pub use entry::{Entry, FileData, Kind, Meta, Timestamp, TreePath, Xattrs};
