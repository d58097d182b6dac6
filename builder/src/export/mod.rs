//! Outputs: archives, layouts and plain files made of an image that is complete in the store.
//!
//! Everything is named by its digest before the first byte is written, so that an archive is one sequential copy. What
//! is written depends on the image and the options only: fixed order, fixed times. What a registry gets is put together
//! here and sent by `registry::push`.

mod annotations;
mod blob;
mod delta;
mod docker;
mod document;
mod flat;
mod local;
mod oci;
mod options;
pub(crate) mod rewrite;
mod shipment;
mod spec;
mod statement;
mod tarball;
mod target;
mod upload;

use std::io;
use std::path::{Path, PathBuf};

use cache::blobs::BlobError;
use cache::index::{IndexError, Variant};
use cache::layers::LayersError;
use cache::store::StoreError;
use cache::{DiffId, Digest, Store};
use frontend::Platform;

use crate::attest::Attestation;
use crate::image::{self, StoredImage};
use crate::options::host_platform;
use crate::registry::{Descriptor, ImageError};
use crate::report::Failure;
pub(crate) use annotations::Annotations;
pub(crate) use blob::{Blob, of_layer};
use delta::Older;
pub(crate) use docker::Lists;
pub(crate) use document::platform_of;
pub(crate) use oci::Layout;
pub(crate) use options::{Compression, Destination, ImageOptions, Naming, Times};
pub(crate) use shipment::{Part, Shipment};
pub(crate) use spec::{Attributes, Output, SpecError, zstd};
pub(crate) use upload::upload;

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
    /// The form holds an image for one platform.
    #[error("{what} holds an image for one platform only")]
    SeveralPlatforms {
        /// What was asked for.
        what: &'static str,
    },
    /// There is no index that could have them.
    #[error("index annotations are not supported for an image of a single platform")]
    NoIndex,
    /// The form has no place for them.
    #[error("{what} can't carry attestations")]
    Attested {
        /// What was asked for.
        what: &'static str,
    },
    /// There is nothing to leave out.
    #[error("cannot leave out what `{name}` has: {why}")]
    Since {
        /// The older image.
        name: String,
        /// Why.
        why: String,
    },
    /// A file of the result would be overwritten.
    #[error("an attestation can't be written as {name}: the result has a file of that name")]
    AttestationName {
        /// The name, with its prefix.
        name: String,
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

/// What [`ExportError::SeveralPlatforms`] and [`ExportError::Attested`] are said of.
const DOCKER_ARCHIVE: &str = "a docker archive (type=docker)";
const ENGINE: &str = "a load into an engine (--load, type=docker)";
const NOT_SPLIT: &str = "an output with platform-split=false";

/// An image to be written. Its layers must be in the store.
#[derive(Debug, Clone)]
pub(crate) struct ExportImage {
    /// The config, verbatim.
    pub(crate) config: Vec<u8>,
    /// Base layer first; the same as in the config.
    pub(crate) layers: Vec<DiffId>,
    /// The same image for further platforms; `Some` makes an index of all, even of one.
    pub(crate) further: Option<Vec<PlatformImage>>,
    /// Canonical names.
    pub(crate) names: Vec<String>,
    /// What is said of it, for each platform, in order; empty where nothing is.
    pub(crate) attestations: Vec<Vec<Attestation>>,
    /// The cache that its manifest carries, for each platform, in order; empty where it carries none.
    pub(crate) caches: Vec<Option<String>>,
}

/// An image as it is for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlatformImage {
    /// The config, verbatim.
    pub(crate) config: Vec<u8>,
    /// Base layer first; the same as in the config.
    pub(crate) layers: Vec<DiffId>,
}

