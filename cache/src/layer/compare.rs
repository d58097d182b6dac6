//! What differs between two layers, path by path, from their indexes alone.
//!
//! For people who ask what changed; times don't count, as they don't in tree hashes.

use super::{Entry, Kind, TreePath};

/// How one path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Only the newer layer has it.
    Added,
    /// Only the older layer has it.
    Removed,
    /// It is of another type.
    Type,
    /// A file's bytes, a link's target, a device's numbers.
    Content,
    /// Permissions.
    Mode,
    /// User or group.
    Owner,
    /// Extended attributes.
    Attributes,
}

/// Compares two indexes, which are sorted by path; the result is, too. Of several differences at one path the first in
/// the order of [`Difference`] is told. Directories that are only implied are never told of.
pub fn differences<'a>(old: &'a [Entry], new: &'a [Entry]) -> Vec<(&'a TreePath, Difference)> {
    let (mut old, mut new) = (told(old).peekable(), told(new).peekable());
    let mut out = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return out,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.path.cmp(&b.path),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        let found = match (before, after) {
            (Some(a), Some(b)) => difference(a, b).map(|what| (&b.path, what)),
            (Some(a), None) => Some((&a.path, Difference::Removed)),
            (None, Some(b)) => Some((&b.path, Difference::Added)),
            (None, None) => None,
        };
        out.extend(found);
    }
}

fn told(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries
        .iter()
        .filter(|entry| !matches!(entry.kind, Kind::Dir { implied: true, .. }))
}

fn difference(old: &Entry, new: &Entry) -> Option<Difference> {
    if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
        return Some(Difference::Type);
    }
    let same = match (&old.kind, &new.kind) {
        (Kind::File(a), Kind::File(b)) => (a.size_bytes, a.content) == (b.size_bytes, b.content),
        (a, b) => a == b,
    };
    let (a, b) = (&old.meta, &new.meta);
    [
        (same, Difference::Content),
        (a.mode == b.mode, Difference::Mode),
        ((a.uid, a.gid) == (b.uid, b.gid), Difference::Owner),
        (a.xattrs == b.xattrs, Difference::Attributes),
    ]
    .into_iter()
    .find_map(|(is_equal, what)| (!is_equal).then_some(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentHash;
    use crate::layer::{FileData, Meta, Timestamp, Xattrs};

    /// An entry from words: path, kind and content, mode, owner, time.
    fn entry(text: &str) -> Entry {
        let words: Vec<&str> = text.split(' ').collect();
        let (kind, content) = words[1].split_once('=').unwrap_or((words[1], ""));
        Entry {
            path: TreePath::clean(words[0].as_bytes()),
            kind: match kind {
                "file" => Kind::File(FileData {
                    size_bytes: content.len() as u64,
                    // Where it is doesn't count.
                    offset: words.len() as u64,
                    content: ContentHash::from_bytes(*blake3::hash(content.as_bytes()).as_bytes()),
                }),
                "link" => Kind::Symlink(content.into()),
                "implied" => Kind::Dir {
                    opaque: false,
                    implied: true,
                },
                _ => Kind::Dir {
                    opaque: false,
                    implied: false,
                },
            },
            meta: Meta {
                mode: u32::from_str_radix(words[2], 8).unwrap(),
                uid: words[3].parse().unwrap(),
                gid: 0,
                mtime: Timestamp {
                    seconds: words.get(4).map_or(0, |time| time.parse().unwrap()),
                    nanos: 0,
                },
                xattrs: Xattrs::default(),
            },
        }
    }

    fn check(old: &[&str], new: &[&str], expected: &[(&str, Difference)]) {
        let entries = |lines: &[&str]| lines.iter().map(|line| entry(line)).collect::<Vec<_>>();
        let (old, new) = (entries(old), entries(new));
        let found: Vec<(String, Difference)> = differences(&old, &new)
            .into_iter()
            .map(|(path, what)| (path.to_string(), what))
            .collect();
        let expected: Vec<(String, Difference)> = expected
            .iter()
            .map(|(path, what)| ((*path).to_owned(), *what))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn differences_are_told_by_path() {
        check(&[], &[], &[]);
        check(&["a file=1 644 0 5"], &["a file=1 644 0 6"], &[]);
        check(
            &["a file=1 644 0"],
            &["a file=2 644 0"],
            &[("/a", Difference::Content)],
        );
        check(
            &["a file=1 644 0"],
            &["a file=1 755 0"],
            &[("/a", Difference::Mode)],
        );
        check(
            &["a file=1 644 0"],
            &["a file=1 644 7"],
            &[("/a", Difference::Owner)],
        );
        check(
            &["a file=1 644 0"],
            &["a link=1 644 0"],
            &[("/a", Difference::Type)],
        );
        check(
            &["a link=1 644 0"],
            &["a link=2 644 0"],
            &[("/a", Difference::Content)],
        );
        let expected = [("/b", Difference::Removed), ("/c", Difference::Added)];
        check(
            &["a implied 755 0", "b dir 755 0", "d file=1 644 0"],
            &["c dir 755 0", "d file=1 644 0"],
            &expected,
        );
    }
}
