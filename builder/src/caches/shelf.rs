//! Where the documents of caches are read from, whatever it is: each is checked by its digest, once it has one.

use std::path::PathBuf;
use std::sync::Arc;

use cache::Digest;

use super::CacheError;
use super::spec::{CacheSource, Wanted};
use crate::archive::{Source, layout};
use crate::objects::Objects;
use crate::registry::{ACCEPT_MANIFESTS, Ask, ImageError, MAX_MANIFEST_BYTES, Origin, Session, check};
use crate::runtime::blocking;

/// A place that holds caches.
pub(super) enum Shelf {
    /// An OCI layout.
    Layout(PathBuf),
    /// A repository.
    Repository(Arc<Session>),
    /// A bucket, or a cache service.
    Objects(Arc<Objects>),
}

/// What a document is, where that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Blob,
}

impl Shelf {
    /// Opens the place of a cache; connects to nothing yet.
    pub(super) fn of(source: &CacheSource) -> Result<Self, CacheError> {
        Ok(match source {
            CacheSource::Local { src, .. } => Self::Layout(src.clone()),
            CacheSource::Registry { reference } => Self::Repository(Arc::new(Session::new(reference)?)),
            CacheSource::S3(settings) => Self::Objects(Arc::new(Objects::s3(settings.clone()))),
            CacheSource::Gha(settings) => Self::Objects(Arc::new(Objects::gha(settings.clone()))),
        })
    }

    /// Returns where the layers of its caches come from.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Layout(dir) => Origin::OciLayout(dir.clone()),
            Self::Repository(session) => Origin::Registry(Arc::clone(session)),
            Self::Objects(objects) => Origin::Objects(Arc::clone(objects)),
        }
    }

    /// Reads what the user named: a manifest or an index, or several manifests where the place keeps some apart.
    pub(super) async fn named(&self, source: &CacheSource, title: &str) -> Result<Vec<Vec<u8>>, CacheError> {
        let found = match (self, source) {
            (Self::Layout(_), CacheSource::Local { wanted, .. }) => self.of_layout(wanted).await?,
            (Self::Repository(session), _) => {
                let reference = session.reference();
                let ask = Ask {
                    path: &format!("manifests/{}", reference.target()),
                    accept: ACCEPT_MANIFESTS,
                    offset: 0,
                };
                let (bytes, _) = session.document(ask, MAX_MANIFEST_BYTES).await?;
                if let Some(expected) = reference.digest() {
                    check(reference, expected, &bytes)?;
                }
                vec![bytes]
            }
            (Self::Objects(objects), _) => objects.manifests(MAX_MANIFEST_BYTES).await?,
            (Self::Layout(_), _) => unreachable!("a layout is opened for a local cache only"),
        };
        let tag = match source {
            CacheSource::Local {
                wanted: Wanted::Tag(tag),
                ..
            } => tag.clone(),
            _ => String::new(),
        };
        match found.is_empty() {
            true => Err(CacheError::NoTag {
                title: title.to_owned(),
                tag,
            }),
            false => Ok(found),
        }
    }

    async fn of_layout(&self, wanted: &Wanted) -> Result<Vec<Vec<u8>>, CacheError> {
        let Self::Layout(dir) = self else {
            return Ok(Vec::new());
        };
        let (dir, wanted) = (dir.clone(), wanted.clone());
        let digest = match wanted {
            Wanted::Digest(digest) => Some(digest),
            Wanted::Tag(tag) => blocking(move || layout::tagged(&Source::directory(&dir)?, &tag)).await?,
        };
        match digest {
            Some(digest) => Ok(vec![
                self.read(Kind::Manifest, &digest, MAX_MANIFEST_BYTES).await?,
            ]),
            None => Ok(Vec::new()),
        }
    }

    /// Reads a document of at most so many bytes.
    pub(super) async fn read(
        &self,
        kind: Kind,
        digest: &Digest,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, CacheError> {
        match self {
            Self::Layout(dir) => {
                let (dir, digest) = (dir.clone(), *digest);
                let read =
                    blocking(move || layout::checked(&Source::directory(&dir)?, &digest, limit_bytes)).await;
                Ok(read?)
            }
            Self::Repository(session) => {
                let (folder, accept) = match kind {
                    Kind::Manifest => ("manifests", ACCEPT_MANIFESTS),
                    Kind::Blob => ("blobs", "*/*"),
                };
                let ask = Ask {
                    path: &format!("{folder}/{digest}"),
                    accept,
                    offset: 0,
                };
                let (bytes, _) = session.document(ask, limit_bytes).await?;
                check(session.reference(), digest, &bytes)?;
                Ok(bytes)
            }
            Self::Objects(objects) => {
                let bytes = objects.read(digest, limit_bytes).await?;
                match Digest::of(&bytes) {
                    actual if actual == *digest => Ok(bytes),
                    actual => Err(CacheError::Image(ImageError::WrongDigest {
                        reference: objects.title().to_owned(),
                        expected: *digest,
                        actual,
                    })),
                }
            }
        }
    }
}
