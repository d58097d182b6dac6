//! What is said of an image beside it: how it was built (SLSA provenance) and what is in it (SBOM), as BuildKit says it.
//!
//! Here predicates are made; whom they are about, and how they travel, is the business of `export::statement`. Secrets
//! have no part in any of it but their ids. Nothing is signed.

mod materials;
mod provenance;
mod sbom;
mod steps;
mod wanted;

use serde_json::Value;

pub(crate) use materials::image_url;
pub(crate) use provenance::{Origin, Recipe, Run, Sources};
pub(crate) use sbom::{Generator, SbomError};
pub(crate) use wanted::{Attestations, Detail, Provenance};

/// Something said of an image for one platform: an in-toto predicate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attestation {
    /// An address that says what kind of predicate it is.
    pub(crate) predicate_type: String,
    /// What is said.
    pub(crate) predicate: Value,
    /// Its name where outputs are plain files.
    pub(crate) file_name: String,
    /// Goes with images only, not with plain files, and not by force.
    pub(crate) inline_only: bool,
    /// Where the descriptors of the image's layers are put, once they are known.
    pub(crate) layers_at: Option<LayersAt>,
}

/// A place in a predicate for the descriptors of the image's layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayersAt {
    /// The object that gets a member `layers`, as a JSON pointer.
    pub(crate) pointer: String,
    /// The step that made the image's tree.
    pub(crate) step: String,
}

impl Attestation {
    /// Returns the predicate of an image with these layers.
    pub(crate) fn with_layers(&self, layers: &[Value]) -> Value {
        let mut predicate = self.predicate.clone();
        let place = self.layers_at.as_ref();
        if let Some((object, at)) = place.and_then(|at| Some((predicate.pointer_mut(&at.pointer)?, at))) {
            object["layers"] = serde_json::json!({format!("{}:0", at.step): [layers]});
        }
        predicate
    }
}
