//! Where this process attaches mounts for kernels that take no detached ones: a tmpfs in its own mount namespace.
//!
//! Refuses in any other namespace, so that nothing is ever mounted where the machine could see it. A container's
//! process finds the same mounts in its copy of the namespace, under the same names; copies go with their namespace.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::error::{Result, SandboxError, Step as _};
use super::mount::{self, NODEV, NOEXEC, NOSUID};

/// What the tmpfs covers: a directory that every procfs has, and in which neither builder nor helper ever looks.
pub(super) const PLACE: &str = "/proc/driver";
/// Below the place: where a container's process attaches its own tmpfs, in its own namespace.
pub(super) const OWN: &str = "own";
/// Only directories are in it.
const SIZE_BYTES: u64 = 4 << 20;

/// Whether this process's mount namespace is its own.
static PRIVATE: AtomicBool = AtomicBool::new(false);
/// Whether the tmpfs is there.
static OPENED: Mutex<bool> = Mutex::new(false);
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Notes that this process's mount namespace is its own from now on.
pub(super) fn is_private() {
    PRIVATE.store(true, Ordering::Release);
}

/// A mount below the place, detached when dropped.
#[derive(Debug)]
pub(super) struct Attached {
    number: u32,
}

impl Attached {
    /// Attaches a detached mount of a directory. Its descriptor refers to the attached mount from then on.
    pub(super) fn new(mount: BorrowedFd<'_>) -> Result<Self> {
        open()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = path(&name(number));
        rustix::fs::mkdirat(CWD, &path, Mode::RWXU).step(format!("make the mountpoint {path}"))?;
        let attached = Self { number };
        mount::attach_at(mount, &path).step(format!("attach a mount to {path}"))?;
        Ok(attached)
    }

    /// The mount's name, for [`name`].
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let path = path(&name(self.number));
        // What can't be undone now is undone when the namespace ends with this process.
        let _attached = rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let _empty = rustix::fs::unlinkat(CWD, &path, AtFlags::REMOVEDIR);
    }
}

/// Returns the name of a mount, relative to the place and short: it may have to share one page with 499 others.
pub(super) fn name(number: u32) -> String {
    number.to_string()
}

/// Returns the absolute path of something below the place.
pub(super) fn path(name: &str) -> String {
    format!("{PLACE}/{name}")
}

/// Makes the place this process's working directory. For processes with one thread.
pub(super) fn enter() -> io::Result<()> {
    Ok(rustix::process::chdir(PLACE)?)
}

/// Opens a directory below the place, which is the working directory.
pub(super) fn open_below(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, name, flags, Mode::empty())?)
}

/// Mounts the tmpfs, once per process.
fn open() -> Result<()> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if *opened {
        return Ok(());
    }
    if !PRIVATE.load(Ordering::Acquire) {
        return Err(SandboxError::Refused {
            reason: "layers can't be mounted in a mount namespace that is shared with others".to_owned(),
        });
    }
    let tmpfs = mount::tmpfs(SIZE_BYTES, "0700", NOSUID | NODEV | NOEXEC).step("mount a tmpfs for mounts")?;
    mount::attach_at(tmpfs.as_fd(), PLACE).step(format!("attach a tmpfs to {PLACE}"))?;
    rustix::fs::mkdirat(CWD, path(OWN), Mode::RWXU).step(format!("make the mountpoint {PLACE}/{OWN}"))?;
    *opened = true;
    Ok(())
}
