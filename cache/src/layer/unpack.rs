//! Unpacks a layer into a directory that can be an overlay lower: for machines where layer files can't be mounted.
//!
//! Works from the index, whose paths were checked when it was made, and writes through a [`Root`], so that neither
//! can lead outside. Never looks at what the directory holds: it must be new and empty.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rayon::prelude::*;
use rustix::fs::{Gid, Mode, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::entry::{Entry, FileData, Kind, Meta, TreePath};
use crate::root::{self, Node, Root, mtime_of};

/// Says why a layer can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory refuses.
    #[error(transparent)]
    Root(#[from] root::Error),
    /// A file's data can't be copied.
    #[error("cannot unpack {path}: {source}")]
    Copy {
        /// The file.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// A hard link leads to nothing, here and in the layers below.
    #[error("cannot unpack hard link {path}: {target} is not there")]
    DanglingLink {
        /// The link.
        path: TreePath,
        /// Where it leads.
        target: TreePath,
    },
}

/// Something of the layer that the machine wouldn't let us make; the rest is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Device nodes need privilege over the machine.
    Device(TreePath),
    /// The file system or the kernel refuses this attribute.
    Xattr(TreePath, Vec<u8>),
}

/// Under which name the overlay looks for its opaque marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverlayXattr {
    /// `trusted.overlay.`: mounts made by root.
    #[default]
    Trusted,
    /// `user.overlay.`: mounts inside a user namespace, with the `userxattr` option.
    User,
}

/// What happens to owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Files get the layer's owners.
    Keep,
    /// Everything belongs to the caller: for user namespaces that map one id only.
    Ignore,
}

/// Finds a path in the unpacked layers below: the directory of the newest layer that has it, and where it is there.
pub type Below<'a> = dyn Fn(&TreePath) -> Option<(Root, TreePath)> + Sync + 'a;

/// How to unpack.
pub struct UnpackOptions<'a> {
    /// Kind of overlay that the directory is for.
    pub overlay: OverlayXattr,
    /// Owners of files.
    pub owners: Owners,
    /// Asked for hard links to files of lower layers, and for the metadata of directories that the layer only
    /// implies.
    pub below: &'a Below<'a>,
}

/// Unpacks a layer with the given index and file into the new, empty directory `into`.
///
/// Blocking; uses all cores. Returns what could not be made, sorted. Nothing is synced.
pub fn unpack(
    entries: &[Entry],
    file: &File,
    into: &Root,
    options: &UnpackOptions<'_>,
) -> Result<Vec<Notice>, Error> {
    let unpacker = Unpacker { file, into, options };
    let mut notices = Vec::new();
    // In the index parents stand before what they hold.
    for entry in entries
        .iter()
        .filter(|entry| is_dir(entry) && !entry.path.is_root())
    {
        into.make_dir(&entry.path, 0o700)?;
    }
    let mut files: Vec<&Entry> = entries
        .iter()
        .filter(|entry| !is_dir(entry) && !is_link(entry))
        .collect();
    files.sort_by_key(|entry| entry.path.parent());
    let groups: Vec<&[&Entry]> = files
        .chunk_by(|a, b| a.path.parent() == b.path.parent())
        .collect();
    // Large directories are split, so that one of them can use all cores.
    let groups: Vec<&[&Entry]> = groups.into_iter().flat_map(|group| group.chunks(256)).collect();
    let made: Vec<Vec<Notice>> = groups
        .into_par_iter()
        .map(|group| unpacker.make_group(group))
        .collect::<Result<_, _>>()?;
    notices.extend(made.into_iter().flatten());
    for entry in entries.iter().filter(|entry| is_link(entry)) {
        unpacker.make_link(entries, entry)?;
    }
    // Innermost first: what is made in a directory changes its time, and its mode may lock us out.
    for entry in entries.iter().rev().filter(|entry| is_dir(entry)) {
        unpacker.finish_dir(entry, &mut notices)?;
    }
    notices.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(notices)
}

impl Notice {
    /// Returns what it is about.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Device(path) | Self::Xattr(path, _) => path,
        }
    }
}

fn is_dir(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Dir { .. })
}

fn is_link(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Hardlink(_))
}

struct Unpacker<'a> {
    file: &'a File,
    into: &'a Root,
    options: &'a UnpackOptions<'a>,
}

