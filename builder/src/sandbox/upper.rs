//! Where a container's changes go: thrown away after they were packed.
//!
//! Two kinds: a tmpfs with a budget, and a directory on disk. What is *in* it is the packer's business. A loop-mounted
//! ext4 image, which is faster than a directory when a tmpfs is too small, is not here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cache::layer::Meta;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::error::{Result, SandboxError, Step as _};
use super::mount::{self, NODEV, NOSUID, Param};
use super::targets::times_of;
use super::userns::Namespace;

/// Free space below which a tmpfs counts as full: a writer that met ENOSPC may have given a little back since.
const NEARLY_FULL_BYTES: u64 = 1 << 20;

/// The `f_type` of overlayfs. Spec: linux/magic.h.
const OVERLAYFS: rustix::fs::FsWord = 0x794c_7630;

/// The upper and work directory of one overlay. Dropping it frees a tmpfs; a directory's content is its owner's to
/// remove.
#[derive(Debug)]
pub(crate) struct Upper {
    /// Detached mount with `upper` and `work` in it.
    base: OwnedFd,
    upper: OwnedFd,
    /// A tmpfs has a budget of its own; a directory shares its file system's.
    tmpfs: bool,
}

impl Upper {
    /// Returns an upper in memory that can hold `size_bytes`.
    pub(crate) fn tmpfs(size_bytes: u64) -> Result<Self> {
        // The default limit of inodes follows the machine's memory; small files need more than one per page.
        let inodes = (size_bytes / 1024).max(1 << 16).to_string();
        let size = size_bytes.to_string();
        let params = [
            Param::Text("source", "tmpfs"),
            Param::Text("size", &size),
            Param::Text("nr_inodes", &inodes),
            Param::Text("mode", "0700"),
        ];
        let base = mount::create("tmpfs", &params, NOSUID | NODEV).step("mount a tmpfs for changes")?;
        Self::prepare(base, true)
    }

    /// Returns an upper in an empty directory, which must not be on overlayfs: that is refused.
    pub(crate) fn directory(dir: BorrowedFd<'_>) -> Result<Self> {
        let file_system = rustix::fs::fstatfs(dir).step("ask for the scratch directory's file system")?;
        if file_system.f_type == OVERLAYFS {
            return Err(SandboxError::Refused {
                reason: "the scratch directory lies on overlayfs, which can't hold a container's changes"
                    .to_owned(),
            });
        }
        let base = mount::bind(dir, "", NOSUID | NODEV).step("bind the scratch directory for changes")?;
        Self::prepare(base, false)
    }

    fn prepare(base: OwnedFd, tmpfs: bool) -> Result<Self> {
        // The upper's mode is what the container sees as the mode of `/`, until `describe_root` says another.
        for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
            let mode = Mode::from_raw_mode(mode);
            rustix::fs::mkdirat(&base, name, mode).step(format!("make the {name} directory"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let upper =
            rustix::fs::openat(&base, "upper", flags, Mode::empty()).step("open the upper directory")?;
        Ok(Self { base, upper, tmpfs })
    }

    /// Gives the container's `/` the mode, owner and modification time of the image's: overlayfs takes them from the
    /// upper, whatever the lowers say. To be called before the run.
    pub(crate) fn describe_root(&self, meta: &Meta) -> Result<()> {
        let step = "give the upper directory the root's";
        Namespace::current().require(|| "the image's root directory".to_owned(), meta.uid, meta.gid)?;
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::fchown(&self.upper, Some(uid), Some(gid)).step(format!("{step} owner"))?;
        // After the owner, whose change drops the set-id bits.
        rustix::fs::fchmod(&self.upper, Mode::from_raw_mode(meta.mode)).step(format!("{step} mode"))?;
        let time = Timespec {
            tv_sec: meta.mtime.seconds,
            tv_nsec: meta.mtime.nanos.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&self.upper, &times).step(format!("{step} modification time"))
    }

    /// Removes mountpoints that had to be made in the root, parents first in `made`, where they are still empty. The
    /// directories around them keep their times.
    pub(super) fn remove_stubs(&self, made: &[String]) -> Result<()> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for path in made.iter().rev() {
            let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
            // What the process moved, removed or replaced isn't ours any more.
            let Ok(parent) = rustix::fs::openat2(&self.upper, parent, flags, Mode::empty(), resolve) else {
                continue;
            };
            let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let how = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => AtFlags::REMOVEDIR,
                FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
                _ => continue,
            };
            let step = || format!("remove the mountpoint /{path}");
            let times = times_of(parent.as_fd()).step(step())?;
            match rustix::fs::unlinkat(&parent, name, how) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                other => {
                    other.step(step())?;
                    rustix::fs::futimens(&parent, &times).step(step())?;
                }
            }
        }
        Ok(())
    }

    /// Makes ready for one more run on top of what the last one left. The work directory of a volatile overlay can't be
    /// used again.
    pub(crate) fn again(&self) -> Result<()> {
        let step = "make a new work directory";
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).step(step)?;
        let used = format!("used-{}", cache::digest::hex(&random));
        rustix::fs::renameat(&self.base, "work", &self.base, used).step(step)?;
        rustix::fs::mkdirat(&self.base, "work", Mode::RWXU).step(step)
    }

    /// Returns the directory with the changes, in overlayfs's format. Complete once the run returned.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.upper.as_fd()
    }

    /// Says whether `user.*` attributes can be kept: not by a tmpfs before Linux 6.6, where overlayfs drops those of a file
    /// that is changed without a word.
    pub(crate) fn keeps_user_attributes(&self) -> Result<bool> {
        let step = "try an attribute on the upper directory";
        match rustix::fs::fsetxattr(&self.upper, "user.ashlar", b"", XattrFlags::CREATE) {
            Err(Errno::NOTSUP) => Ok(false),
            other => {
                other.step(step)?;
                rustix::fs::fremovexattr(&self.upper, "user.ashlar").step(step)?;
                Ok(true)
            }
        }
    }

    /// Says whether a tmpfs's budget is used up, so that a failed run is worth another try on disk.
    pub(crate) fn is_full(&self) -> Result<bool> {
        if !self.tmpfs {
            return Ok(false);
        }
        let stat = rustix::fs::fstatvfs(&self.base).step("ask for the free space of a tmpfs")?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize) < NEARLY_FULL_BYTES || stat.f_favail == 0)
    }

    /// The mount that holds both directories.
    pub(super) fn base(&self) -> BorrowedFd<'_> {
        self.base.as_fd()
    }
}
