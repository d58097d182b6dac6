//! `--parents`: sources that keep the directories above them, from a pivot on. Spec: dockerfile.md §10.5.
//!
//! Up to the pivot (the first `/./`) a path is like any other. Behind it `**` matches any number of levels, and links
//! are what they are: a link at the end is copied as a link, one in the middle leads nowhere.

use std::sync::Arc;

use super::error::Error;
use super::ignore::IgnoreList;
use super::node::Node;
use super::pattern::{Pattern, has_wildcards};
use super::selected::{Parents, Selected};
use super::view::View;
use crate::layer::TreePath;

/// A pattern of `--parents`, in two.
pub(super) struct Pivoted {
    /// As written, up to the pivot; `/` without one.
    pub(super) base: String,
    /// What is made again, by components.
    pub(super) rest: TreePath,
}

impl Pivoted {
    pub(super) fn split(pattern: &str) -> Self {
        let (base, rest) = pattern.split_once("/./").unwrap_or(("", pattern));
        Self {
            base: format!("/{}", base.trim_start_matches('/')),
            rest: TreePath::clean(rest.as_bytes()),
        }
    }
}

/// Says whether a component crosses slashes.
pub(super) fn is_deep(component: &[u8]) -> bool {
    component.windows(2).any(|pair| pair == b"**")
}

impl View {
    /// Finds what one pattern stands for, with the directories above.
    pub(super) fn select_parents<'v>(
        &'v self,
        pattern_index: usize,
        pattern: &str,
        excludes: Option<&Arc<IgnoreList>>,
        out: &mut Vec<Selected<'v>>,
    ) -> Result<(), Error> {
        let pivoted = Pivoted::split(pattern);
        let rest: Vec<&[u8]> = pivoted.rest.components().collect();
        let mut bases = Vec::new();
        self.select_pattern(pattern_index, &pivoted.base, &mut bases)
            .map_err(|error| match error {
                Error::NotFound { candidates, .. } => Error::NotFound {
                    pattern: pattern.to_owned(),
                    candidates,
                },
                other => other,
            })?;
        let is_literal = !bases.iter().any(|base| base.wildcard) && !rest.iter().copied().any(has_wildcards);
        let n_before = out.len();
        for base in bases {
            for path in self.matches_below(&base.source, &rest, pattern)? {
                let source = base.source.concat(&path);
                let Some(node) = self.lookup(&source) else {
                    continue;
                };
                let above = self.above(&base.source, &path);
                out.push(Selected {
                    pattern_index,
                    wildcard: !is_literal,
                    name: source.name().unwrap_or_default().to_vec(),
                    source,
                    node,
                    parents: Some(Parents { path, above }),
                    excludes: excludes.cloned(),
                });
            }
        }
        if is_literal && out.len() == n_before {
            let path = TreePath::clean(pattern.as_bytes());
            return Err(Error::NotFound {
                pattern: pattern.to_owned(),
                candidates: self.similar(&path),
            });
        }
        Ok(())
    }

    /// Returns the paths below `base` that match, in order; no link is followed.
    fn matches_below(&self, base: &TreePath, rest: &[&[u8]], pattern: &str) -> Result<Vec<TreePath>, Error> {
        let bad = || Error::BadPattern {
            pattern: pattern.to_owned(),
        };
        let mut reached = vec![TreePath::root()];
        for (number, name) in rest.iter().enumerate() {
            let mut next = Vec::new();
            reached.retain(|path| self.lookup(&base.concat(path)).is_some_and(|node| node.is_dir()));
            if is_deep(name) {
                let deep = Pattern::ignore(&rest[number..].join(&b'/')).ok_or_else(bad)?;
                for path in &reached {
                    self.match_deep(&base.concat(path), path, &deep, &mut next)?;
                }
                return Ok(next);
            }
            let pattern = has_wildcards(name)
                .then(|| Pattern::component(name).ok_or_else(bad))
                .transpose()?;
            for path in &reached {
                match &pattern {
                    None => next.push(path.join(name)),
                    Some(pattern) => {
                        let children = self.children(&base.concat(path));
                        let matching = children.filter(|(name, _)| pattern.matches(name));
                        next.extend(matching.map(|(name, _)| path.join(name)));
                    }
                }
            }
            reached = next;
        }
        reached.retain(|path| self.lookup(&base.concat(path)).is_some());
        Ok(reached)
    }

    /// Adds what matches below `dir`; what lies below a match belongs to the match.
    fn match_deep(
        &self,
        dir: &TreePath,
        path: &TreePath,
        deep: &Pattern,
        out: &mut Vec<TreePath>,
    ) -> Result<(), Error> {
        self.check_complete(dir)?;
        let mut last: Option<TreePath> = None;
        for (found, _) in self.walk(dir) {
            if last.as_ref().is_some_and(|last| found.below(last).is_some()) {
                continue;
            }
            let below = found.below(dir).expect("because a walk stays below its start");
            if deep.matches(below.as_bytes()) {
                out.push(path.concat(&below));
                last = Some(found);
            }
        }
        Ok(())
    }

    /// Returns the directories between `base` and `path` below it, outermost first.
    fn above<'v>(&'v self, base: &TreePath, path: &TreePath) -> Vec<(TreePath, Node<'v>)> {
        let ancestors = std::iter::successors(path.parent(), TreePath::parent);
        let mut above: Vec<_> = ancestors
            .filter(|path| !path.is_root())
            .filter_map(|path| Some((path.clone(), self.lookup(&base.concat(&path))?)))
            .collect();
        above.reverse();
        above
    }
}
