//! AST to graph: the target's stages and what they need, as ops.
//!
//! Stages that the target doesn't reach are planned, but not lowered; their images are not asked for.
//! Spec: dockerfile.md §7, §8, §13.

mod base;
mod config;
mod copy;
mod early;
mod epoch;
mod globals;
mod history;
mod mount;
pub(crate) mod parameters;
mod plan;
mod ports;
mod reference;
mod remote;
mod run;
mod scan;
mod signal;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use solver::graph::Graph;

use epoch::Epoch;
use parameters::Parameters;
pub use remote::{git_commit, http_file};

use crate::ast::{Dockerfile, Kind};
use crate::check::{Check, Checks};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::directive;
use crate::expand::Variables;
use crate::lint::Rule;
use crate::options::{Answers, Build, Lowered, Needed, Options, Request, Scans};
use crate::source::Span;

/// Variables that the builder itself looks at, so that giving them is never a mistake.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Says whether a build argument is one of the predefined proxies, which have no part in what is built.
pub fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name)
}

/// Returns the arguments that are there without being declared.
#[cfg(test)]
pub(crate) fn arguments() -> impl Iterator<Item = &'static str> {
    PROXIES.into_iter().chain(globals::AUTOMATIC)
}

/// Adds the steps of a Dockerfile to a graph, or says what has to be known for that; then nothing was added. A build for
/// several platforms lowers the file onto one graph once for each: what is the same for all folds.
///
/// `answers` must hold the answers to all earlier requests; normally one round is enough, triggers of base images
/// may ask for another. Errors come with the warnings found before them.
pub fn lower(
    dockerfile: &Dockerfile,
    options: &Options,
    answers: &Answers,
    graph: &mut Graph,
) -> Result<Lowered, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let checks = effective_checks(dockerfile, options, &mut diagnostics);
    diagnostics.append(dockerfile.warnings.clone());
    let heard = |diagnostics: &mut Diagnostics| {
        checks.filter(diagnostics);
        diagnostics.sort();
    };
    let lowered = Lowering::begin(dockerfile, options, answers, graph, diagnostics)
        .and_then(|(lowering, plan)| lowering.complete(&plan));
    match lowered {
        Ok(Lowered::Ready(mut build)) => {
            heard(&mut build.warnings);
            match checks.violation(&build.warnings) {
                None => Ok(Lowered::Ready(build)),
                Some(violation) => {
                    build.warnings.push(violation);
                    Err(build.warnings)
                }
            }
        }
        Ok(need) => Ok(need),
        Err(mut diagnostics) => {
            heard(&mut diagnostics);
            Err(diagnostics)
        }
    }
}

/// What a file says without being built.
pub(crate) struct Survey {
    /// What is wrong, and what could be better, as far as it is heard.
    pub(crate) diagnostics: Diagnostics,
    /// What the stages that were looked at take.
    pub(crate) parameters: Parameters,
    /// Arguments before the first FROM, with their values.
    pub(crate) globals: Variables,
    /// What would have to be known to say more.
    pub(crate) unknown: Vec<Needed>,
    /// The target, and for each stage whether it needs it.
    pub(crate) target: usize,
    pub(crate) reached: Vec<bool>,
}

/// Looks at a file as lowering does, with nothing but `answers` known of the outside. What depends on the rest is left
/// alone.
pub(crate) fn survey(dockerfile: &Dockerfile, options: &Options, answers: &Answers) -> Survey {
    let mut diagnostics = Diagnostics::default();
    let checks = effective_checks(dockerfile, options, &mut diagnostics);
    diagnostics.append(dockerfile.warnings.clone());
    let mut graph = Graph::new();
    let mut survey = match Lowering::begin(dockerfile, options, answers, &mut graph, diagnostics) {
        Ok((lowering, plan)) => early::look(lowering, &plan),
        Err(diagnostics) => Survey {
            diagnostics,
            parameters: Parameters::default(),
            globals: Variables::default(),
            unknown: Vec::new(),
            target: 0,
            reached: Vec::new(),
        },
    };
    checks.filter(&mut survey.diagnostics);
    survey.diagnostics.sort();
    survey
}

