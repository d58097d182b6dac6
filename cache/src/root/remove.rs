//! Removes trees of any shape and depth: no recursion, no path longer than a name, and at most a few open
//! descriptors, because a deep directory is reached again through `..` only after it was proved to be the parent.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::{Error, Root};
use crate::layer::TreePath;

/// A directory on the way down: its name in its parent, and its identity to recognise it on the way up.
struct Level {
    name: Vec<u8>,
    device: u64,
    inode: u64,
}

impl Root {
    /// Removes whatever is at `path`, with everything below; nothing there is fine. Mount points stop it (EBUSY).
    pub fn remove_tree(&self, path: &TreePath) -> Result<(), Error> {
        let fail = |errno| Error::os("remove", path)(errno);
        let (top, name) = match self.parent(path, "remove") {
            Err(error) if error.is_missing() => return Ok(()),
            other => other?,
        };
        match rustix::fs::unlinkat(&top, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // EISDIR on Linux; EPERM is what POSIX has for directories.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let mut at = match open_dir(&top, name) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(fail)?,
        };
        let mut levels = vec![level(name, &at).map_err(fail)?];
        while let Some(here) = levels.last() {
            match empty_files(&at).map_err(fail)? {
                Some(child) => {
                    at = open_dir(&at, &child).map_err(fail)?;
                    levels.push(level(&child, &at).map_err(fail)?);
                }
                None if levels.len() == 1 => {
                    return rustix::fs::unlinkat(&top, &here.name[..], AtFlags::REMOVEDIR).map_err(fail);
                }
                None => {
                    let name = levels.pop().map(|level| level.name).unwrap_or_default();
                    at = go_up(&at, levels.last()).map_err(fail)?;
                    rustix::fs::unlinkat(&at, &name[..], AtFlags::REMOVEDIR).map_err(fail)?;
                }
            }
        }
        Ok(())
    }
}

fn level(name: &[u8], dir: &OwnedFd) -> rustix::io::Result<Level> {
    let stat = rustix::fs::fstat(dir)?;
    Ok(Level {
        name: name.to_vec(),
        device: stat.st_dev,
        inode: stat.st_ino,
    })
}

/// Opens `..`, which must be the directory that we came from: it isn't when somebody moved things meanwhile.
fn go_up(dir: &OwnedFd, expected: Option<&Level>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let up = rustix::fs::openat(dir, c"..", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&up)?;
    match expected {
        Some(level) if level.device == stat.st_dev && level.inode == stat.st_ino => Ok(up),
        _ => Err(Errno::BUSY),
    }
}

/// Opens a directory for emptying; one that denies us access is given to us first.
fn open_dir(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = rustix::fs::openat(&parent, name, flags | OFlags::PATH, Mode::empty())?;
    let proc_path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pinned));
    let stat = rustix::fs::fstat(&pinned)?;
    if stat.st_mode & 0o700 != 0o700 {
        // Root doesn't need it and others can't do it, so a failure shows itself at the next call.
        let _ = rustix::fs::chmod(&proc_path[..], Mode::from_raw_mode(0o700));
    }
    rustix::fs::openat(&pinned, c".", flags | OFlags::RDONLY, Mode::empty())
}

/// Unlinks everything in `dir` but directories, removes empty ones, and returns the first that isn't empty.
fn empty_files(dir: &OwnedFd) -> rustix::io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fresh = rustix::fs::openat(dir, c".", flags, Mode::empty())?;
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 32 * 1024];
    let mut listing = RawDir::new(fresh, &mut buffer);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let mut as_dir = entry.file_type() == FileType::Directory;
        if !as_dir {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => as_dir = true,
                Err(errno) => return Err(errno),
            }
        }
        if as_dir {
            match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_bytes().to_vec())),
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(None)
}
