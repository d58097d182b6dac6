//! What came of a build, and how `--metadata-file` tells it: keys as buildx has them. Spec: cli-and-outputs.md §9.

use cache::Digest;
use serde_json::{Map, Value, json};

use crate::options::BuildOptions;
use crate::registry::Descriptor;

/// What came of a build.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The image's ID: the digest of its config.
    pub(crate) id: Digest,
    /// Its manifest or index, as the first output that has one wrote it.
    pub(crate) top: Option<Descriptor>,
    /// All names it got, complete.
    pub(crate) names: Vec<String>,
    /// The build's own name.
    pub(crate) build: String,
    /// How the image was made, by key.
    pub(crate) provenance: Map<String, Value>,
    /// What could be better in the Dockerfile.
    pub(crate) warnings: Value,
}

impl Facts {
    /// Returns the metadata file: one object, keys sorted.
    pub(crate) fn to_json(&self, options: &BuildOptions) -> Value {
        let mut facts = self.provenance.clone();
        let mut put = |key: &str, value: Value| facts.insert(key.to_owned(), value);
        put("buildx.build.ref", json!(format!("ashlar/ashlar/{}", self.build)));
        if options.metadata_warnings {
            put("buildx.build.warnings", self.warnings.clone());
        }
        put("containerimage.config.digest", json!(self.id));
        // An image that is only in the store has no manifest: its ID stands for it there, as with docker.
        let digest = self.top.as_ref().map_or(self.id, |top| top.digest);
        if let Some(top) = &self.top {
            put(
                "containerimage.descriptor",
                json!({"mediaType": top.media_type, "digest": top.digest, "size": top.size_bytes}),
            );
        }
        put("containerimage.digest", json!(digest));
        if !self.names.is_empty() {
            put("image.name", json!(self.names.join(",")));
        }
        facts.sort_keys();
        Value::Object(facts)
    }
}
