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

use cache::index::Variant;
use cache::{DiffId, Digest, Store, compress};
use frontend::Platform;

use crate::export::{nearest, platform_of};
use crate::image;
use crate::registry::{ImageError, LayerSource, Reference, take_in};
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

/// What is wanted of images for several platforms.
#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    /// All, of which this one gives the image its ID; the first where it isn't there.
    All(&'a Platform),
    /// This one, and nothing else.
    Only(&'a Platform),
}

/// An image found in an archive.
struct Found {
    names: Vec<Reference>,
    /// For each platform, its config checked; the one that gives the image its ID first.
    parts: Vec<Part>,
}

/// An image as it is for one platform.
#[derive(Debug, Clone)]
struct Part {
    config: Vec<u8>,
    /// Bytes of the manifest, for OCI layouts.
    manifest: Option<Vec<u8>>,
    /// Base layer first, with the name of each one's entry in the archive.
    layers: Vec<(LayerSource, String)>,
}

/// Takes in all images of an archive and names them as it says, for all their platforms. The image's ID is that for
/// `platform`, or for the first where that isn't among them. Blocks.
pub(crate) fn load(store: &Store, input: Input<'_>, platform: &Platform) -> Result<Vec<Loaded>, ImageError> {
    load_wanted(store, input, Wanted::All(platform))
}

/// Takes in all images of an archive for one platform. Ones that aren't for it are an error.
pub(crate) fn load_only(
    store: &Store,
    input: Input<'_>,
    platform: &Platform,
) -> Result<Vec<Loaded>, ImageError> {
    load_wanted(store, input, Wanted::Only(platform))
}

fn load_wanted(store: &Store, input: Input<'_>, wanted: Wanted<'_>) -> Result<Vec<Loaded>, ImageError> {
    let source = match input {
        Input::Path(path) => open(store, path)?,
        Input::Stream(stream) => {
            let title = "standard input".to_owned();
            Source::tar(spool(store, stream, &title)?, title)?
        }
    };
    let mut found = if source.contains("manifest.json") {
        docker::images(&source)?
    } else if source.contains("index.json") {
        layout::images(&source, wanted)?
    } else {
        return Err(source.refuse(match source.looks_like_a_root() {
            true => "it looks like a root file system, for `ashlar import` or ADD",
            false => "it has neither manifest.json nor index.json",
        }));
    };
    for image in &mut found {
        choose(&source, image, wanted)?;
        for part in &image.parts {
            check_whole(store, &source, image, part)?;
        }
    }
    found
        .into_iter()
        .map(|image| take(store, &source, image))
        .collect()
}

/// Puts the part that gives the image its ID first, and drops what isn't wanted.
fn choose(source: &Source, found: &mut Found, wanted: Wanted<'_>) -> Result<(), ImageError> {
    let (Wanted::All(platform) | Wanted::Only(platform)) = wanted;
    let nearest = nearest(platform, found.parts.iter().map(|part| &part.config[..]));
    found.parts.swap(0, nearest);
    let Wanted::Only(platform) = wanted else {
        return Ok(());
    };
    found.parts.truncate(1);
    let own = platform_of(&found.parts[0].config);
    match own.as_ref().is_some_and(|own| platform.distance(own).is_some()) {
        true => Ok(()),
        false => Err(ImageError::NoPlatform {
            reference: match found.names.first() {
                Some(name) => name.familiar(),
                None => source.title().to_owned(),
            },
            wanted: platform.to_string(),
            available: own.map_or_else(|| "none".to_owned(), |own| own.to_string()),
        }),
    }
}

/// Fails where layers of an image are neither in the archive nor in the store: those of a delta archive whose older
/// image isn't here. Said before anything is taken in.
fn check_whole(store: &Store, source: &Source, found: &Found, part: &Part) -> Result<(), ImageError> {
    let is_missing = |layer: &DiffId, name: &str| !store.layers().contains(layer) && !source.contains(name);
    let missing = part.layers.iter().map(|(layer, name)| (layer.diff_id, name));
    let missing = missing.filter(|(layer, name)| is_missing(layer, name));
    let layers: Vec<DiffId> = missing.map(|(layer, _)| layer).collect();
    if layers.is_empty() {
        return Ok(());
    }
    let id = || Digest::of(&part.config).to_string();
    Err(ImageError::MissingLayers {
        path: source.title().to_owned(),
        image: found.names.first().map_or_else(id, Reference::familiar),
        layers,
    })
}

fn take(store: &Store, source: &Source, found: Found) -> Result<Loaded, ImageError> {
    for (layer, name) in found.parts.iter().flat_map(|part| &part.layers) {
        let lock = format!("layer{}", layer.diff_id.hex());
        let _lock = store.lock_for(&lock, &format!("brings in layer {}", layer.diff_id))?;
        if !store.layers().contains(&layer.diff_id) {
            let entry = source.open(name)?;
            take_in(store, entry, layer, source.title())?;
        }
    }
    let (own, others) = found
        .parts
        .split_first()
        .expect("because an image is found by its first part");
    let put = |bytes: &[u8]| store.blobs().put(bytes, store.incomplete());
    let mut variants: Vec<Variant> = Vec::new();
    for other in others {
        let platform = platform_of(&other.config).map_or_else(String::new, |platform| platform.to_string());
        // Two for the same platform can't be told apart by it: the first is it.
        if platform_of(&other.config) != platform_of(&own.config)
            && variants.iter().all(|known| known.platform != platform)
        {
            let config = put(&other.config)?;
            variants.push(Variant { platform, config });
        }
    }
    variants.sort_by(|a, b| a.platform.cmp(&b.platform));
    let manifest = own.manifest.as_deref().map(put).transpose()?;
    let names: Vec<String> = found.names.iter().map(ToString::to_string).collect();
    let id = image::commit(store, &own.config, manifest, &variants, &names)?;
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
