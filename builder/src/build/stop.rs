//! How a build ends that has no image: what happened, and what is left of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use frontend::SourceText;
use solver::{Graph, SolveError};

use crate::context::Inputs;
use crate::failure;
use crate::ops::{FailedContainer, OpError};
use crate::progress::Told;
use crate::report::{Failure, Kind};

/// Why there is no image.
pub(crate) struct Failed {
    /// What happened.
    pub(crate) failure: Failure,
    /// The container of the failed step, if it is wanted.
    pub(crate) container: Option<Box<FailedContainer>>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            container: None,
        }
    }
}

/// Why the stops after the Dockerfile was read came to an end. What a failed step said last is known only when the
/// progress display has seen everything.
pub(super) enum Stop {
    Failure(Failure),
    Step {
        error: SolveError<OpError>,
        graph: Arc<Graph>,
    },
    /// A layer of the result can't be fetched.
    Fetch(OpError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Stop {
    /// Returns the error where a cache that didn't have what it promised is all that is wrong.
    pub(super) fn lost_cache(&self) -> Option<&OpError> {
        match self {
            Self::Step {
                error: SolveError::Step { source, .. },
                ..
            }
            | Self::Fetch(source) => matches!(source, OpError::Cache(_)).then_some(source),
            _ => None,
        }
    }

    /// Says whether somebody asked for it.
    pub(super) fn is_cancelled(&self) -> bool {
        match self {
            Self::Failure(failure) => matches!(failure.kind(), Kind::Cancelled(_)),
            Self::Step { error, .. } => matches!(error, SolveError::Cancelled),
            Self::Fetch(_) => false,
        }
    }

    /// Takes out the container of a failed step, if it was kept.
    pub(super) fn take_container(&mut self) -> Option<Box<FailedContainer>> {
        match self {
            Self::Step {
                error:
                    SolveError::Step {
                        source: OpError::Exit { container, .. },
                        ..
                    },
                ..
            } => container.take(),
            _ => None,
        }
    }

    pub(super) fn into_failure(
        self,
        source: &SourceText,
        inputs: &Inputs,
        directories: &BTreeMap<String, PathBuf>,
        told: &Told,
    ) -> Failure {
        match self {
            Self::Failure(failure) => failure,
            Self::Fetch(error) => failure::of_fetch(&error),
            Self::Step { error, graph } => {
                let failure = failure::of_solve(&error, &graph, source, told);
                let missing = failure::missing_source(&error, &graph);
                match missing.and_then(|(context, path)| inputs.why_ignored(context, directories, path)) {
                    Some(why) => failure.with_help(why),
                    None => failure,
                }
            }
        }
    }
}
