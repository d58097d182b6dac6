//! docker-archive: `manifest.json` names each image's config and layer tars. What `docker save` writes.
//!
//! It knows one platform of an image. Where the archive is an OCI layout too, the others are in the index there that has
//! this one.
//!
//! Archives from before Docker 1.10, with `repositories` only, are not read.

use cache::Digest;
use serde::Deserialize;

use super::{Found, Part, Source, layout};
use crate::registry::{
    ImageError, LayerSource, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Reference, config_facts, strict_json,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Lists the images of the archive.
pub(super) fn images(source: &Source) -> Result<Vec<Found>, ImageError> {
    let bytes = source.read("manifest.json", MAX_MANIFEST_BYTES)?;
    let malformed = |why: String| source.refuse(format!("manifest.json is malformed: {why}"));
    let items = strict_json(&bytes).map_err(malformed)?;
    let items: Vec<Item> = serde_json::from_value(items).map_err(|error| malformed(error.to_string()))?;
    if items.is_empty() {
        return Err(source.refuse("manifest.json lists no images"));
    }
    let mut images = items
        .into_iter()
        .map(|item| image(source, item))
        .collect::<Result<Vec<Found>, _>>()?;
    if source.contains("index.json") {
        let families = layout::families(source)?;
        for image in &mut images {
            let id = Digest::of(&image.parts[0].config);
            let is_of_it = |part: &Part| Digest::of(&part.config) == id;
            if let Some(family) = families.iter().find(|family| family.iter().any(is_of_it)) {
                image.parts.clone_from(family);
            }
        }
    }
    Ok(images)
}

fn image(source: &Source, item: Item) -> Result<Found, ImageError> {
    let config = source.read(&item.config, MAX_CONFIG_BYTES)?;
    let malformed = |why| ImageError::Malformed {
        what: format!("config {}", item.config.escape_debug()),
        reference: source.title().to_owned(),
        why,
    };
    let facts = config_facts(&config).map_err(malformed)?;
    let paths = item.layers.unwrap_or_default();
    if paths.len() != facts.diff_ids.len() {
        return Err(malformed(format!(
            "it lists {} layers but manifest.json has {}",
            facts.diff_ids.len(),
            paths.len()
        )));
    }
    let layers = facts.diff_ids.into_iter().zip(paths);
    let names = item.repo_tags.unwrap_or_default();
    let layers = layers.map(|(diff_id, path)| {
        let layer = LayerSource {
            diff_id,
            blob: None,
            made_unix: None,
        };
        (layer, path)
    });
    let part = Part {
        config,
        manifest: None,
        layers: layers.collect(),
    };
    Ok(Found {
        names: names
            .iter()
            .map(|name| Reference::parse(name))
            .collect::<Result<_, _>>()?,
        parts: vec![part],
    })
}
