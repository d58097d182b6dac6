//! Writes the outer tar of an image archive: few entries, plain names, fixed metadata; big ones copied in the kernel.

use std::collections::BTreeSet;

use super::ExportError;
use super::blob::Blob;
use super::spec::Destination;
use super::target::Target;

const BLOCK_BYTES: u64 = 512;

/// An archive being written.
pub(super) struct Tarball {
    target: Target,
    names: BTreeSet<String>,
    mtime: u64,
}

impl Tarball {
    /// Opens the destination. All entries get the time `epoch`, or 1970.
    pub(super) fn create(dest: &Destination, epoch: Option<i64>) -> Result<Self, ExportError> {
        Ok(Self {
            target: Target::create(dest)?,
            names: BTreeSet::new(),
            mtime: epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0),
        })
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
        self.target.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// Adds a layer's blob; the first of a name counts.
    pub(super) fn blob(&mut self, name: &str, blob: &Blob) -> Result<(), ExportError> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        self.header(name, tar::EntryType::Regular, 0o644, blob.size_bytes)?;
        let copied = blob.copy_to(self.target.file());
        copied.map_err(|source| self.target.failed(source))?;
        self.pad(blob.size_bytes)
    }

    /// Ends the archive and gives it its name.
    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        self.target.write(&[0; 2 * BLOCK_BYTES as usize])?;
        self.target.commit()
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
            .map_err(|source| self.target.failed(source))?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.mtime);
        header.set_size(size_bytes);
        header.set_cksum();
        self.target.write(header.as_bytes())
    }

    fn pad(&mut self, size_bytes: u64) -> Result<(), ExportError> {
        let n_missing = size_bytes.next_multiple_of(BLOCK_BYTES) - size_bytes;
        let n_missing = usize::try_from(n_missing).expect("because it is less than a block");
        self.target.write(&[0; BLOCK_BYTES as usize][..n_missing])
    }
}
