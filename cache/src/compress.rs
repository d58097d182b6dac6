//! Compression of layer blobs: parallel, in constant memory, and byte-identical for any number of threads.
//! Decompression of what others made, told by its first bytes.
//!
//! Blocks are compressed on their own, as gzip members or zstd frames, in the order in which they are read. The
//! same input and codec give the same bytes for one version of this file and its libraries only: keep the digest
//! of what was made, never make it again to compare. Deliberately no streaming encoder: their multi-threaded
//! output isn't reproducible.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use libdeflater::CompressionLvl;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Says why something can't be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input can't be read.
    #[error("cannot read what is to be compressed: {0}")]
    Read(#[source] io::Error),
    /// The output can't be written.
    #[error("cannot write compressed data: {0}")]
    Write(#[source] io::Error),
    /// A level that the codec doesn't have.
    #[error("{codec} has no compression level {level}")]
    Level {
        /// "gzip" or "zstd".
        codec: &'static str,
        /// What was asked for.
        level: i32,
    },
    /// A library refused.
    #[error("cannot compress with {codec}: {source}")]
    Codec {
        /// "gzip" or "zstd".
        codec: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The beginning of compressed data can't be read.
    #[error("cannot read compressed data: {0}")]
    Sniff(#[source] io::Error),
    /// Compressed data has more in it than the reader is ready to take.
    #[error("unpacked size limit: decompressed data exceeds {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Compressed data has so much more in it than it takes itself that it can only be meant to fill the disk.
    #[error(
        "unpacked size limit: {packed_bytes} bytes became more than {unpacked_bytes}, which is over {MAX_RATIO} times as many"
    )]
    Bomb {
        /// What was read.
        packed_bytes: u64,
        /// What came out of it so far.
        unpacked_bytes: u64,
    },
}

/// How a blob is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// A gzip member per MiB.
    Gzip {
        /// 0 to 12; 1 for speed, 6 for size.
        level: i32,
    },
    /// A zstd frame per 4 MiB; what shrinks more than a thousandfold has skippable frames in between.
    Zstd {
        /// 1 to 22; 3 for speed.
        level: i32,
    },
    /// As it is.
    None,
}

/// What [`compress`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// Digest of the written bytes.
    pub digest: Digest,
    /// Their number.
    pub size_bytes: u64,
}

/// Changing these changes every digest of compressed blobs.
const GZIP_BLOCK_BYTES: usize = 1 << 20;
const ZSTD_BLOCK_BYTES: usize = 4 << 20;
const COPY_BLOCK_BYTES: usize = 1 << 20;

/// Of zeros zstd would make a thirty-thousandth, as bombs do, and other programs would have reason to refuse it. gzip
/// makes a thousandth at best, and nobody minds.
const MAX_OWN_RATIO: usize = 1000;
/// Begins a frame that readers skip: this, then the length of its content.
/// https://www.rfc-editor.org/rfc/rfc8878#name-skippable-frames
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];

/// zstd refuses windows above 2^27 bytes by default, and so do we: a frame could claim gigabytes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Enough for `xz -9`.
const XZ_MEMORY_KIB: u32 = 128 * 1024;
/// How many times as large data may become. gzip can't do more than 1032, so this is about the others only.
const MAX_RATIO: u64 = 2000;
/// Up to here nobody minds: whole files of zeros are rare, but small ones are not.
const RATIO_MATTERS_BYTES: u64 = 1 << 30;

/// Compresses everything that `reader` has into `writer`, with as many threads as the machine has cores.
pub fn compress(reader: impl Read, writer: impl Write, codec: Codec) -> Result<Compressed, Error> {
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    compress_with(reader, writer, codec, n_threads)
}

