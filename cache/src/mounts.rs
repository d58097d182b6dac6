//! Cache mounts: directories that outlive builds, each under a kernel lock, in `mounts/` of the store.
//!
//! ```text
//! mounts/<identity>-<copy>/about   what people see of it, as JSON; its time is that of the last use
//! mounts/<identity>-<copy>/data/   what is mounted
//! mounts/<identity>-<copy>.lock    held by whoever uses it; says who took it last
//! ```
//!
//! An identity is a hash, so that no id is ever a path. What is in a cache is nobody's business here, and hostile: it is
//! measured and removed through [`Root`] only. Who may share what with whom is decided by the caller's [`Sharing`];
//! waiting is the caller's too, because only it can be cancelled.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::incomplete::Incomplete;
use crate::layer::TreePath;
use crate::lock;
use crate::root::{self, Root};

/// Copies of one cache that may exist: as many private users at once.
const MAX_COPIES: u32 = 1024;
/// `about` and lock files are small; more than this isn't ours.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// Says why a cache mount can't be had.
#[derive(Debug, thiserror::Error)]
pub enum MountsError {
    /// The file system's word.
    #[error("cannot {action} the cache mount {path}: {source}")]
    Io {
        /// `make`, `lock`, `list`, `remove`.
        action: &'static str,
        /// Which part.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A tree of it can't be walked or removed.
    #[error(transparent)]
    Tree(#[from] root::Error),
    /// Too many use the same cache privately.
    #[error("{MAX_COPIES} copies of one cache mount are in use")]
    TooMany,
}

/// Which cache: equal for those that are to share content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(String);

/// Whose builds share a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Those of one project: the place where its context is, for people to know it by.
    Project(String),
    /// Those that give this name.
    Named(String),
    /// All of the store.
    Global,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Project(project) => write!(f, "project {project}"),
            Self::Named(name) => write!(f, "namespace {name}"),
            Self::Global => f.write_str("all projects"),
        }
    }
}

/// What people see of a cache mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its id, as written.
    pub id: String,
    /// Its namespace, where one was named; empty for that of a project, and for the one that all builds share.
    pub namespace: String,
    /// The project that it belongs to; empty for a named namespace, and for what all builds share. Caches of stores from
    /// before there were projects have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// Permissions and owner that it began with; `None` when it began as a copy of something else.
    pub owner: Option<(u32, u32, u32)>,
    /// Which part of something else it began as a copy of.
    pub source: Option<String>,
}

impl About {
    /// Returns the identity: every part with its length, so that no two caches meet.
    pub fn identity(&self) -> Identity {
        let mut hasher = blake3::Hasher::new();
        if !self.project.is_empty() {
            // Read as a length, what others begin with, this word is longer than any part.
            hasher.update(b"project\0");
            hasher.update(&(self.project.len() as u64).to_le_bytes());
            hasher.update(self.project.as_bytes());
        }
        for part in [&self.namespace, &self.id] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        if let Some((mode, uid, gid)) = self.owner {
            for number in [mode, uid, gid] {
                hasher.update(&number.to_le_bytes());
            }
        }
        if let Some(source) = &self.source {
            hasher.update(b"from");
            hasher.update(source.as_bytes());
        }
        Identity(hasher.finalize().to_hex().to_string())
    }

    /// Returns whose builds share it.
    pub fn scope(&self) -> Scope {
        match (self.project.as_str(), self.namespace.as_str()) {
            ("", "") => Scope::Global,
            ("", name) => Scope::Named(name.to_owned()),
            (project, _) => Scope::Project(project.to_owned()),
        }
    }

    /// Returns what it is wherever its project is: a path means nothing on another machine, and is nobody's business there.
    #[must_use]
    pub fn anywhere(&self) -> Self {
        Self {
            project: String::new(),
            ..self.clone()
        }
    }
}

/// With whom a user shares a cache while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// With others that share; beside those that don't, a copy.
    Shared,
    /// With nobody: a copy while somebody has it.
    Private,
    /// With nobody: the one cache, or none yet.
    Locked,
}

/// What a cache is to be when it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// As its last user left it.
    Kept,
    /// As new.
    Fresh,
}

/// A cache in use, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Held {
    data: PathBuf,
    _lock: Lock,
}

impl Held {
    /// Returns the directory to be mounted.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// What came of asking for a cache.
#[derive(Debug)]
pub enum Taken {
    /// It is the caller's.
    Held(Held),
    /// Somebody else has it; the text says who took it last, if they said so. Of several that share it, another may be left.
    Busy(String),
}

/// A cache that is there.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Names it for [`CacheMounts::remove`].
    pub name: String,
    /// What it is; `None` where that can't be read any more.
    pub about: Option<About>,
    /// What its files occupy.
    pub size_bytes: u64,
    /// When it was last taken, in seconds since the Unix epoch.
    pub used_unix: i64,
    /// Whether somebody uses it now, as far as the kernel's list of locks tells.
    pub is_used: bool,
}

