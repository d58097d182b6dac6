//! Mistakes that show before anything outside is known: the file is lowered with stand-ins for what is missing, and
//! only the errors are kept. So nothing is fetched for a file that can't be built, and all its errors come together.
//!
//! What an unknown image decides is left alone: its variables, its working directory. An instruction that depends on
//! those is judged when the image is known.

use std::collections::BTreeMap;

use cache::Digest;
use solver::graph::Graph;

use super::plan::Plan;
use super::{Lowering, Survey, stage, warn_of_unused_args};
use crate::config::ImageConfig;
use crate::diagnostic::Severity;
use crate::options::{Answers, Needed, Request, ResolvedGit, ResolvedHttp, ResolvedImage};
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
