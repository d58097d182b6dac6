//! The bytes of a blob, part by part, hashed on the way: the last part is given out only when all are what their name says.

use cache::Digest;
use sha2::{Digest as _, Sha256};

use super::ObjectsError;
use crate::registry::push::Blob;
use crate::runtime::blocking;

/// Bytes of a part: as little as every place takes, so that one is sent in time on a slow line.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes ten thousand parts; larger blobs have larger ones.
const MAX_PARTS: u64 = 9_000;

/// What of a blob is still to be sent.
pub(super) struct Parts {
    blob: Blob,
    part_bytes: u64,
    at: u64,
    is_done: bool,
    hasher: Sha256,
}

impl Parts {
    pub(super) fn new(blob: &Blob) -> Self {
        Self {
            blob: blob.clone(),
            part_bytes: PART_BYTES.max(blob.size_bytes.div_ceil(MAX_PARTS)),
            at: 0,
            is_done: false,
            hasher: Sha256::new(),
        }
    }

    /// Says whether the first part is all of it.
    pub(super) fn is_one(&self) -> bool {
        self.blob.size_bytes <= self.part_bytes
    }

    /// Returns the next part; `None` after the last. Of an empty blob there is one, which is empty.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, ObjectsError> {
        let size_bytes = self.blob.size_bytes;
        if self.is_done {
            return Ok(None);
        }
        let n_wanted = self.part_bytes.min(size_bytes - self.at);
        let (content, at, mut hasher) = (self.blob.content.clone(), self.at, self.hasher.clone());
        let (read, hasher) = blocking(move || {
            let read = content.read_at(at, usize::try_from(n_wanted).unwrap_or(usize::MAX));
            if let Ok(part) = &read {
                hasher.update(part);
            }
            (read, hasher)
        })
        .await;
        let failed = |source| ObjectsError::Read {
            blob: self.blob.digest,
            source,
        };
        let part = read.map_err(failed)?;
        if part.len() as u64 != n_wanted {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.hasher = hasher;
        self.at += n_wanted;
        if self.at == size_bytes {
            let actual = Digest::from_bytes(self.hasher.clone().finalize().into());
            if actual != self.blob.digest {
                return Err(ObjectsError::Damaged {
                    expected: self.blob.digest,
                    actual,
                });
            }
            self.is_done = true;
        }
        Ok(Some(part))
    }
}
