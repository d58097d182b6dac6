//! What the files of contexts contained when they were last hashed: a flat file in the store, keyed by inode,
//! believed only while size, times, mode and identity of the file are exactly the same.
//!
//! Losing it costs hashing, nothing else: damage is ignored, the last writer wins. It never answers for a file
//! that changed less than two seconds before it was hashed: on file systems with coarse timestamps such a file
//! can change again without showing it (the "racy" problem of git's index).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;

use crate::digest::ContentHash;
use crate::layer::{Timestamp, TreePath};
use crate::root::{self, Root};

const NAME: &str = "files.memo";
/// Changes with the format of a record.
const MAGIC: &[u8; 16] = b"ashlar files 1\n\0";
const KEY_BYTES: usize = 16;
const STAT_BYTES: usize = 52;
const RECORD_BYTES: usize = STAT_BYTES + 32 + CHECK_BYTES;
const CHECK_BYTES: usize = 8;
/// Keeps the file below 18 MiB, a few milliseconds to read.
const MAX_RECORDS: usize = 200_000;
const RACY: Duration = Duration::from_secs(2);

/// What must be unchanged for a file's content to be believed unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) size_bytes: u64,
    mtime: Timestamp,
    ctime: Timestamp,
    mode: u32,
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        let nanos = |n| u32::try_from(n).unwrap_or_default();
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime: Timestamp {
                seconds: stat.st_mtime,
                nanos: nanos(stat.st_mtime_nsec),
            },
            ctime: Timestamp {
                seconds: stat.st_ctime,
                nanos: nanos(stat.st_ctime_nsec),
            },
            mode: stat.st_mode,
        }
    }

    /// Returns what hard links share: device and inode.
    pub(super) fn inode_key(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Device and inode first: they are the key that records are sorted by.
    fn encode(&self) -> [u8; STAT_BYTES] {
        let mut out = [0; STAT_BYTES];
        let mut rest = &mut out[..];
        let mut put = |bytes: &[u8]| {
            let (here, tail) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            here.copy_from_slice(bytes);
            rest = tail;
        };
        put(&self.device.to_be_bytes());
        put(&self.inode.to_be_bytes());
        put(&self.size_bytes.to_be_bytes());
        put(&self.mtime.seconds.to_be_bytes());
        put(&self.ctime.seconds.to_be_bytes());
        for number in [self.mtime.nanos, self.ctime.nanos, self.mode] {
            put(&number.to_be_bytes());
        }
        out
    }

    /// Says whether the file is old enough at `now` for its times to show the next change.
    fn is_settled(&self, now: SystemTime) -> bool {
        let Some(limit) = now
            .checked_sub(RACY)
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        else {
            return false;
        };
        let limit = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        self.mtime.seconds < limit && self.ctime.seconds < limit
    }
}

type Key = [u8; KEY_BYTES];
type Record = [u8; RECORD_BYTES];

/// The memo of one store, shared by all contexts. Safe to use from several threads and processes.
#[derive(Debug, Default)]
pub struct Memo {
    /// Records as loaded, sorted by key.
    loaded: Vec<u8>,
    fresh: Mutex<BTreeMap<Key, Record>>,
}

impl Memo {
    /// Loads the memo from the store's directory. A missing or damaged one is empty.
    pub fn load(store: &Root) -> Self {
        let read = || -> Option<Vec<u8>> {
            let file = store.open_file(&TreePath::clean(NAME.as_bytes())).ok()?;
            let limit = (MAGIC.len() + MAX_RECORDS * RECORD_BYTES) as u64;
            let mut bytes = Vec::new();
            file.take(limit).read_to_end(&mut bytes).ok()?;
            bytes.starts_with(MAGIC).then(|| bytes.split_off(MAGIC.len()))
        };
        let mut loaded = read().unwrap_or_default();
        loaded.truncate(loaded.len() / RECORD_BYTES * RECORD_BYTES);
        Self {
            loaded,
            fresh: Mutex::default(),
        }
    }

    /// Returns what the file with this identity contained.
    pub(super) fn lookup(&self, identity: &Identity) -> Option<ContentHash> {
        let stat = identity.encode();
        let (records, _) = self.loaded.as_chunks::<RECORD_BYTES>();
        let found = records
            .binary_search_by(|record| record[..KEY_BYTES].cmp(&stat[..KEY_BYTES]))
            .ok()?;
        let (body, check) = records[found].split_at(RECORD_BYTES - CHECK_BYTES);
        if body[..STAT_BYTES] != stat || check != check_of(body) {
            return None;
        }
        Some(ContentHash::from_bytes(body[STAT_BYTES..].try_into().ok()?))
    }

    /// Notes what a file contained. `hashed_at`: when reading began, by the system's clock.
    pub(super) fn remember(&self, identity: &Identity, content: ContentHash, hashed_at: SystemTime) {
        if !identity.is_settled(hashed_at) {
            return;
        }
        let mut record = [0; RECORD_BYTES];
        record[..STAT_BYTES].copy_from_slice(&identity.encode());
        record[STAT_BYTES..][..32].copy_from_slice(content.as_bytes());
        let check = check_of(&record[..RECORD_BYTES - CHECK_BYTES]);
        record[RECORD_BYTES - CHECK_BYTES..].copy_from_slice(&check);
        let key = record[..KEY_BYTES]
            .try_into()
            .expect("because a record begins with its key");
        self.fresh
            .lock()
            .expect("because nothing panics while it is held")
            .insert(key, record);
    }

