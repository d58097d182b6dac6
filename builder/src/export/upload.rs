//! An image as a registry gets it: its blobs, and the manifests that name them.

use std::sync::Arc;

use cache::Store;

use super::options::ImageOptions;
use super::{ExportError, ExportImage};
use super::{blob, document};
use crate::registry::Descriptor;
use crate::registry::push::{Blob, Content, Document, Upload};

/// Puts together what a repository must have, compressing the layers that have no suitable blob yet. Blocks.
pub(crate) fn upload(
    store: &Store,
    image: &ExportImage,
    options: &ImageOptions,
    epoch: Option<i64>,
) -> Result<Upload, ExportError> {
    let packed = document::pack(store, image, options, epoch)?;
    let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
    for one in packed.manifests {
        blobs.extend(one.layers.into_iter().map(blob::Blob::into_upload));
        blobs.push(Blob {
            digest: one.config_digest,
            size_bytes: one.config.len() as u64,
            content: Content::Memory(Arc::from(one.config)),
        });
        manifests.push(document(one.manifest, one.manifest_bytes));
    }
    for one in packed.attached {
        blobs.extend(one.blobs.into_iter().map(|(digest, bytes)| Blob {
            digest,
            size_bytes: bytes.len() as u64,
            content: Content::Memory(Arc::from(bytes)),
        }));
        manifests.push(document(one.manifest, one.manifest_bytes));
    }
    if let Some((index, bytes)) = packed.index {
        manifests.push(document(index, bytes));
    }
    Ok(Upload { blobs, manifests })
}

fn document(descriptor: Descriptor, bytes: Vec<u8>) -> Document {
    Document { descriptor, bytes }
}