impl ExportImage {
    /// Takes an image of the store as it is, with what was made of it for other platforms.
    pub(crate) fn from_stored(image: StoredImage, variants: Vec<StoredImage>) -> Result<Self, Failure> {
        let further = variants.into_iter().map(|variant| {
            Ok(PlatformImage {
                layers: variant.layers()?,
                config: variant.config_bytes,
            })
        });
        let further = further.collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self {
            layers: image.layers()?,
            names: image.names().map(str::to_owned).collect(),
            attestations: Vec::new(),
            caches: Vec::new(),
            further: Some(further).filter(|further| !further.is_empty()),
            config: image.config_bytes,
        })
    }

    /// Takes what a build made for each platform, in order. Several make an index, one does so by will.
    ///
    /// # Panics
    /// When there is no platform.
    pub(crate) fn of_platforms(mut images: Vec<PlatformImage>, names: &[String], wants_index: bool) -> Self {
        let PlatformImage { config, layers } = images.remove(0);
        Self {
            config,
            layers,
            further: (wants_index || !images.is_empty()).then_some(images),
            names: names.to_vec(),
            attestations: Vec::new(),
            caches: Vec::new(),
        }
    }

    /// Puts the image into the store, under its names or under its ID. Returns the ID: the digest of the config for the
    /// machine's own platform, or for the first.
    pub(crate) fn commit(&self, store: &Store) -> Result<Digest, ImageError> {
        let (own, others) = self.configs();
        let variants = others.into_iter().map(|config| {
            Ok(Variant {
                platform: document::platform_of(config)
                    .map_or_else(String::new, |platform| platform.to_string()),
                config: store.blobs().put(config, store.incomplete())?,
            })
        });
        let mut variants = variants.collect::<Result<Vec<_>, ImageError>>()?;
        variants.sort_by(|a, b| a.platform.cmp(&b.platform));
        image::commit(store, own, None, &variants, &self.names)
    }

    /// Returns the ID that [`commit`](Self::commit) would.
    pub(crate) fn id(&self) -> Digest {
        Digest::of(self.configs().0)
    }

    /// Returns the config for the machine's own platform, or for the first, and the others.
    fn configs(&self) -> (&Vec<u8>, Vec<&Vec<u8>>) {
        let further = self.further.iter().flatten().map(|image| &image.config);
        let mut configs: Vec<&Vec<u8>> = std::iter::once(&self.config).chain(further).collect();
        let own = nearest(&host_platform(), configs.iter().map(|config| &config[..]));
        let own = configs.remove(own);
        (own, configs)
    }

    /// Returns the layers of all platforms.
    pub(crate) fn all_layers(&self) -> impl Iterator<Item = &DiffId> {
        let further = self.further.iter().flatten().flat_map(|image| &image.layers);
        self.layers.iter().chain(further)
    }

    /// Returns the directories that outputs of plain files are split into, and the layers for each; one without a name
    /// when there is no index. Spec: cli-and-outputs.md §5.
    fn trees(&self, split: bool) -> Result<Vec<Tree<'_>>, ExportError> {
        let further = self.further.as_ref();
        let further = further.filter(|further| split || !further.is_empty());
        if further.is_some() && !split {
            return Err(ExportError::SeveralPlatforms { what: NOT_SPLIT });
        }
        let name = |config: &[u8]| {
            let platform = document::platform_of(config).map(|platform| platform.to_string());
            platform.unwrap_or_default().replace('/', "_")
        };
        let own = Tree {
            name: further.map_or_else(String::new, |_| name(&self.config)),
            layers: &self.layers,
            attestations: &[],
        };
        let others = further.into_iter().flatten().map(|image| Tree {
            name: name(&image.config),
            layers: &image.layers,
            attestations: &[],
        });
        let mut trees: Vec<Tree<'_>> = std::iter::once(own).chain(others).collect();
        for (tree, attestations) in trees.iter_mut().zip(&self.attestations) {
            tree.attestations = attestations;
        }
        Ok(trees)
    }
}

/// Returns which of several configs is the one for a platform: what runs there best, or the first.
pub(crate) fn nearest<'a>(platform: &Platform, configs: impl Iterator<Item = &'a [u8]>) -> usize {
    let distances = configs.enumerate().filter_map(|(at, config)| {
        let distance = platform.distance(&document::platform_of(config)?)?;
        Some((distance, at))
    });
    distances.min().map_or(0, |(_, at)| at)
}

/// The files of an image for one platform.
struct Tree<'a> {
    /// The directory that they get; empty for none.
    name: String,
    /// Base layer first.
    layers: &'a [DiffId],
    /// What is said of them.
    attestations: &'a [Attestation],
}

/// What an output became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exported {
    /// The image's ID.
    pub(crate) id: Digest,
    /// Its manifest, where the output has one.
    pub(crate) manifest: Option<Descriptor>,
}

