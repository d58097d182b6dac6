//! Images of the local store: a config, which is the image's ID, the layers it lists, and the names it has.
//!
//! Names live in the index, configs among the blobs, layers as layer files. Nothing is deleted here but names.

use cache::index::ImageName;
use cache::{DiffId, Digest, Store};
use frontend::ImageConfig;

use crate::registry::{ImageError, MAX_CONFIG_BYTES, Reference, config_facts};

/// Fewest digits of an ID that are taken for one.
const MIN_ID_DIGITS: usize = 4;

/// An image of the store.
#[derive(Debug, Clone)]
pub(crate) struct LocalImage {
    /// Digest of the config.
    pub(crate) id: Digest,
    /// The config, verbatim: what `id` is the digest of.
    pub(crate) config_bytes: Vec<u8>,
    /// The config, parsed.
    pub(crate) config: ImageConfig,
    /// Canonical names, sorted; empty for an untagged image.
    pub(crate) names: Vec<String>,
    /// Digest of the manifest it was pulled or loaded with.
    pub(crate) manifest: Option<Digest>,
    /// Base layer first.
    pub(crate) layers: Vec<DiffId>,
    /// When it got its newest name, in seconds since the Unix epoch.
    pub(crate) named_unix: i64,
}

impl LocalImage {
    /// Returns the sum of the layers' uncompressed tars; `None` when a layer was never fetched.
    pub(crate) fn size_bytes(&self, store: &Store) -> Option<u64> {
        self.layers
            .iter()
            .map(|layer| Some(store.layers().get(layer).ok()?.tar_bytes()))
            .sum()
    }
}

/// Returns all images, in the order of their IDs. One whose config is damaged or gone is left out.
pub(crate) fn all(store: &Store) -> Result<Vec<LocalImage>, ImageError> {
    let mut names = store.index().images()?;
    names.sort_by(|a, b| (a.config, &a.name).cmp(&(b.config, &b.name)));
    let groups = names.chunk_by(|a, b| a.config == b.config);
    Ok(groups.filter_map(|group| read(store, group).ok()).collect())
}

/// Finds an image by name, by ID, or by the first digits of its ID. A name wins.
pub(crate) fn find(store: &Store, name_or_id: &str) -> Result<LocalImage, ImageError> {
    let missing = || ImageError::NoSuchImage(name_or_id.to_owned());
    let names = store.index().images()?;
    let id = match Reference::parse(name_or_id) {
        Ok(reference) => {
            let name = reference.to_string();
            names
                .iter()
                .find(|image| image.name == name)
                .map(|image| image.config)
        }
        Err(_) => None,
    };
    let id = match id {
        Some(id) => id,
        None => by_prefix(&names, name_or_id)?.ok_or_else(missing)?,
    };
    let group: Vec<ImageName> = names.into_iter().filter(|image| image.config == id).collect();
    read(store, &group)
}

fn by_prefix(names: &[ImageName], text: &str) -> Result<Option<Digest>, ImageError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id =
        digits.len() >= MIN_ID_DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_id {
        return Ok(None);
    }
    let mut ids = names
        .iter()
        .map(|image| image.config)
        .filter(|id| id.hex().starts_with(digits));
    let first = ids.next();
    if ids.any(|id| Some(id) != first) {
        return Err(ImageError::Ambiguous(text.to_owned()));
    }
    Ok(first)
}

/// Reads the image that all of `group` name.
fn read(store: &Store, group: &[ImageName]) -> Result<LocalImage, ImageError> {
    let newest = group
        .iter()
        .max_by_key(|image| image.created_unix)
        .expect("an image is listed because it has an entry");
    let id = newest.config;
    let config_bytes = store.blobs().read(&id, MAX_CONFIG_BYTES)?;
    let malformed = |why: String| ImageError::Malformed {
        what: format!("config {id}"),
        reference: newest.name.clone(),
        why,
    };
    let config = ImageConfig::parse(&config_bytes).map_err(|error| malformed(error.to_string()))?;
    let layers = config_facts(&config_bytes).map_err(malformed)?.diff_ids;
    let untagged = id.to_string();
    Ok(LocalImage {
        names: group
            .iter()
            .map(|image| image.name.clone())
            .filter(|name| *name != untagged)
            .collect(),
        manifest: group.iter().find_map(|image| image.manifest),
        named_unix: newest.created_unix,
        id,
        config_bytes,
        config,
        layers,
    })
}

/// Stores a config whose layers are in the store, and gives the image its names (canonical). Without names it is kept
/// under its ID. Returns the ID.
pub(crate) fn commit(store: &Store, config: &[u8], names: &[String]) -> Result<Digest, ImageError> {
    commit_with(store, config, None, names)
}

/// Like [`commit`], for an image that came with a manifest, which is stored already.
pub(crate) fn commit_with(
    store: &Store,
    config: &[u8],
    manifest: Option<Digest>,
    names: &[String],
) -> Result<Digest, ImageError> {
    let id = store.blobs().put(config, store.incomplete())?;
    let name = |name: &str| {
        let known = store.index().image(name)?;
        if known.is_some_and(|known| (known.config, known.manifest) == (id, manifest)) {
            // So that building again what is there writes nothing.
            return Ok(());
        }
        store.index().put_image(&ImageName {
            name: name.to_owned(),
            config: id,
            manifest,
            created_unix: now_unix(),
        })
    };
    if names.is_empty() {
        name(&id.to_string())?;
    }
    names.iter().try_for_each(|text| name(text))?;
    Ok(id)
}

/// Writes a time as configs have it. Times that RFC 3339 can't say become the epoch.
pub(crate) fn rfc3339(unix: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(unix).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    time.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}

/// Returns the wall clock in seconds since the Unix epoch.
pub(crate) fn now_unix() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_has_its_name_already_is_not_named_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let name = "docker.io/library/app:1".to_owned();
        let named_unix = || store.index().image(&name).unwrap().unwrap().created_unix;
        let id = commit(&store, b"{}", std::slice::from_ref(&name)).unwrap();
        store
            .index()
            .put_image(&ImageName {
                name: name.clone(),
                config: id,
                manifest: None,
                created_unix: 5,
            })
            .unwrap();
        commit(&store, b"{}", std::slice::from_ref(&name)).unwrap();
        assert_eq!(named_unix(), 5, "nothing changed, nothing was written");
        let other = commit(&store, b"{ }", std::slice::from_ref(&name)).unwrap();
        assert!(named_unix() > 5);
        assert_eq!(store.index().image(&name).unwrap().unwrap().config, other);
        commit_with(&store, b"{ }", Some(id), std::slice::from_ref(&name)).unwrap();
        assert_eq!(store.index().image(&name).unwrap().unwrap().manifest, Some(id));
    }
}
