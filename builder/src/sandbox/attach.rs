//! What is mounted into a container besides its root: made in the builder, attached nowhere, handed over by descriptor.
//!
//! What a path means is decided here, once, by a descriptor; the container's process only moves the mount to its target
//! (`targets`). Nothing here decides what a step may have: that is `ops::mounts`' business.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use super::error::{Result, SandboxError, Step as _};
use super::launch::Helper;
use super::mount::{self, NODEV, NOEXEC, NOSUID, Param, RDONLY};
use super::place::Attached;
use super::{Lower, Upper, overlay};

/// Most mounts of one container, so that descriptors don't run out.
pub(super) const MAX_MOUNTS: usize = 256;

/// Something to be mounted, and where. Good for one run: the container takes it away.
#[derive(Debug)]
pub(crate) struct MountPoint {
    /// Absolute path in the container; links in it are resolved inside the container's root.
    pub(crate) target: String,
    /// The same path as far as the image's links are known: where a mountpoint is put beforehand, below all layers.
    pub(crate) stub: String,
    /// What is mounted.
    pub(crate) tree: Tree,
}

/// A directory, file or socket as a mount that is attached nowhere.
#[derive(Debug)]
pub(crate) struct Tree(OwnedFd);

/// What may be done with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing can be changed.
    ReadOnly,
    /// Whatever the files' permissions allow.
    ReadWrite,
}

/// Permissions and owner of a file or socket that is made for a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// Permission bits.
    pub(crate) mode: u32,
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
}

/// What a mount goes onto.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    File,
    Directory,
}

/// A [`MountPoint`] as the helper hears of it; the mount itself comes as a descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) target: String,
    pub(super) stub: String,
    pub(super) kind: Kind,
}

impl MountPoint {
    /// Describes the mount for the helper.
    pub(super) fn point(&self) -> Result<Point> {
        Ok(Point {
            target: self.target.clone(),
            stub: self.stub.clone(),
            kind: self.tree.kind()?,
        })
    }

    /// The mount itself.
    pub(super) fn mount(&self) -> BorrowedFd<'_> {
        self.tree.0.as_fd()
    }
}

impl Access {
    /// Device nodes can't be opened through any mount of a container: CAP_MKNOD is part of the profile.
    fn attributes(self) -> MountAttrFlags {
        match self {
            Self::ReadOnly => RDONLY | NODEV,
            Self::ReadWrite => NODEV,
        }
    }
}

impl Tree {
    /// Returns a directory of the builder's own.
    pub(crate) fn directory(dir: BorrowedFd<'_>, access: Access) -> Result<Self> {
        mount::bind(dir, "", access.attributes())
            .step("clone a directory for a mount")
            .map(Self)
    }

    /// Returns what is at `path` in a stack of layers, top first. `path` is relative, clean and without links (the
    /// stack's index has resolved them); empty is all. With an upper it can be written, and the changes go there.
    pub(crate) fn of_stack(
        helper: &Helper,
        lowers: &[&Lower],
        path: &[u8],
        upper: Option<&Upper>,
    ) -> Result<Self> {
        // An overlay needs two layers, and one layer alone would show its whiteouts.
        let empty = Lower::empty()?;
        let lowers: Vec<&Lower> = lowers.iter().copied().chain([&empty]).collect();
        let access = upper.map_or(Access::ReadOnly, |_| Access::ReadWrite);
        if let (true, None) = (lowers.len() == 1, upper) {
            return clone_below(empty.mounted(), path, access.attributes()).map(Self);
        }
        let merged = overlay::mount_here(helper.way(), &lowers, upper.map(Upper::base))?;
        clone_below(merged.as_fd(), path, access.attributes()).map(Self)
    }

    /// Returns an empty directory in memory, mode 1777, that holds at most `size_bytes`; `None`: half of the machine's
    /// memory, as the kernel has it.
    pub(crate) fn tmpfs(size_bytes: Option<u64>, access: Access) -> Result<Self> {
        let size = size_bytes.map(|size| size.to_string());
        let mut params = vec![Param::Text("source", "tmpfs"), Param::Text("mode", "1777")];
        params.extend(size.as_deref().map(|size| Param::Text("size", size)));
        mount::create("tmpfs", &params, access.attributes() | NOSUID)
            .step("make a tmpfs for a mount")
            .map(Self)
    }

