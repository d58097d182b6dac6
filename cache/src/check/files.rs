//! Layer files and blobs: on all processors, because looking closely means to hash them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::{Checked, Depth, Fault, Subject};
use crate::digest::{DiffId, Digest};
use crate::layer::{LayerFile, verify};
use crate::store::{Store, StoreError};

const CHUNK_BYTES: usize = 1 << 20;
/// Where damaged files go.
pub(crate) const ASIDE: &str = "damaged";

impl Store {
    pub(super) fn check_files(
        &self,
        depth: Depth,
        sizes: &HashMap<Digest, u64>,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let layers: Vec<DiffId> = self.stored("layers", &mut checked.faults)?;
        let blobs: Vec<Digest> = self.stored("blobs/sha256", &mut checked.faults)?;
        (checked.n_layers, checked.n_blobs) = (layers.len(), blobs.len());
        let of_layers: Vec<Option<Fault>> = layers
            .par_iter()
            .map(|layer| self.check_layer(layer, depth))
            .collect::<Result<_, _>>()?;
        let of_blobs = blobs
            .par_iter()
            .map(|digest| self.check_blob(digest, depth, sizes.get(digest).copied()));
        let of_blobs: Vec<Option<Fault>> = of_blobs.collect();
        checked
            .faults
            .extend(of_layers.into_iter().chain(of_blobs).flatten());
        Ok(())
    }

    /// Lists the digests that a directory's files are named by; whatever else is there is a fault.
    fn stored<D: std::str::FromStr>(
        &self,
        part: &str,
        faults: &mut Vec<Fault>,
    ) -> Result<Vec<D>, StoreError> {
        let mut found = Vec::new();
        for name in self.names(part)? {
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let text = name.to_str().filter(|text| text.bytes().all(is_hex));
            match text.and_then(|text| format!("sha256:{text}").parse().ok()) {
                Some(digest) => found.push(digest),
                None => faults.push(Fault::new(
                    Subject::Stray(Path::new(part).join(name)),
                    "its name is no digest",
                )),
            }
        }
        Ok(found)
    }

    /// Lists a directory of the store; one that isn't there is empty.
    pub(super) fn names(&self, part: &str) -> Result<Vec<std::ffi::OsString>, StoreError> {
        let path = self.root().join(part);
        let names = || -> io::Result<Vec<_>> {
            let entries = std::fs::read_dir(&path)?;
            entries.map(|entry| Ok(entry?.file_name())).collect()
        };
        match names() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|source| StoreError::Io {
                action: "list",
                path,
                source,
            }),
        }
    }

    pub(super) fn check_layer(&self, layer: &DiffId, depth: Depth) -> Result<Option<Fault>, StoreError> {
        let subject = Subject::Layer(*layer);
        let (file, identity) = match open(&self.layers().path(layer)) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(Fault::new(subject, error.to_string()))),
        };
        let look = || {
            let opened = LayerFile::open(file, *layer)?;
            opened.index()?;
            opened.check_metadata()?;
            if depth == Depth::Quick {
                return Ok(());
            }
            let (scratch, path) = self.incomplete().file().map_err(crate::Error::WriteLayer)?;
            let result = verify(&opened, scratch);
            // What stays goes with the scratch space.
            let _ = std::fs::remove_file(path);
            result
        };
        match look() {
            Ok(()) => Ok(None),
            Err(source @ crate::Error::WriteLayer(_)) => Err(StoreError::Scratch {
                layer: *layer,
                source,
            }),
            Err(crate::Error::DamagedLayer { what, .. }) => Ok(Some(Fault {
                file: Some(identity),
                ..Fault::new(subject, what)
            })),
            Err(crate::Error::ReadLayer { source, .. }) => Ok(Some(Fault {
                file: Some(identity),
                ..Fault::new(subject, format!("it can't be read: {source}"))
            })),
            Err(other) => Ok(Some(Fault {
                file: Some(identity),
                ..Fault::new(subject, other.to_string())
            })),
        }
    }

    pub(super) fn check_blob(&self, digest: &Digest, depth: Depth, size_bytes: Option<u64>) -> Option<Fault> {
        let subject = Subject::Blob(*digest);
        let (file, identity) = match open(&self.root().join("blobs/sha256").join(digest.hex())) {
            Ok(opened) => opened?,
            Err(error) => return Some(Fault::new(subject, error.to_string())),
        };
        let what = match look_at_blob(file, digest, depth, size_bytes) {
            Ok(what) => what?,
            Err(error) => format!("it can't be read: {error}"),
        };
        Some(Fault {
            file: Some(identity),
            ..Fault::new(subject, what)
        })
    }

    /// Moves the file that was found wrong out of the way; fine if it was replaced or is gone.
    pub(super) fn set_file_aside(&self, path: &Path, kind: &str, fault: &Fault) -> Result<bool, StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let now = std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()));
        if now.is_err() || fault.file.is_some_and(|file| now.is_ok_and(|now| now != file)) {
            return Ok(true);
        }
        self.move_aside(path, &format!("{kind}-{name}"))
    }

    pub(super) fn set_stray_aside(&self, path: &Path) -> Result<bool, StoreError> {
        let name: String = path
            .to_string_lossy()
            .chars()
            .map(|char| if char.is_ascii_alphanumeric() { char } else { '_' })
            .take(100)
            .collect();
        self.move_aside(&self.root().join(path), &format!("stray-{name}"))
    }

    fn move_aside(&self, path: &Path, name: &str) -> Result<bool, StoreError> {
        let dir = self.root().join(ASIDE);
        let failed = |path: PathBuf| {
            |source| StoreError::Io {
                action: "set aside",
                path,
                source,
            }
        };
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(failed(dir.clone()))?,
        }
        match std::fs::rename(path, dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            other => other.map(|()| true).map_err(failed(path.to_owned())),
        }
    }
}

/// What identifies a file, however it is named: device and inode.
type Identity = (u64, u64);

/// Opens a regular file; `None` when it has gone.
fn open(path: &Path) -> io::Result<Option<(File, Identity)>> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => {
            let file = other?;
            let meta = file.metadata()?;
            Ok(Some((file, (meta.dev(), meta.ino()))))
        }
    }
}

/// Says what is wrong with a blob.
fn look_at_blob(
    mut file: File,
    digest: &Digest,
    depth: Depth,
    size_bytes: Option<u64>,
) -> io::Result<Option<String>> {
    let length = file.metadata()?.len();
    let is_empty = length == 0 && *digest != Digest::of(b"");
    // A size that others have wrong is not the blob's fault: then its bytes decide.
    let is_doubtful = is_empty || size_bytes.is_some_and(|expected| expected != length);
    if depth == Depth::Quick && !is_doubtful {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let actual = Digest::from_bytes(hasher.finalize().into());
    if actual == *digest {
        return Ok(None);
    }
    Ok(Some(match size_bytes.filter(|expected| *expected != length) {
        Some(expected) => format!("it has {length} bytes instead of {expected}"),
        None if is_empty => "it is empty".to_owned(),
        None => format!("its bytes hash to {actual}"),
    }))
}
