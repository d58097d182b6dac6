//! One sequential pass: what goes in is written after the head of the layer file and hashed on a second thread.
//!
//! Doesn't know what it writes. A layer below one chunk starts no thread.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use super::TAR_OFFSET;
use crate::digest::DiffId;
use crate::error::{Error, Problem, Result};

const CHUNK_BYTES: usize = 1 << 20;
/// Chunks on the way to the hashing thread; a bound for the memory, and enough that neither side waits.
const QUEUE: usize = 4;

/// A layer's tar stream being written.
pub(super) struct Sink {
    file: File,
    /// Grows to a chunk; what lies beyond the filled part means nothing.
    chunk: Vec<u8>,
    n_filled: usize,
    /// Bytes taken, written or not.
    taken_bytes: u64,
    max_bytes: u64,
    hashing: Option<Hashing>,
}

/// A thread that hashes chunks and gives them back.
struct Hashing {
    chunks: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
    thread: JoinHandle<Sha256>,
}

impl Hashing {
    fn start() -> Self {
        let (chunks, incoming) = sync_channel::<Vec<u8>>(QUEUE);
        let (outgoing, emptied) = channel();
        let thread = std::thread::spawn(move || {
            let mut sha256 = Sha256::new();
            for chunk in incoming {
                sha256.update(&chunk);
                // The writer may be gone already, then nobody needs the chunk.
                drop(outgoing.send(chunk));
            }
            sha256
        });
        Self {
            chunks,
            emptied,
            thread,
        }
    }

    fn push(&self, chunk: Vec<u8>) -> Vec<u8> {
        self.chunks
            .send(chunk)
            .expect("because the thread ends only after this end is closed");
        self.emptied.try_recv().unwrap_or_default()
    }
}

impl Sink {
    /// Starts the stream in `file`, which is empty.
    pub(super) fn new(file: File, max_bytes: u64) -> Self {
        Self {
            file,
            chunk: Vec::new(),
            n_filled: 0,
            taken_bytes: 0,
            max_bytes,
            hashing: None,
        }
    }

    /// Returns the number of bytes taken so far.
    pub(super) fn position(&self) -> u64 {
        self.taken_bytes
    }

    /// Appends `data` to the stream.
    pub(super) fn put(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let room = self.room(data.len());
            let (now, later) = data.split_at(room.len());
            room.copy_from_slice(now);
            self.took(now.len())?;
            data = later;
        }
        Ok(())
    }

    /// Returns where the next bytes of the stream may be read into: `wanted`, not 0, or fewer, but some. They count once
    /// [`Sink::took`] says so.
    pub(super) fn room(&mut self, wanted: usize) -> &mut [u8] {
        let end = CHUNK_BYTES.min(self.n_filled.saturating_add(wanted));
        if self.chunk.len() < end {
            self.chunk.resize(end, 0);
        }
        &mut self.chunk[self.n_filled..end]
    }

    /// Appends the first `count` bytes of the room.
    pub(super) fn took(&mut self, count: usize) -> Result<()> {
        if count as u64 > self.max_bytes - self.taken_bytes {
            return Err(Problem::TooLarge(self.max_bytes).of(0, b""));
        }
        self.n_filled += count;
        self.taken_bytes += count as u64;
        if self.n_filled == CHUNK_BYTES {
            self.write_chunk()?;
            let hashing = self.hashing.get_or_insert_with(Hashing::start);
            self.chunk = hashing.push(std::mem::take(&mut self.chunk));
            self.n_filled = 0;
        }
        Ok(())
    }

    /// Appends `count` zeros, fewer than a block's worth.
    pub(super) fn pad(&mut self, count: u64) -> Result<()> {
        let count = usize::try_from(count).expect("because it is below a block");
        self.put(&[0; 512][..count])
    }

    /// Zeros aren't written: the file is new and gets its length at the end, so that they are a hole, as they were in
    /// whatever large file was copied.
    fn write_chunk(&self) -> Result<()> {
        let chunk = &self.chunk[..self.n_filled];
        if self.n_filled == CHUNK_BYTES && is_zero(chunk) {
            return Ok(());
        }
        let start = TAR_OFFSET + self.taken_bytes - self.n_filled as u64;
        self.file.write_all_at(chunk, start).map_err(Error::WriteLayer)
    }

    /// Writes what is left; returns the file, the digest of the stream and its length.
    pub(super) fn finish(mut self) -> Result<(File, DiffId, u64)> {
        self.write_chunk()?;
        let mut sha256 = match self.hashing.take() {
            None => Sha256::new(),
            Some(hashing) => {
                drop(hashing.chunks);
                hashing.thread.join().expect("because hashing does not panic")
            }
        };
        sha256.update(&self.chunk[..self.n_filled]);
        Ok((
            self.file,
            DiffId::from_bytes(sha256.finalize().into()),
            self.taken_bytes,
        ))
    }
}

fn is_zero(chunk: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    chunk.chunks(ZEROS.len()).all(|part| *part == ZEROS[..part.len()])
}
