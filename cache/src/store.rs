//! The store of one user: opens the directory, holds the shared lock, hands out the parts.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::blobs::Blobs;
use crate::incomplete::Incomplete;
use crate::index::{Index, IndexError};
use crate::layers::Layers;
use crate::leases::{Item, Leases};
use crate::lock::{self, Attempt, FileLock};
use crate::mounts::CacheMounts;

/// Says why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system's word.
    #[error("cannot {action} the store {path}: {source}")]
    Io {
        /// `open`, `make`, `lock`, `sweep`.
        action: &'static str,
        /// Which part.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could change what is stored.
    #[error("the store {path} belongs to another user or is writable by others; it must be yours, mode 0700")]
    Untrusted {
        /// The root.
        path: PathBuf,
    },
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// An open store. Several processes may have it open; dropping it releases this process's share.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    blobs: Blobs,
    layers: Layers,
    index: Index,
    incomplete: Incomplete,
    mounts: CacheMounts,
    leases: Arc<Leases>,
    set_aside: Option<PathBuf>,
    /// Who this process is, for those who wait for it.
    user: OnceLock<String>,
    _share: File,
}

impl Store {
    /// Opens the store at `root`, making it when missing, and removes what crashed processes left behind.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { action, path, source }
        };
        // The directory that is made last says that all others are there.
        if !root.join(DIRECTORIES[DIRECTORIES.len() - 1]).is_dir() {
            make(root)?;
        }
        let share = lock::shared(&root.join("lock")).map_err(io("open", root))?;
        let meta = std::fs::symlink_metadata(root).map_err(io("open", root))?;
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(StoreError::Untrusted {
                path: root.to_owned(),
            });
        }
        let incomplete = Incomplete::new(root.join("incomplete"));
        incomplete.sweep().map_err(io("sweep", root))?;
        // SQLite would make the file, too, but not say why it can't.
        let index = root.join("index");
        lock::open(&index).map_err(io("open", &index))?;
        let (index, set_aside) = Index::open(&index)?;
        let leases = Arc::new(Leases::new(root));
        Ok(Self {
            blobs: Blobs::new(root.join("blobs/sha256"), Arc::clone(&leases)),
            layers: Layers::new(root.join("layers"), Arc::clone(&leases)),
            leases,
            index,
            incomplete,
            mounts: CacheMounts::new(root.join("mounts")),
            set_aside,
            user: OnceLock::new(),
            root: root.to_owned(),
            _share: share,
        })
    }

    /// Returns the directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where a damaged index was moved to when the store was opened; worth a warning.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// Returns the content store.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Returns the layer files.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns this process's scratch space.
    pub fn incomplete(&self) -> &Incomplete {
        &self.incomplete
    }

    /// Returns the cache mounts.
    pub fn mounts(&self) -> &CacheMounts {
        &self.mounts
    }

    /// Returns what this process relies on.
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Relies on a directory of `unpacked/`: if it is there now, or comes to be, it stays as long as this process lives.
    pub fn lease_unpacked(&self, name: &str) {
        let path = self.root.join("unpacked").join(name);
        self.leases.take(Item::Unpacked(name.to_owned()), &path);
    }

    /// Says who this process is to those who wait for its locks; the first word counts.
    pub fn introduce(&self, user: String) {
        let _ = self.user.set(user);
    }

    /// Returns who this process is, for those who wait for it.
    pub fn user(&self) -> &str {
        self.user
            .get_or_init(|| format!("process {}", std::process::id()))
    }

    /// Waits for the lock of the step or transfer called `name` (digits and letters only), across processes. Blocks.
    pub fn lock(&self, name: &str) -> Result<FileLock, StoreError> {
        let path = self.lock_path(name);
        let held = FileLock::wait(path.clone()).map_err(unlocked(path))?;
        held.say(self.user());
        Ok(held)
    }

    /// Takes the lock that [`lock`](Self::lock) waits for, if nobody has it; otherwise says who does.
    pub fn try_lock(&self, name: &str) -> Result<Attempt, StoreError> {
        let path = self.lock_path(name);
        let attempt = FileLock::attempt(path.clone()).map_err(unlocked(path))?;
        if let Attempt::Held(held) = &attempt {
            held.say(self.user());
        }
        Ok(attempt)
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }
}

fn unlocked(path: PathBuf) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io {
        action: "lock",
        path,
        source,
    }
}

/// What a store consists of, in the order in which it is made.
const DIRECTORIES: [&str; 8] = [
    "",
    "blobs",
    "blobs/sha256",
    "layers",
    "unpacked",
    "incomplete",
    "locks",
    "leases",
];

fn make(root: &Path) -> Result<(), StoreError> {
    for dir in DIRECTORIES {
        let path = root.join(dir);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| StoreError::Io {
                action: "make",
                path,
                source,
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_store_is_made_private_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/store");
        let first = Store::open(&root).unwrap();
        assert_eq!(std::fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
        let second = Store::open(&root).unwrap();
        let held = first.lock("aa").unwrap();
        drop(held);
        drop(second.lock("aa").unwrap());
    }

    #[test]
    fn a_store_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        drop(Store::open(&root).unwrap());
        #[expect(clippy::disallowed_methods, reason = "a directory of this test")]
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Store::open(&root), Err(StoreError::Untrusted { .. })));
    }
}
