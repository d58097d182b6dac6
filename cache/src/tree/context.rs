//! The build context: a scanned directory of the host, whose files are hashed when somebody asks.
//!
//! Scanning itself is in `scan.rs`; reading bytes for a copy in `read.rs`. Nothing here follows a symbolic link:
//! the view over the context does, inside the context.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use rayon::prelude::*;

use super::error::Error;
use super::ignore::IgnoreList;
use super::memo::{Identity, Memo};
use super::scan;
use super::selection::Selection;
use crate::digest::ContentHash;
use crate::layer::{Entry, Kind, TreePath};
use crate::root::{self, Root};

/// Something in the context that an image can't hold and that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A socket.
    Socket(TreePath),
    /// A character device with number 0:0, which would mean a removed file in a layer.
    Whiteout(TreePath),
}

impl Notice {
    /// Returns what was left out.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Socket(path) | Self::Whiteout(path) => path,
        }
    }
}

/// Files of more bytes are read again when they are copied.
const KEEP_FILE_BYTES: u64 = 16 << 10;
/// How much memory the contents of small files may take between hashing and copying.
const KEEP_BYTES: usize = 16 << 20;
/// What keeping a file costs beside its bytes, roughly.
const KEEP_COST_BYTES: usize = 96;

/// Contents of small files, kept from hashing to copying: opening a small file costs more than all else about it.
#[derive(Default)]
struct Kept {
    files: HashMap<usize, Box<[u8]>>,
    taken_bytes: usize,
}

/// The scanned part of a context directory.
pub struct ContextTree {
    root: Root,
    /// Sorted by path. The `content` of files means nothing: it is in `contents` once known.
    entries: Vec<Entry>,
    /// One for each entry.
    identities: Vec<Identity>,
    /// One for each entry.
    contents: Vec<OnceLock<ContentHash>>,
    kept: Mutex<Kept>,
    /// Directories of which everything was scanned.
    complete: Vec<TreePath>,
    notices: Vec<Notice>,
    memo: Arc<Memo>,
}

impl ContextTree {
    /// Scans what the selections need of a directory, and no more.
    ///
    /// Owners are reported as 0:0, of the attributes only `security.capability`. Ignored files are never opened,
    /// ignored directories only where something below may be re-included.
    pub fn scan(
        root: Root,
        ignore: &IgnoreList,
        wanted: &[Selection],
        memo: Arc<Memo>,
    ) -> Result<Self, Error> {
        let found = scan::scan(&root, ignore, wanted, &memo)?;
        let mut entries = Vec::with_capacity(found.files.len());
        let mut identities = Vec::with_capacity(found.files.len());
        let mut contents = Vec::with_capacity(found.files.len());
        for file in found.files {
            entries.push(file.entry);
            identities.push(file.identity);
            contents.push(file.content.map(OnceLock::from).unwrap_or_default());
        }
        Ok(Self {
            root,
            entries,
            identities,
            contents,
            kept: Mutex::default(),
            complete: found.complete,
            notices: found.notices,
            memo,
        })
    }

