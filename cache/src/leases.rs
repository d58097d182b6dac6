//! What running processes rely on, so that nobody removes it under them.
//!
//! ```text
//! gate              held shared while a lease is written down, exclusively while things are removed
//! leases/<id>       what one process relies on, one a line; locked as long as that process lives
//! ```
//!
//! Whoever finds something in the store takes a lease of it first and looks then: what was there after the lease was
//! written down stays until the process ends. Leases are never given back before. A process that can't write its
//! leases down (a full disk) keeps the gate instead, so that nothing at all is removed while it lives.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, flock};

use crate::digest::{DiffId, Digest};
use crate::lock::{self, FileLock};

/// The most bytes of one process's leases; more isn't ours. Then nothing is removed.
const MAX_BYTES: u64 = 256 << 20;
/// Killed processes leave their files behind. Who finds more than this many looks which of them nobody holds.
const MANY: usize = 32;

/// Something in the store that can be relied on, or removed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Item {
    /// A layer file.
    Layer(DiffId),
    /// A blob.
    Blob(Digest),
    /// A directory of `unpacked/`, by its name.
    Unpacked(String),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(layer) => write!(f, "layer {layer}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Unpacked(name) => write!(f, "unpacked {name}"),
        }
    }
}

impl Item {
    fn parse(line: &str) -> Option<Self> {
        let (kind, name) = line.split_once(' ')?;
        Some(match kind {
            "layer" => Self::Layer(name.parse().ok()?),
            "blob" => Self::Blob(name.parse().ok()?),
            "unpacked" => Self::Unpacked(name.to_owned()),
            _ => return None,
        })
    }
}

/// The leases of this process.
#[derive(Debug)]
pub struct Leases {
    dir: PathBuf,
    gate: PathBuf,
    own: Mutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    taken: HashSet<Item>,
    /// Where they are written down; made with the first.
    written: Option<(FileLock, File)>,
    gate: Option<File>,
    /// The gate is kept until the process ends, because a lease could not be written down.
    keeps_gate: bool,
}

impl Leases {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            dir: root.join("leases"),
            gate: root.join("gate"),
            own: Mutex::default(),
        }
    }

    /// Takes a lease of what is, or will be, at `path`, and notes there that it is in use. Says whether this process
    /// has none of it yet: then whether it is there must be asked again.
    pub(crate) fn take(&self, item: Item, path: &Path) -> bool {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.taken.contains(&item) {
            return false;
        }
        if !own.keeps_gate && self.write_down(&mut own, &item).is_err() {
            // The shared lock isn't given back.
            own.keeps_gate = true;
        }
        own.taken.insert(item);
        note_use(path);
        true
    }

    fn write_down(&self, own: &mut Own, item: &Item) -> io::Result<()> {
        if own.gate.is_none() {
            own.gate = Some(lock::open(&self.gate)?);
        }
        if let Some(gate) = &own.gate {
            flock(gate, FlockOperation::LockShared)?;
        }
        if own.written.is_none() {
            own.written = Some(self.begin()?);
        }
        if let Some((_, file)) = &mut own.written {
            file.write_all(format!("{item}\n").as_bytes())?;
        }
        if let Some(gate) = &own.gate {
            flock(gate, FlockOperation::Unlock)?;
        }
        Ok(())
    }

    fn begin(&self) -> io::Result<(FileLock, File)> {
        let known = std::fs::read_dir(&self.dir)?;
        let known: Vec<PathBuf> = known.flatten().map(|entry| entry.path()).collect();
        if known.len() > MANY {
            // Letting go of a file that was nobody's removes it.
            known.into_iter().for_each(|path| drop(FileLock::try_now(path)));
        }
        loop {
            let mut random = [0; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
            let path = self.dir.join(crate::digest::hex(&random));
            if let Some(held) = FileLock::try_now(path.clone())? {
                let file = File::options().append(true).open(&path)?;
                return Ok((held, file));
            }
        }
    }

    /// Says whether this process could not write down what it relies on: then it must not remove anything itself.
    pub(crate) fn keeps_gate(&self) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).keeps_gate
    }

    /// Returns what running processes rely on just now.
    pub(crate) fn taken_now(&self) -> io::Result<HashSet<Item>> {
        let mut closed = self.close_gate()?;
        Ok(std::mem::take(&mut closed.taken))
    }

    /// Waits until nobody is about to take a lease, and keeps everybody from it. Blocks.
    pub(crate) fn close_gate(&self) -> io::Result<Closed> {
        let gate = lock::open(&self.gate)?;
        flock(&gate, FlockOperation::LockExclusive)?;
        let mut closed = Closed {
            gate,
            taken: HashSet::new(),
        };
        for entry in std::fs::read_dir(&self.dir)? {
            closed.read(&entry?.path())?;
        }
        Ok(closed)
    }
}

