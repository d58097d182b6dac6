//! Compressed data that is meant to harm whoever unpacks it.

use super::tests::XZ_SAMPLE;
use super::*;

/// Begins a zstd frame that wants a window of so many bytes, a power of two.
fn zstd_frame(window_log: u8) -> Vec<u8> {
    vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3]
}

/// Appends a block that is one byte, over and over. A block has 128 KiB at most.
fn repeat(frame: &mut Vec<u8>, byte: u8, count: u32, is_last: bool) {
    let head = count << 3 | 1 << 1 | u32::from(is_last);
    frame.extend_from_slice(&head.to_le_bytes()[..3]);
    frame.push(byte);
}

fn skippable(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&[0x50, 0x2a, 0x4d, 0x18], &length.to_le_bytes()[..], content].concat()
}

fn unpack(bytes: &[u8], limit_bytes: u64) -> Result<u64, String> {
    let (_, mut reader) = decompressor(bytes, limit_bytes).map_err(|error| error.to_string())?;
    io::copy(&mut reader, &mut io::sink()).map_err(|error| error.to_string())
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn next_to_nothing_does_not_become_a_terabyte() {
    // hardening T48
    let mut bomb = zstd_frame(17);
    for _ in 0..(1_u64 << 40) / (128 << 10) {
        repeat(&mut bomb, 0, 128 << 10, false);
    }
    let begun = std::time::Instant::now();
    let error = unpack(&bomb, 1 << 40).unwrap_err();
    assert!(error.starts_with("unpacked size limit: "), "{error}");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    // Small files of zeros are nobody's harm, and gzip can't do worse than this.
    let mut harmless = zstd_frame(17);
    (0..4000).for_each(|_| repeat(&mut harmless, 0, 128 << 10, false));
    repeat(&mut harmless, 0, 1, true);
    assert_eq!(unpack(&harmless, 1 << 40), Ok(4000 * (128 << 10) + 1));
    let members = gzip(b"").repeat(1_000_000);
    assert_eq!(unpack(&members, 1 << 40), Ok(0));
}

#[test]
fn what_is_made_here_is_never_taken_for_a_bomb() {
    // hardening T48
    const N_BYTES: u64 = (5 << 28) + 1;
    let mut packed = Vec::new();
    let codec = Codec::Zstd { level: 3 };
    compress(io::repeat(0).take(N_BYTES), &mut packed, codec).unwrap();
    assert!(packed.len() as u64 <= N_BYTES / 900, "{}", packed.len());
    assert_eq!(unpack(&packed, 1 << 40), Ok(N_BYTES));
    // Blocks that shrink less stay as they are.
    let text = b"dressed stone, and nothing but stone\n".repeat(500);
    let mut packed = Vec::new();
    compress(&text[..], &mut packed, codec).unwrap();
    assert_eq!(packed, zstd::bulk::compress(&text, 3).unwrap());
}

#[test]
fn windows_larger_than_others_accept_are_refused() {
    // hardening T49
    for (window_log, is_fine) in [(17, true), (27, true), (28, false), (31, false)] {
        let mut frame = zstd_frame(window_log);
        repeat(&mut frame, b'x', 1000, true);
        let unpacked = unpack(&frame, 1 << 30);
        assert_eq!(unpacked.is_ok(), is_fine, "2^{window_log}: {unpacked:?}");
    }
    // What is skipped costs nothing, and can't pretend to be longer than it is.
    let mut frame = zstd_frame(17);
    repeat(&mut frame, b'x', 1000, true);
    let around = [
        skippable(&vec![1; 8 << 20]),
        frame,
        skippable(b"index").repeat(100_000),
    ]
    .concat();
    assert_eq!(unpack(&around, 1000), Ok(1000));
    let mut endless = skippable(&[1; 100]);
    endless[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(unpack(&endless, 1000).is_err());
}

#[test]
fn nothing_may_follow_compressed_data_but_more_of_it() {
    // hardening T50
    let text = b"dressed stone\n".repeat(100);
    let zstd = zstd::encode_all(&text[..], 1).unwrap();
    for (packed, n_bytes) in [
        (gzip(&text), 1400),
        (zstd, 1400),
        (bzip2(&text), 1400),
        (XZ_SAMPLE.to_vec(), 42),
    ] {
        let format = sniff(&packed);
        assert_eq!(unpack(&packed.repeat(3), 1 << 20), Ok(3 * n_bytes), "{format:?}");
        for garbage in [&b"garbage"[..], b"x", &[0x1f, 0x8b, 0x08]] {
            let followed = [&packed[..], garbage].concat();
            let unpacked = unpack(&followed, 1 << 20);
            assert!(unpacked.is_err(), "{format:?} and {garbage:?}: {unpacked:?}");
        }
    }
}

#[test]
fn rare_formats_have_the_same_limits() {
    // hardening T51
    let text = vec![0; 1 << 20];
    for (packed, n_bytes) in [(bzip2(&text), 1 << 20), (XZ_SAMPLE.to_vec(), 42)] {
        assert_eq!(unpack(&packed, n_bytes), Ok(n_bytes));
        let error = unpack(&packed, n_bytes - 1).unwrap_err();
        assert!(error.starts_with("unpacked size limit: "), "{error}");
    }
    // A dictionary of 4 GiB, which a reader that believes it allocates at once.
    let mut greedy = XZ_SAMPLE.to_vec();
    greedy[16] = 40;
    let mut sum = flate2::Crc::new();
    sum.update(&greedy[12..20]);
    greedy[20..24].copy_from_slice(&sum.sum().to_le_bytes());
    let error = unpack(&greedy, 1 << 20).unwrap_err();
    assert!(error.contains("memory"), "{error}");
}
