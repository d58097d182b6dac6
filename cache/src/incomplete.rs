//! Scratch space for whatever is being written: a directory per process, held by a kernel lock. What no live
//! process holds is removed when the store is opened next.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::FileLock;

/// The scratch space of this process; made when first used, removed when dropped.
#[derive(Debug)]
pub struct Incomplete {
    base: PathBuf,
    own: OnceLock<Own>,
    counter: AtomicU64,
}

#[derive(Debug)]
struct Own {
    dir: PathBuf,
    _lock: FileLock,
}

impl Incomplete {
    pub(crate) fn new(base: PathBuf) -> Self {
        Self {
            base,
            own: OnceLock::new(),
            counter: AtomicU64::new(0),
        }
    }

    /// Returns this process's scratch directory.
    pub fn dir(&self) -> io::Result<&Path> {
        if let Some(own) = self.own.get() {
            return Ok(&own.dir);
        }
        let own = self.make()?;
        // Another thread may have been faster; then ours is dropped again.
        if let Err(own) = self.own.set(own) {
            drop(own);
        }
        Ok(&self.own.get().expect("it was just set").dir)
    }

    /// Makes the directory under a lock that is there first, so that a sweep never sees it without.
    fn make(&self) -> io::Result<Own> {
        loop {
            let mut random = [0; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
            let name = crate::digest::hex(&random);
            let Some(lock) = FileLock::try_now(self.base.join(format!("{name}.lock")))? else {
                continue;
            };
            let dir = self.base.join(name);
            std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
            return Ok(Own { dir, _lock: lock });
        }
    }

    /// Returns a path in the scratch directory that nothing has yet.
    pub fn path(&self) -> io::Result<PathBuf> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        Ok(self.dir()?.join(number.to_string()))
    }

    /// Makes a new empty file, open for reading and writing.
    pub fn file(&self) -> io::Result<(File, PathBuf)> {
        let path = self.path()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok((file, path))
    }

    /// Removes what dead processes left behind. Never touches what a live one holds.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.base)? {
            let path = entry?.path();
            let dir = if path.extension().is_some_and(|extension| extension == "lock") {
                path.with_extension("")
            } else {
                path.clone()
            };
            if let Some(_held) = FileLock::try_now(dir.with_extension("lock"))? {
                match remove_tree(&dir) {
                    // Made in a user namespace, by users that exist only there: who sweeps inside of one takes it.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // What is left now is removed by the next sweep.
        let _ = remove_tree(&self.dir);
    }
}

/// Removes a directory of ours with all that is in it; fine when it is not there.
fn remove_tree(dir: &Path) -> io::Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "std's remove_dir_all works on directory fds and follows no link"
    )]
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_what_is_dead_and_leaves_what_lives() {
        let base = tempfile::tempdir().unwrap();
        let live = Incomplete::new(base.path().to_owned());
        live.file().unwrap();
        std::fs::create_dir(base.path().join("0123456789abcdef")).unwrap();
        File::create(base.path().join("0123456789abcdef/0")).unwrap();
        File::create(base.path().join("fedcba9876543210.lock")).unwrap();

        Incomplete::new(base.path().to_owned()).sweep().unwrap();
        let mut left: Vec<_> = std::fs::read_dir(base.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        left.sort();
        let own = live.dir().unwrap().to_owned();
        assert_eq!(left, [own.clone(), own.with_extension("lock")]);

        drop(live);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
