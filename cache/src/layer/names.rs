//! A tree of names over a table of inodes: what entries amount to once they are applied one after the other.
//!
//! One sorted map instead of a map per directory: half the memory, and in the order that index and EROFS want.
//! The parent of every name is a directory of the tree. Symbolic links on the way are followed inside the tree
//! only; it knows no file system.

use std::collections::BTreeMap;

use super::{Kind, Limits, Meta, TreePath};
use crate::error::Problem;

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;
/// Components that all walks together may visit: enough for half a million entries below linked directories, and
/// an end, within a second, for archives that are made of nothing but detours.
const MAX_STEPS: usize = 5_000_000;

/// One inode. Hard links are names of the same inode; [`Kind::Hardlink`] is left only where the target isn't in
/// the tree.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) meta: Meta,
    pub(super) kind: Kind,
    /// Which layer holds it, base layer first.
    pub(super) part: usize,
}

impl Node {
    /// Makes a directory that is only there because something lies below.
    pub(super) fn implied(part: usize) -> Self {
        let meta = Meta {
            mode: 0o755,
            ..Meta::default()
        };
        Self {
            meta,
            kind: Kind::Dir {
                opaque: false,
                implied: true,
            },
            part,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir { .. })
    }
}

/// Names and their inodes.
#[derive(Debug)]
pub(super) struct Names {
    map: BTreeMap<TreePath, usize>,
    nodes: Vec<Node>,
    names_bytes: usize,
    steps: usize,
    limits: Limits,
}

impl Names {
    /// Starts with an implied root.
    pub(super) fn new(limits: Limits) -> Self {
        let map = BTreeMap::from([(TreePath::root(), 0)]);
        Self {
            map,
            nodes: vec![Node::implied(0)],
            names_bytes: 0,
            steps: 0,
            limits,
        }
    }

