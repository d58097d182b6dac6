//! Whether the images that have names are complete: config, manifest, every layer.

use std::collections::HashMap;

use cache::index::ImageName;
use cache::{Digest, Store};

use super::{Finding, Images, Lost};
use crate::image::familiar;
use crate::registry::{self, Document, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
use crate::report::{Failure, Kind};

/// Returns the sizes of blobs as the manifests of images have them. What can't be read is `check`'s to tell.
pub(super) fn sizes(store: &Store) -> HashMap<Digest, u64> {
    let mut sizes = HashMap::new();
    for manifest in store
        .index()
        .images()
        .unwrap_or_default()
        .iter()
        .filter_map(|image| image.manifest)
    {
        let Ok(bytes) = store.blobs().peek(&manifest, MAX_MANIFEST_BYTES) else {
            continue;
        };
        if let Ok(Document::Manifest(found)) = registry::parse(&bytes, None) {
            let parts = found.layers.iter().chain([&found.config]);
            sizes.extend(parts.map(|part| (part.digest, part.size_bytes)));
        }
    }
    sizes
}

/// Looks at every named image, without what is lost.
pub(super) fn check(store: &Store, lost: &Lost) -> Result<Images, Failure> {
    let rows = store
        .index()
        .images()
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    let mut images = Images::default();
    for row in &rows {
        images.n_images += 1;
        let configs = [row.config]
            .into_iter()
            .chain(row.variants.iter().map(|variant| variant.config));
        for problem in configs.filter_map(|config| problem_of(store, lost, &config)) {
            tell(&mut images, row, problem);
        }
        if let Some(manifest) = row.manifest.filter(|manifest| !is_here(store, lost, manifest)) {
            tell(
                &mut images,
                row,
                Problem::Incomplete(format!("its manifest {manifest} isn't here")),
            );
        }
    }
    Ok(images)
}

/// What an image lacks.
enum Problem {
    /// Without it nothing is known of the image.
    Unreadable(String),
    /// Parts.
    Incomplete(String),
}

fn is_here(store: &Store, lost: &Lost, digest: &Digest) -> bool {
    !lost.blobs.contains(digest) && store.blobs().peek(digest, MAX_MANIFEST_BYTES).is_ok()
}

fn problem_of(store: &Store, lost: &Lost, config: &Digest) -> Option<Problem> {
    let bytes = match store.blobs().peek(config, MAX_CONFIG_BYTES) {
        Ok(bytes) if !lost.blobs.contains(config) => bytes,
        Ok(_) => return Some(Problem::Unreadable(format!("its config {config} is damaged"))),
        Err(error) => return Some(Problem::Unreadable(format!("its config can't be read: {error}"))),
    };
    let facts = match registry::config_facts(&bytes) {
        Ok(facts) => facts,
        Err(why) => return Some(Problem::Unreadable(format!("its config {config}: {why}"))),
    };
    let is_missing =
        |layer: &&cache::DiffId| lost.layers.contains(layer) || !store.layers().path(layer).is_file();
    let missing: Vec<&cache::DiffId> = facts.diff_ids.iter().filter(is_missing).collect();
    let first = missing.first()?;
    let total = facts.diff_ids.len();
    Some(Problem::Incomplete(match missing.len() {
        1 => format!("layer {first} of {total} isn't here"),
        count => format!("{count} of {total} layers aren't here, the first is {first}"),
    }))
}

/// Adds what an image lacks. One that came with a manifest is a registry's: its layers are fetched when they are needed,
/// and may never have been.
fn tell(images: &mut Images, row: &ImageName, problem: Problem) {
    let name = familiar(&row.name);
    match (problem, row.manifest) {
        (Problem::Incomplete(what), Some(_)) => images
            .notes
            .push(format!("image {name}: {what}; `ashlar pull {name}` fetches it")),
        (Problem::Unreadable(what), Some(_)) => images.findings.push(Finding {
            subject: format!("image {name}"),
            problem: what,
            repaired: None,
            advice: Some(format!("`ashlar pull {name}` fetches it again")),
        }),
        (Problem::Incomplete(what) | Problem::Unreadable(what), None) => images.findings.push(Finding {
            subject: format!("image {name}"),
            problem: what,
            repaired: None,
            advice: Some(format!("build it again, or forget it: `ashlar rmi {name}`")),
        }),
    }
}
