//! The content store: whole blobs by digest, written once, never changed. Configs, manifests, compressed layers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::incomplete::Incomplete;
use crate::leases::{Item, Leases};

/// Says why a blob can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system's word.
    #[error("cannot {action} blob {digest}: {source}")]
    Io {
        /// `read`, `write`, `commit`.
        action: &'static str,
        /// Which; the expected one, or of nothing when it isn't known yet.
        digest: String,
        /// Why.
        source: io::Error,
    },
    /// The bytes are not what their name says.
    #[error("blob {expected} is damaged: its bytes hash to {actual}")]
    Mismatch {
        /// What was asked for.
        expected: Digest,
        /// What the bytes are.
        actual: Digest,
    },
    /// More bytes than allowed or announced.
    #[error("blob {digest} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// Which.
        digest: String,
        /// The limit.
        limit_bytes: u64,
    },
}

/// The blobs of a store.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    leases: Arc<Leases>,
}

impl Blobs {
    pub(crate) fn new(dir: PathBuf, leases: Arc<Leases>) -> Self {
        Self { dir, leases }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Says whether the blob is here. If it is, it stays as long as this process lives.
    pub fn contains(&self, digest: &Digest) -> bool {
        let path = self.path(digest);
        path.is_file() && (!self.leases.take(Item::Blob(*digest), &path) || path.is_file())
    }

    /// Opens a blob for streaming. The caller checks the digest while reading; see [`Blobs::read`] for small ones. It
    /// stays as long as this process lives.
    pub fn open(&self, digest: &Digest) -> Result<File, BlobError> {
        self.leases.take(Item::Blob(*digest), &self.path(digest));
        self.open_file(digest)
    }

    fn open_file(&self, digest: &Digest) -> Result<File, BlobError> {
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.path(digest))
            .map_err(|source| BlobError::Io {
                action: "read",
                digest: digest.to_string(),
                source,
            })
    }

    /// Reads a whole small blob and checks its digest.
    pub fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, BlobError> {
        self.leases.take(Item::Blob(*digest), &self.path(digest));
        self.peek(digest, limit_bytes)
    }

    /// Reads a whole small blob and checks its digest, relying on nothing: it may go any time.
    pub fn peek(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        self.open_file(digest)?
            .take(limit_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| BlobError::Io {
                action: "read",
                digest: digest.to_string(),
                source,
            })?;
        if bytes.len() as u64 > limit_bytes {
            return Err(BlobError::TooLarge {
                digest: digest.to_string(),
                limit_bytes,
            });
        }
        match Digest::of(&bytes) {
            actual if actual == *digest => Ok(bytes),
            actual => Err(BlobError::Mismatch {
                expected: *digest,
                actual,
            }),
        }
    }

    /// Returns when a blob was last used, in seconds since the Unix epoch, and uses it not; `None` when it isn't here.
    pub fn used_unix(&self, digest: &Digest) -> Option<i64> {
        let meta = std::fs::symlink_metadata(self.path(digest)).ok()?;
        Some(meta.atime().max(meta.ctime()))
    }

    /// Stores `bytes`. Ok means that the blob is there and durable, not that this call wrote it.
    pub fn put(&self, bytes: &[u8], scratch: &Incomplete) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        if self.contains(&digest) {
            return Ok(digest);
        }
        let mut writer = self.writer(scratch)?;
        writer.write_all(bytes).map_err(|source| BlobError::Io {
            action: "write",
            digest: digest.to_string(),
            source,
        })?;
        self.commit(writer, Some(digest))
    }

    /// Starts a blob whose digest isn't known yet, or must be checked: write to it, then [`Blobs::commit`].
    pub fn writer(&self, scratch: &Incomplete) -> Result<BlobWriter, BlobError> {
        let (file, path) = scratch.file().map_err(|source| BlobError::Io {
            action: "write",
            digest: "(new)".to_owned(),
            source,
        })?;
        Ok(BlobWriter {
            file,
            path,
            hasher: Sha256::new(),
            size_bytes: 0,
        })
    }

    /// Makes a finished blob durable under its digest, which must be `expected` where that is given.
    pub fn commit(&self, writer: BlobWriter, expected: Option<Digest>) -> Result<Digest, BlobError> {
        let BlobWriter {
            file, path, hasher, ..
        } = writer;
        let actual = Digest::from_bytes(hasher.finalize().into());
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            let _ = std::fs::remove_file(&path);
            return Err(BlobError::Mismatch { expected, actual });
        }
        self.leases.take(Item::Blob(actual), &self.path(&actual));
        commit_file(&file, &path, &self.path(&actual)).map_err(|source| BlobError::Io {
            action: "commit",
            digest: actual.to_string(),
            source,
        })?;
        Ok(actual)
    }
}

/// A blob being written; hashes on the way. Dropped without commit, it is gone with the process's scratch space.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    size_bytes: u64,
}

impl BlobWriter {
    /// Returns how many bytes were written.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n_written]);
        self.size_bytes += n_written as u64;
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Moves a complete file to its final name so that a power cut leaves either nothing or all of it.
pub(crate) fn commit_file(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(from, to)?;
    let dir = to.parent().expect("stored files lie in a directory of the store");
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Blobs, Incomplete) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["blobs", "incomplete", "leases"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let leases = Arc::new(Leases::new(dir.path()));
        let blobs = Blobs::new(dir.path().join("blobs"), leases);
        let scratch = Incomplete::new(dir.path().join("incomplete"));
        (dir, blobs, scratch)
    }

    #[test]
    fn a_blob_comes_back_whole_or_not_at_all() {
        let (dir, blobs, scratch) = store();
        let digest = blobs.put(b"hello", &scratch).unwrap();
        assert_eq!(digest, Digest::of(b"hello"));
        assert_eq!(blobs.read(&digest, 5).unwrap(), b"hello");
        assert!(matches!(blobs.read(&digest, 4), Err(BlobError::TooLarge { .. })));
        std::io::Write::write_all(
            &mut File::create(dir.path().join("blobs").join(digest.hex())).unwrap(),
            b"hellO",
        )
        .unwrap();
        assert!(matches!(blobs.read(&digest, 5), Err(BlobError::Mismatch { .. })));
    }

    #[test]
    fn a_wrong_digest_is_never_committed() {
        let (dir, blobs, scratch) = store();
        let mut writer = blobs.writer(&scratch).unwrap();
        writer.write_all(b"evil").unwrap();
        let expected = Digest::of(b"good");
        assert!(matches!(
            blobs.commit(writer, Some(expected)),
            Err(BlobError::Mismatch { .. })
        ));
        assert!(!blobs.contains(&expected));
        assert_eq!(std::fs::read_dir(dir.path().join("blobs")).unwrap().count(), 0);
    }
}
