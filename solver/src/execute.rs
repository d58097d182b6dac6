//! What the solver asks of whoever does the work.

use std::future::Future;
use std::sync::Arc;

use cache::tree::Selection;
use cache::{DiffId, Key, TreeHash};

use crate::cancel::Cancel;
use crate::event::Events;
use crate::graph::{Graph, InputView, Vertex, VertexId};
use crate::op::{FileOp, Op};

/// The result of a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// A stack of layers, base first; empty for an empty tree.
    Layers(Arc<[DiffId]>),
    /// The directory of the machine that this context name stands for.
    Local(String),
}

/// Files by path, each with its type, content, mode and owner in short words.
pub type Listing = Vec<(String, String)>;

/// One input of a job.
#[derive(Debug, Clone)]
pub struct JobInput {
    /// The tree.
    pub snapshot: Snapshot,
    /// What of it the op uses.
    pub view: InputView,
}

/// One vertex to execute.
#[derive(Debug)]
pub struct Job {
    /// The graph it is of.
    pub graph: Arc<Graph>,
    /// Which vertex.
    pub id: VertexId,
    /// Its key.
    pub key: Key,
    /// The results of its inputs, in the op's order.
    pub inputs: Vec<JobInput>,
    /// Says when to stop. A job that is cancelled kills what it started, cleans up and returns an error; it is waited for.
    pub cancel: Cancel,
    /// Where its output and progress go.
    pub events: Events,
}

impl Job {
    /// Returns the vertex.
    pub fn vertex(&self) -> &Vertex {
        self.graph.vertex(self.id)
    }
}

/// Does the work of vertices.
///
/// It is asked for images (to make sure that their layers are here), remote sources, execs and file ops; never for what needs
/// no work: scratch, local directories, merges.
pub trait Executor: Send + Sync + 'static {
    /// Why a job failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Tells of an op that has no recorded result: it will be executed, unless something fails or another process does it
    /// first. What it needs may be begun; nothing may be waited for. `cancel` ends what was begun.
    fn expect(&self, op: &Op, cancel: &Cancel);

    /// Executes one vertex. `Ok` means that the result's layers are stored durably.
    fn execute(&self, job: Job) -> impl Future<Output = Result<Snapshot, Self::Error>> + Send;

    /// Hashes what `selection` selects in a tree. A selection of `/` is everything.
    fn tree_hash(
        &self,
        of: &Snapshot,
        selection: &Selection,
    ) -> impl Future<Output = Result<TreeHash, Self::Error>> + Send;

    /// Lists the files of a local tree that `selection` selects. `None` where there are more than [`MAX_FILES`](crate::MAX_FILES), or where that isn't known.
    fn files(&self, of: &Snapshot, selection: &Selection) -> impl Future<Output = Option<Listing>> + Send;

    /// Lists the files of the layer that a file op made on top of `older`, and of the one that it would make there from
    /// `inputs`, which but for the first are local trees; in the words of [`files`](Self::files). Makes nothing. `None` where that
    /// isn't known: layers may be gone.
    fn rewritten(
        &self,
        op: &FileOp,
        inputs: Vec<JobInput>,
        older: &[DiffId],
    ) -> impl Future<Output = Option<[Listing; 2]>> + Send;

    /// Names the files that differ between two results of one step, and how, for people. Empty where that isn't known:
    /// the older one may be gone.
    fn changed_files(&self, older: &[DiffId], newer: &[DiffId]) -> impl Future<Output = Vec<String>> + Send;
}
