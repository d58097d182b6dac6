//! Outputs: archives, layouts and plain files made of an image that is complete in the store.
//!
//! Everything is named by its digest before the first byte is written, so that an archive is one sequential copy. What
//! is written depends on the image and the options only: fixed order, fixed times. Pushing is not here yet.

mod blob;
mod docker;
mod document;
mod flat;
mod local;
mod oci;
mod spec;
mod tarball;
mod target;

use std::io;
use std::path::{Path, PathBuf};

use cache::blobs::BlobError;
use cache::index::IndexError;
use cache::layers::LayersError;
use cache::store::StoreError;
use cache::{DiffId, Digest, Store};

use crate::image::{self, StoredImage};
use crate::registry::{Descriptor, ImageError};
use crate::report::Failure;
pub(crate) use spec::{Compression, Destination, ImageOptions, Output};

/// Says why an output could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// Nothing can be written there; said before anything is done.
    #[error("unwritable destination {path}: {source}")]
    Destination {
        /// What the user named.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed half-way; nothing is left behind.
    #[error("cannot write {path}: {source}")]
    Write {
        /// What the user named.
        path: PathBuf,
        /// Why; a full disk, usually.
        source: io::Error,
    },
    /// An archive on a terminal helps nobody.
    #[error("refusing to write an archive to a terminal: give dest=FILE or redirect standard output")]
    Terminal,
    /// Compressing failed.
    #[error("cannot compress layer {layer}: {source}")]
    Compress {
        /// Which.
        layer: DiffId,
        /// Why.
        source: cache::compress::Error,
    },
    /// The directory holds something that the output can't be merged into.
    #[error("cannot write into {path}: {why}")]
    Conflict {
        /// What the user named.
        path: PathBuf,
        /// What is there.
        why: String,
    },
    /// The merged view of the layers.
    #[error(transparent)]
    Tree(#[from] cache::tree::Error),
    /// A path below a destination directory.
    #[error(transparent)]
    Root(#[from] cache::root::Error),
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Its index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Its layers.
    #[error(transparent)]
    Layers(#[from] LayersError),
}

impl ExportError {
    fn destination(path: &Path, source: io::Error) -> Self {
        Self::Destination {
            path: path.to_owned(),
            source,
        }
    }
}

/// An image to be written. Its layers must be in the store.
#[derive(Debug, Clone)]
pub(crate) struct ExportImage {
    /// The config, verbatim.
    pub(crate) config: Vec<u8>,
    /// Base layer first; the same as in the config.
    pub(crate) layers: Vec<DiffId>,
    /// Canonical names.
    pub(crate) names: Vec<String>,
}

impl ExportImage {
    /// Takes an image of the store as it is.
    pub(crate) fn from_stored(image: StoredImage) -> Result<Self, Failure> {
        Ok(Self {
            layers: image.layers()?,
            names: image.names().map(str::to_owned).collect(),
            config: image.config_bytes,
        })
    }
}

/// What an output became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exported {
    /// The image's ID.
    pub(crate) id: Digest,
    /// Its manifest, where the output has one.
    pub(crate) manifest: Option<Descriptor>,
}

/// Writes one output of a build. `epoch` (seconds since the Unix epoch) replaces the times of all files of the outputs
/// that are files rather than an image, and of archive entries. Blocks.
pub(crate) fn export(
    store: &Store,
    output: &Output,
    image: &ExportImage,
    epoch: Option<i64>,
) -> Result<Exported, ExportError> {
    let with_names = |names: &[String]| {
        let mut image = image.clone();
        image.names.extend_from_slice(names);
        let mut seen = std::collections::BTreeSet::new();
        image.names.retain(|name| seen.insert(name.clone()));
        image
    };
    let id = Digest::of(&image.config);
    let manifest = match output {
        Output::CacheOnly => None,
        Output::Image { names } => {
            let image = with_names(names);
            image::commit(store, &image.config, &image.names)?;
            None
        }
        Output::OciArchive { dest, image: options } => {
            let image = with_names(&options.names);
            Some(oci::archive(store, dest, &image, options, epoch)?)
        }
        Output::OciDirectory { dest, image: options } => {
            let image = with_names(&options.names);
            Some(oci::directory(store, dest, &image, options)?)
        }
        Output::DockerArchive { dest, image: options } => {
            let image = with_names(&options.names);
            docker::archive(store, dest, std::slice::from_ref(&image), options, epoch)?.pop()
        }
        Output::Tar { dest } => {
            flat::archive(store, dest, &image.layers, epoch)?;
            None
        }
        Output::Local { dest } => {
            local::directory(store, dest, &image.layers, epoch)?;
            None
        }
    };
    Ok(Exported { id, manifest })
}

/// Fails as [`export`] would where the output's place can't be written, before a build spends time on it. Leaves
/// nothing behind.
pub(crate) fn check(output: &Output) -> Result<(), ExportError> {
    match output {
        Output::OciArchive { dest, .. } | Output::DockerArchive { dest, .. } | Output::Tar { dest } => {
            target::check(dest)
        }
        Output::OciDirectory { dest, .. } | Output::Local { dest } => target::check_dir(dest),
        Output::CacheOnly | Output::Image { .. } => Ok(()),
    }
}

/// Writes local images as one docker-archive: `ashlar save`. Layers that several share are written once. Blocks.
pub(crate) fn save(store: &Store, dest: &Destination, images: &[ExportImage]) -> Result<(), ExportError> {
    let options = ImageOptions {
        names: Vec::new(),
        compression: Compression {
            codec: cache::compress::Codec::None,
            is_explicit: false,
            force: false,
        },
        oci_types: true,
    };
    docker::archive(store, dest, images, &options, None).map(|_| ())
}

#[cfg(test)]
mod tests;
