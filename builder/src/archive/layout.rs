//! OCI image layout: `index.json` names manifests, `blobs/` holds everything by digest.
//!
//! Spec: OCI image-spec, image-layout.md.

use std::collections::HashSet;

use cache::Digest;
use frontend::Platform;
use serde::Deserialize;

use super::source::Entry;
use super::{Found, Part, Source, Wanted};
use crate::registry::{
    Descriptor, Document, INDEX_TYPES, ImageError, MAX_CONFIG_BYTES, MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES,
    Manifest, Reference, pair, parse, select,
};

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Most manifests and indexes that one entry of `index.json` leads to: there are some dozen platforms.
const MAX_FAMILY: usize = 256;

/// One image of a layout, for one platform.
pub(crate) struct Image {
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
    pub(crate) config: Vec<u8>,
}

/// An entry of `index.json` by its annotations.
struct Listed {
    entry: Descriptor,
    platform: Option<Platform>,
    ref_name: Option<String>,
    containerd_name: Option<String>,
}

/// Opens a blob of the layout; whoever reads it checks its digest.
pub(crate) fn open_blob(source: &Source, digest: &Digest) -> Result<Entry, ImageError> {
    source.open(&blob_name(digest))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Lists the images of a layout.
pub(super) fn images(source: &Source, wanted: Wanted<'_>) -> Result<Vec<Found>, ImageError> {
    let mut out = Vec::new();
    for listed in listing(source)? {
        let parts = match wanted {
            Wanted::All(_) => family(source, listed.entry)?,
            Wanted::Only(platform) => vec![descend(
                source,
                listed.entry.digest,
                Some(listed.entry),
                platform,
            )?],
        };
        let parts = parts.into_iter().map(|image| part(source, image));
        // A reference annotation may be a whole name, or just a tag, which names nothing by itself.
        let name = listed
            .containerd_name
            .or(listed.ref_name.filter(|name| name.contains([':', '/'])));
        out.push(Found {
            names: name
                .iter()
                .map(|name| Reference::parse(name))
                .collect::<Result<_, _>>()?,
            parts: parts.collect::<Result<_, _>>()?,
        });
    }
    if out.is_empty() {
        return Err(source.refuse("index.json lists no images"));
    }
    Ok(out)
}

/// Returns what the indexes that a layout lists have for several platforms, without manifests that somebody could take for
/// what the image is known by.
pub(super) fn families(source: &Source) -> Result<Vec<Vec<Part>>, ImageError> {
    let mut families = Vec::new();
    let mut seen = HashSet::new();
    for listed in listing(source)? {
        // One index may have several names.
        if INDEX_TYPES.contains(&listed.entry.media_type.as_str()) && seen.insert(listed.entry.digest) {
            let parts = family(source, listed.entry)?.into_iter().map(|image| {
                Ok(Part {
                    manifest: None,
                    ..part(source, image)?
                })
            });
            families.push(parts.collect::<Result<_, ImageError>>()?);
        }
    }
    Ok(families)
}

fn part(source: &Source, image: Image) -> Result<Part, ImageError> {
    let layers = pair(source.title(), &image.manifest, &image.config)?;
    Ok(Part {
        config: image.config,
        manifest: Some(image.manifest_bytes),
        layers: layers
            .into_iter()
            .zip(&image.manifest.layers)
            .map(|(layer, blob)| (layer, blob_name(&blob.digest)))
            .collect(),
    })
}

/// Reads what an entry of `index.json` is for each platform, in order. An index may list more than is in the archive, one at
/// least must be.
fn family(source: &Source, entry: Descriptor) -> Result<Vec<Image>, ImageError> {
    let mut images = Vec::new();
    let mut todo = vec![(entry, 0)];
    let mut n_read = 0;
    while let Some((entry, depth)) = todo.pop() {
        if depth > MAX_INDEX_DEPTH {
            return Err(too_deep(source));
        }
        if depth > 0 && !source.contains(&blob_name(&entry.digest)) {
            continue;
        }
        n_read += 1;
        if n_read > MAX_FAMILY {
            return Err(source.refuse(format!("an index has more than {MAX_FAMILY} images")));
        }
        match read(source, &entry.digest, Some(&entry))? {
            (bytes, Document::Manifest(manifest)) => images.push(with_config(source, bytes, manifest)?),
            (_, Document::Index(entries)) => {
                let is_only = entries.len() == 1;
                let is_image = |(entry, platform): &(Descriptor, Option<Platform>)| match platform {
                    // What is said of an image isn't one.
                    Some(platform) => platform.os != "unknown",
                    None => is_only || INDEX_TYPES.contains(&entry.media_type.as_str()),
                };
                let images = entries.into_iter().rev().filter(is_image);
                todo.extend(images.map(|(entry, _)| (entry, depth + 1)));
            }
        }
    }
    match images.is_empty() {
        true => Err(source.refuse("it has none of the images that its index lists")),
        false => Ok(images),
    }
}

/// Finds one image: by tag or whole name, by `@digest`, or the only one when `reference` is empty.
pub(crate) fn find(source: &Source, reference: &str, platform: &Platform) -> Result<Image, ImageError> {
    let listed = listing(source)?;
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => {
            let parsed = digest.parse::<Digest>();
            (
                name,
                Some(parsed.map_err(|error| source.refuse(error.to_string()))?),
            )
        }
        None => (reference, None),
    };
    if let Some(digest) = digest {
        // It need not be listed, as long as it is there.
        let known = listed.into_iter().find(|one| one.entry.digest == digest);
        return descend(source, digest, known.map(|one| one.entry), platform);
    }
    let is_named = |one: &Listed| {
        let ref_name = one.ref_name.as_deref();
        let tag = one
            .containerd_name
            .as_deref()
            .and_then(|name| name.rsplit_once(':'));
        ref_name == Some(name)
            || one.containerd_name.as_deref() == Some(name)
            || tag.is_some_and(|(_, tag)| tag == name)
    };
    let mut matching: Vec<Listed> = listed
        .into_iter()
        .filter(|one| name.is_empty() || is_named(one))
        .collect();
    if matching.len() > 1 {
        matching.retain(|one| {
            one.platform
                .as_ref()
                .is_none_or(|other| platform.distance(other).is_some())
        });
    }
    match matching.pop() {
        Some(one) if matching.is_empty() => descend(source, one.entry.digest, Some(one.entry), platform),
        Some(_) => Err(source.refuse("it has several images: name one by its tag or digest")),
        None => Err(ImageError::NotFound {
            reference: format!("{}:{name}", source.title()),
        }),
    }
}

