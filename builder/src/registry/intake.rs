//! Takes one layer in, in one pass: count, hash and keep the compressed bytes, decompress, write the layer file.
//!
//! Where the bytes come from (network, archive, directory) is the caller's business.

use std::io::{self, Read, Write};

use cache::blobs::BlobWriter;
use cache::index::LayerBlob;
use cache::layer::Limits;
use cache::{Digest, Store, compress};

use super::error::ImageError;
use super::{Descriptor, LayerSource};

/// The index's word for a gzip form of a layer that somebody else made.
pub(crate) const PULLED_GZIP: &str = "pulled:gzip";
/// The index's word for a zstd form of a layer that somebody else made.
pub(crate) const PULLED_ZSTD: &str = "pulled:zstd";

/// Reads `input`, which must be exactly what `layer` says, into the store: its layer file and, when compressed and of
/// known digest, the blob as it came. Ok means that the layer is there. Blocks.
pub(crate) fn take_in(
    store: &Store,
    mut input: impl Read + Send,
    layer: &LayerSource,
    reference: &str,
) -> Result<(), ImageError> {
    let mut magic = [0; 4];
    let n_magic = read_full(&mut input, &mut magic).map_err(|source| broken(reference, &source))?;
    let codec = match magic {
        [0x1f, 0x8b, ..] => Some(PULLED_GZIP),
        [0x28, 0xb5, 0x2f, 0xfd] => Some(PULLED_ZSTD),
        _ => None,
    };
    let keep = match (&layer.blob, codec) {
        (Some(_), Some(_)) => Some(store.blobs().writer(store.incomplete())?),
        _ => None,
    };
    let mut tee = Tee {
        input: io::Cursor::new(&magic[..n_magic]).chain(input),
        keep,
        n_bytes: 0,
        size_bytes: layer.blob.as_ref().map(|blob| blob.size_bytes),
        is_over: false,
        is_at_end: false,
    };
    let imported = compress::decompressor(&mut tee, Limits::default().max_bytes)
        .map_err(|error| broken(reference, &error))
        .and_then(|(_, tar)| {
            let (layers, scratch) = (store.layers(), store.incomplete());
            layers
                .import(tar, Some(layer.diff_id), Limits::default(), scratch)
                .map_err(|source| ImageError::BadLayer {
                    reference: reference.to_owned(),
                    layer: layer.diff_id,
                    source: Box::new(source),
                })
        });
    // What the decompressor left behind its end still counts and is hashed.
    let drained = imported
        .and_then(|_| io::copy(&mut tee, &mut io::sink()).map_err(|source| broken(reference, &source)));
    let Tee {
        keep,
        n_bytes,
        is_over,
        is_at_end,
        ..
    } = tee;
    if let Some(blob) = &layer.blob {
        // A wrong size explains whatever else went wrong.
        if is_over || (is_at_end && n_bytes != blob.size_bytes) {
            return Err(wrong_size(blob, n_bytes, is_over));
        }
    }
    drained?;
    match (&layer.blob, keep, codec) {
        (Some(blob), Some(keep), Some(codec)) => {
            store.blobs().commit(keep, Some(blob.digest))?;
            let known = LayerBlob {
                digest: blob.digest,
                size_bytes: blob.size_bytes,
            };
            store.index().put_layer_blob(&layer.diff_id, codec, &known)?;
        }
        // Not compressed: the blob is the tar, whose hash the import has checked.
        (Some(blob), None, None) if blob.digest.as_bytes() != layer.diff_id.as_bytes() => {
            return Err(ImageError::WrongDigest {
                reference: reference.to_owned(),
                expected: blob.digest,
                actual: Digest::from_bytes(*layer.diff_id.as_bytes()),
            });
        }
        _ => {}
    }
    Ok(())
}

fn wrong_size(blob: &Descriptor, n_bytes: u64, is_over: bool) -> ImageError {
    ImageError::WrongSize {
        what: format!("blob {}", blob.digest),
        expected_bytes: blob.size_bytes,
        actual: if is_over {
            "more".to_owned()
        } else {
            n_bytes.to_string()
        },
    }
}

fn broken(reference: &str, source: &dyn std::error::Error) -> ImageError {
    ImageError::Malformed {
        what: "layer".to_owned(),
        reference: reference.to_owned(),
        why: source.to_string(),
    }
}

fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n_read = 0;
    while n_read < buffer.len() {
        match input.read(&mut buffer[n_read..]) {
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n_read)
}

/// Reads through, keeping and counting; fails as soon as there is more than announced, and at the end if there was less:
/// before anybody takes what came for the whole.
struct Tee<R> {
    input: R,
    keep: Option<BlobWriter>,
    n_bytes: u64,
    /// What was announced.
    size_bytes: Option<u64>,
    is_over: bool,
    is_at_end: bool,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.n_bytes += n as u64;
        self.is_at_end |= n == 0 && !buffer.is_empty();
        self.is_over = self.size_bytes.is_some_and(|announced| self.n_bytes > announced);
        if self.is_over {
            return Err(io::Error::other("more bytes than announced"));
        }
        if self.is_at_end && self.size_bytes.is_some_and(|announced| self.n_bytes < announced) {
            return Err(io::Error::other("fewer bytes than announced"));
        }
        if let Some(keep) = &mut self.keep {
            keep.write_all(&buffer[..n])?;
        }
        Ok(n)
    }
}
