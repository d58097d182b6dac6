//! Delta archives: what the reader of an archive has already is left out of it, and named all the same.
//!
//! Engines know a layer by the chain of layers up to it, so only what an older image begins with counts, in order.
//! Seen with dockerd, with both of its image stores; podman and skopeo want every layer.

use std::collections::BTreeSet;

use cache::{DiffId, Digest, Store};

use super::document::Packed;
use super::{ExportError, blob};
use crate::image;

/// Returns the layers of the images that the reader has.
pub(super) fn known(store: &Store, names: &[String]) -> Result<Vec<Vec<DiffId>>, ExportError> {
    let layers = |name: &String| {
        image::find(store, name)
            .and_then(|image| image.layers())
            .map_err(|failure| ExportError::Since {
                name: name.clone(),
                why: failure.message().to_owned(),
            })
    };
    names.iter().map(layers).collect()
}

/// Returns the blobs of layers that need not be written.
pub(super) fn left_out(images: &[Packed], known: &[Vec<DiffId>]) -> BTreeSet<Digest> {
    let (mut left_out, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for one in images.iter().flat_map(|image| &image.manifests) {
        let n_known = known.iter().map(|older| n_common(older, &one.diff_ids)).max();
        let (there, new) = one.layers.split_at(n_known.unwrap_or(0));
        let digest = |layer: &blob::Blob| layer.digest;
        left_out.extend(there.iter().map(digest));
        needed.extend(new.iter().map(digest));
    }
    // The same layer again, in another place, is another one to the reader.
    left_out.retain(|digest| !needed.contains(digest));
    left_out
}

/// Returns how many layers two images have in common.
fn n_common(older: &[DiffId], newer: &[DiffId]) -> usize {
    older.iter().zip(newer).take_while(|(a, b)| a == b).count()
}

/// One layer of an archive that isn't written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Which.
    pub(crate) layer: DiffId,
    /// Bytes of its blob.
    pub(crate) size_bytes: u64,
    /// Whether the reader has it.
    pub(crate) is_left_out: bool,
}

/// Lists the layers of images, each once, base layers first.
pub(super) fn list(images: &[Packed], left_out: &BTreeSet<Digest>) -> Vec<Listed> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for one in images.iter().flat_map(|image| &image.manifests) {
        for (layer, blob) in one.diff_ids.iter().zip(&one.layers) {
            if seen.insert(blob.digest) {
                out.push(Listed {
                    layer: *layer,
                    size_bytes: blob.size_bytes,
                    is_left_out: left_out.contains(&blob.digest),
                });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_image_begins_with_is_in_common() {
        let layers =
            |text: &str| -> Vec<DiffId> { text.bytes().map(|byte| DiffId::from_bytes([byte; 32])).collect() };
        for (older, newer, expected) in [
            ("", "", 0),
            ("", "ab", 0),
            ("ab", "abc", 2),
            ("ab", "ab", 2),
            ("abc", "ab", 2),
            ("ba", "ab", 0),
            ("axc", "abc", 1),
        ] {
            assert_eq!(
                n_common(&layers(older), &layers(newer)),
                expected,
                "{older} {newer}"
            );
        }
    }
}