/// The cache mounts of a store.
#[derive(Debug)]
pub struct CacheMounts {
    dir: PathBuf,
}

impl CacheMounts {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Takes a cache if it is free; never blocks for others. `user` says to them who has it. A new one is made by `fill`,
    /// which gets an empty directory, mode 0700, and gives it what it begins with.
    pub fn take<E: From<MountsError>>(
        &self,
        about: &About,
        (sharing, start): (Sharing, Start),
        user: &str,
        scratch: &Incomplete,
        fill: &dyn Fn(&Root) -> Result<(), E>,
    ) -> Result<Taken, E> {
        make_dir(&self.dir).map_err(failed("make", &self.dir))?;
        let identity = about.identity();
        let n_copies = match sharing {
            Sharing::Locked => 1,
            Sharing::Shared | Sharing::Private => MAX_COPIES,
        };
        let mut busy = String::new();
        for copy in 0..n_copies {
            let name = format!("{}-{copy}", identity.0);
            let exclusive = sharing != Sharing::Shared || start == Start::Fresh;
            let path = self.lock_path(&name);
            let Some(lock) = try_lock(&path, exclusive).map_err(failed("lock", &path))? else {
                busy = who(&path);
                continue;
            };
            // Only to be told; that it can't be written is no reason to fail.
            let Lock(file) = &lock;
            let _ = file
                .set_len(0)
                .and_then(|()| file.write_all_at(user.as_bytes(), 0));
            if start == Start::Fresh {
                self.discard(&name, scratch)?;
            }
            let data = self.dir.join(&name).join("data");
            if !data.is_dir() {
                self.make(&name, about, scratch, fill)?;
            }
            if let Ok(about) = File::open(self.dir.join(&name).join("about")) {
                let _ = about.set_modified(SystemTime::now());
            }
            return Ok(Taken::Held(Held { data, _lock: lock }));
        }
        match sharing {
            Sharing::Locked => Ok(Taken::Busy(busy)),
            Sharing::Shared | Sharing::Private => Err(MountsError::TooMany.into()),
        }
    }

    /// Takes a cache that is there, as it is and for the caller alone; `None` where there is none, or somebody uses it.
    pub fn hold(&self, about: &About) -> Result<Option<Held>, MountsError> {
        let name = format!("{}-0", about.identity().0);
        let data = self.dir.join(&name).join("data");
        if !data.is_dir() {
            return Ok(None);
        }
        let path = self.lock_path(&name);
        let lock = try_lock(&path, true).map_err(failed("lock", &path))?;
        // It may have been removed before it was locked.
        Ok(lock
            .filter(|_| data.is_dir())
            .map(|lock| Held { data, _lock: lock }))
    }

    /// Says whether a cache is there, whoever uses it.
    pub fn contains(&self, about: &About) -> bool {
        self.dir.join(format!("{}-0", about.identity().0)).is_dir()
    }

    /// Says whether a cache is there that has nothing in it.
    pub fn is_empty(&self, about: &About) -> bool {
        is_empty(&self.dir.join(format!("{}-0", about.identity().0)).join("data"))
    }

    /// Removes a cache that has nothing in it, so that it begins anew; `false` when it has, or somebody uses it.
    pub fn discard_empty(&self, about: &About, scratch: &Incomplete) -> Result<bool, MountsError> {
        let name = format!("{}-0", about.identity().0);
        let path = self.lock_path(&name);
        let Some(_held) = try_lock(&path, true).map_err(failed("lock", &path))? else {
            return Ok(false);
        };
        let is_it = self.is_empty(about);
        if is_it {
            self.discard(&name, scratch)?;
        }
        Ok(is_it)
    }

