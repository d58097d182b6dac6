//! Images from elsewhere: from a name to a config and the layers it promises, and from there to layer files.
//!
//! `resolve` only reads manifests and configs; `fetch_layers` moves the bytes, and only those that are missing.
//! Whom we trust, and as whom we speak, is in `config` and `credentials`; one request is `endpoint`'s.
//! The other way is `push`.

mod auth;
mod client;
mod config;
mod credentials;
mod endpoint;
mod error;
#[cfg(test)]
#[path = "tests/fixture.rs"]
pub(crate) mod fixture;
mod intake;
mod json;
mod login;
mod manifest;
mod patience;
mod pull;
pub(crate) mod push;
mod reference;
mod tokens;
mod transport;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::index::ImageName;
use cache::{DiffId, Digest, Store};
use frontend::Platform;

use crate::archive::{Source, layout};
use crate::clock;
use crate::lockfile::{Lock, LockError, Pin};
use crate::objects::Objects;
pub(crate) use client::{Ask, Session, capped, header, http_date, is_passing, reason, retry_after};
pub(crate) use config::parse_toml;
pub(crate) use credentials::Kept;
pub(crate) use error::ImageError;
pub(crate) use intake::{PULLED_GZIP, PULLED_ZSTD, take_in};
pub(crate) use json::strict as strict_json;
pub(crate) use login::{log_in, log_out, registry_of};
pub(crate) use manifest::{
    ACCEPT_MANIFESTS, ConfigFacts, Descriptor, Document, INDEX_TYPES, MAX_CONFIG_BYTES, MAX_INDEX_DEPTH,
    MAX_MANIFEST_BYTES, Manifest, config_facts, parse, select,
};
pub(crate) use patience::Retry;
pub(crate) use pull::{Transfer, fetch_layers};
pub(crate) use reference::{Reference, ReferenceError};
pub(crate) use transport::{Tls, client, engine_client};

/// Where the layers of a resolved image can be had.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// In the store, all of them.
    Local,
    /// From a repository.
    Registry(Arc<Session>),
    /// From a directory that holds an OCI image layout.
    OciLayout(PathBuf),
    /// From a place that knows nothing of images: a cache's.
    Objects(Arc<Objects>),
}

/// One layer of a resolved image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerSource {
    /// What the config promises.
    pub(crate) diff_id: DiffId,
    /// The blob that holds it; `None` for an image that was built here.
    pub(crate) blob: Option<Descriptor>,
    /// When the layer was made, in seconds since the Unix epoch, where the source knows.
    pub(crate) made_unix: Option<i64>,
}

/// An image whose config is known and checked.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The canonical name that was resolved.
    pub(crate) reference: String,
    /// Digest of the manifest; `None` for an image that was built here.
    pub(crate) manifest: Option<Digest>,
    /// The config, verbatim.
    pub(crate) config: Vec<u8>,
    /// Base layer first.
    pub(crate) layers: Vec<LayerSource>,
    /// Where the layers are.
    pub(crate) origin: Origin,
}

/// Finds the image that `request` names for `platform`: in the store, unless `pull` asks for the
/// newest, else in its registry. What was found in a registry has its name in the store from then on.
pub(crate) async fn resolve(
    store: &Store,
    request: &str,
    platform: &Platform,
    pull: bool,
) -> Result<Resolved, ImageError> {
    let reference = Reference::parse(request)?;
    let is_known = !pull || reference.digest().is_some();
    if is_known && let Some(local) = resolve_local(store, &reference, platform)? {
        return Ok(local);
    }
    let session = Session::new(&reference)?;
    resolve_remote(store, session, platform).await
}

/// Finds the image that `request` named when it was locked. Never asks a registry what a tag is.
pub(crate) async fn resolve_locked(
    store: &Store,
    request: &str,
    platform: &Platform,
    lock: &Lock,
) -> Result<Resolved, LockedError> {
    let reference = Reference::parse(request).map_err(ImageError::from)?;
    let pin = lock.image(&reference, platform)?;
    let local = resolve_local(store, &reference, platform)?;
    match (local, pin) {
        (Some(local), pin) if local.pin() == pin || local.id_pin() == pin => Ok(local),
        (_, Pin::Manifest(digest)) => {
            let pinned = format!("{}@{digest}", reference.repository());
            Ok(resolve(store, &pinned, platform, false).await?)
        }
        (local, Pin::Id(_)) => {
            let actual = local.map_or_else(|| "not there".to_owned(), |local| local.pin().to_string());
            Err(lock.differs(reference.familiar(), pin, actual).into())
        }
    }
}

