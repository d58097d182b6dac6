//! ADD of archives: a source file that is a tar, plain or compressed, is unpacked into the destination.
//!
//! The archive becomes a layer file in the scratch space, so that the one tar reader with its limits judges it, and its
//! entries are copied from there like from any tree. Spec: dockerfile.md §10.6.

use std::io::{Cursor, Read};

use cache::incomplete::Incomplete;
use cache::layer::{Entry, Kind, LayerFile, Limits, Meta, Timestamp, TreePath};
use cache::tree::links::Step;
use cache::tree::{Node, View};

use super::OpError;
use super::copy::{Change, body_of};
use super::draft::{Body, Draft, Pending};

/// Size of a tar header: what decides whether a file is an archive.
const HEADER_BYTES: usize = 512;

/// An archive that was read.
pub(super) struct Archive {
    layer: std::sync::Arc<LayerFile>,
    tree: View,
}

/// Reads `node` as an archive; `None` when it is not one: its first bytes, unpacked, must be a valid tar header.
pub(super) fn open(tree: &View, node: &Node<'_>, scratch: &Incomplete) -> Result<Option<Archive>, OpError> {
    let packed = tree.read(node)?;
    let Ok((_, mut reader)) = cache::compress::decompressor(packed, Limits::default().max_bytes) else {
        return Ok(None);
    };
    let mut head = Vec::with_capacity(HEADER_BYTES);
    if (&mut reader)
        .take(HEADER_BYTES as u64)
        .read_to_end(&mut head)
        .is_err()
        || !cache::layer::is_tar_header(&head)
    {
        return Ok(None);
    }
    let (file, path) = scratch.file().map_err(|source| OpError::Scratch { source })?;
    let written = cache::layer::import(Cursor::new(head).chain(reader), file, Limits::default());
    // The open file keeps the bytes for as long as they are needed.
    let _ = std::fs::remove_file(path);
    let written = written?;
    let diff_id = written.diff_id;
    let layer = std::sync::Arc::new(LayerFile::open(written.file, diff_id)?);
    let tree = View::of_layers([std::sync::Arc::clone(&layer)])?;
    Ok(Some(Archive { layer, tree }))
}

/// Puts the archive's entries below `dest`, in their order of path. Parents through symbolic links stay in the tree.
pub(super) fn apply(
    draft: &mut Draft,
    archive: &Archive,
    dest: &TreePath,
    change: &Change,
    stamp: Timestamp,
) -> Result<(), OpError> {
    let made = Meta {
        mode: 0o755,
        mtime: stamp,
        ..Meta::default()
    };
    let mut links = Vec::new();
    for entry in archive.layer.index()? {
        match &entry.kind {
            Kind::Dir { implied: true, .. } => {}
            Kind::Whiteout | Kind::Dir { opaque: true, .. } => {
                return Err(OpError::WhiteoutInArchive {
                    path: entry.path.clone(),
                });
            }
            Kind::Hardlink(_) => links.push(entry),
            _ => put(draft, archive, entry, dest, change, &made)?,
        }
    }
    for entry in links {
        let Kind::Hardlink(target) = &entry.kind else {
            continue;
        };
        let target = place(draft, dest, target, &made)?;
        if draft.find(&target) == Step::Missing {
            return Err(OpError::DanglingLink {
                path: entry.path.clone(),
                target,
            });
        }
        let path = place(draft, dest, &entry.path, &made)?;
        draft.put(
            path,
            Pending {
                meta: owned(&entry.meta, change),
                body: Body::Hardlink(target),
            },
        );
    }
    Ok(())
}

fn put(
    draft: &mut Draft,
    archive: &Archive,
    entry: &Entry,
    dest: &TreePath,
    change: &Change,
    made: &Meta,
) -> Result<(), OpError> {
    let meta = owned(&entry.meta, change);
    if matches!(entry.kind, Kind::Dir { .. }) {
        let path = place(draft, dest, &entry.path, made)?;
        return match draft.find(&path) {
            Step::Dir => {
                draft.touch_dir(&path, |old| *old = meta);
                Ok(())
            }
            // A link to a directory stays what it is, as with tar: base images have `/lib -> usr/lib`.
            Step::Link(_) if draft.find(&draft.resolve(&path)?) == Step::Dir => Ok(()),
            _ => {
                draft.put(
                    path,
                    Pending {
                        meta,
                        body: Body::Dir { opaque: false },
                    },
                );
                Ok(())
            }
        };
    }
    let path = place(draft, dest, &entry.path, made)?;
    let node = archive
        .tree
        .lookup(&entry.path)
        .expect("an entry of the only layer is in its view");
    draft.put(
        path,
        Pending {
            meta,
            body: body_of(&archive.tree, &node),
        },
    );
    Ok(())
}

/// Returns where `path` of the archive lands: its parent resolved inside the tree, made when missing.
fn place(draft: &mut Draft, dest: &TreePath, path: &TreePath, made: &Meta) -> Result<TreePath, OpError> {
    let Some(name) = path.name() else {
        return Ok(dest.clone());
    };
    let parent = draft.resolve(&dest.concat(&path.parent().unwrap_or_default()))?;
    draft.make_dirs(&parent, made)?;
    Ok(parent.join(name))
}

/// Returns the metadata with `--chown` applied; `--chmod` doesn't count for members of archives.
fn owned(meta: &Meta, change: &Change) -> Meta {
    let mut meta = meta.clone();
    if let Some(owner) = change.owner {
        (meta.uid, meta.gid) = (owner.uid, owner.gid);
    }
    meta
}
