//! One source of a selection: where it is, what belongs to it, and what `--exclude` leaves out of that.
//!
//! Both the hash and the copy go by [`View::entries_of`], so that they can't disagree about what is copied.

use std::sync::Arc;

use super::ignore::{IgnoreList, Matched};
use super::node::Node;
use super::view::{Children, View};
use crate::layer::TreePath;

/// One source that a selection stands for.
#[derive(Debug, Clone)]
pub struct Selected<'v> {
    /// Which of the selection's patterns it belongs to.
    pub pattern_index: usize,
    /// Whether it was found by wildcards, so that its name matters.
    pub wildcard: bool,
    /// Where it is, without links.
    pub source: TreePath,
    /// The last component as written or as matched, before links were followed: what a file is called below a
    /// destination directory. Empty for the root.
    pub name: Vec<u8>,
    /// What it is; a symbolic link only with `parents`.
    pub node: Node<'v>,
    /// `--parents`: where it is made again below the destination.
    pub parents: Option<Parents<'v>>,
    pub(super) excludes: Option<Arc<IgnoreList>>,
}

/// What is made again of the path to a source.
#[derive(Debug, Clone)]
pub struct Parents<'v> {
    /// The source's path from the pivot on; the root when the pivot is its end.
    pub path: TreePath,
    /// The directories above it, each with its path from the pivot on, outermost first.
    pub above: Vec<(TreePath, Node<'v>)>,
}

impl Selected<'_> {
    /// Says whether a file was named or matched that `--exclude` leaves out: its base name counts. Spec:
    /// dockerfile.md §21, quirk 14.
    pub(super) fn is_excluded(&self) -> bool {
        let Some(excludes) = self.excludes.as_ref().filter(|_| !self.node.is_dir()) else {
            return false;
        };
        let is_whole_path = self
            .parents
            .as_ref()
            .is_some_and(|parents| excludes.matches(&parents.path));
        is_whole_path || excludes.matches(&TreePath::root().join(&self.name))
    }
}

impl View {
    /// Returns what is copied of a source beside the source itself, with paths below the destination directory,
    /// directories first, without what is excluded.
    ///
    /// Of a directory this is what lies below it, of a file nothing. With `parents` it is everything: the
    /// directories above, the source, and what lies below. An excluded directory is there only for what is
    /// re-included in it.
    pub fn entries_of<'v>(&'v self, selected: &Selected<'v>) -> Vec<(TreePath, Node<'v>)> {
        let (prefix, mut out) = match &selected.parents {
            Some(parents) => (parents.path.clone(), parents.above.clone()),
            None if selected.node.is_dir() => (TreePath::root(), Vec::new()),
            None => return Vec::new(),
        };
        let Some(excludes) = &selected.excludes else {
            if !prefix.is_root() {
                out.push((prefix.clone(), selected.node));
            }
            if selected.node.is_dir() {
                out.extend(self.walk(&selected.source).map(|(path, node)| {
                    let below = path
                        .below(&selected.source)
                        .expect("because a walk stays below its start");
                    (prefix.concat(&below), node)
                }));
            }
            return out;
        };
        let mut filter = Filter {
            view: self,
            excludes,
            out: Vec::new(),
            waiting: Vec::new(),
        };
        filter.run(selected, &prefix, out);
        filter.out
    }
}

/// A directory on the way down.
struct Level<'v> {
    source: TreePath,
    /// Below the destination.
    path: TreePath,
    children: Children<'v>,
    matched: Matched,
    /// How many directories were waiting when it was entered.
    n_waiting: usize,
}

/// A walk that leaves out what is excluded.
struct Filter<'v, 'e> {
    view: &'v View,
    excludes: &'e IgnoreList,
    out: Vec<(TreePath, Node<'v>)>,
    /// Directories that are made when something below them is.
    waiting: Vec<(TreePath, Node<'v>)>,
}

impl<'v> Filter<'v, '_> {
    fn run(&mut self, selected: &Selected<'v>, prefix: &TreePath, above: Vec<(TreePath, Node<'v>)>) {
        let mut matched = self.excludes.at_root();
        for (path, _) in &above {
            matched = self.excludes.enter(&matched, path).1;
        }
        self.waiting = above;
        if !prefix.is_root() {
            let (ignored, below) = self.excludes.enter(&matched, prefix);
            matched = below;
            // Excluded files were dropped when they were selected.
            self.offer(prefix.clone(), selected.node, ignored);
        }
        if !selected.node.is_dir() {
            return;
        }
        let mut stack = vec![Level {
            source: selected.source.clone(),
            path: prefix.clone(),
            children: self.view.children(&selected.source),
            matched,
            n_waiting: self.waiting.len(),
        }];
        while let Some(level) = stack.last_mut() {
            let Some((name, node)) = level.children.next() else {
                self.waiting.truncate(level.n_waiting);
                stack.pop();
                continue;
            };
            let path = level.path.join(name);
            if !node.is_dir() {
                let ignored = self.excludes.ignores(&level.matched, &path);
                self.offer(path, node, ignored);
                continue;
            }
            let (ignored, matched) = self.excludes.enter(&level.matched, &path);
            if ignored && !self.excludes.could_contain(&path) {
                continue;
            }
            let source = level.source.join(name);
            // Making it makes those above, which is why they are counted first.
            let n_waiting = self.waiting.len();
            self.offer(path.clone(), node, ignored);
            stack.push(Level {
                children: self.view.children(&source),
                source,
                path,
                matched,
                n_waiting: n_waiting.min(self.waiting.len()),
            });
        }
    }

    /// Takes a path, with the directories that were waiting for one, or lets an excluded directory wait.
    fn offer(&mut self, path: TreePath, node: Node<'v>, ignored: bool) {
        match (ignored, node.is_dir()) {
            (false, _) => {
                self.out.append(&mut self.waiting);
                self.out.push((path, node));
            }
            (true, true) => self.waiting.push((path, node)),
            (true, false) => {}
        }
    }
}
