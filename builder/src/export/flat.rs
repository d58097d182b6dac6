//! The files of an image as one tar, layers merged: what `docker export` gives.
//!
//! Written as a layer file in the store's scratch space first, since that is where our tar writer writes, and its tar
//! part is then copied out by the kernel.

use std::collections::HashMap;

use cache::layer::{Body, LayerWriter, Meta, Timestamp, TreePath};
use cache::layers::LayersError;
use cache::tree::{NodeKind, View};
use cache::{DiffId, Store};

use super::options::Destination;
use super::target::Target;
use super::{ExportError, Tree, statement};
use crate::clock;

/// Returns the merged view of layers, base first.
pub(super) fn view(store: &Store, layers: &[DiffId]) -> Result<View, ExportError> {
    let opened = layers.iter().map(|layer| store.layers().get(layer));
    Ok(View::of_layers(opened.collect::<Result<Vec<_>, _>>()?)?)
}

/// Writes the tar. `trees` are directories of it; one without a name is the tar's root. What is said of each is in it, under
/// names that begin with `prefix`.
pub(super) fn archive(
    store: &Store,
    dest: &Destination,
    trees: &[Tree<'_>],
    prefix: &str,
    epoch: Option<i64>,
) -> Result<(), ExportError> {
    let target = Target::create(dest)?;
    let scratch = |source| LayersError::Io {
        action: "write",
        layer: "(flat)".to_owned(),
        source,
    };
    let (file, path) = store.incomplete().file().map_err(scratch)?;
    // The file is gone when it is closed.
    std::fs::remove_file(path).map_err(scratch)?;
    let mut writer = LayerWriter::create(file).map_err(LayersError::from)?;
    for tree in trees {
        let below = TreePath::clean(tree.name.as_bytes());
        let view = view(store, tree.layers)?;
        add(&mut writer, &below, &view, epoch)?;
        for (name, bytes) in statement::files(&view, tree.attestations, prefix)? {
            let meta = Meta {
                mode: 0o644,
                mtime: Timestamp {
                    seconds: epoch.unwrap_or_else(clock::now_unix),
                    nanos: 0,
                },
                ..Meta::default()
            };
            let body = Body::File {
                size_bytes: bytes.len() as u64,
                reader: &mut bytes.as_slice(),
                content: None,
            };
            let added = writer.add(below.join(name.as_bytes()), meta, body);
            added.map_err(LayersError::from)?;
        }
    }
    let written = writer.finish().map_err(LayersError::from)?;
    copy(&written, &target)?;
    target.commit()
}

/// Adds a tree, as the directory `below`.
fn add(
    writer: &mut LayerWriter,
    below: &TreePath,
    view: &View,
    epoch: Option<i64>,
) -> Result<(), ExportError> {
    let mut first_names: HashMap<_, TreePath> = HashMap::new();
    for (path, node) in view.walk(&TreePath::root()) {
        let mut meta = node.meta.clone();
        if let Some(seconds) = epoch {
            meta.mtime = Timestamp { seconds, nanos: 0 };
        }
        if node.has_links && !node.is_dir() {
            if let Some(first) = first_names.get(&node.inode) {
                let body = Body::Hardlink(first.clone());
                writer
                    .add(below.concat(&path), meta, body)
                    .map_err(LayersError::from)?;
                continue;
            }
            first_names.insert(node.inode, path.clone());
        }
        let mut reader;
        let body = match node.kind {
            NodeKind::File { size_bytes } => {
                reader = view.read(&node)?;
                Body::File {
                    size_bytes,
                    reader: &mut reader,
                    content: Some(view.content(&node)?),
                }
            }
            NodeKind::Dir => Body::Dir { opaque: false },
            NodeKind::Symlink(to) => Body::Symlink(to.to_vec()),
            NodeKind::CharDevice(major, minor) => Body::CharDevice(major, minor),
            NodeKind::BlockDevice(major, minor) => Body::BlockDevice(major, minor),
            NodeKind::Fifo => Body::Fifo,
        };
        writer
            .add(below.concat(&path), meta, body)
            .map_err(LayersError::from)?;
    }
    Ok(())
}

/// Copies the tar part of a finished layer file.
fn copy(written: &cache::layer::Written, target: &Target) -> Result<(), ExportError> {
    let file = written.file.try_clone().map_err(|source| target.failed(source))?;
    let layer = cache::layer::LayerFile::open(file, written.diff_id).map_err(LayersError::from)?;
    let copied = layer.copy_tar(target.file()).map_err(std::io::Error::other);
    copied.map(|_| ()).map_err(|source| target.failed(source))
}
