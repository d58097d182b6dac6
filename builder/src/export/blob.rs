//! The form in which a layer leaves the store: its tar as it is, or a compressed blob, which is made once and kept.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use cache::blobs::BlobError;
use cache::compress::{self, Codec};
use cache::index::LayerBlob;
use cache::layer::LayerFile;
use cache::{DiffId, Digest, Store};
use sha2::{Digest as _, Sha256};

use super::ExportError;
use super::options::Compression;
use crate::registry::push::{self, Content};
use crate::registry::{PULLED_GZIP, PULLED_ZSTD};

/// Copied at a time: what was read is still near the processor when it is hashed.
const CHUNK_BYTES: usize = 1 << 18;

/// A layer's blob, ready to be copied.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) form: Form,
    bytes: Bytes,
}

/// How it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
}

#[derive(Debug)]
enum Bytes {
    Layer(Arc<LayerFile>),
    Stored(File),
}

impl Form {
    /// Returns the layer media type. Spec: OCI image-spec, media-types.md; Docker image manifest v2 schema 2.
    pub(crate) fn media_type(self, oci_types: bool) -> &'static str {
        match (self, oci_types) {
            (Self::Plain, true) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Gzip, true) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Zstd, true) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Plain, false) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Gzip, false) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Self::Zstd, false) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

impl Blob {
    /// Gives the bytes to whoever uploads them.
    pub(crate) fn into_upload(self) -> push::Blob {
        push::Blob {
            digest: self.digest,
            size_bytes: self.size_bytes,
            content: match self.bytes {
                Bytes::Layer(layer) => Content::Layer(layer),
                Bytes::Stored(file) => Content::File(Arc::new(file)),
            },
        }
    }

    /// Copies the bytes to the cursor of `out`, checking that they are what their digest says.
    pub(crate) fn copy_to(&self, mut out: &File) -> std::io::Result<()> {
        match &self.bytes {
            Bytes::Layer(layer) => layer.copy_tar(out).map(|_| ()).map_err(std::io::Error::other),
            Bytes::Stored(file) => {
                let mut hasher = Sha256::new();
                let mut buffer = vec![0; CHUNK_BYTES];
                let mut at = 0;
                loop {
                    let count = file.read_at(&mut buffer, at)?;
                    if count == 0 {
                        break;
                    }
                    hasher.update(&buffer[..count]);
                    out.write_all(&buffer[..count])?;
                    at += count as u64;
                }
                match Digest::from_bytes(hasher.finalize().into()) {
                    actual if actual == self.digest => Ok(()),
                    actual => Err(std::io::Error::other(BlobError::Mismatch {
                        expected: self.digest,
                        actual,
                    })),
                }
            }
        }
    }
}

/// Returns the blob of a layer as `compression` wants it, compressing only if there is none yet.
pub(crate) fn of_layer(store: &Store, layer: &DiffId, compression: Compression) -> Result<Blob, ExportError> {
    let form = match compression.codec {
        Codec::None => return plain(store, layer),
        Codec::Gzip { .. } => Form::Gzip,
        Codec::Zstd { .. } => Form::Zstd,
    };
    if !compression.force {
        for (pulled, name) in [(Form::Gzip, PULLED_GZIP), (Form::Zstd, PULLED_ZSTD)] {
            let fits = pulled == form || !compression.is_explicit;
            if fits && let Some(blob) = known(store, layer, name, pulled)? {
                return Ok(blob);
            }
        }
    }
    let name = record_name(compression.codec);
    if let Some(blob) = known(store, layer, &name, form)? {
        return Ok(blob);
    }
    // Another process may be at it; another form of the layer is other work.
    let lock = format!("blob{}{}", word(compression.codec), layer.hex());
    let _lock = store.lock_for(&lock, &format!("compresses layer {layer}"))?;
    if let Some(blob) = known(store, layer, &name, form)? {
        return Ok(blob);
    }
    let file = store.layers().get(layer)?;
    let mut writer = store.blobs().writer(store.incomplete())?;
    compress::compress(file.checked_tar_reader(), &mut writer, compression.codec).map_err(|source| {
        ExportError::Compress {
            layer: *layer,
            source,
        }
    })?;
    let size_bytes = writer.size_bytes();
    let digest = store.blobs().commit(writer, None)?;
    store
        .index()
        .put_layer_blob(layer, &name, &LayerBlob { digest, size_bytes })?;
    Ok(Blob {
        bytes: Bytes::Stored(store.blobs().open(&digest)?),
        digest,
        size_bytes,
        form,
    })
}

/// Returns the index's word for a blob that we made: everything that its bytes depend on. Another version of a library
/// may compress the same bytes to others, which is no harm: blobs are found by this name, never made twice.
fn record_name(codec: Codec) -> String {
    match codec {
        Codec::Gzip { level } => format!("gzip:libdeflate-1.26:1MiB:{level}"),
        Codec::Zstd { level } => format!("zstd:0.14:4MiB:{level}"),
        Codec::None => "none".to_owned(),
    }
}

/// Returns what tells codecs apart in the name of a lock.
fn word(codec: Codec) -> String {
    match codec {
        Codec::Gzip { level } => format!("gzip{level}"),
        Codec::Zstd { level } => format!("zstd{}", level.unsigned_abs()),
        Codec::None => "none".to_owned(),
    }
}

fn plain(store: &Store, layer: &DiffId) -> Result<Blob, ExportError> {
    let file = store.layers().get(layer)?;
    Ok(Blob {
        digest: Digest::from_bytes(*layer.as_bytes()),
        size_bytes: file.tar_bytes(),
        form: Form::Plain,
        bytes: Bytes::Layer(file),
    })
}

/// Looks a form up; one whose file is gone or has another size doesn't count.
fn known(store: &Store, layer: &DiffId, name: &str, form: Form) -> Result<Option<Blob>, ExportError> {
    let Some(LayerBlob { digest, size_bytes }) = store.index().layer_blob(layer, name)? else {
        return Ok(None);
    };
    let Ok(file) = store.blobs().open(&digest) else {
        return Ok(None);
    };
    let is_whole = file.metadata().is_ok_and(|metadata| metadata.len() == size_bytes);
    Ok(is_whole.then_some(Blob {
        bytes: Bytes::Stored(file),
        digest,
        size_bytes,
        form,
    }))
}
