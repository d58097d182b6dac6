//! Makes a layer out of an overlay's upper directory: what a step changed, in sorted order.
//!
//! Walks by descriptors, one name at a time and without following anything, so that neither links nor depth matter.
//! The upper must be at rest. Sockets are left out, as by every image builder; overlay features that move names
//! or contents elsewhere (redirect, metacopy) are refused: mounts for steps have them off.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::unpack::OverlayXattr;
use super::writer::{Body, LayerWriter, Written};
use super::{Meta, Timestamp, TreePath, Xattrs};
use crate::error::{Error, Problem, Result};

/// How many directories are kept open; those above are opened again on the way back.
const MAX_OPEN_DIRS: usize = 64;
/// The kernel's XATTR_SIZE_MAX and XATTR_LIST_MAX.
const MAX_XATTR_BYTES: usize = 64 * 1024;

/// What is packed.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// Paths that never get into the layer, with everything below: stubs that were made to mount onto.
    pub omit: BTreeSet<TreePath>,
    /// Whether the layer has an entry for the root itself.
    pub root: bool,
    /// Which marks are those of the overlay that wrote the directory. The other kind is ordinary to that overlay: it
    /// copies them up with a directory, and a step can forge them; they say nothing and are left out.
    pub marks: OverlayXattr,
}

/// Packs the directory `upper` into `writer` and finishes it. `is_below` says whether the layers below have something
/// at a path: the kernel marks every new directory as opaque, but only one that hides something is one in the layer.
pub fn pack(
    upper: BorrowedFd<'_>,
    mut writer: LayerWriter,
    options: &PackOptions,
    is_below: &dyn Fn(&TreePath) -> bool,
) -> Result<Written> {
    let mut walk = Walk {
        marks: options.marks,
        is_below,
        links: HashMap::new(),
        list: vec![0; MAX_XATTR_BYTES],
        value: vec![0; MAX_XATTR_BYTES],
        n_entries: 0,
    };
    let root = TreePath::root();
    let fd = open_dir(upper, b".").map_err(|error| read_error(&root, error))?;
    let mut frames = vec![walk.enter(&mut writer, fd, root, options.root)?];
    while let Some(frame) = frames.last_mut() {
        let Some((name, file_type)) = frame.names.pop() else {
            leave(&mut frames)?;
            continue;
        };
        let path = frame.path.join(&name);
        if options.omit.contains(&path) {
            continue;
        }
        let dir = frame
            .fd
            .as_ref()
            .expect("because leave() opens the directory that it returns to");
        if let Some(fd) = walk.visit(&mut writer, dir.as_fd(), &name, &path, file_type)? {
            frames.push(walk.enter(&mut writer, fd, path, true)?);
            if let Some(far) = frames.len().checked_sub(MAX_OPEN_DIRS + 1) {
                frames[far].fd = None;
            }
        }
    }
    writer.finish()
}

/// A directory being packed.
struct Frame {
    fd: Option<OwnedFd>,
    /// Device and inode, to know it again.
    identity: (u64, u64),
    path: TreePath,
    /// What is left to do, last first.
    names: Vec<(Vec<u8>, FileType)>,
}

/// Goes back to the directory above.
fn leave(frames: &mut Vec<Frame>) -> Result<()> {
    let below = frames.pop();
    if let (Some(Frame { fd: Some(below), .. }), Some(frame)) = (below, frames.last_mut())
        && frame.fd.is_none()
    {
        let failed = |error| read_error(&frame.path, error);
        let fd = open_dir(below.as_fd(), b"..").map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if identity(&stat) != frame.identity {
            return Err(failed(Errno::STALE));
        }
        frame.fd = Some(fd);
    }
    Ok(())
}

struct Walk<'a> {
    marks: OverlayXattr,
    is_below: &'a dyn Fn(&TreePath) -> bool,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), TreePath>,
    list: Vec<u8>,
    value: Vec<u8>,
    n_entries: u64,
}

