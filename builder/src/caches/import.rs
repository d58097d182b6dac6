//! Reads caches: manifests and configs, no layers. All that are asked for at once; one that can't be read is a warning.
//!
//! Every document is checked by its digest, every layer when it is fetched: blob, size, and the tar's own hash. What a
//! record claims can't be checked without running its step: whoever may write a cache may decide what its builds become.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use cache::mounts::Identity;
use cache::tree::Selection;
use cache::{DiffId, Digest, Key, Record, TreeHash};
use futures_util::future::join_all;
use solver::{Event, Events, Subject};

use super::document::{BlobEntry, CacheDocument, LayerEntry, config_of};
use super::shelf::{Kind, Shelf};
use super::sign::Verifier;
use super::spec::CacheFrom;
use super::{CacheError, inline};
use crate::registry::{
    Descriptor, Document, LayerSource, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Origin, Resolved, pair, parse,
};

/// Images of one index that are looked at.
const MAX_IMAGES: usize = 64;

/// What could be read of the caches that a build was given, in their order.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    all: Vec<Imported>,
}

/// One cache.
#[derive(Debug)]
struct Imported {
    document: CacheDocument,
    records: HashMap<Key, usize>,
    /// The newest record of each step.
    steps: HashMap<String, usize>,
    hashes: HashMap<(Key, Selection), TreeHash>,
    layers: HashMap<DiffId, usize>,
    /// The content of its cache mounts is wanted.
    has_mounts: bool,
    /// Where its layers come from, as if it were an image of all of them.
    source: Arc<Resolved>,
}

/// Reads all caches. Never fails: without them a build is slower, not wrong.
pub(crate) async fn import(caches: &[CacheFrom], events: &Events) -> Imports {
    let reading = caches.iter().map(|from| async move {
        let title = from.title();
        let subject = Subject::internal(&format!("importing cache manifest from {title}"));
        events.send(Event::Started {
            subject: subject.clone(),
            why: None,
        });
        let begun = Instant::now();
        let read = read(from).await;
        let took = begun.elapsed();
        events.send(Event::Finished { subject, took });
        let read = read.unwrap_or_else(|error| vec![Err(error)]);
        let read = read.into_iter().filter_map(|one| match one {
            Ok(one) => Some(Imported {
                has_mounts: from.mounts,
                ..one
            }),
            Err(error) => {
                events.warn(format!("failed to import a cache: {error}"));
                None
            }
        });
        read.collect::<Vec<_>>()
    });
    Imports {
        all: join_all(reading).await.into_iter().flatten().collect(),
    }
}

/// Reads what is at one place: several caches where it has some for branches or platforms, of which each may fail.
async fn read(from: &CacheFrom) -> Result<Vec<Result<Imported, CacheError>>, CacheError> {
    let verifier = from.verify.as_deref().map(Verifier::read).transpose()?;
    let title = from.title();
    let shelf = Shelf::of(&from.source)?;
    let mut all = Vec::new();
    for named in shelf.named(&from.source, &title).await? {
        let entries = match parse(&named, None) {
            Ok(Document::Index(entries)) => entries,
            // Or it is nothing at all, which is found out then.
            _ => {
                all.push(read_one(&shelf, &named, &title, verifier.as_ref()).await);
                continue;
            }
        };
        // The images of several platforms, each with its own cache; what else is there is none.
        for (entry, _) in entries.into_iter().take(MAX_IMAGES) {
            let read = shelf.read(Kind::Manifest, &entry.digest, MAX_MANIFEST_BYTES);
            match read.await {
                Ok(manifest) if inline::find(&manifest).is_some() => {
                    all.push(read_one(&shelf, &manifest, &title, verifier.as_ref()).await);
                }
                Ok(_) => {}
                Err(error) => all.push(Err(error)),
            }
        }
    }
    match all.is_empty() {
        true => Err(malformed(
            "the index",
            &title,
            "no image in it has a cache".to_owned(),
        )),
        false => Ok(all),
    }
}

/// Reads the cache that a manifest is of, or that is part of its image.
async fn read_one(
    shelf: &Shelf,
    manifest: &[u8],
    title: &str,
    verifier: Option<&Verifier>,
) -> Result<Imported, CacheError> {
    let Some(text) = inline::find(manifest) else {
        let config = accepted(manifest, title, verifier)?;
        let bytes = shelf.read(Kind::Blob, &config.digest, config.size_bytes).await?;
        let document = CacheDocument::parse(&bytes).map_err(|why| malformed("the config", title, why))?;
        return Ok(Imported::new(document, title, shelf.origin()));
    };
    if verifier.is_some() {
        return Err(CacheError::NotSigned {
            title: title.to_owned(),
        });
    }
    let image = match parse(manifest, None) {
        Ok(Document::Manifest(image)) => image,
        Ok(Document::Index(_)) => return Err(malformed("the manifest", title, "it is an index".to_owned())),
        Err(why) => return Err(malformed("the manifest", title, why)),
    };
    let config = shelf
        .read(Kind::Blob, &image.config.digest, MAX_CONFIG_BYTES)
        .await?;
    let layers = pair(title, &image, &config)?;
    let document = inline::parse(&text, &layers).map_err(|why| malformed("the inline cache", title, why))?;
    Ok(Imported::new(document, title, shelf.origin()))
}

