//! Which files differ between the layers that one step made at two times, or in what it mounted: the answer to why it
//! ran again.

use cache::layer::{Meta, TreePath};
use cache::tree::{Aspect, Change, Node, NodeKind, Selection, Times, View};
use cache::{DiffId, Store};
use solver::{Listing, MAX_FILES};

use super::OpError;
use super::draft::{Body, Draft};

/// More files than anybody reads of; the rest is counted.
const NAMED: usize = 1000;

/// Names the files, parents first. An error says that the older layer isn't here any more.
pub(super) fn files(store: &Store, older: &DiffId, newer: &DiffId) -> Result<Vec<String>, OpError> {
    let older = View::of_layers([store.layers().get(older)?])?;
    let newer = View::of_layers([store.layers().get(newer)?])?;
    let (mut said, mut n_more) = (Vec::new(), 0_usize);
    for change in older.changes(&newer, Times::Ignore) {
        match said.len() < NAMED {
            true => said.push(say(&change?)),
            false => n_more += 1,
        }
    }
    if n_more > 0 {
        said.push(format!("{n_more} more files"));
    }
    Ok(said)
}

/// Lists what a selection of a tree selects, by path, each with its type, content, mode, owner and, where it has some,
/// attributes; `None` where there is too much of it to be kept.
pub(super) fn listing(tree: &View, selection: &Selection) -> Option<Listing> {
    let mut files = Vec::new();
    for selected in tree.select(selection).ok()? {
        let top = (!selected.node.is_dir()).then_some((TreePath::root(), selected.node));
        for (below, node) in top.into_iter().chain(tree.entries_of(&selected)) {
            if files.len() == MAX_FILES {
                return None;
            }
            let path = selected.source.concat(&below);
            let path = path.to_string().trim_start_matches('/').to_owned();
            files.push((path, state(tree, &node).ok()?));
        }
    }
    Some(files)
}

/// Lists what a layer has, but for its root.
pub(super) fn made(layer: &View) -> Result<Listing, OpError> {
    let nodes = layer.walk(&TreePath::root());
    nodes
        .map(|(path, node)| Ok((path.to_string(), state(layer, &node)?)))
        .collect()
}

/// Lists what the layer of a draft would have, but for its root, in the same words.
pub(super) fn planned(draft: Draft) -> Result<Listing, OpError> {
    let entries = draft.into_entries();
    let mut files = Vec::with_capacity(entries.len());
    for (path, pending) in &entries {
        // What one name of a file says, all do.
        let first = pending.original().and_then(|original| entries.get(original));
        let first = first.unwrap_or(pending);
        let (kind, content) = match &first.body {
            Body::Dir { .. } => ("dir", "-".to_owned()),
            Body::Inline(data) => ("file", short(blake3::hash(data).as_bytes())),
            Body::Content { tree, inode, .. } => ("file", short(tree.content(*inode)?.as_bytes())),
            Body::Symlink(target) => ("symlink", short(blake3::hash(target).as_bytes())),
            Body::CharDevice(major, minor) => ("char", format!("{major}:{minor}")),
            Body::BlockDevice(major, minor) => ("block", format!("{major}:{minor}")),
            Body::Fifo => ("fifo", "-".to_owned()),
            Body::Hardlink(target) => ("link", target.to_string()),
        };
        if !path.is_root() {
            files.push((path.to_string(), words(kind, &content, &first.meta)));
        }
    }
    Ok(files)
}

fn state(tree: &View, node: &Node<'_>) -> Result<String, OpError> {
    let (kind, content) = match node.kind {
        NodeKind::File { .. } => ("file", short(tree.content(node)?.as_bytes())),
        NodeKind::Dir => ("dir", "-".to_owned()),
        NodeKind::Symlink(target) => ("symlink", short(blake3::hash(target).as_bytes())),
        NodeKind::CharDevice(major, minor) => ("char", format!("{major}:{minor}")),
        NodeKind::BlockDevice(major, minor) => ("block", format!("{major}:{minor}")),
        NodeKind::Fifo => ("fifo", "-".to_owned()),
    };
    Ok(words(kind, &content, node.meta))
}

/// Enough to tell contents apart for people; what counts is the tree's hash.
fn short(hash: &[u8; 32]) -> String {
    cache::digest::hex(&hash[..8])
}

fn words(kind: &str, content: &str, meta: &Meta) -> String {
    let mut state = format!("{kind} {content} {:o} {}:{}", meta.mode, meta.uid, meta.gid);
    if !meta.xattrs.is_empty() {
        let mut hasher = blake3::Hasher::new();
        for (name, value) in &meta.xattrs {
            hasher.update(name);
            hasher.update(value);
        }
        state.push(' ');
        state.push_str(&short(hasher.finalize().as_bytes()));
    }
    state
}

fn say(change: &Change<'_>) -> String {
    let path = &change.path;
    let Some(aspect) = change.aspects.first() else {
        return match change.before {
            Some(_) => format!("{path} removed"),
            None => format!("{path} added"),
        };
    };
    let what = match aspect {
        Aspect::Type => "type",
        Aspect::Content => "content",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Attributes => "extended attributes",
        Aspect::Time => "time",
    };
    format!("{path} changed ({what})")
}
