//! One path of a view, with everything decided: hard links resolved, metadata taken from the layer that counts.

use crate::layer::{Entry, Kind, Meta};

/// Names the inode behind a node within one view. Equal for all names of a hard-link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode {
    /// Which part of the view holds it, base first.
    pub part: u32,
    /// Which entry of that part's index.
    pub entry: u32,
}

/// The type of a node, with what only that type has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind<'v> {
    /// A regular file. Its content hash is answered by [`View::content`](super::View::content).
    File {
        /// Logical size in bytes.
        size_bytes: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link with its target, verbatim.
    Symlink(&'v [u8]),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// What a view has at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'v> {
    /// Mode, owner, time, attributes. For a directory that is only implied by an upper layer: the lower one's.
    pub meta: &'v Meta,
    /// Type.
    pub kind: NodeKind<'v>,
    /// Identity.
    pub inode: Inode,
    /// Whether another entry of the view's parts is a hard link to this inode.
    pub has_links: bool,
}

impl From<&Node<'_>> for Inode {
    fn from(node: &Node<'_>) -> Self {
        node.inode
    }
}

impl Node<'_> {
    /// Says whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == NodeKind::Dir
    }
}

/// What an entry is in a view; `None` for what has no kind of its own there.
pub(super) fn kind_of(entry: &Entry) -> Option<NodeKind<'_>> {
    Some(match &entry.kind {
        Kind::File(data) => NodeKind::File {
            size_bytes: data.size_bytes,
        },
        Kind::Dir { .. } => NodeKind::Dir,
        Kind::Symlink(target) => NodeKind::Symlink(target),
        Kind::CharDevice(major, minor) => NodeKind::CharDevice(*major, *minor),
        Kind::BlockDevice(major, minor) => NodeKind::BlockDevice(*major, *minor),
        Kind::Fifo => NodeKind::Fifo,
        Kind::Hardlink(_) | Kind::Whiteout => return None,
    })
}
