//! What is to be done: the graph of ops, its keys, the plan and the run.
//!
//! Knows no Dockerfile, no tar, no mount, no socket: it sees ops, keys, an [`Index`] and an [`Executor`].

pub mod cancel;
pub mod error;
pub mod event;
pub mod execute;
pub mod graph;
pub mod index;
pub mod key;
pub mod miss;
pub mod mode;
pub mod op;
pub mod plan;
pub mod run;
mod step;

pub use cancel::Cancel;
pub use error::{IndexError, SolveError};
pub use event::{Event, Events, Stream, Subject};
pub use execute::{Executor, Job, JobInput, Listing, Snapshot};
pub use graph::{Graph, Input, InputView, Label, Vertex, VertexId};
pub use index::Index;
pub use miss::Miss;
pub use miss::files::MAX_FILES;
pub use plan::{LocalHashes, Plan, Planned, plan};
pub use run::{Options, Outcome, preview, solve};
