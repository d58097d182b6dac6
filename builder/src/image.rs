//! Images of the local store: a config, which is the image's ID, the layers it lists, and the names it has; which one a
//! word means, and how a new one gets in.
//!
//! Names live in the index, configs among the blobs, layers as layer files. Configs are kept as JSON, because what
//! `inspect` shows is what is stored, known fields or not. Nothing is deleted here.

use std::collections::BTreeMap;
use std::path::Path;

use cache::index::{ImageName, Variant};
use cache::tree::View;
use cache::{DiffId, Digest, Purpose, Store, Wait};
use frontend::Platform;
use serde_json::Value;

use crate::clock;
use crate::failure;
use crate::registry::{ImageError, MAX_CONFIG_BYTES, Reference};
use crate::report::{self, Failure, Kind};

/// How many digits a shortened ID has.
const SHORT_ID: usize = 12;

/// An image of the store.
#[derive(Debug, Clone)]
pub(crate) struct StoredImage {
    /// Digest of the config: what people call the image ID.
    pub(crate) id: Digest,
    /// Every row of the index that leads to it, the one that keeps an unnamed image included.
    pub(crate) rows: Vec<ImageName>,
    /// The config, verbatim: what `id` is the digest of.
    pub(crate) config_bytes: Vec<u8>,
    /// The config, parsed.
    pub(crate) config: Value,
}

impl StoredImage {
    /// Returns the rows that are names people gave.
    pub(crate) fn named(&self) -> impl Iterator<Item = &ImageName> {
        self.rows.iter().filter(|row| !is_unnamed(&row.name))
    }

    /// Returns the names it has, complete, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.named().map(|row| row.name.as_str())
    }

    /// Returns the first digits of its ID.
    pub(crate) fn short_id(&self) -> String {
        self.id.hex()[..SHORT_ID].to_owned()
    }

    /// Returns a text field of the config; empty where it has none.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.config.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns when it was made, in seconds since the Unix epoch, where its config says so.
    pub(crate) fn created_unix(&self) -> Option<i64> {
        clock::unix_seconds(self.text("created"))
    }

    /// Returns its layers, base first.
    pub(crate) fn layers(&self) -> Result<Vec<DiffId>, Failure> {
        let damaged = || {
            Failure::machine(format!(
                "the config of image {} has no valid list of layers",
                self.id
            ))
        };
        let ids = self
            .config
            .pointer("/rootfs/diff_ids")
            .and_then(Value::as_array)
            .ok_or_else(damaged)?;
        ids.iter()
            .map(|id| id.as_str().and_then(|id| id.parse().ok()).ok_or_else(damaged))
            .collect()
    }

    /// Returns the size of all its layers together.
    pub(crate) fn size_bytes(&self, store: &Store) -> Result<u64, Failure> {
        Ok(self
            .layers()?
            .iter()
            .map(|layer| layer_size_bytes(store, layer))
            .sum())
    }

    /// Returns the names by which a registry knows its manifest: `alpine@sha256:…`.
    pub(crate) fn repo_digests(&self) -> Vec<String> {
        let mut digests: Vec<String> = self
            .named()
            .filter_map(|row| {
                let reference = Reference::parse(&row.name).ok()?;
                Some(format!("{}@{}", reference.familiar_name(), row.manifest?))
            })
            .collect();
        digests.dedup();
        digests
    }
}

/// Opens the store, and says so where its names had to be given up.
pub(crate) fn open_store(root: &Path) -> Result<Store, Failure> {
    open_store_for(root, Purpose::Work)
}

/// Opens the store as [`open_store`] does, also on a full disk if that is what it is for.
pub(crate) fn open_store_for(root: &Path, purpose: Purpose) -> Result<Store, Failure> {
    let store = Store::open_for(root, purpose).map_err(|error| failure::of_store(&error))?;
    if let Some(aside) = store.set_aside() {
        report::warn(&format!(
            "the index of the store was damaged and is kept as {}; image names and cached steps start anew",
            aside.display()
        ));
    }
    // Whoever shows more than lines says it in their own way.
    store.tell_waits(|wait| {
        if let Wait::Begun(line) = wait {
            report::note(line);
        }
    });
    Ok(store)
}

