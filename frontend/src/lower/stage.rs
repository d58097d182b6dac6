//! One stage after the other: state, step numbers and names, the dispatch to the rooms of the instructions.

use std::collections::HashMap;

use cache::tree::Selection;
use solver::graph::{Input, InputView, Label, VertexId};
use solver::op::{self, FileAction, FileOp, MetaChange, Op, Source};

use super::plan::{Origin, Plan, PlannedStage, Reference};
use super::{Lowering, MAX_VERTICES, config, copy, run, weight};
use crate::ast::{Dockerfile, Instruction, Kind};
use crate::config::{History, ImageConfig};
use crate::diagnostic::Diagnostic;
use crate::expand::{Expansion, Quotes, Variables, expand};
use crate::lines::Text;
use crate::parse::keyword;
use crate::platform::Platform;
use crate::source::Span;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longest name of a step whose variables are filled in: what is written is held once more for each level of nesting.
const MAX_EXPANDED_NAME_BYTES: usize = 64 << 10;

/// How many findings may come with a suggestion.
pub(super) const MAX_SUGGESTIONS: usize = 200;

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
}

/// The stage that is being lowered.
pub(super) struct Current<'a, 'b> {
    pub(super) lowering: &'a mut Lowering<'b>,
    pub(super) plan: &'a Plan,
    pub(super) index: usize,
    pub(super) state: State,
    /// What the stages before this one came to.
    stages: &'a [Option<State>],
    /// The running instruction came from the base: no lint, and mistakes are reported at the FROM line.
    is_trigger: bool,
    /// Start of step names, as in `build`; empty in a file with one stage.
    title: String,
    n_steps: usize,
    step: usize,
    /// How often each instruction was seen.
    ordinals: HashMap<String, usize>,
    ignore_cache: bool,
}

/// Lowers what the target reaches; returns the target's state, or `None` when there were errors.
pub(super) fn lower_all(lowering: &mut Lowering<'_>, plan: &Plan) -> Option<State> {
    let mut states: Vec<Option<State>> = vec![None; plan.stages.len()];
    for index in 0..=plan.target {
        if plan.stages[index].reached {
            let state = lower_stage(lowering, plan, index, &states);
            states[index] = Some(state);
        }
        if lowering.is_exhausted() {
            break;
        }
    }
    let target = states[plan.target].take();
    let mut target = target.filter(|_| !lowering.diagnostics.has_errors())?;
    let env = target
        .image_env
        .list()
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    target.config.config.env = env.collect();
    Some(target)
}

fn lower_stage(lowering: &mut Lowering<'_>, plan: &Plan, index: usize, stages: &[Option<State>]) -> State {
    let dockerfile = lowering.dockerfile;
    let span = dockerfile.stages[index].span;
    let PlannedStage {
        base,
        platform,
        triggers,
        ..
    } = &plan.stages[index];
    if platform.os != "linux" {
        let message = format!("platform {platform} is not supported, only linux images can be built");
        lowering.diagnostics.push(Diagnostic::error(message).at(span));
    }
    let is_step = |kind: &Kind| {
        matches!(
            kind,
            Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_)
        )
    };
    let is_image = matches!(base, Origin::Image(_) | Origin::Directory(_));
    let steps = plan
        .instructions(index, dockerfile)
        .filter(|instruction| is_step(&instruction.kind));
    let n_steps = usize::from(is_image) + steps.count();
    let title = title(lowering, index, platform);
    let state = match base {
        Origin::Stage(base) => inherit(lowering, stages[*base].as_ref()),
        origin => {
            let number = if is_image {
                format!("1/{n_steps}")
            } else {
                String::new()
            };
            let title = format!("{title}{number}");
            let prefix = if title.is_empty() {
                String::new()
            } else {
                format!("[{}] ", title.trim_end())
            };
            start(lowering, origin, platform, index, &prefix)
        }
    };
    let mut current = Current {
        index,
        state,
        stages,
        is_trigger: false,
        title,
        n_steps,
        step: usize::from(is_image),
        ordinals: HashMap::new(),
        ignore_cache: ignores_cache(lowering, index),
        plan,
        lowering,
    };
    current.state.config.config.on_build.clear();
    current.run(dockerfile, triggers.len());
    current.state
}

/// Returns after which step of a stage the build stops, if that is asked for.
fn stop_after(lowering: &mut Lowering<'_>, plan: &Plan, index: usize, n_steps: usize) -> Option<usize> {
    let until = lowering.options.until.as_ref().filter(|_| index == plan.target)?;
    let step = until.step?;
    if step == 0 || step > n_steps {
        let stage = stage_name(lowering, index);
        let message = format!("stage \"{stage}\" has no step {step}, it has {n_steps}");
        lowering
            .diagnostics
            .push(Diagnostic::error(message).at(lowering.dockerfile.stages[index].span));
    }
    Some(step)
}

