//! A directory that can be reached into but not out of: the only way to open trees whose shape others decide
//! (contexts, upper directories, cache mounts, unpacked layers, repositories).
//!
//! A path is never checked first and used afterwards: the kernel resolves it under the directory's descriptor
//! (openat2), so links that change meanwhile can't lead outside. Deliberately no `PathBuf`, no joining, no
//! policy about which paths are wanted.

mod attributes;
mod measure;
mod remove;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};

use crate::layer::{Timestamp, TreePath};

/// Says what could not be done with which path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused. ELOOP stands for a symbolic link where none is followed, EXDEV for a way out.
    #[error("cannot {action} {path}: {source}")]
    Os {
        /// What was tried: "open", "create directory" …
        action: &'static str,
        /// Where, as seen from the root.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// The directory that was to be a root can't be opened.
    #[error("cannot open directory {}: {source}", path.display())]
    Open {
        /// The host's path.
        path: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else than a regular file is where one was expected.
    #[error("cannot read {path}: not a regular file")]
    NotRegular {
        /// Where.
        path: TreePath,
    },
    /// An operation that needs a name was asked of the root itself.
    #[error("cannot {action} the root of a tree")]
    IsRoot {
        /// What was tried.
        action: &'static str,
    },
}

impl Error {
    fn os(action: &'static str, path: &TreePath) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Os {
            action,
            path: path.clone(),
            source: errno.into(),
        }
    }

    /// Returns the same error as seen from a directory above: of a root that was opened at `dir`.
    #[must_use]
    pub fn below(self, dir: &TreePath) -> Self {
        match self {
            Self::Os { action, path, source } => Self::Os {
                action,
                path: dir.concat(&path),
                source,
            },
            Self::NotRegular { path } => Self::NotRegular {
                path: dir.concat(&path),
            },
            other => other,
        }
    }

    /// Returns what kind of failure the kernel reported, if it was the kernel.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Os { source, .. } | Self::Open { source, .. } => source.kind(),
            Self::NotRegular { .. } | Self::IsRoot { .. } => io::ErrorKind::InvalidInput,
        }
    }

    /// Returns the kernel's error number, where there is one.
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::Os { source, .. } | Self::Open { source, .. } => rustix::io::Errno::from_io_error(source),
            Self::NotRegular { .. } | Self::IsRoot { .. } => None,
        }
    }

    /// Says whether the path isn't there, also because something on the way isn't a directory.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    }

    /// Says whether the rights for it are missing.
    pub fn is_denied(&self) -> bool {
        self.kind() == io::ErrorKind::PermissionDenied
    }
}

/// What happens at a symbolic link on the way to a path. The last component is never followed, either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// It is an error (ELOOP).
    Refuse,
    /// It is followed as if the root were `/`.
    FollowInside,
}

/// What a directory listing says about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Vec<u8>,
    /// Its type, when the file system tells it in listings; [`FileType::Unknown`] otherwise.
    pub file_type: FileType,
}

/// What only some kinds of new nodes need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A named pipe.
    Fifo,
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
}

/// The longest path handed to the kernel at once, below its PATH_MAX.
const MAX_STEP_BYTES: usize = 4000;

/// A directory that can't be left. Cheap to clone; blocking; safe to share between threads.
#[derive(Debug, Clone)]
pub struct Root {
    dir: Arc<OwnedFd>,
    links: Links,
}

