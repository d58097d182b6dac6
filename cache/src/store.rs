//! The store of one user: opens the directory, holds the shared lock, hands out the parts.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::ballast;
use crate::blobs::Blobs;
use crate::digest::DiffId;
use crate::incomplete::Incomplete;
use crate::index::{Index, IndexError};
use crate::layers::Layers;
use crate::leases::{Item, Leases};
use crate::lock::{self, Attempt, FileLock};
use crate::mounts::{CacheMounts, MountsError};
use crate::root;

/// Says why the store can't be used, tidied up, checked or repaired. What a check finds wrong in it is a
/// [`Fault`](crate::check::Fault) instead.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system's word.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// `open the store`, `make the store`, `lock`, `sweep the store`, `list`, `remove`, `set aside`.
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
    /// A cache mount.
    #[error(transparent)]
    Mounts(#[from] MountsError),
    /// A directory of the store.
    #[error(transparent)]
    Tree(#[from] root::Error),
    /// The scratch space, where layers are made once more.
    #[error("cannot check layer {layer}")]
    Scratch {
        /// The layer.
        layer: DiffId,
        /// Why.
        #[source]
        source: crate::Error,
    },
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// What needs room on the disk anyway.
    Work,
    /// To look what is in it, for a moment: on a full disk as well, where others wait until it is closed.
    Look,
    /// To make room: as for a look, and what was kept for that is given up.
    MakeRoom,
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
    /// Hears of what this process waits for.
    waits: Waits,
    _share: File,
}

/// What is told of waiting for another process. The line says for whom, and what they do.
#[derive(Debug, Clone, Copy)]
pub enum Wait<'a> {
    /// It begins.
    Begun(&'a str),
    /// It is over, after so long.
    Over(&'a str, Duration),
}

type Listener = Arc<dyn Fn(Wait<'_>) + Send + Sync>;

/// The listener of a store, if it has one.
#[derive(Default)]
struct Waits(Mutex<Option<Listener>>);

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waits")
    }
}

impl Store {
    /// Opens the store at `root`, making it when missing, and removes what crashed processes left behind.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_for(root, Purpose::Work)
    }

    /// Opens the store as [`open`](Self::open) does, also on a full disk if that is what it is for.
    pub fn open_for(root: &Path, purpose: Purpose) -> Result<Self, StoreError> {
        if purpose == Purpose::MakeRoom {
            ballast::throw_off(root);
        }
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { action, path, source }
        };
        // The directory that is made last says that all others are there.
        if !root.join(DIRECTORIES[DIRECTORIES.len() - 1]).is_dir() {
            make(root)?;
        }
        let share = lock::shared(&root.join("lock")).map_err(io("open the store", root))?;
        let meta = std::fs::symlink_metadata(root).map_err(io("open the store", root))?;
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(StoreError::Untrusted {
                path: root.to_owned(),
            });
        }
        let incomplete = Incomplete::new(root.join("incomplete"));
        incomplete.sweep().map_err(io("sweep the store", root))?;
        // SQLite would make the file, too, but not say why it can't.
        let index = root.join("index");
        lock::open(&index).map_err(io("open", &index))?;
        let (index, set_aside) = match purpose {
            Purpose::Work => Index::open(&index),
            Purpose::Look | Purpose::MakeRoom => Index::open_on_full_disk(&index),
        }?;
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
            waits: Waits::default(),
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

    /// Has `listener` told of waiting from now on, instead of the one before it.
    pub fn tell_waits(&self, listener: impl Fn(Wait<'_>) + Send + Sync + 'static) {
        let mut waits = self.waits.0.lock().unwrap_or_else(PoisonError::into_inner);
        *waits = Some(Arc::new(listener));
    }

    /// Does what [`lock`](Self::lock) does, and tells the listener of the store if somebody else has the lock; `work` is what
    /// they do meanwhile, as in "compresses layer …".
    pub fn lock_for(&self, name: &str, work: &str) -> Result<FileLock, StoreError> {
        let user = match self.try_lock(name)? {
            Attempt::Held(held) => return Ok(held),
            Attempt::Busy(user) => user,
        };
        let user = if user.is_empty() { "another process" } else { &user };
        let line = format!("waiting for {user}: it {work}");
        let tell = |wait: Wait<'_>| {
            let listener = self
                .waits
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            listener.iter().for_each(|listener| listener(wait));
        };
        let begun = Instant::now();
        tell(Wait::Begun(&line));
        let held = self.lock(name)?;
        tell(Wait::Over(&line, begun.elapsed()));
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
        let path = match dir {
            // Joined, it would get a slash behind it.
            "" => root.to_owned(),
            dir => root.join(dir),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| StoreError::Io {
                action: "make the store",
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
    fn waiting_is_told_with_who_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let (first, second) = (Store::open(&root).unwrap(), Store::open(&root).unwrap());
        first.introduce("process 7 (build ab)".to_owned());
        let held = Mutex::new(Some(first.lock("aa").unwrap()));
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hears = Arc::clone(&heard);
        // What is waited for comes as soon as it was told: who waits in silence waits for ever here.
        second.tell_waits(move |wait| {
            let line = match wait {
                Wait::Begun(line) => line.to_owned(),
                Wait::Over(line, _) => format!("over: {line}"),
            };
            hears.lock().unwrap().push(line);
            drop(held.lock().unwrap().take());
        });
        drop(second.lock_for("aa", "packs layer x").unwrap());
        drop(second.lock_for("aa", "packs layer x").unwrap());
        let told = "waiting for process 7 (build ab): it packs layer x";
        let both = [told.to_owned(), format!("over: {told}")];
        assert_eq!(
            *heard.lock().unwrap(),
            both,
            "once, since nobody has it the second time"
        );
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
