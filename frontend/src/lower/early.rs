//! Mistakes that show before anything outside is known: the file is lowered with stand-ins for what is missing, and
//! only the errors are kept. So nothing is fetched for a file that can't be built, and all its errors come together.
//!
//! What an unknown image decides is left alone: its variables, its working directory. An instruction that depends on
//! those is judged when the image is known.

use std::collections::{BTreeMap, BTreeSet};

use cache::Digest;
use solver::graph::Graph;

use super::parameters::Parameters;
use super::plan::Plan;
use super::{Lowering, Survey, stage, warn_of_unused_args};
use crate::ast::{Dockerfile, Kind};
use crate::config::ImageConfig;
use crate::diagnostic::Severity;
use crate::options::{Answers, Needed, Request, ResolvedGit, ResolvedHttp, ResolvedImage, Scans};
use crate::parse::remote;
use crate::source::Span;

/// The working directory that an unknown image has: no path can hold its name, and `..` doesn't reach the root soon.
pub(super) const UNKNOWN_DIRECTORY: &str = "/\0/\0/\0/\0/\0/\0/\0/\0";

/// Adds the errors of the reached stages to `lowering.diagnostics`. What came into the graph is worth nothing.
pub(super) fn find_errors(lowering: Lowering<'_>, plan: &Plan) -> crate::Diagnostics {
    let answers = stand_ins(lowering.answers, &plan.needs);
    let n_before = lowering.diagnostics.len();
    let mut graph = Graph::new();
    let mut lowering = Lowering {
        answers: &answers,
        graph: &mut graph,
        unknown: Some(&plan.needs),
        ..lowering
    };
    stage::lower_all(&mut lowering, plan);
    let mut diagnostics = lowering.diagnostics;
    let mut at = 0;
    diagnostics.retain(|diagnostic| {
        at += 1;
        at <= n_before || diagnostic.severity == Severity::Error
    });
    diagnostics
}

/// Says whether a reached stage may have a source that is fetched: only then it is worth looking twice.
pub(super) fn may_fetch(dockerfile: &Dockerfile, plan: &Plan) -> bool {
    let reached = (0..plan.stages.len()).filter(|index| plan.stages[*index].reached);
    reached
        .flat_map(|index| plan.instructions(index, dockerfile))
        .any(|instruction| match &instruction.kind {
            Kind::Add(add) => add
                .sources
                .iter()
                .any(|source| source.value.contains('$') || remote(&source.value).is_some()),
            _ => false,
        })
}

/// What is still needed, and the lowering to go on with when that is nothing.
type Needs<'a> = (BTreeMap<Request, Span>, Lowering<'a>);

/// Finds out which fetched sources aren't known yet, which takes making the graph: their addresses may come from
/// variables. The graph of `lowering` stays as it is.
pub(super) fn find_needs<'a>(lowering: Lowering<'a>, plan: &Plan) -> Result<Needs<'a>, crate::Diagnostics> {
    let mut graph = Graph::new();
    let mut trial = Lowering {
        globals: lowering.globals.clone(),
        graph: &mut graph,
        late: BTreeMap::new(),
        contexts: BTreeSet::new(),
        diagnostics: lowering.diagnostics.clone(),
        parameters: Parameters::default(),
        dockerfile: lowering.dockerfile,
        options: lowering.options,
        answers: lowering.answers,
        epoch: lowering.epoch,
        unknown: None,
        scans: Scans::default(),
        spent_bytes: lowering.spent_bytes,
    };
    stage::lower_all(&mut trial, plan);
    if trial.diagnostics.has_errors() {
        return Err(trial.diagnostics);
    }
    let needs = std::mem::take(&mut trial.late);
    Ok((needs, lowering))
}

/// Lowers the reached stages and keeps all that was found.
pub(super) fn look(lowering: Lowering<'_>, plan: &Plan) -> Survey {
    let answers = stand_ins(lowering.answers, &plan.needs);
    let mut lowering = Lowering {
        answers: &answers,
        unknown: Some(&plan.needs),
        ..lowering
    };
    stage::lower_all(&mut lowering, plan);
    warn_of_unused_args(
        lowering.dockerfile,
        lowering.options,
        plan,
        &mut lowering.diagnostics,
    );
    Survey {
        diagnostics: lowering.diagnostics,
        parameters: lowering.parameters,
        globals: lowering.globals,
        unknown: needed(&plan.needs),
        target: plan.target,
        reached: plan.stages.iter().map(|stage| stage.reached).collect(),
    }
}

/// Returns what is needed as a list.
pub(super) fn needed(needs: &BTreeMap<Request, Span>) -> Vec<Needed> {
    let needed = |(request, span): (&Request, &Span)| Needed {
        request: request.clone(),
        span: *span,
    };
    needs.iter().map(needed).collect()
}

/// Returns the answers with something in the place of those that are missing.
fn stand_ins(answers: &Answers, needs: &BTreeMap<Request, Span>) -> Answers {
    let mut answers = answers.clone();
    for request in needs.keys() {
        match request {
            Request::Image(request) => {
                let image = ResolvedImage {
                    config: ImageConfig::default(),
                    layers: Vec::new(),
                    reference: request.reference.clone(),
                };
                answers.images.insert(request.clone(), image);
            }
            Request::Git(request) => {
                let commit = ResolvedGit {
                    commit: "0".repeat(40),
                    reference: String::new(),
                    time: None,
                };
                answers.git.insert(request.clone(), commit);
            }
            Request::Http(request) => {
                let file = ResolvedHttp {
                    digest: Digest::of(b""),
                    last_modified: None,
                };
                answers.http.insert(request.clone(), file);
            }
        }
    }
    answers
}
