//! Writes the outer tar of an image archive: few entries, plain names, fixed metadata; big ones copied in the kernel.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::ExportError;
use super::blob::Blob;
use super::options::Destination;
use super::target::Target;

const BLOCK_BYTES: u64 = 512;

/// An archive being written.
pub(super) struct Tarball {
    /// `None` where it is only measured.
    target: Option<Target>,
    size_bytes: u64,
    names: BTreeSet<String>,
    mtime: u64,
}

impl Tarball {
    /// Opens the destination. All entries get the time `epoch`, or 1970.
    pub(super) fn create(dest: &Destination, epoch: Option<i64>) -> Result<Self, ExportError> {
        Ok(Self {
            target: Some(Target::create(dest)?),
            mtime: mtime(epoch),
            ..Self::measured()
        })
    }

    /// Writes into a pipe that `reader` reads.
    pub(super) fn into_pipe(pipe: OwnedFd, reader: &Path, epoch: Option<i64>) -> Self {
        Self {
            target: Some(Target::through(pipe, reader)),
            mtime: mtime(epoch),
            ..Self::measured()
        }
    }

    /// Begins an archive that is written nowhere: only its size counts.
    pub(super) fn measured() -> Self {
        Self {
            target: None,
            size_bytes: 0,
            names: BTreeSet::new(),
            mtime: 0,
        }
    }

    /// Adds a directory; once.
    pub(super) fn directory(&mut self, name: &str) -> Result<(), ExportError> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        self.header(name, tar::EntryType::Directory, 0o755, 0)
    }

    /// Adds a small file; the first of a name counts.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        self.header(name, tar::EntryType::Regular, 0o644, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// Adds a layer's blob; the first of a name counts.
    pub(super) fn blob(&mut self, name: &str, blob: &Blob) -> Result<(), ExportError> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        self.header(name, tar::EntryType::Regular, 0o644, blob.size_bytes)?;
        if let Some(target) = &self.target {
            let copied = blob.copy_to(target.file());
            copied.map_err(|source| target.failed(source))?;
        }
        self.size_bytes = self.size_bytes.saturating_add(blob.size_bytes);
        self.pad(blob.size_bytes)
    }

    /// Ends the archive and gives it its name; returns its size.
    pub(super) fn finish(mut self) -> Result<u64, ExportError> {
        self.write(&[0; 2 * BLOCK_BYTES as usize])?;
        self.target.map_or(Ok(()), Target::commit)?;
        Ok(self.size_bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        self.target.as_mut().map_or(Ok(()), |target| target.write(bytes))
    }

    fn header(
        &mut self,
        name: &str,
        kind: tar::EntryType,
        mode: u32,
        size_bytes: u64,
    ) -> Result<(), ExportError> {
        let mut header = tar::Header::new_gnu();
        header
            .set_path(name)
            .expect("because the names are ours: short and relative");
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.mtime);
        header.set_size(size_bytes);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size_bytes: u64) -> Result<(), ExportError> {
        let n_missing = size_bytes.next_multiple_of(BLOCK_BYTES) - size_bytes;
        let n_missing = usize::try_from(n_missing).expect("because it is less than a block");
        self.write(&[0; BLOCK_BYTES as usize][..n_missing])
    }
}

fn mtime(epoch: Option<i64>) -> u64 {
    epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0)
}