impl From<OwnedFd> for Root {
    /// Wraps an open directory. Symbolic links on the way are refused; see [`Root::with_links`].
    fn from(dir: OwnedFd) -> Self {
        Self {
            dir: Arc::new(dir),
            links: Links::Refuse,
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Root {
    /// Opens a directory of the host, following links in `path`: for paths that are ours or that the user typed.
    pub fn open_host(path: &Path) -> Result<Self, Error> {
        rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map(Self::from)
        .map_err(|errno| Error::Open {
            path: path.to_owned(),
            source: errno.into(),
        })
    }

    /// Returns the same directory with another rule for links.
    #[must_use]
    pub fn with_links(&self, links: Links) -> Self {
        Self {
            dir: Arc::clone(&self.dir),
            links,
        }
    }

    /// Opens the directory at `path` as a root of its own. The last component isn't followed.
    pub fn sub(&self, path: &TreePath) -> Result<Self, Error> {
        let dir = self.open_at(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
            "open directory",
        )?;
        Ok(Self {
            dir: Arc::new(dir),
            links: self.links,
        })
    }

    /// Opens a regular file for reading. Never blocks on a pipe or device, never follows a link at the end.
    pub fn open_file(&self, path: &TreePath) -> Result<File, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_at(path, flags, "open")?;
        let stat = rustix::fs::fstat(&fd).map_err(Error::os("stat", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotRegular { path: path.clone() });
        }
        Ok(File::from(fd))
    }

    /// Creates a regular file for reading and writing. It must not exist, not even as a dangling link.
    pub fn create_file(&self, path: &TreePath, mode: u32) -> Result<File, Error> {
        let (parent, name) = self.parent(path, "create")?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode))
            .map(File::from)
            .map_err(Error::os("create", path))
    }

