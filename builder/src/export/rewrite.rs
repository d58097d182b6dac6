//! `rewrite-timestamp`: the layers that a build made, written anew with no file later than SOURCE_DATE_EPOCH, so that
//! builds at different times give the same bytes. Spec: dockerfile.md §14.
//!
//! Base layers are left alone, byte for byte; so is a layer in which nothing is later. A rewritten layer is another
//! layer of the store, with its own diff ID; nothing names it but the output's config.

use cache::layer::{Body, Entry, Kind, LayerFile, Meta, Timestamp};
use cache::layers::LayersError;
use cache::{DiffId, Store};

use super::ExportError;

/// Returns the layers of an image, base first, with those above the first `n_base` rewritten.
pub(crate) fn layers(
    store: &Store,
    layers: &[DiffId],
    n_base: usize,
    epoch: i64,
) -> Result<Vec<DiffId>, ExportError> {
    let rewritten = layers
        .iter()
        .enumerate()
        .map(|(number, layer)| match number < n_base {
            true => Ok(*layer),
            false => one(
                store,
                layer,
                Timestamp {
                    seconds: epoch,
                    nanos: 0,
                },
            ),
        });
    rewritten.collect()
}

fn one(store: &Store, layer: &DiffId, epoch: Timestamp) -> Result<DiffId, ExportError> {
    let file = store.layers().get(layer)?;
    let entries = file.index().map_err(LayersError::from)?;
    // What the tar doesn't hold, or only as a marker, has no time.
    let has_time = |entry: &&Entry| !matches!(entry.kind, Kind::Dir { implied: true, .. } | Kind::Whiteout);
    if !entries
        .iter()
        .filter(has_time)
        .any(|entry| is_later(&entry.meta, epoch))
    {
        return Ok(*layer);
    }
    let written = store.layers().write(store.incomplete(), |mut writer| {
        // Of the index's order a tar wants one thing more: what a link names comes before it.
        let is_link = |entry: &&Entry| matches!(entry.kind, Kind::Hardlink(_));
        let others = entries.iter().filter(|entry| !is_link(entry));
        for entry in others.chain(entries.iter().filter(is_link)) {
            let mut meta = entry.meta.clone();
            if is_later(&meta, epoch) {
                meta.mtime = epoch;
            }
            add(&mut writer, &file, entry, meta)?;
        }
        Ok::<_, LayersError>(writer.finish()?)
    })?;
    Ok(written.diff_id())
}

fn is_later(meta: &Meta, epoch: Timestamp) -> bool {
    (meta.mtime.seconds, meta.mtime.nanos) > (epoch.seconds, epoch.nanos)
}

fn add(
    writer: &mut cache::layer::LayerWriter,
    file: &LayerFile,
    entry: &Entry,
    meta: Meta,
) -> Result<(), LayersError> {
    let mut reader;
    let body = match &entry.kind {
        Kind::Dir { implied: true, .. } => return Ok(()),
        Kind::Dir { opaque, .. } => Body::Dir { opaque: *opaque },
        Kind::File(data) => {
            reader = file.read_file(data);
            Body::File {
                size_bytes: data.size_bytes,
                reader: &mut reader,
                content: Some(data.content),
            }
        }
        Kind::Symlink(target) => Body::Symlink(target.clone()),
        Kind::Hardlink(target) => Body::Hardlink(target.clone()),
        Kind::CharDevice(major, minor) => Body::CharDevice(*major, *minor),
        Kind::BlockDevice(major, minor) => Body::BlockDevice(*major, *minor),
        Kind::Fifo => Body::Fifo,
        Kind::Whiteout => Body::Whiteout,
    };
    Ok(writer.add(entry.path.clone(), meta, body)?)
}
