//! One vertex on its way: from inputs that are done to its own result, looked up or executed.
//!
//! Knows nothing of the other vertices; what is ready, and what follows an error, is `run.rs`'s business.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cache::{Component, DiffId, Key, Record};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::cancel::Cancel;
use crate::error::{IndexError, SolveError};
use crate::event::{Event, Events, Stream, Subject};
use crate::execute::{Executor, Job, JobInput, Snapshot};
use crate::graph::{Graph, InputView, VertexId};
use crate::index::Index;
use crate::key::{Keyed, Seen, keyed};
use crate::miss::{Miss, files};
use crate::op::{Op, Source};
use crate::plan::{LocalHashes, latest, selection};
use crate::run::Options;

/// What tasks share; all of it immutable or made for sharing.
pub(crate) struct Shared<E> {
    pub(crate) graph: Arc<Graph>,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) executor: Arc<E>,
    pub(crate) events: Events,
    /// Says that the build stops, whether for an error or on request.
    pub(crate) stop: Cancel,
    exec_slots: Semaphore,
    file_slots: Semaphore,
}

impl<E: Executor> Shared<E> {
    pub(crate) fn new(
        graph: Arc<Graph>,
        index: Arc<dyn Index>,
        executor: Arc<E>,
        events: Events,
        options: &Options,
    ) -> Self {
        let slots = |n: usize| Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            graph,
            index,
            executor,
            events,
            stop: Cancel::new(),
            exec_slots: slots(options.n_exec),
            file_slots: slots(options.n_file),
        }
    }

    /// Tells of a failure and makes it the build's error.
    pub(crate) fn failed(&self, vertex: VertexId, source: E::Error) -> SolveError<E::Error> {
        let name = self.graph.vertex(vertex).label.name.clone();
        self.events.send(Event::Failed {
            subject: Subject::Vertex(vertex),
            error: source.to_string(),
        });
        SolveError::Step { vertex, name, source }
    }
}

/// How a step ended.
pub(crate) enum End<E: std::error::Error + 'static> {
    /// Well.
    Done {
        /// Its key; none for what has none.
        key: Option<Key>,
        /// Its result.
        snapshot: Snapshot,
        /// By work, not by a record.
        executed: bool,
    },
    /// With an error of its own.
    Failed(SolveError<E>),
    /// Because the build stops.
    Cancelled,
}

/// Returns the result of a vertex that needs no work.
pub(crate) fn trivial(graph: &Graph, id: VertexId, inputs: &[JobInput]) -> Option<Snapshot> {
    match &graph.vertex(id).op {
        Op::Source(Source::Scratch) => Some(Snapshot::Layers(Arc::new([]))),
        Op::Source(Source::Local { name }) => Some(Snapshot::Local(name.clone())),
        Op::Merge => {
            let stacks: Option<Vec<&[DiffId]>> = inputs
                .iter()
                .map(|input| match &input.snapshot {
                    Snapshot::Layers(layers) => Some(&layers[..]),
                    Snapshot::Local(_) => None,
                })
                .collect();
            Some(Snapshot::Layers(stacks?.concat().into()))
        }
        Op::Source(Source::Image { .. } | Source::Git(_) | Source::Http(_)) | Op::Exec(_) | Op::File(_) => {
            None
        }
    }
}

/// Lists the files that a step mounts from local directories, to be told beside the parts of its key. What is copied needs
/// no list: results tell.
pub(crate) async fn mounted_files<E: Executor>(shared: &Shared<E>, id: VertexId) -> Vec<Component> {
    let (graph, mut components) = (&shared.graph, Vec::new());
    let vertex = graph.vertex(id);
    for (place, input) in vertex.inputs.iter().enumerate() {
        if let (Op::Exec(_), Op::Source(Source::Local { name })) =
            (&vertex.op, &graph.vertex(input.vertex).op)
            && let InputView::Paths(selection) = &input.view
            && let Some(files) = shared
                .executor
                .files(&Snapshot::Local(name.clone()), selection)
                .await
        {
            files::add(&mut components, place, files);
        }
    }
    components
}

/// Names the files of a step that writes files of local directories, as far as they would come out other than in its newest
/// result; the step isn't run. None where that isn't known.
pub(crate) async fn copied_files<E: Executor>(
    shared: &Shared<E>,
    id: VertexId,
) -> Result<Vec<String>, IndexError> {
    let vertex = shared.graph.vertex(id);
    let (Op::File(op), Some(record)) = (&vertex.op, latest(&vertex.label, &*shared.index)?) else {
        return Ok(Vec::new());
    };
    let Some((_, below)) = record.layers.split_last() else {
        return Ok(Vec::new());
    };
    let mut inputs = Vec::with_capacity(vertex.inputs.len());
    for (place, input) in vertex.inputs.iter().enumerate() {
        let snapshot = match &shared.graph.vertex(input.vertex).op {
            // What it stood on then.
            _ if place == 0 => Snapshot::Layers(below.into()),
            Op::Source(Source::Local { name }) => Snapshot::Local(name.clone()),
            _ => return Ok(Vec::new()),
        };
        inputs.push(JobInput {
            snapshot,
            view: input.view.clone(),
        });
    }
    let lists = shared.executor.rewritten(op, inputs, &record.layers).await;
    Ok(lists.as_ref().map_or_else(Vec::new, files::listed_changes))
}

