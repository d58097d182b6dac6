//! OCI image layout, as one tar or as a directory. Spec: OCI image-spec, image-layout.md.
//!
//! A directory may hold other images already: blobs that are there stay, and `index.json`, written last, keeps the
//! entries of other names.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cache::{Digest, Store};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::blob::Blob;
use super::delta::Older;
use super::document::{self, Packed};
use super::options::{Destination, ImageOptions};
use super::statement::Attached;
use super::tarball::Tarball;
use super::target::{self, Target};
use super::{ExportError, ExportImage, docker};
use crate::registry::{Descriptor, MAX_MANIFEST_BYTES};

/// Writes the layout as a tar; returns the image's manifest or index.
pub(super) fn archive(
    store: &Store,
    dest: &Destination,
    image: &ExportImage,
    options: &ImageOptions,
    epoch: Option<i64>,
) -> Result<Descriptor, ExportError> {
    let mut tarball = Tarball::create(dest, epoch)?;
    let packed = document::pack(store, image, options, epoch)?;
    tarball.file("oci-layout", document::LAYOUT_MARKER)?;
    tarball.file("index.json", &document::index(document::entries(&packed)))?;
    tarball.directory("blobs/")?;
    tarball.directory("blobs/sha256/")?;
    docker::write_blobs(&mut tarball, &packed, &Older::default())?;
    tarball.finish()?;
    Ok(packed.top().clone())
}

/// Writes the layout into a directory, which is made when missing; returns the image's manifest or
/// index.
pub(super) fn directory(
    store: &Store,
    dest: &Path,
    image: &ExportImage,
    options: &ImageOptions,
    epoch: Option<i64>,
) -> Result<Descriptor, ExportError> {
    let layout = Layout::open(dest)?;
    let packed = document::pack(store, image, options, epoch)?;
    for one in &packed.manifests {
        for layer in &one.layers {
            layout.put_layer(layer)?;
        }
    }
    let documents = packed.manifests.iter().flat_map(|one| {
        [
            (&one.config_digest, &one.config),
            (&one.manifest.digest, &one.manifest_bytes),
        ]
    });
    let over = packed.index.iter().map(|(index, bytes)| (&index.digest, bytes));
    let attached = packed.attached.iter().flat_map(Attached::documents);
    for (digest, bytes) in documents.chain(attached).chain(over) {
        layout.put_bytes(digest, bytes)?;
    }
    layout.set_entries(merged(&layout, &packed)?)?;
    Ok(packed.top().clone())
}

/// A layout in a directory that is being added to.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: OwnedFd,
    blobs: OwnedFd,
    /// What the user named.
    title: PathBuf,
}

impl Layout {
    /// Opens a layout, making what of its directories is missing, but not their parents.
    pub(crate) fn open(dest: &Path) -> Result<Self, ExportError> {
        let dir = target::make_dir(dest)?;
        let blobs = sub_dir(&sub_dir(&dir, "blobs", dest)?, "sha256", dest)?;
        Ok(Self {
            dir,
            blobs,
            title: dest.to_owned(),
        })
    }

    /// Says whether a blob of this name and size is there.
    pub(crate) fn contains(&self, digest: &Digest, size_bytes: u64) -> bool {
        rustix::fs::statat(&self.blobs, digest.hex(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
            is_file && u64::try_from(stat.st_size) == Ok(size_bytes)
        })
    }

    /// Writes a layer's blob unless it is there.
    pub(crate) fn put_layer(&self, layer: &Blob) -> Result<(), ExportError> {
        self.put(&layer.digest, layer.size_bytes, |target| {
            let copied = layer.copy_to(target.file());
            copied.map_err(|source| target.failed(source))
        })
    }

    /// Writes a small blob unless it is there.
    pub(crate) fn put_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ExportError> {
        self.put(digest, bytes.len() as u64, |target| target.write(bytes))
    }

    fn put(
        &self,
        digest: &Digest,
        size_bytes: u64,
        write: impl FnOnce(&mut Target) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        if self.contains(digest, size_bytes) {
            return Ok(());
        }
        let mut target = Target::create_in(self.blobs.as_fd(), &digest.hex(), &self.title)?;
        write(&mut target)?;
        target.commit()
    }

    /// Returns what `index.json` lists; nothing when it isn't there.
    pub(crate) fn entries(&self) -> Result<Vec<Value>, ExportError> {
        let conflict = |why: String| ExportError::Conflict {
            path: self.title.clone(),
            why,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, "index.json", flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(conflict(format!("index.json: {error}"))),
        };
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|error| conflict(format!("index.json: {error}")))?;
        let index: Value = serde_json::from_slice(&bytes)
            .map_err(|error| conflict(format!("its index.json is malformed: {error}")))?;
        match index.get("manifests") {
            Some(Value::Array(entries)) => Ok(entries.clone()),
            _ => Err(conflict("its index.json has no manifests".to_owned())),
        }
    }

    /// Writes `index.json`, and beside it the file that says what the directory is: the last step, which makes
    /// everything else count.
    pub(crate) fn set_entries(&self, entries: Vec<Value>) -> Result<(), ExportError> {
        let index = document::index(entries);
        for (name, bytes) in [("oci-layout", document::LAYOUT_MARKER), ("index.json", &index)] {
            let mut target = Target::create_in(&self.dir, name, &self.title)?;
            target.write(bytes)?;
            target.commit()?;
        }
        Ok(())
    }

    /// Removes the blobs whose names aren't among `kept`.
    pub(crate) fn remove_others(&self, kept: &HashSet<String>) -> Result<(), ExportError> {
        let failed = |error: Errno| ExportError::Write {
            path: self.title.clone(),
            source: error.into(),
        };
        // Directories are read to the end before the first removal: what a listing shows after one is unspecified.
        let names: Vec<_> = rustix::fs::Dir::read_from(&self.blobs)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(failed)?;
        for entry in names {
            let is_blob = entry.file_type().is_file() && entry.file_name().to_bytes().len() == 64;
            if is_blob && !kept.contains(&*entry.file_name().to_string_lossy()) {
                match rustix::fs::unlinkat(&self.blobs, entry.file_name(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(())
    }
}

/// Opens a sub-directory, making it when missing; a link in its place is an error.
fn sub_dir(dir: &OwnedFd, name: &str, title: &Path) -> Result<OwnedFd, ExportError> {
    let failed = |error: Errno| ExportError::destination(&title.join(name), error.into());
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)
}

/// Returns the new `index.json`: what was there, but for the names that are ours now and for unnamed copies of the
/// same image.
fn merged(layout: &Layout, image: &Packed) -> Result<Vec<Value>, ExportError> {
    let ours = document::entries(image);
    let mut entries: Vec<Value> = layout
        .entries()?
        .into_iter()
        .filter(|entry| !ours.iter().any(|own| replaces(own, entry)))
        .collect();
    entries.extend(ours);
    Ok(entries)
}

fn replaces(own: &Value, entry: &Value) -> bool {
    let name = |value: &Value, key: &str| value.get("annotations").and_then(|all| all.get(key)).cloned();
    let full = "io.containerd.image.name";
    let tag = "org.opencontainers.image.ref.name";
    match (name(own, full), name(entry, full)) {
        (Some(own), Some(entry)) => own == entry,
        (own_name, None) if own_name.is_some() && name(entry, tag).is_some() => {
            name(own, tag) == name(entry, tag)
        }
        _ => {
            own.get("digest") == entry.get("digest")
                && name(entry, full).is_none()
                && name(entry, tag).is_none()
        }
    }
}
