//! The files that differ, and how they are told.

use std::collections::HashSet;

use cache::tree::{Aspect, Inode, Node, NodeKind, Times, View};
use serde_json::{Value, json};

use crate::clock;
use crate::commands::human;
use crate::report::Failure;

/// A path that isn't the same in both images.
#[derive(Debug)]
pub(super) struct FileChange {
    path: String,
    before: Option<Facts>,
    after: Option<Facts>,
    aspects: Vec<Aspect>,
}

/// What is known of a file.
#[derive(Debug)]
struct Facts {
    kind: &'static str,
    /// Of a regular file; 0 for a further name of one that was counted.
    size_bytes: Option<u64>,
    /// Of a symbolic link.
    target: Option<String>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime_unix: i64,
}

/// Compares two trees.
pub(super) fn changes(from: &View, to: &View, times: Times) -> Result<Vec<FileChange>, Failure> {
    let (mut seen_before, mut seen_after) = (HashSet::new(), HashSet::new());
    let mut changes = Vec::new();
    for change in from.changes(to, times) {
        let change = change.map_err(|error| Failure::machine(error.to_string()))?;
        changes.push(FileChange {
            path: change.path.to_string(),
            before: change.before.map(|node| Facts::of(&node, &mut seen_before)),
            after: change.after.map(|node| Facts::of(&node, &mut seen_after)),
            aspects: change.aspects,
        });
    }
    Ok(changes)
}

impl Facts {
    fn of(node: &Node<'_>, seen: &mut HashSet<Inode>) -> Self {
        let (kind, size_bytes, target) = match node.kind {
            NodeKind::File { size_bytes } => {
                let is_counted = node.has_links && !seen.insert(node.inode);
                ("file", Some(if is_counted { 0 } else { size_bytes }), None)
            }
            NodeKind::Dir => ("directory", None, None),
            NodeKind::Symlink(target) => {
                let target = String::from_utf8_lossy(target).into_owned();
                ("symlink", None, Some(target))
            }
            NodeKind::CharDevice(..) => ("character device", None, None),
            NodeKind::BlockDevice(..) => ("block device", None, None),
            NodeKind::Fifo => ("pipe", None, None),
        };
        Self {
            kind,
            size_bytes,
            target,
            mode: node.meta.mode,
            uid: node.meta.uid,
            gid: node.meta.gid,
            mtime_unix: node.meta.mtime.seconds,
        }
    }

    /// Says what it is, in brackets after a path.
    fn text(&self) -> String {
        match (&self.target, self.size_bytes) {
            (Some(target), _) => format!("-> {target}"),
            (None, Some(bytes)) => human::size(bytes),
            (None, None) => self.kind.to_owned(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "Type": self.kind,
            "Size": self.size_bytes,
            "Target": self.target,
            "Mode": format!("{:04o}", self.mode),
            "Uid": self.uid,
            "Gid": self.gid,
            "Mtime": clock::rfc3339(self.mtime_unix),
        })
    }
}

impl FileChange {
    /// One line: docker's letters A, C, D, the path, and what there is to know.
    pub(super) fn text(&self) -> String {
        let path = &self.path;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                let said: Vec<String> = self
                    .aspects
                    .iter()
                    .map(|aspect| said(*aspect, before, after))
                    .collect();
                format!("C {path} ({})", said.join(", "))
            }
            (Some(before), None) => format!("D {path} ({})", before.text()),
            (None, Some(after)) => format!("A {path} ({})", after.text()),
            (None, None) => String::new(),
        }
    }

    pub(super) fn json(&self) -> Value {
        let word = match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        json!({
            "Path": self.path,
            "Change": word,
            "Differs": self.aspects.iter().map(|aspect| name(*aspect)).collect::<Vec<_>>(),
            "Before": self.before.as_ref().map(Facts::json),
            "After": self.after.as_ref().map(Facts::json),
        })
    }
}

fn name(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Type => "type",
        Aspect::Content => "content",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Attributes => "attributes",
        Aspect::Time => "time",
    }
}

fn said(aspect: Aspect, before: &Facts, after: &Facts) -> String {
    let name = name(aspect);
    match aspect {
        Aspect::Type => format!("{name} {} → {}", before.kind, after.kind),
        Aspect::Content if before.text() != after.text() => {
            format!("{name} {} → {}", before.text(), after.text())
        }
        Aspect::Content | Aspect::Attributes => name.to_owned(),
        Aspect::Mode => format!("{name} {:04o} → {:04o}", before.mode, after.mode),
        Aspect::Owner => format!(
            "{name} {}:{} → {}:{}",
            before.uid, before.gid, after.uid, after.gid
        ),
        Aspect::Time => format!(
            "{name} {} → {}",
            clock::rfc3339(before.mtime_unix),
            clock::rfc3339(after.mtime_unix)
        ),
    }
}

/// Counts what was added, removed and changed, with its bytes.
pub(super) fn summary(files: &[FileChange]) -> String {
    let mut counted = [(0_usize, 0_u64); 3];
    for file in files {
        let bytes = |facts: &Option<Facts>| facts.as_ref().and_then(|facts| facts.size_bytes).unwrap_or(0);
        let at = match (&file.before, &file.after) {
            (None, _) => 0,
            (_, None) => 1,
            _ => 2,
        };
        counted[at].0 += 1;
        counted[at].1 += match at {
            1 => bytes(&file.before),
            _ => bytes(&file.after),
        };
    }
    let [added, removed, changed] = counted;
    let said =
        |(number, bytes): (usize, u64), word: &str| format!("{number} {word} ({})", human::size(bytes));
    format!(
        "files: {}, {}, {}",
        said(added, "added"),
        said(removed, "removed"),
        said(changed, "changed")
    )
}
