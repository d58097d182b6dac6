//! The build context: a scanned directory of the host, whose files are hashed when somebody asks.
//!
//! Scanning itself is in `scan.rs`; reading bytes for a copy in `read.rs`. Nothing here follows a symbolic link:
//! the view over the context does, inside the context.

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, OnceLock};
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

/// The scanned part of a context directory.
pub struct ContextTree {
    root: Root,
    /// Sorted by path. The `content` of files means nothing: it is in `contents` once known.
    entries: Vec<Entry>,
    /// One for each entry.
    identities: Vec<Identity>,
    /// One for each entry.
    contents: Vec<OnceLock<ContentHash>>,
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
        let content = self.hash(number)?;
        Ok(*self.contents[number].get_or_init(|| content))
    }

    /// Hashes those of the entries that aren't known yet, in parallel.
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
        unknown
            .into_par_iter()
            .try_for_each(|number| self.content(number).map(drop))
    }

    fn hash(&self, number: usize) -> Result<ContentHash, Error> {
        let path = &self.entries[number].path;
        let hashed_at = SystemTime::now();
        let mut file = self.open(number)?;
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
        }
        self.check_unchanged(number, &file)?;
        let content = hasher.finalize().into();
        // Files with capabilities stay out, so that a hit in the memo also means "no attributes".
        if self.entries[number].meta.xattrs.is_empty() {
            self.memo.remember(&self.identities[number], content, hashed_at);
        }
        Ok(content)
    }

    /// Opens a file that must still be what the scan saw.
    pub(super) fn open(&self, number: usize) -> Result<File, Error> {
        let path = &self.entries[number].path;
        let file = self.root.open_file(path).map_err(|error| {
            let became_link = error.errno() == Some(rustix::io::Errno::LOOP);
            let became_other = matches!(error, root::Error::NotRegular { .. });
            match became_link || became_other || error.is_missing() {
                true => Error::Changed { path: path.clone() },
                false => Error::Root(error),
            }
        })?;
        self.check_unchanged(number, &file)?;
        Ok(file)
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
