//! What is written of a cache: a config of our own under an OCI image manifest, so that every registry keeps it.
//!
//! BuildKit's caches have keys of another kind; neither program can use the other's. The config names everything that an
//! importer needs, blobs included, so that it alone is what is checked and signed; the manifest lists the same blobs
//! only so that registries don't collect them. Text in, checked facts out; no I/O.

use std::collections::HashMap;

use cache::mounts::About;
use cache::tree::Selection;
use cache::{Component, DiffId, Digest, Key, Record, TreeHash};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sign::SIGNATURE;
use crate::registry::{Descriptor, strict_json};

/// The media type of the config.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.ashlar.cache.config.v1+json";
/// The media type of BuildKit's.
const BUILDKIT_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Largest config that is read: some hundred thousand steps.
pub(crate) const MAX_CACHE_CONFIG_BYTES: u64 = 64 << 20;

/// The config of a cache.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct CacheDocument {
    /// Every layer that a record names, once.
    pub(crate) layers: Vec<LayerEntry>,
    /// What steps became.
    pub(crate) records: Vec<RecordEntry>,
    /// The content of cache mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<MountEntry>,
    /// What is known of trees, so that keys can be computed without a layer.
    pub(crate) tree_hashes: Vec<HashEntry>,
}

/// A layer of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerEntry {
    /// What its tar hashes to.
    pub(crate) diff_id: DiffId,
    /// Where its bytes are; layers of base images have none here, they come from where the image comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<BlobEntry>,
    /// When it was made, in seconds since the Unix epoch: the image's history says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made: Option<i64>,
}

/// A blob of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobEntry {
    /// How it is compressed.
    #[serde(rename = "mediaType")]
    pub(crate) media_type: String,
    /// What its bytes hash to.
    pub(crate) digest: Digest,
    /// Their number.
    pub(crate) size: u64,
}

impl BlobEntry {
    /// Returns the descriptor that says the same.
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest,
            size_bytes: self.size,
        }
    }
}

/// A record of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordEntry {
    key: Key,
    /// Places in the list of layers, base first.
    layers: Vec<u32>,
    components: Vec<Component>,
    step: String,
    created_ms: i64,
    took_ms: u64,
}

/// The content of a cache mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountEntry {
    /// Which.
    pub(crate) about: About,
    /// The place of the layer that has it.
    pub(crate) layer: u32,
}

/// The hash of a part of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HashEntry {
    /// The result.
    pub(crate) key: Key,
    /// The part.
    pub(crate) selection: Selection,
    /// Its hash.
    pub(crate) hash: TreeHash,
}

impl CacheDocument {
    /// Puts a cache together. `layers` holds every layer of `records`.
    pub(crate) fn new(
        layers: Vec<LayerEntry>,
        records: &[Record],
        tree_hashes: Vec<HashEntry>,
        mounts: Vec<(About, DiffId)>,
    ) -> Self {
        let places: HashMap<DiffId, u32> = layers.iter().map(|layer| layer.diff_id).zip(0..).collect();
        let records = records.iter().map(|record| RecordEntry {
            key: record.key,
            layers: record.layers.iter().map(|layer| places[layer]).collect(),
            components: record.components.clone(),
            step: record.step.clone(),
            created_ms: record.created_unix_ms,
            took_ms: record.took_ms,
        });
        Self {
            records: records.collect(),
            mounts: mounts
                .into_iter()
                .map(|(about, layer)| MountEntry {
                    about,
                    layer: places[&layer],
                })
                .collect(),
            layers,
            tree_hashes,
        }
    }

    /// Reads a config; the error says which rule it breaks.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let n_layers = document.layers.len();
        if let Some(mount) = document
            .mounts
            .iter()
            .find(|mount| mount.layer as usize >= n_layers)
        {
            let id = mount.about.id.escape_debug();
            return Err(format!("the cache mount `{id}` has a layer that isn't listed"));
        }
        for record in &document.records {
            if record.layers.iter().any(|place| *place as usize >= n_layers) {
                return Err(format!(
                    "the record of {} names a layer that isn't listed",
                    record.key
                ));
            }
        }
        Ok(document)
    }

    /// Returns a record.
    pub(crate) fn record(&self, place: usize) -> Record {
        let entry = &self.records[place];
        let layers = entry
            .layers
            .iter()
            .map(|place| self.layers[*place as usize].diff_id);
        Record {
            key: entry.key,
            layers: layers.collect(),
            components: entry.components.clone(),
            step: entry.step.clone(),
            created_unix_ms: entry.created_ms,
            took_ms: entry.took_ms,
        }
    }

    /// Returns the places of the records by key, and of the newest one of each step.
    pub(crate) fn places(&self) -> (HashMap<Key, usize>, HashMap<String, usize>) {
        let mut by_key = HashMap::new();
        let mut by_step: HashMap<String, usize> = HashMap::new();
        for (place, record) in self.records.iter().enumerate() {
            by_key.insert(record.key, place);
            // Nothing can be compared with what doesn't say what its key was made of.
            if record.components.is_empty() {
                continue;
            }
            let newest = by_step.entry(record.step.clone()).or_insert(place);
            if self.records[*newest].created_ms < record.created_ms {
                *newest = place;
            }
        }
        (by_key, by_step)
    }

    /// Returns the bytes of the config.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("because it has only strings as keys")
    }

    /// Returns the bytes of a manifest over the config, with its signature.
    pub(crate) fn manifest(&self, config: &[u8], oci_types: bool, signature: Option<String>) -> Vec<u8> {
        let media_type = match oci_types {
            true => "application/vnd.oci.image.manifest.v1+json",
            false => "application/vnd.docker.distribution.manifest.v2+json",
        };
        let layers: Vec<&BlobEntry> = self
            .layers
            .iter()
            .filter_map(|layer| layer.blob.as_ref())
            .collect();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": CONFIG_TYPE, "digest": Digest::of(config).to_string(), "size": config.len()},
            "layers": layers,
        });
        if let Some(signature) = signature {
            manifest["annotations"] = json!({SIGNATURE: signature});
        }
        serde_json::to_vec(&manifest).expect("because a JSON value has only strings as keys")
    }
}

