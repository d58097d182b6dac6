//! The solver's memory: the store's index, and behind it the caches that the build was given. A record counts only while
//! every layer of it is here, or can be fetched: because it is a base image's, or because a cache has it.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use cache::tree::Selection;
use cache::{DiffId, Key, Record, Store, TreeHash};
use solver::{Index, IndexError};

use crate::caches::Imports;

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

    fn current(&self, key: &Key) -> Result<Option<Current>, IndexError> {
        let is_usable = |record: &Record| {
            record.layers.iter().all(|layer| {
                self.bases.contains(layer)
                    || self.store.layers().contains(layer)
                    || self.imports.contains(layer)
            })
        };
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

    fn lock(&self, key: &Key) -> Result<Box<dyn Any + Send>, IndexError> {
        Ok(Box::new(self.store.lock(&key.hex()).map_err(wrap)?))
    }
}
