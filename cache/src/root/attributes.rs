//! Mode, owner, times and extended attributes of what is in a tree, never through a symbolic link at the end.
//!
//! The kernel has no such calls for modes and attributes before 6.6 and 6.13, so these go through
//! `/proc/self/fd/N` of a descriptor that pins the inode (proc(5)): `/proc` must be mounted.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Error, Root};
use crate::layer::{Timestamp, TreePath, Xattrs};

/// The largest attribute value that Linux stores (XATTR_SIZE_MAX), and the longest list of names.
const MAX_XATTR_BYTES: usize = 64 * 1024;

/// Stands for an inode that is held open.
fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

impl Root {
    /// Sets permission bits (0 to 0o7777). A symbolic link has none: for one this does nothing.
    pub fn set_mode(&self, path: &TreePath, mode: u32) -> Result<(), Error> {
        let node = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, "change mode of")?;
        match rustix::fs::chmod(proc_path(&node), Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(Error::os("change mode of", path)(errno)),
        }
    }

    /// Sets owner and group; clears setuid and setgid as the kernel does, so the mode is set after it.
    pub fn set_owner(&self, path: &TreePath, uid: u32, gid: u32) -> Result<(), Error> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        if path.is_root() {
            return rustix::fs::fchown(self, Some(uid), Some(gid))
                .map_err(Error::os("change owner of", path));
        }
        let (parent, name) = self.parent(path, "change owner of")?;
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::os("change owner of", path))
    }

    /// Sets access and modification time to `time`.
    pub fn set_time(&self, path: &TreePath, time: Timestamp) -> Result<(), Error> {
        let spec = Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanos.into(),
        };
        let times = Timestamps {
            last_access: spec,
            last_modification: spec,
        };
        if path.is_root() {
            return rustix::fs::futimens(self, &times).map_err(Error::os("change time of", path));
        }
        let (parent, name) = self.parent(path, "change time of")?;
        rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::os("change time of", path))
    }

    /// Sets an extended attribute, replacing one of the same name.
    pub fn set_xattr(&self, path: &TreePath, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let node = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, "set attribute of")?;
        rustix::fs::setxattr(proc_path(&node), name, value, XattrFlags::empty())
            .map_err(Error::os("set attribute of", path))
    }

    /// Returns one extended attribute; `None` when it isn't there or the file system has none.
    pub fn xattr(&self, path: &TreePath, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if path.is_root() {
            let mut value = vec![0; MAX_XATTR_BYTES];
            return found(
                rustix::fs::fgetxattr(self, name, &mut value[..]).map(|n| value[..n].to_vec()),
                path,
            );
        }
        let (parent, file_name) = self.parent(path, "read attribute of")?;
        let place = [proc_path(&parent).as_bytes(), b"/", file_name].concat();
        // Asking for the size first costs nothing for the many that have no such attribute.
        let size = match rustix::fs::lgetxattr_query(&place[..], name) {
            Ok(size) => size,
            Err(errno) => return found(Err(errno), path),
        };
        let mut value = vec![0; size.min(MAX_XATTR_BYTES)];
        found(
            rustix::fs::lgetxattr(&place[..], name, &mut value[..]).map(|n| value[..n].to_vec()),
            path,
        )
    }

    /// Returns all extended attributes, sorted by name.
    pub fn xattrs(&self, path: &TreePath) -> Result<Xattrs, Error> {
        let mut list = vec![0; MAX_XATTR_BYTES];
        let used = if path.is_root() {
            rustix::fs::flistxattr(self, &mut list[..])
        } else {
            let (parent, file_name) = self.parent(path, "list attributes of")?;
            let place = [proc_path(&parent).as_bytes(), b"/", file_name].concat();
            rustix::fs::llistxattr(&place[..], &mut list[..])
        };
        let used = match used {
            Ok(used) => used,
            Err(Errno::OPNOTSUPP) => 0,
            Err(errno) => return Err(Error::os("list attributes of", path)(errno)),
        };
        let mut out = Xattrs::new();
        for name in list[..used]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
        {
            if let Some(value) = self.xattr(path, name)? {
                out.push((name.to_vec(), value));
            }
        }
        out.sort();
        Ok(out)
    }
}

fn found(value: rustix::io::Result<Vec<u8>>, path: &TreePath) -> Result<Option<Vec<u8>>, Error> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(Error::os("read attribute of", path)(errno)),
    }
}
