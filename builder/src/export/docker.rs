//! docker-archive: what `docker load`, podman and skopeo read, written as current `docker save` does: blobs by digest,
//! with `manifest.json` for Docker and `index.json` beside it, so that it is an OCI layout too.

use cache::Store;
use serde_json::{Map, Value, json};

use super::delta::Older;
use super::document::{self, Packed};
use super::options::{Destination, ImageOptions};
use super::statement::Attached;
use super::tarball::Tarball;
use super::{ExportError, ExportImage, Survey, SurveyedLayer};
use crate::registry::Descriptor;

/// How an archive says which images it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    /// As an OCI layout does.
    Oci,
    /// As Docker reads it too.
    DockerToo,
}

/// Writes the archive; returns the images' manifests in order.
pub(super) fn archive(
    store: &Store,
    dest: &Destination,
    images: &[ExportImage],
    lists: Lists,
    options: &ImageOptions,
    epoch: Option<i64>,
) -> Result<Vec<Descriptor>, ExportError> {
    let mut tarball = Tarball::create(dest, epoch)?;
    let packed = pack(store, images, options, epoch)?;
    fill(&mut tarball, &packed, lists, &options.older)?;
    tarball.finish()?;
    Ok(packed.iter().map(|image| image.top().clone()).collect())
}

/// Says what [`archive`] would write.
pub(super) fn survey(
    store: &Store,
    images: &[ExportImage],
    lists: Lists,
    options: &ImageOptions,
) -> Result<Survey, ExportError> {
    let packed = pack(store, images, options, None)?;
    let mut tarball = Tarball::measured();
    fill(&mut tarball, &packed, lists, &options.older)?;
    let mut layers: Vec<SurveyedLayer> = Vec::new();
    for one in packed.iter().flat_map(|image| &image.manifests) {
        let n_shared = options.older.n_shared(&one.diff_ids);
        for (position, (diff_id, blob)) in one.diff_ids.iter().zip(&one.layers).enumerate() {
            let is_left_out = position < n_shared;
            match layers.iter_mut().find(|known| known.diff_id == *diff_id) {
                // One image needs it, whatever the others do.
                Some(known) => known.is_left_out &= is_left_out,
                None => layers.push(SurveyedLayer {
                    diff_id: *diff_id,
                    size_bytes: blob.size_bytes,
                    is_left_out,
                }),
            }
        }
    }
    Ok(Survey {
        layers,
        size_bytes: tarball.finish()?,
    })
}

fn pack(
    store: &Store,
    images: &[ExportImage],
    options: &ImageOptions,
    epoch: Option<i64>,
) -> Result<Vec<Packed>, ExportError> {
    let images = images.iter();
    let packed = images.map(|image| document::pack(store, image, options, epoch));
    packed.collect()
}

/// Writes what an archive consists of, but for the layers that the reader has.
pub(super) fn fill(
    tarball: &mut Tarball,
    packed: &[Packed],
    lists: Lists,
    older: &Older,
) -> Result<(), ExportError> {
    let entries = packed.iter().flat_map(document::entries).collect();
    // What describes the archive comes first: a reader of a stream then knows what to expect.
    tarball.file("oci-layout", document::LAYOUT_MARKER)?;
    tarball.file("index.json", &document::index(entries))?;
    if lists == Lists::DockerToo {
        tarball.file("manifest.json", &document::bytes(&manifest(packed)))?;
        tarball.file("repositories", &document::bytes(&repositories(packed)))?;
    }
    tarball.directory("blobs/")?;
    tarball.directory("blobs/sha256/")?;
    for image in packed {
        write_blobs(tarball, image, older)?;
    }
    Ok(())
}

/// Writes index, manifests, configs and layers of an image under their digests, but for the layers that the reader has.
pub(super) fn write_blobs(tarball: &mut Tarball, image: &Packed, older: &Older) -> Result<(), ExportError> {
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
        for layer in one.layers.iter().skip(older.n_shared(&one.diff_ids)) {
            tarball.blob(&name(&layer.digest), layer)?;
        }
    }
    Ok(())
}

/// Docker's list of images. Of one for several platforms it has the machine's own, as Docker's does: readers that know no
/// index take what is first, take the name away from what had it before, or refuse a second entry.
fn manifest(images: &[Packed]) -> Value {
    let item = |image: &Packed| {
        let one = image.own();
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
        let Some(top) = image.own().layers.last() else {
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
