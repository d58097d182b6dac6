//! The rules that look at a file's text alone, beyond a single line of it: names of stages, casing, descriptions.
//!
//! They see all stages, whether a build reaches them or not.

use std::collections::HashSet;

use super::Rule;
use crate::ast::{Instruction, Kind, Stage};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lines::LogicalLine;
use crate::parse::keyword;
use crate::source::Span;

/// Names that mean something else.
const RESERVED: [&str; 2] = ["scratch", "context"];

/// Warns of names of stages that come twice, or mean something else already.
pub(crate) fn stage_names(stages: &[Stage], diagnostics: &mut Diagnostics) {
    let mut seen = HashSet::new();
    for name in stages.iter().filter_map(|stage| stage.name.as_ref()) {
        if !seen.insert(name.value.as_str()) {
            let message = format!(
                "duplicate stage name \"{}\", stage names should be unique",
                name.value
            );
            diagnostics.push(Diagnostic::warning(Rule::DuplicateStageName, message).at(name.span));
        }
        if RESERVED.contains(&name.value.as_str()) {
            let message = format!(
                "stage name should not use the same name as reserved stage \"{}\"",
                name.value
            );
            diagnostics.push(Diagnostic::warning(Rule::ReservedStageName, message).at(name.span));
        }
    }
}

/// Warns of keywords that are written otherwise than most; where there are as many of both, upper case is expected.
pub(crate) fn casing(stages: &[Stage], diagnostics: &mut Diagnostics) {
    let (mut n_lower, mut n_upper) = (0, 0);
    for (word, _) in keywords(stages) {
        n_lower += usize::from(is_lower(word));
        n_upper += usize::from(is_upper(word));
    }
    let majority = if n_lower > n_upper {
        "lowercase"
    } else {
        "uppercase"
    };
    for (word, span) in keywords(stages) {
        let fits = if n_lower > n_upper {
            is_lower(word)
        } else {
            is_upper(word)
        };
        if !fits {
            let message =
                format!("command '{word}' should match the case of the command majority ({majority})");
            diagnostics.push(Diagnostic::warning(Rule::ConsistentInstructionCasing, message).at(span));
        }
    }
}

/// Returns the keyword of each instruction of each stage, FROM included, with its place.
fn keywords(stages: &[Stage]) -> impl Iterator<Item = (&str, Span)> {
    let texts = stages.iter().flat_map(|stage| {
        let own = stage.instructions.iter();
        std::iter::once((stage.text.as_str(), stage.span))
            .chain(own.map(|instruction| (instruction.text.as_str(), instruction.span)))
    });
    // A stage whose FROM could not be read has no text.
    texts.filter(|(text, _)| !text.is_empty()).map(|(text, span)| {
        let (word, _) = keyword(text);
        let end = span.start + word.len();
        (word, Span { end, ..span })
    })
}

fn is_lower(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn is_upper(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Warns of a comment above a named stage that isn't about it.
pub(crate) fn description_of_stage(line: &LogicalLine, stage: &Stage, diagnostics: &mut Diagnostics) {
    if let Some(name) = &stage.name {
        description(line, "FROM", &[&name.value], diagnostics);
    }
}

/// Warns of a comment above an ARG that isn't about one of its arguments.
pub(crate) fn description_of_args(
    line: &LogicalLine,
    instruction: &Instruction,
    diagnostics: &mut Diagnostics,
) {
    if let Kind::Arg(args) = &instruction.kind {
        let names: Vec<&str> = args.iter().map(|arg| arg.name.value.as_str()).collect();
        description(line, "ARG", &names, diagnostics);
    }
}

fn description(line: &LogicalLine, instruction: &str, names: &[&str], diagnostics: &mut Diagnostics) {
    let Some(comment) = line.comments.last() else {
        return;
    };
    let first = comment.value.split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let example = match names {
        [name] => name,
        _ => "<arg_key>",
    };
    let message = format!("comment for {instruction} should follow the format: `# {example} <description>`");
    diagnostics.push(Diagnostic::warning(Rule::InvalidDefinitionDescription, message).at(line.span));
}