/// Returns the digest that a tag stands for.
pub(crate) fn tagged(source: &Source, tag: &str) -> Result<Option<Digest>, ImageError> {
    let mut listed = listing(source)?.into_iter();
    let found = listed.find(|one| one.ref_name.as_deref() == Some(tag));
    Ok(found.map(|one| one.entry.digest))
}

fn listing(source: &Source) -> Result<Vec<Listed>, ImageError> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<serde_json::Value>,
    }
    let bytes = source.read("index.json", MAX_MANIFEST_BYTES)?;
    let malformed = |why: String| source.refuse(format!("index.json is malformed: {why}"));
    let Document::Index(entries) = parse(&bytes, None).map_err(malformed)? else {
        return Err(malformed("it is a manifest, not an index".to_owned()));
    };
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let annotation = |value: &serde_json::Value, name: &str| {
        Some(value.get("annotations")?.get(name)?.as_str()?.to_owned())
    };
    Ok(entries
        .into_iter()
        .zip(index.manifests)
        .map(|((entry, platform), value)| Listed {
            entry,
            platform,
            ref_name: annotation(&value, REF_NAME),
            containerd_name: annotation(&value, CONTAINERD_NAME),
        })
        .collect())
}

/// Follows indexes down to one manifest and reads its config; both are checked, also against what lists them.
fn descend(
    source: &Source,
    mut digest: Digest,
    mut listed: Option<Descriptor>,
    platform: &Platform,
) -> Result<Image, ImageError> {
    for _ in 0..=MAX_INDEX_DEPTH {
        match read(source, &digest, listed.as_ref())? {
            (bytes, Document::Manifest(manifest)) => return with_config(source, bytes, manifest),
            (_, Document::Index(entries)) => {
                let next = select(&entries, platform).map_err(|available| ImageError::NoPlatform {
                    reference: source.title().to_owned(),
                    wanted: platform.to_string(),
                    available,
                })?;
                digest = next.digest;
                listed = Some(next.clone());
            }
        }
    }
    Err(too_deep(source))
}

fn too_deep(source: &Source) -> ImageError {
    source.refuse(format!(
        "indexes lie more than {MAX_INDEX_DEPTH} deep in each other"
    ))
}

/// Reads a manifest or an index, and checks it against what lists it.
fn read(
    source: &Source,
    digest: &Digest,
    listed: Option<&Descriptor>,
) -> Result<(Vec<u8>, Document), ImageError> {
    let bytes = checked(source, digest, MAX_MANIFEST_BYTES)?;
    if let Some(listed) = listed {
        listed.check(source.title(), &bytes)?;
    }
    let media_type = listed.map(|listed| listed.media_type.as_str());
    let document = parse(&bytes, media_type).map_err(|why| ImageError::Malformed {
        what: format!("manifest {digest}"),
        reference: source.title().to_owned(),
        why,
    })?;
    Ok((bytes, document))
}

fn with_config(source: &Source, manifest_bytes: Vec<u8>, manifest: Manifest) -> Result<Image, ImageError> {
    let config = checked(source, &manifest.config.digest, MAX_CONFIG_BYTES)?;
    manifest.config.check(source.title(), &config)?;
    Ok(Image {
        manifest_bytes,
        manifest,
        config,
    })
}

/// Reads a small blob and checks its digest.
pub(crate) fn checked(source: &Source, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, ImageError> {
    let bytes = source.read(&blob_name(digest), limit_bytes)?;
    match Digest::of(&bytes) {
        actual if actual == *digest => Ok(bytes),
        actual => Err(ImageError::WrongDigest {
            reference: source.title().to_owned(),
            expected: *digest,
            actual,
        }),
    }
}