    /// Makes a cache beside its place and moves it there whole, unless another user was faster.
    fn make<E: From<MountsError>>(
        &self,
        name: &str,
        about: &About,
        scratch: &Incomplete,
        fill: &dyn Fn(&Root) -> Result<(), E>,
    ) -> Result<(), E> {
        let beside = scratch.path().map_err(failed("make", &self.dir))?;
        let data = beside.join("data");
        for dir in [&beside, &data] {
            make_dir(dir).map_err(failed("make", dir))?;
        }
        let text = serde_json::to_vec(about).expect("because text and numbers always are JSON");
        let file = beside.join("about");
        File::create_new(&file)
            .and_then(|file| {
                file.write_all_at(&text, 0)?;
                // What is in a cache may be lost with the power, but not what it is.
                file.sync_all()
            })
            .map_err(failed("make", &file))?;
        let root = Root::open_host(&data).map_err(MountsError::from)?;
        fill(&root)?;
        let place = self.dir.join(name);
        match std::fs::rename(&beside, &place) {
            // A directory that isn't empty is there; what was made goes with the scratch space.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTEMPTY | Errno::EXIST)) => {
                Ok(())
            }
            other => Ok(other.map_err(failed("make", &place))?),
        }
    }

    /// Moves a cache that is held exclusively out of the way and removes it.
    fn discard(&self, name: &str, scratch: &Incomplete) -> Result<(), MountsError> {
        let place = self.dir.join(name);
        let beside = scratch.path().map_err(failed("remove", &place))?;
        match std::fs::rename(&place, &beside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed("remove", &place))?,
        }
        let dir = scratch.dir().map_err(failed("remove", &place))?;
        let moved = beside
            .file_name()
            .expect("because the path was just made of a name");
        let moved = TreePath::clean(moved.as_encoded_bytes());
        match Root::open_host(dir)?.remove_tree(&moved) {
            // Written by users that exist only in a namespace: a sweep inside of one takes it.
            Err(error) if error.is_denied() => Ok(()),
            other => Ok(other?),
        }
    }

    /// Lists all caches, in no order.
    pub fn list(&self) -> Result<Vec<Listed>, MountsError> {
        let failed = |source| MountsError::Io {
            action: "list",
            path: self.dir.clone(),
            source,
        };
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut listed = Vec::new();
        // Trying a lock would be in the way of who wants the cache just then.
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_name(&name) {
                continue;
            }
            let text = read_small(&entry.path().join("about"));
            listed.push(Listed {
                about: text.and_then(|text| serde_json::from_str(&text).ok()),
                size_bytes: self.size_bytes(&name)?,
                used_unix: used_unix(&entry.path().join("about")),
                is_used: is_locked(&locks, &self.lock_path(&name)),
                name,
            });
        }
        Ok(listed)
    }

    /// Removes a cache that nobody uses; `false` when somebody does.
    pub fn remove(&self, name: &str, scratch: &Incomplete) -> Result<bool, MountsError> {
        let path = self.lock_path(name);
        let Some(_held) = try_lock(&path, true).map_err(failed("lock", &path))? else {
            return Ok(false);
        };
        self.discard(name, scratch)?;
        // Still held: whoever opened it meanwhile sees that it isn't the current one.
        std::fs::remove_file(&path).map_err(failed("remove", &path))?;
        Ok(true)
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.lock"))
    }

    /// Adds up what a cache occupies; what goes away meanwhile doesn't count.
    fn size_bytes(&self, name: &str) -> Result<u64, MountsError> {
        match Root::open_host(&self.dir.join(name)) {
            Err(error) if error.is_missing() => Ok(0),
            other => Ok(other?.size_bytes()?),
        }
    }
}

/// Says whether a directory is there and empty.
fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> MountsError {
    let path = path.to_owned();
    move |source| MountsError::Io {
        action,
        path: path.clone(),
        source,
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Says whether a name is a cache's: the hash, a dash, the number.
fn is_name(name: &str) -> bool {
    name.split_once('-').is_some_and(|(hash, copy)| {
        hash.len() == 64
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !copy.is_empty()
            && copy.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// A lock that is held.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// Closing is not enough: a process that another thread is just starting may have the file open for a moment.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Locks a file if that can be had now.
fn try_lock(path: &Path, exclusive: bool) -> io::Result<Option<Lock>> {
    let how = match exclusive {
        true => FlockOperation::NonBlockingLockExclusive,
        false => FlockOperation::NonBlockingLockShared,
    };
    loop {
        let file = lock::open(path)?;
        match flock(&file, how) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            other => other?,
        }
        if lock::is_current(&file, path) {
            return Ok(Some(Lock(file)));
        }
    }
}

/// Says whether a file is in the kernel's list of locks: `1: FLOCK ADVISORY WRITE 71 fe:00:131073 0 EOF`. By its inode
/// only, because some file systems have other device numbers there: another file's lock may be taken for it.
fn is_locked(locks: &str, path: &Path) -> bool {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return false;
    };
    let inode = format!(":{}", meta.ino());
    let mut files = locks.lines().filter_map(|line| line.split_whitespace().nth(5));
    files.any(|file| file.ends_with(&inode))
}

/// Returns who says to hold a lock.
fn who(path: &Path) -> String {
    read_small(path).unwrap_or_default()
}

fn read_small(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(MAX_TEXT_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

fn used_unix(path: &Path) -> i64 {
    let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    let since = modified
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
