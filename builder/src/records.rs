//! The solver's memory: the store's index, and behind it the caches that the build was given. A record counts only while
//! every layer of it is here, or can be fetched: because it is a base image's, or because a cache has it.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use cache::index::Evicted;
use cache::lock::Attempt;
use cache::tree::Selection;
use cache::{DiffId, Key, Record, Store, TreeHash};
use solver::{Index, IndexError};

use crate::caches::Imports;
use crate::clock;

/// The index as the solver wants it.
pub(crate) struct Records {
    store: Arc<Store>,
    /// Layers of the resolved base images: their files may still be missing.
    bases: HashSet<DiffId>,
    imports: Arc<Imports>,
}

/// The record that stands for a key.
struct Current {
    record: Record,
    /// What the index of the store has for the key; perhaps another result, whose layers are gone.
    local: Option<Record>,
    is_local: bool,
}

impl Records {
    pub(crate) fn new(store: Arc<Store>, bases: HashSet<DiffId>, imports: Arc<Imports>) -> Self {
        Self {
            store,
            bases,
            imports,
        }
    }

    /// Returns the layers of the base images.
    pub(crate) fn bases(&self) -> &HashSet<DiffId> {
        &self.bases
    }

    /// Returns the caches that the build was given.
    pub(crate) fn imports(&self) -> &Imports {
        &self.imports
    }

    /// Returns the usable record of a key, wherever it is, and changes nothing.
    pub(crate) fn peek(&self, key: &Key) -> Result<Option<Record>, IndexError> {
        Ok(self.current(key)?.map(|current| current.record))
    }

    /// Says whether a layer is here, or can be fetched.
    fn has(&self, layer: &DiffId) -> bool {
        self.bases.contains(layer) || self.store.layers().contains(layer) || self.imports.contains(layer)
    }

    fn current(&self, key: &Key) -> Result<Option<Current>, IndexError> {
        let is_usable = |record: &Record| record.layers.iter().all(|layer| self.has(layer));
        let local = self.store.index().record(key).map_err(wrap)?;
        if let Some(record) = local.clone().filter(|record| is_usable(record)) {
            return Ok(Some(Current {
                record,
                local,
                is_local: true,
            }));
        }
        let record = self.imports.records(key).find(is_usable);
        Ok(record.map(|record| Current {
            record,
            local,
            is_local: false,
        }))
    }
}

/// Wraps the store's errors.
fn wrap(error: impl std::error::Error + Send + Sync + 'static) -> IndexError {
    IndexError(Box::new(error))
}

impl Index for Records {
    /// A record of a cache is taken over: from then on the store's index knows which result its tree hashes belong to.
    fn record(&self, key: &Key) -> Result<Option<Record>, IndexError> {
        let Some(current) = self.current(key)? else {
            return Ok(None);
        };
        if !current.is_local {
            self.put(&current.record)?;
        }
        Ok(Some(current.record))
    }

    fn put(&self, record: &Record) -> Result<(), IndexError> {
        self.store.index().put_record(record).map_err(wrap)
    }

    fn tree_hash(&self, of: &Key, selection: &Selection) -> Result<Option<TreeHash>, IndexError> {
        let current = self.current(of)?;
        let result = current.as_ref().map(|current| &current.record.layers[..]);
        // A step that isn't reproducible may have another result here than in a cache: one's hashes don't hold for the
        // other.
        let is_of_local = match (&current, result) {
            (
                Some(Current {
                    local: Some(local), ..
                }),
                Some(result),
            ) => local.layers == result,
            (Some(Current { local: None, .. }), _) => false,
            _ => true,
        };
        if is_of_local && let Some(hash) = self.store.index().tree_hash(of, selection).map_err(wrap)? {
            return Ok(Some(hash));
        }
        Ok(self.imports.tree_hash(of, selection, result))
    }

    fn put_tree_hash(&self, of: &Key, selection: &Selection, hash: &TreeHash) -> Result<(), IndexError> {
        self.store
            .index()
            .put_tree_hash(of, selection, hash)
            .map_err(wrap)
    }

    fn latest(&self, step: &str) -> Result<Option<Record>, IndexError> {
        let local = self.store.index().latest(step).map_err(wrap)?;
        Ok(local.or_else(|| self.imports.latest(step)))
    }

    /// Of several layers that are gone, the last that went tells.
    fn removed(&self, key: &Key) -> Result<Option<String>, IndexError> {
        let Some(record) = self.store.index().record(key).map_err(wrap)? else {
            return Ok(None);
        };
        let mut last = None;
        for layer in record.layers.iter().filter(|layer| !self.has(layer)) {
            // Only to be told: a damaged row is no reason to fail.
            last = last.max(self.store.index().evicted(layer).unwrap_or_default());
        }
        // One from before the step ran last is no answer: something else has happened since. (A second is as exact as it gets.)
        let last = last.filter(|last| last.at_unix >= record.created_unix_ms / 1000);
        Ok(last.map(|Evicted { at_unix, because }| {
            format!("evicted by {because} at {}", clock::rfc3339(at_unix))
        }))
    }

