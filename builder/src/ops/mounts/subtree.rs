//! One directory or file of a tree as a layer of its own, in scratch space: to be mounted, or to be unpacked.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd as _;

use cache::layer::unpack::{OverlayXattr, Owners, UnpackOptions, unpack};
use cache::layer::{LayerFile, LayerWriter, TreePath};
use cache::root::Root;
use cache::tree::{Inode, Node, View};

use crate::ops::draft::{Body, Draft, Pending};
use crate::ops::lowers::Lowers;
use crate::ops::{OpError, copy, pack};
use crate::sandbox::Lower;

/// What the directory or file is called in its layer.
pub(super) const TOP: &[u8] = b"part";

/// Returns the node at `path` of `tree`, with all below, as a mount with the node at [`TOP`].
pub(super) fn mounted(
    lowers: &Lowers,
    tree: &View,
    path: &TreePath,
    node: &Node<'_>,
) -> Result<Lower, OpError> {
    let layer = write(lowers, draft(tree, path, node, &TreePath::clean(TOP)))?;
    if lowers.can_mount()? {
        return Ok(Lower::mount(layer.file(), &[])?);
    }
    let dir = lowers.scratch_dir()?;
    let root = Root::from(std::os::fd::OwnedFd::from(
        dir.try_clone().map_err(|source| OpError::Scratch { source })?,
    ));
    unpacked(&layer, &root)?;
    Ok(Lower::unpacked(dir.as_fd())?)
}

/// Puts what is in the directory at `path` of `tree` into the empty directory `into`.
pub(super) fn copied(
    lowers: &Lowers,
    tree: &View,
    path: &TreePath,
    node: &Node<'_>,
    into: &Root,
) -> Result<(), OpError> {
    unpacked(&write(lowers, draft(tree, path, node, &TreePath::root()))?, into)
}

/// Writes the layer; its file has no name any more.
fn write(lowers: &Lowers, draft: Draft) -> Result<LayerFile, OpError> {
    let (file, at) = lowers
        .store()
        .incomplete()
        .file()
        .map_err(|source| OpError::Scratch { source })?;
    let written = LayerWriter::create(file)
        .map_err(OpError::from)
        .and_then(|writer| pack::fill(draft, writer));
    let _ = std::fs::remove_file(at);
    let written = written?;
    Ok(LayerFile::open(written.file, written.diff_id)?)
}

/// Puts what is in a layer into the empty directory `into`.
pub(super) fn unpacked(layer: &LayerFile, into: &Root) -> Result<(), OpError> {
    let options = UnpackOptions {
        overlay: OverlayXattr::Trusted,
        owners: Owners::Keep,
        below: &|_| None,
    };
    let file: &File = layer.file();
    // What the machine doesn't let us make was said when the layers that it is of were unpacked.
    unpack(layer.index()?, file, into, &options)?;
    Ok(())
}

/// Returns the node with all below it as the changes of a layer; of the layer's own root only what is below.
fn draft(tree: &View, path: &TreePath, node: &Node<'_>, top: &TreePath) -> Draft {
    let mut draft = Draft::new(View::default());
    let mut links: HashMap<Inode, TreePath> = HashMap::new();
    let mut put = |target: TreePath, node: &Node<'_>| {
        let body = match links.get(&node.inode) {
            Some(first) if node.has_links => Body::Hardlink(first.clone()),
            _ => copy::body_of(tree, node),
        };
        if node.has_links {
            links.entry(node.inode).or_insert_with(|| target.clone());
        }
        let meta = node.meta.clone();
        draft.put(target, Pending { meta, body });
    };
    if !top.is_root() {
        put(top.clone(), node);
    }
    if node.is_dir() {
        for (below, node) in tree.walk(path) {
            let below = below.below(path).expect("because a walk stays below its start");
            put(top.concat(&below), &node);
        }
    }
    draft
}
