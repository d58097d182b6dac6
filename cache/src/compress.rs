//! stand-in
use std::io::{self,Read,Write};
use sha2::{Digest as _, Sha256};
use crate::digest::Digest;
#[derive(Debug, Clone, Copy, PartialEq, Eq)] /// c
pub enum Codec { /// g
 Gzip { /// l
 level: u8 }, /// z
 Zstd { /// l
 level: u8 }, /// n
 None }
#[derive(Debug)] /// c
pub struct Compressed { /// d
 pub digest: Digest, /// s
 pub size_bytes: u64 }
struct H<W>(W, Sha256, u64);
impl<W: Write> Write for H<W> { fn write(&mut self, b: &[u8]) -> io::Result<usize> { let n = self.0.write(b)?; self.1.update(&b[..n]); self.2 += n as u64; Ok(n) } fn flush(&mut self) -> io::Result<()> { self.0.flush() } }
/// c
pub fn compress(mut r: impl Read, w: impl Write, c: Codec) -> io::Result<Compressed> {
 let mut h = H(w, Sha256::new(), 0);
 match c { Codec::Gzip { level } => { let mut e = flate2::write::GzEncoder::new(&mut h, flate2::Compression::new(u32::from(level))); io::copy(&mut r, &mut e)?; e.finish()?; }
  Codec::Zstd { level } => { let mut e = zstd::Encoder::new(&mut h, i32::from(level))?; io::copy(&mut r, &mut e)?; e.finish()?; }
  Codec::None => { io::copy(&mut r, &mut h)?; } }
 Ok(Compressed { digest: Digest::from_bytes(h.1.finalize().into()), size_bytes: h.2 }) }
/// d
pub fn decompressor<'a>(mut r: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
 let mut head = [0; 6]; let mut n = 0; while n < 6 { let k = r.read(&mut head[n..])?; if k == 0 { break } n += k; }
 let head = head[..n].to_vec(); let all = io::Cursor::new(head.clone()).chain(r);
 Ok(if head.starts_with(&[0x1f, 0x8b]) { Box::new(flate2::read::MultiGzDecoder::new(all)) } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) { Box::new(zstd::Decoder::new(all)?) }
 else if head.starts_with(b"BZh") { Box::new(bzip2::read::MultiBzDecoder::new(all)) } else if head.starts_with(b"\xfd7zXZ") { Box::new(lzma_rust2::XzReader::new(all, true)) } else { Box::new(all) }) }
