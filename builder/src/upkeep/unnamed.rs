//! Images without a name: builds leave them behind one by one. When nothing else is left to keep the store below its
//! ceiling, those that were used longest ago are forgotten.

use std::collections::{HashMap, HashSet};

use cache::{DiffId, Store};

use super::{ImageNeeds, Needs, UpkeepError};

/// Whoever built one has so long to use it, or to give it a name.
const KEPT_SECONDS: i64 = 3600;

/// Forgets as many images without names as have `over_bytes` of layers of their own, the longest unused first; says whether
/// it has forgotten any. Their layers go with whatever else nobody needs.
pub(super) fn forget(
    store: &Store,
    needs: &mut Needs,
    over_bytes: u64,
    now_unix: i64,
) -> Result<bool, UpkeepError> {
    let images = needs.images(store)?;
    let used_unix = |image: &ImageNeeds| {
        let used = store.blobs().used_unix(&image.row.config).unwrap_or(0);
        used.max(image.row.created_unix)
    };
    let mut old: Vec<(i64, &ImageNeeds)> = images
        .iter()
        .filter(|image| !image.is_named())
        .map(|image| (used_unix(image), image))
        .filter(|(used, _)| now_unix.saturating_sub(*used) >= KEPT_SECONDS)
        .collect();
    old.sort_by_key(|(used, image)| (*used, image.row.config));
    let mut n_users: HashMap<DiffId, usize> = HashMap::new();
    for layer in images.iter().flat_map(|image| &image.pins.layers) {
        *n_users.entry(*layer).or_default() += 1;
    }
    let mut freed_bytes = 0_u64;
    let mut has_forgotten = false;
    for (_, image) in old {
        if freed_bytes >= over_bytes {
            break;
        }
        for layer in &image.pins.layers {
            let users = n_users.entry(*layer).or_default();
            *users = users.saturating_sub(1);
            if *users == 0 {
                let size_bytes = store.layers().tar_bytes(layer).unwrap_or(0);
                freed_bytes = freed_bytes.saturating_add(size_bytes);
            }
        }
        store.index().remove_image(&image.row.name)?;
        has_forgotten = true;
    }
    Ok(has_forgotten)
}

/// Returns the layers that only images without names need.
pub(crate) fn only_unnamed(images: &[ImageNeeds]) -> HashSet<DiffId> {
    let layers = |is_named: bool| {
        let images = images.iter().filter(move |image| image.is_named() == is_named);
        images.flat_map(|image| image.pins.layers.iter().copied())
    };
    let named: HashSet<DiffId> = layers(true).collect();
    layers(false).filter(|layer| !named.contains(layer)).collect()
}

#[cfg(test)]
mod tests {
    use cache::layers::LayersError;

    use super::*;
    use crate::image;

    /// Makes an image with one layer, and names it if it is to have a name. Returns its ID.
    fn make(store: &Store, file: &str, names: &[&str]) -> cache::Digest {
        let written = store.layers().write(store.incomplete(), |mut writer| {
            let path = cache::layer::TreePath::clean(file.as_bytes());
            let body = cache::layer::Body::Dir { opaque: false };
            let meta = cache::layer::Meta::default();
            writer.add(path, meta, body).map_err(LayersError::from)?;
            writer.finish().map_err(LayersError::from)
        });
        let layer = written.unwrap().diff_id();
        let config =
            format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{layer}"]}}}}"#);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        image::commit(store, config.as_bytes(), None, &[], &names).unwrap()
    }

    #[test]
    fn images_without_names_are_forgotten_when_they_are_old_and_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        make(&store, "a", &["docker.io/library/named:1"]);
        make(&store, "b", &[]);
        make(&store, "c", &[]);
        let now = crate::clock::now_unix();
        let n_images = || store.index().images().unwrap().len();
        let mut needs = Needs::default();
        let mut forget = |over_bytes, now| super::forget(&store, &mut needs, over_bytes, now).unwrap();
        assert!(!forget(u64::MAX, now + KEPT_SECONDS - 5));
        assert!(!forget(0, now + KEPT_SECONDS + 5));
        assert_eq!(n_images(), 3);
        assert!(forget(1, now + KEPT_SECONDS + 5));
        assert_eq!(n_images(), 2);
        assert!(forget(u64::MAX, now + KEPT_SECONDS + 5));
        assert!(!forget(u64::MAX, now + KEPT_SECONDS + 5));
        assert_eq!(
            store.index().images().unwrap()[0].name,
            "docker.io/library/named:1"
        );
    }
}
