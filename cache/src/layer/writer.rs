//! Makes a layer file from entries, in one sequential pass: headers and contents as they come, the rest at the end.
//!
//! The end is shared with `import`: expanded sparse files, metadata, index, head. Neither syncs nor renames; that
//! is the store's.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;

use super::fold::{Fold, Folded};
use super::head::{Head, Section};
use super::sink::Sink;
use super::{
    FileData, Kind, Limits, MAX_COMPONENT_BYTES, MAX_PATH_BYTES, Meta, TAR_OFFSET, Timestamp, TreePath,
};
use super::{erofs, index, tar, whiteout};
use crate::digest::{ContentHash, DiffId};
use crate::error::{Error, Problem, Result};

/// Read at a time: what was read is still near the processor when it is hashed.
const READ_BYTES: usize = 128 * 1024;
/// Readers and mmap take whole pages at the end of the metadata and of the file. On-disk format.
const PAGE: u64 = 4096;

/// The type of an entry that is added, with where its content comes from.
pub enum Body<'a> {
    /// A regular file.
    File {
        /// How many bytes `reader` gives; more or fewer is an error.
        size_bytes: u64,
        /// The content.
        reader: &'a mut dyn Read,
        /// The content's hash where it is known: other content is an error.
        content: Option<ContentHash>,
    },
    /// A directory.
    Dir {
        /// Hides what lower layers have in it.
        opaque: bool,
    },
    /// A symbolic link with its target, verbatim.
    Symlink(Vec<u8>),
    /// Another name for an entry that was added before, or that is in a lower layer.
    Hardlink(TreePath),
    /// A character device: major, minor. Not 0:0, which is a whiteout.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// Removes the path of the lower layers. Metadata means nothing.
    Whiteout,
}

/// A layer file being made. The same entries in the same order give the same bytes.
pub struct LayerWriter {
    sink: Sink,
    fold: Fold,
    n_added: u64,
    header: Vec<u8>,
}

/// A finished layer file: complete, not yet synced nor named.
#[derive(Debug)]
pub struct Written {
    /// The file, open for reading and writing.
    pub file: File,
    /// The layer's identity.
    pub diff_id: DiffId,
    /// Length of the tar stream.
    pub tar_bytes: u64,
    /// Entries of the index, with the root and other parents that are only implied.
    pub n_entries: usize,
}

impl LayerWriter {
    /// Starts a layer in `file`: new, empty, open for reading and writing, on the store's file system.
    pub fn create(file: File) -> Result<Self> {
        let limits = Limits::default();
        Ok(Self {
            sink: Sink::new(file, limits.max_bytes),
            fold: Fold::new(limits),
            n_added: 0,
            header: Vec::new(),
        })
    }

    /// Appends one entry. Parents before what they hold is the caller's duty, for other readers' sake. An error
    /// leaves the layer unfinished for good.
    pub fn add(&mut self, path: TreePath, meta: Meta, body: Body<'_>) -> Result<()> {
        self.n_added += 1;
        let index = self.n_added;
        let problem = |problem: Problem| problem.of(index, path.as_bytes());
        check(&path, &meta, &body).map_err(problem)?;
        let (kind, content) = match body {
            Body::File {
                size_bytes,
                reader,
                content,
            } => (self.add_file(&path, &meta, size_bytes, reader, content)?, true),
            Body::Dir { opaque } => (
                Kind::Dir {
                    opaque,
                    implied: false,
                },
                false,
            ),
            Body::Symlink(target) => (Kind::Symlink(target), false),
            Body::Hardlink(target) => (Kind::Hardlink(target), false),
            Body::CharDevice(major, minor) => (Kind::CharDevice(major, minor), false),
            Body::BlockDevice(major, minor) => (Kind::BlockDevice(major, minor), false),
            Body::Fifo => (Kind::Fifo, false),
            Body::Whiteout => (Kind::Whiteout, false),
        };
        if let Kind::Whiteout = kind {
            self.put_marker(&whiteout::whiteout_path(&path))?;
        } else if !content {
            self.put_header(&path, &meta, &kind)?;
        }
        if let Kind::Dir { opaque: true, .. } = kind {
            self.put_marker(&path.join(whiteout::OPAQUE))?;
        }
        self.fold.add(&path, meta, kind).map_err(problem)?;
        Ok(())
    }

    fn put_header(&mut self, path: &TreePath, meta: &Meta, kind: &Kind) -> Result<()> {
        self.header.clear();
        tar::header(path, meta, kind, &mut self.header);
        self.sink.put(&self.header)
    }

    /// Writes an empty file whose name says something about lower layers; nothing else about it means anything.
    fn put_marker(&mut self, path: &TreePath) -> Result<()> {
        let meta = Meta {
            mode: 0o644,
            mtime: Timestamp::default(),
            ..Meta::default()
        };
        self.put_header(path, &meta, &Kind::Whiteout)
    }

