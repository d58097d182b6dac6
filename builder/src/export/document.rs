//! The JSON of an image as it leaves the store: manifest, index, layout marker. Keys in a fixed order, no blanks: equal
//! images have equal bytes.

use cache::{DiffId, Digest, Store};
use frontend::Platform;
use serde_json::{Map, Value, json};

use super::annotations::{Annotations, Level};
use super::blob::{self, Blob};
use super::options::ImageOptions;
use super::statement::{self, Attached};
use super::{ExportError, ExportImage};
use crate::caches;
use crate::clock;
use crate::options::host_platform;
use crate::registry::{Descriptor, Reference};

/// What an OCI layout says about its version. Spec: OCI image-spec, image-layout.md#oci-layout-file.
pub(super) const LAYOUT_MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// An image with all its blobs known: one manifest, or an index of several.
#[derive(Debug)]
pub(super) struct Packed {
    /// One for each platform, at least one, by platform.
    pub(super) manifests: Vec<PackedManifest>,
    /// Over the manifests, where the image is for several platforms.
    pub(super) index: Option<(Descriptor, Vec<u8>)>,
    /// Canonical.
    pub(super) names: Vec<Reference>,
    /// SOURCE_DATE_EPOCH: what the layout says about when the image was made.
    pub(super) created: Option<i64>,
    annotations: Annotations,
    /// What is said of the manifests.
    pub(super) attached: Vec<Attached>,
}

/// An image for one platform with all its blobs known.
#[derive(Debug)]
pub(super) struct PackedManifest {
    pub(super) manifest: Descriptor,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) config_digest: Digest,
    /// Base layer first.
    pub(super) diff_ids: Vec<DiffId>,
    /// Their blobs.
    pub(super) layers: Vec<Blob>,
    /// What the manifest says of them.
    pub(super) layer_entries: Vec<Value>,
}

impl Packed {
    /// Returns what the image's names stand for: the index, or the only manifest.
    pub(super) fn top(&self) -> &Descriptor {
        match &self.index {
            Some((descriptor, _)) => descriptor,
            None => &self.manifests[0].manifest,
        }
    }

    /// Returns the manifest for the machine's own platform, or the first.
    pub(super) fn own(&self) -> &PackedManifest {
        &self.manifests[self.nearest(&host_platform())]
    }

    /// Returns which manifest is for a platform: what runs there best, or the first.
    pub(super) fn nearest(&self, platform: &Platform) -> usize {
        super::nearest(platform, self.manifests.iter().map(|one| &one.config[..]))
    }
}

/// Brings the layers into form and writes manifests and index.
pub(super) fn pack(
    store: &Store,
    image: &ExportImage,
    options: &ImageOptions,
    created: Option<i64>,
) -> Result<Packed, ExportError> {
    let annotations = &options.annotations;
    let is_attested = image.attestations.iter().any(|of_one| !of_one.is_empty());
    let has_cache = image.caches.iter().any(Option::is_some);
    let options = &ImageOptions {
        oci_types: options.oci_types || !annotations.is_empty() || is_attested || has_cache,
        ..options.clone()
    };
    let mut caches = image.caches.iter().map(Option::as_deref);
    let mut next = || caches.next().flatten();
    let mut manifests = vec![pack_one(store, (&image.config, &image.layers), next(), options)?];
    for further in image.further.iter().flatten() {
        let parts = (&*further.config, &*further.layers);
        manifests.push(pack_one(store, parts, next(), options)?);
    }
    let names = image.names.iter().map(|name| Reference::parse(name));
    let names = names
        .collect::<Result<Vec<_>, _>>()
        .map_err(crate::registry::ImageError::from)?;
    let attached: Vec<Attached> = manifests
        .iter()
        .zip(&image.attestations)
        .filter(|(_, attestations)| !attestations.is_empty())
        .map(|(one, attestations)| statement::attach(one, attestations, &names, options))
        .collect();
    // In one order, whatever order they were asked for in: the same images are the same index, and the same archive.
    manifests.sort_by_cached_key(|one| platform_of(&one.config).map(|platform| platform.to_string()));
    let index = (image.further.is_some() || is_attested).then(|| {
        let media_type = if options.oci_types { OCI_INDEX } else { DOCKER_LIST };
        let entries = manifests.iter().map(|one| entry(one, annotations));
        let attached = attached.iter().map(|one| one.entry.clone());
        let entries: Vec<Value> = entries.chain(attached).collect();
        let mut index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        annotate(&mut index, annotations.at(Level::Index, None));
        let bytes = bytes(&index);
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(&bytes),
            size_bytes: bytes.len() as u64,
        };
        (descriptor, bytes)
    });
    Ok(Packed {
        manifests,
        index,
        created,
        attached,
        annotations: annotations.clone(),
        names,
    })
}

