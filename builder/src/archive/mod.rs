//! Image archives: docker-archive (`docker save`), OCI layouts as a tar or a directory; compressed or not.
//!
//! Read by lookup: names in an archive are keys, never paths on this machine. Every blob's digest is checked before
//! anything is named. Root file systems (`import`, named contexts) are not image archives and not read here.

mod docker;
pub(crate) mod layout;
mod source;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use cache::{DiffId, Digest, Store, compress};
use frontend::Platform;

use crate::image;
use crate::registry::{ImageError, LayerSource, Reference, config_facts, take_in};
pub(crate) use source::Source;

/// Largest archive, uncompressed, that is spooled to disk: a limit for bombs, not for images.
const MAX_ARCHIVE_BYTES: u64 = 1 << 40;

/// Where an archive is read from.
pub(crate) enum Input<'a> {
    /// A file, or a directory that holds an OCI layout.
    Path(&'a Path),
    /// A stream; spooled to the store's scratch space, since archives are read out of order.
    Stream(&'a mut (dyn Read + Send)),
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// The names the archive gave it, canonical; empty when it had none.
    pub(crate) names: Vec<String>,
    /// Its ID.
    pub(crate) id: Digest,
}

/// An image found in an archive, its config checked.
pub(crate) struct Found {
    pub(crate) names: Vec<Reference>,
    pub(crate) config: Vec<u8>,
    /// Bytes of the manifest, for OCI layouts.
    pub(crate) manifest: Option<Vec<u8>>,
    /// Base layer first, with the name of each one's entry in the archive.
    pub(crate) layers: Vec<(LayerSource, String)>,
}

/// Takes in all images of an archive and names them as it says. Of an image for several platforms the one for
/// `platform` is taken. Blocks.
pub(crate) fn load(store: &Store, input: Input<'_>, platform: &Platform) -> Result<Vec<Loaded>, ImageError> {
    load_checked(store, input, platform, |_, _| Ok(()))
}

/// Does the same, and refuses images for another platform, of which an archive says nothing but that they are.
pub(crate) fn load_only(
    store: &Store,
    input: Input<'_>,
    platform: &Platform,
) -> Result<Vec<Loaded>, ImageError> {
    load_checked(store, input, platform, |source, image| {
        let malformed = |why| ImageError::Malformed {
            what: "config".to_owned(),
            reference: source.title().to_owned(),
            why,
        };
        let found = config_facts(&image.config).map_err(malformed)?.platform;
        match platform.distance(&found) {
            Some(_) => Ok(()),
            None => Err(ImageError::NoPlatform {
                reference: image
                    .names
                    .first()
                    .map_or_else(|| source.title().to_owned(), Reference::familiar),
                wanted: platform.to_string(),
                available: found.to_string(),
            }),
        }
    })
}

fn load_checked(
    store: &Store,
    input: Input<'_>,
    platform: &Platform,
    check: impl Fn(&Source, &Found) -> Result<(), ImageError>,
) -> Result<Vec<Loaded>, ImageError> {
    let source = match input {
        Input::Path(path) => open(store, path)?,
        Input::Stream(stream) => {
            let title = "standard input".to_owned();
            Source::tar(spool(store, stream, &title)?, title)?
        }
    };
    let found = if source.contains("manifest.json") {
        docker::images(&source)?
    } else if source.contains("index.json") {
        layout::images(&source, platform)?
    } else {
        return Err(source.refuse(match source.looks_like_a_root() {
            true => "it looks like a root file system, for `ashlar import` or ADD",
            false => "it has neither manifest.json nor index.json",
        }));
    };
    found
        .iter()
        .try_for_each(|image| check(&source, image).and_then(|()| check_whole(store, &source, image)))?;
    found
        .into_iter()
        .map(|image| take(store, &source, image))
        .collect()
}

/// Fails where layers of an image are neither in the archive nor in the store: those of a delta archive whose older
/// image isn't here. Said before anything is taken in.
fn check_whole(store: &Store, source: &Source, found: &Found) -> Result<(), ImageError> {
    let is_missing = |layer: &DiffId, name: &str| !store.layers().contains(layer) && !source.contains(name);
    let missing = found.layers.iter().map(|(layer, name)| (layer.diff_id, name));
    let missing = missing.filter(|(layer, name)| is_missing(layer, name));
    let layers: Vec<DiffId> = missing.map(|(layer, _)| layer).collect();
    if layers.is_empty() {
        return Ok(());
    }
    let id = || Digest::of(&found.config).to_string();
    Err(ImageError::MissingLayers {
        path: source.title().to_owned(),
        image: found.names.first().map_or_else(id, Reference::familiar),
        layers,
    })
}

fn take(store: &Store, source: &Source, found: Found) -> Result<Loaded, ImageError> {
    for (layer, name) in &found.layers {
        let lock = format!("layer{}", layer.diff_id.hex());
        let _lock = store.lock_for(&lock, &format!("brings in layer {}", layer.diff_id))?;
        if !store.layers().contains(&layer.diff_id) {
            let entry = source.open(name)?;
            take_in(store, entry, layer, source.title())?;
        }
    }
    let manifest = found
        .manifest
        .map(|bytes| store.blobs().put(&bytes, store.incomplete()))
        .transpose()?;
    let names: Vec<String> = found.names.iter().map(ToString::to_string).collect();
    let id = image::commit(store, &found.config, manifest, &[], &names)?;
    Ok(Loaded { names, id })
}

/// Opens a directory, a tar, or a compressed tar.
fn open(store: &Store, path: &Path) -> Result<Source, ImageError> {
    let io = |source| ImageError::Io {
        action: "open",
        path: path.to_owned(),
        source,
    };
    let title = path.display().to_string();
    let mut file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Source::directory(path);
    }
    if !metadata.is_file() {
        return Source::tar(spool(store, &mut file, &title)?, title);
    }
    let mut magic = [0; 262];
    let n_magic = file.read(&mut magic).map_err(io)?;
    file.rewind().map_err(io)?;
    // `ustar` at 257 is a tar whatever its first name looks like.
    if magic[..n_magic].get(257..262) == Some(&b"ustar"[..]) {
        return Source::tar(file, title);
    }
    Source::tar(spool(store, &mut file, &title)?, title)
}

/// Decompresses a stream, if it is compressed, into a file that is gone when it is closed.
fn spool(store: &Store, stream: &mut (dyn Read + Send), title: &str) -> Result<File, ImageError> {
    let refuse = |why: String| ImageError::NotAnArchive {
        path: title.to_owned(),
        why,
    };
    let write = |source: io::Error| ImageError::Io {
        action: "spool",
        path: title.into(),
        source,
    };
    let (mut file, path) = store.incomplete().file().map_err(write)?;
    std::fs::remove_file(path).map_err(write)?;
    let (_, mut plain) =
        compress::decompressor(stream, MAX_ARCHIVE_BYTES).map_err(|error| refuse(error.to_string()))?;
    io::copy(&mut plain, &mut file).map_err(write)?;
    file.rewind().map_err(write)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
