//! What can go wrong between an image's name and its bytes. Every message names the reference, blob or layer.

use std::path::PathBuf;

use cache::blobs::BlobError;
use cache::index::IndexError;
use cache::layers::LayersError;
use cache::store::StoreError;
use cache::{DiffId, Digest};

use super::config::ConfigError;
use super::credentials::CredentialError;
use super::reference::ReferenceError;
use crate::objects::ObjectsError;

/// Says why an image can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// The name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry knows no such image.
    #[error("{reference}: not found in its registry")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// The registry does not let us, which is also what it says about repositories that don't exist.
    #[error(
        "{action} access denied for {reference}: the repository does not exist or needs a login (try `ashlar login {host}`)"
    )]
    Denied {
        /// `pull` or `push`.
        action: &'static str,
        /// What was asked for.
        reference: String,
        /// Whose credentials would help.
        host: String,
    },
    /// Somebody's configuration of registries or credentials.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of logins.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The registry does not take a login.
    #[error("login to {host} was refused: wrong name or password")]
    LoginRefused {
        /// Which registry.
        host: String,
    },
    /// No connection, or it broke too often.
    #[error("cannot reach the registry of {reference} at {host}: {reason}")]
    Unreachable {
        /// What was asked for.
        reference: String,
        /// Where.
        host: String,
        /// The last failure, with its causes.
        reason: String,
    },
    /// The registry answers, but not what a registry may answer.
    #[error("the registry of {reference} answered {answer}")]
    Answer {
        /// What was asked for.
        reference: String,
        /// What it said.
        answer: String,
    },
    /// The image exists, but not for this platform.
    #[error("no match for platform in manifest: {reference} has no image for {wanted}; it has {available}")]
    NoPlatform {
        /// What was asked for.
        reference: String,
        /// For which platform.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// A manifest, index or config that breaks its own rules.
    #[error("{what} of {reference} is malformed: {why}")]
    Malformed {
        /// `manifest`, `index`, `config`, with its digest where known.
        what: String,
        /// Which image.
        reference: String,
        /// Which rule.
        why: String,
    },
    /// Bytes that aren't what was asked for.
    #[error("{reference}: expected {expected} but the bytes are {actual}")]
    WrongDigest {
        /// Which image.
        reference: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More or fewer bytes than announced, or than anyone needs.
    #[error("{what}: expected {expected_bytes} bytes but there are {actual}")]
    WrongSize {
        /// Which blob.
        what: String,
        /// The announced number.
        expected_bytes: u64,
        /// What came.
        actual: String,
    },
    /// A layer is neither here nor known to be anywhere else.
    #[error("layer {layer} of {reference} is not in the store")]
    MissingLayer {
        /// Which image.
        reference: String,
        /// Which layer.
        layer: DiffId,
    },
    /// The bytes of a layer are at fault.
    #[error("layer {layer} of {reference}: {source}")]
    BadLayer {
        /// Which image.
        reference: String,
        /// Which layer.
        layer: DiffId,
        /// What is wrong with it.
        source: Box<LayersError>,
    },
    /// The file or directory is not an image archive.
    #[error("{path} is not an image archive: {why}")]
    NotAnArchive {
        /// Which.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A delta archive without the image it is a difference to.
    #[error(
        "cannot load {image} from {path}: neither in it nor in the store are the layers {}",
        listed(layers)
    )]
    MissingLayers {
        /// The archive.
        path: String,
        /// The image's name, or its ID.
        image: String,
        /// Base layer first.
        layers: Vec<DiffId>,
    },
    /// The file system's word about an archive or layout.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// `open`, `read`, `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS library can't be set up.
    #[error("cannot set up connections: {0}")]
    Setup(String),
    /// A place that keeps layers of caches.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Its index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Its layers.
    #[error(transparent)]
    Layers(#[from] LayersError),
}

/// Lists layers, as many as a reader can make use of.
fn listed(layers: &[DiffId]) -> String {
    const MAX: usize = 10;
    let mut words: Vec<String> = layers.iter().take(MAX).map(ToString::to_string).collect();
    if layers.len() > MAX {
        words.push(format!("and {} more", layers.len() - MAX));
    }
    words.join(", ")
}