/// Writes one output of a build, up to where it leaves the machine: [`upload`] is what is to be sent. `epoch` (seconds since the Unix epoch) replaces the times of all files of the outputs
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
    let mut id = Digest::of(&image.config);
    let manifest = match output {
        Output::CacheOnly => None,
        Output::Image { names } => {
            id = with_names(names).commit(store)?;
            None
        }
        Output::Engine { image: options, .. } => {
            id = with_names(&options.names).commit(store)?;
            None
        }
        Output::Registry {
            image: options,
            naming,
        } => {
            // What has no tag there has none here.
            let names = if naming.by_digest { &[][..] } else { &options.names };
            id = with_names(names).commit(store)?;
            None
        }
        Output::OciArchive { dest, image: options } => {
            let image = with_names(&options.names);
            Some(oci::archive(store, dest, &image, options, epoch)?)
        }
        Output::OciDirectory { dest, image: options } => {
            let image = with_names(&options.names);
            Some(oci::directory(store, dest, &image, options, epoch)?)
        }
        Output::DockerArchive { dest, image: options } => {
            let mut image = with_names(&options.names);
            image.attestations.clear();
            image.caches.clear();
            let images = std::slice::from_ref(&image);
            docker::archive(store, dest, images, Lists::DockerToo, options, epoch)?.pop()
        }
        Output::Tar { dest, split, prefix } => {
            flat::archive(store, dest, &image.trees(*split)?, prefix, epoch)?;
            None
        }
        Output::Local { dest, split, prefix } => {
            target::make_dir(dest)?;
            for tree in image.trees(*split)? {
                local::directory(store, &dest.join(&tree.name), &tree, prefix, epoch)?;
            }
            None
        }
    };
    Ok(Exported { id, manifest })
}

/// What an image will look like, known before it is built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// For how many platforms.
    pub(crate) n_platforms: usize,
    /// Whether it has an index.
    pub(crate) has_index: bool,
    /// Whether it has attestations that it must not lose.
    pub(crate) is_attested: bool,
}

/// Fails as [`export`] would where the output's place can't be written or its form doesn't hold such an image, before
/// a build spends time on it. Leaves nothing behind.
pub(crate) fn check(output: &Output, shape: Shape) -> Result<(), ExportError> {
    let annotations = output.image_options().map(|image| &image.annotations);
    if !shape.has_index && annotations.is_some_and(Annotations::wants_index) {
        return Err(ExportError::NoIndex);
    }
    match output {
        Output::Tar { split: false, .. } | Output::Local { split: false, .. } if shape.n_platforms > 1 => {
            return Err(ExportError::SeveralPlatforms { what: NOT_SPLIT });
        }
        Output::DockerArchive { .. } if shape.is_attested => {
            return Err(ExportError::Attested { what: DOCKER_ARCHIVE });
        }
        Output::Engine { .. } if shape.is_attested => return Err(ExportError::Attested { what: ENGINE }),
        _ => {}
    }
    match output {
        Output::OciArchive { dest, .. } | Output::DockerArchive { dest, .. } | Output::Tar { dest, .. } => {
            target::check(dest)
        }
        Output::OciDirectory { dest, .. } | Output::Local { dest, .. } => target::check_dir(dest),
        Output::CacheOnly | Output::Image { .. } | Output::Registry { .. } | Output::Engine { .. } => Ok(()),
    }
}

/// Writes local images as one archive: `ashlar save`. Layers that several share are written once, those of the
/// images `since` not at all. Blocks.
pub(crate) fn save(
    store: &Store,
    dest: &Destination,
    images: &[ExportImage],
    lists: Lists,
    since: &[String],
) -> Result<(), ExportError> {
    docker::archive(store, dest, images, lists, &as_saved(store, since)?, None).map(|_| ())
}

/// Returns what [`save`] would write, without writing it. Blocks.
pub(crate) fn survey(
    store: &Store,
    images: &[ExportImage],
    lists: Lists,
    since: &[String],
) -> Result<Survey, ExportError> {
    docker::survey(store, images, lists, &as_saved(store, since)?)
}

/// What an archive would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    /// In the order of the images, base layers first. A layer that several images have is listed once.
    pub(crate) layers: Vec<SurveyedLayer>,
    /// Size of the whole file.
    pub(crate) size_bytes: u64,
}

/// A layer that an archive could hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SurveyedLayer {
    /// Which.
    pub(crate) diff_id: DiffId,
    /// Size of its blob.
    pub(crate) size_bytes: u64,
    /// The reader needs to have it.
    pub(crate) is_left_out: bool,
}

fn as_saved(store: &Store, since: &[String]) -> Result<ImageOptions, ExportError> {
    Ok(ImageOptions {
        names: Vec::new(),
        compression: Compression {
            codec: cache::compress::Codec::None,
            is_explicit: false,
            force: false,
        },
        oci_types: true,
        oci_artifact: true,
        annotations: Annotations::default(),
        since: since.to_vec(),
        older: Older::find(store, since)?,
    })
}

#[cfg(test)]
mod tests;
