//! Warns of wildcards of COPY and ADD that match nothing in a context: allowed, and as a rule a misspelling. Spec:
//! dockerfile.md §21, quirk 11.
//!
//! Looks at scanned contexts only: what a stage holds is known when it has run, and then it isn't news any more.

use std::collections::{BTreeMap, BTreeSet};

use cache::tree::View;
use frontend::{Diagnostic, Diagnostics, Rule, SourceText, Span};
use solver::InputView;
use solver::graph::{Graph, Label};
use solver::op::{Op, Source};

/// Returns a warning for each wildcard without a match, in the order of the graph; one for all platforms.
pub(crate) fn check(graph: &Graph, contexts: &BTreeMap<String, View>, source: &SourceText) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    let mut seen = BTreeSet::new();
    for vertex in graph.ids().map(|id| graph.vertex(id)) {
        for input in &vertex.inputs {
            let (Op::Source(Source::Local { name }), InputView::Paths(selection), Op::File(_)) =
                (&graph.vertex(input.vertex).op, &input.view, &vertex.op)
            else {
                continue;
            };
            // What else is wrong with a selection is said where it is used.
            let unmatched = contexts.get(name).map(|tree| tree.unmatched(selection));
            for pattern in unmatched.into_iter().flatten().flatten() {
                if seen.insert((vertex.label.line, pattern)) {
                    let pattern = pattern.trim_start_matches('/');
                    let message = format!("`{pattern}` matches no file, so nothing is copied for it");
                    let warning = Diagnostic::warning(Rule::CopyWildcardNoMatch, message);
                    diagnostics.push(match place(&vertex.label, pattern, source) {
                        Some(span) => warning.at(span),
                        None => warning,
                    });
                }
            }
        }
    }
    diagnostics
}

/// Finds a pattern in the lines of its instruction; what was expanded from variables isn't there.
fn place(label: &Label, pattern: &str, source: &SourceText) -> Option<Span> {
    let first = usize::try_from(label.line?).ok()?.checked_sub(1)?;
    let last = label.last_line.and_then(|line| usize::try_from(line).ok());
    let mut at = 0;
    let mut whole = None;
    for (number, line) in source.text().split_inclusive('\n').enumerate() {
        if number >= first && number < last.unwrap_or(first + 1) {
            if let Some(found) = line.find(pattern) {
                return Some(Span {
                    start: at + found,
                    end: at + found + pattern.len(),
                });
            }
            whole.get_or_insert(Span {
                start: at,
                end: at + line.trim_end().len(),
            });
        }
        at += line.len();
    }
    whole
}
