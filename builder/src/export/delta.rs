//! Delta archives: which layers of an image are left out because an older image, which the reader has, begins with
//! them.
//!
//! Engines find a layer by its chain, not by itself: a layer is left out only where all layers below it are those of
//! the same older image too. Manifests and configs are written whole, so that the image keeps its digests.

use cache::{DiffId, Store};

use super::ExportError;
use crate::image;
use crate::report::Failure;

/// The older images that a reader is taken to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Older {
    /// Of each, base layer first.
    chains: Vec<Vec<DiffId>>,
}

impl Older {
    /// Finds images of the store by name or ID. Their layers need not be there.
    pub(crate) fn find(store: &Store, names: &[String]) -> Result<Self, ExportError> {
        let mut chains = Vec::new();
        for name in names {
            let failed = |failure: Failure| ExportError::Since {
                name: name.clone(),
                why: failure.message().to_owned(),
            };
            let own = image::find(store, name).map_err(failed)?;
            let variants = image::find_variants(store, name).map_err(failed)?;
            for image in std::iter::once(own).chain(variants) {
                chains.push(image.layers().map_err(failed)?);
            }
        }
        Ok(Self { chains })
    }

    /// Takes a reader to have images of these layers, base layer first.
    pub(super) fn of_chains(chains: Vec<Vec<DiffId>>) -> Self {
        Self { chains }
    }

    /// Returns how many layers, from the base on, a reader has.
    pub(super) fn n_shared(&self, layers: &[DiffId]) -> usize {
        let shared = |chain: &Vec<DiffId>| chain.iter().zip(layers).take_while(|(a, b)| a == b).count();
        self.chains.iter().map(shared).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_older_image_begins_with_is_shared() {
        let layer = |name: &str| DiffId::of(name.as_bytes());
        let chain = |names: &str| names.split_terminator(' ').map(layer).collect::<Vec<_>>();
        for (older, image, expected) in [
            (&["a b c"][..], "a b d", 2),
            (&["a b c"], "a b c", 3),
            (&["a b c"], "a b c d", 3),
            (&["a b"], "a", 1),
            // The same layer on another base is another chain.
            (&["x b c"], "a b c", 0),
            // Two older images don't make one.
            (&["a x c", "y b c"], "a b c", 1),
            (&["a", "a b"], "a b c", 2),
            (&[""], "a", 0),
            (&[], "a", 0),
        ] {
            let older = Older {
                chains: older.iter().map(|names| chain(names)).collect(),
            };
            assert_eq!(older.n_shared(&chain(image)), expected, "{older:?} {image}");
        }
    }
}
