//! What a stage starts with: the tree and the config of an image, a directory, nothing, or an earlier stage.

use cache::tree::Selection;
use solver::graph::{Input, InputView, Label, VertexId};
use solver::op::{self, FileAction, FileOp, MetaChange, Op, Source};

use super::early::UNKNOWN_DIRECTORY;
use super::plan::Origin;
use super::{Lowering, weight};
use crate::config::{History, ImageConfig};
use crate::diagnostic::Diagnostic;
use crate::expand::Variables;
use crate::lint::Rule;
use crate::options::ImageRequest;
use crate::platform::Platform;
use crate::source::Span;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage has come to.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) vertex: VertexId,
    pub(super) config: ImageConfig,
    /// How many entries of the config's history are the base image's.
    pub(super) n_base_history: usize,
    /// What expansion and RUN see: the config's environment and arguments.
    pub(super) env: Variables,
    /// What becomes the config's environment.
    pub(super) image_env: Variables,
    /// Arguments declared so far, with their last value; empty for those without.
    pub(super) args: Variables,
    /// A CMD was written in this stage.
    pub(super) has_cmd: bool,
    /// A WORKDIR was written in this stage or one that it is based on.
    pub(super) has_workdir: bool,
    /// Nobody knows yet what it started from.
    pub(super) is_unknown: bool,
}

impl State {
    /// Forgets what the base decides.
    pub(super) fn forget_base(&mut self) {
        self.is_unknown = true;
        self.env = Variables::unknown();
        UNKNOWN_DIRECTORY.clone_into(&mut self.config.config.working_dir);
    }

    /// Says whether the working directory is known.
    pub(super) fn knows_directory(&self) -> bool {
        !self.config.config.working_dir.starts_with(UNKNOWN_DIRECTORY)
    }
}

/// Returns the state that a stage leaves to one that is based on it.
pub(super) fn inherit(lowering: &mut Lowering<'_>, base: Option<&State>) -> State {
    let base = base.expect("because a base stands before its stage and is reached with it");
    if let Err(error) = lowering.spend(weight_of(base)) {
        lowering.diagnostics.push(error);
    }
    State {
        has_cmd: false,
        ..base.clone()
    }
}

/// Returns what a copy of a state costs: a long chain of stages copies an ever longer history.
fn weight_of(state: &State) -> usize {
    let config = &state.config.config;
    let variables = [&state.env, &state.image_env, &state.args]
        .into_iter()
        .flat_map(|variables| variables.list())
        .map(|(name, value)| 2 * name.len() + value.len());
    let labels = config.labels.iter().map(|(name, value)| name.len() + value.len());
    let names = config.exposed_ports.keys().chain(config.volumes.keys());
    let words = config
        .entrypoint
        .iter()
        .chain(&config.cmd)
        .chain(&config.shell)
        .chain(&config.on_build);
    let history = state
        .config
        .history
        .iter()
        .map(|entry| entry.created_by.len() + size_of::<History>());
    let texts = names.chain(words).map(String::len);
    weight(variables.chain(labels).chain(texts).chain(history))
}

/// Returns what a stage is called.
pub(super) fn stage_name(lowering: &Lowering<'_>, index: usize) -> String {
    let name = lowering.dockerfile.stages[index].name.as_ref();
    name.map_or_else(|| format!("stage-{index}"), |name| name.value.clone())
}

/// Returns what stands for a stage in the places of its steps, the same from build to build.
pub(super) fn stage_place(lowering: &Lowering<'_>, index: usize) -> String {
    let name = stage_name(lowering, index);
    if lowering.options.is_multi_platform {
        format!("{} {name}", lowering.options.target_platform)
    } else {
        name
    }
}