    /// Creates a directory. Its parent must exist.
    pub fn make_dir(&self, path: &TreePath, mode: u32) -> Result<(), Error> {
        let (parent, name) = self.parent(path, "create directory")?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode))
            .map_err(Error::os("create directory", path))
    }

    /// Creates a directory and what is missing above it; existing directories are left alone.
    pub fn make_dirs(&self, path: &TreePath, mode: u32) -> Result<(), Error> {
        let mut at = TreePath::root();
        for name in path.components() {
            at.push(name);
            match self.make_dir(&at, mode) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        // Whether the last one is a directory is only known now.
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, "open directory")
            .map(drop)
    }

    /// Creates a symbolic link with `target` verbatim.
    pub fn make_symlink(&self, path: &TreePath, target: &[u8]) -> Result<(), Error> {
        let (parent, name) = self.parent(path, "create link")?;
        rustix::fs::symlinkat(target, &parent, name).map_err(Error::os("create link", path))
    }

    /// Gives the inode at `from_path` of `from` another name here. A symbolic link is linked, not followed.
    pub fn make_hardlink(&self, path: &TreePath, from: &Self, from_path: &TreePath) -> Result<(), Error> {
        let (from_parent, from_name) = from.parent(from_path, "link")?;
        let (parent, name) = self.parent(path, "link")?;
        rustix::fs::linkat(&from_parent, from_name, &parent, name, AtFlags::empty())
            .map_err(Error::os("link", path))
    }

    /// Creates a device or named pipe.
    pub fn make_node(&self, path: &TreePath, node: Node, mode: u32) -> Result<(), Error> {
        let (parent, name) = self.parent(path, "create node")?;
        let (file_type, device) = match node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::CharDevice(major, minor) => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Node::BlockDevice(major, minor) => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        };
        rustix::fs::mknodat(&parent, name, file_type, Mode::from_raw_mode(mode), device)
            .map_err(Error::os("create node", path))
    }

    /// Renames within this tree, replacing what is at `to` as rename(2) does.
    pub fn rename(&self, from: &TreePath, to: &TreePath) -> Result<(), Error> {
        let (from_parent, from_name) = self.parent(from, "rename")?;
        let (to_parent, to_name) = self.parent(to, "rename")?;
        rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name).map_err(Error::os("rename", from))
    }

    /// Removes anything but a directory.
    pub fn unlink(&self, path: &TreePath) -> Result<(), Error> {
        let (parent, name) = self.parent(path, "remove")?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(Error::os("remove", path))
    }

    /// Returns the metadata of `path` itself; a symbolic link at the end isn't followed.
    pub fn stat(&self, path: &TreePath) -> Result<Stat, Error> {
        if path.is_root() {
            return rustix::fs::fstat(&self.dir).map_err(Error::os("stat", path));
        }
        let (parent, name) = self.parent(path, "stat")?;
        rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::os("stat", path))
    }

    /// Returns the target of the symbolic link at `path`, verbatim.
    pub fn read_link(&self, path: &TreePath) -> Result<Vec<u8>, Error> {
        let (parent, name) = self.parent(path, "read link")?;
        rustix::fs::readlinkat(&parent, name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(Error::os("read link", path))
    }

    /// Lists this directory, unsorted, without `.` and `..`.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let here = TreePath::root();
        // A descriptor of its own, because a listing moves the descriptor's position.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::openat(&self.dir, c".", flags, Mode::empty()).map_err(Error::os("list", &here))?;
        let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
        let mut listing = RawDir::new(dir, &mut buffer);
        let mut out = Vec::new();
        while let Some(entry) = listing.next() {
            let entry = entry.map_err(Error::os("list", &here))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                out.push(Listed {
                    name: name.to_vec(),
                    file_type: entry.file_type(),
                });
            }
        }
        Ok(out)
    }

    /// Opens `path` under the rules of this root. `flags` decide about the last component.
    fn open_at(&self, path: &TreePath, flags: OFlags, action: &'static str) -> Result<OwnedFd, Error> {
        self.walk_to(path.as_bytes(), flags | OFlags::CLOEXEC)
            .map_err(Error::os(action, path))
    }

    /// Opens the directory that holds `path`, and returns it with the last name.
    fn parent<'p>(&self, path: &'p TreePath, action: &'static str) -> Result<(Parent, &'p [u8]), Error> {
        let name = path.name().ok_or(Error::IsRoot { action })?;
        let above = &path.as_bytes()[..path.as_bytes().len() - name.len()];
        if above.is_empty() {
            return Ok((Parent::Shared(Arc::clone(&self.dir)), name));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = &above[..above.len() - 1];
        let dir = self.walk_to(above, flags).map_err(Error::os(action, path))?;
        Ok((Parent::Owned(dir), name))
    }

    /// Resolves `path` in the kernel, in several steps when it is longer than the kernel takes at once.
    fn walk_to(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::NO_MAGICLINKS
            | match self.links {
                Links::Refuse => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
                Links::FollowInside => ResolveFlags::IN_ROOT,
            };
        let open = |dir: &OwnedFd, path: &[u8], flags| {
            let path = if path.is_empty() { b"." } else { path };
            // EAGAIN: something was renamed during the walk, and the kernel asks to try again (openat2(2)).
            for _ in 0..128 {
                match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
                    Err(rustix::io::Errno::AGAIN) => {}
                    other => return other,
                }
            }
            Err(rustix::io::Errno::AGAIN)
        };
        let mut rest = path;
        let mut step: Option<OwnedFd> = None;
        while rest.len() > MAX_STEP_BYTES {
            if self.links == Links::FollowInside {
                // From the second step on, an absolute link would be resolved below the step instead of the root.
                return Err(rustix::io::Errno::NAMETOOLONG);
            }
            let slash = rest[..MAX_STEP_BYTES].iter().rposition(|&byte| byte == b'/');
            let slash = slash.ok_or(rustix::io::Errno::NAMETOOLONG)?;
            let dir_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            step = Some(open(
                step.as_ref().unwrap_or(&self.dir),
                &rest[..slash],
                dir_flags,
            )?);
            rest = &rest[slash + 1..];
        }
        open(step.as_ref().unwrap_or(&self.dir), rest, flags)
    }
}

/// The directory above a path.
enum Parent {
    Shared(Arc<OwnedFd>),
    Owned(OwnedFd),
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Shared(dir) => dir.as_fd(),
            Self::Owned(dir) => dir.as_fd(),
        }
    }
}

/// Returns the modification time in a stat.
pub fn mtime_of(stat: &Stat) -> Timestamp {
    Timestamp {
        seconds: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}