impl<'a> Lowering<'a> {
    /// Settles what the text alone decides: arguments, stages, and what they need. What is found is added to
    /// `diagnostics`.
    fn begin(
        dockerfile: &'a Dockerfile,
        options: &'a Options,
        answers: &'a Answers,
        graph: &'a mut Graph,
        mut diagnostics: Diagnostics,
    ) -> Result<(Self, plan::Plan), Diagnostics> {
        let syntax = dockerfile.directives.syntax.as_ref();
        if let Some(error) = directive::refuse_syntax(syntax, options) {
            diagnostics.push(error);
        }
        let mut globals = globals::evaluate(dockerfile, options, &mut diagnostics);
        let settled = epoch::settle(dockerfile, options, &globals, answers);
        let settled = settled.unwrap_or_else(|error| {
            diagnostics.push(error);
            Epoch::Unset
        });
        let epoch = settled.seconds();
        if globals.get(epoch::NAME).is_some() || options.build_arg(epoch::NAME).is_some() {
            globals.set(
                epoch::NAME,
                &epoch.map(|seconds| seconds.to_string()).unwrap_or_default(),
            );
        }
        let plan = plan::Plan::new(dockerfile, options, &globals, answers, &mut diagnostics);
        let Some(mut plan) = plan else {
            return Err(diagnostics);
        };
        if let Epoch::Of(request, span) = settled {
            plan.needs.entry(request).or_insert(span);
        }
        plan.check_unreached(dockerfile, options, &mut diagnostics);
        let lowering = Lowering {
            dockerfile,
            options,
            answers,
            globals,
            epoch,
            graph,
            unknown: None,
            late: BTreeMap::new(),
            contexts: BTreeSet::new(),
            diagnostics,
            parameters: Parameters::default(),
            scans: Scans::default(),
            spent_bytes: 0,
        };
        Ok((lowering, plan))
    }

    /// Lowers what is planned, or says what has to be known for that.
    fn complete(self, plan: &plan::Plan) -> Result<Lowered, Diagnostics> {
        if !plan.needs.is_empty() {
            let diagnostics = early::find_errors(self, plan);
            if diagnostics.has_errors() {
                return Err(diagnostics);
            }
            return Ok(Lowered::Need(early::needed(&plan.needs)));
        }
        if !early::may_fetch(self.dockerfile, plan) {
            return finish(self, plan);
        }
        let (needs, lowering) = early::find_needs(self, plan)?;
        if needs.is_empty() {
            return finish(lowering, plan);
        }
        Ok(Lowered::Need(early::needed(&needs)))
    }
}

/// Lowers what is planned, everything that it needs being known.
fn finish(mut lowering: Lowering<'_>, plan: &plan::Plan) -> Result<Lowered, Diagnostics> {
    let (dockerfile, options, epoch) = (lowering.dockerfile, lowering.options, lowering.epoch);
    let Some(state) = stage::lower_all(&mut lowering, plan) else {
        return Err(lowering.diagnostics);
    };
    warn_of_unused_args(dockerfile, options, plan, &mut lowering.diagnostics);
    let n_base_history = state.n_base_history;
    let mut config = state.config;
    for (name, value) in &options.labels {
        config.config.labels.insert(name.clone(), value.clone());
    }
    Ok(Lowered::Ready(Box::new(Build {
        target: state.vertex,
        config,
        n_base_history,
        contexts: lowering.contexts,
        scans: lowering.scans,
        warnings: lowering.diagnostics,
        epoch,
    })))
}

/// What is shared by all stages while the graph grows.
struct Lowering<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    answers: &'a Answers,
    globals: Variables,
    epoch: Option<i64>,
    graph: &'a mut Graph,
    /// What turned out to be needed while the graph was made.
    late: BTreeMap<Request, Span>,
    /// What has only stand-ins among the answers.
    unknown: Option<&'a BTreeMap<Request, Span>>,
    contexts: BTreeSet<String>,
    diagnostics: Diagnostics,
    /// What the stages take.
    parameters: Parameters,
    /// What a list of contents is to look at besides.
    scans: Scans,
    /// Text made from variables so far: a few lines can double a value again and again.
    spent_bytes: usize,
}

