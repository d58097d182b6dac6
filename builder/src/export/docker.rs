//! docker-archive: what `docker load`, podman and skopeo read, written as current `docker save` does: blobs by digest,
//! with `manifest.json` for Docker and `index.json` beside it, so that it is an OCI layout too.

use std::collections::BTreeSet;

use cache::{Digest, Store};
use serde_json::{Map, Value, json};

use super::delta::{self, Listed};
use super::document::{self, Packed};
use super::spec::{Destination, ImageOptions};
use super::statement::Attached;
use super::tarball::Tarball;
use super::{ExportError, ExportImage};
use crate::registry::Descriptor;

/// Writes the archive; returns the images' manifests in order.
pub(super) fn archive(
    store: &Store,
    dest: &Destination,
    images: &[ExportImage],
    options: &ImageOptions,
    epoch: Option<i64>,
) -> Result<Vec<Descriptor>, ExportError> {
    let mut tarball = Tarball::create(dest, epoch)?;
    let packed = images
        .iter()
        .map(|image| document::pack(store, image, options, epoch))
        .collect::<Result<Vec<Packed>, _>>()?;
    let left_out = delta::left_out(&packed, &delta::known(store, &options.since)?);
    let entries = packed.iter().flat_map(document::entries).collect();
    // What describes the archive comes first: a reader of a stream then knows what to expect.
    tarball.file("oci-layout", document::LAYOUT_MARKER)?;
    tarball.file("index.json", &document::index(entries))?;
    tarball.file("manifest.json", &document::bytes(&manifest(&packed)))?;
    tarball.file("repositories", &document::bytes(&repositories(&packed)))?;
    tarball.directory("blobs/")?;
    tarball.directory("blobs/sha256/")?;
    for image in &packed {
        write_blobs(&mut tarball, image, &left_out)?;
    }
    tarball.finish()?;
    Ok(packed.iter().map(|image| image.top().clone()).collect())
}

/// Says which layers the archive would have, and which it would leave out.
pub(super) fn preview(
    store: &Store,
    images: &[ExportImage],
    options: &ImageOptions,
) -> Result<Vec<Listed>, ExportError> {
    let packed = images
        .iter()
        .map(|image| document::pack(store, image, options, None))
        .collect::<Result<Vec<Packed>, _>>()?;
    let left_out = delta::left_out(&packed, &delta::known(store, &options.since)?);
    Ok(delta::list(&packed, &left_out))
}

/// Writes index, manifests, configs and layers of an image under their digests, but for layers that are left out.
pub(super) fn write_blobs(
    tarball: &mut Tarball,
    image: &Packed,
    left_out: &BTreeSet<Digest>,
) -> Result<(), ExportError> {
    let name = |digest: &cache::Digest| format!("blobs/sha256/{}", digest.hex());
    if let Some((index, bytes)) = &image.index {
        tarball.file(&name(&index.digest), bytes)?;
    }
    for (digest, bytes) in image.attached.iter().flat_map(Attached::documents) {
        tarball.file(&name(digest), bytes)?;
    }
    for one in &image.manifests {
        tarball.file(&name(&one.manifest.digest), &one.manifest_bytes)?;
        tarball.file(&name(&one.config_digest), &one.config)?;
        for layer in one
            .layers
            .iter()
            .filter(|layer| !left_out.contains(&layer.digest))
        {
            tarball.blob(&name(&layer.digest), layer)?;
        }
    }
    Ok(())
}

/// Docker's list of images: it knows one platform of each.
fn manifest(images: &[Packed]) -> Value {
    let item = |image: &Packed| {
        let one = &image.manifests[0];
        let path = |digest: &cache::Digest| format!("blobs/sha256/{}", digest.hex());
        let names: Vec<String> = image.names.iter().map(|name| name.familiar()).collect();
        let layers: Vec<String> = one.layers.iter().map(|layer| path(&layer.digest)).collect();
        json!({"Config": path(&one.config_digest), "RepoTags": names, "Layers": layers})
    };
    Value::Array(images.iter().map(item).collect())
}

/// The older table: repository, tag, top layer. Still read by tools that look for names only.
fn repositories(images: &[Packed]) -> Value {
    let mut table = Map::new();
    for image in images {
        let Some(top) = image.manifests[0].layers.last() else {
            continue;
        };
        for name in &image.names {
            if let Some(tag) = name.tag() {
                let tags = table.entry(name.familiar_name()).or_insert_with(|| json!({}));
                tags[tag] = json!(top.digest.hex());
            }
        }
    }
    Value::Object(table)
}