/// Finds the config of a cache in its manifest, and the signature; the error says why there is none.
pub(crate) fn config_of(manifest: &[u8]) -> Result<(Descriptor, Option<String>), String> {
    #[derive(Deserialize)]
    struct Manifest {
        config: Option<BlobEntry>,
        #[serde(default)]
        annotations: HashMap<String, String>,
    }
    let manifest = strict_json(manifest)?;
    let mut manifest: Manifest = serde_json::from_value(manifest).map_err(|error| error.to_string())?;
    let Some(config) = manifest.config else {
        return Err("it is no manifest".to_owned());
    };
    match config.media_type.as_str() {
        CONFIG_TYPE => {}
        BUILDKIT_TYPE => return Err("it is a cache of BuildKit, which has other keys".to_owned()),
        other => return Err(format!("it is no cache but {}", other.escape_debug())),
    }
    if config.size > MAX_CACHE_CONFIG_BYTES {
        return Err(format!(
            "its config is larger than {MAX_CACHE_CONFIG_BYTES} bytes"
        ));
    }
    Ok((config.descriptor(), manifest.annotations.remove(SIGNATURE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        blake3::hash(text.as_bytes()).into()
    }

    fn sample() -> (Vec<Record>, CacheDocument) {
        let (base, own) = (DiffId::of(b"base"), DiffId::of(b"own"));
        let record = Record {
            key: key("a"),
            layers: vec![base, own],
            components: vec![Component {
                name: "op".into(),
                value: "exec".into(),
            }],
            step: "build/1".into(),
            created_unix_ms: 7,
            took_ms: 8,
        };
        let layers = vec![
            LayerEntry {
                diff_id: base,
                blob: None,
                made: None,
            },
            LayerEntry {
                diff_id: own,
                blob: Some(BlobEntry {
                    media_type: "application/vnd.oci.image.layer.v1.tar+zstd".into(),
                    digest: Digest::of(b"blob"),
                    size: 4,
                }),
                made: Some(9),
            },
        ];
        let hash = HashEntry {
            key: key("a"),
            selection: Selection::everything(),
            hash: blake3::hash(b"tree").into(),
        };
        let records = vec![record];
        let document = CacheDocument::new(layers, &records, vec![hash], Vec::new());
        (records, document)
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let (records, document) = sample();
        let bytes = document.to_bytes();
        let back = CacheDocument::parse(&bytes).unwrap();
        assert_eq!(back.record(0), records[0]);
        assert_eq!(
            (&back.layers, &back.tree_hashes),
            (&document.layers, &document.tree_hashes)
        );
        assert_eq!(back.places().0[&key("a")], 0);
        assert_eq!(back.places().1["build/1"], 0);
        let signature = Some("c2ln".to_owned());
        let manifest = document.manifest(&bytes, true, signature.clone());
        let (config, found) = config_of(&manifest).unwrap();
        assert_eq!(found, signature);
        assert_eq!(
            (config.digest, config.size_bytes),
            (Digest::of(&bytes), bytes.len() as u64)
        );
    }

    #[test]
    fn hostile_documents_are_refused() {
        let (_, document) = sample();
        let text = String::from_utf8(document.to_bytes()).unwrap();
        let check = |from: &str, to: &str, words: &str| {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from} is there");
            let error = CacheDocument::parse(changed.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        let mounts = r#""mounts":[{"about":{"id":"x","namespace":"","owner":null,"source":null},"layer":9}],"tree_hashes""#;
        check(
            "\"tree_hashes\"",
            mounts,
            "the cache mount `x` has a layer that isn't listed",
        );
        check("[0,1]", "[0,2]", "names a layer that isn't listed");
        check("[0,1]", "[0,-1]", "invalid value");
        check("[0,1]", "[0,4294967296]", "invalid value");
        // hardening T53
        for bad in [
            "sha256:../",
            "sha256:%2e",
            "sha256:0",
            "sha512:",
            "md5:",
            "sha256+b64:",
            "SHA256:",
        ] {
            check("sha256:", bad, "digest");
        }
        check("\"size\":4", "\"size\":-4", "invalid value");
        check("]}", "]", "EOF");
    }

    #[test]
    fn other_manifests_are_told_apart() {
        let check = |manifest: &str, words: &str| {
            let error = config_of(manifest.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        let with = |media_type: &str, size: u64| {
            let digest = Digest::of(b"");
            json!({"config": {"mediaType": media_type, "digest": digest, "size": size}}).to_string()
        };
        check(&with(BUILDKIT_TYPE, 1), "BuildKit");
        check(
            &with("application/vnd.oci.image.config.v1+json", 1),
            "it is no cache",
        );
        check(&with(CONFIG_TYPE, 65 << 20), "larger than");
        check("{\"manifests\":[]}", "it is no manifest");
        check("[]", "invalid length");
    }
}
