//! A cache that is part of an image: which steps made its layers, as an annotation of its manifest.
//!
//! BuildKit keeps the like in the config. That would give the image another ID, and programs that write configs anew
//! lose it; an annotation leaves config, layers and ID as they are, docker and every registry keep it, and nobody has to
//! know it. The layers' blobs are those of the manifest, so that nothing but the image is stored. What only tells about
//! a build (how long steps took, the values that keys were made of) is left out: an image is for other readers
//! than a cache, and equal images are to have equal manifests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cache::DiffId;
use serde::Deserialize;

use super::document::{BlobEntry, CacheDocument};
use super::export::{Contents, Made};
use super::{CacheError, document};
use crate::registry::LayerSource;

/// The annotation's name.
pub(crate) const ANNOTATION: &str = "vnd.ashlar.cache.v1";
/// Registries take manifests of 4 MiB; this is for a few thousand steps.
const MAX_TEXT_BYTES: usize = 1 << 20;
const LEVEL: i32 = 19;

/// Returns the annotation of an image of these layers; `None` where no recorded step made them. With an epoch that
/// is when everything was made. Blocks.
pub(crate) fn annotation(
    made: &Made,
    layers: &[DiffId],
    epoch: Option<i64>,
) -> Result<Option<String>, CacheError> {
    let own = layers.iter().copied().collect();
    let document = Contents::of(made, Some(&own))?.without_blobs(made, epoch);
    if document.records.is_empty() {
        return Ok(None);
    }
    let packed = zstd::bulk::compress(&document.to_bytes(), LEVEL)
        .map_err(|error| CacheError::Inline(error.to_string()))?;
    let text = STANDARD.encode(packed);
    match text.len() <= MAX_TEXT_BYTES {
        true => Ok(Some(text)),
        false => Err(CacheError::Inline(format!(
            "{} bytes are too many for a manifest",
            text.len()
        ))),
    }
}

/// Finds the annotation in a manifest.
pub(super) fn find(manifest: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(default)]
        annotations: std::collections::HashMap<String, String>,
    }
    let mut manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    manifest.annotations.remove(ANNOTATION)
}

/// Reads an annotation; the layers are those of the image that has it. The error says which rule it breaks.
pub(super) fn parse(text: &str, layers: &[LayerSource]) -> Result<CacheDocument, String> {
    let packed = STANDARD.decode(text).map_err(|error| error.to_string())?;
    let limit_bytes = usize::try_from(document::MAX_CACHE_CONFIG_BYTES).unwrap_or(usize::MAX);
    let bytes = zstd::bulk::Decompressor::new()
        .and_then(|mut reader| {
            // The buffer is made at once: what is claimed is believed only up to the limit.
            let claimed = zstd::bulk::Decompressor::upper_bound(&packed).unwrap_or(limit_bytes);
            reader.decompress(&packed, claimed.min(limit_bytes))
        })
        .map_err(|error| error.to_string())?;
    let mut document = CacheDocument::parse(&bytes)?;
    for entry in &mut document.layers {
        let own = layers.iter().find(|layer| layer.diff_id == entry.diff_id);
        entry.blob = own.and_then(|own| own.blob.as_ref()).map(|blob| BlobEntry {
            media_type: blob.media_type.clone(),
            digest: blob.digest,
            size: blob.size_bytes,
        });
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use cache::Digest;
    use serde_json::json;

    use super::*;
    use crate::registry::Descriptor;

    fn packed(document: &[u8]) -> String {
        STANDARD.encode(zstd::bulk::compress(document, 1).unwrap())
    }

    fn layer(name: &[u8], digest: Digest) -> LayerSource {
        LayerSource {
            diff_id: DiffId::of(name),
            blob: Some(Descriptor {
                media_type: "t".to_owned(),
                digest,
                size_bytes: 1,
            }),
            made_unix: None,
        }
    }

    #[test]
    fn layers_are_those_of_the_image_and_of_nowhere_else() {
        let (own, foreign) = (DiffId::of(b"own"), DiffId::of(b"foreign"));
        // What the annotation itself says of blobs counts for nothing.
        let blob = json!({"mediaType": "t", "digest": Digest::of(b"claimed"), "size": 9});
        let document = json!({
            "layers": [{"diff_id": own, "blob": blob}, {"diff_id": foreign, "blob": blob}],
            "records": [], "tree_hashes": [],
        });
        let text = packed(document.to_string().as_bytes());
        let parsed = parse(&text, &[layer(b"own", Digest::of(b"real"))]).unwrap();
        let blobs: Vec<Option<Digest>> = parsed
            .layers
            .iter()
            .map(|layer| layer.blob.as_ref().map(|blob| blob.digest))
            .collect();
        assert_eq!(blobs, [Some(Digest::of(b"real")), None]);
    }

    #[test]
    fn what_is_no_cache_is_refused() {
        let check = |text: &str, words: &str| {
            let error = parse(text, &[]).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        check("no base64", "Invalid");
        check("AAAA", "Src size");
        check(&packed(b"[]"), "invalid length");
        // Far more than its size lets expect.
        check(&packed(&vec![b' '; 65 << 20]), "too small");
        assert_eq!(
            find(br#"{"annotations": {"vnd.ashlar.cache.v1": "x"}}"#),
            Some("x".to_owned())
        );
        assert_eq!(find(br#"{"annotations": {"other": "x"}}"#), None);
        assert_eq!(find(br#"{"annotations": 7}"#), None);
    }
}
