//! What each room's errors mean for whoever started the build: which kind of failure, where, and what to do.
//!
//! How a failure looks is `report`'s business.

use std::error::Error;
use std::io;

use frontend::{Diagnostics, Severity, SourceText};
use solver::{Graph, SolveError, Subject, VertexId};

use crate::context::ContextError;
use crate::export::ExportError;
use crate::ops::OpError;
use crate::progress::Tails;
use crate::registry::ImageError;
use crate::report::{self, Excerpt, Failure, Kind};

/// Shows what a Dockerfile could do better.
pub(crate) fn show_warnings(diagnostics: &Diagnostics, source: &SourceText) {
    for diagnostic in diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Warning)
    {
        report::rendered(&frontend::render(diagnostic, source, report::stderr_colour()));
    }
}

/// All that is wrong with a Dockerfile.
pub(crate) fn of_diagnostics(diagnostics: &Diagnostics, source: &SourceText) -> Failure {
    let colour = report::stderr_colour();
    let rendered = diagnostics
        .iter()
        .map(|diagnostic| frontend::render(diagnostic, source, colour))
        .collect();
    Failure::rendered(Kind::Build, rendered)
}

/// The store can't be used.
pub(crate) fn of_store(error: &cache::StoreError) -> Failure {
    let failure = Failure::of(Kind::Machine, error);
    match error {
        cache::StoreError::Untrusted { .. } => {
            failure.with_help("choose another place with --root or ASHLAR_ROOT, or repair the owner and mode")
        }
        _ => with_disk_help(failure, error),
    }
}

/// The context or the Dockerfile can't be read.
pub(crate) fn of_context(error: &ContextError) -> Failure {
    match error {
        ContextError::StdinTwice => Failure::of(Kind::Usage, error),
        ContextError::NoDockerfile { .. } => {
            Failure::of(Kind::Build, error).with_help("name the Dockerfile with -f FILE")
        }
        _ => of_machine_or_build(error),
    }
}

/// An image can't be found, fetched, stored or written. What was named wrongly or is broken is the build's failure,
/// what a registry or the machine refuses is the machine's.
pub(crate) fn of_image(error: &ImageError) -> Failure {
    match error {
        ImageError::Reference(_)
        | ImageError::NoPlatform { .. }
        | ImageError::NotAnArchive { .. }
        | ImageError::Malformed { .. }
        | ImageError::BadLayer { .. } => of_machine_or_build(error),
        _ => with_disk_help(Failure::of(Kind::Machine, error), error),
    }
}

/// An output can't be written.
pub(crate) fn of_export(error: &ExportError) -> Failure {
    match error {
        ExportError::Terminal => Failure::of(Kind::Usage, error),
        _ => with_disk_help(Failure::of(Kind::Machine, error), error),
    }
}

/// A step failed, or the build was stopped.
pub(crate) fn of_solve(
    error: &SolveError<OpError>,
    graph: &Graph,
    source: &SourceText,
    tails: &Tails,
) -> Failure {
    match error {
        SolveError::Step {
            vertex,
            source: cause,
            ..
        } => {
            if matches!(cause, OpError::Cancelled) {
                return Failure::cancelled(libc::SIGINT);
            }
            let mut failure = match cause {
                OpError::Image(image) => of_image(image.as_ref()),
                _ => of_machine_or_build(cause),
            };
            if let Some(excerpt) = excerpt(graph, *vertex, source) {
                failure = failure.with_excerpt(excerpt);
            }
            failure.with_tail(tails.tail(&Subject::Vertex(*vertex)).to_vec())
        }
        SolveError::Cancelled => Failure::cancelled(libc::SIGINT),
        SolveError::Index(_) => with_disk_help(Failure::of(Kind::Machine, error), error),
        SolveError::NotLayers { .. } => Failure::of(Kind::Bug, error),
    }
}

/// A full or broken disk is the machine's fault, whatever step met it; the rest is the build's.
fn of_machine_or_build(error: &(dyn Error + 'static)) -> Failure {
    match disk_error(error) {
        Some(_) => with_disk_help(Failure::of(Kind::Machine, error), error),
        None => Failure::of(Kind::Build, error),
    }
}

fn with_disk_help(failure: Failure, error: &(dyn Error + 'static)) -> Failure {
    match disk_error(error) {
        Some(libc::ENOSPC | libc::EDQUOT) => failure
            .with_help("the disk is full: free space, or choose another store with --root or ASHLAR_ROOT"),
        _ => failure,
    }
}

/// Looks through the causes for an error of the disk itself.
fn disk_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let codes = [
        libc::ENOSPC,
        libc::EDQUOT,
        libc::EROFS,
        libc::EIO,
        libc::ENOMEM,
        libc::EMFILE,
        libc::ENFILE,
    ];
    let mut next = Some(error);
    while let Some(error) = next {
        let code = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if code.is_some_and(|code| codes.contains(&code)) {
            return code;
        }
        next = error.source();
    }
    None
}

/// Returns the lines of the instruction that a vertex stands for.
fn excerpt(graph: &Graph, vertex: VertexId, source: &SourceText) -> Option<Excerpt> {
    let label = &graph.vertex(vertex).label;
    let first = label.line? as usize;
    let last = label
        .last_line
        .map_or(first, |line| line as usize)
        .clamp(first, first + 19);
    let lines: Vec<String> = source
        .text()
        .lines()
        .skip(first - 1)
        .take(last + 1 - first)
        .map(str::to_owned)
        .collect();
    let start = lines.first()?.trim_start();
    let column = lines[0].chars().count() - start.chars().count() + 1;
    let width = start
        .split_whitespace()
        .next()
        .map_or(0, |word| word.chars().count());
    Some(Excerpt {
        file: source.name().to_owned(),
        line: first,
        column,
        width,
        label: None,
        lines,
    })
}