/// Returns the size of a layer's tar. A layer that was not fetched yet, or was pruned, counts nothing.
pub(crate) fn layer_size_bytes(store: &Store, layer: &DiffId) -> u64 {
    store.layers().tar_bytes(layer).unwrap_or(0)
}

/// Returns the files of a stack of layers, base first, all of which must be here.
pub(crate) fn view(store: &Store, layers: &[DiffId]) -> Result<View, Failure> {
    let mut view = View::default();
    for layer in layers {
        if !store.layers().contains(layer) {
            return Err(Failure::build(format!("layer {layer} isn't in the store"))
                .with_help("`ashlar pull` fetches all layers of an image"));
        }
        let file = store
            .layers()
            .get(layer)
            .map_err(|error| Failure::of(Kind::Machine, &error))?;
        view.push(file)
            .map_err(|error| Failure::of(Kind::Machine, &error))?;
    }
    Ok(view)
}

/// Says whether a row of the index only keeps an unnamed image: its name is the image's ID.
fn is_unnamed(name: &str) -> bool {
    name.parse::<Digest>().is_ok()
}

/// Returns the short form of a complete name, as people write it: without the default registry.
pub(crate) fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// Returns all images of the store, by ID.
pub(crate) fn all(store: &Store) -> Result<Vec<StoredImage>, Failure> {
    let rows = store
        .index()
        .images()
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    let mut grouped: BTreeMap<Digest, Vec<ImageName>> = BTreeMap::new();
    for row in rows {
        grouped.entry(row.config).or_default().push(row);
    }
    grouped
        .into_iter()
        .map(|(id, rows)| read(store, id, rows))
        .collect()
}

/// Reads an image, relying on nothing.
fn read(store: &Store, id: Digest, rows: Vec<ImageName>) -> Result<StoredImage, Failure> {
    let damaged = |error: &(dyn std::error::Error + 'static)| {
        Failure::machine(format!("cannot read the config of image {id}"))
            .caused_by(error)
            .with_help(format!(
                "`ashlar rmi --force {}` forgets the image",
                &id.hex()[..SHORT_ID]
            ))
    };
    let config_bytes = store
        .blobs()
        .peek(&id, MAX_CONFIG_BYTES)
        .map_err(|error| damaged(&error))?;
    let config = serde_json::from_slice(&config_bytes).map_err(|error| damaged(&error))?;
    Ok(StoredImage {
        id,
        rows,
        config_bytes,
        config,
    })
}

/// What a word on the command line means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The image.
    pub(crate) id: Digest,
    /// The complete name, where the word was one and not an ID.
    pub(crate) name: Option<String>,
}

/// Finds the image that `word` means: a name (`latest` where it has no tag), a name with a digest, an ID, or the
/// first digits of one. Reads the index only, so that a damaged image can still be named.
pub(crate) fn look_up(store: &Store, word: &str) -> Result<Found, Failure> {
    let missing = || {
        Failure::build(format!("no such image: {word}"))
            .with_help("`ashlar images` lists the images of the store")
    };
    let rows = store
        .index()
        .images()
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    if let Ok(reference) = Reference::parse(word) {
        let by_name = |row: &&ImageName| match reference.digest() {
            Some(digest) => {
                row.manifest == Some(*digest)
                    && Reference::parse(&row.name)
                        .is_ok_and(|known| known.repository() == reference.repository())
            }
            None => {
                row.name
                    == format!(
                        "{}:{}",
                        reference.repository(),
                        reference.tag().unwrap_or("latest")
                    )
            }
        };
        if let Some(row) = rows.iter().find(by_name) {
            return Ok(Found {
                id: row.config,
                name: Some(row.name.clone()),
            });
        }
    }
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    if digits.is_empty()
        || digits.len() > 64
        || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Err(missing());
    }
    let mut ids: Vec<Digest> = rows
        .iter()
        .map(|row| row.config)
        .filter(|id| id.hex().starts_with(digits))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    match ids.as_slice() {
        [id] => Ok(Found { id: *id, name: None }),
        [] => Err(missing()),
        _ => Err(Failure::build(format!(
            "image ID `{word}` is ambiguous: {} images start with it",
            ids.len()
        ))),
    }
}

