//! Why a build stopped.

use crate::graph::VertexId;

/// What an index answers when it can't do its work.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the build cache's index")]
pub struct IndexError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The first cause for which a build did not finish.
#[derive(Debug, thiserror::Error)]
pub enum SolveError<E: std::error::Error + 'static> {
    /// A step failed: the first one, not one that was cancelled because of it.
    #[error("step `{name}` failed")]
    Step {
        /// Which.
        vertex: VertexId,
        /// Its name, for people.
        name: String,
        /// Why.
        #[source]
        source: E,
    },
    /// The index could not be read or written.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A merge was asked to stack something that has no layers.
    #[error("step `{name}` stacks a local directory, which has no layers")]
    NotLayers {
        /// Which step.
        vertex: VertexId,
        /// Its name, for people.
        name: String,
    },
    /// It was told to stop.
    #[error("cancelled")]
    Cancelled,
}
