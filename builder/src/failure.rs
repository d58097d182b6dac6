//! What each room's errors mean for whoever started the build: which kind of failure, where, and what to do.
//!
//! How a failure looks is `report`'s business.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::ops::Range;

use cache::tree;
use frontend::{Diagnostics, Severity, SourceText, Span};
use solver::graph::Input;
use solver::op::{Op, Source};
use solver::{Graph, SolveError, Subject, VertexId};

use crate::caches::CacheError;
use crate::context::ContextError;
use crate::engine::EngineError;
use crate::export::ExportError;
use crate::lockfile::LockError;
use crate::ops::OpError;
use crate::progress::Told;
use crate::registry::push::PushError;
use crate::registry::{ImageError, LockedError};
use crate::remedy::{self, Remedy};
use crate::remote::git::GitError;
use crate::remote::http::HttpError;
use crate::report::{self, Excerpt, Failure, Kind};
use crate::sandbox::SandboxError;

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
        cache::StoreError::Io { source, .. } if is_no_place(source.kind()) => {
            failure.with_help("choose another place with --root or ASHLAR_ROOT")
        }
        _ => with_disk_help(failure, error),
    }
}

/// Says whether a store can't be there, whatever is done to the disk.
fn is_no_place(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied | ErrorKind::NotADirectory
    )
}

/// The store can't be tidied up.
pub(crate) fn of_upkeep(error: &crate::upkeep::UpkeepError) -> Failure {
    with_disk_help(Failure::of(Kind::Machine, error), error)
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
        ImageError::MissingLayers { .. } => Failure::of(Kind::Build, error).with_help(
            "an archive made with --since holds what changed: load the older image first, or save this one whole",
        ),
        _ => with_disk_help(Failure::of(Kind::Machine, error), error),
    }
}

/// The layers of a result can't be fetched.
pub(crate) fn of_fetch(error: &OpError) -> Failure {
    match error {
        OpError::Image(image) => of_image(image),
        _ => of_machine_or_build(error),
    }
}

/// A file can't be fetched. What was named wrongly is the build's failure, what the network or the disk refuses is the
/// machine's.
pub(crate) fn of_http(error: &HttpError) -> Failure {
    match error {
        HttpError::Address { .. }
        | HttpError::Status { .. }
        | HttpError::Digest { .. }
        | HttpError::Redirect { .. } => Failure::of(Kind::Build, error),
        _ => with_disk_help(Failure::of(Kind::Machine, error), error),
    }
}

