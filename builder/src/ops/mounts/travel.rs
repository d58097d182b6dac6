//! Cache mounts of other machines: their content as a layer, which a cache of the build carries.
//!
//! Elsewhere a project has another place: what travels has its id, and its namespace if one was named. It is the project's
//! again where it arrives.
//!
//! What is in a cache mount is nobody's promise, and is not part of any key: content that can't be had, or is in use, is left
//! behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use cache::layer::{LayerFile, PackOptions};
use cache::mounts::{About, Identity};
use cache::{DiffId, Store};
use solver::op::{Exec, Mount};

use super::caches;
use crate::ops::{OpError, Worker, unpacked};

/// Fetches what caches of the build have for cache mounts that aren't here yet, or have nothing in them. Without it they
/// begin as they would otherwise, which is no reason to fail.
pub(super) async fn seeds(worker: &Worker, op: &Exec) -> BTreeMap<Identity, Arc<LayerFile>> {
    let mut seeds = BTreeMap::new();
    for mount in &op.mounts {
        let Mount::Cache(cache) = mount else { continue };
        let about = caches::about(cache, &worker.cache_scope);
        let Some(layer) = worker.seeds.get(&about.anywhere().identity()) else {
            continue;
        };
        let mounts = worker.store.mounts();
        let is_here = mounts.contains(&about);
        if is_here && !mounts.is_empty(&about) {
            continue;
        }
        let fetched = worker.ensure(&[*layer]).await;
        let content = fetched.and_then(|()| {
            if is_here {
                mounts.discard_empty(&about, worker.store.incomplete())?;
            }
            Ok(worker.store.layers().get(layer)?)
        });
        match content {
            Ok(layer) => {
                seeds.insert(about.identity(), layer);
            }
            Err(error) => worker
                .events
                .warn(format!("cannot restore the cache mount `{}`: {error}", about.id)),
        }
    }
    seeds
}

/// Makes a layer of what is in a cache mount; `None` where there is none, or somebody uses it. Blocks.
pub(crate) fn pack_mount(store: &Store, about: &About) -> Result<Option<DiffId>, OpError> {
    let Some(held) = store.mounts().hold(about)? else {
        return Ok(None);
    };
    let data = File::open(held.data()).map_err(|source| OpError::Read {
        path: held.data().to_owned(),
        source,
    })?;
    let layer = store.layers().write(store.incomplete(), |writer| {
        let options = PackOptions {
            marks: unpacked::marks(),
            ..PackOptions::default()
        };
        Ok::<_, OpError>(cache::layer::pack(data.as_fd(), writer, &options, &|_| false)?)
    })?;
    Ok(Some(layer.diff_id()))
}
