//! Opens the index: brings it up to date, sets a damaged one aside, and gets by on a disk that is full.
//!
//! Any number of processes may have it open; that takes a file of shared memory, for which a full disk has no room. Who only
//! wants to make room opens it alone instead.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::sync::Sync;
use super::{Index, IndexError, health, is_damage, place};

/// How long others are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long between two tries to open it.
const PAUSE: Duration = Duration::from_millis(2);
/// What brings an index from each version to the next. The version is written into the file; an older index is brought
/// up to date, a newer one is set aside.
pub(super) const STEPS: [&str; 4] = [
    "
CREATE TABLE record (key BLOB PRIMARY KEY, step TEXT NOT NULL, layers BLOB NOT NULL, components TEXT NOT NULL,
    created INTEGER NOT NULL, took_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX record_step ON record (step, created);
CREATE TABLE tree_hash (input BLOB, selection TEXT, hash BLOB NOT NULL, PRIMARY KEY (input, selection)) WITHOUT ROWID;
CREATE TABLE image (name TEXT PRIMARY KEY, config BLOB NOT NULL, manifest BLOB, created INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE blob (diff_id BLOB, codec TEXT, digest BLOB NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (diff_id, codec)) WITHOUT ROWID;
",
    "
CREATE TABLE variant (name TEXT, platform TEXT, config BLOB NOT NULL, PRIMARY KEY (name, platform)) WITHOUT ROWID;
",
    "
CREATE TABLE fetched (url BLOB PRIMARY KEY, etag TEXT, modified TEXT, digest BLOB NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE evicted (layer BLOB PRIMARY KEY, at INTEGER NOT NULL, because TEXT NOT NULL) WITHOUT ROWID;
",
];

/// What is known of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// If it hasn't, that is an error.
    HasRoom,
    /// The index is to be opened nevertheless.
    MayBeFull,
}

/// Who may have the index open at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Users {
    /// Any number of processes.
    Any,
    /// This one.
    One,
}

impl Index {
    /// Opens the index, making it when missing. The second value is where a damaged one was moved to, if it was.
    pub fn open(path: &Path) -> Result<(Self, Option<PathBuf>), IndexError> {
        Self::open_on(path, Disk::HasRoom)
    }

    /// Opens the index as [`open`](Self::open) does, and on a full disk nevertheless: then others wait until it is closed,
    /// so this is for what makes room and ends soon.
    pub fn open_on_full_disk(path: &Path) -> Result<(Self, Option<PathBuf>), IndexError> {
        Self::open_on(path, Disk::MayBeFull)
    }

    fn open_on(path: &Path, disk: Disk) -> Result<(Self, Option<PathBuf>), IndexError> {
        match Self::open_patiently(path, disk) {
            Ok(index) if health::is_suspect(path) => index.settle_suspicion(disk),
            Ok(index) => Ok((index, None)),
            Err(error) if is_damage(&error) => {
                let aside = set_aside(path)?;
                Ok((Self::open_patiently(path, disk)?, Some(aside)))
            }
            Err(error) => Err(error),
        }
    }

    /// Who makes the file, or is the last to close it, keeps others out for a moment without SQLite's waiting for that.
    pub(super) fn open_patiently(path: &Path, disk: Disk) -> Result<Self, IndexError> {
        let began = Instant::now();
        loop {
            let opened = match Self::try_open(path, Users::Any) {
                Err(error) if disk == Disk::MayBeFull && may_lack_room(&error) => {
                    Self::try_open(path, Users::One)
                }
                other => other,
            };
            match opened {
                Err(error) if is_busy(&error) && began.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
    }

    fn try_open(path: &Path, users: Users) -> Result<Self, IndexError> {
        let wrap = |source| IndexError::of_sqlite(path, source);
        let mut connection = Connection::open(path).map_err(wrap)?;
        connection.busy_timeout(PATIENCE).map_err(wrap)?;
        if users == Users::One {
            // Before anything is read: then what others would share is in memory of this process.
            // https://www.sqlite.org/wal.html#use_of_wal_without_shared_memory
            connection
                .pragma_update(None, "locking_mode", "exclusive")
                .map_err(wrap)?;
        }
        let mode: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .map_err(wrap)?;
        let wanted = place::journal(path);
        let mode = match mode == wanted {
            true => mode,
            false => connection
                .pragma_update_and_check(None, "journal_mode", wanted, |row| row.get::<_, String>(0))
                .map_err(wrap)?,
        };
        let is_wal = mode == "wal";
        connection
            .pragma_update(None, "synchronous", if is_wal { "normal" } else { "full" })
            .map_err(wrap)?;
        let newest = i32::try_from(STEPS.len()).expect("because there are few steps");
        let version = user_version(&connection).map_err(wrap)?;
        if !(0..=newest).contains(&version) {
            return Err(IndexError::Malformed {
                path: path.to_owned(),
                table: "user_version",
            });
        }
        if version < newest {
            let transaction = connection
                .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
                .map_err(wrap)?;
            // Another process may have been first.
            let version = user_version(&transaction).map_err(wrap)?;
            for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
                transaction.execute_batch(step).map_err(wrap)?;
            }
            transaction
                .pragma_update(None, "user_version", newest)
                .map_err(wrap)?;
            transaction.commit().map_err(wrap)?;
        }
        Ok(Self {
            connection: Mutex::new(connection),
            path: path.to_owned(),
            sync: is_wal.then(|| Sync::of(path)),
        })
    }
}

fn user_version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Says whether another process is in the way for now.
fn is_busy(error: &IndexError) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    code(error).is_some_and(|code| matches!(code, DatabaseBusy | DatabaseLocked))
}

/// Says whether an error may be one of a full disk: what SQLite fails at then it doesn't always know itself.
fn may_lack_room(error: &IndexError) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, SystemIoFailure};
    let is_it = |code| matches!(code, CannotOpen | SystemIoFailure);
    matches!(error, IndexError::Full { .. }) || code(error).is_some_and(is_it)
}

fn code(error: &IndexError) -> Option<rusqlite::ErrorCode> {
    match error {
        IndexError::Sqlite { source, .. } => source.sqlite_error_code(),
        IndexError::Full { .. }
        | IndexError::Malformed { .. }
        | IndexError::Sync { .. }
        | IndexError::SetAside { .. } => None,
    }
}

/// Moves a damaged index and its journals out of the way, keeping them for a look.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, IndexError> {
    let with_suffix = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = (1..)
        .map(|n| with_suffix(&format!(".damaged-{n}")))
        .find(|candidate| !candidate.exists())
        .expect("there are more numbers than files");
    std::fs::rename(path, &aside).map_err(|source| IndexError::SetAside {
        path: path.to_owned(),
        source,
    })?;
    for journal in ["-wal", "-shm"] {
        // A journal of the old file must not be replayed into the new one.
        match std::fs::remove_file(with_suffix(journal)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(IndexError::SetAside {
                    path: with_suffix(journal),
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(aside)
}
