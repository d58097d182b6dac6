//! Writing a draft as a layer file: entries in path order, bytes from wherever they are, one pass.

use std::collections::{HashMap, HashSet};

use cache::layer::{Body as LayerBody, LayerWriter, TreePath, Written};
use cache::{DiffId, Store};

use super::OpError;
use super::draft::{Body, Draft, Pending};

/// Writes the draft's changes as one layer and makes it durable.
pub(super) fn write(draft: Draft, store: &Store) -> Result<DiffId, OpError> {
    let layer = store
        .layers()
        .write(store.incomplete(), |writer| fill(draft, writer))?;
    Ok(layer.diff_id())
}

/// Writes the draft's changes as one layer, wherever that is.
pub(super) fn fill(draft: Draft, mut writer: LayerWriter) -> Result<Written, OpError> {
    let entries = draft.into_entries();
    // A tar knows no links forward: the first name of a hard-linked file, in path order, carries the content.
    let linked: HashSet<&TreePath> = entries.values().filter_map(Pending::original).collect();
    let mut first_names: HashMap<&TreePath, &TreePath> = HashMap::new();
    for (path, pending) in &entries {
        let original = pending.original().unwrap_or(path);
        if let Some(first) = first_names.get(original) {
            writer.add(
                path.clone(),
                pending.meta.clone(),
                LayerBody::Hardlink((*first).clone()),
            )?;
            continue;
        }
        if linked.contains(original) {
            first_names.insert(original, path);
        }
        match entries.get(original).map(|entry| &entry.body) {
            None | Some(Body::Hardlink(_) | Body::Dir { .. }) if original != path => {
                return Err(OpError::DanglingLink {
                    path: path.clone(),
                    target: original.clone(),
                });
            }
            None => unreachable!("a path that isn't a link is its own original"),
            Some(body) => add(&mut writer, path, pending, body)?,
        }
    }
    Ok(writer.finish()?)
}

fn add(writer: &mut LayerWriter, path: &TreePath, pending: &Pending, body: &Body) -> Result<(), OpError> {
    let meta = pending.meta.clone();
    match body {
        Body::Dir { opaque } => writer.add(path.clone(), meta, LayerBody::Dir { opaque: *opaque })?,
        Body::Symlink(target) => writer.add(path.clone(), meta, LayerBody::Symlink(target.clone()))?,
        Body::CharDevice(major, minor) => {
            writer.add(path.clone(), meta, LayerBody::CharDevice(*major, *minor))?;
        }
        Body::BlockDevice(major, minor) => {
            writer.add(path.clone(), meta, LayerBody::BlockDevice(*major, *minor))?;
        }
        Body::Fifo => writer.add(path.clone(), meta, LayerBody::Fifo)?,
        Body::Inline(data) => {
            let body = LayerBody::File {
                size_bytes: data.len() as u64,
                reader: &mut &data[..],
                content: None,
            };
            writer.add(path.clone(), meta, body)?;
        }
        Body::Content {
            tree,
            inode,
            size_bytes,
        } => {
            let content = Some(tree.content(*inode)?);
            let mut reader = tree.read(*inode)?;
            let body = LayerBody::File {
                size_bytes: *size_bytes,
                reader: &mut reader,
                content,
            };
            writer.add(path.clone(), meta, body)?;
        }
        Body::Hardlink(_) => unreachable!("links are resolved by the caller"),
    }
    Ok(())
}