    /// Writes the memo into the store's directory if something was learnt, by rename.
    pub fn save(&self, store: &Root) -> Result<(), root::Error> {
        let fresh = self
            .fresh
            .lock()
            .expect("because nothing panics while it is held");
        if fresh.is_empty() {
            return Ok(());
        }
        let (loaded, _) = self.loaded.as_chunks::<RECORD_BYTES>();
        let room = MAX_RECORDS.saturating_sub(fresh.len());
        let kept = loaded
            .iter()
            .filter(|record| !fresh.contains_key(&record[..KEY_BYTES]))
            .take(room);
        let mut records: Vec<&Record> = kept.chain(fresh.values().take(MAX_RECORDS)).collect();
        records.sort_unstable_by_key(|record| &record[..KEY_BYTES]);
        let mut bytes = Vec::with_capacity(MAGIC.len() + records.len() * RECORD_BYTES);
        bytes.extend_from_slice(MAGIC);
        records
            .iter()
            .for_each(|record| bytes.extend_from_slice(&record[..]));

        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = TreePath::clean(format!("{NAME}.{}.{number}", std::process::id()).as_bytes());
        store.remove_tree(&temporary)?;
        let mut file = store.create_file(&temporary, 0o600)?;
        let written = file.write_all(&bytes).map_err(|source| root::Error::Os {
            action: "write",
            path: temporary.clone(),
            source,
        });
        // Not synced: a file torn by a power cut has wrong checks, and those records don't count.
        let done = written.and_then(|()| store.rename(&temporary, &TreePath::clean(NAME.as_bytes())));
        if done.is_err() {
            // The first failure is the one to report; what stays is small and replaced next time.
            let _ = store.unlink(&temporary);
        }
        done
    }
}

fn check_of(body: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::hash(body);
    hash.as_bytes()[..CHECK_BYTES]
        .try_into()
        .expect("because a hash is longer than a check")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64) -> Identity {
        let long_ago = Timestamp {
            seconds: 1_000_000,
            nanos: 5,
        };
        Identity {
            device: 7,
            inode,
            size_bytes: 3,
            mtime: long_ago,
            ctime: long_ago,
            mode: 0o100_644,
        }
    }

    #[test]
    fn answers_only_for_the_very_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Root::open_host(dir.path()).unwrap();
        let memo = Memo::load(&store);
        let now = SystemTime::now();
        for inode in 0..500 {
            memo.remember(&identity(inode), blake3::hash(&inode.to_le_bytes()).into(), now);
        }
        memo.save(&store).unwrap();
        let memo = Memo::load(&store);
        for inode in 0..500 {
            assert_eq!(
                memo.lookup(&identity(inode)),
                Some(blake3::hash(&inode.to_le_bytes()).into())
            );
        }
        let same = identity(3);
        let later = Timestamp {
            nanos: 6,
            ..same.mtime
        };
        for other in [
            identity(500),
            Identity { device: 8, ..same },
            Identity {
                size_bytes: 4,
                ..same
            },
            Identity { mtime: later, ..same },
            Identity { ctime: later, ..same },
            Identity {
                mode: 0o100_755,
                ..same
            },
        ] {
            assert_eq!(memo.lookup(&other), None, "{other:?}");
        }
        // A second save keeps what was there.
        memo.remember(&identity(900), blake3::hash(b"x").into(), now);
        memo.save(&store).unwrap();
        let memo = Memo::load(&store);
        assert!(memo.lookup(&identity(900)).is_some() && memo.lookup(&identity(3)).is_some());
        assert_eq!(store.list().unwrap().len(), 1, "no temporary file stays");
    }

    #[test]
    fn young_files_are_not_believed() {
        // hardening R20
        let memo = Memo::default();
        let mut young = identity(1);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_002);
        memo.remember(&young, blake3::hash(b"x").into(), now);
        assert!(memo.fresh.lock().unwrap().is_empty());
        young.ctime.seconds -= 1;
        memo.remember(&young, blake3::hash(b"x").into(), now);
        assert!(memo.fresh.lock().unwrap().is_empty(), "its mtime is still young");
        young.mtime.seconds -= 1;
        // A clock that was set back: what it says now is no measure for what was changed before.
        for later in [1, 10, 1_000_000_000] {
            let mut of_the_future = young;
            of_the_future.ctime.seconds += later;
            memo.remember(&of_the_future, blake3::hash(b"x").into(), now);
            assert!(memo.fresh.lock().unwrap().is_empty(), "{later} s ahead");
        }
        memo.remember(&young, blake3::hash(b"x").into(), now);
        assert_eq!(memo.fresh.lock().unwrap().len(), 1);
    }

    #[test]
    fn damage_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let store = Root::open_host(dir.path()).unwrap();
        let memo = Memo::default();
        memo.remember(&identity(1), blake3::hash(b"x").into(), SystemTime::now());
        memo.save(&store).unwrap();
        let good = std::fs::read(dir.path().join(NAME)).unwrap();
        let reload = |bytes: &[u8]| {
            let path = TreePath::clean(NAME.as_bytes());
            store.unlink(&path).unwrap();
            store.create_file(&path, 0o600).unwrap().write_all(bytes).unwrap();
            Memo::load(&store).lookup(&identity(1))
        };
        assert!(reload(&good).is_some());
        for at in [
            0,
            MAGIC.len(),
            MAGIC.len() + 40,
            MAGIC.len() + STAT_BYTES,
            good.len() - 1,
        ] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(reload(&bad), None, "byte {at}");
        }
        assert_eq!(reload(&good[..good.len() - 1]), None);
        assert_eq!(reload(b""), None);
    }
}