/// Finds the image that `word` means and reads it.
pub(crate) fn find(store: &Store, word: &str) -> Result<StoredImage, Failure> {
    let found = look_up(store, word)?;
    let rows = rows_of(store, &found.id)?;
    // If it is here it stays; otherwise reading it says so.
    let _is_here = store.blobs().contains(&found.id);
    read(store, found.id, rows)
}

/// Finds the image that `word` means, reads it, and relies on its layers: should its name be given to another image, they stay
/// as long as this process lives.
pub(crate) fn find_to_use(store: &Store, word: &str) -> Result<StoredImage, Failure> {
    relied_on(store, find(store, word)?)
}

/// Does the same for the image as it is for a platform: the image itself, or the variant of it that was made with it. It
/// keeps the names.
pub(crate) fn find_for_platform(
    store: &Store,
    word: &str,
    platform: &Platform,
) -> Result<StoredImage, Failure> {
    let image = find(store, word)?;
    let text = |field| Some(image.text(field)).filter(|text| !text.is_empty());
    let own = text("os").zip(text("architecture"));
    let own = own.map(|(os, architecture)| Platform::new(os, architecture, text("variant")));
    if own.as_ref() == Some(platform) {
        return relied_on(store, image);
    }
    let mut variants = variants(store, word, &image.rows)?;
    let Some(variant) = variants.find(|variant| variant.platform == platform.to_string()) else {
        return Err(Failure::build(format!("{word} has no image for {platform}")));
    };
    relied_on(store, read(store, variant.config, image.rows.clone())?)
}

/// Finds what was made of an image for other platforms, in the order of their names, and relies on it likewise. Each keeps
/// the names.
pub(crate) fn find_variants(store: &Store, word: &str) -> Result<Vec<StoredImage>, Failure> {
    let rows = rows_of(store, &look_up(store, word)?.id)?;
    let mut found: Vec<StoredImage> = Vec::new();
    for variant in variants(store, word, &rows)? {
        // An ID stands for all its names, which may have variants in common.
        if found.iter().all(|known| known.id != variant.config) {
            found.push(relied_on(store, read(store, variant.config, rows.clone())?)?);
        }
    }
    Ok(found)
}

/// Returns the variants that belong to the rows of an image that a word means: one name, or all of an ID.
fn variants<'a>(
    store: &Store,
    word: &str,
    rows: &'a [ImageName],
) -> Result<impl Iterator<Item = &'a Variant> + use<'a>, Failure> {
    let named = look_up(store, word)?.name;
    let is_meant = move |row: &&ImageName| named.as_ref().is_none_or(|name| row.name == *name);
    Ok(rows.iter().filter(is_meant).flat_map(|row| &row.variants))
}

fn relied_on(store: &Store, image: StoredImage) -> Result<StoredImage, Failure> {
    for layer in image.layers()? {
        // What isn't here is told by whoever wants it.
        let _is_here = store.layers().contains(&layer);
    }
    Ok(image)
}

/// Returns the rows of the index that lead to an image, sorted by name.
pub(crate) fn rows_of(store: &Store, id: &Digest) -> Result<Vec<ImageName>, Failure> {
    let rows = store
        .index()
        .images()
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    Ok(rows.into_iter().filter(|row| row.config == *id).collect())
}