/// Why a step runs, and the record that this was found out from.
struct Why {
    miss: Miss,
    latest: Option<Record>,
}

impl Why {
    /// Returns the older result of a step that only writes files, if those may be what changed.
    fn files_of(&self, op: &Op) -> Option<&[DiffId]> {
        let is_about_files = matches!(op, Op::File(_)) && self.miss.is_about_files();
        self.latest
            .as_ref()
            .filter(|_| is_about_files)
            .map(|record| &record.layers[..])
    }
}

/// What to do about one vertex.
pub(crate) struct Step<E: Executor> {
    pub(crate) shared: Arc<Shared<E>>,
    pub(crate) locals: Arc<LocalHashes>,
    pub(crate) id: VertexId,
    /// Executes it even if a result is recorded.
    pub(crate) fresh: bool,
}

/// Why a step goes no further: an end that isn't `Done`.
type Stopped<E> = End<<E as Executor>::Error>;

impl<E: Executor> Step<E> {
    /// Gets the result; `inputs` are in the op's order, with their keys.
    pub(crate) async fn run(self, inputs: Vec<(Option<Key>, JobInput)>) -> End<E::Error> {
        self.attempt(inputs).await.unwrap_or_else(|stopped| stopped)
    }

    async fn attempt(&self, inputs: Vec<(Option<Key>, JobInput)>) -> Result<End<E::Error>, Stopped<E>> {
        let mut keyed = self.keyed(&inputs).await?;
        let inputs: Vec<JobInput> = inputs.into_iter().map(|(_, input)| input).collect();
        let op = &self.shared.graph.vertex(self.id).op;
        if let Some(snapshot) = trivial(&self.shared.graph, self.id, &inputs) {
            let key = keyed.as_ref().map(|keyed| keyed.key);
            // A merge costs nothing, but its record hides its inputs from the next plan.
            if let (Op::Merge, Some(keyed), Snapshot::Layers(layers)) = (op, &keyed, &snapshot) {
                self.record(keyed, layers, Duration::ZERO).map_err(failed)?;
            }
            return Ok(End::Done {
                key,
                snapshot,
                executed: true,
            });
        }
        let Some(keyed) = &mut keyed else {
            // Local directories alone have no key, and they end above; a merge of them ends here.
            return Err(self.not_layers());
        };
        if *op == Op::Merge {
            return Err(self.not_layers());
        }
        if let Op::Source(_) = op {
            // The index knows nothing of sources: whether an image is here is the executor's to find out.
            let (end, took) = self.execute(keyed.key, inputs, None).await?;
            self.tell_finished(took);
            return Ok(end);
        }
        if let Some(hit) = self.look_up(&keyed.key)? {
            return Ok(hit);
        }
        // First a slot, then the lock: whoever holds a lock has all it needs, so that no two processes can wait for
        // each other.
        let _slot = self.slot().await?;
        let _lock = self.lock(keyed.key).await?;
        if let Some(hit) = self.look_up(&keyed.key)? {
            return Ok(hit);
        }
        let label = &self.shared.graph.vertex(self.id).label;
        keyed
            .components
            .extend(mounted_files(&self.shared, self.id).await);
        let latest = latest(label, &*self.shared.index).map_err(failed)?;
        let index = &*self.shared.index;
        let why = Miss::of(label, self.fresh, keyed, latest.as_ref(), index).map_err(failed)?;
        let (end, took) = self
            .execute(keyed.key, inputs, Some(Why { miss: why, latest }))
            .await?;
        if let End::Done {
            snapshot: Snapshot::Layers(layers),
            ..
        } = &end
        {
            self.record(keyed, layers, took).map_err(failed)?;
        }
        // Who is told that a step is done finds it done, whatever happens from here on.
        self.tell_finished(took);
        Ok(end)
    }

    fn tell_finished(&self, took: Duration) {
        let subject = Subject::Vertex(self.id);
        self.shared.events.send(Event::Finished { subject, took });
    }

    /// Computes the key; hashes what of the inputs is not memoised.
    async fn keyed(&self, inputs: &[(Option<Key>, JobInput)]) -> Result<Option<Keyed>, Stopped<E>> {
        let mut seen = Vec::with_capacity(inputs.len());
        let places = &self.shared.graph.vertex(self.id).inputs;
        for ((key, input), place) in inputs.iter().zip(places) {
            seen.push(match (key, &input.view) {
                (Some(key), InputView::Whole) => Seen::Whole(*key),
                (Some(key), InputView::Paths(paths)) => {
                    let index = &self.shared.index;
                    match index.tree_hash(key, paths).map_err(failed)? {
                        Some(hash) => Seen::Paths(hash),
                        None => {
                            let hash = self.shared.executor.tree_hash(&input.snapshot, paths).await;
                            let hash = hash.map_err(|error| self.error(error))?;
                            index.put_tree_hash(key, paths, &hash).map_err(failed)?;
                            Seen::Paths(hash)
                        }
                    }
                }
                (None, _) => match self.locals.get(&(place.vertex, selection(place))) {
                    Some(hash) => Seen::Paths(*hash),
                    None => return Err(self.not_layers()),
                },
            });
        }
        Ok(keyed(&self.shared.graph, self.id, &seen))
    }

