//! What a layer's entries amount to: applied in the order of the tar, the last of equal names winning, paths below
//! a symbolic link of the same layer ending up where it points, whiteouts only ever meaning lower layers.
//!
//! Knows one layer. What it does to the layers below is for `merge` and for the merged view.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Names, Node};
use super::{Entry, FileData, Kind, Limits, Meta, TreePath, xattr};
use crate::error::Problem;

/// Entries being applied.
#[derive(Debug)]
pub(super) struct Fold {
    names: Names,
    whiteouts: BTreeSet<TreePath>,
    opaque: BTreeSet<TreePath>,
    /// The first name of each inode that has several.
    owners: BTreeMap<usize, TreePath>,
}

/// One layer, settled.
#[derive(Debug)]
pub(super) struct Folded {
    names: Names,
    owners: BTreeMap<usize, TreePath>,
    /// Parents that the tar doesn't hold; the root doesn't count, a mount brings its own.
    pub(super) has_implied_dirs: bool,
    /// Hard links whose target isn't in the layer.
    pub(super) has_lower_links: bool,
}

impl Fold {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            names: Names::new(limits),
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
            owners: BTreeMap::new(),
        }
    }

    /// Applies one entry. Returns the number of its inode; `None` for a whiteout, which has none yet.
    pub(super) fn add(
        &mut self,
        path: &TreePath,
        mut meta: Meta,
        kind: Kind,
    ) -> Result<Option<usize>, Problem> {
        xattr::settle(&mut meta)?;
        if path.is_root() {
            let Kind::Dir { opaque, .. } = kind else {
                return Err(Problem::RootType);
            };
            self.update_dir(0, meta, opaque);
            return Ok(Some(0));
        }
        let path = self.names.locate_or_make(path, 0)?;
        match kind {
            Kind::Whiteout => {
                self.whiteouts.insert(path);
                Ok(None)
            }
            Kind::Dir { opaque, .. } => self.add_dir(path, meta, opaque).map(Some),
            Kind::Hardlink(target) => self.add_link(path, meta, &target).map(Some),
            kind => {
                self.names.remove(&path);
                let number = self.names.add_node(Node { meta, kind, part: 0 })?;
                self.names.set(path, number)?;
                Ok(Some(number))
            }
        }
    }

    /// Applies the marker that says that the directory `path` hides what lower layers have in it.
    pub(super) fn add_opaque(&mut self, path: &TreePath) -> Result<(), Problem> {
        // As for every entry inside the directory, links on the way to it, and itself, are followed.
        let inside = self
            .names
            .locate_or_make(&path.join(super::whiteout::OPAQUE), 0)?;
        self.opaque.insert(inside.parent().unwrap_or_default());
        Ok(())
    }

    fn update_dir(&mut self, number: usize, meta: Meta, now_opaque: bool) {
        let node = self.names.node_mut(number);
        let opaque = now_opaque || matches!(node.kind, Kind::Dir { opaque: true, .. });
        (node.meta, node.kind) = (
            meta,
            Kind::Dir {
                opaque,
                implied: false,
            },
        );
    }

    fn add_dir(&mut self, path: TreePath, meta: Meta, opaque: bool) -> Result<usize, Problem> {
        let old = self.names.find(&path);
        if let Some(number) = old.filter(|&number| self.names.nodes()[number].is_dir()) {
            self.update_dir(number, meta, opaque);
            return Ok(number);
        }
        // What was replaced hid the lower layers' directory, so the new one must as well.
        let kind = Kind::Dir {
            opaque: opaque || old.is_some(),
            implied: false,
        };
        let number = self.names.add_node(Node { meta, kind, part: 0 })?;
        self.names.set(path, number)?;
        Ok(number)
    }

    fn add_link(&mut self, path: TreePath, meta: Meta, target: &TreePath) -> Result<usize, Problem> {
        if target.is_root() {
            return Err(Problem::LinkToDirectory);
        }
        let target = self.names.locate(target)?;
        let number = match self.names.find(&target) {
            // A link to itself changes nothing, whatever the tar meant by it.
            Some(number) if target == path => return Ok(number),
            Some(number) if self.names.nodes()[number].is_dir() => return Err(Problem::LinkToDirectory),
            Some(number) => {
                self.owners.entry(number).or_insert(target);
                number
            }
            None => self.names.add_node(Node {
                meta,
                kind: Kind::Hardlink(target),
                part: 0,
            })?,
        };
        self.names.remove(&path);
        self.names.set(path, number)?;
        Ok(number)
    }

    /// Settles whiteouts and opaque markers.
    pub(super) fn finish(mut self) -> Result<Folded, Problem> {
        let dir = |names: &Names, path: &TreePath| names.find(path).filter(|&at| names.nodes()[at].is_dir());
        for path in std::mem::take(&mut self.opaque) {
            if let Some(number) = dir(&self.names, &path) {
                self.set_opaque(number);
            }
        }
        for path in std::mem::take(&mut self.whiteouts) {
            match self.names.find(&path) {
                Some(number) => self.set_opaque(number),
                // It hides nothing more, and overlay would list it as a name without a file.
                None if self.is_below_opaque(&path) => {}
                None if dir(&self.names, &path.parent().unwrap_or_default()).is_some() => {
                    let node = Node {
                        meta: Meta::default(),
                        kind: Kind::Whiteout,
                        part: 0,
                    };
                    let number = self.names.add_node(node)?;
                    self.names.set(path, number)?;
                }
                // The directory that held the whiteout was replaced later.
                None => {}
            }
        }
        let kinds = || {
            self.names
                .iter()
                .skip(1)
                .map(|(_, number)| &self.names.nodes()[number].kind)
        };
        let has_implied_dirs = kinds().any(|kind| matches!(kind, Kind::Dir { implied: true, .. }));
        let has_lower_links = kinds().any(|kind| matches!(kind, Kind::Hardlink(_)));
        // An owner that was replaced hands over to the first name that is left.
        let mut owners = BTreeMap::new();
        for (path, number) in self.names.iter() {
            if let Some(first) = self.owners.get(&number) {
                let stands = self.names.find(first) == Some(number);
                owners
                    .entry(number)
                    .or_insert_with(|| if stands { first.clone() } else { path.clone() });
            }
        }
        Ok(Folded {
            names: self.names,
            owners,
            has_implied_dirs,
            has_lower_links,
        })
    }

    fn is_below_opaque(&self, path: &TreePath) -> bool {
        let parents = std::iter::successors(path.parent(), TreePath::parent);
        let mut kinds = parents
            .filter_map(|parent| self.names.find_node(&parent))
            .map(|node| &node.kind);
        kinds.any(|kind| matches!(kind, Kind::Dir { opaque: true, .. }))
    }

    fn set_opaque(&mut self, number: usize) {
        if let Kind::Dir { opaque, .. } = &mut self.names.node_mut(number).kind {
            *opaque = true;
        }
    }
}

impl Folded {
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Says which inodes still have a name.
    pub(super) fn live(&self) -> BTreeSet<usize> {
        self.names.iter().map(|(_, number)| number).collect()
    }

    /// Corrects where a file's data are.
    pub(super) fn set_data(&mut self, number: usize, data: FileData) {
        self.names.node_mut(number).kind = Kind::File(data);
    }

    /// Iterates over what the index holds, sorted by path: one name of an inode has its kind, the others are hard
    /// links to it.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.names.iter().map(|(path, number)| {
            let node = &self.names.nodes()[number];
            let kind = match self.owners.get(&number) {
                Some(owner) if owner != path && !matches!(node.kind, Kind::Hardlink(_)) => {
                    Kind::Hardlink(owner.clone())
                }
                _ => node.kind.clone(),
            };
            Entry {
                path: path.clone(),
                meta: node.meta.clone(),
                kind,
            }
        })
    }
}