    /// Returns a read-only file with `content` that exists in memory only, and as long as somebody has it mounted.
    pub(crate) fn secret(content: &[u8], owner: Ownership) -> Result<Self> {
        let step = "make a file for a secret";
        // Nobody may execute it unless its mode was asked to say so.
        let attr = match owner.mode & 0o111 {
            0 => NOSUID | NODEV | NOEXEC,
            _ => NOSUID | NODEV,
        };
        let tmpfs = unswappable_tmpfs(content.len() as u64).step(step)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&tmpfs, "secret", flags, Mode::empty()).step(step)?;
        let mut rest = content;
        while !rest.is_empty() {
            let n = rustix::io::write(&file, rest).step(step)?;
            rest = rest.get(n..).unwrap_or_default();
        }
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid)).step("give a secret to its owner")?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(owner.mode)).step(step)?;
        drop(file);
        clone_below(tmpfs.as_fd(), b"secret", attr | RDONLY).map(Self)
    }

    /// Returns a socket that exists in memory only, and the builder's end of it.
    pub(crate) fn socket(owner: Ownership) -> Result<(Self, UnixListener)> {
        let step = "make a socket for a mount";
        let tmpfs = mount::tmpfs(1 << 16, "0700", NOSUID | NODEV | NOEXEC).step(step)?;
        let listener = UnixListener::bind(format!("{}/socket", mount::fd_path(tmpfs.as_fd()))).step(step)?;
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(&tmpfs, "socket", Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .step("give a socket to its owner")?;
        rustix::fs::chmodat(
            &tmpfs,
            "socket",
            Mode::from_raw_mode(owner.mode),
            AtFlags::empty(),
        )
        .step(step)?;
        let socket = clone_below(tmpfs.as_fd(), b"socket", NOSUID | NODEV | NOEXEC)?;
        Ok((Self(socket), listener))
    }

    /// Returns a device of the machine. Its node can be used, and not be changed: it is the machine's own.
    pub(crate) fn device(path: &Path) -> Result<Self> {
        let node = mount::bind(of_machine(path)?.as_fd(), "", NOSUID | NOEXEC | RDONLY)
            .step(format!("clone the device {}", path.display()))?;
        let stat = rustix::fs::fstat(&node).step(format!("look at {}", path.display()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => Ok(Self(node)),
            _ => Err(SandboxError::Refused {
                reason: format!("{} is not a device", path.display()),
            }),
        }
    }

    /// Returns a file or directory of the machine, which its administrator described for containers.
    pub(crate) fn of_machine(path: &Path, access: Access) -> Result<Self> {
        mount::bind(of_machine(path)?.as_fd(), "", access.attributes() | NOSUID)
            .step(format!("clone {} for a mount", path.display()))
            .map(Self)
    }

    fn kind(&self) -> Result<Kind> {
        let mode = rustix::fs::fstat(&self.0).step("look at a mount")?.st_mode;
        let is_nodev = || {
            let attributes = rustix::fs::fstatvfs(&self.0).map(|stat| stat.f_flag);
            attributes.is_ok_and(|flags| flags.contains(StatVfsMountFlags::NODEV))
        };
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Ok(Kind::Directory),
            FileType::RegularFile | FileType::Socket => Ok(Kind::File),
            // Only `device` makes such a mount that is good for anything.
            FileType::CharacterDevice | FileType::BlockDevice if !is_nodev() => Ok(Kind::File),
            other => Err(SandboxError::Refused {
                reason: format!("what is to be mounted is neither file nor directory: {other:?}"),
            }),
        }
    }
}

/// Refers to a path of the machine, which isn't the image's to choose: links in it are followed.
fn of_machine(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .step(format!("open {}", path.display()))
}

/// A tmpfs that never goes to swap, where the kernel can promise that (Linux 6.4).
fn unswappable_tmpfs(content_bytes: u64) -> std::io::Result<OwnedFd> {
    let size = content_bytes.saturating_add(1 << 16).to_string();
    let params = [
        Param::Text("source", "tmpfs"),
        Param::Text("mode", "0700"),
        Param::Text("size", &size),
        Param::Flag("noswap"),
    ];
    let attr = NOSUID | NODEV;
    mount::create("tmpfs", &params, attr).or_else(|_| mount::create("tmpfs", &params[..3], attr))
}

/// Clones what is at `path` of a mount that is attached nowhere, following no link.
fn clone_below(mount: BorrowedFd<'_>, path: &[u8], attr: MountAttrFlags) -> Result<OwnedFd> {
    let name = || String::from_utf8_lossy(path).into_owned();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let at = if path.is_empty() { b"." } else { path };
    let found = rustix::fs::openat2(mount, at, flags, Mode::empty(), resolve)
        .step(format!("open `/{}` of a mount", name()))?;
    match mount::bind(found.as_fd(), "", attr) {
        // Before Linux 6.15 only what is attached can be cloned.
        Err(error) if mount::errno_of(&error) == Errno::INVAL.raw_os_error() => {
            let _attached = Attached::new(mount)?;
            mount::bind(found.as_fd(), "", attr)
        }
        other => other,
    }
    .step(format!("clone `/{}` of a mount", name()))
}