/// Stores a config whose layers are in the store, and gives the image its names (canonical). Without names it is kept
/// under its ID. Returns the ID. The manifest that it came with and the configs of its variants are stored already. Without
/// one, a name that stands for this very image keeps the manifest by which a registry knows it.
pub(crate) fn commit(
    store: &Store,
    config: &[u8],
    manifest: Option<Digest>,
    variants: &[Variant],
    names: &[String],
) -> Result<Digest, ImageError> {
    let id = store.blobs().put(config, store.incomplete())?;
    let name = |name: &str| {
        let known = store.index().image(name)?;
        let known = known.filter(|known| known.config == id && known.variants == variants);
        if known.is_some_and(|known| manifest.is_none_or(|manifest| known.manifest == Some(manifest))) {
            // So that building again what is there writes nothing.
            return Ok(());
        }
        store.index().put_image(&ImageName {
            name: name.to_owned(),
            config: id,
            manifest,
            variants: variants.to_vec(),
            created_unix: clock::now_unix(),
        })
    };
    if names.is_empty() {
        name(&id.to_string())?;
    }
    names.iter().try_for_each(|text| name(text))?;
    Ok(id)
}

/// Remembers by which manifest the registries know an image that was pushed under `names`. Those of them that don't stand
/// for it here stay as they are.
pub(crate) fn remember_pushed(
    store: &Store,
    names: &[String],
    id: Digest,
    manifest: &[u8],
) -> Result<(), ImageError> {
    let digest = store.blobs().put(manifest, store.incomplete())?;
    for name in names {
        let known = store.index().image(name)?;
        if let Some(row) = known.filter(|row| row.config == id && row.manifest != Some(digest)) {
            store.index().put_image(&ImageName {
                manifest: Some(digest),
                ..row
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_to_be_used_stays_though_its_name_is_given_away() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let maker = Store::open(&root).unwrap();
        let written = maker.layers().write(maker.incomplete(), |writer| {
            writer.finish().map_err(cache::layers::LayersError::from)
        });
        let layer = written.unwrap().diff_id();
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{layer}"]}}}}"#);
        let name = "docker.io/library/app:1".to_owned();
        commit(&maker, config.as_bytes(), None, &[], std::slice::from_ref(&name)).unwrap();
        drop(maker);
        let (user, collector) = (Store::open(&root).unwrap(), Store::open(&root).unwrap());
        let prune = || {
            collector.index().remove_image(&name).unwrap();
            let none = cache::gc::Pins::default;
            let units = collector.units(&none()).unwrap();
            let mut pins = || Ok::<_, cache::StoreError>(none());
            collector.remove_units(units, (0, "test"), &mut pins).unwrap();
            collector.layers().path(&layer).is_file()
        };
        find_to_use(&user, "app:1").unwrap();
        assert!(prune());
        drop(user);
        assert!(!prune());
    }

    #[test]
    fn an_image_that_has_its_name_already_is_not_named_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let name = "docker.io/library/app:1".to_owned();
        let named_unix = || store.index().image(&name).unwrap().unwrap().created_unix;
        let id = commit(&store, b"{}", None, &[], std::slice::from_ref(&name)).unwrap();
        store
            .index()
            .put_image(&ImageName {
                name: name.clone(),
                config: id,
                manifest: None,
                variants: Vec::new(),
                created_unix: 5,
            })
            .unwrap();
        commit(&store, b"{}", None, &[], std::slice::from_ref(&name)).unwrap();
        assert_eq!(named_unix(), 5, "nothing changed, nothing was written");
        let other = commit(&store, b"{ }", None, &[], std::slice::from_ref(&name)).unwrap();
        assert!(named_unix() > 5);
        assert_eq!(store.index().image(&name).unwrap().unwrap().config, other);
        commit(&store, b"{ }", Some(id), &[], std::slice::from_ref(&name)).unwrap();
        assert_eq!(store.index().image(&name).unwrap().unwrap().manifest, Some(id));
    }
}
