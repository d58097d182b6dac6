//! Reads layer files: the index, contents by offset, the tar as a whole. Mounting them is the builder's.
//!
//! Opening checks the head, asking for the index checks the index, and a tar that leaves the store is hashed on its way.
//! What is read of the tar otherwise isn't checked: whoever wants a file's content hash has it in the index.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use super::head::{HEAD_BYTES, Head, Section};
use super::{Entry, FileData, TAR_OFFSET, index};
use crate::digest::DiffId;
use crate::error::{Error, Result};

/// The most bytes of an index: what the default limits allow, generously.
const MAX_SECTION_BYTES: u64 = 8 << 30;

/// A finished layer file, open for reading.
#[derive(Debug)]
pub struct LayerFile {
    file: File,
    head: Head,
    entries: OnceLock<Vec<Entry>>,
}

impl LayerFile {
    /// Opens the layer file of `expect`. Ok means that it was finished and is this layer's.
    pub fn open(file: File, expect: DiffId) -> Result<Self> {
        let damaged = |what| Error::DamagedLayer {
            diff_id: expect,
            what,
        };
        let failed = |source| Error::ReadLayer {
            diff_id: expect,
            source,
        };
        let length = file.metadata().map_err(failed)?.len();
        if length < HEAD_BYTES as u64 {
            return Err(damaged("it is too short"));
        }
        let mut bytes = [0; HEAD_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let head = Head::decode(&bytes).map_err(damaged)?;
        if head.diff_id != expect {
            return Err(damaged("it holds another layer"));
        }
        if head.file_bytes != length {
            return Err(damaged("it has the wrong length"));
        }
        Ok(Self {
            file,
            head,
            entries: OnceLock::new(),
        })
    }

    /// Returns the layer's identity.
    pub fn diff_id(&self) -> DiffId {
        self.head.diff_id
    }

    /// Returns the length of the tar stream.
    pub fn tar_bytes(&self) -> u64 {
        self.head.tar_bytes
    }

    /// Returns the length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.head.file_bytes
    }

    /// Says whether the file can be mounted as one layer of an overlay. If not (it lacks parents, whose metadata
    /// are the lower layer's, or has hard links into lower layers) it needs a merged image.
    ///
    /// Overlay itself has one more gap that no single layer can know of: it lists the whiteouts of a directory that
    /// only one layer has, as names without a file. A merged image doesn't.
    pub fn stands_alone(&self) -> bool {
        !self.head.has_implied_dirs && !self.head.has_lower_links
    }

    /// Returns the file, to be mounted.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns all entries, sorted by path, the root first: implied, with mode 0755, when the tar doesn't hold it.
    /// A hard link may come before its target. Decoded once.
    pub fn index(&self) -> Result<&[Entry]> {
        if self.entries.get().is_none() {
            let bytes = self.section(&self.head.index, "wrong checksum of its index")?;
            let entries = index::decode(&bytes).ok_or_else(|| self.damaged("malformed index"))?;
            return Ok(self.entries.get_or_init(|| entries));
        }
        Ok(self.entries.get().map_or(&[], Vec::as_slice))
    }

    /// Checks the mountable metadata against its checksum. The kernel survives damaged metadata, but shows
    /// whatever it says.
    pub fn check_metadata(&self) -> Result<()> {
        self.section(&self.head.metadata, "wrong checksum of its metadata")
            .map(drop)
    }

