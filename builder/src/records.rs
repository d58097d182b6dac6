//! The solver's memory, kept in the store's index. A record counts only while every layer of it is here, or can be
//! fetched again because it is a base image's.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use cache::tree::Selection;
use cache::{DiffId, Key, Record, Store, TreeHash};
use solver::{Index, IndexError};

/// The index as the solver wants it.
pub(crate) struct Records {
    store: Arc<Store>,
    /// Layers of the resolved base images: their files may still be missing.
    fetchable: HashSet<DiffId>,
}

impl Records {
    pub(crate) fn new(store: Arc<Store>, fetchable: HashSet<DiffId>) -> Self {
        Self { store, fetchable }
    }
}

/// Wraps the store's errors.
fn wrap(error: impl std::error::Error + Send + Sync + 'static) -> IndexError {
    IndexError(Box::new(error))
}

impl Index for Records {
    fn record(&self, key: &Key) -> Result<Option<Record>, IndexError> {
        let record = self.store.index().record(key).map_err(wrap)?;
        let usable = |layer: &DiffId| self.fetchable.contains(layer) || self.store.layers().contains(layer);
        Ok(record.filter(|record| record.layers.iter().all(usable)))
    }

    fn put(&self, record: &Record) -> Result<(), IndexError> {
        self.store.index().put_record(record).map_err(wrap)
    }

    fn tree_hash(&self, of: &Key, selection: &Selection) -> Result<Option<TreeHash>, IndexError> {
        self.store.index().tree_hash(of, selection).map_err(wrap)
    }

    fn put_tree_hash(&self, of: &Key, selection: &Selection, hash: &TreeHash) -> Result<(), IndexError> {
        self.store
            .index()
            .put_tree_hash(of, selection, hash)
            .map_err(wrap)
    }

    fn latest(&self, step: &str) -> Result<Option<Record>, IndexError> {
        self.store.index().latest(step).map_err(wrap)
    }

    fn lock(&self, key: &Key) -> Result<Box<dyn Any + Send>, IndexError> {
        Ok(Box::new(self.store.lock(&key.hex()).map_err(wrap)?))
    }
}
