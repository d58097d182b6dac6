//! The JSON of an image as it leaves the store: manifest, index, layout marker. Keys in a fixed order, no blanks: equal
//! images have equal bytes.

use cache::{Digest, Store};
use serde_json::{Value, json};

use super::blob::{self, Blob};
use super::spec::ImageOptions;
use super::{ExportError, ExportImage};
use crate::registry::{Descriptor, Reference};

/// What an OCI layout says about its version. Spec: OCI image-spec, image-layout.md#oci-layout-file.
pub(super) const LAYOUT_MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image with all its blobs known.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) manifest: Descriptor,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) config_digest: Digest,
    /// Base layer first.
    pub(super) layers: Vec<Blob>,
    /// Canonical.
    pub(super) names: Vec<Reference>,
}

/// Brings the layers into form and writes the manifest.
pub(super) fn pack(
    store: &Store,
    image: &ExportImage,
    options: &ImageOptions,
) -> Result<Packed, ExportError> {
    let layers = image
        .layers
        .iter()
        .map(|layer| blob::of_layer(store, layer, options.compression))
        .collect::<Result<Vec<Blob>, _>>()?;
    let (manifest_type, config_type) = if options.oci_types {
        (
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.config.v1+json",
        )
    } else {
        (
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.container.image.v1+json",
        )
    };
    let config_digest = Digest::of(&image.config);
    let entries: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let media_type = layer.form.media_type(options.oci_types);
            json!({"mediaType": media_type, "digest": layer.digest.to_string(), "size": layer.size_bytes})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": config_digest.to_string(), "size": image.config.len()},
        "layers": entries,
    });
    let manifest_bytes = bytes(&manifest);
    let names = image.names.iter().map(|name| Reference::parse(name));
    Ok(Packed {
        manifest: Descriptor {
            media_type: manifest_type.to_owned(),
            digest: Digest::of(&manifest_bytes),
            size_bytes: manifest_bytes.len() as u64,
        },
        names: names
            .collect::<Result<_, _>>()
            .map_err(crate::registry::ImageError::from)?,
        config: image.config.clone(),
        config_digest,
        manifest_bytes,
        layers,
    })
}

/// Returns the entries of `index.json` for an image: one for each name.
pub(super) fn entries(image: &Packed) -> Vec<Value> {
    let base = {
        let mut entry = json!({
            "mediaType": image.manifest.media_type,
            "digest": image.manifest.digest.to_string(),
            "size": image.manifest.size_bytes,
        });
        if let Some(platform) = platform(&image.config) {
            entry["platform"] = platform;
        }
        entry
    };
    if image.names.is_empty() {
        return vec![base];
    }
    let named = |name: &Reference| {
        let mut entry = base.clone();
        let mut annotations = json!({"io.containerd.image.name": name.to_string()});
        if let Some(tag) = name.tag() {
            annotations["org.opencontainers.image.ref.name"] = json!(tag);
        }
        entry["annotations"] = annotations;
        entry
    };
    image.names.iter().map(named).collect()
}

fn platform(config: &[u8]) -> Option<Value> {
    let config: Value = serde_json::from_slice(config).ok()?;
    let text = |key: &str| config.get(key)?.as_str().filter(|text| !text.is_empty());
    let mut platform = json!({"architecture": text("architecture")?, "os": text("os")?});
    if let Some(variant) = text("variant") {
        platform["variant"] = json!(variant);
    }
    Some(platform)
}

/// Returns `index.json`.
pub(super) fn index(entries: Vec<Value>) -> Vec<u8> {
    bytes(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
}

/// Serialises with keys in the order in which they were put in.
pub(super) fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("because a JSON value has only strings as keys")
}
