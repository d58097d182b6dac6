//! What is compressed comes back, the same bytes every time; what isn't right fails.

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
pub(super) const XZ_SAMPLE: &[u8] = &[
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
        format!(
            "unpacked size limit: decompressed data exceeds {} bytes",
            data.len() - 1
        )
    );
    let mut exact = decompressor(&whole[..], data.len() as u64).unwrap().1;
    assert_eq!(io::copy(&mut exact, &mut io::sink()).unwrap(), data.len() as u64);
}