fn compress_with(
    mut reader: impl Read,
    writer: impl Write,
    codec: Codec,
    n_threads: usize,
) -> Result<Compressed, Error> {
    let mut sink = Sink {
        writer,
        hasher: Sha256::new(),
        size_bytes: 0,
    };
    let block_bytes = match codec {
        Codec::Gzip { .. } => GZIP_BLOCK_BYTES,
        Codec::Zstd { .. } => ZSTD_BLOCK_BYTES,
        Codec::None => {
            let mut block = Vec::new();
            while fill(&mut reader, &mut block, COPY_BLOCK_BYTES)? > 0 {
                sink.put(&block)?;
            }
            return sink.finish();
        }
    };
    // Checked here, so that a bad level is found before a thread starts.
    let encoders = (0..n_threads.max(1))
        .map(|_| Encoder::new(codec))
        .collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let workers: Vec<Worker> = encoders
            .into_iter()
            .map(|mut encoder| {
                // Two places, because the same worker gets the next block before its last one is fetched.
                let (to_worker, jobs) = sync_channel::<Block>(2);
                let (results, from_worker) = sync_channel(2);
                scope.spawn(move || {
                    while let Ok(mut block) = jobs.recv() {
                        let done = encoder.encode(&mut block).map(|()| block);
                        if results.send(done).is_err() {
                            return;
                        }
                    }
                });
                Worker {
                    to_worker,
                    from_worker,
                }
            })
            .collect();
        run(&mut reader, &mut sink, &workers, block_bytes)
    })?;
    sink.finish()
}

/// Deals blocks to the workers in turn and takes the results in the same turn: that alone keeps the order.
fn run<W: Write>(
    reader: &mut impl Read,
    sink: &mut Sink<W>,
    workers: &[Worker],
    block_bytes: usize,
) -> Result<(), Error> {
    let mut pending: VecDeque<usize> = VecDeque::new();
    let mut spare: Vec<Block> = Vec::new();
    let mut turns = (0..workers.len()).cycle();
    let mut is_first = true;
    loop {
        let mut block = spare.pop().unwrap_or_default();
        let n = fill(reader, &mut block.input, block_bytes)?;
        // Nothing at all is still one empty member: zero bytes are not a gzip file.
        if n == 0 && !is_first {
            break;
        }
        is_first = false;
        if pending.len() > workers.len() {
            spare.extend(fetch(&mut pending, workers, sink)?);
        }
        let turn = turns
            .next()
            .expect("because a cycle over at least one worker doesn't end");
        workers[turn]
            .to_worker
            .send(block)
            .expect("because workers live until their sender is dropped");
        pending.push_back(turn);
    }
    while !pending.is_empty() {
        fetch(&mut pending, workers, sink)?;
    }
    Ok(())
}

fn fetch<W: Write>(
    pending: &mut VecDeque<usize>,
    workers: &[Worker],
    sink: &mut Sink<W>,
) -> Result<Option<Block>, Error> {
    let Some(turn) = pending.pop_front() else {
        return Ok(None);
    };
    let block = workers[turn]
        .from_worker
        .recv()
        .expect("because a worker answers every block")?;
    sink.put(&block.output)?;
    Ok(Some(block))
}

#[derive(Default)]
struct Block {
    input: Vec<u8>,
    output: Vec<u8>,
}

struct Worker {
    to_worker: SyncSender<Block>,
    from_worker: Receiver<Result<Block, Error>>,
}

enum Encoder {
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    fn new(codec: Codec) -> Result<Self, Error> {
        match codec {
            Codec::Gzip { level } => {
                let level = CompressionLvl::new(level).map_err(|_| Error::Level { codec: "gzip", level })?;
                Ok(Self::Gzip(libdeflater::Compressor::new(level)))
            }
            Codec::Zstd { level } => {
                // Level 0 means "default" to the library; here it is a mistake.
                if !(1..=22).contains(&level) {
                    return Err(Error::Level { codec: "zstd", level });
                }
                let encoder = zstd::bulk::Compressor::new(level);
                Ok(Self::Zstd(encoder.map_err(|source| Error::Codec {
                    codec: "zstd",
                    source,
                })?))
            }
            Codec::None => unreachable!("because uncompressed blobs never get this far"),
        }
    }

    fn encode(&mut self, block: &mut Block) -> Result<(), Error> {
        block.output.clear();
        match self {
            Self::Gzip(encoder) => {
                block
                    .output
                    .resize(encoder.gzip_compress_bound(block.input.len()), 0);
                let n = encoder
                    .gzip_compress(&block.input, &mut block.output)
                    .map_err(|error| Error::Codec {
                        codec: "gzip",
                        source: io::Error::other(error),
                    })?;
                block.output.truncate(n);
            }
            Self::Zstd(encoder) => {
                block
                    .output
                    .reserve(zstd::zstd_safe::compress_bound(block.input.len()));
                encoder
                    .compress_to_buffer(&block.input, &mut block.output)
                    .map_err(|source| Error::Codec {
                        codec: "zstd",
                        source,
                    })?;
                pad(&mut block.output, block.input.len() / MAX_OWN_RATIO);
            }
        }
        Ok(())
    }
}

