//! Caches that leave the machine: what earlier builds recorded is taken from `--cache-from`, and this one's is left in
//! `--cache-to`.
//!
//! Only records and tree hashes are read when a build begins; a layer is fetched when something needs its files.
//! `spec` says what the user asked for, `document` and `inline` what is written, `import` (from a `shelf`) and `export` do it. What is not decided here:
//! which record answers a step; see `crate::records`.

mod document;
mod export;
mod import;
mod inline;
mod shelf;
mod sign;
mod spec;

use crate::export::ExportError;
use crate::objects::ObjectsError;
use crate::registry::ImageError;
use crate::registry::push::PushError;

#[cfg(test)]
pub(crate) use document::{BlobEntry, CacheDocument, HashEntry, LayerEntry};
pub(crate) use export::{Made, export};
pub(crate) use import::{Imports, import};
pub(crate) use inline::{ANNOTATION, annotation};
pub(crate) use sign::KeyError;
pub(crate) use spec::{CacheFrom, CachePlace, CacheTo};

/// Says why a cache can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    /// It isn't there.
    #[error("{title} holds no cache{}", named(tag))]
    NoTag {
        /// Which place.
        title: String,
        /// What was looked for.
        tag: String,
    },
    /// It breaks its own rules, or is something else.
    #[error("{what} of {title} is malformed: {why}")]
    Malformed {
        /// `manifest`, `config`.
        what: &'static str,
        /// Which place.
        title: String,
        /// Which rule.
        why: String,
    },
    /// It isn't signed, or not by whom it must be.
    #[error("{title} is not signed with the key that `verify` names")]
    NotSigned {
        /// Which place.
        title: String,
    },
    /// It can't be part of an image.
    #[error("cannot make the inline cache: {0}")]
    Inline(String),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Where it is read from.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Where it is written to.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The store's index.
    #[error(transparent)]
    Index(#[from] solver::IndexError),
    /// Where it is pushed to.
    #[error(transparent)]
    Push(#[from] PushError),
    /// A bucket, or a cache service.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// Fetching a layer that is to be passed on.
    #[error(transparent)]
    Op(#[from] crate::ops::OpError),
}

fn named(tag: &str) -> String {
    match tag {
        "" => String::new(),
        tag => format!(" named `{tag}`"),
    }
}

/// Fails where a key can't be used, before time is spent on a build.
pub(crate) fn check_keys(from: &[CacheFrom], to: &[CacheTo]) -> Result<(), KeyError> {
    for path in from.iter().filter_map(|cache| cache.verify.as_deref()) {
        sign::Verifier::read(path)?;
    }
    for path in to.iter().filter_map(|cache| cache.sign.as_deref()) {
        sign::Signer::read(path)?;
    }
    Ok(())
}
