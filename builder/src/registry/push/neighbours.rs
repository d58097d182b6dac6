//! Which other repository of a registry has a blob, as far as the store's images tell: what was pulled from there, or
//! pushed to there, by a name that is still known.
//!
//! A guess: the registry says whether it holds, and then the blob needn't be sent.

use std::collections::BTreeMap;

use cache::{Digest, Store};

use super::super::{Document, MAX_MANIFEST_BYTES, Reference, parse};
use super::PushError;
use crate::registry::ImageError;

/// Blobs, and the repository of the same registry that should have them.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    repositories: BTreeMap<Digest, String>,
}

impl Neighbours {
    /// Looks through the images of the store for those of the same registry as `target`, in other repositories.
    pub(crate) fn find(store: &Store, target: &Reference) -> Result<Self, PushError> {
        let mut repositories = BTreeMap::new();
        let images = store.index().images().map_err(ImageError::from)?;
        for image in images {
            let Some(manifest) = image.manifest else {
                continue;
            };
            let reference = match Reference::parse(&image.name) {
                Ok(reference)
                    if reference.domain() == target.domain() && reference.path() != target.path() =>
                {
                    reference
                }
                _ => continue,
            };
            // Whatever is wrong with it, the worst is that a blob is sent.
            let Ok(bytes) = store.blobs().read(&manifest, MAX_MANIFEST_BYTES) else {
                continue;
            };
            if let Ok(Document::Manifest(manifest)) = parse(&bytes, None) {
                for layer in manifest.layers {
                    repositories.insert(layer.digest, reference.path().to_owned());
                }
            }
        }
        Ok(Self { repositories })
    }

    /// Returns the repository that should have a blob.
    pub(super) fn of(&self, blob: &Digest) -> Option<&str> {
        self.repositories.get(blob).map(String::as_str)
    }
}
