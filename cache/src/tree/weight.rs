//! What makes a stack of layers big: for each layer its heaviest files and directories, and what of it nobody sees any
//! more because a later layer removed or replaced it.
//!
//! Counts bytes of regular files, an inode once, however many names it has. Holes of sparse files count as bytes.

use std::collections::{HashMap, HashSet};

use super::node::{Inode, NodeKind};
use super::view::{View, entry_number};
use crate::layer::{Entry, Kind, TreePath};

/// What one layer of a view weighs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayerWeight {
    /// Regular files.
    pub n_files: usize,
    /// Their bytes.
    pub size_bytes: u64,
    /// Of these, bytes of files that later layers removed or replaced.
    pub hidden_bytes: u64,
    /// The heaviest of its files and directories, heaviest first.
    pub heaviest: Vec<Heavy>,
}

/// A file or directory of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heavy {
    /// Where.
    pub path: TreePath,
    /// Bytes of the file, or of all files that this layer has below the directory.
    pub size_bytes: u64,
    /// How many files there are below a directory; `None` for a file.
    pub n_files: Option<usize>,
    /// Of the bytes, those that nobody sees any more.
    pub hidden_bytes: u64,
}

/// What is known of a directory so far.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    size_bytes: u64,
    hidden_bytes: u64,
    n_files: usize,
    /// The heaviest thing directly in it.
    largest_bytes: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.size_bytes = self.size_bytes.saturating_add(other.size_bytes);
        self.hidden_bytes = self.hidden_bytes.saturating_add(other.hidden_bytes);
        self.n_files += other.n_files;
        self.largest_bytes = self.largest_bytes.max(other.size_bytes);
    }

    /// Says whether one thing in a directory is nearly all of it: then that one is told of instead.
    fn is_of_one(&self) -> bool {
        self.size_bytes - self.largest_bytes <= self.size_bytes / 10
    }
}

impl View {
    /// Returns what each layer weighs, base first, with at most `most` of its heaviest files and directories.
    pub fn weights(&self, most: usize) -> Vec<LayerWeight> {
        let visible: HashSet<Inode> = self
            .walk(&TreePath::root())
            .filter(|(_, node)| matches!(node.kind, NodeKind::File { .. }))
            .map(|(_, node)| node.inode)
            .collect();
        (0_u32..)
            .map_while(|part| Some((part, self.layer_entries(part as usize)?.0)))
            .map(|(part, entries)| weigh(part, entries, &visible, most))
            .collect()
    }
}

fn weigh(part: u32, entries: &[Entry], visible: &HashSet<Inode>, most: usize) -> LayerWeight {
    let mut weight = LayerWeight::default();
    let mut sums: HashMap<TreePath, Sum> = HashMap::new();
    // What is in a directory sorts behind it, so that from the end each is complete when its turn comes.
    for (number, entry) in entries.iter().enumerate().rev() {
        let sum = match &entry.kind {
            Kind::File(data) => {
                let inode = Inode {
                    part,
                    entry: entry_number(number),
                };
                let is_visible = visible.contains(&inode);
                let sum = Sum {
                    size_bytes: data.size_bytes,
                    hidden_bytes: if is_visible { 0 } else { data.size_bytes },
                    n_files: 1,
                    largest_bytes: 0,
                };
                weight.heaviest.push(heavy(entry, sum, None));
                sum
            }
            Kind::Dir { .. } => {
                let sum = sums.remove(&entry.path).unwrap_or_default();
                if !entry.path.is_root() && !sum.is_of_one() {
                    weight.heaviest.push(heavy(entry, sum, Some(sum.n_files)));
                }
                sum
            }
            _ => continue,
        };
        match entry.path.parent() {
            Some(parent) => sums.entry(parent).or_default().add(sum),
            None => {
                weight.n_files = sum.n_files;
                weight.size_bytes = sum.size_bytes;
                weight.hidden_bytes = sum.hidden_bytes;
            }
        }
        // So that memory doesn't grow with the layer.
        if weight.heaviest.len() > 4 * most + 1024 {
            keep_heaviest(&mut weight.heaviest, most);
        }
    }
    keep_heaviest(&mut weight.heaviest, most);
    weight
}

fn heavy(entry: &Entry, sum: Sum, n_files: Option<usize>) -> Heavy {
    Heavy {
        path: entry.path.clone(),
        size_bytes: sum.size_bytes,
        n_files,
        hidden_bytes: sum.hidden_bytes,
    }
}

fn keep_heaviest(heaviest: &mut Vec<Heavy>, most: usize) {
    heaviest.retain(|heavy| heavy.size_bytes > 0);
    heaviest.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.path.cmp(&b.path)));
    heaviest.truncate(most);
}
