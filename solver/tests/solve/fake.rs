//! A world in memory: trees are maps, layers are maps by their digest, steps are pure functions of what they see.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use cache::tree::Selection;
use cache::{DiffId, Key, Record, TreeHash};
use solver::op::{Copy, Exec, FileAction, FileOp, MetaChange, Network, Op, Security, Source};
use solver::{
    Cancel, Events, Executor, Graph, Index, IndexError, Input, InputView, Job, JobInput, Label, Listing,
    Options, Outcome, Snapshot, SolveError, VertexId,
};
use tokio::sync::Barrier;

/// Path to content.
pub(crate) type Tree = BTreeMap<String, String>;

/// Why a fake step failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub String);

/// What executes fake steps, and remembers which.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) layers: Mutex<HashMap<DiffId, Tree>>,
    pub(crate) contexts: Mutex<HashMap<String, Tree>>,
    /// Every execution, in order of its end.
    pub(crate) ran: Mutex<Vec<(VertexId, Key)>>,
    /// The commands that were told of before anything ran.
    pub(crate) expected: Mutex<Vec<String>>,
    pub(crate) running: AtomicUsize,
    /// The most that ran at a time.
    pub(crate) most_running: AtomicUsize,
    /// Where `meet` steps wait for each other.
    pub(crate) barrier: Option<Barrier>,
    /// What `await-waiter` steps watch.
    pub(crate) watched: Option<Arc<Memory>>,
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..12].to_owned()
}

fn selected(tree: &Tree, selection: &Selection) -> Tree {
    let matches = |path: &str| {
        selection
            .patterns
            .iter()
            .any(|pattern| path.starts_with(pattern.as_str()))
    };
    tree.iter()
        .filter(|(path, _)| matches(path))
        .map(|(p, c)| (p.clone(), c.clone()))
        .collect()
}

impl World {
    pub(crate) fn set_file(&self, context: &str, path: &str, content: &str) {
        let mut contexts = self.contexts.lock().unwrap();
        contexts
            .entry(context.to_owned())
            .or_default()
            .insert(path.to_owned(), content.to_owned());
    }

    pub(crate) fn tree(&self, snapshot: &Snapshot) -> Tree {
        match snapshot {
            Snapshot::Local(name) => self
                .contexts
                .lock()
                .unwrap()
                .get(name)
                .cloned()
                .unwrap_or_default(),
            Snapshot::Layers(layers) => {
                let known = self.layers.lock().unwrap();
                layers
                    .iter()
                    .filter_map(|layer| known.get(layer))
                    .fold(Tree::new(), |mut tree, layer| {
                        tree.extend(layer.clone());
                        tree
                    })
            }
        }
    }

    pub(crate) fn take_ran(&self) -> Vec<(VertexId, Key)> {
        std::mem::take(&mut self.ran.lock().unwrap())
    }

    fn stack(&self, below: &Snapshot, layer: Tree) -> Snapshot {
        let Snapshot::Layers(below) = below else {
            panic!("a step stands on a local directory")
        };
        let id = DiffId::of(format!("{layer:?}").as_bytes());
        self.layers.lock().unwrap().insert(id, layer);
        Snapshot::Layers(below.iter().copied().chain([id]).collect())
    }

    async fn exec(&self, args: &[String], job: &Job) -> Result<Snapshot, Failure> {
        match args[0].as_str() {
            "fail" => return Err(Failure("it failed".into())),
            "fail-late" => {
                while self.running.load(Ordering::SeqCst) < 2 {
                    tokio::task::yield_now().await;
                }
                return Err(Failure("it failed late".into()));
            }
            "wait" => {
                job.cancel.cancelled().await;
                return Err(Failure("killed".into()));
            }
            "meet" => {
                self.barrier.as_ref().unwrap().wait().await;
            }
            "await-waiter" => {
                while self.watched.as_ref().unwrap().waiting.load(Ordering::SeqCst) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            "cancel-build" => job.cancel.cancelled().await,
            _ => tokio::task::yield_now().await,
        }
        let below = self.tree(&job.inputs[0].snapshot);
        let layer = Tree::from([
            (
                format!("/out{}", args[0].len() % 3),
                digest(&format!("{args:?}{below:?}")),
            ),
            (format!("/const{}", args[0].len() % 2), args[0].clone()),
        ]);
        Ok(self.stack(&job.inputs[0].snapshot, layer))
    }

    fn copy(&self, file: &FileOp, job: &Job) -> Snapshot {
        let mut layer = Tree::new();
        for action in &file.actions {
            let FileAction::Copy(copy) = action else {
                panic!("the fake only copies")
            };
            let from = &job.inputs[copy.input];
            let InputView::Paths(selection) = &from.view else {
                panic!("a copy selects")
            };
            for (path, content) in selected(&self.tree(&from.snapshot), selection) {
                layer.insert(format!("{}{path}", copy.dest), content);
            }
        }
        self.stack(&job.inputs[0].snapshot, layer)
    }
}

impl Executor for World {
    type Error = Failure;

