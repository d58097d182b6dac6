//! New-API mounts as descriptors: made detached, given their attributes, then moved into place.
//!
//! Knows no container; where a mount goes is its callers' business. No path is resolved twice.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::sys;

pub(super) const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
pub(super) const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
pub(super) const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
pub(super) const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// A parameter of a file system.
#[derive(Clone, Copy)]
pub(super) enum Param<'a> {
    /// A flag without value.
    Flag(&'a str),
    /// A value.
    Text(&'a str, &'a str),
    /// A file or directory given by descriptor, or by `/proc/self/fd` where the kernel doesn't take descriptors.
    Fd(&'a str, BorrowedFd<'a>),
}

/// Makes a file system and returns it as a detached mount. The error carries the kernel's own words, if it has any.
pub(super) fn create(kind: &str, params: &[Param<'_>], attr: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let explain = |errno: Errno| explained(errno, context.as_fd());
    for param in params {
        match *param {
            Param::Flag(key) => fsconfig_set_flag(&context, key).map_err(explain)?,
            Param::Text(key, value) => fsconfig_set_string(&context, key, value).map_err(explain)?,
            Param::Fd(key, fd) => set_fd(context.as_fd(), key, fd).map_err(explain)?,
        }
    }
    fsconfig_create(&context).map_err(explain)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attr).map_err(explain)
}

/// Overlayfs takes layers by descriptor since Linux 6.13; found out by trying.
fn set_fd(context: BorrowedFd<'_>, key: &str, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    match fsconfig_set_fd(context, key, fd) {
        Err(Errno::INVAL) => fsconfig_set_string(context, key, fd_path(fd)),
        other => other,
    }
}

/// The path under which this process can reach its own descriptor.
pub(super) fn fd_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The errno keeps its number (callers decide by it) unless the kernel explained itself.
fn explained(errno: Errno, context: BorrowedFd<'_>) -> io::Error {
    let mut message = [0; 512];
    match rustix::io::read(context, &mut message) {
        Ok(n) if n > 2 => io::Error::other(Explained {
            errno,
            words: String::from_utf8_lossy(message.get(2..n).unwrap_or_default())
                .trim()
                .to_owned(),
        }),
        _ => errno.into(),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{errno}: {words}")]
struct Explained {
    errno: Errno,
    words: String,
}

/// Returns the error number behind an error of this module.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    let explained = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Explained>());
    explained.map_or_else(
        || error.raw_os_error().unwrap_or(0),
        |explained| explained.errno.raw_os_error(),
    )
}

/// A tmpfs of at most `size_bytes`, as a detached mount.
pub(super) fn tmpfs(size_bytes: u64, mode: &str, attr: MountAttrFlags) -> io::Result<OwnedFd> {
    let size = size_bytes.to_string();
    let params = [
        Param::Text("source", "tmpfs"),
        Param::Text("size", &size),
        Param::Text("mode", mode),
    ];
    create("tmpfs", &params, attr)
}

/// Clones what is at `path` below `dir` (the directory itself when empty) as a detached bind mount.
pub(super) fn bind(dir: BorrowedFd<'_>, path: &str, attr: MountAttrFlags) -> io::Result<OwnedFd> {
    bind_with(dir, path, attr, OpenTreeFlags::empty())
}

/// As [`bind`], with everything that is mounted below.
pub(super) fn bind_tree(dir: BorrowedFd<'_>, path: &str, attr: MountAttrFlags) -> io::Result<OwnedFd> {
    bind_with(dir, path, attr, OpenTreeFlags::AT_RECURSIVE)
}

fn bind_with(
    dir: BorrowedFd<'_>,
    path: &str,
    attr: MountAttrFlags,
    extra: OpenTreeFlags,
) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | extra;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    let tree = open_tree(dir, path, flags)?;
    if !attr.is_empty() {
        let recursive = if extra.contains(OpenTreeFlags::AT_RECURSIVE) {
            libc::AT_RECURSIVE
        } else {
            0
        };
        sys::mount_setattr(tree.as_fd(), c"", recursive, attr, 0)?;
    }
    Ok(tree)
}

/// Moves a detached mount onto the file or directory that `target` refers to.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// Moves a detached mount onto a path of this process's own view; for paths that nobody else can shape.
pub(super) fn attach_at(mount: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    Ok(move_mount(
        mount,
        "",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Cuts this process's mounts off from the rest of the machine.
pub(super) fn make_all_private() -> io::Result<()> {
    sys::mount_setattr(
        CWD,
        c"/",
        libc::AT_RECURSIVE,
        MountAttrFlags::empty(),
        libc::MS_PRIVATE,
    )
}