fn malformed(what: &'static str, title: &str, why: String) -> CacheError {
    CacheError::Malformed {
        what,
        title: title.to_owned(),
        why,
    }
}

/// Finds the config in a manifest, which must be signed where a key is given.
fn accepted(manifest: &[u8], title: &str, verifier: Option<&Verifier>) -> Result<Descriptor, CacheError> {
    let (config, signature) = config_of(manifest).map_err(|why| malformed("the manifest", title, why))?;
    match verifier {
        Some(verifier) if !verifier.accepts(&config.digest, signature.as_deref()) => {
            Err(CacheError::NotSigned {
                title: title.to_owned(),
            })
        }
        _ => Ok(config),
    }
}

impl Imported {
    fn new(document: CacheDocument, title: &str, origin: Origin) -> Self {
        let (records, steps) = document.places();
        let hashes = document.tree_hashes.iter();
        let hashes = hashes.map(|entry| ((entry.key, entry.selection.clone()), entry.hash));
        let fetchable = document.layers.iter().filter_map(|layer| {
            Some(LayerSource {
                diff_id: layer.diff_id,
                blob: Some(layer.blob.as_ref()?.descriptor()),
                made_unix: layer.made,
            })
        });
        let layers = document.layers.iter().enumerate();
        let layers = layers.filter(|(_, layer)| layer.blob.is_some());
        Self {
            records,
            steps,
            hashes: hashes.collect(),
            layers: layers.map(|(place, layer)| (layer.diff_id, place)).collect(),
            has_mounts: false,
            source: Arc::new(Resolved {
                reference: title.to_owned(),
                manifest: None,
                config: Vec::new(),
                layers: fetchable.collect(),
                origin,
            }),
            document,
        }
    }

    fn layer(&self, layer: &DiffId) -> Option<&LayerEntry> {
        self.layers.get(layer).map(|place| &self.document.layers[*place])
    }
}

impl Imports {
    /// Takes documents as they are, for tests.
    #[cfg(test)]
    pub(crate) fn of(documents: Vec<CacheDocument>) -> Self {
        let import = |document| Imported::new(document, "test", Origin::Local);
        Self {
            all: documents.into_iter().map(import).collect(),
        }
    }

    /// Returns what the caches recorded for a key, in their order.
    pub(crate) fn records(&self, key: &Key) -> impl Iterator<Item = Record> {
        self.all.iter().filter_map(|one| {
            let place = one.records.get(key)?;
            Some(one.document.record(*place))
        })
    }

    /// Returns the newest record of a step in the first cache that knows it.
    pub(crate) fn latest(&self, step: &str) -> Option<Record> {
        self.all.iter().find_map(|one| {
            let place = one.steps.get(step)?;
            Some(one.document.record(*place))
        })
    }

    /// Returns the hash of a part of a result, from the first cache that knows it. With `result`, from one whose record of
    /// the key has these layers.
    pub(crate) fn tree_hash(
        &self,
        of: &Key,
        selection: &Selection,
        result: Option<&[DiffId]>,
    ) -> Option<TreeHash> {
        let wanted = (*of, selection.clone());
        self.all.iter().find_map(|one| {
            let hash = one.hashes.get(&wanted)?;
            let fits = match (result, one.records.get(of)) {
                (None, _) => true,
                (Some(layers), Some(place)) => one.document.record(*place).layers == layers,
                (Some(_), None) => false,
            };
            fits.then_some(*hash)
        })
    }

    /// Says whether a layer can be fetched.
    pub(crate) fn contains(&self, layer: &DiffId) -> bool {
        self.all.iter().any(|one| one.layers.contains_key(layer))
    }

    /// Returns when a layer was made.
    pub(crate) fn made_unix(&self, layer: &DiffId) -> Option<i64> {
        self.all.iter().find_map(|one| one.layer(layer)?.made)
    }

    /// Returns the blob of a layer.
    pub(super) fn blob(&self, layer: &DiffId) -> Option<&BlobEntry> {
        self.all.iter().find_map(|one| one.layer(layer)?.blob.as_ref())
    }

    /// Says whether a cache of this repository, or of this place of objects, lists a blob: then it is there.
    pub(super) fn lists(&self, blob: &Digest, place: &str) -> bool {
        let is_there = |one: &&Imported| match &one.source.origin {
            Origin::Registry(session) => session.reference().repository() == place,
            Origin::Objects(objects) => objects.place() == place,
            Origin::Local | Origin::OciLayout(_) => false,
        };
        let mut layers = self
            .all
            .iter()
            .filter(is_there)
            .flat_map(|one| &one.document.layers);
        layers.any(|layer| layer.blob.as_ref().is_some_and(|known| known.digest == *blob))
    }

    /// Returns the layers that new cache mounts begin with; of several, those of the first cache.
    pub(crate) fn seeds(&self) -> BTreeMap<Identity, DiffId> {
        let mut seeds = BTreeMap::new();
        for one in self.all.iter().filter(|one| one.has_mounts) {
            for mount in &one.document.mounts {
                let layer = one.document.layers[mount.layer as usize].diff_id;
                seeds.entry(mount.about.identity()).or_insert(layer);
            }
        }
        seeds
    }

    /// Returns where layers can be fetched from.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Arc<Resolved>> {
        self.all.iter().map(|one| Arc::clone(&one.source))
    }
}
