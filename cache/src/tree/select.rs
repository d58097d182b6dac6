//! Finds what a selection means in a view: wildcards matched by component, links followed inside the tree.
//!
//! What belongs to a source, with what is left out of it, is in `selected.rs`; `--parents` in `parents.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::Error;
use super::ignore::IgnoreList;
use super::node::Node;
use super::pattern::{Pattern, has_wildcards};
use super::selected::Selected;
use super::selection::Selection;
use super::view::{Source, View};
use crate::layer::TreePath;

/// How many names an error message suggests.
const MAX_CANDIDATES: usize = 5;

impl View {
    /// Returns what the patterns stand for, in the order of the patterns, the matches of one sorted by path.
    ///
    /// A path without wildcards that isn't there is an error; a pattern may match nothing. Matched links that
    /// lead nowhere don't match.
    pub fn select(&self, selection: &Selection) -> Result<Vec<Selected<'_>>, Error> {
        let excludes = IgnoreList::new(selection.excludes.iter().map(String::as_str))?;
        let excludes = (!excludes.is_empty()).then(|| Arc::new(excludes));
        let mut out = Vec::new();
        for (pattern_index, pattern) in selection.patterns.iter().enumerate() {
            if selection.parents {
                self.select_parents(pattern_index, pattern, excludes.as_ref(), &mut out)?;
            } else {
                let start = out.len();
                self.select_pattern(pattern_index, pattern, &mut out)?;
                out[start..]
                    .iter_mut()
                    .for_each(|selected| selected.excludes.clone_from(&excludes));
            }
        }
        out.retain(|selected| !selected.is_excluded());
        out.iter().try_for_each(|selected| self.check_scanned(selected))?;
        Ok(out)
    }

    /// Finds what one pattern stands for, links followed.
    pub(super) fn select_pattern<'v>(
        &'v self,
        pattern_index: usize,
        pattern: &str,
        out: &mut Vec<Selected<'v>>,
    ) -> Result<(), Error> {
        let path = TreePath::clean(pattern.as_bytes());
        if path.components().any(has_wildcards) {
            self.select_matches(pattern_index, pattern, &path, out)?;
        } else {
            out.push(self.select_literal(pattern_index, pattern, &path)?);
        }
        Ok(())
    }

    fn select_literal(
        &self,
        pattern_index: usize,
        pattern: &str,
        path: &TreePath,
    ) -> Result<Selected<'_>, Error> {
        let name = path.name().unwrap_or_default().to_vec();
        let missing = || Error::NotFound {
            pattern: pattern.to_owned(),
            candidates: self.similar(path),
        };
        let resolved = match self.resolve(path) {
            Err(Error::NotDirectory { .. }) => return Err(missing()),
            other => other?,
        };
        let node = resolved.node.ok_or_else(missing)?;
        Ok(Selected {
            pattern_index,
            wildcard: false,
            source: resolved.path,
            name,
            node,
            parents: None,
            excludes: None,
        })
    }

    fn select_matches<'v>(
        &'v self,
        pattern_index: usize,
        pattern: &str,
        path: &TreePath,
        out: &mut Vec<Selected<'v>>,
    ) -> Result<(), Error> {
        let bad = || Error::BadPattern {
            pattern: pattern.to_owned(),
        };
        let compile = |part: &[u8]| Pattern::component(part).ok_or_else(bad);
        // A literal component stays literal: its backslashes are part of the name.
        let parts: Vec<(Vec<u8>, Option<Pattern>)> = path
            .components()
            .map(|part| {
                Ok((
                    part.to_vec(),
                    has_wildcards(part).then(|| compile(part)).transpose()?,
                ))
            })
            .collect::<Result<_, Error>>()?;
        // Breadth first keeps the order by path: what one directory matches replaces it in its place.
        let mut reached: VecDeque<(TreePath, Vec<u8>, Node<'v>)> = VecDeque::new();
        let root = TreePath::root();
        reached.extend(self.lookup(&root).map(|node| (root, Vec::new(), node)));
        for (name, pattern) in &parts {
            for _ in 0..reached.len() {
                let Some((dir, _, node)) = reached.pop_front() else {
                    break;
                };
                if !node.is_dir() {
                    continue;
                }
                let Some(pattern) = pattern else {
                    reached.extend(self.follow(&dir, name));
                    continue;
                };
                for (name, _) in self.children(&dir).filter(|(name, _)| pattern.matches(name)) {
                    reached.extend(self.follow(&dir, name));
                }
            }
        }
        out.extend(reached.into_iter().map(|(source, name, node)| Selected {
            pattern_index,
            wildcard: true,
            source,
            name,
            node,
            parents: None,
            excludes: None,
        }));
        Ok(())
    }

    /// Goes from a directory to one of its names, and through the link that may be there.
    fn follow(&self, dir: &TreePath, name: &[u8]) -> Option<(TreePath, Vec<u8>, Node<'_>)> {
        let resolved = self.resolve(&dir.join(name)).ok()?;
        Some((resolved.path, name.to_vec(), resolved.node?))
    }

    /// Refuses to answer for a part of a context that was never looked at: it would look empty.
    fn check_scanned(&self, selected: &Selected<'_>) -> Result<(), Error> {
        match selected.node.is_dir() {
            true => self.check_complete(&selected.source),
            false => Ok(()),
        }
    }

    /// Refuses to walk a directory of a context that was not scanned as a whole.
    pub(super) fn check_complete(&self, dir: &TreePath) -> Result<(), Error> {
        match self.parts.first().map(|part| &part.source) {
            Some(Source::Context(context)) if !context.is_complete(dir) => {
                Err(Error::NotScanned { path: dir.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Returns names beside the first missing component of `path`, the most similar first.
    pub(super) fn similar(&self, path: &TreePath) -> Vec<String> {
        let mut at = TreePath::root();
        for name in path.components() {
            match self.resolve(&at.join(name)) {
                Ok(resolved) if resolved.node.is_some_and(|node| node.is_dir()) => at = resolved.path,
                _ => {
                    let name = String::from_utf8_lossy(name).to_lowercase();
                    let mut near: Vec<(usize, String)> = self
                        .children(&at)
                        .map(|(other, _)| String::from_utf8_lossy(other).into_owned())
                        .map(|other| (strsim::osa_distance(&name, &other.to_lowercase()), other))
                        .filter(|(distance, other)| *distance <= 2.max(other.len().max(name.len()) / 3))
                        .collect();
                    near.sort();
                    near.truncate(MAX_CANDIDATES);
                    return near
                        .into_iter()
                        .map(|(_, name)| at.join(name.as_bytes()).to_string())
                        .collect();
                }
            }
        }
        Vec::new()
    }
}
