//! An archive for a reader that may have some of it already: put together once, then measured and written as often as it
//! takes to find out.

use std::os::fd::OwnedFd;
use std::path::Path;

use cache::{DiffId, Digest, Store};

use super::delta::Older;
use super::docker::{self, Lists};
use super::document::{self, Packed};
use super::options::ImageOptions;
use super::tarball::Tarball;
use super::{ExportError, ExportImage};
use crate::registry::{Descriptor, Reference};

/// A docker archive of one image for one platform, all of whose digests are known.
pub(crate) struct Shipment {
    packed: Packed,
    epoch: Option<i64>,
}

impl Shipment {
    /// Brings the layers into form. The image's names are those of the archive. Blocks.
    pub(crate) fn new(
        store: &Store,
        image: &ExportImage,
        options: &ImageOptions,
        epoch: Option<i64>,
    ) -> Result<Self, ExportError> {
        let packed = document::pack(store, image, options, epoch)?;
        Ok(Self { packed, epoch })
    }

    /// Returns the image's layers, base layer first.
    pub(crate) fn layers(&self) -> &[DiffId] {
        &self.packed.manifests[0].diff_ids
    }

    /// Returns the digests of their blobs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        self.packed.manifests[0].layers.iter().map(|blob| &blob.digest)
    }

    /// Returns the image's names.
    pub(crate) fn names(&self) -> &[Reference] {
        &self.packed.names
    }

    /// Gives the image other names.
    pub(crate) fn set_names(&mut self, names: Vec<Reference>) {
        self.packed.names = names;
    }

    /// Returns the digest of the image's config.
    pub(crate) fn id(&self) -> &Digest {
        &self.packed.manifests[0].config_digest
    }

    /// Returns the image's manifest.
    pub(crate) fn manifest(&self) -> (&Descriptor, &[u8]) {
        let one = &self.packed.manifests[0];
        (&one.manifest, &one.manifest_bytes)
    }

    /// Returns the size of the archive without its first `n_known` layers.
    pub(crate) fn size_bytes(&self, n_known: usize) -> Result<u64, ExportError> {
        self.fill(Tarball::measured(), n_known)
    }

    /// Writes the archive without its first `n_known` layers into a pipe, which `reader` reads. Blocks.
    pub(crate) fn write(&self, pipe: OwnedFd, reader: &Path, n_known: usize) -> Result<(), ExportError> {
        self.fill(Tarball::into_pipe(pipe, reader, self.epoch), n_known)
            .map(drop)
    }

    fn fill(&self, mut tarball: Tarball, n_known: usize) -> Result<u64, ExportError> {
        let known = Older::of_chain(self.layers()[..n_known].to_vec());
        docker::fill(
            &mut tarball,
            std::slice::from_ref(&self.packed),
            Lists::DockerToo,
            &known,
        )?;
        tarball.finish()
    }
}
