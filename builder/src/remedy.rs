//! What can be done about failures that lie in the store: what is damaged is set aside, so that it is made or fetched
//! again; what nobody needs goes where the disk is full. Once each, then the failure stands.
//!
//! Which failures those are is found in their causes, whoever met them; how they look is `report`'s business.

use std::error::Error;
use std::io;
use std::path::Path;

use cache::blobs::BlobError;
use cache::check::Subject;
use cache::index::IndexError;
use cache::layers::LayersError;
use cache::{Purpose, Store, StoreError};

use crate::commands::human;
use crate::export::ExportError;
use crate::ops::OpError;
use crate::registry::ImageError;
use crate::registry::push::PushError;
use crate::upkeep;

/// What can be done about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// A layer or blob isn't what it was.
    SetAside(Subject),
    /// The disk of the store is full.
    MakeRoom,
}

/// Looks through an error and its causes for what can be done about them.
pub(crate) fn of_error(error: &(dyn Error + 'static)) -> Option<Remedy> {
    let damaged = causes(error).find_map(damaged);
    let is_full = || causes(error).any(is_full) && is_of_store(error);
    damaged
        .map(Remedy::SetAside)
        .or_else(|| is_full().then_some(Remedy::MakeRoom))
}

impl Remedy {
    /// Does it in the store at `root`; says what was done, `None` when there was nothing to do, or it failed as well: then the
    /// failure that it is for has said enough.
    pub(crate) fn apply(&self, root: &Path) -> Option<String> {
        let purpose = match self {
            Self::SetAside(_) => Purpose::Work,
            Self::MakeRoom => Purpose::MakeRoom,
        };
        let store = Store::open_for(root, purpose).ok()?;
        match self {
            Self::SetAside(subject) => {
                let fault = store.set_aside_damaged(subject).ok()??;
                Some(format!(
                    "{} is set aside in {}: {}",
                    fault.subject,
                    root.join("damaged").display(),
                    fault.what
                ))
            }
            Self::MakeRoom => {
                let bytes = upkeep::make_room(&store).ok().filter(|bytes| *bytes > 0)?;
                Some(format!(
                    "the disk is full: {} of the store's cache that nobody needs are removed",
                    human::size(bytes)
                ))
            }
        }
    }
}

/// Walks through an error and its causes.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| wrapped(error).or_else(|| error.source()))
}

/// Returns the error whose words another one passes on as its own: it is not its cause, but itself.
fn wrapped<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    }
    if let Some(LayersError::Layer(error)) = error.downcast_ref() {
        return Some(error);
    }
    if let Some(StoreError::Index(error)) = error.downcast_ref() {
        return Some(error);
    }
    if let Some(PushError::Image(error)) = error.downcast_ref() {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            OpError::Tree(error) => Some(error),
            OpError::Layer(error) => Some(error),
            OpError::Layers(error) => Some(error),
            OpError::Index(error) => Some(error),
            OpError::Store(error) => Some(error),
            OpError::Image(error) => Some(error.as_ref()),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            ImageError::Blob(error) => Some(error),
            ImageError::Index(error) => Some(error),
            ImageError::Layers(error) => Some(error),
            ImageError::Store(error) => Some(error),
            _ => None,
        };
    }
    match error.downcast_ref()? {
        ExportError::Tree(error) => Some(error),
        ExportError::Image(error) => Some(error),
        ExportError::Store(error) => Some(error),
        ExportError::Blob(error) => Some(error),
        ExportError::Index(error) => Some(error),
        ExportError::Layers(error) => Some(error),
        _ => None,
    }
}

/// Returns what an error says is damaged.
fn damaged(error: &(dyn Error + 'static)) -> Option<Subject> {
    if let Some(cache::Error::DamagedLayer { diff_id, .. }) = error.downcast_ref() {
        return Some(Subject::Layer(*diff_id));
    }
    if let Some(PushError::Damaged { expected, .. }) = error.downcast_ref() {
        return Some(Subject::Blob(*expected));
    }
    match error.downcast_ref()? {
        BlobError::Mismatch { expected, .. } => Some(Subject::Blob(*expected)),
        _ => None,
    }
}

/// Says whether an error is that of a full disk, or of a share of it that is used up.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let code = error.downcast_ref().and_then(io::Error::raw_os_error);
    matches!(code, Some(libc::ENOSPC | libc::EDQUOT)) || error.downcast_ref().is_some_and(IndexError::is_full)
}

/// Says whether it was the store that something was to be written to, and not what an output names.
fn is_of_store(error: &(dyn Error + 'static)) -> bool {
    let is_elsewhere = |cause: &(dyn Error + 'static)| {
        matches!(
            cause.downcast_ref(),
            Some(ExportError::Destination { .. } | ExportError::Write { .. } | ExportError::Root(_))
        )
    };
    let is_here = |cause: &(dyn Error + 'static)| {
        cause.is::<OpError>()
            || cause.is::<ImageError>()
            || cause.is::<ExportError>()
            || cause.is::<StoreError>()
            || cause.is::<LayersError>()
            || cause.is::<BlobError>()
            || cause.is::<IndexError>()
    };
    causes(error).any(is_here) && !causes(error).any(is_elsewhere)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cache::{DiffId, Digest};

    use super::*;

    #[test]
    fn causes_tell_what_can_be_done() {
        let check = |error: &(dyn Error + 'static), expected: Option<Remedy>| {
            assert_eq!(of_error(error), expected, "{error}");
        };
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        let (digest, layer) = (Digest::of(b"x"), DiffId::from_bytes([7; 32]));
        let damaged = || cache::Error::DamagedLayer {
            diff_id: layer,
            what: "cut",
        };
        let mismatch = || BlobError::Mismatch {
            expected: digest,
            actual: Digest::of(b"y"),
        };
        let write = |source| ExportError::Write {
            path: "out.tar".into(),
            source,
        };
        let scratch = |source| OpError::Scratch { source };
        check(&scratch(full()), Some(Remedy::MakeRoom));
        check(&scratch(io::Error::from_raw_os_error(libc::EIO)), None);
        // An output's own disk is nobody's but its owner's.
        check(&write(full()), None);
        check(&full(), None);
        let blob = || Some(Remedy::SetAside(Subject::Blob(digest)));
        check(&mismatch(), blob());
        check(&write(io::Error::other(mismatch())), blob());
        check(&OpError::Image(Arc::new(ImageError::Blob(mismatch()))), blob());
        let layer = || Some(Remedy::SetAside(Subject::Layer(layer)));
        check(&OpError::Layers(LayersError::Layer(damaged())), layer());
        check(&write(io::Error::other(damaged())), layer());
        check(&ExportError::Layers(LayersError::Layer(damaged())), layer());
    }
}