/// A commit can't be had. What was named wrongly is the build's failure, what the network or the disk refuses is the
/// machine's.
pub(crate) fn of_git(error: &GitError) -> Failure {
    match error {
        GitError::Missing => Failure::of(Kind::Machine, error).with_help("install git"),
        GitError::NoReference { .. } | GitError::Checksum { .. } | GitError::NoSubdir { .. } => {
            Failure::of(Kind::Build, error)
        }
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

/// An image can't be loaded into an engine.
pub(crate) fn of_engine(error: &EngineError) -> Failure {
    match error {
        EngineError::Nowhere { .. } => Failure::of(Kind::Machine, error).with_help(
            "start Docker or Podman, or set DOCKER_HOST; without --load, `-t NAME` keeps the image in Ashlar's store, \
             and `ashlar save` writes it to a file",
        ),
        EngineError::Namespace { .. } => Failure::of(Kind::Machine, error)
            .with_help("start its service: systemctl --user start podman.socket"),
        EngineError::Address { .. } | EngineError::Context { .. } | EngineError::Certificates { .. } => {
            Failure::of(Kind::Usage, error)
        }
        EngineError::Export(error) => of_export(error),
        EngineError::Client(error) => of_image(error),
        _ => Failure::of(Kind::Machine, error),
    }
}

/// An image can't be pushed.
pub(crate) fn of_push(error: &PushError) -> Failure {
    match error {
        PushError::Image(error) => of_image(error),
        PushError::NoName => Failure::of(Kind::Usage, error),
        _ => with_disk_help(Failure::of(Kind::Machine, error), error),
    }
}

/// An output can't be written.
pub(crate) fn of_export(error: &ExportError) -> Failure {
    match error {
        ExportError::Terminal | ExportError::NoIndex => Failure::of(Kind::Usage, error),
        ExportError::Attested { .. } => Failure::of(Kind::Usage, error).with_help(
            "type=oci, local and tar can; --provenance=inline-only=true adds it only where it fits",
        ),
        ExportError::SeveralPlatforms { .. } => {
            Failure::of(Kind::Usage, error).with_help("type=oci holds an image for several platforms")
        }
        _ => with_disk_help(Failure::of(Kind::Machine, error), error),
    }
}

/// A cache can't be written.
pub(crate) fn of_cache(error: &CacheError) -> Failure {
    with_disk_help(Failure::of(Kind::Machine, error), error)
        .with_help("`ignore-error=true` in --cache-to makes this a warning")
}

/// A step failed, or the build was stopped.
pub(crate) fn of_solve(
    error: &SolveError<OpError>,
    graph: &Graph,
    source: &SourceText,
    told: &Told,
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
            failure.with_tail(told.tail(&Subject::Vertex(*vertex)).to_vec())
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
        OpError::Sandbox(SandboxError::Runtime { .. }) => Failure::of(Kind::Machine, cause),
        OpError::TimedOut { .. } => Failure::new(Kind::TimedOut, format!("{instruction} {cause}")),
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
        Some(libc::ENOSPC | libc::EDQUOT) => failure.with_help(FULL),
        Some(libc::EFBIG) => failure.with_help("this process may write no larger file: see `ulimit -f`"),
        // SQLite has other words for it.
        _ if remedy::of_error(error) == Some(Remedy::MakeRoom) => failure.with_help(FULL),
        _ => failure,
    }
}

/// What to do about a full disk.
const FULL: &str = "the disk is full: free space (`ashlar prune` removes what no image needs), or choose another store with --root or ASHLAR_ROOT";

/// Looks through the causes for an error of the disk itself.
fn disk_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let codes = [
        libc::ENOSPC,
        libc::EDQUOT,
        libc::EROFS,
        libc::EIO,
        libc::ENOMEM,
        libc::EFBIG,
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

/// Returns the lines of the instruction that a vertex stands for, with `mark` marked where it is found, else the keyword.
fn excerpt(graph: &Graph, vertex: VertexId, source: &SourceText, mark: Option<&str>) -> Option<Excerpt> {
    let label = &graph.vertex(vertex).label;
    let first = label.line? as usize;
    let last = label
        .last_line
        .map_or(first, |line| line as usize)
        .clamp(first, first + MAX_EXCERPT_LINES - 1);
    let mut lines = source.text().lines().skip(first - 1).take(last + 1 - first);
    let text = lines.next()?;
    let start = text.len() - text.trim_start().len();
    let keyword = text[start..].split_whitespace().next().unwrap_or_default();
    let after = start + keyword.len();
    let mark = mark.filter(|mark| !mark.is_empty());
    let found = mark.and_then(|mark| {
        let found = |at: usize| at..at + mark.len();
        let on_first = find_word(text, after, mark).map(|at| (0, found(at)));
        let below = || {
            let mut numbered = (1..).zip(lines);
            numbered.find_map(|(number, line)| Some((number, found(find_word(line, 0, mark)?))))
        };
        on_first.or_else(below)
    });
    let (marked, range) = found.unwrap_or((0, start..after));
    Some(excerpt_of(source, (first, last), marked, range))
}

/// Finds where `word` stands on its own, but for slashes and quotes around it.
fn find_word(line: &str, from: usize, word: &str) -> Option<usize> {
    let is_edge = |char: Option<char>| {
        char.is_none_or(|char| {
            char.is_whitespace() || matches!(char, '/' | '.' | '"' | '\'' | '[' | ']' | ',' | ':' | '=')
        })
    };
    let mut matches = line.get(from..)?.match_indices(word);
    let found = matches.find(|(at, _)| {
        let (start, end) = (from + at, from + at + word.len());
        is_edge(line[..start].chars().next_back()) && is_edge(line[end..].chars().next())
    });
    found.map(|(at, _)| from + at)
}

/// Returns the line on which a range of the Dockerfile starts, with the range marked.
pub(crate) fn excerpt_of_span(source: &SourceText, span: Span) -> Excerpt {
    let line = source.line_number(span.start);
    let before = source.text().get(..span.start).unwrap_or_default();
    let start = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
    excerpt_of(source, (line, line), 0, start..start + (span.end - span.start))
}

/// `range` is one of bytes of the line `marked`, from 0.
fn excerpt_of(
    source: &SourceText,
    (first, last): (usize, usize),
    marked: usize,
    range: Range<usize>,
) -> Excerpt {
    let lines: Vec<String> = source
        .text()
        .lines()
        .skip(first.saturating_sub(1))
        .take(last + 1 - first)
        .map(str::to_owned)
        .collect();
    let n_chars = |range: Range<usize>| {
        let line = lines.get(marked);
        // What goes on in further lines is marked to the end of this one.
        let text = line.and_then(|line| line.get(range.start..range.end.min(line.len())));
        text.map_or(0, |text| text.chars().count())
    };
    Excerpt {
        file: source.name().to_owned(),
        line: first,
        marked,
        column: n_chars(0..range.start) + 1,
        width: n_chars(range),
        label: None,
        lines,
    }
}

#[cfg(test)]
mod tests {
    use solver::graph::Label;

    use super::*;

    #[track_caller]
    fn check(text: &str, lines: (u32, u32), mark: Option<&str>, expected: &str) {
        let mut graph = Graph::new();
        let label = Label {
            line: Some(lines.0),
            last_line: Some(lines.1),
            ..Label::default()
        };
        let vertex = graph.add(Op::Source(Source::Scratch), Vec::new(), label);
        let source = SourceText::new("Dockerfile", text.as_bytes());
        let excerpt = excerpt(&graph, vertex, &source, mark).unwrap();
        assert_eq!(Failure::build("x").with_excerpt(excerpt).render(false), expected);
    }

    #[test]
    fn u1_excerpts_point_to_the_lines_that_are_meant() {
        check(
            "FROM a\nCOPY aa \\\n  # why\n  ./a /x\n",
            (2, 4),
            Some("a"),
            "error: x\n --> Dockerfile:4:5\n2 | COPY aa \\\n3 |   # why\n4 |   ./a /x\n  |     ^\n",
        );
        check(
            "  RUN <<EOF\nfalse\nEOF\n",
            (1, 3),
            None,
            "error: x\n --> Dockerfile:1:3\n1 |   RUN <<EOF\n  |   ^^^\n2 | false\n3 | EOF\n",
        );
        check(
            "COPY b.txt /b\n",
            (1, 1),
            Some("nowhere"),
            "error: x\n --> Dockerfile:1:1\n1 | COPY b.txt /b\n  | ^^^^\n",
        );
    }
}
