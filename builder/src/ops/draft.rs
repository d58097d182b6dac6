//! The layer that a file op is making: changes in memory, on top of the merged view of what is below.
//!
//! Nothing is copied here; a file is a reference to where its bytes are. Paths in `dest` are followed inside the tree
//! only, so no symbolic link of an image can lead outside: there is no outside.

use std::collections::BTreeMap;

use cache::layer::{Meta, TreePath};
use cache::tree::links::{self, Step};
use cache::tree::{Inode, NodeKind, View};

use super::OpError;

/// One path that the layer will have.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) meta: Meta,
    pub(super) body: Body,
}

impl Pending {
    /// Returns the path that this one is another name of.
    pub(super) fn original(&self) -> Option<&TreePath> {
        match &self.body {
            Body::Hardlink(original) => Some(original),
            _ => None,
        }
    }
}

/// What is at a pending path.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// A directory; opaque when it replaces something of this same op that hid a directory below.
    Dir { opaque: bool },
    /// A regular file with content at hand.
    Inline(Vec<u8>),
    /// A regular file whose content is in a tree.
    Content {
        tree: View,
        inode: Inode,
        size_bytes: u64,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// Another name of a path of this layer.
    Hardlink(TreePath),
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// The changes of one op.
#[derive(Debug)]
pub(super) struct Draft {
    base: View,
    changes: BTreeMap<TreePath, Pending>,
    /// Of files with several names, the others by the one that has the content.
    names: BTreeMap<TreePath, Vec<TreePath>>,
}

impl Draft {
    pub(super) fn new(base: View) -> Self {
        Self {
            base,
            changes: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// Returns the tree below the changes.
    pub(super) fn base(&self) -> &View {
        &self.base
    }

    /// Says what is at `path`, following no link.
    pub(super) fn find(&self, path: &TreePath) -> Step {
        if let Some(pending) = self.changes.get(path) {
            return match &pending.body {
                Body::Dir { .. } => Step::Dir,
                Body::Symlink(target) => Step::Link(target.clone()),
                _ => Step::Other,
            };
        }
        if self.is_hidden(path) {
            return Step::Missing;
        }
        match self.base.lookup(path).map(|node| node.kind) {
            None => Step::Missing,
            Some(NodeKind::Dir) => Step::Dir,
            Some(NodeKind::Symlink(target)) => Step::Link(target.to_owned()),
            Some(_) => Step::Other,
        }
    }

    /// Says whether a pending change above `path` hides what the base has there.
    fn is_hidden(&self, path: &TreePath) -> bool {
        std::iter::successors(path.parent(), TreePath::parent).any(|above| {
            self.changes
                .get(&above)
                .is_some_and(|pending| !matches!(pending.body, Body::Dir { opaque: false }))
        })
    }

    /// Follows every symbolic link of `path`, also the last and also dangling ones, inside the tree.
    pub(super) fn resolve(&self, path: &TreePath) -> Result<TreePath, OpError> {
        Ok(links::follow(path, |path| self.find(path))?)
    }

    /// Makes the directory at the resolved `path` and its missing parents, with `meta`. Leaves existing ones alone.
    pub(super) fn make_dirs(&mut self, path: &TreePath, meta: &Meta) -> Result<(), OpError> {
        let mut above = Vec::new();
        let mut at = Some(path.clone());
        while let Some(dir) = at.filter(|dir| !dir.is_root()) {
            match self.find(&dir) {
                Step::Dir => break,
                Step::Missing => {}
                Step::Link(_) | Step::Other => {
                    return Err(cache::tree::Error::NotDirectory { path: dir }.into());
                }
            }
            at = dir.parent();
            above.push(dir);
        }
        for dir in above.into_iter().rev() {
            self.put(
                dir,
                Pending {
                    meta: meta.clone(),
                    body: Body::Dir { opaque: false },
                },
            );
        }
        Ok(())
    }

    /// Says whether this op put `body` at `path`, and nothing else since.
    pub(super) fn holds(&self, path: &TreePath, body: &Body) -> bool {
        match (self.changes.get(path).map(|pending| &pending.body), body) {
            (Some(Body::Content { inode: a, .. }), Body::Content { inode: b, .. }) => a == b,
            (Some(Body::Symlink(a)), Body::Symlink(b)) => a == b,
            (Some(Body::CharDevice(a, b)), Body::CharDevice(c, d))
            | (Some(Body::BlockDevice(a, b)), Body::BlockDevice(c, d)) => (a, b) == (c, d),
            (Some(Body::Fifo), Body::Fifo) => true,
            _ => false,
        }
    }

    /// Puts something at a resolved path, replacing what is there, with all below when it isn't a directory. What had other
    /// names keeps those.
    pub(super) fn put(&mut self, path: TreePath, mut pending: Pending) {
        if let Body::Hardlink(original) = &mut pending.body {
            if let Some(first) = self.changes.get(original).and_then(Pending::original) {
                *original = first.clone();
            }
            if *original == path {
                // It is that file already.
                return;
            }
            let names = self.names.entry(original.clone()).or_default();
            names.push(path.clone());
        }
        let is_dir = matches!(pending.body, Body::Dir { .. });
        let replaced = self
            .changes
            .get(&path)
            .map(|old| matches!(old.body, Body::Dir { opaque: false }));
        if let (Body::Dir { opaque }, Some(false)) = (&mut pending.body, replaced) {
            // A file of this op hid whatever the base had here; the directory must go on hiding it.
            *opaque = true;
        }
        if !is_dir && replaced == Some(true) {
            let below: Vec<TreePath> = self
                .changes
                .range(path.clone()..)
                .skip(1)
                .map(|(inner, _)| inner.clone())
                .take_while(|inner| inner.as_bytes().starts_with(path.as_bytes()))
                .filter(|inner| inner.below(&path).is_some())
                .collect();
            for inner in below {
                self.bequeath(&inner);
                self.changes.remove(&inner);
            }
        }
        self.bequeath(&path);
        self.changes.insert(path, pending);
    }

    /// Gives what is at `path`, and is about to go, to the other names that it has.
    fn bequeath(&mut self, path: &TreePath) {
        let Some(mut names) = self.names.remove(path) else {
            return;
        };
        let Some(body) = self.changes.get(path).map(|pending| pending.body.clone()) else {
            return;
        };
        names.sort_unstable();
        names.dedup();
        let is_name = |name: &TreePath| {
            let pending = self.changes.get(name);
            pending.and_then(Pending::original) == Some(path)
        };
        names.retain(is_name);
        let mut names = names.into_iter();
        let Some(heir) = names.next() else {
            return;
        };
        let others: Vec<TreePath> = names.collect();
        for name in &others {
            self.set_body(name, Body::Hardlink(heir.clone()));
        }
        self.set_body(&heir, body);
        self.names.insert(heir, others);
    }

    fn set_body(&mut self, path: &TreePath, body: Body) {
        if let Some(pending) = self.changes.get_mut(path) {
            pending.body = body;
        }
    }

    /// Changes the metadata of the directory at `path`, taking the base's as the start.
    pub(super) fn touch_dir(&mut self, path: &TreePath, change: impl FnOnce(&mut Meta)) {
        let mut pending = match self.changes.get(path) {
            Some(pending) => pending.clone(),
            None => self.inherited_dir(path),
        };
        change(&mut pending.meta);
        self.changes.insert(path.clone(), pending);
    }

    /// Returns the base's directory at `path` as a pending entry; a default one where only deeper paths exist.
    fn inherited_dir(&self, path: &TreePath) -> Pending {
        let meta = match self.base.lookup(path) {
            Some(node) => node.meta.clone(),
            None => Meta {
                mode: 0o755,
                ..Meta::default()
            },
        };
        Pending {
            meta,
            body: Body::Dir { opaque: false },
        }
    }

    /// Returns the changes in path order, with every parent directory, so that the layer can stand alone. The root
    /// itself only if it was changed.
    pub(super) fn into_entries(mut self) -> BTreeMap<TreePath, Pending> {
        let mut parents = BTreeMap::new();
        for path in self.changes.keys() {
            let mut at = path.parent();
            while let Some(dir) = at.filter(|dir| !dir.is_root()) {
                if self.changes.contains_key(&dir) || parents.contains_key(&dir) {
                    break;
                }
                parents.insert(dir.clone(), self.inherited_dir(&dir));
                at = dir.parent();
            }
        }
        self.changes.append(&mut parents);
        self.changes
    }
}
