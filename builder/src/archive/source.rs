//! The entries of an archive by name: of a directory or of a tar that can be read in any order.
//!
//! In a directory only regular files are opened, through one directory fd, and no link is followed. In a tar a link is
//! a lookup of another name in the same tar, one step only; `docker save` used to write shared layers so.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cache::layer::TreePath;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::registry::ImageError;

/// Entries of a tar that are remembered; an image has two or three per layer.
const MAX_ENTRIES: usize = 100_000;

/// An archive that is open.
#[derive(Debug)]
pub(crate) struct Source {
    title: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory(OwnedFd),
    Tar {
        file: Arc<File>,
        entries: HashMap<TreePath, Place>,
    },
}

#[derive(Debug, Clone)]
enum Place {
    File { offset: u64, size_bytes: u64 },
    Link(TreePath),
}

impl Source {
    /// Opens a directory.
    pub(crate) fn directory(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| ImageError::Io {
            action: "open",
            path: path.to_owned(),
            source: error.into(),
        })?;
        Ok(Self {
            title: path.display().to_string(),
            kind: Kind::Directory(dir),
        })
    }

    /// Reads the headers of an uncompressed tar.
    pub(crate) fn tar(file: File, title: String) -> Result<Self, ImageError> {
        let entries = index(&file).map_err(|error| ImageError::NotAnArchive {
            path: title.clone(),
            why: error.to_string(),
        })?;
        Ok(Self {
            title,
            kind: Kind::Tar {
                file: Arc::new(file),
                entries,
            },
        })
    }

    /// Returns what to call it in messages.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// Words an objection to the archive as a whole.
    pub(crate) fn refuse(&self, why: impl Into<String>) -> ImageError {
        ImageError::NotAnArchive {
            path: self.title.clone(),
            why: why.into(),
        }
    }

    /// Says whether there is an entry of this name that can be opened.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// Says whether a tar has files where a root file system has them.
    pub(crate) fn looks_like_a_root(&self) -> bool {
        let is_usual = |path: &TreePath| {
            let first = path.as_bytes().split(|byte| *byte == b'/').next();
            matches!(first, Some(b"bin" | b"etc" | b"lib" | b"sbin" | b"usr"))
        };
        match &self.kind {
            Kind::Directory(_) => false,
            Kind::Tar { entries, .. } => entries.keys().any(is_usual),
        }
    }

    /// Opens an entry. An absent one and one that isn't a regular file are errors.
    pub(crate) fn open(&self, name: &str) -> Result<Entry, ImageError> {
        let missing = || self.refuse(format!("`{}` is not in it", name.escape_debug()));
        match &self.kind {
            Kind::Directory(dir) => {
                let file = rustix::fs::openat2(
                    dir,
                    name,
                    OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
                    Mode::empty(),
                    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
                )
                .map(File::from)
                .map_err(|error| match error {
                    rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => missing(),
                    error => self.refuse(format!("`{}`: {error}", name.escape_debug())),
                })?;
                let metadata = file.metadata().map_err(|source| ImageError::Io {
                    action: "read",
                    path: Path::new(&self.title).join(name),
                    source,
                })?;
                if !metadata.is_file() {
                    return Err(self.refuse(format!("`{}` is not a regular file", name.escape_debug())));
                }
                Ok(Entry {
                    file: Arc::new(file),
                    position: 0,
                    end: metadata.len(),
                })
            }
            Kind::Tar { file, entries } => {
                let mut place = entries.get(&TreePath::clean(name.as_bytes()));
                if let Some(Place::Link(target)) = place {
                    place = entries.get(target);
                }
                let Some(Place::File { offset, size_bytes }) = place else {
                    return Err(missing());
                };
                Ok(Entry {
                    file: Arc::clone(file),
                    position: *offset,
                    end: offset.saturating_add(*size_bytes),
                })
            }
        }
    }

    /// Reads a whole small entry.
    pub(crate) fn read(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, ImageError> {
        let entry = self.open(name)?;
        if entry.end - entry.position > limit_bytes {
            return Err(self.refuse(format!(
                "`{}` is larger than {limit_bytes} bytes",
                name.escape_debug()
            )));
        }
        let mut bytes = Vec::new();
        entry
            .take(limit_bytes)
            .read_to_end(&mut bytes)
            .map_err(|source| ImageError::Io {
                action: "read",
                path: self.title.clone().into(),
                source,
            })?;
        Ok(bytes)
    }
}

/// Finds out where each entry of a tar begins. A later entry of the same name wins, as when extracting.
fn index(file: &File) -> io::Result<HashMap<TreePath, Place>> {
    let mut entries = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if entries.len() >= MAX_ENTRIES {
            return Err(io::Error::other(format!(
                "it has more than {MAX_ENTRIES} entries"
            )));
        }
        let Some(path) = TreePath::strict(&entry.path_bytes()) else {
            continue;
        };
        let kind = entry.header().entry_type();
        let place = if kind.is_file() || kind.is_contiguous() {
            Place::File {
                offset: entry.raw_file_position(),
                size_bytes: entry.size(),
            }
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            let from = if kind.is_symlink() && !target.starts_with(b"/") {
                path.parent().unwrap_or_default()
            } else {
                TreePath::root()
            };
            Place::Link(TreePath::clean(&[from.as_bytes(), b"/", &target[..]].concat()))
        } else {
            continue;
        };
        entries.insert(path, place);
    }
    Ok(entries)
}

/// The bytes of one entry; has its own cursor.
#[derive(Debug)]
pub(crate) struct Entry {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Read for Entry {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.position);
        let n_wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..n_wanted], self.position)?;
        if n == 0 && n_wanted > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ends in the middle of an entry",
            ));
        }
        self.position += n as u64;
        Ok(n)
    }
}
