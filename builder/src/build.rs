//! One build, from options to image: the list of its stops, in order. See ARCHITECTURE.md.

mod caching;
mod diary;
mod finish;
mod loading;
mod locks;
mod needs;
mod outputs;
mod project;
mod pushing;
mod statements;
mod stop;

pub(crate) use stop::Failed;

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cache::root::Root;
use cache::tree::Memo;
use cache::{DiffId, Store};
use finish::finish_config;
use frontend::{
    Answers, Build, Diagnostics, Dockerfile, ImageKind, ImageRequest, Lowered, Needed, Request, ResolvedGit,
    ResolvedHttp, SourceText,
};
use needs::{resolved_image, wanted};
use serde_json::Value;
use solver::op::Op;
use solver::{Cancel, Graph, Snapshot, VertexId};
use statements::Notes;
use stop::Stop;

use crate::attest::{Origin, Provenance};
use crate::caches::{self, Imports, Made};
use crate::clock;
use crate::commands::rights;
use crate::context::{self, Inputs};
use crate::dockerfile;
use crate::export::{self, ExportImage, Output, PlatformImage, Times};
use crate::failure;
use crate::image;
use crate::journal::{self, Journal};
use crate::lockfile::Lock;
use crate::metadata::Facts;
use crate::ops::{self, Bounds, Lowers, Views, Worker};
use crate::options::{BuildOptions, Environment};
use crate::progress::{self, Mode, Progress};
use crate::records::Records;
use crate::registry::{self, LockedError, Resolved};
use crate::remote;
use crate::report::{self, Failure, Kind};
use crate::runtime::{blocking, unless_cancelled};
use crate::sandbox::{NetworkWants, Networks};
use crate::secrets::Secrets;
use crate::upkeep;

/// Builds, stores and exports an image; says what came of it.
pub(crate) async fn build(options: &BuildOptions, cancel: &Cancel) -> Result<Facts, Failed> {
    at_stops(options, cancel, async |stops, dockerfile| {
        stops.run(dockerfile, cancel).await
    })
    .await
}

/// Says what a build would do, step by step. Base images are looked up, contexts are read; nothing is made of them.
pub(crate) async fn preview(options: &BuildOptions, cancel: &Cancel) -> Result<String, Failed> {
    at_stops(options, cancel, async |stops, dockerfile| {
        stops.preview(dockerfile, cancel).await
    })
    .await
}

/// Reads what a build begins with, and goes on with `work`, under a display of progress.
async fn at_stops<T>(
    options: &BuildOptions,
    cancel: &Cancel,
    work: impl AsyncFnOnce(&Stops<'_>, &Dockerfile) -> Result<T, Stop>,
) -> Result<T, Failed> {
    let started_unix = clock::now_unix();
    let mut outputs = outputs::parse(options)?;
    caches::check_keys(&options.cache_from, &options.cache_to)
        .map_err(|error| Failure::of(Kind::Usage, &error))?;
    let secrets = Secrets::load(&options.secrets, &options.ssh, &Environment::of_process())
        .map_err(|error| Failure::of(Kind::Usage, &error))?;
    let secrets = Arc::new(secrets);
    let store = Arc::new(image::open_store(&options.store_root)?);
    let id = build_id();
    store.introduce(format!("process {} (build {})", std::process::id(), &id[..12]));
    outputs::find_older(&mut outputs, &store)?;
    let mut fetched = remote::inputs::fetch(options, &store, &secrets).await?;
    let origin = fetched.origin.take();
    let inputs = context::read(&options.context, &options.dockerfile, fetched, &store)
        .map_err(|error| failure::of_context(&error))?;
    let source = SourceText::new(&inputs.dockerfile_name, &inputs.dockerfile);
    let dockerfile = dockerfile::parse(options, &inputs, &source)
        .map_err(|errors| failure::of_diagnostics(&errors, &source))?;
    let locked = locks::read(options)?;
    let progress = Progress::start(progress::Settings::from_environment(options.progress));
    let events = progress.events();
    store.tell_waits(move |wait| events.send(progress::of_wait(wait)));
    let stops = Stops {
        options,
        outputs,
        secrets,
        store: Arc::clone(&store),
        inputs,
        origin,
        id,
        started_unix,
        source,
        progress: &progress,
        locked,
        warnings: Mutex::default(),
        journal: OnceLock::new(),
    };
    let result = work(&stops, &dockerfile).await;
    let Stops {
        source,
        inputs,
        warnings,
        journal,
        ..
    } = stops;
    let told = progress.finish();
    let warnings = warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    match options.progress {
        Mode::RawJson => report::rendered(&progress::json_warnings_line(&warnings, &source)),
        _ => failure::show_warnings(&warnings, &source),
    }
    let is_cancelled = matches!(&result, Err(stop) if stop.is_cancelled());
    let result = result.map_err(|mut stop| Failed {
        container: stop.take_container(),
        failure: stop.into_failure(&source, &inputs, &dockerfile::directories(options), &told),
    });
    if options.explain {
        report::rendered(&journal::explain(&told.steps));
    }
    if let Some(journal) = journal.into_inner() {
        let failure = result.as_ref().err().map(|failed| &failed.failure);
        diary::end(&journal, failure, is_cancelled, told.steps);
    }
    if !options.dry_run {
        upkeep::after_build(&store, options, cancel);
    }
    result
}

/// What the stops of one build share.
struct Stops<'a> {
    options: &'a BuildOptions,
    outputs: Vec<(Output, Times)>,
    secrets: Arc<Secrets>,
    store: Arc<Store>,
    inputs: Inputs,
    /// Where the main context came from, if from afar.
    origin: Option<Origin>,
    /// The build's own name.
    id: String,
    started_unix: i64,
    source: SourceText,
    progress: &'a Progress,
    /// What names must stand for.
    locked: Option<Lock>,
    /// What could be better; shown when progress has ended, so that it stays in sight.
    warnings: Mutex<Diagnostics>,
    /// What happens is written down here, once something does.
    journal: OnceLock<Arc<Journal>>,
}

