//! Places that keep bytes under names and know nothing of images: buckets of S3, the cache service of GitHub Actions.
//!
//! A cache of a build is put there as it is into a registry: blobs by digest first, then the manifest that names them.
//! What the bytes mean is not decided here, and what is read is checked by whoever asked.

mod azure;
mod gha;
mod parts;
mod s3;
mod wire;

use std::io;

use cache::Digest;
use reqwest::Response;

use crate::registry::push::Blob;
use crate::registry::{ImageError, Retry};

pub(crate) use gha::{GhaSettings, Token};
pub(crate) use s3::{S3Settings, bucket};

/// Says why something can't be had from such a place, or brought there. Addresses are never part of it: they are signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectsError {
    /// No answer, or a broken one, after several tries.
    #[error("cannot reach {place} at {host}: {why}")]
    Unreachable {
        /// What the user named.
        place: String,
        /// Where.
        host: String,
        /// The last failure.
        why: String,
    },
    /// An answer that isn't welcome.
    #[error("{place} answered {answer} about {what}")]
    Refused {
        /// What the user named.
        place: String,
        /// `blob sha256:…`, `manifest …`.
        what: String,
        /// What it said.
        answer: String,
    },
    /// It isn't there.
    #[error("{place} has no {what}")]
    Missing {
        /// What the user named.
        place: String,
        /// `blob sha256:…`, `manifest …`.
        what: String,
    },
    /// What the store has can't be read.
    #[error("cannot read blob {blob}: {source}")]
    Read {
        /// Which.
        blob: Digest,
        /// Why.
        source: io::Error,
    },
    /// What the store has is not what its name says.
    #[error("blob {expected} of the store is damaged: its bytes are {actual}")]
    Damaged {
        /// Which.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// The HTTP client.
    #[error("{0}")]
    Setup(String),
}

/// One such place.
#[derive(Debug)]
pub(crate) enum Objects {
    /// A bucket.
    S3(s3::S3),
    /// The cache service of GitHub Actions.
    Gha(gha::Gha),
}

impl Objects {
    /// Takes a bucket.
    pub(crate) fn s3(settings: S3Settings) -> Self {
        Self::S3(s3::S3::new(settings))
    }

    /// Takes a cache service.
    pub(crate) fn gha(settings: GhaSettings) -> Self {
        Self::Gha(gha::Gha::new(settings))
    }

    /// Returns what to call it.
    pub(crate) fn title(&self) -> &str {
        match self {
            Self::S3(s3) => s3.title(),
            Self::Gha(gha) => gha.title(),
        }
    }

    /// Returns what is equal for two descriptions of a place only where blobs of one are blobs of the other.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::S3(s3) => s3.place(),
            Self::Gha(gha) => gha.place(),
        }
    }

    /// Returns how many blobs are brought at once.
    pub(crate) fn n_parallel(&self) -> usize {
        match self {
            Self::S3(s3) => s3.n_parallel(),
            Self::Gha(_) => gha::N_PARALLEL,
        }
    }

    /// Returns how patient it is.
    pub(crate) fn retry(&self) -> Retry {
        Retry::default()
    }

    /// Says whether a blob of this size is there. One that is counts as used from now on.
    pub(crate) async fn has(&self, blob: &Digest, size_bytes: u64) -> Result<bool, ObjectsError> {
        match self {
            Self::S3(s3) => s3.has(blob, size_bytes).await,
            Self::Gha(gha) => gha.has(blob).await,
        }
    }

    /// Brings a blob there, unless it is there; says whether it was sent.
    pub(crate) async fn put(&self, blob: &Blob) -> Result<bool, ObjectsError> {
        if self.has(&blob.digest, blob.size_bytes).await? {
            return Ok(false);
        }
        match self {
            Self::S3(s3) => s3.put(blob).await?,
            Self::Gha(gha) => gha.put(blob).await?,
        }
        Ok(true)
    }

    /// Puts the manifest under the place's name for it: what counts from then on.
    pub(crate) async fn put_manifest(&self, bytes: &[u8]) -> Result<(), ObjectsError> {
        match self {
            Self::S3(s3) => s3.put_manifests(bytes).await,
            Self::Gha(gha) => gha.put_manifest(bytes).await,
        }
    }

    /// Returns the manifests under the place's names for them that are there, the nearest first.
    pub(crate) async fn manifests(&self, limit_bytes: u64) -> Result<Vec<Vec<u8>>, ObjectsError> {
        match self {
            Self::S3(s3) => s3.manifests(limit_bytes).await,
            Self::Gha(gha) => gha.manifests(limit_bytes).await,
        }
    }

    /// Begins to read a blob at `offset`; Ok is a 200 or a 206 whose body is still to be read.
    pub(crate) async fn get(&self, blob: &Digest, offset: u64) -> Result<Response, ObjectsError> {
        match self {
            Self::S3(s3) => s3.get(blob, offset).await,
            Self::Gha(gha) => gha.get(blob, offset).await,
        }
    }

    /// Reads a whole small blob.
    pub(crate) async fn read(&self, blob: &Digest, limit_bytes: u64) -> Result<Vec<u8>, ObjectsError> {
        let response = self.get(blob, 0).await?;
        wire::body(self.title(), &format!("blob {blob}"), response, limit_bytes).await
    }

    /// Words a connection that broke while a body was read.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> ObjectsError {
        wire::unreachable(self.title(), error)
    }
}

impl From<ImageError> for ObjectsError {
    /// Only making an HTTP client fails in this way.
    fn from(error: ImageError) -> Self {
        Self::Setup(error.to_string())
    }
}

#[cfg(test)]
mod tests;