    /// Iterates over all names, sorted, with the numbers of their inodes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TreePath, usize)> {
        self.map.iter().map(|(path, &number)| (path, number))
    }

    /// Returns all inodes, also those that have lost their last name.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn node_mut(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number]
    }

    /// Looks up a name without following anything.
    pub(super) fn find(&self, path: &TreePath) -> Option<usize> {
        self.map.get(path).copied()
    }

    pub(super) fn find_node(&self, path: &TreePath) -> Option<&Node> {
        self.find(path).map(|number| &self.nodes[number])
    }

    /// Adds an inode without a name.
    pub(super) fn add_node(&mut self, node: Node) -> Result<usize, Problem> {
        if self.nodes.len() >= self.limits.max_entries {
            return Err(Problem::TooManyEntries(self.limits.max_entries));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// Gives an inode a name; the parent must be a directory of the tree.
    pub(super) fn set(&mut self, path: TreePath, number: usize) -> Result<(), Problem> {
        let bytes = path.as_bytes().len();
        if self.map.insert(path, number).is_none() {
            self.names_bytes += bytes;
            if self.map.len() > self.limits.max_entries {
                return Err(Problem::TooManyEntries(self.limits.max_entries));
            }
            if self.names_bytes > self.limits.max_names_bytes {
                return Err(Problem::TooManyNames(self.limits.max_names_bytes));
            }
        }
        Ok(())
    }

    /// Removes a name and everything below it.
    pub(super) fn remove(&mut self, path: &TreePath) {
        // Only a directory has something below it, and most names are new.
        if self.find_node(path).is_some_and(Node::is_dir) {
            self.remove_below(path, |_| true);
        }
        if self.map.remove(path).is_some() {
            self.names_bytes -= path.as_bytes().len();
        }
    }

    /// Removes what lies below `path` and is chosen.
    pub(super) fn remove_below(&mut self, path: &TreePath, chosen: impl Fn(&Node) -> bool) {
        let below = self.map.range(path.range_below());
        let gone = below.filter(|&(_, &number)| chosen(&self.nodes[number]));
        let gone: Vec<TreePath> = gone.map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.map.remove(&path);
            self.names_bytes -= path.as_bytes().len();
        }
    }

    /// Says whether an inode below `path` is one that is asked for.
    pub(super) fn any_below(&self, path: &TreePath, asked: impl Fn(&Node) -> bool) -> bool {
        self.map
            .range(path.range_below())
            .any(|(_, &number)| asked(&self.nodes[number]))
    }

    /// Returns where `path` really is: the links on the way to its parent followed, the last component not.
    /// What is missing on the way is taken as it is written.
    pub(super) fn locate(&mut self, path: &TreePath) -> Result<TreePath, Problem> {
        self.locate_with(path, None)
    }

    /// Does the same and makes the missing parents, as implied directories of layer `part`.
    pub(super) fn locate_or_make(&mut self, path: &TreePath, part: usize) -> Result<TreePath, Problem> {
        self.locate_with(path, Some(part))
    }

    fn locate_with(&mut self, path: &TreePath, make: Option<usize>) -> Result<TreePath, Problem> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(TreePath::root());
        };
        // The parents of a directory are directories, so nothing needs following when it is there.
        if self.find_node(&parent).is_some_and(Node::is_dir) {
            return Ok(path.clone());
        }
        let mut at = TreePath::root();
        let mut n_links = 0;
        let mut ahead: Vec<Vec<u8>> = parent.components().rev().map(<[u8]>::to_vec).collect();
        while let Some(part) = ahead.pop() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(Problem::LinkLoop);
            }
            if part == b".." {
                at = at.parent().unwrap_or_default();
                continue;
            }
            let next = at.join(&part);
            if next.as_bytes().len() > super::MAX_PATH_BYTES {
                return Err(Problem::PathTooLong);
            }
            match self.find_node(&next).map(|node| &node.kind) {
                Some(Kind::Dir { .. }) => at = next,
                Some(Kind::Symlink(target)) => {
                    n_links += 1;
                    if n_links > MAX_LINKS {
                        return Err(Problem::LinkLoop);
                    }
                    if target.starts_with(b"/") {
                        at = TreePath::root();
                    }
                    let parts = target.split(|&byte| byte == b'/');
                    ahead.extend(
                        parts
                            .rev()
                            .filter(|part| !matches!(*part, b"" | b"."))
                            .map(<[u8]>::to_vec),
                    );
                }
                Some(_) => return Err(Problem::ParentNotDirectory),
                None => {
                    if let Some(layer) = make {
                        let number = self.add_node(Node::implied(layer))?;
                        self.set(next.clone(), number)?;
                    }
                    at = next;
                }
            }
        }
        let located = at.join(name);
        if located.as_bytes().len() > super::MAX_PATH_BYTES {
            return Err(Problem::PathTooLong);
        }
        Ok(located)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::clean(text.as_bytes())
    }

    fn names(links: &[(&str, &str)]) -> Names {
        let mut names = Names::new(Limits::default());
        for (from, to) in links {
            let at = names.locate_or_make(&path(from), 0).unwrap();
            let kind = Kind::Symlink(to.as_bytes().to_vec());
            let number = names
                .add_node(Node {
                    meta: Meta::default(),
                    kind,
                    part: 0,
                })
                .unwrap();
            names.set(at, number).unwrap();
        }
        names
    }

    #[test]
    fn links_are_followed_inside() {
        let mut names = names(&[
            ("lib", "usr/lib"),
            ("var/run", "/run"),
            ("up", "../../../etc"),
            ("a", "b"),
            ("b", "a"),
            ("self", "self/x"),
        ]);
        for (from, to) in [
            ("lib/x", Ok("usr/lib/x")),
            ("var/run/x", Ok("run/x")),
            ("up/x", Ok("etc/x")),
            ("up", Ok("up")),
            ("a/x", Err(Problem::LinkLoop)),
            ("self/x", Err(Problem::LinkLoop)),
        ] {
            assert_eq!(names.locate(&path(from)), to.map(path), "{from}");
        }
        assert!(names.find(&path("usr/lib")).is_none(), "looking makes nothing");
        names.locate_or_make(&path("lib/x"), 0).unwrap();
        assert!(names.find_node(&path("usr/lib")).unwrap().is_dir());
    }

    #[test]
    fn removal_takes_exactly_what_is_below() {
        let mut names = names(&[("a/x", "1"), ("a-b/x", "1"), ("a/b/c", "1"), ("a0", "1")]);
        names.remove(&path("a"));
        let left: Vec<_> = names.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(left, ["/", "/a-b", "/a-b/x", "/a0"]);
        names.remove_below(&TreePath::root(), |_| true);
        assert_eq!(names.iter().count(), 1);
        assert_eq!(names.names_bytes, 0);
    }
}