    /// Returns what was left out, sorted by path.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Returns how many paths were scanned.
    pub fn n_entries(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn identity(&self, number: usize) -> &Identity {
        &self.identities[number]
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Says whether everything below `dir` was scanned.
    pub(super) fn is_complete(&self, dir: &TreePath) -> bool {
        self.complete.iter().any(|top| dir.below(top).is_some())
    }

    /// Returns the hash of an entry's content, from the memo or by reading it. The entry must be a file.
    pub(super) fn content(&self, number: usize) -> Result<ContentHash, Error> {
        if let Some(content) = self.contents[number].get() {
            return Ok(*content);
        }
        let content = self.hash(number, |_| ())?;
        Ok(*self.contents[number].get_or_init(|| content))
    }

    /// Returns the bytes of a file if they were kept when it was hashed; a second time they must be read.
    pub(super) fn take_kept(&self, number: usize) -> Option<Box<[u8]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.files.remove(&number)?;
        kept.taken_bytes -= bytes.len() + KEEP_COST_BYTES;
        Some(bytes)
    }

    fn keep(&self, number: usize, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let cost = bytes.len() + KEEP_COST_BYTES;
        if kept.taken_bytes + cost <= KEEP_BYTES && kept.files.insert(number, bytes.into()).is_none() {
            kept.taken_bytes += cost;
        }
    }

    /// Hashes those of the entries that aren't known yet, in parallel. As a rule they are copied next, so that as many
    /// small ones as there is room for are kept.
    pub(super) fn hash_all(&self, numbers: &[usize]) -> Result<(), Error> {
        let unknown: Vec<usize> = numbers
            .iter()
            .copied()
            .filter(|&number| self.contents[number].get().is_none())
            .filter(|&number| matches!(self.entries[number].kind, Kind::File(_)))
            .collect();
        if unknown.len() < 8 {
            return unknown
                .into_iter()
                .try_for_each(|number| self.content(number).map(drop));
        }
        unknown.into_par_iter().try_for_each(|number| {
            let content = self.hash(number, |bytes| self.keep(number, bytes))?;
            self.contents[number].get_or_init(|| content);
            Ok(())
        })
    }

    /// Reads and hashes a file; hands its bytes to `keep` when they are few.
    fn hash(&self, number: usize, keep: impl FnOnce(&[u8])) -> Result<ContentHash, Error> {
        let path = &self.entries[number].path;
        let hashed_at = SystemTime::now();
        // Whether this is what the scan saw is checked afterwards, for this moment too.
        let mut file = self.open_any(number)?;
        let mut hasher = blake3::Hasher::new();
        let size_bytes = self.identities[number].size_bytes;
        // One byte more shows a file that grew, and saves the read that would find its end.
        let mut buffer = vec![
            0;
            usize::try_from(size_bytes + 1)
                .unwrap_or(usize::MAX)
                .min(256 * 1024)
        ];
        let mut total: u64 = 0;
        let mut whole = None;
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::Read {
                        path: path.clone(),
                        source,
                    });
                }
            };
            hasher.update(&buffer[..n]);
            total += n as u64;
            if total > size_bytes {
                return Err(Error::Changed { path: path.clone() });
            }
            // There was room for more and it didn't come; a file that grows now has another size below.
            if total == size_bytes && n < buffer.len() {
                // Of a file that came in pieces the buffer has the last one only.
                whole = (n as u64 == total && total <= KEEP_FILE_BYTES).then_some(n);
                break;
            }
        }
        self.check_unchanged(number, &file)?;
        let content = hasher.finalize().into();
        if let Some(n) = whole {
            keep(&buffer[..n]);
        }
        // Files with capabilities stay out, so that a hit in the memo also means "no attributes".
        if self.entries[number].meta.xattrs.is_empty() {
            self.memo.remember(&self.identities[number], content, hashed_at);
        }
        Ok(content)
    }

    /// Opens a file that must still be what the scan saw.
    pub(super) fn open(&self, number: usize) -> Result<File, Error> {
        let file = self.open_any(number)?;
        self.check_unchanged(number, &file)?;
        Ok(file)
    }

    /// Opens whatever file is there now.
    fn open_any(&self, number: usize) -> Result<File, Error> {
        let path = &self.entries[number].path;
        self.root.open_file(path).map_err(|error| {
            let became_link = error.errno() == Some(rustix::io::Errno::LOOP);
            let became_other = matches!(error, root::Error::NotRegular { .. });
            match became_link || became_other || error.is_missing() {
                true => Error::Changed { path: path.clone() },
                false => Error::Root(error),
            }
        })
    }

    pub(super) fn check_unchanged(&self, number: usize, file: &File) -> Result<(), Error> {
        let path = &self.entries[number].path;
        let stat = rustix::fs::fstat(file).map_err(|errno| Error::Read {
            path: path.clone(),
            source: errno.into(),
        })?;
        if Identity::of(&stat) != self.identities[number] {
            return Err(Error::Changed { path: path.clone() });
        }
        Ok(())
    }
}