    fn expect(&self, op: &Op, _cancel: &Cancel) {
        if let Op::Exec(exec) = op {
            self.expected.lock().unwrap().push(exec.args.join(" "));
        }
    }

    async fn execute(&self, job: Job) -> Result<Snapshot, Failure> {
        let n_running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(n_running, Ordering::SeqCst);
        let result = match &job.vertex().op {
            Op::Exec(exec) => self.exec(&exec.args, &job).await,
            Op::File(file) => Ok(self.copy(file, &job)),
            Op::Source(Source::Image { layers, .. }) => Ok(Snapshot::Layers(layers.as_slice().into())),
            other => panic!("{other:?} needs no execution"),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        if result.is_ok() {
            self.ran.lock().unwrap().push((job.id, job.key));
        }
        result
    }

    async fn tree_hash(&self, of: &Snapshot, selection: &Selection) -> Result<TreeHash, Failure> {
        if selection.patterns.iter().any(|pattern| pattern == "/missing") {
            return Err(Failure("/missing is not there".into()));
        }
        Ok(blake3::hash(format!("{:?}", selected(&self.tree(of), selection)).as_bytes()).into())
    }

    async fn files(&self, _: &Snapshot, _: &Selection) -> Option<Vec<(String, String)>> {
        None
    }

    async fn rewritten(&self, _: &FileOp, _: Vec<JobInput>, _: &[DiffId]) -> Option<[Listing; 2]> {
        None
    }

    async fn changed_files(&self, older: &[DiffId], newer: &[DiffId]) -> Vec<String> {
        vec![format!("{} layers, then {}", older.len(), newer.len())]
    }
}

/// An index in memory.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) records: Mutex<HashMap<Key, Record>>,
    hashes: Mutex<HashMap<Key, HashMap<Selection, TreeHash>>>,
    latest: Mutex<HashMap<String, Record>>,
    locks: Arc<(Mutex<HashSet<Key>>, Condvar)>,
    /// How many wait for a lock.
    pub(crate) waiting: AtomicUsize,
}

struct Held(Key, Arc<(Mutex<HashSet<Key>>, Condvar)>);

impl Drop for Held {
    fn drop(&mut self) {
        self.1.0.lock().unwrap().remove(&self.0);
        self.1.1.notify_all();
    }
}

impl Index for Memory {
    fn record(&self, key: &Key) -> Result<Option<Record>, IndexError> {
        Ok(self.records.lock().unwrap().get(key).cloned())
    }

    fn put(&self, record: &Record) -> Result<(), IndexError> {
        self.hashes.lock().unwrap().remove(&record.key);
        self.latest
            .lock()
            .unwrap()
            .insert(record.step.clone(), record.clone());
        self.records.lock().unwrap().insert(record.key, record.clone());
        Ok(())
    }

    fn tree_hash(&self, of: &Key, selection: &Selection) -> Result<Option<TreeHash>, IndexError> {
        Ok(self
            .hashes
            .lock()
            .unwrap()
            .get(of)
            .and_then(|hashes| hashes.get(selection))
            .copied())
    }

    fn put_tree_hash(&self, of: &Key, selection: &Selection, hash: &TreeHash) -> Result<(), IndexError> {
        self.hashes
            .lock()
            .unwrap()
            .entry(*of)
            .or_default()
            .insert(selection.clone(), *hash);
        Ok(())
    }

    fn latest(&self, step: &str) -> Result<Option<Record>, IndexError> {
        Ok(self.latest.lock().unwrap().get(step).cloned())
    }

    fn removed(&self, _key: &Key) -> Result<Option<String>, IndexError> {
        Ok(None)
    }