fn pack_one(
    store: &Store,
    (config, diff_ids): (&[u8], &[DiffId]),
    cache: Option<&str>,
    options: &ImageOptions,
) -> Result<PackedManifest, ExportError> {
    let layers = diff_ids
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
    let config_digest = Digest::of(config);
    let entries: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let media_type = layer.form.media_type(options.oci_types);
            json!({"mediaType": media_type, "digest": layer.digest.to_string(), "size": layer.size_bytes})
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": config_digest.to_string(), "size": config.len()},
        "layers": entries,
    });
    let platform = platform_of(config);
    let mut annotations = options.annotations.at(Level::Manifest, platform.as_ref());
    if let Some(cache) = cache {
        annotations.insert(caches::ANNOTATION.to_owned(), json!(cache));
    }
    annotate(&mut manifest, annotations);
    let manifest_bytes = bytes(&manifest);
    Ok(PackedManifest {
        manifest: Descriptor {
            media_type: manifest_type.to_owned(),
            digest: Digest::of(&manifest_bytes),
            size_bytes: manifest_bytes.len() as u64,
        },
        config: config.to_vec(),
        config_digest,
        manifest_bytes,
        diff_ids: diff_ids.to_vec(),
        layers,
        layer_entries: entries,
    })
}

/// Returns the entry of a manifest in an index.
fn entry(packed: &PackedManifest, annotations: &Annotations) -> Value {
    let mut entry = descriptor(&packed.manifest);
    if let Some(platform) = platform(&packed.config) {
        entry["platform"] = platform;
    }
    let platform = platform_of(&packed.config);
    annotate(
        &mut entry,
        annotations.at(Level::ManifestDescriptor, platform.as_ref()),
    );
    entry
}

/// Marks a manifest, an index or a descriptor; no annotations leave no trace.
fn annotate(document: &mut Value, annotations: Map<String, Value>) {
    if !annotations.is_empty() {
        document["annotations"] = Value::Object(annotations);
    }
}

/// Returns a descriptor as documents have it.
pub(super) fn descriptor(of: &Descriptor) -> Value {
    json!({"mediaType": of.media_type, "digest": of.digest.to_string(), "size": of.size_bytes})
}

/// Returns the entries of `index.json` for an image: one for each name.
pub(super) fn entries(image: &Packed) -> Vec<Value> {
    let mut base = match &image.index {
        Some((index, _)) => {
            let mut base = descriptor(index);
            annotate(&mut base, image.annotations.at(Level::IndexDescriptor, None));
            base
        }
        None => entry(&image.manifests[0], &image.annotations),
    };
    if let Some(created) = image.created {
        base["annotations"]["org.opencontainers.image.created"] = json!(clock::rfc3339(created));
    }
    if image.names.is_empty() {
        return vec![base];
    }
    let named = |name: &Reference| {
        let mut entry = base.clone();
        let mut annotations = json!({CONTAINERD_NAME: name.to_string()});
        if let Some(Value::Object(own)) = base.get("annotations") {
            // The layout's own word for the name stands.
            own.iter()
                .filter(|(key, _)| *key != CONTAINERD_NAME)
                .for_each(|(key, value)| annotations[key] = value.clone());
        }
        if let Some(tag) = name.tag() {
            annotations["org.opencontainers.image.ref.name"] = json!(tag);
        }
        entry["annotations"] = annotations;
        entry
    };
    image.names.iter().map(named).collect()
}

/// Returns what a config says about its platform.
pub(crate) fn platform_of(config: &[u8]) -> Option<Platform> {
    let config: Value = serde_json::from_slice(config).ok()?;
    let text = |key: &str| config.get(key)?.as_str().filter(|text| !text.is_empty());
    Some(Platform::new(text("os")?, text("architecture")?, text("variant")))
}

fn platform(config: &[u8]) -> Option<Value> {
    let found = platform_of(config)?;
    let mut platform = json!({"architecture": found.architecture, "os": found.os});
    if let Some(variant) = found.variant {
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
