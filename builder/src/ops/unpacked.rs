//! The way without EROFS: each layer unpacked once into a directory of the store, when a container first needs it.
//!
//! A layer that can't stand alone depends on those below it, so its directory is named by the whole stack.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use cache::layer::unpack::{OverlayXattr, Owners, UnpackOptions, unpack};
use cache::layer::{Entry, LayerFile, TreePath};
use cache::root::Root;
use cache::tree::View;
use cache::{ChainId, DiffId, Store};

use super::OpError;
use crate::sandbox::{Lower, Namespace};

/// Returns the lowers for a stack of layers, top first. `layers` base first.
pub(super) fn stack(store: &Store, layers: &[Arc<LayerFile>]) -> Result<Vec<Arc<Lower>>, OpError> {
    let view = View::of_layers(layers.iter().cloned())?;
    let mut chain: Vec<DiffId> = Vec::new();
    let mut below: Vec<Root> = Vec::new();
    let mut lowers = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        chain.push(layer.diff_id());
        let name = match layer.stands_alone() {
            true => layer.diff_id().hex(),
            false => format!(
                "chain-{}",
                ChainId::of_stack(&chain).expect("it has a layer").hex()
            ),
        };
        // Owners and marks on disk are those of the user namespace in which they were made.
        let name = match Namespace::current().tag() {
            Some(tag) => format!("in-{tag}-{name}"),
            None => name,
        };
        let dir = store.root().join("unpacked").join(&name);
        store.lease_unpacked(&name);
        if !dir.is_dir() {
            // As they stand in the stack: below where lower layers' links lead.
            let entries = view.layer_entries(at).expect("the view has every layer");
            make(store, (layer.diff_id(), entries), &below, (&name, &dir))?;
        }
        let opened = File::open(&dir).map_err(|source| OpError::Read {
            path: dir.clone(),
            source,
        })?;
        lowers.push(Arc::new(Lower::unpacked(opened.as_fd())?));
        below.push(Root::open_host(&dir).map_err(cache::tree::Error::from)?);
    }
    lowers.reverse();
    Ok(lowers)
}

/// Returns the kind of marks that overlays of this process have.
pub(super) fn marks() -> OverlayXattr {
    match Namespace::current().is_initial() {
        true => OverlayXattr::Trusted,
        false => OverlayXattr::User,
    }
}

/// Unpacks a layer beside its place and moves it there whole, unless another process was faster.
fn make(
    store: &Store,
    (layer, (entries, file)): (DiffId, (&[Entry], &File)),
    below: &[Root],
    (name, dir): (&str, &Path),
) -> Result<(), OpError> {
    let _held = store.lock_for(&format!("unpack-{name}"), &format!("unpacks layer {layer}"))?;
    if dir.is_dir() {
        return Ok(());
    }
    let namespace = Namespace::current();
    for entry in entries {
        let what = || format!("{} of the image", entry.path);
        namespace.require(what, entry.meta.uid, entry.meta.gid)?;
    }
    let scratch = |source| OpError::Scratch { source };
    let path = store.incomplete().path().map_err(scratch)?;
    std::fs::DirBuilder::new()
        .mode(0o755)
        .create(&path)
        .map_err(scratch)?;
    let root = Root::open_host(&path).map_err(cache::tree::Error::from)?;
    // The newest layer that has the path counts, also when it has it only to say that it is gone.
    let find = |wanted: &TreePath| {
        let newest = below.iter().rev().find(|root| root.stat(wanted).is_ok())?;
        Some((newest.clone(), wanted.clone()))
    };
    let options = UnpackOptions {
        overlay: marks(),
        owners: Owners::Keep,
        below: &find,
    };
    unpack(entries, file, &root, &options)?;
    let made = File::open(&path).map_err(scratch)?;
    // One sync for all files: a power cut must not leave empty ones behind a finished name.
    rustix::fs::syncfs(&made).map_err(|error| scratch(error.into()))?;
    std::fs::rename(&path, dir).map_err(scratch)
}
