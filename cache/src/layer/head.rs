//! The first block of a layer file: what it holds and where, with checksums, and the EROFS superblock.
//!
//! ```text
//! 0      magic, version, flags, diff ID, lengths, offsets, two BLAKE3 (of metadata, of index)     little endian
//! 992    BLAKE3 of bytes 0 to 992 and of the superblock's block
//! 1024   EROFS superblock, 128 bytes; zeros up to 4096
//! 4096   tar · expanded sparse files · EROFS metadata · index · zeros up to a multiple of 4096
//! ```
//! The head is written last. A file without a valid one was never finished.

use super::TAR_OFFSET;
use crate::digest::DiffId;

/// Part of the on-disk format: a change here, in `index` or in `erofs` that old readers would misread needs a new
/// version.
const MAGIC: &[u8; 8] = b"ashlar\x00L";
const VERSION: u32 = 1;
const CHECKSUM_AT: usize = 992;
/// Where EROFS expects its superblock.
pub(super) const SUPERBLOCK_AT: usize = 1024;
/// The bytes that this file is about.
pub(super) const HEAD_BYTES: usize = 1536;

const IMPLIED_DIRS: u32 = 1;
const LOWER_LINKS: u32 = 2;

/// A run of bytes in the layer file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) checksum: [u8; 32],
}

/// What the head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) diff_id: DiffId,
    pub(super) tar_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) metadata: Section,
    pub(super) index: Section,
    pub(super) has_implied_dirs: bool,
    pub(super) has_lower_links: bool,
}

impl Head {
    /// Writes the head around the superblock.
    pub(super) fn encode(&self, superblock: &[u8; 128]) -> [u8; HEAD_BYTES] {
        let mut flags = 0;
        if self.has_implied_dirs {
            flags |= IMPLIED_DIRS;
        }
        if self.has_lower_links {
            flags |= LOWER_LINKS;
        }
        let mut fields = Vec::with_capacity(CHECKSUM_AT);
        fields.extend_from_slice(MAGIC);
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&u32::to_le_bytes(flags));
        fields.extend_from_slice(self.diff_id.as_bytes());
        for number in [self.tar_bytes, self.file_bytes] {
            fields.extend_from_slice(&number.to_le_bytes());
        }
        for section in [&self.metadata, &self.index] {
            fields.extend_from_slice(&section.offset.to_le_bytes());
            fields.extend_from_slice(&section.length.to_le_bytes());
            fields.extend_from_slice(&section.checksum);
        }
        let mut out = [0; HEAD_BYTES];
        out[..fields.len()].copy_from_slice(&fields);
        out[SUPERBLOCK_AT..SUPERBLOCK_AT + superblock.len()].copy_from_slice(superblock);
        let checksum = checksum(&out);
        out[CHECKSUM_AT..SUPERBLOCK_AT].copy_from_slice(&checksum);
        out
    }

    /// Reads a head; the error says what doesn't fit.
    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, &'static str> {
        if !bytes.starts_with(MAGIC) {
            return Err("it was never finished, or is no layer file");
        }
        let mut fields = Fields(&bytes[MAGIC.len()..CHECKSUM_AT]);
        if u32::from_le_bytes(fields.take()) != VERSION {
            return Err("it has an unknown version");
        }
        if checksum(bytes) != bytes[CHECKSUM_AT..SUPERBLOCK_AT] {
            return Err("wrong checksum of its head");
        }
        let flags = u32::from_le_bytes(fields.take());
        let head = Self {
            diff_id: DiffId::from_bytes(fields.take()),
            tar_bytes: fields.number(),
            file_bytes: fields.number(),
            metadata: fields.section(),
            index: fields.section(),
            has_implied_dirs: flags & IMPLIED_DIRS != 0,
            has_lower_links: flags & LOWER_LINKS != 0,
        };
        let ends = [
            TAR_OFFSET.checked_add(head.tar_bytes),
            head.metadata.offset.checked_add(head.metadata.length),
            head.index.offset.checked_add(head.index.length),
        ];
        let inside = ends
            .iter()
            .all(|end| end.is_some_and(|end| end <= head.file_bytes));
        if inside {
            Ok(head)
        } else {
            Err("its parts lie outside")
        }
    }
}

fn checksum(head: &[u8; HEAD_BYTES]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..CHECKSUM_AT]);
    hasher.update(&head[SUPERBLOCK_AT..]);
    *hasher.finalize().as_bytes()
}

/// Fixed-size fields one after the other; there are always enough, the layout above says so.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .0
            .split_first_chunk()
            .expect("because the fields end before the checksum");
        self.0 = rest;
        *field
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn section(&mut self) -> Section {
        Section {
            offset: self.number(),
            length: self.number(),
            checksum: self.take(),
        }
    }
}