impl Unpacker<'_> {
    /// Makes entries of one directory.
    fn make_group(&self, group: &[&Entry]) -> Result<Vec<Notice>, Error> {
        let parent = group
            .first()
            .and_then(|entry| entry.path.parent())
            .unwrap_or_default();
        let dir = self.into.sub(&parent)?;
        let mut notices = Vec::new();
        for entry in group {
            let Some(name) = entry.path.name() else { continue };
            let local = TreePath::root().join(name);
            self.make(&dir, &local, entry, &mut notices)
                .map_err(|error| match error {
                    Error::Root(error) => Error::Root(error.below(&parent)),
                    other => other,
                })?;
        }
        Ok(notices)
    }

    fn make(
        &self,
        dir: &Root,
        local: &TreePath,
        entry: &Entry,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Error> {
        let node = match &entry.kind {
            Kind::File(data) => return self.make_file(dir, local, entry, data, notices),
            Kind::Symlink(target) => {
                dir.make_symlink(local, target)?;
                return self.apply(dir, local, entry, &entry.meta, notices);
            }
            // Overlay's own form of a whiteout; its metadata means nothing.
            Kind::Whiteout => return Ok(dir.make_node(local, Node::CharDevice(0, 0), 0)?),
            Kind::Fifo => Node::Fifo,
            Kind::CharDevice(major, minor) => Node::CharDevice(*major, *minor),
            Kind::BlockDevice(major, minor) => Node::BlockDevice(*major, *minor),
            Kind::Dir { .. } | Kind::Hardlink(_) => return Ok(()),
        };
        match dir.make_node(local, node, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                notices.push(Notice::Device(entry.path.clone()));
                Ok(())
            }
            other => {
                other?;
                self.apply(dir, local, entry, &entry.meta, notices)
            }
        }
    }

    fn make_file(
        &self,
        dir: &Root,
        local: &TreePath,
        entry: &Entry,
        data: &FileData,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Copy {
            path: entry.path.clone(),
            source,
        };
        let out = dir.create_file(local, 0o600)?;
        copy_data(self.file, data, &out).map_err(failed)?;
        let meta = &entry.meta;
        if self.options.owners == Owners::Keep {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            rustix::fs::fchown(&out, Some(uid), Some(gid)).map_err(|errno| failed(errno.into()))?;
        }
        // After the owner: changing that drops setuid bits and capabilities.
        rustix::fs::fchmod(&out, Mode::from_raw_mode(meta.mode)).map_err(|errno| failed(errno.into()))?;
        for (name, value) in &meta.xattrs {
            match rustix::fs::fsetxattr(&out, &name[..], value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(errno) if is_refusal(errno) => {
                    notices.push(Notice::Xattr(entry.path.clone(), name.clone()))
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        let time = Timespec {
            tv_sec: meta.mtime.seconds,
            tv_nsec: meta.mtime.nanos.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&out, &times).map_err(|errno| failed(errno.into()))
    }

    /// Gives something that isn't a regular file its metadata.
    fn apply(
        &self,
        dir: &Root,
        local: &TreePath,
        entry: &Entry,
        meta: &Meta,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Error> {
        if self.options.owners == Owners::Keep {
            dir.set_owner(local, meta.uid, meta.gid)?;
        }
        if !matches!(entry.kind, Kind::Symlink(_)) {
            dir.set_mode(local, meta.mode)?;
        }
        for (name, value) in &meta.xattrs {
            match dir.set_xattr(local, name, value) {
                Err(error) if error.errno().is_some_and(is_refusal) => {
                    notices.push(Notice::Xattr(entry.path.clone(), name.clone()));
                }
                other => other?,
            }
        }
        Ok(dir.set_time(local, meta.mtime)?)
    }

    fn make_link(&self, entries: &[Entry], entry: &Entry) -> Result<(), Error> {
        let Kind::Hardlink(first) = &entry.kind else {
            return Ok(());
        };
        let dangling = || Error::DanglingLink {
            path: entry.path.clone(),
            target: first.clone(),
        };
        let mut target = first;
        for _ in 0..MAX_LINK_CHAIN {
            let found = entries.binary_search_by(|other| other.path.cmp(target));
            match found.map(|number| &entries[number].kind) {
                Ok(Kind::Hardlink(next)) if next != target => target = next,
                Ok(Kind::Hardlink(_)) => return Err(dangling()),
                // The layer may remove or replace the name but keep the inode: that is how a rename looks.
                Ok(Kind::Whiteout | Kind::Dir { .. }) | Err(_) => {
                    let (root, path) = (self.options.below)(target).ok_or_else(dangling)?;
                    return Ok(self.into.make_hardlink(&entry.path, &root, &path)?);
                }
                Ok(_) => return Ok(self.into.make_hardlink(&entry.path, self.into, target)?),
            }
        }
        Err(dangling())
    }

    fn finish_dir(&self, entry: &Entry, notices: &mut Vec<Notice>) -> Result<(), Error> {
        let Kind::Dir { opaque, implied } = entry.kind else {
            return Ok(());
        };
        let lower = if implied {
            self.lower_meta(&entry.path)?
        } else {
            None
        };
        let undescribed = Meta {
            mode: 0o755,
            ..Meta::default()
        };
        let meta = match (&lower, implied) {
            (Some(lower), _) => lower,
            (None, true) => &undescribed,
            (None, false) => &entry.meta,
        };
        if opaque {
            let name: &[u8] = match self.options.overlay {
                OverlayXattr::Trusted => b"trusted.overlay.opaque",
                OverlayXattr::User => b"user.overlay.opaque",
            };
            // Not a notice: without it, removed files would come back.
            self.into.set_xattr(&entry.path, name, b"y")?;
        }
        self.apply(self.into, &entry.path, entry, meta, notices)
    }

    /// Returns the metadata that a lower layer's directory has on disk.
    fn lower_meta(&self, path: &TreePath) -> Result<Option<Meta>, Error> {
        let Some((root, path)) = (self.options.below)(path) else {
            return Ok(None);
        };
        let stat: Stat = root.stat(&path)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
            return Ok(None);
        }
        let mut xattrs = root.xattrs(&path)?;
        xattrs.retain(|(name, _)| {
            !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
        });
        Ok(Some(Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: mtime_of(&stat),
            xattrs,
        }))
    }
}

/// More links to links than this are a loop.
const MAX_LINK_CHAIN: usize = 40;

/// Attributes are best effort where the machine has no place for them or forbids them.
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS)
}