/// Says why a locked image can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockedError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl Resolved {
    /// Returns what a lock file calls the image.
    pub(crate) fn pin(&self) -> Pin {
        match self.manifest {
            Some(digest) => Pin::Manifest(digest),
            None => self.id_pin(),
        }
    }

    /// Returns what a lock file called the image before any registry had it.
    fn id_pin(&self) -> Pin {
        Pin::Id(Digest::of(&self.config))
    }
}

/// Finds an image in a directory that holds an OCI layout. `reference` is a tag or `@digest`, or empty when there is
/// only one.
pub(crate) async fn resolve_layout(
    dir: &Path,
    reference: &str,
    platform: &Platform,
) -> Result<Resolved, ImageError> {
    let source = Source::directory(dir)?;
    let found = layout::find(&source, reference, platform)?;
    assemble(
        format!("{}:{reference}", dir.display()),
        (Digest::of(&found.manifest_bytes), &found.manifest),
        found.config,
        Origin::OciLayout(dir.to_owned()),
    )
}

/// Returns what the store has under a name for a platform: the config, what it says, and the manifest that came with it. A
/// missing or damaged blob only means that the name is resolved anew.
fn stored_config(
    store: &Store,
    image: &ImageName,
    platform: &Platform,
) -> Option<(Vec<u8>, ConfigFacts, Option<Digest>)> {
    let own = (image.config, image.manifest);
    let variants = image.variants.iter().map(|variant| (variant.config, None));
    let candidates = std::iter::once(own)
        .chain(variants)
        .filter_map(|(config, manifest)| {
            let config = store.blobs().read(&config, MAX_CONFIG_BYTES).ok()?;
            let facts = config_facts(&config).ok()?;
            let distance = platform.distance(&facts.platform)?;
            Some((distance, (config, facts, manifest)))
        });
    candidates
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, found)| found)
}

/// Returns the config of the image that `request` names for `platform`, if the store has one. Asks nobody.
pub(crate) fn stored(
    store: &Store,
    request: &str,
    platform: &Platform,
) -> Result<Option<Vec<u8>>, ImageError> {
    let name = Reference::parse(request)?.to_string();
    let image = store.index().image(&name)?;
    Ok(image
        .and_then(|image| stored_config(store, &image, platform))
        .map(|(config, _, _)| config))
}

/// Looks a name up in the store. An image for another platform, or one that isn't complete and can't be completed,
/// counts as absent.
fn resolve_local(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
) -> Result<Option<Resolved>, ImageError> {
    let name = reference.to_string();
    let Some(image) = store.index().image(&name)? else {
        return Ok(None);
    };
    let Some((config, facts, manifest)) = stored_config(store, &image, platform) else {
        return Ok(None);
    };
    let is_complete = facts.diff_ids.iter().all(|layer| store.layers().contains(layer));
    let manifest = manifest
        .and_then(|digest| Some((digest, store.blobs().read(&digest, MAX_MANIFEST_BYTES).ok()?)))
        .and_then(|(digest, bytes)| match parse(&bytes, None) {
            Ok(Document::Manifest(manifest)) => Some((digest, manifest)),
            _ => None,
        });
    let origin = if is_complete {
        Origin::Local
    } else {
        Origin::Registry(Arc::new(Session::new(reference)?))
    };
    match manifest {
        Some((digest, manifest)) => assemble(name, (digest, &manifest), config, origin).map(Some),
        None if is_complete => {
            let layers = facts.diff_ids.into_iter();
            let layers = layers
                .map(|diff_id| LayerSource {
                    diff_id,
                    blob: None,
                    made_unix: None,
                })
                .collect();
            Ok(Some(Resolved {
                reference: name,
                manifest: None,
                config,
                layers,
                origin,
            }))
        }
        None => Ok(None),
    }
}

/// Reads index, manifest and config from a registry, checks them, and keeps them.
async fn resolve_remote(
    store: &Store,
    session: Session,
    platform: &Platform,
) -> Result<Resolved, ImageError> {
    let reference = session.reference().clone();
    let (manifest_digest, bytes, manifest) = remote_manifest(store, &session, platform).await?;
    let path = format!("blobs/{}", manifest.config.digest);
    let config = match store.blobs().read(&manifest.config.digest, MAX_CONFIG_BYTES) {
        Ok(config) => config,
        Err(_) => {
            let ask = Ask {
                path: &path,
                accept: "*/*",
                offset: 0,
            };
            let (config, _) = session.document(ask, MAX_CONFIG_BYTES).await?;
            config
        }
    };
    manifest.config.check(&reference.familiar(), &config)?;
    let resolved = assemble(
        reference.to_string(),
        (manifest_digest, &manifest),
        config,
        Origin::Registry(Arc::new(session)),
    )?;
    store.blobs().put(&bytes, store.incomplete())?;
    store.blobs().put(&resolved.config, store.incomplete())?;
    store.index().put_image(&ImageName {
        name: resolved.reference.clone(),
        config: manifest.config.digest,
        manifest: Some(manifest_digest),
        variants: Vec::new(),
        created_unix: clock::now_unix(),
    })?;
    Ok(resolved)
}