    fn look_up(&self, key: &Key) -> Result<Option<End<E::Error>>, Stopped<E>> {
        if self.fresh {
            return Ok(None);
        }
        let record = self.shared.index.record(key).map_err(failed)?;
        Ok(record.map(|record| {
            self.shared.events.send(Event::Cached {
                subject: Subject::Vertex(self.id),
            });
            End::Done {
                key: Some(*key),
                snapshot: Snapshot::Layers(record.layers.into()),
                executed: false,
            }
        }))
    }

    async fn slot(&self) -> Result<SemaphorePermit<'_>, Stopped<E>> {
        let slots = match self.shared.graph.vertex(self.id).op {
            Op::Exec(_) => &self.shared.exec_slots,
            _ => &self.shared.file_slots,
        };
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Err(End::Cancelled),
            slot = slots.acquire() => Ok(slot.expect("because the semaphores are never closed")),
        }
    }

    async fn lock(&self, key: Key) -> Result<Box<dyn Any + Send>, Stopped<E>> {
        let index = Arc::clone(&self.shared.index);
        let (events, subject) = (self.shared.events.clone(), Subject::Vertex(self.id));
        let mut told = move |who: &str| {
            let text = format!("waiting for {who}: it runs this step\n");
            events.log(&subject, Stream::Stderr, text.as_bytes());
        };
        let waiting = tokio::task::spawn_blocking(move || index.lock(&key, &mut told));
        tokio::select! {
            biased;
            // The thread goes on waiting; it lets go of the lock as soon as it has it.
            () = self.shared.stop.cancelled() => Err(End::Cancelled),
            lock = waiting => match lock {
                Ok(lock) => lock.map_err(failed),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }

    async fn execute(
        &self,
        key: Key,
        inputs: Vec<JobInput>,
        why: Option<Why>,
    ) -> Result<(End<E::Error>, Duration), Stopped<E>> {
        let shared = &self.shared;
        let subject = Subject::Vertex(self.id);
        if shared.stop.is_cancelled() {
            return Err(End::Cancelled);
        }
        // Which files changed is known only when they are there; until then little is said.
        let older = why
            .as_ref()
            .and_then(|why| why.files_of(&shared.graph.vertex(self.id).op));
        shared.events.send(Event::Started {
            subject: subject.clone(),
            why: match older {
                Some(_) => None,
                None => why.as_ref().map(|why| why.miss.clone()),
            },
        });
        let begun = Instant::now();
        let job = Job {
            graph: Arc::clone(&shared.graph),
            id: self.id,
            key,
            inputs,
            cancel: shared.stop.clone(),
            events: shared.events.clone(),
        };
        match shared.executor.execute(job).await {
            Ok(snapshot) => {
                let took = begun.elapsed();
                if let (Some(why), Some(older), Snapshot::Layers(newer)) = (&why, older, &snapshot) {
                    let files = shared.executor.changed_files(older, newer).await;
                    shared.events.send(Event::Explained {
                        subject: subject.clone(),
                        why: why.miss.clone().with_files(files),
                    });
                }
                Ok((
                    End::Done {
                        key: Some(key),
                        snapshot,
                        executed: true,
                    },
                    took,
                ))
            }
            // What fails after the stop is taken for a consequence of it.
            Err(_) if shared.stop.is_cancelled() => {
                shared.events.send(Event::Cancelled { subject });
                Err(End::Cancelled)
            }
            Err(error) => Err(self.error(error)),
        }
    }

    fn record(&self, keyed: &Keyed, layers: &Arc<[DiffId]>, took: Duration) -> Result<(), IndexError> {
        // A clock before 1970 only makes the record look old.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.shared.index.put(&Record {
            key: keyed.key,
            layers: layers.to_vec(),
            components: keyed.components.clone(),
            step: self.shared.graph.vertex(self.id).label.step.clone(),
            created_unix_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn error(&self, error: E::Error) -> Stopped<E> {
        End::Failed(self.shared.failed(self.id, error))
    }

    fn not_layers(&self) -> Stopped<E> {
        let name = self.shared.graph.vertex(self.id).label.name.clone();
        End::Failed(SolveError::NotLayers {
            vertex: self.id,
            name,
        })
    }
}

fn failed<E: std::error::Error + 'static>(error: IndexError) -> End<E> {
    End::Failed(SolveError::Index(error))
}
