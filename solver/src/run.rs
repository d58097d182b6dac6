//! Runs a plan: starts what is ready, records what finished, stops on the first error.
//!
//! One loop owns all state; steps are tasks that are handed what they need and hand back what they made. There is no
//! recursion, no shared mutable state and no lock of our own: only the index's, which other processes see too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cache::Key;
use tokio::task::{JoinError, JoinSet};

use crate::cancel::Cancel;
use crate::error::SolveError;
use crate::event::{Event, Events, Subject};
use crate::execute::{Executor, JobInput, Snapshot};
use crate::graph::{Graph, VertexId};
use crate::index::Index;
use crate::op::Op;
use crate::plan::{LocalHashes, Plan, Planned, is_given, local_selections, plan};
use crate::step::{End, Shared, Step, copied_files, mounted_files, trivial};

/// How many local selections are hashed at a time; each is parallel in itself.
const LOCAL_HASHES: usize = 4;

/// How many steps run at a time.
#[derive(Debug, Clone)]
pub struct Options {
    /// Processes in containers. Most wait for something, so that there may be more than cores.
    pub n_exec: usize,
    /// File ops.
    pub n_file: usize,
}

impl Default for Options {
    fn default() -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            n_exec: n_cores.saturating_mul(4).max(16),
            n_file: n_cores,
        }
    }
}

/// What a build made.
#[derive(Debug)]
pub struct Outcome {
    /// The targets' results, in their order.
    pub snapshots: Vec<Snapshot>,
    /// The keys of all vertices, by their number; `None` where the targets don't need a vertex and its key isn't known.
    pub keys: Vec<Option<Key>>,
    /// How many vertices were answered from records, hidden ones included, sources not.
    pub n_cached: usize,
    /// How many were executed, sources not included.
    pub n_executed: usize,
}

/// Builds `targets`. Every vertex is executed at most once, none that a recorded result makes unnecessary.
///
/// After the first error, or when `cancel` is cancelled, running jobs are told to stop and waited for; the error
/// returned is the first one. Must be called inside a tokio runtime; after a cancelled build a thread of it may still wait
/// for another process's lock, so that such a runtime is better shut down in the background.
///
/// # Panics
/// When the executor panics: that is a bug, and not hidden.
pub async fn solve<E: Executor>(
    graph: Arc<Graph>,
    targets: &[VertexId],
    index: Arc<dyn Index>,
    executor: Arc<E>,
    events: Events,
    cancel: Cancel,
    options: Options,
) -> Result<Outcome, SolveError<E::Error>> {
    let shared = Arc::new(Shared::new(graph, index, executor, events, &options));
    let locals = hash_locals(&shared, targets, &cancel).await?;
    let plan = plan(&shared.graph, targets, &*shared.index, &locals)?;
    for id in shared.graph.ids() {
        if matches!(plan.step(id), Planned::Run(Some(_))) {
            shared.executor.expect(&shared.graph.vertex(id).op, &cancel);
        }
    }
    let mut run = Run::new(shared, plan, locals);
    let first_error = run.until_done(&cancel).await;
    match first_error {
        Some(error) => Err(error),
        None => Ok(run.outcome(targets)),
    }
}

/// Prints what [`solve`] would do, one line per vertex, and does none of it: trees are hashed, nothing else.
pub async fn preview<E: Executor>(
    graph: Arc<Graph>,
    targets: &[VertexId],
    index: Arc<dyn Index>,
    executor: Arc<E>,
    events: Events,
    cancel: Cancel,
) -> Result<String, SolveError<E::Error>> {
    let shared = Arc::new(Shared::new(graph, index, executor, events, &Options::default()));
    let locals = hash_locals(&shared, targets, &cancel).await?;
    let plan = plan(&shared.graph, targets, &*shared.index, &locals)?;
    let mut mounted = HashMap::new();
    for id in shared.graph.ids() {
        if matches!(plan.step(id), Planned::Run(Some(_))) {
            mounted.insert(id, mounted_files(&shared, id).await);
        }
    }
    let mut reasons = plan.reasons(&shared.graph, &*shared.index, &locals, mounted)?;
    for (id, miss) in &mut reasons {
        if miss.is_about_files() {
            *miss = miss.clone().with_files(copied_files(&shared, *id).await?);
        }
    }
    Ok(plan.print(&shared.graph, &reasons))
}

/// Where a planned vertex stands.
enum State {
    Unneeded,
    Waiting { n_inputs: usize },
    Running,
    Done { key: Option<Key>, snapshot: Snapshot },
}

async fn hash_locals<E: Executor>(
    shared: &Arc<Shared<E>>,
    targets: &[VertexId],
    cancel: &Cancel,
) -> Result<LocalHashes, SolveError<E::Error>> {
    let mut todo = local_selections(&shared.graph, targets).into_iter();
    let mut tasks = JoinSet::new();
    let mut hashes = LocalHashes::new();
    let mut errors = BTreeMap::new();
    loop {
        while tasks.len() < LOCAL_HASHES && !cancel.is_cancelled() {
            let Some((local, selection, user)) = todo.next() else {
                break;
            };
            let shared = Arc::clone(shared);
            tasks.spawn(async move {
                let snapshot = trivial(&shared.graph, local, &[]).expect("because it is a local directory");
                let hash = shared.executor.tree_hash(&snapshot, &selection).await;
                (local, selection, user, hash)
            });
        }
        let Some(ended) = tasks.join_next().await else {
            break;
        };
        match unwind(ended) {
            (local, selection, _, Ok(hash)) => {
                hashes.insert((local, selection), hash);
            }
            (_, _, user, Err(error)) => {
                errors.entry(user).or_insert(error);
            }
        }
    }
    if cancel.is_cancelled() {
        return Err(SolveError::Cancelled);
    }
    // The first in the graph's order, whichever was found first: the same build fails with the same error.
    match errors.pop_first() {
        Some((user, error)) => Err(shared.failed(user, error)),
        None => Ok(hashes),
    }
}

