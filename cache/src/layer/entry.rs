//! What a layer says about one path: the vocabulary that the tar reader, the index, the EROFS writer, the
//! merged view and the packers share. Plain data, no I/O.

use std::ops::Bound;

use crate::digest::ContentHash;

/// A path inside a layer or tree: relative, no leading or trailing slash, no empty, `.` or `..` component.
/// The root itself is the empty path. Bytes, because tars and file systems know no encoding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl std::fmt::Debug for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl std::fmt::Display for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl TreePath {
    /// Returns the root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Cleans `path` as if it were rooted: empty and `.` components vanish, `..` stops at the root.
    pub fn clean(path: &[u8]) -> Self {
        let mut out = Self::default();
        for part in path.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => out = out.parent().unwrap_or_default(),
                name => out.push(name),
            }
        }
        out
    }

    /// Cleans `path` but refuses any `..`, for archives; `None` when there is one, or a NUL.
    pub fn strict(path: &[u8]) -> Option<Self> {
        let bad = path.contains(&0) || path.split(|&byte| byte == b'/').any(|part| part == b"..");
        (!bad).then(|| Self::clean(path))
    }

    /// Takes `path` as it is; `None` when it isn't clean. For what was clean when it was stored.
    pub(crate) fn checked(path: Vec<u8>) -> Option<Self> {
        let bad = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
        let clean = path.is_empty() || !path.contains(&0) && !path.split(|&byte| byte == b'/').any(bad);
        clean.then_some(Self(path))
    }

    /// Returns the range in which everything below this path sorts, and nothing else. Its ends are no paths: they
    /// end in a slash and in its successor.
    pub(crate) fn range_below(&self) -> (Bound<Self>, Bound<Self>) {
        if self.is_root() {
            return (Bound::Excluded(Self::root()), Bound::Unbounded);
        }
        let end = |byte: u8| Self([&self.0[..], &[byte]].concat());
        (Bound::Excluded(end(b'/')), Bound::Excluded(end(b'/' + 1)))
    }

    /// Appends one component. `name` must not be empty, `.`, `..`, nor hold a slash.
    pub fn push(&mut self, name: &[u8]) {
        debug_assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/'));
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
    }

    /// Returns this path with one more component.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut out = Self(Vec::with_capacity(self.0.len() + name.len() + 1));
        out.0.extend_from_slice(&self.0);
        out.push(name);
        out
    }

    /// Returns `self/below`, where `below` is a tree path of its own.
    #[must_use]
    pub fn concat(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self([&self.0[..], b"/", &below.0[..]].concat()),
        }
    }

    /// Returns the directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.split().map(|(parent, _)| Self(parent.to_vec()))
    }

    /// Returns the last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.split().map(|(_, name)| name)
    }

    fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        })
    }

    /// Returns the part of this path below `base`: the empty path when they are equal, `None` when it isn't inside.
    pub fn below(&self, base: &Self) -> Option<Self> {
        if base.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&base.0[..])? {
            [] => Some(Self::default()),
            [b'/', rest @ ..] => Some(Self(rest.to_vec())),
            _ => None,
        }
    }

    /// Iterates over the components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|part| !part.is_empty())
    }

    /// Says whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Seconds and nanoseconds since the Unix epoch; `nanos` counts forward, also before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// Extended attributes, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What every kind of entry has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes; never the overlay file system's own.
    pub xattrs: Xattrs,
}

/// Where a regular file's bytes are, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileData {
    /// Logical size in bytes.
    pub size_bytes: u64,
    /// Offset of the first byte in the layer file, a multiple of 512. Zero when the file is empty.
    pub offset: u64,
    /// BLAKE3 of the content.
    pub content: ContentHash,
}

/// The type of an entry, with what only that type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File(FileData),
    /// A directory.
    Dir {
        /// Hides what lower layers have in it.
        opaque: bool,
        /// Not in the tar: only there because something lies below. Its metadata means nothing, the lower
        /// layer's counts.
        implied: bool,
    },
    /// A symbolic link with its target, verbatim.
    Symlink(Vec<u8>),
    /// Another name for the entry at this path, of this layer or a lower one.
    Hardlink(TreePath),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// Removes the path of the lower layers. Metadata means nothing.
    Whiteout,
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// Mode, owner, time, attributes.
    pub meta: Meta,
    /// Type and content.
    pub kind: Kind,
}
