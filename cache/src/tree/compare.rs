//! What differs between two trees, path by path, answered from their indexes: nothing is unpacked and no byte is read.
//!
//! Hard links count by what they lead to; that two names share an inode here and not there is no difference.

use std::cmp::Ordering;
use std::iter::Peekable;

use super::error::Error;
use super::node::{Node, NodeKind};
use super::view::{View, Walk};
use crate::layer::TreePath;

/// In what two nodes of one path differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Of another type.
    Type,
    /// A file's bytes, a link's target, a device's numbers.
    Content,
    /// Permissions.
    Mode,
    /// User or group.
    Owner,
    /// Extended attributes.
    Attributes,
    /// Modification time.
    Time,
}

/// Whether modification times count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Times {
    /// They don't, as in tree hashes.
    #[default]
    Ignore,
    /// They do.
    Compare,
}

/// One path that isn't the same in both trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'v> {
    /// Where.
    pub path: TreePath,
    /// What the older tree has there.
    pub before: Option<Node<'v>>,
    /// What the newer tree has there.
    pub after: Option<Node<'v>>,
    /// In what the two differ, sorted; empty where only one of them is there.
    pub aspects: Vec<Aspect>,
}

/// The changes from one tree to another, parents first; see [`View::changes`].
pub struct Changes<'v> {
    older: (&'v View, Peekable<Nodes<'v>>),
    newer: (&'v View, Peekable<Nodes<'v>>),
    times: Times,
}

type Nodes<'v> = std::iter::Chain<std::option::IntoIter<(TreePath, Node<'v>)>, Walk<'v>>;

impl View {
    /// Returns what differs from this tree to `newer`, parents first. Of a directory that only one of them has,
    /// everything below it is told too.
    pub fn changes<'v>(&'v self, newer: &'v Self, times: Times) -> Changes<'v> {
        Changes {
            older: (self, self.all().peekable()),
            newer: (newer, newer.all().peekable()),
            times,
        }
    }

    /// Walks everything, the root included.
    fn all(&self) -> Nodes<'_> {
        let root = TreePath::root();
        let top = self.lookup(&root).map(|node| (root.clone(), node));
        top.into_iter().chain(self.walk(&root))
    }
}

impl<'v> Iterator for Changes<'v> {
    type Item = Result<Change<'v>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.older.1.peek(), self.newer.1.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                // As walks go: by component, not by byte, since `/` isn't the smallest of bytes.
                (Some((a, _)), Some((b, _))) => a.components().cmp(b.components()),
            };
            let before = order.is_le().then(|| self.older.1.next()).flatten();
            let after = order.is_ge().then(|| self.newer.1.next()).flatten();
            let change = match (before, after) {
                (Some((path, before)), Some((_, after))) => {
                    let aspects = match self.aspects(&before, &after) {
                        Ok(aspects) if aspects.is_empty() => continue,
                        Ok(aspects) => aspects,
                        Err(error) => return Some(Err(error)),
                    };
                    Change {
                        path,
                        before: Some(before),
                        after: Some(after),
                        aspects,
                    }
                }
                (Some((path, node)), None) => Change::of_one(path, Some(node), None),
                (None, Some((path, node))) => Change::of_one(path, None, Some(node)),
                (None, None) => return None,
            };
            return Some(Ok(change));
        }
    }
}

impl<'v> Change<'v> {
    fn of_one(path: TreePath, before: Option<Node<'v>>, after: Option<Node<'v>>) -> Self {
        Self {
            path,
            before,
            after,
            aspects: Vec::new(),
        }
    }
}

impl Changes<'_> {
    fn aspects(&self, before: &Node<'_>, after: &Node<'_>) -> Result<Vec<Aspect>, Error> {
        let (old, new) = (before.meta, after.meta);
        let is_same_type = std::mem::discriminant(&before.kind) == std::mem::discriminant(&after.kind);
        let is_same_content = match (before.kind, after.kind) {
            (NodeKind::File { size_bytes: a }, NodeKind::File { size_bytes: b }) => {
                a == b && self.older.0.content(before)? == self.newer.0.content(after)?
            }
            (a, b) => !is_same_type || a == b,
        };
        // What Linux says of a link's permissions is the same for all of them, whatever an archive wrote down.
        let is_link = matches!(after.kind, NodeKind::Symlink(_));
        let same = [
            (is_same_type, Aspect::Type),
            (is_same_content, Aspect::Content),
            (old.mode == new.mode || is_link, Aspect::Mode),
            ((old.uid, old.gid) == (new.uid, new.gid), Aspect::Owner),
            (old.xattrs == new.xattrs, Aspect::Attributes),
            (
                self.times == Times::Ignore || old.mtime == new.mtime,
                Aspect::Time,
            ),
        ];
        Ok(same
            .into_iter()
            .filter_map(|(is_same, aspect)| (!is_same).then_some(aspect))
            .collect())
    }
}
