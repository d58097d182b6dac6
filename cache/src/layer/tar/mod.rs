//! The tar stream itself: a strict reader and a deterministic writer of ustar with PAX extensions.
//!
//! Header layouts come from the `tar` crate; numbers, PAX records and sparse maps are ours, because a layer must
//! mean the same here as to every registry client: the crate splits PAX values at newlines, drops nanoseconds and
//! wraps oversized numbers. Nothing here touches a file system.

mod number;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::is_tar_header;
pub(super) use reader::{Member, MemberKind, Reader};
pub(super) use sparse::Extent;
pub(super) use writer::header;

/// The unit of a tar.
pub(super) const BLOCK_BYTES: usize = 512;

/// Returns how many bytes fill the last block after `size_bytes`.
pub(super) fn padding(size_bytes: u64) -> u64 {
    (512 - size_bytes % 512) % 512
}