    fn add_file(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        size_bytes: u64,
        reader: &mut dyn Read,
        content: Option<ContentHash>,
    ) -> Result<Kind> {
        let mut data = FileData {
            size_bytes,
            offset: 0,
            content: ContentHash::from_bytes([0; 32]),
        };
        self.put_header(path, meta, &Kind::File(data))?;
        let offset = TAR_OFFSET + self.sink.position();
        let mut hasher = blake3::Hasher::new();
        let mut left = size_bytes;
        loop {
            // After the last byte one more is asked for: it must not come.
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).clamp(1, READ_BYTES);
            let room = self.sink.room(wanted);
            let count = match reader.read(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::ReadSource {
                        path: path.clone(),
                        source,
                    });
                }
                Ok(count) => count,
            };
            let problem = |problem: Problem| Err(problem.of(self.n_added, path.as_bytes()));
            match (left, count) {
                (0, 0) => break,
                (0, _) => return problem(Problem::Grew),
                (_, 0) => return problem(Problem::Shrank),
                _ => {}
            }
            hasher.update(&room[..count]);
            self.sink.took(count)?;
            left -= count as u64;
        }
        self.sink.pad(tar::padding(size_bytes))?;
        data.content = hasher.finalize().into();
        if content.is_some_and(|known| known != data.content) {
            return Err(Problem::OtherContent.of(self.n_added, path.as_bytes()));
        }
        if size_bytes > 0 {
            data.offset = offset;
        }
        Ok(Kind::File(data))
    }

    /// Ends the tar and writes metadata, index and head. Doesn't sync and doesn't rename.
    pub fn finish(mut self) -> Result<Written> {
        self.sink.put(&[0; 2 * tar::BLOCK_BYTES])?;
        let folded = self.fold.finish().map_err(|problem| problem.of(0, b""))?;
        seal(self.sink, &folded)
    }
}

/// Checks what the tar reader would refuse, so that a layer that we make can be read back by anyone.
fn check(path: &TreePath, meta: &Meta, body: &Body<'_>) -> Result<(), Problem> {
    whiteout::check_ordinary(path)?;
    if path.as_bytes().len() > MAX_PATH_BYTES {
        return Err(Problem::PathTooLong);
    }
    if path.components().any(|part| part.len() > MAX_COMPONENT_BYTES) {
        return Err(Problem::ComponentTooLong);
    }
    if meta.mode > 0o7777 || meta.mtime.nanos >= 1_000_000_000 {
        return Err(Problem::Number("mode or time"));
    }
    // PAX has no way to write such a key.
    if meta
        .xattrs
        .iter()
        .any(|(name, _)| name.contains(&b'=') || name.contains(&0))
    {
        return Err(Problem::Xattr);
    }
    match body {
        Body::Symlink(target) if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
            Err(Problem::LinkTarget)
        }
        Body::CharDevice(0, 0) => Err(Problem::WhiteoutDevice),
        Body::CharDevice(major, minor) | Body::BlockDevice(major, minor)
            if *major >= 1 << 12 || *minor >= 1 << 20 =>
        {
            Err(Problem::Number("device"))
        }
        Body::Whiteout if path.is_root() => Err(Problem::Whiteout),
        _ => Ok(()),
    }
}

/// Finishes a layer whose tar is complete.
pub(super) fn seal(sink: Sink, folded: &Folded) -> Result<Written> {
    let (file, diff_id, tar_bytes) = sink.finish()?;
    seal_file(file, diff_id, tar_bytes, TAR_OFFSET + tar_bytes, folded)
}

/// Writes metadata, index and head behind `end`, where the tar and the expanded sparse files end.
pub(super) fn seal_file(
    file: File,
    diff_id: DiffId,
    tar_bytes: u64,
    end: u64,
    folded: &Folded,
) -> Result<Written> {
    let metadata_offset = end.next_multiple_of(PAGE);
    let mut uuid = [0; 16];
    // Overlay takes layers with equal or zero UUIDs for the same file system.
    uuid.copy_from_slice(&diff_id.as_bytes()[..16]);
    let source = erofs::Source {
        names: folded.names(),
        metadata_offset,
        first_blocks: &[0],
        uuid,
        n_devices: 0,
    };
    let mut image = erofs::build(&source)?;
    let (index, n_entries) = index::encode(folded.entries());
    let index_offset = metadata_offset + image.metadata.len() as u64;
    let file_bytes = (index_offset + index.len() as u64).next_multiple_of(PAGE);
    erofs::set_blocks(&mut image.superblock, file_bytes)?;
    let section = |offset, bytes: &[u8]| Section {
        offset,
        length: bytes.len() as u64,
        checksum: *blake3::hash(bytes).as_bytes(),
    };
    let head = Head {
        diff_id,
        tar_bytes,
        file_bytes,
        metadata: section(metadata_offset, &image.metadata),
        index: section(index_offset, &index),
        has_implied_dirs: folded.has_implied_dirs,
        has_lower_links: folded.has_lower_links,
    };
    let write = |bytes: &[u8], offset| file.write_all_at(bytes, offset).map_err(Error::WriteLayer);
    write(&image.metadata, metadata_offset)?;
    write(&index, index_offset)?;
    file.set_len(file_bytes).map_err(Error::WriteLayer)?;
    write(&head.encode(&image.superblock), 0)?;
    Ok(Written {
        file,
        diff_id,
        tar_bytes,
        n_entries,
    })
}