/// Below this, looking for holes costs more than it saves.
const SPARSE_BYTES: u64 = 64 * 1024;

/// Copies a file's data out of the layer file, holes as holes.
fn copy_data(from: &File, data: &FileData, out: &File) -> io::Result<()> {
    let end = data
        .offset
        .checked_add(data.size_bytes)
        .ok_or(io::ErrorKind::InvalidData)?;
    if data.size_bytes < SPARSE_BYTES {
        return copy_range(from, data.offset, end, 0, out);
    }
    // Beyond its end, a file looks like a hole.
    if from.metadata()?.len() < end {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    out.set_len(data.size_bytes)?;
    let mut at = data.offset;
    while at < end {
        // The shared position moves, but nobody reads by it.
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start.min(end),
            // Only a hole is left.
            Err(Errno::NXIO) => return Ok(()),
            // No hole can be told on this file system.
            Err(_) => return copy_range(from, at, end, at - data.offset, out),
        };
        let stop = rustix::fs::seek(from, SeekFrom::Hole(start))
            .unwrap_or(end)
            .clamp(start, end);
        if start >= end {
            return Ok(());
        }
        copy_range(from, start, stop, start - data.offset, out)?;
        at = stop.max(start + 1);
    }
    Ok(())
}

/// Copies `[at, end)` to `to` in `out`, inside the kernel where it can.
fn copy_range(from: &File, mut at: u64, end: u64, mut to: u64, out: &File) -> io::Result<()> {
    if end - at >= SPARSE_BYTES {
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(from.as_fd(), Some(&mut at), out.as_fd(), Some(&mut to), wanted)
            {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(Errno::INTR) => {}
                // Not between these file systems.
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    let mut buffer = vec![0; usize::try_from(end - at).unwrap_or(usize::MAX).min(256 * 1024)];
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact_at(&mut buffer[..wanted], at)?;
        out.write_all_at(&buffer[..wanted], to)?;
        at += wanted as u64;
        to += wanted as u64;
    }
    Ok(())
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