/// Follows indexes down to one manifest.
///
/// What the store has isn't sent again: of a tag that is known here the registry is only asked what it means now.
async fn remote_manifest(
    store: &Store,
    session: &Session,
    platform: &Platform,
) -> Result<(Digest, Vec<u8>, Manifest), ImageError> {
    let reference = session.reference();
    let mut target = reference.target();
    let mut expected = reference.digest().copied();
    let mut listed: Option<Descriptor> = None;
    let stored = |digest: &Digest| store.blobs().read(digest, MAX_MANIFEST_BYTES).ok();
    let is_known = store.index().image(&reference.to_string())?.is_some();
    if expected.is_none() && is_known {
        let now = session
            .head(&format!("manifests/{target}"), manifest::ACCEPT_MANIFESTS)
            .await?;
        // What isn't here is asked for by the tag: the answer then is whatever the tag means by that time.
        expected = now.filter(|digest| stored(digest).is_some());
    }
    for _ in 0..=MAX_INDEX_DEPTH {
        let path = format!("manifests/{target}");
        let ask = Ask {
            path: &path,
            accept: manifest::ACCEPT_MANIFESTS,
            offset: 0,
        };
        let (bytes, content_type) = match expected.as_ref().and_then(stored) {
            Some(bytes) => (bytes, None),
            None => session.document(ask, MAX_MANIFEST_BYTES).await?,
        };
        if let Some(expected) = expected {
            check(reference, &expected, &bytes)?;
        }
        if let Some(listed) = &listed {
            listed.check(&reference.familiar(), &bytes)?;
        }
        let malformed = |why| ImageError::Malformed {
            what: format!("manifest {target}"),
            reference: reference.familiar(),
            why,
        };
        let entries = match parse(&bytes, content_type.as_deref()).map_err(malformed)? {
            Document::Manifest(manifest) => return Ok((Digest::of(&bytes), bytes, manifest)),
            Document::Index(entries) => entries,
        };
        store.blobs().put(&bytes, store.incomplete())?;
        let next = select(&entries, platform).map_err(|available| ImageError::NoPlatform {
            reference: reference.familiar(),
            wanted: platform.to_string(),
            available,
        })?;
        target = next.digest.to_string();
        expected = Some(next.digest);
        listed = Some(next.clone());
    }
    Err(ImageError::Malformed {
        what: "index".to_owned(),
        reference: reference.familiar(),
        why: format!("indexes lie more than {MAX_INDEX_DEPTH} deep in each other"),
    })
}

/// Fails where bytes aren't what their digest says.
pub(crate) fn check(reference: &Reference, expected: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
    match Digest::of(bytes) {
        actual if actual == *expected => Ok(()),
        actual => Err(ImageError::WrongDigest {
            reference: reference.familiar(),
            expected: *expected,
            actual,
        }),
    }
}

/// Puts a checked manifest and config together: each layer's blob beside its diff ID.
fn assemble(
    reference: String,
    (digest, manifest): (Digest, &Manifest),
    config: Vec<u8>,
    origin: Origin,
) -> Result<Resolved, ImageError> {
    let layers = pair(&reference, manifest, &config)?;
    Ok(Resolved {
        reference,
        manifest: Some(digest),
        config,
        layers,
        origin,
    })
}

/// Pairs the blobs of a manifest with the diff IDs of its config; there must be as many of one as of the other.
pub(crate) fn pair(
    reference: &str,
    manifest: &Manifest,
    config: &[u8],
) -> Result<Vec<LayerSource>, ImageError> {
    let malformed = |why| ImageError::Malformed {
        what: format!("config {}", manifest.config.digest),
        reference: reference.to_owned(),
        why,
    };
    let facts = config_facts(config).map_err(malformed)?;
    let (n_layers, n_diff_ids) = (manifest.layers.len(), facts.diff_ids.len());
    if n_layers != n_diff_ids {
        return Err(malformed(format!(
            "it lists {n_diff_ids} layers but the manifest has {n_layers}"
        )));
    }
    let layers = facts.diff_ids.into_iter().zip(&manifest.layers);
    Ok(layers
        .map(|(diff_id, blob)| LayerSource {
            diff_id,
            blob: Some(blob.clone()),
            made_unix: None,
        })
        .collect())
}

#[cfg(test)]
mod tests;
