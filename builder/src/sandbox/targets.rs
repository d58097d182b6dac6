//! The container's side of mounts: finds or makes their targets, and moves them there.
//!
//! Targets are paths of the image, so they are hostile: resolved below the root's descriptor, made component by
//! component, and refused where they would cover what protects the machine. A mount on `/etc` gets the container's
//! `hosts` and `resolv.conf` where it has such files; nothing is made in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::attach::{Kind, Point};
use super::error::{Result, Step as _};
use super::mount;
use super::rootfs::{components, make_dirs, mkdir, open_inside, open_path, refused, write};

/// Kernel file systems whose content is what the profile protects. Spec: linux/magic.h.
const PROTECTED: [rustix::fs::FsWord; 5] = [0x9fa0, 0x6265_6572, 0x1cd1, 0x1980_0202, 0x6367_7270];
/// The `f_type` of the second version of cgroup's file system.
const CGROUP: rustix::fs::FsWord = 0x0027_e0eb;

/// What had to be made in the root, so that it can be taken away after the run: parents first.
#[derive(Default)]
pub(super) struct Made(Vec<OwnedFd>);

impl Made {
    /// Notes what was just made in `parent`, whose times were `before`, and gives them back to it.
    pub(super) fn note(&mut self, made: OwnedFd, parent: BorrowedFd<'_>, before: &Timestamps) {
        // A wrong time of a directory is worth no failed build.
        let _ = rustix::fs::utimensat(parent, "", before, AtFlags::EMPTY_PATH);
        self.0.push(made);
    }

    /// Returns where these are, relative to the root, which is attached at `root_at` in this process's view.
    pub(super) fn paths(&self, root: BorrowedFd<'_>, root_at: &str) -> Vec<String> {
        use std::os::fd::AsRawFd as _;
        let path = |made: &OwnedFd| {
            // The container's own procfs: the root covers the one that this process began with.
            let link = format!("proc/self/fd/{}", made.as_raw_fd());
            let link = rustix::fs::readlinkat(root, link, Vec::new())
                .ok()?
                .into_string()
                .ok()?;
            Some(link.strip_prefix(root_at)?.trim_start_matches('/').to_owned())
        };
        self.0.iter().filter_map(path).collect()
    }
}

/// Returns the times of a directory, to be given back to it.
pub(super) fn times_of(dir: BorrowedFd<'_>) -> std::result::Result<Timestamps, Errno> {
    let stat = rustix::fs::fstat(dir)?;
    let time = |seconds: i64, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Ok(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    })
}

/// Moves each mount to its target, outer ones first, whatever their order: an inner one would be covered otherwise.
pub(super) fn attach_all(
    root: BorrowedFd<'_>,
    points: &[Point],
    mounts: &[OwnedFd],
    made: &mut Made,
) -> Result<()> {
    let mut in_order: Vec<(usize, &Point, &OwnedFd)> = Vec::with_capacity(points.len());
    for (point, mount) in points.iter().zip(mounts) {
        in_order.push((components(&point.target)?.len(), point, mount));
    }
    in_order.sort_by_key(|(depth, ..)| *depth);
    for (_, point, tree) in in_order {
        let target = target(root, point, made)?;
        allowed(root, &point.target, target.as_fd())?;
        mount::attach(tree.as_fd(), target.as_fd()).setup(format!("mount {}", point.target))?;
    }
    Ok(())
}

/// Finds the target, every link in it followed inside the root, and makes what is missing.
fn target(root: BorrowedFd<'_>, point: &Point, made: &mut Made) -> Result<OwnedFd> {
    let path = &point.target;
    let names = components(path)?;
    let Some((name, parents)) = names.split_last() else {
        return refused("nothing can be mounted on /");
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match open_inside(root, &names.join("/"), flags, ResolveFlags::empty()) {
        Err(Errno::NOENT) => {}
        Err(Errno::LOOP | Errno::XDEV | Errno::NOTDIR) => {
            return refused(format!("{path} does not lead to a place inside the container"));
        }
        found => return of_kind(found.setup(format!("open the mountpoint {path}"))?, point),
    }
    let parent = make_dirs(root, parents, None, Some(made))?;
    let before = times_of(parent.as_fd()).setup(format!("look at the parent of {path}"))?;
    match point.kind {
        Kind::File => write(parent.as_fd(), name, "", 0o644),
        Kind::Directory => mkdir(parent.as_fd(), name),
    }?;
    let found = open_path(parent.as_fd(), name).setup(format!("open the mountpoint {path}"))?;
    let again = open_path(parent.as_fd(), name).setup(format!("open the mountpoint {path}"))?;
    made.note(again, parent.as_fd(), &before);
    Ok(found)
}

fn of_kind(found: OwnedFd, point: &Point) -> Result<OwnedFd> {
    let path = &point.target;
    let mode = rustix::fs::fstat(&found)
        .setup(format!("look at the mountpoint {path}"))?
        .st_mode;
    match (FileType::from_raw_mode(mode), point.kind) {
        (FileType::Directory, Kind::Directory)
        | (FileType::RegularFile | FileType::Socket | FileType::Fifo, Kind::File) => Ok(found),
        (FileType::Directory, Kind::File) => {
            refused(format!("a file can't be mounted on the directory {path}"))
        }
        (_, Kind::Directory) => refused(format!("a directory can't be mounted on {path}, which is none")),
        _ => refused(format!("{path} is of the wrong type to mount on")),
    }
}

/// Refuses targets that would uncover or replace what the profile mounts: `/proc`, `/sys`, `/dev` and its devices.
fn allowed(root: BorrowedFd<'_>, path: &str, target: BorrowedFd<'_>) -> Result<()> {
    let kind = rustix::fs::fstatfs(target)
        .setup(format!("look at the file system of {path}"))?
        .f_type;
    if PROTECTED.contains(&kind) || kind == CGROUP {
        return refused(format!("nothing can be mounted on {path}: it is the kernel's"));
    }
    let identity = |fd: BorrowedFd<'_>| {
        rustix::fs::fstat(fd)
            .map(|stat| (stat.st_dev, stat.st_ino))
            .setup(format!("look at {path}"))
    };
    let found = identity(target)?;
    if found == identity(root)? {
        return refused("nothing can be mounted on /");
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mounted = open_inside(root, "dev", flags, ResolveFlags::NO_SYMLINKS).setup("open /dev")?;
    if found == identity(mounted.as_fd())? {
        return refused(format!(
            "nothing can be mounted on {path}: it holds the container's devices"
        ));
    }
    Ok(())
}

/// Gives a mount another chance: mounts a file over `path` where that is there, without making anything.
pub(super) fn cover(root: BorrowedFd<'_>, path: &str, file: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(target) = open_inside(root, path, flags, ResolveFlags::empty()) else {
        return Ok(());
    };
    let mode = rustix::fs::fstat(&target)
        .setup(format!("look at /{path}"))?
        .st_mode;
    if FileType::from_raw_mode(mode) == FileType::Directory {
        return Ok(());
    }
    mount::attach(file, target.as_fd()).setup(format!("mount /{path}"))
}
