//! An archive for a reader that may have some of it already: put together once, then measured and written as often as it
//! takes to find out.

use std::os::fd::OwnedFd;
use std::path::Path;

use cache::{DiffId, Digest, Store};
use frontend::Platform;

use super::delta::Older;
use super::docker::{self, Lists};
use super::document::{self, Packed, PackedManifest};
use super::options::ImageOptions;
use super::tarball::Tarball;
use super::{ExportError, ExportImage};
use crate::registry::{Descriptor, Reference};

/// A docker archive of one image, all of whose digests are known.
pub(crate) struct Shipment {
    packed: Packed,
    epoch: Option<i64>,
}

/// What a shipment has for one platform.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a>(&'a PackedManifest);

impl<'a> Part<'a> {
    /// Returns the layers, base layer first.
    pub(crate) fn layers(self) -> &'a [DiffId] {
        &self.0.diff_ids
    }

    /// Returns the digests of their blobs.
    pub(crate) fn blobs(self) -> impl Iterator<Item = &'a Digest> {
        self.0.layers.iter().map(|blob| &blob.digest)
    }

    /// Returns the digest of the config.
    pub(crate) fn id(self) -> &'a Digest {
        &self.0.config_digest
    }
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

    /// Returns what it has for each platform, one at least.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.packed.manifests.iter().map(Part)
    }

    /// Returns how many platforms it is for.
    pub(crate) fn n_platforms(&self) -> usize {
        self.packed.manifests.len()
    }

    /// Leaves only what is for one platform: what runs there best, or the first. Returns for which that is.
    pub(crate) fn narrow(&mut self, platform: &Platform) -> String {
        let nearest = self.packed.nearest(platform);
        let kept = self.packed.manifests.swap_remove(nearest);
        let found = document::platform_of(&kept.config).map(|platform| platform.to_string());
        self.packed.manifests = vec![kept];
        self.packed.index = None;
        found.unwrap_or_else(|| "one that it doesn't name".to_owned())
    }

    /// Returns the image's names.
    pub(crate) fn names(&self) -> &[Reference] {
        &self.packed.names
    }

    /// Gives the image other names.
    pub(crate) fn set_names(&mut self, names: Vec<Reference>) {
        self.packed.names = names;
    }

    /// Returns what the names stand for: the manifest, or the index.
    pub(crate) fn top(&self) -> &Descriptor {
        self.packed.top()
    }

    /// Returns the bytes of the index, where it has one, and of the manifests.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &[u8]> {
        let index = self.packed.index.iter().map(|(_, bytes)| &bytes[..]);
        let manifests = self.packed.manifests.iter().map(|one| &one.manifest_bytes[..]);
        manifests.chain(index)
    }

    /// Returns the size of the archive without the first layers of each part: as many as `known` says.
    pub(crate) fn size_bytes(&self, known: &[usize]) -> Result<u64, ExportError> {
        self.fill(Tarball::measured(), known)
    }

    /// Writes the archive without those layers into a pipe, which `reader` reads. Blocks.
    pub(crate) fn write(&self, pipe: OwnedFd, reader: &Path, known: &[usize]) -> Result<(), ExportError> {
        self.fill(Tarball::into_pipe(pipe, reader, self.epoch), known)
            .map(drop)
    }

    fn fill(&self, mut tarball: Tarball, known: &[usize]) -> Result<u64, ExportError> {
        let parts = self.parts().zip(known);
        let chains = parts.map(|(part, n_known)| part.layers()[..*n_known].to_vec());
        let known = Older::of_chains(chains.collect());
        docker::fill(
            &mut tarball,
            std::slice::from_ref(&self.packed),
            Lists::DockerToo,
            &known,
        )?;
        tarball.finish()
    }
}