/// Returns what a list costs in memory, given the lengths of its entries.
fn weight(lengths: impl Iterator<Item = usize>) -> usize {
    /// What an entry takes beside its text.
    const ENTRY_BYTES: usize = 64;
    lengths.map(|length| length + ENTRY_BYTES).sum()
}

/// Most text that one build makes from variables and from what stages inherit, and most work of making it.
const MAX_EXPANDED_BYTES: usize = 128 << 20;

/// Most variables of one stage: no system starts a process with as many.
const MAX_VARIABLES: usize = 100_000;

/// Most vertices of one build.
const MAX_VERTICES: usize = 100_000;

fn too_much_text() -> Diagnostic {
    let message = format!("the variables of this build expand to more than {MAX_EXPANDED_BYTES} bytes");
    Diagnostic::error(message)
}

impl Lowering<'_> {
    /// Returns the value of a build argument. For SOURCE_DATE_EPOCH that is the number, when a name was given.
    fn build_arg(&self, name: &str) -> Option<&str> {
        let given = self.options.build_arg(name)?;
        if name == epoch::NAME {
            return self.globals.get(name);
        }
        Some(given)
    }

    /// Says whether going on would only cost more.
    fn is_exhausted(&self) -> bool {
        self.spent_bytes > MAX_EXPANDED_BYTES
            || (self.diagnostics.omitted() > 0 && self.diagnostics.has_errors())
    }

    /// Ends the lowering with an error.
    fn exhaust(&mut self, message: String) -> Diagnostic {
        self.spent_bytes = usize::MAX;
        Diagnostic::error(message)
    }

    fn spend(&mut self, n_bytes: usize) -> Result<(), Diagnostic> {
        self.spent_bytes = self.spent_bytes.saturating_add(n_bytes);
        if self.spent_bytes > MAX_EXPANDED_BYTES {
            return Err(too_much_text());
        }
        Ok(())
    }
}

fn effective_checks(dockerfile: &Dockerfile, options: &Options, diagnostics: &mut Diagnostics) -> Checks {
    let Some(value) = options.build_arg("BUILDKIT_DOCKERFILE_CHECK") else {
        return dockerfile.checks.clone();
    };
    let check = Check::parse(value).unwrap_or_else(|message| {
        diagnostics.push(Diagnostic::error(message).help("see the build argument BUILDKIT_DOCKERFILE_CHECK"));
        Check::default()
    });
    check.warn_of_unknown(None, diagnostics);
    dockerfile.checks.replaced(check)
}

/// Warns of build arguments that nothing declares.
fn warn_of_unused_args(
    dockerfile: &Dockerfile,
    options: &Options,
    plan: &plan::Plan,
    diagnostics: &mut Diagnostics,
) {
    let stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let triggers = plan.stages.iter().flat_map(|stage| &stage.triggers);
    let declared: BTreeSet<&str> = dockerfile
        .globals
        .iter()
        .chain(stages)
        .chain(triggers)
        .filter_map(|instruction| match &instruction.kind {
            Kind::Arg(args) => Some(args),
            _ => None,
        })
        .flatten()
        .map(|arg| arg.name.value.as_str())
        .collect();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for (name, _) in &options.build_args {
        let known = PROXIES.contains(&name.as_str())
            || name.starts_with("BUILDKIT_")
            || name == "SOURCE_DATE_EPOCH"
            || globals::is_automatic(name)
            || declared.contains(name.as_str());
        if !known && told.insert(name) {
            let message = format!("build argument {name} is not declared by any ARG");
            let known = declared.iter().copied().chain(globals::AUTOMATIC);
            diagnostics.push(Diagnostic::warning(Rule::UnusedBuildArg, message).suggest(name, known));
        }
    }
}
