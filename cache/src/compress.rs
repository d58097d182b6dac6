//! Compression of layer blobs: parallel, in constant memory, and byte-identical for any number of threads.
//! Decompression of what others made, told by its first bytes.
//!
//! Blocks are compressed on their own, as gzip members or zstd frames, in the order in which they are read. The
//! same input and codec give the same bytes for one version of this file and its libraries only: keep the digest
//! of what was made, never make it again to compare. Deliberately no streaming encoder: their multi-threaded
//! output isn't reproducible.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
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
    #[error("decompressed data exceeds {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
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
    /// A zstd frame per 4 MiB.
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

/// zstd refuses windows above 2^27 bytes by default, and so do we: a frame could claim gigabytes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Enough for `xz -9`.
const XZ_MEMORY_KIB: u32 = 128 * 1024;

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
            }
        }
        Ok(())
    }
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
/// Reading more than `limit_bytes` fails with an error whose source is [`Error::TooLarge`].
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
    let whole = BufReader::with_capacity(128 * 1024, io::Cursor::new(head).chain(reader));
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
            left_bytes: limit_bytes,
            limit_bytes,
        }),
    ))
}

/// Fails instead of ending when there is more than the limit.
struct Limited<R> {
    content: R,
    left_bytes: u64,
    limit_bytes: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        match self.left_bytes.checked_sub(n as u64) {
            Some(left) => self.left_bytes = left,
            None => {
                return Err(io::Error::other(Error::TooLarge {
                    limit_bytes: self.limit_bytes,
                }));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half noise, half text, so that blocks differ in how well they shrink.
    fn sample(size_bytes: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size_bytes + 64);
        blake3::Hasher::new()
            .finalize_xof()
            .take(size_bytes as u64 / 2)
            .read_to_end(&mut out)
            .unwrap();
        while out.len() < size_bytes {
            out.extend_from_slice(format!("line {} of many\n", out.len()).as_bytes());
        }
        out.truncate(size_bytes);
        out
    }

    /// Delivers a few bytes at a time.
    struct Trickle<'b>(&'b [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1 * 7 % 65_521 + 1;
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn expand(bytes: &[u8]) -> (Format, Vec<u8>) {
        let (format, mut reader) = decompressor(bytes, 1 << 30).unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        (format, out)
    }

    /// Made by xz 5.4: there is no encoder here.
    const XZ_SAMPLE: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x16,
        0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0xe0, 0x00, 0x29, 0x00, 0x15, 0x5d, 0x00, 0x32, 0x1c, 0x88,
        0xcf, 0x05, 0x08, 0x36, 0xa5, 0x87, 0xbc, 0xe2, 0xd4, 0x65, 0x3b, 0xfc, 0x01, 0x8c, 0xd8, 0x70, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x9f, 0xc3, 0x18, 0x20, 0xfa, 0x5c, 0x0d, 0x7c, 0x00, 0x01, 0x31, 0x2a,
        0x4f, 0x7b, 0x60, 0x3d, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
    ];

    const CODECS: [(Codec, Format); 4] = [
        (Codec::Gzip { level: 1 }, Format::Gzip),
        (Codec::Gzip { level: 6 }, Format::Gzip),
        (Codec::Zstd { level: 3 }, Format::Zstd),
        (Codec::None, Format::Plain),
    ];

    #[test]
    fn bytes_depend_on_the_input_only() {
        let data = sample(9 * (1 << 20) + 12_345);
        for (codec, format) in CODECS {
            let mut first = Vec::new();
            let made = compress_with(&data[..], &mut first, codec, 1).unwrap();
            assert_eq!(made.digest, Digest::of(&first), "{codec:?}");
            assert_eq!(made.size_bytes, first.len() as u64);
            assert_eq!(expand(&first), (format, data.clone()), "{codec:?}");
            for n_threads in [2, 3, 8] {
                let mut again = Vec::new();
                let other = compress_with(Trickle(&data, 3), &mut again, codec, n_threads).unwrap();
                assert_eq!(other, made, "{codec:?}, {n_threads} threads");
                assert!(again == first);
            }
        }
    }

    #[test]
    fn edges_of_blocks_round_trip() {
        for (codec, _) in CODECS {
            for size in [
                0,
                1,
                GZIP_BLOCK_BYTES - 1,
                GZIP_BLOCK_BYTES,
                GZIP_BLOCK_BYTES + 1,
                ZSTD_BLOCK_BYTES,
            ] {
                let data = sample(size);
                let mut out = Vec::new();
                compress(&data[..], &mut out, codec).unwrap();
                assert!(expand(&out).1 == data, "{codec:?}, {size} bytes");
                assert!(codec == Codec::None || !out.is_empty());
            }
        }
    }

    #[test]
    fn foreign_formats_are_told_and_read() {
        let data = sample(100_000);
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&data).unwrap();
        assert_eq!(expand(&bzip2.finish().unwrap()), (Format::Bzip2, data.clone()));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&data).unwrap();
        assert_eq!(expand(&gzip.finish().unwrap()), (Format::Gzip, data.clone()));
        assert_eq!(
            expand(&zstd::encode_all(&data[..], 1).unwrap()),
            (Format::Zstd, data.clone())
        );
        assert_eq!(expand(XZ_SAMPLE), (Format::Xz, b"dressed stone\n".repeat(3)));
        for short in [&b""[..], b"\x1f", b"BZ", b"(\xb5/"] {
            assert_eq!(expand(short), (Format::Plain, short.to_vec()));
        }
    }

    #[test]
    fn failures_are_errors() {
        let data = sample(3 * GZIP_BLOCK_BYTES);
        for (codec, _) in CODECS {
            let mut small = [0; 10];
            assert!(
                matches!(compress(&data[..], &mut small[..], codec), Err(Error::Write(_))),
                "{codec:?}"
            );
        }
        for codec in [
            Codec::Gzip { level: 13 },
            Codec::Gzip { level: -1 },
            Codec::Zstd { level: 23 },
        ] {
            assert!(
                matches!(compress(&data[..], io::sink(), codec), Err(Error::Level { .. })),
                "{codec:?}"
            );
        }
        let mut whole = Vec::new();
        compress(&data[..], &mut whole, Codec::Gzip { level: 1 }).unwrap();
        let mut cut = decompressor(&whole[..whole.len() - 9], 1 << 30).unwrap().1;
        assert!(
            io::copy(&mut cut, &mut io::sink()).is_err(),
            "truncated data is no end"
        );
        let mut bomb = decompressor(&whole[..], data.len() as u64 - 1).unwrap().1;
        let error = io::copy(&mut bomb, &mut io::sink()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("decompressed data exceeds {} bytes", data.len() - 1)
        );
        let mut exact = decompressor(&whole[..], data.len() as u64).unwrap().1;
        assert_eq!(io::copy(&mut exact, &mut io::sink()).unwrap(), data.len() as u64);
    }
}
