//! What can go wrong between a finished image and a registry that has it.

use std::io;

use cache::Digest;

use crate::registry::ImageError;

/// Says why an image is not in its registry. Tags are then as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// Whoever we are, we may not.
    #[error("push access denied for {reference}: {answer}")]
    Denied {
        /// What was pushed.
        reference: String,
        /// The registry's words.
        answer: String,
    },
    /// The registry doesn't take something.
    #[error("the registry of {reference} refused {what}: {answer}")]
    Refused {
        /// What was pushed.
        reference: String,
        /// Which part of it.
        what: String,
        /// The registry's words.
        answer: String,
    },
    /// The connection broke, or the registry was out of order, too often.
    #[error("cannot upload {what} of {reference}: {reason}")]
    Interrupted {
        /// What was pushed.
        reference: String,
        /// Which part of it.
        what: String,
        /// The last failure.
        reason: String,
    },
    /// The registry has something else than what was sent.
    #[error("the registry of {reference} has {actual} where {expected} was sent")]
    WrongDigest {
        /// What was pushed.
        reference: String,
        /// What was sent.
        expected: Digest,
        /// What it says that it got.
        actual: String,
    },
    /// The store's own copy is no longer what it was.
    #[error("blob {expected} of the store is damaged: its bytes hash to {actual}")]
    Damaged {
        /// What it was.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// The store's own copy can't be read.
    #[error("cannot read blob {blob} of the store: {source}")]
    Read {
        /// Which.
        blob: Digest,
        /// Why.
        source: io::Error,
    },
    /// No names.
    #[error("a name is needed when pushing to a registry")]
    NoName,
    /// The client's own failures.
    #[error(transparent)]
    Image(#[from] ImageError),
}