    fn lock(&self, key: &Key, told: &mut dyn FnMut(&str)) -> Result<Box<dyn Any + Send>, IndexError> {
        let name = key.hex();
        let held = match self.store.try_lock(&name).map_err(wrap)? {
            Attempt::Held(held) => held,
            Attempt::Busy(user) => {
                told(if user.is_empty() { "another process" } else { &user });
                self.store.lock(&name).map_err(wrap)?
            }
        };
        Ok(Box::new(held))
    }
}

#[cfg(test)]
mod tests {
    use cache::Digest;

    use super::*;
    use crate::caches::{BlobEntry, CacheDocument, HashEntry, LayerEntry};

    fn key(text: &str) -> Key {
        blake3::hash(text.as_bytes()).into()
    }

    fn hash(text: &str) -> TreeHash {
        blake3::hash(text.as_bytes()).into()
    }

    fn record(layer: DiffId) -> Record {
        Record {
            key: key("step"),
            layers: vec![layer],
            components: Vec::new(),
            step: "step".to_owned(),
            created_unix_ms: 1,
            took_ms: 1,
        }
    }

    /// Writes a layer into the store.
    fn layer(store: &Store) -> DiffId {
        let written = store.layers().write(store.incomplete(), |writer| {
            writer.finish().map_err(cache::layers::LayersError::from)
        });
        written.unwrap().diff_id()
    }

    /// A cache with one step, its layer, and the hash of what is in it.
    fn imports(layer: DiffId) -> Arc<Imports> {
        let entry = LayerEntry {
            diff_id: layer,
            blob: Some(BlobEntry {
                media_type: String::new(),
                digest: Digest::of(b"blob"),
                size: 4,
            }),
            made: None,
        };
        let known = HashEntry {
            key: key("step"),
            selection: Selection::everything(),
            hash: hash("of the cache"),
        };
        let document = CacheDocument::new(vec![entry], &[record(layer)], vec![known], Vec::new());
        Arc::new(Imports::of(vec![document]))
    }

    /// A step that isn't reproducible has one result here and another in a cache.
    #[test]
    fn hashes_of_one_result_never_stand_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let (here, there) = (layer(&store), DiffId::of(b"there"));
        let records = Records::new(Arc::clone(&store), HashSet::new(), imports(there));
        let everything = Selection::everything();
        let tree_hash = || records.tree_hash(&key("step"), &everything).unwrap();

        records.put(&record(here)).unwrap();
        assert_eq!(records.record(&key("step")).unwrap(), Some(record(here)));
        assert_eq!(tree_hash(), None, "what the cache knows is of its own result");
        records
            .put_tree_hash(&key("step"), &everything, &hash("of the store"))
            .unwrap();
        assert_eq!(tree_hash(), Some(hash("of the store")));

        // Without its layer the store's record is worth nothing, and neither is what is known of its tree.
        std::fs::remove_file(store.layers().path(&here)).unwrap();
        assert_eq!(tree_hash(), Some(hash("of the cache")));
        assert_eq!(records.record(&key("step")).unwrap(), Some(record(there)));
        assert_eq!(tree_hash(), Some(hash("of the cache")));
        assert_eq!(store.index().tree_hash(&key("step"), &everything).unwrap(), None);
    }

    #[test]
    fn a_record_counts_only_where_its_layers_can_be_had() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let there = DiffId::of(b"there");
        let check = |bases: &[DiffId], imports: Arc<Imports>, is_found: bool| {
            let records = Records::new(Arc::clone(&store), bases.iter().copied().collect(), imports);
            assert_eq!(records.peek(&key("step")).unwrap().is_some(), is_found);
        };
        check(&[], Arc::default(), false);
        check(&[], imports(there), true);
        store.index().put_record(&record(there)).unwrap();
        check(&[], Arc::default(), false);
        check(&[there], Arc::default(), true);
        check(&[], imports(there), true);
    }

    #[test]
    fn who_evicted_a_result_is_told_if_it_was_this_result() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let records = Records::new(Arc::clone(&store), HashSet::new(), Arc::default());
        let gone = DiffId::of(b"gone");
        store.index().put_evicted(&[gone], 50, "prune").unwrap();
        let check = |created_unix_ms: i64, expected: Option<&str>| {
            let built = Record {
                created_unix_ms,
                ..record(gone)
            };
            store.index().put_record(&built).unwrap();
            let told = records.removed(&key("step")).unwrap();
            assert_eq!(told.as_deref(), expected, "{created_unix_ms}");
        };
        check(49_000, Some("evicted by prune at 1970-01-01T00:00:50Z"));
        check(50_900, Some("evicted by prune at 1970-01-01T00:00:50Z"));
        // Built again since: what took it away this time is not known.
        check(51_000, None);
    }
}
