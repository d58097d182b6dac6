//! The bytes of what is uploaded, wherever they are, as a body that can begin anywhere.
//!
//! They are hashed on the way: what the store has must still be what its name says when the registry is told so.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::Digest;
use cache::layer::LayerFile;
use futures_util::{Stream, stream};
use sha2::{Digest as _, Sha256};

use crate::runtime::blocking;

/// Bytes read and sent at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Here.
    Memory(Arc<[u8]>),
    /// In a file that holds nothing else.
    File(Arc<File>),
    /// The tar of a layer file.
    Layer(Arc<LayerFile>),
}

impl Content {
    /// Reads what is at `offset`: as many bytes as are wanted, unless the end comes first. Blocks.
    pub(crate) fn read_at(&self, offset: u64, n_wanted: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Self::Memory(all) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
                let end = start.saturating_add(n_wanted).min(all.len());
                bytes.extend_from_slice(&all[start..end]);
            }
            Self::File(file) => {
                bytes.resize(n_wanted, 0);
                let mut n_read = 0;
                while n_read < n_wanted {
                    match file.read_at(&mut bytes[n_read..], offset + n_read as u64) {
                        Ok(0) => break,
                        Ok(n) => n_read += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                bytes.truncate(n_read);
            }
            Self::Layer(layer) => {
                let reader = layer.tar_reader_from(offset);
                reader.take(n_wanted as u64).read_to_end(&mut bytes)?;
            }
        }
        Ok(bytes)
    }
}

/// A blob's bytes on their way, and what is known of them so far.
#[derive(Debug)]
pub(super) struct Passage {
    content: Content,
    size_bytes: u64,
    seen: Mutex<Seen>,
}

/// What went by. Bytes that are sent again are not hashed again.
#[derive(Debug, Default)]
struct Seen {
    hasher: Sha256,
    n_hashed: u64,
    failure: Option<io::Error>,
}

impl Passage {
    pub(super) fn new(content: Content, size_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            content,
            size_bytes,
            seen: Mutex::default(),
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether reading failed.
    pub(super) fn failed(&self) -> bool {
        self.seen().failure.is_some()
    }

    /// Takes the file system's word, where reading was what failed.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.seen().failure.take()
    }

    /// Returns the digest of the bytes, when all have gone by.
    pub(super) fn digest(&self) -> Option<Digest> {
        let seen = self.seen();
        (seen.n_hashed == self.size_bytes).then(|| Digest::from_bytes(seen.hasher.clone().finalize().into()))
    }

    /// Returns the bytes from `offset` on, which must not be behind what has gone by. `moved` hears where the upload is.
    pub(super) fn from(
        self: &Arc<Self>,
        offset: u64,
        moved: impl Fn(u64) + Send + 'static,
    ) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
        let state = (Arc::clone(self), offset, moved);
        stream::try_unfold(state, |(passage, offset, moved)| async move {
            if offset >= passage.size_bytes {
                return Ok(None);
            }
            let reading = Arc::clone(&passage);
            let chunk = blocking(move || reading.read(offset)).await?;
            let offset = offset + chunk.len() as u64;
            moved(offset);
            Ok(Some((chunk, (passage, offset, moved))))
        })
    }

    /// Reads and hashes the chunk at `offset`. Blocks.
    fn read(&self, offset: u64) -> io::Result<Vec<u8>> {
        let chunk = self.content.read_at(offset, CHUNK_BYTES).and_then(|mut chunk| {
            let left = usize::try_from(self.size_bytes - offset).unwrap_or(usize::MAX);
            chunk.truncate(left);
            match chunk.is_empty() {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => Ok(chunk),
            }
        });
        let mut seen = self.seen();
        match chunk {
            Ok(chunk) => {
                let n_known = usize::try_from(seen.n_hashed.saturating_sub(offset)).unwrap_or(usize::MAX);
                if let Some(new) = chunk.get(n_known..) {
                    seen.hasher.update(new);
                    seen.n_hashed += new.len() as u64;
                }
                Ok(chunk)
            }
            Err(error) => {
                // The one that is sent on is worded by the HTTP library; this one is for the user.
                seen.failure = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    /// Reads everything from the start, for a body that is sent in one piece. Blocks.
    pub(super) fn whole(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < self.size_bytes {
            bytes.extend(self.read(bytes.len() as u64)?);
        }
        Ok(bytes)
    }
}