impl Stops<'_> {
    fn warn(&self, warnings: Diagnostics) {
        let mut all = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        all.append(warnings);
    }

    /// Returns what was found so far that could be better, for programs.
    fn json_warnings(&self) -> Value {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        progress::json_warnings(&warnings, &self.source)
    }

    async fn run(&self, dockerfile: &Dockerfile, cancel: &Cancel) -> Result<Facts, Stop> {
        let (mut work, imports) = unless_cancelled(cancel, self.lower_and_import(dockerfile)).await?;
        let scanning = unless_cancelled(cancel, self.add_scans(&mut work)).await?;
        let notes = self.note(&work, scanning.as_ref());
        let Work {
            graph,
            builds,
            images,
            asked,
            known,
        } = work;
        if graph.ids().any(|id| matches!(graph.vertex(id).op, Op::Exec(_))) {
            rights::start_again()?;
        }
        let lock = self.new_lock(&asked, &images, &known)?;
        // What can be said of the file was said for the first platform.
        if let Some(build) = builds.first() {
            self.warn(build.warnings.clone());
        }
        let mut targets: Vec<VertexId> = builds.iter().map(|build| build.target).collect();
        targets.extend(scanning.iter().flat_map(|scanning| &scanning.steps));
        let made = self
            .make(dockerfile, Arc::new(graph), &images, imports, &targets, cancel)
            .await?;
        let (made_targets, scanned) = made.targets.split_at(builds.len());
        let notes = notes
            .finished()
            .with_contents(scanning.as_ref(), scanned, &self.store)?;
        let caches = self.start_exports(&made);
        let results: Vec<(Build, Arc<[DiffId]>)> =
            builds.into_iter().zip(made_targets.iter().cloned()).collect();
        let facts = self.output(&results, &made, &notes, cancel).await?;
        caches.finish().await?;
        if let Some(lock) = lock {
            lock.write().map_err(|error| failure::of_lock(&error))?;
        }
        Ok(facts)
    }

    /// Puts the image into the store and writes the outputs.
    async fn output(
        &self,
        results: &[(Build, Arc<[DiffId]>)],
        made: &Made,
        notes: &Notes,
        cancel: &Cancel,
    ) -> Result<Facts, Stop> {
        let mut image = self.image(results, Times::default(), made).await?;
        let mut id = match self.has_place() && self.is_complete(&image) {
            true => {
                let (store, image) = (Arc::clone(&self.store), image.clone());
                let committed = blocking(move || image.commit(&store)).await;
                committed.map_err(|error| failure::of_image(&error))?
            }
            // Nobody asked for it here.
            false => image.id(),
        };
        let mut top = None;
        let epoch = results.first().and_then(|(build, _)| build.epoch);
        let provenance = self.options.attestations.provenance.as_ref();
        image.attestations = notes.attestations(provenance, epoch);
        image.caches = self.inline_caches(&image, made, epoch).await?;
        for (output, times) in &self.outputs {
            let epoch = times.epoch.or(epoch);
            let own;
            let image = match *times == Times::default() {
                true => &image,
                false => {
                    let mut other = self.image(results, *times, made).await?;
                    other.attestations = notes.attestations(provenance, epoch);
                    other.caches = self.inline_caches(&other, made, epoch).await?;
                    own = other;
                    &own
                }
            };
            // Caches are being sent meanwhile.
            let exported = {
                let (store, output, image) = (Arc::clone(&self.store), output.clone(), image.clone());
                blocking(move || export::export(&store, &output, &image, epoch)).await
            };
            let exported = exported.map_err(|error| failure::of_export(&error))?;
            if let Output::Image { .. } | Output::Registry { .. } | Output::Engine { .. } = output {
                id = exported.id;
            }
            let manifest = match output {
                Output::Registry { image: how, naming } => {
                    Some(self.push(image, how, *naming, epoch, cancel).await?)
                }
                Output::Engine { image: how, wanted } => {
                    Some(self.load(image, how, wanted, epoch, cancel).await?)
                }
                _ => exported.manifest,
            };
            top = top.or(manifest);
        }
        let told = self.options.metadata_provenance.map(Provenance::of_mode);
        Ok(Facts {
            id,
            top,
            names: outputs::names(self.options, &self.outputs),
            warnings: self.json_warnings(),
            build: self.id.clone(),
            provenance: notes.metadata(told.as_ref(), &self.options.platforms),
        })
    }

    /// Makes the image of what the targets became, as an output wants its times.
    async fn image(
        &self,
        results: &[(Build, Arc<[DiffId]>)],
        times: Times,
        made: &Made,
    ) -> Result<ExportImage, Failure> {
        let imports = made.records.imports();
        let made_unix = |layer: &DiffId| {
            let here = self.store.layers().made_unix(layer);
            here.or_else(|| imports.made_unix(layer))
        };
        let mut platforms = Vec::with_capacity(results.len());
        for (build, layers) in results {
            let epoch = times.epoch.or(build.epoch);
            let layers = match epoch.filter(|_| times.rewrite) {
                None => layers.to_vec(),
                Some(epoch) => {
                    let own = &build.config.history[build.n_base_history..];
                    let n_own = own.iter().filter(|entry| !entry.empty_layer).count();
                    let n_base = layers.len().saturating_sub(n_own);
                    let (store, layers) = (Arc::clone(&self.store), layers.to_vec());
                    blocking(move || export::rewrite::layers(&store, &layers, n_base, epoch))
                        .await
                        .map_err(|error| failure::of_export(&error))?
                }
            };
            let config = build.config.clone();
            let config = finish_config(config, build.n_base_history, &layers, epoch, made_unix).to_json();
            platforms.push(PlatformImage { config, layers });
        }
        let wants_index = self.options.wants_index();
        Ok(ExportImage::of_platforms(
            platforms,
            &self.options.tags,
            wants_index,
        ))
    }

    /// Turns the AST into a graph, once for each platform, resolving the images that it asks for: once, or again where
    /// ONBUILD brings in more.
    async fn lower(&self, dockerfile: &Dockerfile) -> Result<Work, Failure> {
        let mut work = Work::default();
        for platform in &self.options.platforms {
            let options = dockerfile::options(self.options, platform, &self.inputs);
            let build = loop {
                let lowered = frontend::lower(dockerfile, &options, &work.known, &mut work.graph)
                    .map_err(|diagnostics| failure::of_diagnostics(&diagnostics, &self.source))?;
                match lowered {
                    Lowered::Ready(build) => break *build,
                    Lowered::Need(needed) => self.answer(dockerfile, &needed, &mut work).await?,
                }
            };
            work.builds.push(build);
        }
        Ok(work)
    }

    /// Resolves what lowering needs, all at once.
    async fn answer(
        &self,
        dockerfile: &Dockerfile,
        needed: &[Needed],
        work: &mut Work,
    ) -> Result<(), Failure> {
        let resolving = needed.iter().map(|needed| self.resolve(dockerfile, needed));
        let resolved = futures_util::future::join_all(resolving).await;
        for (Needed { request, .. }, answer) in needed.iter().zip(resolved) {
            match (request, answer?) {
                (Request::Image(request), Answer::Image(resolved)) => {
                    let image = resolved_image(&resolved)?;
                    work.known.images.insert(request.clone(), image);
                    work.asked.push(request.clone());
                    work.images.push(Arc::new(*resolved));
                }
                (Request::Http(request), Answer::Http(file)) => {
                    work.known.http.insert(request.clone(), file);
                }
                (Request::Git(request), Answer::Git(commit)) => {
                    work.known.git.insert(request.clone(), commit);
                }
                (request, _) => unreachable!("{request:?} is answered with its own kind"),
            }
        }
        Ok(())
    }

    async fn resolve(&self, dockerfile: &Dockerfile, needed: &Needed) -> Result<Answer, Failure> {
        let at = |failure: Failure| failure.with_excerpt(failure::excerpt_of_span(&self.source, needed.span));
        match &needed.request {
            Request::Image(request) => {
                let image = self.resolve_image(request).await;
                let image = image.map_err(|error| {
                    let failure = at(failure::of_locked(&error));
                    // Whatever is no stage is taken for an image.
                    match dockerfile.stage_like(&request.reference) {
                        Some(stage) => failure.with_help(format!("did you mean the stage `{stage}`?")),
                        None => failure,
                    }
                })?;
                Ok(Answer::Image(Box::new(image)))
            }
            Request::Http(request) => {
                let mut request = request.clone();
                if let Some(lock) = &self.locked {
                    let locked = lock.file(&request.url);
                    request.checksum = Some(locked.map_err(|error| at(failure::of_lock(&error)))?);
                }
                let file = remote::http::resolve(&self.store, &request, &self.secrets).await;
                Ok(Answer::Http(file.map_err(|error| at(failure::of_http(&error)))?))
            }
            Request::Git(request) => {
                let found = remote::inputs::resolve_git(request, &self.store, &self.secrets).await;
                let found = found.map_err(|error| at(failure::of_git(&error)))?;
                if let Some(lock) = &self.locked {
                    let locked = lock.check_commit(request, &found.commit);
                    locked.map_err(|error| at(failure::of_lock(&error)))?;
                }
                Ok(Answer::Git(found))
            }
        }
    }

    async fn resolve_image(&self, request: &ImageRequest) -> Result<Resolved, LockedError> {
        let (reference, platform) = (&request.reference, &request.platform);
        match (&request.kind, &self.locked) {
            (ImageKind::Registry, Some(lock)) => {
                registry::resolve_locked(&self.store, reference, platform, lock).await
            }
            (ImageKind::Registry, None) => {
                Ok(registry::resolve(&self.store, reference, platform, self.options.pull).await?)
            }
            (ImageKind::OciLayout { path }, _) => {
                Ok(registry::resolve_layout(path.as_ref(), reference, platform).await?)
            }
        }
    }

    /// Plans and runs.
    async fn solve(&self, bench: Bench, targets: &[VertexId], cancel: &Cancel) -> Result<Made, Stop> {
        let Bench {
            graph,
            worker,
            records,
            memo,
            root,
        } = bench;
        let solved = solver::solve(
            Arc::clone(&graph),
            targets,
            Arc::clone(&records) as Arc<dyn solver::Index>,
            Arc::clone(&worker),
            self.progress.events(),
            cancel.clone(),
            solver::Options::default(),
        )
        .await;
        // Losing what was learnt about files costs time only.
        let _ = memo.save(&root);
        let solved = match solved {
            Ok(solved) => solved,
            Err(error) => return Err(Stop::Step { error, graph }),
        };
        let layers = solved.snapshots.into_iter().map(|snapshot| match snapshot {
            Snapshot::Layers(layers) => layers,
            other => unreachable!("lowering makes layers of a target, not {other:?}"),
        });
        Ok(Made {
            targets: layers.collect(),
            keys: solved.keys,
            graph,
            records,
            worker,
        })
    }

    /// Plans, and tells the plan.
    async fn preview(&self, dockerfile: &Dockerfile, cancel: &Cancel) -> Result<String, Stop> {
        let (work, imports) = unless_cancelled(cancel, self.lower_and_import(dockerfile)).await?;
        let targets: Vec<VertexId> = work.builds.iter().map(|build| build.target).collect();
        let graph = Arc::new(work.graph);
        let bench = self.bench(dockerfile, graph, &work.images, imports).await?;
        let graph = Arc::clone(&bench.graph);
        let events = self.progress.events();
        let plan = solver::preview(
            graph,
            &targets,
            bench.records,
            bench.worker,
            events,
            cancel.clone(),
        )
        .await;
        let _ = bench.memo.save(&bench.root);
        let graph = bench.graph;
        let plan = plan.map_err(|error| Stop::Step { error, graph })?;
        Ok(self.secrets.hide(&plan))
    }

    /// Scans what is read of the context, and lays out everything that steps need.
    async fn bench(
        &self,
        dockerfile: &Dockerfile,
        graph: Arc<Graph>,
        images: &[Arc<Resolved>],
        imports: Imports,
    ) -> Result<Bench, Failure> {
        let root = Root::open_host(self.store.root()).map_err(|error| Failure::of(Kind::Machine, &error))?;
        let memo = Arc::new(Memo::load(&root));
        let wanted = wanted(&graph);
        let named = &self.options.named_contexts;
        let named = remote::inputs::named_trees(named, &wanted, &self.store, &self.secrets).await?;
        let events = self.progress.events();
        let contexts = self
            .inputs
            .trees(&wanted, &named, &memo, |left_out| events.warn(left_out))
            .map_err(|error| failure::of_context(&error))?;
        let mut unmatched = crate::wildcards::check(&graph, &contexts, &self.source);
        dockerfile.checks.filter(&mut unmatched);
        self.warn(unmatched);
        let bases: HashSet<DiffId> = images
            .iter()
            .flat_map(|image| &image.layers)
            .map(|layer| layer.diff_id)
            .collect();
        let devices = ops::known_devices(&graph, &self.options.cdi_dirs)
            .map_err(|error| Failure::of(Kind::Machine, &error))?;
        let bounds = Bounds::new(self.options.limits.clone(), |warning| events.warn(warning));
        let wants = NetworkWants {
            host: self.options.reaches_host(),
            resolver: ops::resolves_on_loopback().map_err(|error| Failure::of(Kind::Machine, &error))?,
        };
        let worker = Worker {
            store: Arc::clone(&self.store),
            contexts,
            images: images.to_vec(),
            caches: imports.sources().collect(),
            cache_scope: project::scope(self.options),
            seeds: imports.seeds(),
            lowers: Arc::new(Lowers::new(Arc::clone(&self.store)).by(self.options.oci_runtime.clone())),
            networks: Arc::new(Networks::new(wants)),
            expects: AtomicBool::new(false),
            views: Views::default(),
            events: events.clone(),
            secrets: Arc::clone(&self.secrets),
            keeps_failed: self.options.shell_on_error,
            step_timeout: self.options.step_timeout,
            devices: Arc::new(devices),
            bounds: Arc::new(bounds),
            journal: self.journal.get().cloned(),
        };
        self.progress
            .name_vertices(&graph, |name| self.secrets.hide(name));
        Ok(Bench {
            graph,
            worker: Arc::new(worker),
            records: Arc::new(Records::new(Arc::clone(&self.store), bases, Arc::new(imports))),
            memo,
            root,
        })
    }
}

/// What is needed to solve a graph.
struct Bench {
    graph: Arc<Graph>,
    worker: Arc<Worker>,
    records: Arc<Records>,
    /// What is known of files, to be saved afterwards.
    memo: Arc<Memo>,
    /// The store's.
    root: Root,
}

/// What there is to do.
#[derive(Default)]
struct Work {
    graph: Graph,
    /// One for each platform, in order.
    builds: Vec<Build>,
    /// The images that it stands on.
    images: Vec<Arc<Resolved>>,
    /// What each of them was asked for as.
    asked: Vec<ImageRequest>,
    /// All answers.
    known: Answers,
}

/// Returns a name for a build that no other has.
fn build_id() -> String {
    let mut random = [0; 16];
    // Without randomness the name is only less of one.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    cache::digest::hex(&random)
}

/// What came of a request.
enum Answer {
    Image(Box<Resolved>),
    Http(ResolvedHttp),
    Git(ResolvedGit),
}