/// The closed gate: as long as this lives, no process begins to rely on anything.
#[derive(Debug)]
pub(crate) struct Closed {
    gate: File,
    taken: HashSet<Item>,
}

impl Closed {
    /// Says whether a running process relies on something.
    pub(crate) fn is_taken(&self, item: &Item) -> bool {
        self.taken.contains(item)
    }

    /// Adds the leases of one process, or removes them if it lives no more.
    fn read(&mut self, path: &Path) -> io::Result<()> {
        if let Some(_of_nobody) = FileLock::try_now(path.to_owned())? {
            return Ok(());
        }
        let mut text = String::new();
        let file = match File::open(path) {
            // Its process ended just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let too_much = || io::Error::other(format!("{} is not a list of leases", path.display()));
        let n_read = file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        if n_read as u64 > MAX_BYTES {
            return Err(too_much());
        }
        for line in text.lines() {
            self.taken.insert(Item::parse(line).ok_or_else(too_much)?);
        }
        Ok(())
    }
}

impl Drop for Closed {
    /// Closing is not enough: a process that another thread is just starting may have the file open for a moment.
    fn drop(&mut self) {
        let _ = flock(&self.gate, FlockOperation::Unlock);
    }
}

/// Sets the time of last access, which nothing else in a store depends on. Only to be told: failing is no harm.
fn note_use(path: &Path) {
    let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = Timestamps {
        last_access: time(UTIME_NOW),
        last_modification: time(UTIME_OMIT),
    };
    let _ = rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(dir: &Path) -> Leases {
        let _ = std::fs::create_dir(dir.join("leases"));
        Leases::new(dir)
    }

    fn layer(name: &str) -> Item {
        Item::Layer(DiffId::of(name.as_bytes()))
    }

    #[test]
    fn items_are_written_as_they_are_read() {
        for item in [
            layer("x"),
            Item::Blob(Digest::of(b"x")),
            Item::Unpacked("in-1-chain-ab cd".to_owned()),
        ] {
            assert_eq!(Item::parse(&item.to_string()), Some(item));
        }
        assert_eq!(Item::parse("layer sha256:ab"), None);
        assert_eq!(Item::parse("other x"), None);
    }

    #[test]
    fn leases_of_the_living_count_and_those_of_the_dead_go() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (leases(dir.path()), leases(dir.path()));
        assert!(first.take(layer("a"), dir.path()));
        assert!(!first.take(layer("a"), dir.path()), "it has that one");
        assert!(second.take(layer("b"), dir.path()));
        let closed = second.close_gate().unwrap();
        assert!(closed.is_taken(&layer("a")) && closed.is_taken(&layer("b")));
        assert!(!closed.is_taken(&layer("c")));
        drop(closed);
        drop(first);
        let closed = second.close_gate().unwrap();
        assert!(!closed.is_taken(&layer("a")) && closed.is_taken(&layer("b")));
    }

    #[test]
    fn files_of_killed_processes_dont_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let living = leases(dir.path());
        living.take(layer("a"), dir.path());
        let n_files = || std::fs::read_dir(dir.path().join("leases")).unwrap().count();
        for place in 0..=MANY {
            File::create(dir.path().join(format!("leases/dead{place}"))).unwrap();
        }
        let another = Leases::new(dir.path());
        another.take(layer("b"), dir.path());
        assert_eq!(n_files(), 2);
        assert_eq!(another.taken_now().unwrap(), [layer("a"), layer("b")].into());
    }

    #[test]
    fn nobody_takes_a_lease_while_the_gate_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (leases(dir.path()), leases(dir.path()));
        // As taking one does, but without waiting.
        let gate = lock::open(&dir.path().join("gate")).unwrap();
        let pass = || flock(&gate, FlockOperation::NonBlockingLockShared);
        let closed = first.close_gate().unwrap();
        assert!(pass().is_err());
        drop(closed);
        pass().unwrap();
        second.take(layer("a"), dir.path());
        drop(gate);
        assert!(first.close_gate().unwrap().is_taken(&layer("a")));
    }

    #[test]
    fn who_cannot_write_leases_down_keeps_the_gate() {
        let dir = tempfile::tempdir().unwrap();
        // No directory for leases.
        let (first, second) = (Leases::new(dir.path()), Leases::new(dir.path()));
        assert!(first.take(layer("a"), dir.path()));
        assert!(first.keeps_gate() && !second.keeps_gate());
        let gate = lock::open(&dir.path().join("gate")).unwrap();
        let exclusively = FlockOperation::NonBlockingLockExclusive;
        assert!(flock(&gate, exclusively).is_err());
        drop(first);
        flock(&gate, exclusively).unwrap();
    }
}
