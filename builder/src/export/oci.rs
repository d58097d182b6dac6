//! OCI image layout, as one tar or as a directory. Spec: OCI image-spec, image-layout.md.
//!
//! A directory may hold other images already: blobs that are there stay, and `index.json`, written last, keeps the
//! entries of other names.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cache::{Digest, Store};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::delta::Older;
use super::document::{self, Packed};
use super::spec::{Destination, ImageOptions};
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
    let dir = target::make_dir(dest)?;
    let packed = document::pack(store, image, options, epoch)?;
    let blobs = sub_dir(&sub_dir(&dir, "blobs", dest)?, "sha256", dest)?;
    for one in &packed.manifests {
        for layer in &one.layers {
            put(&blobs, dest, &layer.digest, layer.size_bytes, |target| {
                let copied = layer.copy_to(target.file());
                copied.map_err(|source| target.failed(source))
            })?;
        }
    }
    let documents = packed.manifests.iter().flat_map(|one| {
        [
            (&one.config_digest, &one.config),
            (&one.manifest.digest, &one.manifest_bytes),
        ]
    });
    let over = packed.index.iter().map(|(index, bytes)| (&index.digest, bytes));
    let attached = packed.attached.iter().flat_map(|attached| &attached.blobs);
    let attached = attached.map(|(digest, bytes)| (digest, bytes));
    for (digest, bytes) in documents.chain(attached).chain(over) {
        put(&blobs, dest, digest, bytes.len() as u64, |target| {
            target.write(bytes)
        })?;
    }
    let index = merged(&dir, dest, &packed)?;
    for (name, bytes) in [("oci-layout", document::LAYOUT_MARKER), ("index.json", &index)] {
        let mut target = Target::create_in(&dir, name, dest)?;
        target.write(bytes)?;
        target.commit()?;
    }
    Ok(packed.top().clone())
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

/// Writes a blob unless one of this name and size is there.
fn put(
    blobs: &OwnedFd,
    title: &Path,
    digest: &Digest,
    size_bytes: u64,
    write: impl FnOnce(&mut Target) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let name = digest.hex();
    if let Ok(stat) = rustix::fs::statat(blobs, &name, AtFlags::SYMLINK_NOFOLLOW) {
        let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        if is_file && u64::try_from(stat.st_size) == Ok(size_bytes) {
            return Ok(());
        }
    }
    let mut target = Target::create_in(blobs.as_fd(), &name, title)?;
    write(&mut target)?;
    target.commit()
}

/// Returns the new `index.json`: what was there, but for the names that are ours now and for unnamed copies of the
/// same image.
fn merged(dir: &OwnedFd, title: &Path, image: &Packed) -> Result<Vec<u8>, ExportError> {
    let ours = document::entries(image);
    let mut entries: Vec<Value> = existing(dir, title)?
        .into_iter()
        .filter(|entry| !ours.iter().any(|own| replaces(own, entry)))
        .collect();
    entries.extend(ours);
    Ok(document::index(entries))
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

fn existing(dir: &OwnedFd, title: &Path) -> Result<Vec<Value>, ExportError> {
    let conflict = |why: String| ExportError::Conflict {
        path: title.to_owned(),
        why,
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, "index.json", flags, Mode::empty()) {
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
