//! The files that outputs become: written beside their place under a temporary name and renamed when complete, so that
//! no reader ever sees half of one. Not synced: an output lost to a power cut is one command away.
//!
//! Standard output, pipes, devices and links are written through, since they can't be renamed over.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::report;

use super::ExportError;
use super::options::Destination;

/// A file being written. Dropped without [`Target::commit`], it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Target {
    file: File,
    title: PathBuf,
    /// The directory, the temporary name in it, and the final one.
    pending: Option<(OwnedFd, String, PathBuf)>,
}

impl Target {
    /// Opens a destination for writing.
    pub(super) fn create(dest: &Destination) -> Result<Self, ExportError> {
        match dest {
            Destination::Stdout => stdout(),
            Destination::File(path) => beside(path),
        }
    }

    /// Takes a pipe that `reader` reads at its other end.
    pub(super) fn through(pipe: OwnedFd, reader: &Path) -> Self {
        Self {
            file: pipe.into(),
            title: reader.to_owned(),
            pending: None,
        }
    }

    /// Makes a file `name` in the open directory `dir`, called `title` in messages.
    pub(super) fn create_in(dir: impl AsFd, name: &str, title: &Path) -> Result<Self, ExportError> {
        let dir = dir
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| ExportError::destination(title, source))?;
        temporary(dir, name.into(), title)
    }

    /// Returns the open file; writes go to its cursor.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes bytes at the cursor.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Words a failed write.
    pub(super) fn failed(&self, source: io::Error) -> ExportError {
        ExportError::Write {
            path: self.title.clone(),
            source,
        }
    }

    /// Gives the complete file its name.
    pub(super) fn commit(mut self) -> Result<(), ExportError> {
        let Some((dir, temporary, name)) = self.pending.take() else {
            return Ok(());
        };
        rustix::fs::renameat(&dir, &temporary, &dir, &name).map_err(|error| {
            let failed = self.failed(error.into());
            self.pending = Some((dir, temporary, name));
            failed
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((dir, temporary, _)) = &self.pending {
            // What can't be removed now has a name that says what it is.
            let _ = rustix::fs::unlinkat(dir, temporary, AtFlags::empty());
        }
    }
}

fn stdout() -> Result<Target, ExportError> {
    let title = PathBuf::from("standard output");
    if report::stdout().is_terminal() {
        return Err(ExportError::Terminal);
    }
    let fd = report::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| ExportError::destination(&title, source))?;
    Ok(Target {
        file: fd.into(),
        title,
        pending: None,
    })
}

fn beside(path: &Path) -> Result<Target, ExportError> {
    let unwritable = |error: Errno| ExportError::destination(path, error.into());
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(unwritable(Errno::ISDIR)),
            _ => {
                let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOCTTY;
                let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(unwritable)?;
                return Ok(Target {
                    file: file.into(),
                    title: path.to_owned(),
                    pending: None,
                });
            }
        },
        Err(Errno::NOENT) => {}
        Err(error) => return Err(unwritable(error)),
    }
    let name = path.file_name().ok_or_else(|| unwritable(Errno::ISDIR))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = open_dir(parent.unwrap_or(Path::new("."))).map_err(unwritable)?;
    temporary(dir, name.into(), path)
}

/// Opens a directory that the user named.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// Opens a directory that the user named, making it, but not its parents, when missing.
pub(super) fn make_dir(path: &Path) -> Result<OwnedFd, ExportError> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(ExportError::destination(path, error.into())),
    }
    open_dir(path).map_err(|error| ExportError::destination(path, error.into()))
}

/// Fails where a file could not be written.
pub(super) fn check(dest: &Destination) -> Result<(), ExportError> {
    match dest {
        Destination::File(path) if is_written_through(path) => Ok(()),
        // The temporary file goes with the value.
        _ => Target::create(dest).map(drop),
    }
}

/// Says whether a path is written in place; opening such a one twice could be noticed, as by the reader of a pipe.
fn is_written_through(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        !matches!(kind, FileType::RegularFile | FileType::Directory)
    })
}

/// Fails where a directory could not be made or written into.
pub(super) fn check_dir(path: &Path) -> Result<(), ExportError> {
    let failed = |error: Errno| ExportError::destination(path, error.into());
    match rustix::fs::accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => open_dir(path).map(drop).map_err(failed),
        Err(Errno::NOENT) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            rustix::fs::accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                .map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn temporary(dir: OwnedFd, name: PathBuf, title: &Path) -> Result<Target, ExportError> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| ExportError::destination(title, error.into()))?;
    let temporary = format!(".ashlar-{}", cache::digest::hex(&random));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // The user's umask applies: the file is theirs.
    let file = rustix::fs::openat(&dir, &temporary, flags, Mode::from_raw_mode(0o666))
        .map_err(|error| ExportError::destination(title, error.into()))?;
    Ok(Target {
        file: file.into(),
        title: title.to_owned(),
        pending: Some((dir, temporary, name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        let dest = Destination::File(path.clone());
        std::fs::File::create(&path).unwrap().write_all(b"old").unwrap();

        let mut dropped = Target::create(&dest).unwrap();
        dropped.write(b"half").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");

        let mut target = Target::create(&dest).unwrap();
        target.write(b"new").unwrap();
        target.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn places_that_cannot_be_written_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("missing/out.tar"), dir.path().to_owned()] {
            let error = Target::create(&Destination::File(path.clone())).unwrap_err();
            assert!(matches!(error, ExportError::Destination { .. }), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        Target::create(&Destination::File("/dev/null".into()))
            .unwrap()
            .commit()
            .unwrap();
        // A full device is an error, not a short file.
        let mut full = Target::create(&Destination::File("/dev/full".into())).unwrap();
        let error = full.write(b"x").unwrap_err().to_string();
        assert!(
            error.contains("/dev/full") && error.contains("No space left"),
            "{error}"
        );
    }
}
