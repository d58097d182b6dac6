//! When what was committed reaches the disk. SQLite leaves that to this file: in WAL mode a commit is whole or absent after
//! a power cut whether it was synced or not, so only what somebody was told to be kept has to be waited for.
//!
//! Finished steps are synced behind the caller's back: losing the last of them costs running it once more. A record may get
//! to disk before the name of a layer that it tells of, or the other way round; it counts only while the layer is there.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{Index, IndexError};

/// Brings the journal of an index to disk.
#[derive(Debug)]
pub(super) struct Sync {
    journal: PathBuf,
    behind: Mutex<Option<Behind>>,
    /// Why the journal could not be synced, until somebody is told.
    failed: Arc<Mutex<Option<io::Error>>>,
}

/// The thread that syncs; ends when nobody can ask it any more.
#[derive(Debug)]
struct Behind {
    ask: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Sync {
    /// Returns one for the index at `path`.
    pub(super) fn of(path: &Path) -> Self {
        let mut journal = path.as_os_str().to_owned();
        journal.push("-wal");
        Self {
            journal: journal.into(),
            behind: Mutex::default(),
            failed: Arc::default(),
        }
    }

    /// Has synced what was committed before this call, and before any earlier one.
    pub(super) fn now(&self) -> io::Result<()> {
        self.told()?;
        sync(&self.journal)
    }

    /// Has what was committed synced soon. The error is one of earlier.
    pub(super) fn soon(&self) -> io::Result<()> {
        self.told()?;
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if behind.is_none() {
            *behind = Some(self.start()?);
        }
        if let Some(behind) = behind.as_ref() {
            // Full: one that wasn't begun yet is asked for already, and will do.
            let _asked = behind.ask.try_send(());
        }
        Ok(())
    }

    fn start(&self) -> io::Result<Behind> {
        let (ask, asked) = sync_channel(1);
        let (journal, failed) = (self.journal.clone(), Arc::clone(&self.failed));
        let work = move || {
            while asked.recv().is_ok() {
                if let Err(error) = sync(&journal) {
                    failed
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                }
            }
        };
        let thread = std::thread::Builder::new().name("index".to_owned()).spawn(work)?;
        Ok(Behind { ask, thread })
    }

    fn told(&self) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), Err)
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        let behind = self.behind.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Behind { ask, thread }) = behind.take() {
            drop(ask);
            // It can only have ended.
            let _ended = thread.join();
        }
    }
}

impl Index {
    /// Returns once what was committed is on disk.
    pub(super) fn synced(&self) -> Result<(), IndexError> {
        self.sync_by(Sync::now)
    }

    /// Has what was committed brought to disk, and doesn't wait for that.
    pub(super) fn synced_soon(&self) -> Result<(), IndexError> {
        self.sync_by(Sync::soon)
    }

    fn sync_by(&self, how: impl FnOnce(&Sync) -> io::Result<()>) -> Result<(), IndexError> {
        self.sync
            .as_ref()
            .map_or(Ok(()), how)
            .map_err(|source| IndexError::Sync {
                path: self.path.clone(),
                source,
            })
    }
}

/// The journal isn't there when the index was set aside, or before anything is written. Opening and closing it disturbs
/// no lock: SQLite's are on other files.
fn sync(journal: &Path) -> io::Result<()> {
    match File::open(journal) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_behind_the_back_is_told_once_by_the_next_call() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing can be below a file.
        File::create(dir.path().join("file")).unwrap();
        let sync = Sync::of(&dir.path().join("file/index"));
        sync.soon().unwrap();
        while sync.failed.lock().unwrap().is_none() {
            std::thread::yield_now();
        }
        let error = sync.soon().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert_eq!(sync.now().unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_journal_that_is_not_there_needs_no_sync() {
        let dir = tempfile::tempdir().unwrap();
        let sync = Sync::of(&dir.path().join("index"));
        sync.soon().unwrap();
        sync.now().unwrap();
    }
}
