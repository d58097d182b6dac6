//! Tests of trees, by room; what they share is here.

mod compare;
mod context;
mod flags;
mod model;
mod select;
mod view;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use super::*;
use crate::layer::{Entry, FileData, Kind, Meta, TreePath};

pub(super) fn path(text: &str) -> TreePath {
    TreePath::clean(text.as_bytes())
}

/// A layer in memory whose files' bytes are in a temporary file.
pub(super) struct TestLayer {
    entries: Vec<Entry>,
    file: File,
}

impl Part for TestLayer {
    fn index(&self) -> Result<&[Entry], Box<dyn std::error::Error + Send + Sync>> {
        Ok(&self.entries)
    }

    fn file(&self) -> &File {
        &self.file
    }
}

impl TestLayer {
    pub(super) fn new(mut entries: Vec<Entry>, bytes: &[u8]) -> Arc<Self> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(Self { entries, file })
    }

    /// Reads lines `PATH KIND [MODE]`: `=content` a file, `dir`, `opaque`, `implied`, `>target` a link, `@path` a
    /// hard link, `gone` a whiteout, `pipe`, `char:1:3`, `block:8:0`.
    pub(super) fn parse(text: &str) -> Arc<Self> {
        let mut bytes = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let (at, kind) = (path(words.next().unwrap()), words.next().unwrap());
            let mode = words
                .next()
                .map_or(0o755, |mode| u32::from_str_radix(mode, 8).unwrap());
            let kind = match (kind, kind.split_at(1)) {
                (_, ("=", content)) => {
                    bytes.resize(bytes.len().next_multiple_of(512), 0);
                    let offset = bytes.len() as u64;
                    bytes.extend_from_slice(content.as_bytes());
                    let hash = blake3::hash(content.as_bytes()).into();
                    Kind::File(FileData {
                        size_bytes: content.len() as u64,
                        offset,
                        content: hash,
                    })
                }
                (_, (">", target)) => Kind::Symlink(target.into()),
                (_, ("@", target)) => Kind::Hardlink(path(target)),
                ("dir", _) => Kind::Dir {
                    opaque: false,
                    implied: false,
                },
                ("opaque", _) => Kind::Dir {
                    opaque: true,
                    implied: false,
                },
                ("implied", _) => Kind::Dir {
                    opaque: false,
                    implied: true,
                },
                ("gone", _) => Kind::Whiteout,
                ("pipe", _) => Kind::Fifo,
                ("char:1:3", _) => Kind::CharDevice(1, 3),
                ("block:8:0", _) => Kind::BlockDevice(8, 0),
                other => panic!("{other:?}"),
            };
            entries.push(Entry {
                path: at,
                meta: Meta {
                    mode,
                    ..Meta::default()
                },
                kind,
            });
        }
        Self::new(entries, &bytes)
    }
}

pub(super) fn stack(layers: &[&str]) -> View {
    View::of_layers(layers.iter().map(|text| TestLayer::parse(text))).unwrap()
}

/// Draws a view, one line per path, in the words of [`TestLayer::parse`].
pub(super) fn draw(view: &View) -> String {
    let mut first_names = std::collections::HashMap::new();
    let mut out = String::new();
    for (path, node) in view.walk(&TreePath::root()) {
        let first = first_names.entry(node.inode).or_insert_with(|| path.clone());
        let kind = match node.kind {
            _ if *first != path => format!("@{}", String::from_utf8_lossy(first.as_bytes())),
            NodeKind::File { .. } => {
                let bytes = view.read_small(&path, 1 << 20).unwrap().unwrap();
                format!("={}", String::from_utf8(bytes).unwrap())
            }
            NodeKind::Dir => "dir".to_owned(),
            NodeKind::Symlink(target) => format!(">{}", String::from_utf8_lossy(target)),
            NodeKind::CharDevice(major, minor) => format!("char:{major}:{minor}"),
            NodeKind::BlockDevice(major, minor) => format!("block:{major}:{minor}"),
            NodeKind::Fifo => "pipe".to_owned(),
        };
        let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
        out.push_str(&format!("{text} {kind} {:o}\n", node.meta.mode));
    }
    out
}
