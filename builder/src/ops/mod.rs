//! Who does the work of a vertex: copies on indexes, runs in the sandbox, layers fetched when something needs them.
//!
//! The solver asks through its `Executor`; everything that blocks runs on a blocking thread.

mod bounds;
mod changed;
mod copy;
mod devices;
mod draft;
mod exec;
mod extract;
mod lowers;
mod mounts;
mod network_files;
mod owner;
mod pack;
mod unpacked;
mod views;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cache::layer::TreePath;
use cache::mounts::{Identity, Scope};
use cache::tree::{Selection, View};
use cache::{DiffId, Store, TreeHash};
use solver::event::Stream;
use solver::op::{FileOp, Op, Source};
use solver::{Event, Executor, InputView, Job, JobInput, Listing, Snapshot, Subject};

use crate::cdi::{CdiError, Devices};
use crate::clock;
use crate::journal::Journal;
use crate::registry::{ImageError, LayerSource, Resolved, Transfer, push};
use crate::remote;
use crate::runtime::blocking;
use crate::sandbox::user::UserError;
use crate::sandbox::{Networks, SandboxError};
use crate::secrets::Secrets;
use copy::CopySource;
use draft::Draft;

pub(crate) use bounds::Bounds;
pub(crate) use devices::known as known_devices;
pub(crate) use exec::{FailedContainer, describe, pack_changes};
pub(crate) use lowers::Lowers;
pub(crate) use mounts::{about, pack_mount};
pub(crate) use network_files::{name_network, resolves_on_loopback};
pub(crate) use owner::credentials;
pub(crate) use views::Views;