/// Passes a task's panic on, as if it had happened here.
fn unwind<T>(ended: Result<T, JoinError>) -> T {
    match ended {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => unreachable!("tasks are never aborted: {error}"),
        },
    }
}

/// The one owner of a running build's state.
struct Run<E: Executor> {
    shared: Arc<Shared<E>>,
    plan: Plan,
    locals: Arc<LocalHashes>,
    states: Vec<State>,
    ready: Vec<VertexId>,
    tasks: JoinSet<(VertexId, End<E::Error>)>,
    n_cached: usize,
    n_executed: usize,
}

impl<E: Executor> Run<E> {
    fn new(shared: Arc<Shared<E>>, plan: Plan, locals: LocalHashes) -> Self {
        let mut run = Self {
            states: Vec::with_capacity(shared.graph.len()),
            shared,
            plan,
            locals: Arc::new(locals),
            ready: Vec::new(),
            tasks: JoinSet::new(),
            n_cached: 0,
            n_executed: 0,
        };
        let graph = Arc::clone(&run.shared.graph);
        for id in graph.ids() {
            let state = match run.plan.step(id) {
                Planned::Skip => State::Unneeded,
                Planned::Hit(record) => State::Done {
                    key: Some(record.key),
                    snapshot: Snapshot::Layers(record.layers.as_slice().into()),
                },
                Planned::Run(_) => {
                    let waits = |used: &VertexId| matches!(run.plan.step(*used), Planned::Run(_));
                    let n_inputs = graph.used(id).filter(waits).count();
                    if n_inputs == 0 {
                        run.ready.push(id);
                    }
                    State::Waiting { n_inputs }
                }
            };
            if run.plan.is_reachable(id) && !matches!(state, State::Waiting { .. }) {
                run.tell_cached(id);
            }
            run.states.push(state);
        }
        // Popped from the end: first come, first served.
        run.ready.reverse();
        run
    }

    fn tell_cached(&mut self, id: VertexId) {
        if !is_given(&self.shared.graph.vertex(id).op) {
            self.shared.events.send(Event::Cached {
                subject: Subject::Vertex(id),
            });
        }
        if !matches!(self.shared.graph.vertex(id).op, Op::Source(_)) {
            self.n_cached += 1;
        }
    }

    /// Returns the first error, after everything that ran has ended.
    async fn until_done(&mut self, cancel: &Cancel) -> Option<SolveError<E::Error>> {
        let mut first_error = None;
        loop {
            if first_error.is_none() {
                while let Some(id) = self.ready.pop() {
                    self.start(id);
                }
            }
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled(), if first_error.is_none() => {
                    self.shared.stop.cancel();
                    first_error = Some(SolveError::Cancelled);
                    continue;
                }
                ended = self.tasks.join_next() => ended,
            };
            match ended.map(unwind) {
                None => return first_error,
                Some((
                    id,
                    End::Done {
                        key,
                        snapshot,
                        executed,
                    },
                )) => self.done(id, key, snapshot, executed),
                Some((_, End::Cancelled)) => {}
                Some((_, End::Failed(error))) => {
                    self.shared.stop.cancel();
                    first_error.get_or_insert(error);
                }
            }
        }
    }

    fn start(&mut self, id: VertexId) {
        let inputs: Vec<(Option<Key>, JobInput)> = self
            .shared
            .graph
            .vertex(id)
            .inputs
            .iter()
            .map(|input| match &self.states[input.vertex.index()] {
                State::Done { key, snapshot } => (
                    *key,
                    JobInput {
                        snapshot: snapshot.clone(),
                        view: input.view.clone(),
                    },
                ),
                _ => unreachable!("a vertex is ready only when its inputs are done"),
            })
            .collect();
        let step = Step {
            shared: Arc::clone(&self.shared),
            locals: Arc::clone(&self.locals),
            id,
            fresh: self.plan.is_fresh(id),
        };
        self.states[id.index()] = State::Running;
        self.tasks.spawn(async move { (id, step.run(inputs).await) });
    }

    fn done(&mut self, id: VertexId, key: Option<Key>, snapshot: Snapshot, executed: bool) {
        self.states[id.index()] = State::Done { key, snapshot };
        if !matches!(self.shared.graph.vertex(id).op, Op::Source(_)) {
            self.n_executed += usize::from(executed);
            self.n_cached += usize::from(!executed);
        }
        for user in self.shared.graph.users(id) {
            if let State::Waiting { n_inputs } = &mut self.states[user.index()] {
                *n_inputs -= 1;
                if *n_inputs == 0 {
                    self.ready.push(user);
                }
            }
        }
    }

    fn outcome(&self, targets: &[VertexId]) -> Outcome {
        let snapshots = targets.iter().map(|id| match &self.states[id.index()] {
            State::Done { snapshot, .. } => snapshot.clone(),
            _ => unreachable!("without an error every target is done"),
        });
        let keys = self.shared.graph.ids().map(|id| match &self.states[id.index()] {
            State::Done { key, .. } => *key,
            _ => self.plan.key(id),
        });
        Outcome {
            snapshots: snapshots.collect(),
            keys: keys.collect(),
            n_cached: self.n_cached,
            n_executed: self.n_executed,
        }
    }
}