/// Returns the state that a stage leaves to one that is based on it.
fn inherit(lowering: &mut Lowering<'_>, base: Option<&State>) -> State {
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

fn ignores_cache(lowering: &Lowering<'_>, index: usize) -> bool {
    let name = lowering.dockerfile.stages[index].name.as_ref();
    let filters = &lowering.options.no_cache_filter;
    lowering.options.no_cache
        || name.is_some_and(|name| {
            filters
                .iter()
                .any(|filter| filter.eq_ignore_ascii_case(&name.value))
        })
}

/// Returns what a stage is called.
fn stage_name(lowering: &Lowering<'_>, index: usize) -> String {
    let name = lowering.dockerfile.stages[index].name.as_ref();
    name.map_or_else(|| format!("stage-{index}"), |name| name.value.clone())
}

/// Returns what stands for a stage in the places of its steps, the same from build to build.
fn stage_place(lowering: &Lowering<'_>, index: usize) -> String {
    let name = stage_name(lowering, index);
    if lowering.options.is_multi_platform {
        format!("{} {name}", lowering.options.target_platform)
    } else {
        name
    }
}

/// Returns how the names of a stage's steps start.
fn title(lowering: &Lowering<'_>, index: usize, platform: &Platform) -> String {
    let target = &lowering.options.target_platform;
    let mut title = String::new();
    if platform != target {
        title = format!("{platform}->{} ", target.architecture);
    } else if lowering.options.is_multi_platform {
        title = format!("{platform} ");
    }
    if lowering.dockerfile.stages.len() > 1 {
        title.push_str(&stage_name(lowering, index));
        title.push(' ');
    }
    title
}

/// Returns the state that a tree from outside begins with.
fn start(
    lowering: &mut Lowering<'_>,
    origin: &Origin,
    platform: &Platform,
    index: usize,
    prefix: &str,
) -> State {
    let (mut config, reference) = match origin {
        Origin::Image(request) => {
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
    }
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
fn source(lowering: &mut Lowering<'_>, origin: &Origin, label: Label) -> VertexId {
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

fn lines(lowering: &Lowering<'_>, span: Span) -> (u32, u32) {
    let (first, last) = lowering.dockerfile.source.line_range(span);
    (
        u32::try_from(first).unwrap_or(u32::MAX),
        u32::try_from(last).unwrap_or(u32::MAX),
    )
}

impl Current<'_, '_> {
    /// Lowers the stage's instructions, the triggers first.
    fn run(&mut self, dockerfile: &Dockerfile, n_triggers: usize) {
        let plan = self.plan;
        let until = stop_after(self.lowering, self.plan, self.index, self.n_steps);
        for (at, instruction) in plan.instructions(self.index, dockerfile).enumerate() {
            if until.is_some_and(|until| self.step >= until) {
                break;
            }
            self.is_trigger = at < n_triggers;
            if let Err(error) = self.instruction(instruction) {
                let span = error.span.or(Some(instruction.span));
                self.report(Diagnostic { span, ..error });
            }
            if self.lowering.is_exhausted() {
                break;
            }
        }
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), Diagnostic> {
        match &instruction.kind {
            Kind::Run(run) => run::lower(self, instruction, run),
            Kind::Copy(copy) => copy::lower(self, instruction, copy, copy::Flavour::Copy),
            Kind::Add(add) => copy::lower(self, instruction, add, copy::Flavour::Add),
            Kind::Workdir(path) => copy::workdir(self, instruction, path),
            _ => config::lower(self, instruction),
        }
    }

    /// Returns the tree that `--from` means.
    pub(super) fn origin(&mut self, reference: &Reference<'_>) -> Result<VertexId, Diagnostic> {
        let origin = self.plan.resolve(
            reference,
            self.index,
            self.lowering.dockerfile,
            self.lowering.options,
        )?;
        match origin {
            Origin::Stage(index) => {
                let stage = self.stages[index].as_ref();
                Ok(stage
                    .expect("because a stage that is copied from was reached, and stands before this one")
                    .vertex)
            }
            other => Ok(self.source(&other)),
        }
    }

    /// Adds a tree from outside that isn't the stage's base.
    pub(super) fn source(&mut self, origin: &Origin) -> VertexId {
        let name = match origin {
            Origin::Image(request) => format!("FROM {}", self.lowering.answers.images[request].reference),
            _ => "scratch".to_owned(),
        };
        let label = Label {
            step: name.clone(),
            name,
            line: None,
            last_line: None,
            ignore_cache: false,
        };
        source(self.lowering, origin, label)
    }

    fn escape(&self) -> char {
        if self.is_trigger {
            self.plan.stages[self.index].trigger_escape
        } else {
            self.lowering.dockerfile.directives.escape
        }
    }

    /// Expands a word of the running instruction; unknown variables are worth a warning.
    pub(super) fn expand(&mut self, text: &Text) -> Result<String, Diagnostic> {
        self.expand_to(text, Quotes::Remove)
            .map(|expansion| expansion.text)
    }

    /// Expands, and returns everything that is known about the result.
    pub(super) fn expand_to(&mut self, text: &Text, quotes: Quotes) -> Result<Expansion, Diagnostic> {
        let escape = self.escape();
        let expansion = match expand(&text.value, escape, quotes, &self.state.env) {
            Ok(expansion) => expansion,
            Err(error) => {
                self.lowering.spend(error.steps())?;
                let shown: String = match quotes {
                    // The lines are shown anyway.
                    Quotes::Plain => "the heredoc".to_owned(),
                    _ => format!("\"{}\"", text.value.chars().take(200).collect::<String>()),
                };
                return Err(Diagnostic::error(format!("failed to process {shown}: {error}")).at(text.span));
            }
        };
        self.lowering.spend(expansion.text.len() + expansion.steps)?;
        for name in &expansion.unset {
            if self.state.args.get(name).is_none() {
                let message = format!("usage of undefined variable '${name}'");
                let warning = Diagnostic::warning("UndefinedVar", message).at(text.span);
                // Looking for what was meant is dear where a file has thousands of both, and nobody would read it.
                let warning = if self.lowering.diagnostics.len() < MAX_SUGGESTIONS {
                    warning.suggest(name, self.state.env.names())
                } else {
                    warning
                };
                self.warn(warning);
            }
        }
        Ok(expansion)
    }

    /// Adds an error, unless planning found it already. One in a trigger is reported at the FROM line.
    pub(super) fn report(&mut self, mut error: Diagnostic) {
        if self.is_trigger {
            error.span = Some(self.lowering.dockerfile.stages[self.index].span);
        }
        let is_full = self.lowering.diagnostics.omitted() > 0;
        if is_full || !self.lowering.diagnostics.contains(&error) {
            self.lowering.diagnostics.push(error);
        }
    }

    pub(super) fn warn(&mut self, warning: Diagnostic) {
        if !self.is_trigger {
            self.lowering.diagnostics.push(warning);
        }
    }

    /// Returns the label of a step that counts. `text` is its name without the number.
    pub(super) fn label(&mut self, instruction: &Instruction, text: &str) -> Result<Label, Diagnostic> {
        if self.lowering.graph.len() >= MAX_VERTICES {
            return Err(self
                .lowering
                .exhaust(format!("the build has more than {MAX_VERTICES} steps")));
        }
        self.step += 1;
        let (word, rest) = keyword(text);
        let word = word.to_ascii_uppercase();
        let prefix = if self.is_trigger { "ONBUILD " } else { "" };
        let (line, last_line) = lines(self.lowering, instruction.span);
        let key = format!("{} {prefix}{word}", stage_place(self.lowering, self.index));
        let ordinal = self.ordinals.entry(key.clone()).or_default();
        *ordinal += 1;
        let step = format!("{key} {ordinal}");
        let escape = self.escape();
        // A name is for people: what can't be expanded is shown as written, and so is what nobody reads to its end.
        let is_short = rest.len() <= MAX_EXPANDED_NAME_BYTES;
        let expanded = is_short.then(|| expand(rest, escape, Quotes::Keep, &self.state.env));
        let (rest, steps) = match expanded {
            Some(Ok(done)) => (done.text, done.steps),
            Some(Err(error)) => (rest.to_owned(), error.steps()),
            None => (rest.to_owned(), 0),
        };
        self.lowering.spend(rest.len() + steps)?;
        let rest = rest.replace(['\n', '\r'], " ");
        let separator = if rest.is_empty() { "" } else { " " };
        let name = format!(
            "[{}{}/{}] {prefix}{word}{separator}{rest}",
            self.title, self.step, self.n_steps
        );
        Ok(Label {
            name,
            step,
            line: Some(line),
            last_line: Some(last_line),
            ignore_cache: self.ignore_cache && word != "WORKDIR",
        })
    }

    /// Adds a vertex on top of the stage's tree.
    pub(super) fn step(&mut self, op: Op, mut inputs: Vec<Input>, label: Label) {
        inputs.insert(
            0,
            Input {
                vertex: self.state.vertex,
                view: InputView::Whole,
            },
        );
        self.state.vertex = self.lowering.graph.add(op, inputs, label);
    }

    /// Adds a history entry.
    pub(super) fn history(&mut self, created_by: String, empty_layer: bool) -> Result<(), Diagnostic> {
        self.lowering.spend(created_by.len())?;
        let author = self.state.config.author.clone();
        self.state.config.history.push(History {
            created: None,
            created_by,
            author,
            comment: "buildkit.dockerfile.v0".to_owned(),
            empty_layer,
        });
        Ok(())
    }
}
