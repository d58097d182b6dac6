//! One stage after the other: state, step numbers and names, the dispatch to the rooms of the instructions.

use std::collections::{HashMap, HashSet};

use solver::graph::{Input, InputView, Label, VertexId};
use solver::op::Op;

use super::base::{State, inherit, lines, source, stage_name, stage_place, start};
use super::plan::{Origin, Plan, PlannedStage};
use super::reference::Reference;
use super::{Lowering, MAX_VERTICES, config, copy, run, scan};
use crate::ast::{Dockerfile, Instruction, Kind};
use crate::config::History;
use crate::diagnostic::Diagnostic;
use crate::expand::{ExpandError, Expansion, Quotes, expand};
use crate::lines::Text;
use crate::lint::Rule;
use crate::options::Request;
use crate::parse::keyword;
use crate::platform::Platform;
use crate::source::Span;

/// Longest name of a step whose variables are filled in: what is written is held once more for each level of nesting.
const MAX_EXPANDED_NAME_BYTES: usize = 64 << 10;

/// How many findings may come with a suggestion.
pub(super) const MAX_SUGGESTIONS: usize = 200;

/// The stage that is being lowered.
pub(super) struct Current<'a, 'b> {
    pub(super) lowering: &'a mut Lowering<'b>,
    pub(super) plan: &'a Plan,
    pub(super) index: usize,
    pub(super) state: State,
    /// What the stages before this one came to.
    stages: &'a [Option<State>],
    /// The running instruction came from the base: no lint, and mistakes are reported at the FROM line.
    pub(super) is_trigger: bool,
    /// Start of step names, as in `build`; empty in a file with one stage.
    title: String,
    n_steps: usize,
    step: usize,
    /// How often each instruction was seen.
    ordinals: HashMap<String, usize>,
    ignore_cache: bool,
    /// The running instruction depends on something that isn't known yet.
    is_uncertain: bool,
    /// Where the last instruction of each kind of which only the last counts stands.
    last: HashMap<&'static str, Span>,
}

/// Lowers what the target reaches; returns the target's state, or `None` when there were errors.
pub(super) fn lower_all(lowering: &mut Lowering<'_>, plan: &Plan) -> Option<State> {
    let mut states: Vec<Option<State>> = vec![None; plan.stages.len()];
    for index in 0..plan.stages.len() {
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
    let mut state = state;
    if is_unknown(lowering, &plan.stages[index]) {
        state.forget_base();
    }
    let mut current = Current {
        index,
        state,
        is_uncertain: false,
        last: HashMap::new(),
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
    let state = current.state;
    scan::note(lowering, plan, index, &state);
    state
}

/// Says whether what a stage starts from is still to be found out.
fn is_unknown(lowering: &Lowering<'_>, stage: &PlannedStage) -> bool {
    stage.is_broken
        || match (&stage.base, lowering.unknown) {
            (Origin::Image(request), Some(unknown)) => unknown.contains_key(&Request::Image(request.clone())),
            _ => false,
        }
}

/// Returns after which step of a stage the build stops, if that is asked for.
fn stop_after(lowering: &mut Lowering<'_>, plan: &Plan, index: usize, n_steps: usize) -> Option<usize> {
    let until = lowering.options.until.as_ref().filter(|_| index == plan.target)?;
    let step = until.step?;
    // The triggers of an image that isn't known are steps, too.
    let is_certain = !is_unknown(lowering, &plan.stages[index]);
    if step == 0 || (is_certain && step > n_steps) {
        let stage = stage_name(lowering, index);
        let message = format!("stage \"{stage}\" has no step {step}, it has {n_steps}");
        lowering
            .diagnostics
            .push(Diagnostic::error(message).at(lowering.dockerfile.stages[index].span));
    }
    Some(step)
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
            if std::mem::take(&mut self.is_uncertain)
                && matches!(instruction.kind, Kind::Arg(_) | Kind::Env(_) | Kind::Workdir(_))
            {
                // What it would have set is unknown as well.
                self.state.forget_base();
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
                self.is_uncertain |= matches!(error, ExpandError::Unknown(_));
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
        let mut told = HashSet::new();
        for name in expansion.unset.iter().filter(|name| told.insert(name.as_str())) {
            if self.state.args.get(name).is_none() {
                let message = format!("usage of undefined variable '${name}'");
                let warning = Diagnostic::warning(Rule::UndefinedVar, message).at(text.span);
                // Looking for what was meant is dear where a file has thousands of both, and nobody would read it.
                let warning = if self.lowering.diagnostics.len() < MAX_SUGGESTIONS {
                    warning.suggest(name, self.state.env.names().chain(self.state.args.names()))
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
        if self.is_uncertain {
            return;
        }
        if self.is_trigger {
            error.span = Some(self.lowering.dockerfile.stages[self.index].span);
        }
        let is_full = self.lowering.diagnostics.omitted() > 0;
        if is_full || !self.lowering.diagnostics.contains(&error) {
            self.lowering.diagnostics.push(error);
        }
    }

    /// Warns of the earlier one of two instructions of which only the later counts.
    pub(super) fn only_last_counts(&mut self, instruction: &Instruction) {
        let name = match &instruction.kind {
            Kind::Cmd(_) => "CMD",
            Kind::Entrypoint(_) => "ENTRYPOINT",
            Kind::Healthcheck(_) => "HEALTHCHECK",
            _ => return,
        };
        if self.is_trigger {
            return;
        }
        if let Some(earlier) = self.last.insert(name, instruction.span) {
            let message = format!(
                "multiple {name} instructions should not be used in the same stage because only the last one will be used"
            );
            self.warn(Diagnostic::warning(Rule::MultipleInstructionsDisallowed, message).at(earlier));
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
