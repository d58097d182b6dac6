//! The lock file of a build: read before it, written after it.

use std::sync::Arc;

use frontend::{Answers, ImageKind, ImageRequest};

use super::Stops;
use crate::failure;
use crate::lockfile::{self, Lock, LockMode};
use crate::options::BuildOptions;
use crate::registry::{Reference, Resolved};
use crate::report::Failure;

/// Reads the lock file of a build that is bound to it.
pub(super) fn read(options: &BuildOptions) -> Result<Option<Lock>, Failure> {
    match lockfile::path(options) {
        Some(path) if options.lock == LockMode::Locked => {
            let lock = Lock::read(path).map_err(|error| failure::of_lock(&error))?;
            Ok(Some(lock))
        }
        _ => Ok(None),
    }
}

impl Stops<'_> {
    /// Notes what the names of the Dockerfile stand for, for a build that writes it down.
    pub(super) fn new_lock(
        &self,
        asked: &[ImageRequest],
        images: &[Arc<Resolved>],
        known: &Answers,
    ) -> Result<Option<Lock>, Failure> {
        let Some(path) = lockfile::path(self.options).filter(|_| self.options.lock == LockMode::Write) else {
            return Ok(None);
        };
        let mut lock = Lock::new(path);
        lock.add_sources(known);
        for (request, image) in asked.iter().zip(images) {
            // A layout is named by the command line, like a build context.
            if request.kind == ImageKind::Registry {
                let reference =
                    Reference::parse(&request.reference).map_err(|error| failure::of_image(&error.into()))?;
                lock.add_image(&reference, &request.platform, image.pin());
            }
        }
        Ok(Some(lock))
    }
}