    fn lock(&self, key: &Key, _: &mut dyn FnMut(&str)) -> Result<Box<dyn Any + Send>, IndexError> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (held, freed) = &*self.locks;
        let mut held = freed
            .wait_while(held.lock().unwrap(), |held| held.contains(key))
            .unwrap();
        held.insert(*key);
        drop(held);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Ok(Box::new(Held(*key, Arc::clone(&self.locks))))
    }
}

/// Makes graphs in few words.
#[derive(Default)]
pub(crate) struct Make(pub(crate) Graph);

pub(crate) fn whole(vertex: VertexId) -> Input {
    Input {
        vertex,
        view: InputView::Whole,
    }
}

pub(crate) fn paths(vertex: VertexId, patterns: &[&str]) -> Input {
    let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Input {
        vertex,
        view: InputView::Paths(Selection::of(patterns)),
    }
}

pub(crate) fn label(name: &str) -> Label {
    Label {
        name: name.to_owned(),
        step: name.to_owned(),
        ..Label::default()
    }
}

pub(crate) fn exec_op(args: &[&str]) -> Op {
    Op::Exec(Exec {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![],
        env_unkeyed: vec![],
        cwd: "/".into(),
        user: String::new(),
        platform: String::new(),
        network: Network::None,
        hostname: String::new(),
        extra_hosts: vec![],
        scripts: BTreeMap::new(),
        mounts: Vec::new(),
        security: Security::Sandbox,
        devices: Vec::new(),
    })
}

impl Make {
    pub(crate) fn scratch(&mut self) -> VertexId {
        self.0.add(Op::Source(Source::Scratch), vec![], label("scratch"))
    }

    pub(crate) fn local(&mut self, name: &str) -> VertexId {
        self.0.add(
            Op::Source(Source::Local { name: name.into() }),
            vec![],
            label(name),
        )
    }

    pub(crate) fn exec(&mut self, on: VertexId, args: &[&str]) -> VertexId {
        self.exec_labelled(on, args, label(&args.join(" ")))
    }

    pub(crate) fn exec_labelled(&mut self, on: VertexId, args: &[&str], label: Label) -> VertexId {
        self.0.add(exec_op(args), vec![whole(on)], label)
    }

    pub(crate) fn copy(&mut self, on: VertexId, from: VertexId, patterns: &[&str], dest: &str) -> VertexId {
        let copy = Copy {
            input: 1,
            dest: dest.into(),
            change: MetaChange::default(),
            unpack: false,
        };
        let op = Op::File(FileOp {
            actions: vec![FileAction::Copy(copy)],
            epoch: None,
        });
        self.0.add(
            op,
            vec![whole(on), paths(from, patterns)],
            label(&format!("copy {patterns:?} {dest}")),
        )
    }

    pub(crate) fn merge(&mut self, lower: VertexId, upper: VertexId) -> VertexId {
        self.0
            .add(Op::Merge, vec![whole(lower), whole(upper)], label("merge"))
    }
}

/// Everything that a build needs, kept between builds.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) world: Arc<World>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) options: Options,
    pub(crate) cancel: Cancel,
}

pub(crate) type Built = Result<Outcome, SolveError<Failure>>;

impl Bench {
    /// Builds on a runtime of its own.
    pub(crate) fn build_with(&self, graph: &Arc<Graph>, targets: &[VertexId], events: Events) -> Built {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let solving = solver::solve(
            Arc::clone(graph),
            targets,
            self.memory.clone() as Arc<dyn Index>,
            Arc::clone(&self.world),
            events,
            self.cancel.clone(),
            self.options.clone(),
        );
        // Far more than any of the builds takes: a build that hangs is to fail, not to hang the suite.
        let deadline = std::time::Duration::from_secs(60);
        runtime
            .block_on(async { tokio::time::timeout(deadline, solving).await })
            .expect("because builds end")
    }

    pub(crate) fn build(&self, graph: &Arc<Graph>, target: VertexId) -> Built {
        self.build_with(graph, &[target], Events::none())
    }

    /// Builds and returns which vertices ran, in their order.
    pub(crate) fn ran(&self, graph: &Arc<Graph>, target: VertexId) -> Vec<VertexId> {
        self.build(graph, target).unwrap();
        let mut ran: Vec<VertexId> = self.world.take_ran().into_iter().map(|(id, _)| id).collect();
        ran.sort();
        ran
    }
}