impl Walk<'_> {
    /// Adds a directory and lists it.
    fn enter(&mut self, writer: &mut LayerWriter, fd: OwnedFd, path: TreePath, add: bool) -> Result<Frame> {
        let failed = |error| read_error(&path, error);
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        let (xattrs, opaque) = self.xattrs(&path, &mut FdXattrs(fd.as_fd()))?;
        if add {
            let opaque = opaque && (self.is_below)(&path);
            self.add(writer, &path, meta(&stat, xattrs), Body::Dir { opaque })?;
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((name.to_vec(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        Ok(Frame {
            fd: Some(fd),
            identity: identity(&stat),
            path,
            names,
        })
    }

    fn add(&mut self, writer: &mut LayerWriter, path: &TreePath, meta: Meta, body: Body<'_>) -> Result<()> {
        self.n_entries += 1;
        writer.add(path.clone(), meta, body)
    }

    /// Adds what `name` is, but for a directory, which is returned open.
    fn visit(
        &mut self,
        writer: &mut LayerWriter,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
        hint: FileType,
    ) -> Result<Option<OwnedFd>> {
        let failed = |error| read_error(path, error);
        let mut file_type = hint;
        let mut stat = None;
        if !matches!(file_type, FileType::Directory | FileType::RegularFile) {
            let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            file_type = FileType::from_raw_mode(found.st_mode);
            stat = Some(found);
        }
        match (file_type, stat) {
            (FileType::Directory, _) => return open_dir(dir, name).map(Some).map_err(failed),
            (FileType::RegularFile, _) => self.visit_file(writer, dir, name, path)?,
            (FileType::Socket | FileType::Unknown, _) | (_, None) => {}
            (file_type, Some(stat)) => self.visit_special(writer, dir, name, path, file_type, &stat)?,
        }
        Ok(None)
    }

    fn visit_file(
        &mut self,
        writer: &mut LayerWriter,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
    ) -> Result<()> {
        let failed = |error| read_error(path, error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(Errno::STALE));
        }
        if let Some(target) = self.known_link(&stat, path) {
            return self.add(writer, path, meta(&stat, Xattrs::new()), Body::Hardlink(target));
        }
        let (xattrs, _) = self.xattrs(path, &mut FdXattrs(fd.as_fd()))?;
        let size_bytes = u64::try_from(stat.st_size).map_err(|_| failed(Errno::INVAL))?;
        let mut file = File::from(fd);
        let body = Body::File {
            size_bytes,
            reader: &mut file,
            content: None,
        };
        self.add(writer, path, meta(&stat, xattrs), body)
    }

    fn visit_special(
        &mut self,
        writer: &mut LayerWriter,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
        file_type: FileType,
        stat: &Stat,
    ) -> Result<()> {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        if file_type == FileType::CharacterDevice && (major, minor) == (0, 0) {
            return self.add(writer, path, Meta::default(), Body::Whiteout);
        }
        if let Some(target) = self.known_link(stat, path) {
            return self.add(writer, path, meta(stat, Xattrs::new()), Body::Hardlink(target));
        }
        let body = match file_type {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new());
                Body::Symlink(target.map_err(|error| read_error(path, error))?.into_bytes())
            }
            FileType::CharacterDevice => Body::CharDevice(major, minor),
            FileType::BlockDevice => Body::BlockDevice(major, minor),
            _ => Body::Fifo,
        };
        let (xattrs, _) = self.xattrs(path, &mut NameXattrs::new(dir, name))?;
        self.add(writer, path, meta(stat, xattrs), body)
    }

    /// Returns the first name of a file that was met before; remembers one that will be met again.
    fn known_link(&mut self, stat: &Stat, path: &TreePath) -> Option<TreePath> {
        if stat.st_nlink < 2 {
            return None;
        }
        let known = self.links.get(&identity(stat)).cloned();
        if known.is_none() {
            self.links.insert(identity(stat), path.clone());
        }
        known
    }

    /// Reads the attributes that a layer keeps, and whether they say that a directory is opaque.
    fn xattrs(&mut self, path: &TreePath, source: &mut dyn XattrSource) -> Result<(Xattrs, bool)> {
        let failed = |error| read_error(path, error);
        let length = match source.list(&mut self.list) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(failed(error)),
        };
        let (mut xattrs, mut opaque) = (Xattrs::new(), false);
        for name in self.list[..length]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
        {
            let prefix: &[u8] = match self.marks {
                OverlayXattr::Trusted => b"trusted.overlay.",
                OverlayXattr::User => b"user.overlay.",
            };
            let overlay = name.strip_prefix(prefix);
            let length = source.get(name, &mut self.value).map_err(failed)?;
            let value = &self.value[..length];
            match (overlay, value) {
                (None, _) => xattrs.push((name.to_vec(), value.to_vec())),
                (Some(b"opaque"), b"y") => opaque = true,
                (Some(b"opaque" | b"redirect" | b"metacopy" | b"whiteout" | b"whiteouts"), _) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(Problem::Overlay(name).of(self.n_entries + 1, path.as_bytes()));
                }
                // Overlay's own book-keeping: origin, impure, nlink, uuid, protattr.
                (Some(_), _) => {}
            }
        }
        xattrs.sort();
        Ok((xattrs, opaque))
    }
}

/// The two ways to reach attributes: links and devices can't be opened for reading.
trait XattrSource {
    fn list(&mut self, buffer: &mut [u8]) -> Result<usize, Errno>;
    fn get(&mut self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno>;
}

struct FdXattrs<'a>(BorrowedFd<'a>);

impl XattrSource for FdXattrs<'_> {
    fn list(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::flistxattr(self.0, buffer)
    }
    fn get(&mut self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::fgetxattr(self.0, name, buffer)
    }
}

/// Goes through the directory's descriptor in `/proc`: the calls with a directory argument are younger than the
/// kernels that we run on.
struct NameXattrs(Vec<u8>);

impl NameXattrs {
    fn new(dir: BorrowedFd<'_>, name: &[u8]) -> Self {
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        Self(path)
    }
}

impl XattrSource for NameXattrs {
    fn list(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::llistxattr(&self.0[..], buffer)
    }
    fn get(&mut self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::lgetxattr(&self.0[..], name, buffer)
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn read_error(path: &TreePath, error: Errno) -> Error {
    Error::ReadSource {
        path: path.clone(),
        source: error.into(),
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn meta(stat: &Stat, xattrs: Xattrs) -> Meta {
    let nanos =
        u32::try_from(stat.st_mtime_nsec).expect("because the kernel counts nanoseconds below a second");
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp {
            seconds: stat.st_mtime,
            nanos,
        },
        xattrs,
    }
}
