//! Puts a layer's entries where they belong when a directory that the layer only implies is a symbolic link
//! below: `lib/x` over `lib -> usr/lib` is `usr/lib/x`, as in runtimes that unpack layers one over the other.

use std::collections::BTreeMap;

use super::error::Error;
use super::node::{Node, NodeKind};
use super::view::{View, position};
use crate::layer::{Entry, Kind, TreePath};

/// The most links that one layer may make us follow; each costs a pass over its entries.
const MAX_ROUNDS: usize = 256;

/// Returns the moved entries of a layer that is about to be put on `below`; `None` when nothing has to move.
pub(super) fn settle(below: &View, entries: &[Entry]) -> Result<Option<Vec<Entry>>, Error> {
    if below.parts.is_empty() {
        return Ok(None);
    }
    let mut moved: Option<Vec<Entry>> = None;
    // A move can put an implied directory over another link, hence the rounds.
    for _ in 0..MAX_ROUNDS {
        let current = moved.as_deref().unwrap_or(entries);
        let Some(link) = first_link(below, current) else {
            return Ok(moved);
        };
        let target = below.resolve(&link)?.path;
        moved = Some(move_below(current, &link, &target)?);
    }
    Err(Error::TooManyLinks {
        path: TreePath::root(),
    })
}

/// Finds the first implied directory that is a symbolic link below.
fn first_link(below: &View, entries: &[Entry]) -> Option<TreePath> {
    let implied = entries
        .iter()
        .filter(|entry| matches!(entry.kind, Kind::Dir { implied: true, .. }) && !entry.path.is_root());
    implied
        .map(|entry| &entry.path)
        .find(|path| is_visible_link(below, entries, path))
        .cloned()
}

fn is_visible_link(below: &View, entries: &[Entry], path: &TreePath) -> bool {
    let is_link = matches!(
        below.lookup(path),
        Some(Node {
            kind: NodeKind::Symlink(_),
            ..
        })
    );
    is_link && {
        // An opaque directory above hides the link.
        let ancestors = std::iter::successors(path.parent(), TreePath::parent);
        ancestors
            .filter_map(|ancestor| position(entries, ancestor.as_bytes()))
            .all(|number| !matches!(entries[number].kind, Kind::Dir { opaque: true, .. }))
    }
}

/// Moves the directory `from` and everything below it to `to`.
fn move_below(entries: &[Entry], from: &TreePath, to: &TreePath) -> Result<Vec<Entry>, Error> {
    let place = |path: &TreePath| {
        path.below(from)
            .map_or_else(|| path.clone(), |rest| to.concat(&rest))
    };
    let mut out: BTreeMap<TreePath, Entry> = BTreeMap::new();
    let implied = |path: TreePath| Entry {
        path,
        meta: crate::layer::Meta::default(),
        kind: Kind::Dir {
            opaque: false,
            implied: true,
        },
    };
    for ancestor in std::iter::successors(to.parent(), TreePath::parent).filter(|path| !path.is_root()) {
        out.insert(ancestor.clone(), implied(ancestor));
    }
    for entry in entries {
        let path = place(&entry.path);
        let kind = match &entry.kind {
            Kind::Hardlink(target) => Kind::Hardlink(place(target)),
            other => other.clone(),
        };
        let entry = Entry {
            path: path.clone(),
            meta: entry.meta.clone(),
            kind,
        };
        let merged = match (out.remove(&path), &entry.kind) {
            // Two directories become one: what is described wins over what is implied, and opaque stays opaque.
            (Some(there), Kind::Dir { opaque, implied }) => match there.kind {
                Kind::Dir {
                    opaque: already,
                    implied: was_implied,
                } => Entry {
                    meta: if *implied { there.meta } else { entry.meta },
                    kind: Kind::Dir {
                        opaque: *opaque || already,
                        implied: *implied && was_implied,
                    },
                    path: path.clone(),
                },
                _ => there,
            },
            // Of two others the moved one stays: tars name the link's target first.
            _ => entry,
        };
        out.insert(path, merged);
    }
    let entries: Vec<Entry> = out.into_values().collect();
    for entry in &entries {
        let parent = entry.path.parent().filter(|parent| !parent.is_root());
        let parent = parent.and_then(|parent| position(&entries, parent.as_bytes()));
        if let Some(parent) = parent.map(|number| &entries[number])
            && !matches!(parent.kind, Kind::Dir { .. })
        {
            return Err(Error::Conflict {
                path: parent.path.clone(),
            });
        }
    }
    Ok(entries)
}
