//! What the images of the store need of it, so that it stays: their configs and manifests, their layers, and the
//! compressed layers that a registry knows them by, which can't be made again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use cache::blobs::BlobError;
use cache::gc::Pins;
use cache::index::{ImageName, Version};
use cache::{DiffId, Digest, Store};

use super::UpkeepError;
use crate::registry::{self, Document, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, PULLED_GZIP, PULLED_ZSTD};

/// What one name needs.
#[derive(Debug)]
pub(crate) struct ImageNeeds {
    /// The row of the index.
    pub(crate) row: ImageName,
    /// What must stay for it.
    pub(crate) pins: Pins,
}

/// What configs and manifests say, read once: what a digest names never changes.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    configs: HashMap<Digest, Vec<DiffId>>,
    manifests: HashMap<Digest, Vec<Digest>>,
    /// What all images need, as of one state of the index: it is asked for again and again while much is removed.
    all: Option<(Version, Pins)>,
}

impl Needs {
    /// Returns what all images need by now.
    pub(crate) fn pins(&mut self, store: &Store) -> Result<Pins, UpkeepError> {
        // Before anything is read: what changes meanwhile is read once more.
        let version = store.index().version()?;
        if let Some((known, all)) = &self.all
            && *known == version
        {
            return Ok(all.clone());
        }
        let mut all = Pins::default();
        for image in self.images(store)? {
            all.layers.extend(image.pins.layers);
            all.blobs.extend(image.pins.blobs);
        }
        self.all = Some((version, all.clone()));
        Ok(all)
    }

    /// Returns what each image needs by now.
    pub(crate) fn images(&mut self, store: &Store) -> Result<Vec<ImageNeeds>, UpkeepError> {
        let mut pulled: HashMap<DiffId, Vec<Digest>> = HashMap::new();
        for form in store.index().forms()? {
            if form.codec == PULLED_GZIP || form.codec == PULLED_ZSTD {
                pulled.entry(form.layer).or_default().push(form.digest);
            }
        }
        let rows = store.index().images()?;
        rows.into_iter()
            .map(|row| {
                let configs =
                    std::iter::once(row.config).chain(row.variants.iter().map(|variant| variant.config));
                let mut pins = Pins::default();
                for config in configs {
                    pins.blobs.insert(config);
                    pins.layers.extend(self.layers(store, config)?);
                }
                let kept = pins.layers.iter().filter_map(|layer| pulled.get(layer)).flatten();
                pins.blobs.extend(kept.copied());
                if let Some(manifest) = row.manifest {
                    pins.blobs.insert(manifest);
                    pins.blobs.extend(self.manifest(store, manifest)?);
                }
                Ok(ImageNeeds { row, pins })
            })
            .collect()
    }

    /// Returns the layers that a config lists.
    fn layers(&mut self, store: &Store, config: Digest) -> Result<&[DiffId], UpkeepError> {
        let unknown = match self.configs.entry(config) {
            Entry::Occupied(known) => return Ok(known.into_mut()),
            Entry::Vacant(unknown) => unknown,
        };
        let bytes = read(store, &config, MAX_CONFIG_BYTES)?;
        let facts = bytes.and_then(|bytes| registry::config_facts(&bytes).ok());
        let layers = facts.map(|facts| facts.diff_ids).unwrap_or_default();
        Ok(unknown.insert(layers))
    }

    /// Returns the blobs that a manifest names, or the manifests that an index does.
    fn manifest(&mut self, store: &Store, manifest: Digest) -> Result<&[Digest], UpkeepError> {
        let unknown = match self.manifests.entry(manifest) {
            Entry::Occupied(known) => return Ok(known.into_mut()),
            Entry::Vacant(unknown) => unknown,
        };
        let bytes = read(store, &manifest, MAX_MANIFEST_BYTES)?;
        let named = match bytes.and_then(|bytes| registry::parse(&bytes, None).ok()) {
            None => Vec::new(),
            Some(Document::Index(entries)) => entries.iter().map(|(entry, _)| entry.digest).collect(),
            Some(Document::Manifest(manifest)) => {
                let layers = manifest.layers.iter().map(|layer| layer.digest);
                layers.chain([manifest.config.digest]).collect()
            }
        };
        Ok(unknown.insert(named))
    }
}

impl ImageNeeds {
    /// Says whether people gave it this name; otherwise the row only keeps it under its ID.
    pub(crate) fn is_named(&self) -> bool {
        self.row.name != self.row.config.to_string()
    }
}

/// Reads a blob without relying on it. One that is missing or damaged makes its image useless: then it needs nothing.
fn read(store: &Store, digest: &Digest, limit_bytes: u64) -> Result<Option<Vec<u8>>, BlobError> {
    match store.blobs().peek(digest, limit_bytes) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(BlobError::Mismatch { .. } | BlobError::TooLarge { .. }) => Ok(None),
        Err(BlobError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use cache::index::{LayerBlob, Variant};

    use super::*;
    use crate::image;

    fn config(layer: DiffId) -> String {
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{layer}"]}}}}"#)
    }

    #[test]
    fn an_image_needs_all_its_platforms_and_what_a_registry_knows_it_by() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let put = |text: &str| store.blobs().put(text.as_bytes(), store.incomplete()).unwrap();
        // Never fetched, all of them.
        let [own, other, pulled, made] = ["own", "other", "pulled", "made"].map(|name| name.as_bytes());
        let (own, other) = (DiffId::of(own), DiffId::of(other));
        let (pulled, made) = (Digest::of(pulled), Digest::of(made));
        for (codec, digest) in [(PULLED_GZIP, pulled), ("gzip:9", made)] {
            let form = LayerBlob {
                digest,
                size_bytes: 1,
            };
            store.index().put_layer_blob(&own, codec, &form).unwrap();
        }
        let variant = Variant {
            platform: "linux/arm64".to_owned(),
            config: put(&config(other)),
        };
        let attested = Digest::of(b"attestation");
        let index = put(&format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{attested}","size":1}}]}}"#
        ));
        let name = ["docker.io/library/app:1".to_owned()];
        let id = image::commit(
            &store,
            config(own).as_bytes(),
            Some(index),
            std::slice::from_ref(&variant),
            &name,
        )
        .unwrap();
        let expected = Pins {
            layers: [own, other].into(),
            blobs: [id, variant.config, index, attested, pulled].into(),
        };
        assert_eq!(Needs::default().pins(&store).unwrap(), expected);
    }

    #[test]
    fn an_image_whose_config_is_lost_needs_nothing_else_and_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let id = image::commit(&store, config(DiffId::of(b"x")).as_bytes(), None, &[], &[]).unwrap();
        let blob = dir.path().join("store/blobs/sha256").join(id.hex());
        let check = || {
            let pins = Needs::default().pins(&store).unwrap();
            assert_eq!((pins.layers.len(), pins.blobs.len()), (0, 1));
        };
        drop(std::fs::File::create(&blob).unwrap());
        check();
        std::fs::remove_file(&blob).unwrap();
        check();
    }
}
