//! What a container stands on: the layers of a stack as mounted EROFS files, as one merged EROFS, or unpacked where
//! EROFS can't be mounted. Found out once per process by mounting a tiny image; `ASHLAR_LOWERS=unpacked` says it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::layer::{LayerFile, write_merged};
use cache::{ChainId, DiffId, Store};

use super::mounts::Parts;
use super::{OpError, unpacked};
use crate::sandbox::{self, Helper, Lower};

/// Above this many layers one merged image is cheaper than a mount for each, and overlayfs takes only 500.
const MERGE_ABOVE: usize = 100;

/// The lower layers of one process's containers, each mounted once.
pub(crate) struct Lowers {
    store: Arc<Store>,
    state: Mutex<State>,
    parts: Parts,
}

#[derive(Default)]
struct State {
    can_mount: Option<bool>,
    helper: Option<Arc<Helper>>,
    layers: HashMap<DiffId, Arc<Lower>>,
    merged: HashMap<ChainId, Arc<Lower>>,
}

impl Lowers {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            state: Mutex::default(),
            parts: Parts::default(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the parts of contexts that are mounted.
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sandbox's program; loaded when first needed.
    pub(crate) fn helper(&self) -> Result<Arc<Helper>, OpError> {
        let mut state = self.state();
        if let Some(helper) = &state.helper {
            return Ok(Arc::clone(helper));
        }
        let helper = Arc::new(Helper::load()?);
        state.helper = Some(Arc::clone(&helper));
        Ok(helper)
    }

    /// Makes an empty directory in the scratch space, which goes with this process.
    pub(crate) fn scratch_dir(&self) -> Result<File, OpError> {
        let make = || {
            let path = self.store.incomplete().path()?;
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            File::open(path)
        };
        make().map_err(|source| OpError::Scratch { source })
    }

    /// Returns the lowers for a stack, top first. `layers` base first.
    pub(crate) fn stack(&self, layers: &[DiffId]) -> Result<Vec<Arc<Lower>>, OpError> {
        let layers = self.worth_mounting(layers)?;
        if !self.can_mount()? {
            return unpacked::stack(&self.store, &layers);
        }
        let stand_alone = layers.iter().all(|layer| layer.stands_alone());
        if stand_alone && layers.len() <= MERGE_ABOVE {
            return layers.iter().rev().map(|layer| self.mount(layer)).collect();
        }
        Ok(vec![self.merge(&layers)?])
    }

    /// Opens the layers, leaving out empty ones and those that are there again further up: what a layer says is said
    /// by its upper twin, and overlayfs refuses the same directory twice.
    fn worth_mounting(&self, layers: &[DiffId]) -> Result<Vec<Arc<LayerFile>>, OpError> {
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        for id in layers.iter().rev() {
            let layer = self.store.layers().get(id)?;
            if seen.insert(*id) && layer.index()?.iter().any(|entry| !entry.path.is_root()) {
                kept.push(layer);
            }
        }
        kept.reverse();
        Ok(kept)
    }

    /// Says whether layer files can be mounted here.
    pub(super) fn can_mount(&self) -> Result<bool, OpError> {
        let mut state = self.state();
        if let Some(known) = state.can_mount {
            return Ok(known);
        }
        let known = if std::env::var_os("ASHLAR_LOWERS").is_some_and(|way| way == "unpacked") {
            false
        } else {
            let (mut file, path) = self
                .store
                .incomplete()
                .file()
                .map_err(|source| OpError::Scratch { source })?;
            file.write_all(&sandbox::tiny_image())
                .map_err(|source| OpError::Scratch { source })?;
            let known = sandbox::can_mount(&file)?;
            // The next sweep would take it too.
            let _ = std::fs::remove_file(path);
            known
        };
        state.can_mount = Some(known);
        Ok(known)
    }

    fn mount(&self, layer: &LayerFile) -> Result<Arc<Lower>, OpError> {
        let mut state = self.state();
        if let Some(lower) = state.layers.get(&layer.diff_id()) {
            return Ok(Arc::clone(lower));
        }
        // The kernel shows whatever it says.
        layer.check_metadata()?;
        let lower = Arc::new(Lower::mount(layer.file(), &[])?);
        state.layers.insert(layer.diff_id(), Arc::clone(&lower));
        Ok(lower)
    }

    /// Mounts one image for the whole stack, whose data lies in the layer files.
    fn merge(&self, layers: &[Arc<LayerFile>]) -> Result<Arc<Lower>, OpError> {
        let ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id()).collect();
        let chain = ChainId::of_stack(&ids).expect("an empty stack is not merged");
        let mut state = self.state();
        if let Some(lower) = state.merged.get(&chain) {
            return Ok(Arc::clone(lower));
        }
        let (file, path) = self
            .store
            .incomplete()
            .file()
            .map_err(|source| OpError::Scratch { source })?;
        let parts: Vec<&LayerFile> = layers.iter().map(AsRef::as_ref).collect();
        write_merged(&parts, &file)?;
        let devices: Vec<&File> = layers.iter().map(|layer| layer.file()).collect();
        let lower = Arc::new(Lower::mount(&file, &devices)?);
        // The mount keeps the file.
        let _ = std::fs::remove_file(path);
        state.merged.insert(chain, Arc::clone(&lower));
        Ok(lower)
    }
}
