//! Kernel locks on files: they die with the process that holds them, so there is nothing to clean up after a crash.
//! Never pid files, never time-outs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// An exclusive lock on a file that exists only while somebody holds or waits for it.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Waits until nobody else holds `path`, and holds it. Blocks.
    pub fn wait(path: PathBuf) -> io::Result<Self> {
        loop {
            let file = open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            if is_current(&file, &path) {
                return Ok(Self { file, path });
            }
        }
    }

    /// Holds `path` if nobody else does; `None` otherwise. Never blocks.
    pub fn try_now(path: PathBuf) -> io::Result<Option<Self>> {
        loop {
            let file = open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                other => other?,
            }
            if is_current(&file, &path) {
                return Ok(Some(Self { file, path }));
            }
        }
    }
}

impl Drop for FileLock {
    /// Unlinks while still holding: whoever waits on the old inode notices and tries again.
    fn drop(&mut self) {
        // A failure leaves an unlocked file behind, which the next holder takes over.
        let _ = std::fs::remove_file(&self.path);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Opens and locks `path` shared, for as long as the returned file lives. Blocks while somebody holds it exclusively.
pub fn shared(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    flock(&file, FlockOperation::LockShared)?;
    Ok(file)
}

pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Says whether `file` is still what `path` names; the previous holder may have unlinked it.
pub(crate) fn is_current(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step");
        let held = FileLock::try_now(path.clone()).unwrap().expect("free");
        assert!(FileLock::try_now(path.clone()).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        assert!(FileLock::try_now(path).unwrap().is_some());
    }

    #[test]
    fn every_waiter_gets_its_turn_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _held = FileLock::wait(dir.path().join("step")).unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