/// Says why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    #[error("process \"{command}\" did not complete successfully: {outcome}")]
    Exit {
        command: String,
        outcome: String,
        code: i32,
        /// What its programs are made for, where that may be why they can't be executed here.
        foreign: Option<String>,
        /// Its container, where that was to be kept.
        container: Option<Box<FailedContainer>>,
    },
    #[error("the build was cancelled")]
    Cancelled,
    #[error("timed out after {} s", after.as_secs())]
    TimedOut { after: Duration },
    #[error("cannot copy to non-directory: {path}")]
    DirectoryOverFile { path: TreePath },
    #[error("cannot replace to directory {path} with file")]
    FileOverDirectory { path: TreePath },
    #[error(
        "the archive has {path}, whose name marks a deletion in image layers; such a file can't be in an image"
    )]
    WhiteoutInArchive { path: TreePath },
    #[error("the archive's {path} is a hard link to {target}, which is not there")]
    DanglingLink { path: TreePath, target: TreePath },
    #[error("cannot use owner `{user}`: {source}")]
    User { user: String, source: UserError },
    #[error(
        "cannot look up owner `{user}` in an empty tree, which is what FROM scratch begins with and --link copies onto; \
         give numbers"
    )]
    OwnerOfNothing { user: String },
    #[error("secret {id}: not found")]
    MissingSecret { id: String },
    #[error("secret {id} is to be a variable, but its value is no text")]
    SecretNotText { id: String },
    #[error("no SSH key \"{id}\" forwarded from the client")]
    MissingAgent { id: String },
    #[error(transparent)]
    CacheMount(#[from] cache::mounts::MountsError),
    #[error("cannot write scratch space: {source}")]
    Scratch { source: io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tree(#[from] cache::tree::Error),
    #[error(transparent)]
    Layer(#[from] cache::Error),
    #[error(transparent)]
    Unpack(#[from] cache::layer::unpack::Error),
    #[error(transparent)]
    Layers(#[from] cache::layers::LayersError),
    #[error(transparent)]
    Index(#[from] cache::index::IndexError),
    #[error(transparent)]
    Store(#[from] cache::StoreError),
    #[error(transparent)]
    Device(#[from] CdiError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Git(#[from] remote::git::GitError),
    #[error(transparent)]
    Http(#[from] remote::http::HttpError),
    #[error(transparent)]
    Image(#[from] Arc<ImageError>),
    #[error("a cache doesn't have what it promised: {0}")]
    Cache(Arc<ImageError>),
}

/// What the steps of one build share.
pub(crate) struct Worker {
    pub(crate) store: Arc<Store>,
    /// Local trees by context name.
    pub(crate) contexts: BTreeMap<String, View>,
    /// Where the layers of base images come from when they aren't here.
    pub(crate) images: Vec<Arc<Resolved>>,
    /// Where those of other results may come from.
    pub(crate) caches: Vec<Arc<Resolved>>,
    /// Whose cache mounts are meant.
    pub(crate) cache_scope: Scope,
    /// What cache mounts that aren't here yet begin with, wherever their project is.
    pub(crate) seeds: BTreeMap<Identity, DiffId>,
    pub(crate) lowers: Arc<Lowers>,
    pub(crate) networks: Arc<Networks>,
    /// What the first container needs is begun.
    pub(crate) expects: AtomicBool,
    pub(crate) views: Views,
    pub(crate) events: solver::Events,
    pub(crate) secrets: Arc<Secrets>,
    /// The containers of failed steps are wanted.
    pub(crate) keeps_failed: bool,
    /// How long a process may take.
    pub(crate) step_timeout: Option<Duration>,
    /// The devices that steps can ask for by name.
    pub(crate) devices: Arc<Devices>,
    /// What containers may use.
    pub(crate) bounds: Arc<Bounds>,
    /// Where their output is kept.
    pub(crate) journal: Option<Arc<Journal>>,
}

impl Worker {
    /// Returns the merged view of a result, fetching base layers that aren't here.
    async fn view(&self, snapshot: &Snapshot) -> Result<View, OpError> {
        match snapshot {
            Snapshot::Local(name) => Ok(self
                .contexts
                .get(name)
                .expect("the graph's contexts were scanned")
                .clone()),
            Snapshot::Layers(layers) => {
                self.ensure(layers).await?;
                self.views.of(layers, &self.store)
            }
        }
    }

    /// Fetches what is missing of `layers` from where their image, or a cache that promised them, has them.
    pub(crate) async fn ensure(&self, layers: &[DiffId]) -> Result<(), OpError> {
        // Other layers of steps are here: they were just made, or their record was believed because they are.
        for image in &self.images {
            self.fetch(image, layers).await.map_err(OpError::Image)?;
        }
        let mut lost = None;
        for cache in &self.caches {
            // Another one may have the layer too.
            if let Err(error) = self.fetch(cache, layers).await {
                lost = Some(error);
            }
        }
        match lost {
            Some(error) if !layers.iter().all(|layer| self.store.layers().contains(layer)) => {
                Err(OpError::Cache(error))
            }
            _ => Ok(()),
        }
    }

    async fn fetch(&self, image: &Resolved, layers: &[DiffId]) -> Result<(), Arc<ImageError>> {
        let is_missing = |layer: &DiffId| layers.contains(layer) && !self.store.layers().contains(layer);
        let missing = image.layers.iter().filter(|layer| is_missing(&layer.diff_id));
        let missing: Vec<LayerSource> = missing.cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let part = Resolved {
            layers: missing,
            ..image.clone()
        };
        let tell = |transfer: Transfer| {
            if let Some(user) = &transfer.waits_for {
                let user = if user.is_empty() { "another process" } else { user };
                let text = format!("waiting for {user}: it fetches {}\n", transfer.blob);
                let subject = pulling(&image.reference);
                self.events.log(&subject, Stream::Stderr, text.as_bytes());
            }
            self.events.send(progress_of(&image.reference, transfer));
        };
        crate::registry::fetch_layers(&self.store, &part, tell).await?;
        Ok(())
    }

    /// Does a file op: works out the changes, then writes them as one layer.
    async fn file(&self, op: &FileOp, job: &Job) -> Result<Snapshot, OpError> {
        let store = Arc::clone(&self.store);
        let layer = self
            .draft(op, &job.inputs, move |draft| pack::write(draft, &store))
            .await?;
        Ok(stacked(&job.inputs[0].snapshot, layer))
    }

    /// Works out what a file op changes, and does something with it.
    async fn draft<T: Send + 'static>(
        &self,
        op: &FileOp,
        inputs: &[JobInput],
        then: impl FnOnce(Draft) -> Result<T, OpError> + Send + 'static,
    ) -> Result<T, OpError> {
        let base = self.view(&inputs[0].snapshot).await?;
        let mut trees = Vec::new();
        for input in &inputs[1..] {
            trees.push((input.view.clone(), self.view(&input.snapshot).await?));
        }
        let (op, store) = (op.clone(), Arc::clone(&self.store));
        blocking(move || {
            // Input 0 is what is written to.
            let mut sources = vec![None];
            for (view, tree) in &trees {
                sources.push(match view {
                    InputView::Paths(selection) => Some(CopySource {
                        tree,
                        selected: tree.select(selection)?,
                    }),
                    InputView::Whole => None,
                });
            }
            let draft = copy::apply(&op, base, &sources, clock::now(), store.incomplete())?;
            then(draft)
        })
        .await
    }
}

/// Returns the snapshot with one more layer on top.
fn stacked(below: &Snapshot, layer: DiffId) -> Snapshot {
    let Snapshot::Layers(layers) = below else {
        unreachable!("lowering never writes to a local tree")
    };
    Snapshot::Layers(layers.iter().copied().chain([layer]).collect())
}

/// Tells how far a layer of a base image is.
fn progress_of(reference: &str, transfer: Transfer) -> Event {
    Event::Progress {
        subject: pulling(reference),
        part: transfer.blob.to_string(),
        current_bytes: transfer.done_bytes,
        total_bytes: Some(transfer.total_bytes),
        done: transfer.is_finished,
    }
}

/// Returns what progress calls the fetching of an image's layers.
fn pulling(reference: &str) -> Subject {
    Subject::internal(&format!("[internal] pull {reference}"))
}

/// Returns what tells how far the blobs of an upload are.
pub(crate) fn upload_report(events: &solver::Events, subject: &Subject) -> push::Report {
    let (events, subject) = (events.clone(), subject.clone());
    Arc::new(move |progress: push::Progress| {
        events.send(Event::Progress {
            subject: subject.clone(),
            part: progress.blob.to_string(),
            current_bytes: progress.done_bytes,
            total_bytes: Some(progress.total_bytes),
            done: progress.outcome.is_some(),
        });
    })
}

impl Executor for Worker {
    type Error = OpError;

    fn expect(&self, op: &Op, cancel: &solver::Cancel) {
        if let Op::Exec(op) = op {
            exec::expect(self, op, cancel);
        }
    }

    async fn execute(&self, job: Job) -> Result<Snapshot, OpError> {
        match &job.vertex().op {
            // Whoever looks into them has them fetched; perhaps nobody does.
            Op::Source(Source::Image { layers, .. }) => Ok(Snapshot::Layers(layers.as_slice().into())),
            Op::File(op) => self.file(op, &job).await,
            Op::Exec(op) => exec::execute(self, op, &job).await,
            Op::Source(Source::Http(file)) => {
                let (store, file) = (Arc::clone(&self.store), file.clone());
                let layer = blocking(move || remote::http::layer(&store, &file)).await?;
                Ok(Snapshot::Layers([layer].into()))
            }
            Op::Source(Source::Git(git)) => {
                let (store, git) = (Arc::clone(&self.store), git.clone());
                let secrets = Arc::clone(&self.secrets);
                let layer = blocking(move || remote::git::layer(&store, &git, &secrets)).await?;
                Ok(Snapshot::Layers([layer].into()))
            }
            Op::Source(Source::Scratch | Source::Local { .. }) | Op::Merge => {
                unreachable!("the solver answers what needs no work itself")
            }
        }
    }

    async fn tree_hash(&self, of: &Snapshot, selection: &Selection) -> Result<TreeHash, OpError> {
        let (tree, selection) = (self.view(of).await?, selection.clone());
        blocking(move || Ok(tree.tree_hash(&selection)?)).await
    }

    async fn files(&self, of: &Snapshot, selection: &Selection) -> Option<Vec<(String, String)>> {
        let (tree, selection) = (self.view(of).await.ok()?, selection.clone());
        blocking(move || changed::listing(&tree, &selection)).await
    }

    async fn rewritten(&self, op: &FileOp, inputs: Vec<JobInput>, older: &[DiffId]) -> Option<[Listing; 2]> {
        // Nothing is fetched for this.
        if !older.iter().all(|layer| self.store.layers().contains(layer)) {
            return None;
        }
        let (store, layer) = (Arc::clone(&self.store), *older.last()?);
        let lists = self.draft(op, &inputs, move |draft| {
            let older = View::of_layers([store.layers().get(&layer)?])?;
            Ok([changed::made(&older)?, changed::planned(draft)?])
        });
        // What can't be made has its own words when it is to be.
        lists.await.ok()
    }

    async fn changed_files(&self, older: &[DiffId], newer: &[DiffId]) -> Vec<String> {
        let (Some(older), Some(newer)) = (older.last().copied(), newer.last().copied()) else {
            return Vec::new();
        };
        let store = Arc::clone(&self.store);
        blocking(move || changed::files(&store, &older, &newer).unwrap_or_default()).await
    }
}
