//! Kernel locks on files: they die with the process that holds them, so there is nothing to clean up after a crash.
//! Never pid files, never time-outs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Most bytes of what a holder says of itself.
const MAX_USER_BYTES: u64 = 4 << 10;
/// Whoever took a lock just now may not have said yet who it is.
const PATIENCE: (u32, Duration) = (5, Duration::from_millis(2));

/// What came of asking for a lock.
#[derive(Debug)]
pub enum Attempt {
    /// It is the caller's.
    Held(FileLock),
    /// Somebody else has it; the text is what they said of themselves, or empty.
    Busy(String),
}

impl FileLock {
    /// Holds `path` if nobody else does, and otherwise learns who does.
    pub fn attempt(path: PathBuf) -> io::Result<Attempt> {
        let mut n_tries = 0;
        loop {
            if let Some(held) = Self::try_now(path.clone())? {
                return Ok(Attempt::Held(held));
            }
            n_tries += 1;
            let user = user(&path);
            if !user.is_empty() || n_tries == PATIENCE.0 {
                return Ok(Attempt::Busy(user));
            }
            std::thread::sleep(PATIENCE.1);
        }
    }

    /// Says to those who wait who holds it. That it can't be written is no reason to fail.
    pub fn say(&self, user: &str) {
        let _ = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(user.as_bytes(), 0));
    }
}

/// Reads what a holder says of itself: one line, without what could act on a terminal.
fn user(path: &Path) -> String {
    let mut text = Vec::new();
    let file = File::open(path);
    let _ = file.and_then(|file| file.take(MAX_USER_BYTES).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    text.chars().filter(|c| !c.is_control()).collect()
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
    fn who_holds_a_lock_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step");
        let Attempt::Held(held) = FileLock::attempt(path.clone()).unwrap() else {
            panic!("nobody has it");
        };
        let check = |expected: &str| match FileLock::attempt(path.clone()).unwrap() {
            Attempt::Busy(user) => assert_eq!(user, expected),
            Attempt::Held(_) => panic!("somebody has it"),
        };
        check("");
        held.say("a longer text than the next");
        held.say("process\u{1b} 7");
        check("process 7");
        drop(held);
        assert!(matches!(FileLock::attempt(path).unwrap(), Attempt::Held(_)));
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