/// Makes a zstd frame that is too short longer, by a frame behind it that means nothing.
fn pad(frame: &mut Vec<u8>, least_bytes: usize) {
    let Some(missing @ 1..) = least_bytes.checked_sub(frame.len()) else {
        return;
    };
    let n_zeros = missing.saturating_sub(SKIPPABLE.len() + 4);
    let length = u32::try_from(n_zeros).expect("because blocks have a few MiB");
    frame.extend_from_slice(&SKIPPABLE);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.resize(frame.len() + n_zeros, 0);
}

struct Sink<W> {
    writer: W,
    hasher: Sha256,
    size_bytes: u64,
}

impl<W: Write> Sink<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        self.writer.write_all(bytes).map_err(Error::Write)
    }

    fn finish(mut self) -> Result<Compressed, Error> {
        self.writer.flush().map_err(Error::Write)?;
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        Ok(Compressed {
            digest,
            size_bytes: self.size_bytes,
        })
    }
}

/// Fills a block as far as the input goes; blocks must not depend on how the reader happens to deliver.
fn fill(reader: &mut impl Read, block: &mut Vec<u8>, block_bytes: usize) -> Result<usize, Error> {
    block.clear();
    reader
        .take(block_bytes as u64)
        .read_to_end(block)
        .map_err(Error::Read)
}

/// What a stream is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Nothing that is known.
    Plain,
}

/// How many bytes [`sniff`] wants to see.
const SNIFF_BYTES: usize = 6;

/// Tells the format from the first bytes of a stream.
pub fn sniff(head: &[u8]) -> Format {
    match head {
        [0x1f, 0x8b, 0x08, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        // A skippable frame: pzstd and seekable archives begin with one.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Format::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
        _ => Format::Plain,
    }
}

/// Returns what a stream is compressed with and a reader of its content, all members and frames of it.
///
/// Reading more than `limit_bytes` fails with an error whose source is [`Error::TooLarge`], and so does, with
/// [`Error::Bomb`], reading some GiB out of next to nothing.
pub fn decompressor<'r>(
    mut reader: impl Read + Send + 'r,
    limit_bytes: u64,
) -> Result<(Format, Box<dyn Read + Send + 'r>), Error> {
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    (&mut reader)
        .take(SNIFF_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(Error::Sniff)?;
    let format = sniff(&head);
    let packed_bytes = Arc::default();
    let whole = Counted {
        packed: io::Cursor::new(head).chain(reader),
        n_read: Arc::clone(&packed_bytes),
    };
    let whole = BufReader::with_capacity(128 * 1024, whole);
    let content: Box<dyn Read + Send + 'r> = match format {
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole).map_err(Error::Sniff)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(Error::Sniff)?;
            Box::new(decoder)
        }
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Format::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_MEMORY_KIB)),
        Format::Plain => Box::new(whole),
    };
    Ok((
        format,
        Box::new(Limited {
            content,
            unpacked_bytes: 0,
            packed_bytes,
            limit_bytes,
        }),
    ))
}

/// Counts what is read of the compressed data.
struct Counted<R> {
    packed: R,
    n_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.packed.read(buffer)?;
        self.n_read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Fails instead of ending when there is more than the limit.
struct Limited<R> {
    content: R,
    unpacked_bytes: u64,
    packed_bytes: Arc<AtomicU64>,
    limit_bytes: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        self.unpacked_bytes += n as u64;
        if self.unpacked_bytes > self.limit_bytes {
            return Err(io::Error::other(Error::TooLarge {
                limit_bytes: self.limit_bytes,
            }));
        }
        if self.unpacked_bytes > RATIO_MATTERS_BYTES {
            let packed_bytes = self.packed_bytes.load(Ordering::Relaxed);
            if self.unpacked_bytes / MAX_RATIO > packed_bytes {
                return Err(io::Error::other(Error::Bomb {
                    packed_bytes,
                    unpacked_bytes: self.unpacked_bytes,
                }));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
#[path = "compress_hostile_tests.rs"]
mod hostile_tests;

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;
