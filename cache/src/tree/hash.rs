//! The tree hash: what a step sees of another tree, as one number. Equal hashes mean that copying the selection
//! gives equal results, but for times.
//!
//! An allow-list: what enters is written in `encode`, and the table test shows both what changes the hash and what
//! doesn't. Everything is length-prefixed, so that no two trees encode alike.

use std::collections::HashMap;

use super::error::Error;
use super::node::{Inode, Node, NodeKind};
use super::selected::Selected;
use super::selection::Selection;
use super::view::View;
use crate::digest::TreeHash;
use crate::layer::{Meta, TreePath};

/// Changes whenever the encoding does; old cache records then don't match any more.
const VERSION: &[u8] = b"ashlar tree 2";

/// What of a node counts.
enum Count {
    /// Type only: the top of a directory source isn't copied itself.
    Type,
    /// Everything but times.
    All,
}

impl View {
    /// Hashes what a selection stands for. For a context this reads the selected files that the memo doesn't know.
    ///
    /// Counts: the order of sources, names found by wildcards, paths below a directory source, types, modes,
    /// owners, link targets, attributes, device numbers, contents, which names are hard links of each other; with
    /// `parents` the paths from the pivot on and the directories above.
    /// Doesn't count: times, the name of a source written without wildcards, anything of a directory source itself,
    /// what is excluded, and how that was written.
    pub fn tree_hash(&self, selection: &Selection) -> Result<TreeHash, Error> {
        self.hash_selected(&self.select(selection)?)
    }

    /// Hashes sources that were selected before; see [`View::tree_hash`].
    pub fn hash_selected(&self, selected: &[Selected<'_>]) -> Result<TreeHash, Error> {
        let walks: Vec<Vec<(TreePath, Node<'_>)>> =
            selected.iter().map(|source| self.entries_of(source)).collect();
        let below = walks.iter().flatten().map(|(_, node)| *node);
        let tops = selected.iter().filter(|source| source.parents.is_none());
        let files: Vec<Node<'_>> = tops.map(|source| source.node).chain(below).collect();
        self.hash_contents(&files)?;

        let mut encoder = Encoder {
            hasher: blake3::Hasher::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES + 4096),
        };
        encoder.bytes(VERSION);
        encoder.number(selected.len() as u64);
        for (source, walk) in selected.iter().zip(&walks) {
            encoder.number(source.pattern_index as u64);
            let mut names = HashMap::new();
            encoder.number(source.parents.is_some().into());
            if source.parents.is_none() {
                encoder.bytes(if source.wildcard { &source.name } else { b"" });
                let count = if source.node.is_dir() {
                    Count::Type
                } else {
                    Count::All
                };
                self.encode(&mut encoder, &TreePath::root(), &source.node, count, &mut names)?;
            }
            encoder.number(walk.len() as u64);
            for (path, node) in walk {
                self.encode(&mut encoder, path, node, Count::All, &mut names)?;
            }
        }
        Ok(encoder.finish())
    }

    fn encode(
        &self,
        encoder: &mut Encoder,
        path: &TreePath,
        node: &Node<'_>,
        count: Count,
        names: &mut HashMap<Inode, TreePath>,
    ) -> Result<(), Error> {
        encoder.bytes(path.as_bytes());
        if node.has_links {
            // Another name of what came before under this source: content and metadata are the same by nature.
            if let Some(first) = names.get(&node.inode) {
                encoder.number(b'h'.into());
                encoder.bytes(first.as_bytes());
                return Ok(());
            }
            names.insert(node.inode, path.clone());
        }
        match node.kind {
            NodeKind::File { size_bytes } => {
                encoder.number(b'f'.into());
                encoder.number(size_bytes);
                encoder.bytes(self.content(node)?.as_bytes());
            }
            NodeKind::Dir => encoder.number(b'd'.into()),
            NodeKind::Symlink(target) => {
                encoder.number(b'l'.into());
                encoder.bytes(target);
            }
            NodeKind::CharDevice(major, minor) => encoder.device(b'c', major, minor),
            NodeKind::BlockDevice(major, minor) => encoder.device(b'b', major, minor),
            NodeKind::Fifo => encoder.number(b'p'.into()),
        }
        match count {
            Count::Type => {}
            Count::All => encoder.meta(node.meta, matches!(node.kind, NodeKind::Symlink(_))),
        }
        Ok(())
    }
}

/// Small writes cost more than hashing, so they are gathered.
const BUFFER_BYTES: usize = 64 * 1024;

struct Encoder {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl Encoder {
    fn number(&mut self, number: u64) {
        self.buffer.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn device(&mut self, tag: u8, major: u32, minor: u32) {
        self.number(tag.into());
        self.number(major.into());
        self.number(minor.into());
    }

    fn meta(&mut self, meta: &Meta, is_symlink: bool) {
        // Some file systems report 0o777 for links, some tars 0o644; it means nothing.
        self.number(if is_symlink { 0 } else { meta.mode.into() });
        self.number(meta.uid.into());
        self.number(meta.gid.into());
        self.number(meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn finish(mut self) -> TreeHash {
        self.hasher.update(&self.buffer);
        self.hasher.finalize().into()
    }
}
