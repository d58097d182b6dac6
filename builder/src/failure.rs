//! What each room's errors mean for whoever started the build: which kind of failure, where, and what to do.
//!
//! How a failure looks is `report`'s business.

use std::error::Error;
use std::io;
use std::ops::Range;

use cache::tree;
use frontend::{Diagnostics, Severity, SourceText, Span};
use solver::graph::Input;
use solver::op::{Op, Source};
use solver::{Graph, SolveError, Subject, VertexId};

use crate::context::ContextError;
use crate::export::ExportError;
use crate::lockfile::LockError;
use crate::ops::OpError;
use crate::progress::Tails;
use crate::registry::{ImageError, LockedError};
use crate::report::{self, Excerpt, Failure, Kind};

/// Most lines of an instruction that an error shows.
const MAX_EXCERPT_LINES: usize = 20;

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

/// A locked image can't be had.
pub(crate) fn of_locked(error: &LockedError) -> Failure {
    match error {
        LockedError::Lock(error) => of_lock(error),
        LockedError::Image(error) => of_image(error),
    }
}

/// The lock file can't be used, or the Dockerfile names what isn't in it.
pub(crate) fn of_lock(error: &LockError) -> Failure {
    const HOW: &str = "`ashlar build --lock` writes the file anew";
    match error {
        LockError::Write { .. } => with_disk_help(Failure::of(Kind::Machine, error), error),
        LockError::Read { .. } => Failure::of(Kind::Machine, error),
        _ => Failure::of(Kind::Build, error).with_help(HOW),
    }
}

/// An output can't be written.
pub(crate) fn of_export(error: &ExportError) -> Failure {
    match error {
        ExportError::Terminal => Failure::of(Kind::Usage, error),
        ExportError::SeveralPlatforms { .. } => {
            Failure::of(Kind::Usage, error).with_help("type=oci holds an image for several platforms")
        }
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
            let failure = of_op(cause, &instruction_name(graph, *vertex));
            let failure = match excerpt(graph, *vertex, source, marked(cause)) {
                Some(excerpt) => failure.with_excerpt(excerpt),
                None => failure,
            };
            failure.with_tail(tails.tail(&Subject::Vertex(*vertex)).to_vec())
        }
        SolveError::Cancelled => Failure::cancelled(libc::SIGINT),
        SolveError::Index(_) => with_disk_help(Failure::of(Kind::Machine, error), error),
        SolveError::NotLayers { .. } => Failure::of(Kind::Bug, error),
    }
}

/// What a step came to. The progress has shown the error as it is; this says it with the instruction, and what to do.
fn of_op(cause: &OpError, instruction: &str) -> Failure {
    match cause {
        OpError::Image(image) => of_image(image.as_ref()),
        OpError::Exit { outcome, foreign, .. } => {
            let failure = Failure::build(format!("{instruction} did not complete successfully: {outcome}"));
            match foreign {
                Some(platform) => failure.with_help(format!(
                    "the step runs programs for {platform}, and this machine has no emulator for them that containers \
                     can use: install an emulator that is registered with the flag F (fix binary), as Debian's \
                     qemu-user-static with binfmt-support does"
                )),
                None => failure,
            }
        }
        OpError::Tree(tree::Error::NotFound { pattern, candidates }) => {
            let failure = Failure::build(format!("{instruction}: {} not found", quoted(pattern)));
            match candidates.as_slice() {
                [] => failure,
                [names @ .., last] if !names.is_empty() => {
                    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
                    failure.with_help(format!("did you mean {} or {}?", names.join(", "), quoted(last)))
                }
                [name, ..] => failure.with_help(format!("did you mean {}?", quoted(name))),
            }
        }
        _ => of_machine_or_build(cause),
    }
}

/// Returns the source that a step did not find in a local tree, after the tree's name.
pub(crate) fn missing_source<'e>(
    error: &'e SolveError<OpError>,
    graph: &'e Graph,
) -> Option<(&'e str, &'e str)> {
    let SolveError::Step { vertex, source, .. } = error else {
        return None;
    };
    let OpError::Tree(tree::Error::NotFound { pattern, .. }) = source else {
        return None;
    };
    let local = |input: &'e Input| match &graph.vertex(input.vertex).op {
        Op::Source(Source::Local { name }) => Some(name.as_str()),
        _ => None,
    };
    let context = graph.vertex(*vertex).inputs.iter().find_map(local)?;
    Some((context, pattern.trim_start_matches('/')))
}

/// Sources are paths from the root of their tree; people write them without the slash.
fn quoted(path: &str) -> String {
    format!("`{}`", path.trim_start_matches('/'))
}

/// Returns the part of the instruction that an error is about, as written.
fn marked(cause: &OpError) -> Option<&str> {
    match cause {
        OpError::Tree(tree::Error::NotFound { pattern, .. }) => Some(pattern.trim_start_matches('/')),
        OpError::User { user, .. } | OpError::OwnerOfNothing { user } => Some(user),
        _ => None,
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

/// Returns the word that the step's instruction begins with: `RUN`.
fn instruction_name(graph: &Graph, vertex: VertexId) -> String {
    let name = &graph.vertex(vertex).label.name;
    let text = name.split_once("] ").map_or(name.as_str(), |(_, text)| text);
    text.split_whitespace().next().unwrap_or("step").to_owned()
}

/// Returns the lines of the instruction that a vertex stands for, with `mark` marked where it is on the first line,
/// else the keyword.
fn excerpt(graph: &Graph, vertex: VertexId, source: &SourceText, mark: Option<&str>) -> Option<Excerpt> {
    let label = &graph.vertex(vertex).label;
    let first = label.line? as usize;
    let last = label
        .last_line
        .map_or(first, |line| line as usize)
        .clamp(first, first + MAX_EXCERPT_LINES - 1);
    let text = source.text().lines().nth(first - 1)?;
    let start = text.len() - text.trim_start().len();
    let keyword = text[start..].split_whitespace().next().unwrap_or_default();
    let after = start + keyword.len();
    let marked = mark.filter(|mark| !mark.is_empty()).and_then(|mark| {
        let at = after + text[after..].find(mark)?;
        Some(at..at + mark.len())
    });
    Some(excerpt_of(source, first, last, marked.unwrap_or(start..after)))
}

/// Returns the line on which a range of the Dockerfile starts, with the range marked.
pub(crate) fn excerpt_of_span(source: &SourceText, span: Span) -> Excerpt {
    let line = source.line_number(span.start);
    let before = source.text().get(..span.start).unwrap_or_default();
    let start = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
    excerpt_of(source, line, line, start..start + (span.end - span.start))
}

/// `marked` is a range of bytes of the first line.
fn excerpt_of(source: &SourceText, first: usize, last: usize, marked: Range<usize>) -> Excerpt {
    let lines: Vec<String> = source
        .text()
        .lines()
        .skip(first.saturating_sub(1))
        .take(last + 1 - first)
        .map(str::to_owned)
        .collect();
    let n_chars = |range: Range<usize>| {
        let text = lines.first().and_then(|line| line.get(range));
        text.map_or(0, |text| text.chars().count())
    };
    Excerpt {
        file: source.name().to_owned(),
        line: first,
        column: n_chars(0..marked.start) + 1,
        width: n_chars(marked),
        label: None,
        lines,
    }
}