    fn section(&self, section: &Section, what: &'static str) -> Result<Vec<u8>> {
        if section.length > MAX_SECTION_BYTES {
            return Err(self.damaged("a part is too large"));
        }
        let length = usize::try_from(section.length).map_err(|_| self.damaged("a part is too large"))?;
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, section.offset);
        read.map_err(|source| Error::ReadLayer {
            diff_id: self.head.diff_id,
            source,
        })?;
        if *blake3::hash(&bytes).as_bytes() != section.checksum {
            return Err(self.damaged(what));
        }
        Ok(bytes)
    }

    fn damaged(&self, what: &'static str) -> Error {
        Error::DamagedLayer {
            diff_id: self.head.diff_id,
            what,
        }
    }

    /// Returns a reader of a file's content. Readers share no cursor; any number may be used at once.
    pub fn read_file(&self, data: &FileData) -> FileReader<'_> {
        FileReader {
            file: &self.file,
            at: data.offset,
            left: data.size_bytes,
        }
    }

    /// Returns a reader of the tar stream that fails at the end unless all of it was what the diff ID covers.
    pub fn checked_tar_reader(&self) -> CheckedTar<'_> {
        CheckedTar {
            inner: self.tar_reader(),
            diff_id: self.head.diff_id,
            hasher: Sha256::new(),
            is_checked: false,
        }
    }

    /// Returns a reader of the tar stream, byte for byte what the diff ID covers.
    pub fn tar_reader(&self) -> FileReader<'_> {
        FileReader {
            file: &self.file,
            at: TAR_OFFSET,
            left: self.head.tar_bytes,
        }
    }

    /// Returns a reader of the tar stream from `offset` on; of nothing when that is behind its end.
    pub fn tar_reader_from(&self, offset: u64) -> FileReader<'_> {
        let offset = offset.min(self.head.tar_bytes);
        FileReader {
            file: &self.file,
            at: TAR_OFFSET + offset,
            left: self.head.tar_bytes - offset,
        }
    }

    /// Appends the tar stream to `out` at its cursor, inside the kernel where it can. Returns the bytes written. Fails
    /// after that, if they weren't what the diff ID covers.
    pub fn copy_tar(&self, out: &File) -> Result<u64> {
        let failed = |source| Error::ReadLayer {
            diff_id: self.head.diff_id,
            source,
        };
        std::thread::scope(|scope| {
            let checked = scope.spawn(|| io::copy(&mut self.checked_tar_reader(), &mut io::sink()));
            let copied = self.copy_tar_unchecked(out)?;
            let checked = checked
                .join()
                .map_err(|_| self.damaged("hashing it ended early"))?;
            checked.map_err(failed)?;
            Ok(copied)
        })
    }

    fn copy_tar_unchecked(&self, out: &File) -> Result<u64> {
        let failed = |source| Error::ReadLayer {
            diff_id: self.head.diff_id,
            source,
        };
        let mut reader = self.tar_reader();
        while reader.left > 0 {
            let wanted = usize::try_from(reader.left).unwrap_or(usize::MAX).min(1 << 30);
            let mut at = reader.at;
            match rustix::fs::copy_file_range(&self.file, Some(&mut at), out, None, wanted) {
                Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    reader.at += count as u64;
                    reader.left -= count as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                // A pipe, another kind of file system, an old kernel, an append-only descriptor: by hand then.
                Err(
                    rustix::io::Errno::XDEV
                    | rustix::io::Errno::INVAL
                    | rustix::io::Errno::NOSYS
                    | rustix::io::Errno::OPNOTSUPP
                    | rustix::io::Errno::BADF,
                ) => {
                    copy_by_hand(&mut reader, out).map_err(failed)?;
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(self.head.tar_bytes)
    }
}

fn copy_by_hand(reader: &mut FileReader<'_>, mut out: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            count => out.write_all(&buffer[..count])?,
        }
    }
}

/// A range of a layer file, read by offset.
#[derive(Debug)]
pub struct FileReader<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The tar stream of a layer, hashed while it is read.
#[derive(Debug)]
pub struct CheckedTar<'a> {
    inner: FileReader<'a>,
    diff_id: DiffId,
    hasher: Sha256,
    is_checked: bool,
}

impl Read for CheckedTar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if count == 0 && !buffer.is_empty() && !self.is_checked {
            let actual = DiffId::from_bytes(self.hasher.finalize_reset().into());
            if actual != self.diff_id {
                let damaged = Error::DamagedLayer {
                    diff_id: self.diff_id,
                    what: "its tar stream is another layer's",
                };
                return Err(io::Error::new(io::ErrorKind::InvalidData, damaged));
            }
            self.is_checked = true;
        }
        Ok(count)
    }
}

#[cfg(test)]
impl LayerFile {
    /// Returns the ranges that checksums cover besides the head.
    pub(super) fn head_for_tests(&self) -> [std::ops::Range<u64>; 2] {
        let range = |section: &Section| section.offset..section.offset + section.length;
        [range(&self.head.metadata), range(&self.head.index)]
    }
}