/// Returns the state that a tree from outside begins with.
pub(super) fn start(
    lowering: &mut Lowering<'_>,
    origin: &Origin,
    platform: &Platform,
    index: usize,
    prefix: &str,
) -> State {
    let (mut config, reference) = match origin {
        Origin::Image(request) => {
            let image = &lowering.answers.images[request];
            if !["", "linux"].contains(&image.config.os.as_str()) && platform.os == "linux" {
                let message = format!(
                    "image {} is for {}, only linux images can be built",
                    image.reference, image.config.os
                );
                let span = lowering.dockerfile.stages[index].base.span;
                lowering.diagnostics.push(Diagnostic::error(message).at(span));
            }
            lint_platform(lowering, request, index);
            let image = &lowering.answers.images[request];
            (
                ImageConfig {
                    created: None,
                    ..image.config.clone()
                },
                image.reference.clone(),
            )
        }
        Origin::Scratch => (ImageConfig::scratch(platform), "scratch".to_owned()),
        Origin::Directory(name) => (ImageConfig::scratch(platform), name.clone()),
        Origin::Stage(_) => unreachable!("a stage has a state of its own"),
    };
    config.rootfs.diff_ids.clear();
    let n_base_history = config.history.len();
    let (line, last_line) = lines(lowering, lowering.dockerfile.stages[index].span);
    let label = Label {
        name: format!("{prefix}FROM {reference}"),
        step: format!("{} FROM", stage_place(lowering, index)),
        line: Some(line),
        last_line: Some(last_line),
        ignore_cache: false,
    };
    let vertex = match origin {
        Origin::Directory(name) => {
            config.history.insert(
                0,
                History {
                    created_by: format!("local source for {name}"),
                    comment: "buildkit.exporter.image.v0".to_owned(),
                    ..History::default()
                },
            );
            directory_base(lowering, origin, label)
        }
        _ => source(lowering, origin, label),
    };
    let mut env = Variables::default();
    for entry in &config.config.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        env.set(name, value);
    }
    if env.get("PATH").is_none() {
        env.set("PATH", DEFAULT_PATH);
    }
    let image_env = env.clone();
    State {
        vertex,
        config,
        n_base_history,
        env,
        image_env,
        args: Variables::default(),
        has_cmd: false,
        has_workdir: false,
        is_unknown: false,
    }
}

/// Warns of an image that is for another platform than the one that was asked for.
fn lint_platform(lowering: &mut Lowering<'_>, request: &ImageRequest, index: usize) {
    let config = &lowering.answers.images[request].config;
    let wanted = &request.platform;
    let or = |own: &str, wanted: &str| if own.is_empty() { wanted } else { own }.to_owned();
    let os = or(&config.os, &wanted.os);
    let architecture = or(&config.architecture, &wanted.architecture);
    let actual = Platform::new(&os, &architecture, Some(config.variant.as_str()));
    if actual.os == wanted.os && actual.architecture == wanted.architecture {
        return;
    }
    let message = format!(
        "base image {} was pulled with platform \"{actual}\", expected \"{wanted}\" for current build",
        request.reference
    );
    let span = lowering.dockerfile.stages[index].base.span;
    lowering
        .diagnostics
        .push(Diagnostic::warning(Rule::InvalidBaseImagePlatform, message).at(span));
}

/// Adds the vertex of a stage that begins with a directory's files: one layer, as if they were copied onto scratch.
fn directory_base(lowering: &mut Lowering<'_>, origin: &Origin, label: Label) -> VertexId {
    let files = source(lowering, origin, Label::default());
    let scratch = source(lowering, &Origin::Scratch, Label::default());
    let copy = op::Copy {
        input: 1,
        dest: "/".to_owned(),
        change: MetaChange::default(),
        unpack: false,
    };
    let op = Op::File(FileOp {
        actions: vec![FileAction::Copy(copy)],
        epoch: lowering.epoch,
    });
    let inputs = vec![
        Input {
            vertex: scratch,
            view: InputView::Whole,
        },
        Input {
            vertex: files,
            view: InputView::Paths(Selection::everything()),
        },
    ];
    lowering.graph.add(op, inputs, label)
}

/// Adds the vertex of a tree from outside.
pub(super) fn source(lowering: &mut Lowering<'_>, origin: &Origin, label: Label) -> VertexId {
    let (source, label) = match origin {
        Origin::Scratch => (Source::Scratch, label),
        Origin::Image(request) => {
            let image = &lowering.answers.images[request];
            (
                Source::Image {
                    layers: image.layers.clone(),
                    reference: image.reference.clone(),
                },
                label,
            )
        }
        Origin::Directory(name) => {
            lowering.contexts.insert(name.clone());
            let text = if name == "context" {
                "[internal] load build context".to_owned()
            } else {
                format!("[context {name}] load from directory")
            };
            let label = Label {
                name: text.clone(),
                step: text,
                line: None,
                last_line: None,
                ignore_cache: false,
            };
            (Source::Local { name: name.clone() }, label)
        }
        Origin::Stage(_) => unreachable!("a stage has a vertex of its own"),
    };
    lowering.graph.add(Op::Source(source), Vec::new(), label)
}

pub(super) fn lines(lowering: &Lowering<'_>, span: Span) -> (u32, u32) {
    let (first, last) = lowering.dockerfile.source.line_range(span);
    (
        u32::try_from(first).unwrap_or(u32::MAX),
        u32::try_from(last).unwrap_or(u32::MAX),
    )
}
