//! `COPY`, `ADD` and `WORKDIR` to file ops. Spec: dockerfile.md §3.3, §10, §11.

use cache::layer::TreePath;
use cache::tree::Selection;
use solver::graph::{Input, InputView, Label, VertexId};
use solver::mode::ModeChange;
use solver::op::{Copy as CopyAction, FileAction, FileOp, MetaChange, Op, Source};

use super::plan::Origin;
use super::reference::Reference;
use super::remote;
use super::stage::Current;
use crate::ast::{Copy, Instruction};
use crate::diagnostic::Diagnostic;
use crate::expand::Quotes;
use crate::lines::Text;
use crate::lint::Rule;
use crate::parse::Remote;
use crate::parse::heredoc::Heredoc;
use crate::redact::without_credentials;
use crate::source::Span;

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Add,
    Copy,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Copy => "COPY",
        }
    }
}

/// Adds the step to the stage.
pub(super) fn lower(
    current: &mut Current<'_, '_>,
    instruction: &Instruction,
    copy: &Copy,
    flavour: Flavour,
) -> Result<(), Diagnostic> {
    let mut created_by = flavour.name().to_owned();
    if copy.parents {
        created_by.push_str(" --parents");
    }
    let change = change(current, copy, &mut created_by)?;
    let sources = sources(current, copy, flavour)?;
    remote::check(copy, &sources)?;
    let dest = current.expand(&copy.dest)?;
    let heredocs = copy.heredocs.iter().map(|heredoc| format!("<<{}", heredoc.name));
    let shown = sources.iter().map(|source| without_credentials(source));
    for word in shown.chain(heredocs).chain([dest.clone()]) {
        created_by.push(' ');
        created_by.push_str(&word);
    }
    created_by.push_str(" # buildkit");
    let dest = destination(current, copy, &dest, flavour)?;
    let (inputs, mut actions) = reads(current, copy, flavour, (&sources, &dest, &change))?;
    for heredoc in &copy.heredocs {
        let data = body(current, heredoc)?.into_bytes();
        let (dest, change, name) = (dest.clone(), change.clone(), heredoc.name.clone());
        actions.push(FileAction::Write {
            dest,
            name,
            data,
            change,
        });
    }
    let op = Op::File(FileOp {
        actions,
        epoch: current.lowering.epoch,
    });
    let mut label = current.label(instruction, &instruction.text)?;
    for source in sources.iter().filter(|source| source.contains("://")) {
        let shown = without_credentials(source);
        if shown != *source {
            label.name = label.name.replace(source, &shown);
        }
    }
    if copy.link {
        link(current, op, inputs, label);
    } else {
        current.step(op, inputs, label);
    }
    current.history(created_by, false)
}

/// What is read, and what is done with it.
type Reads = (Vec<Input>, Vec<FileAction>);

/// Returns what the sources add to a vertex: paths that follow each other are copied together, what is fetched by itself.
fn reads(
    current: &mut Current<'_, '_>,
    copy: &Copy,
    flavour: Flavour,
    (sources, dest, change): (&[String], &str, &MetaChange),
) -> Result<Reads, Diagnostic> {
    let (mut inputs, mut actions): Reads = (Vec::new(), Vec::new());
    let mut paths: Vec<&String> = Vec::new();
    let mut add = |vertex, selection, unpack| {
        inputs.push(Input {
            vertex,
            view: InputView::Paths(selection),
        });
        actions.push(FileAction::Copy(CopyAction {
            input: inputs.len(),
            dest: dest.to_owned(),
            change: change.clone(),
            unpack,
        }));
    };
    let unpack = copy.unpack.unwrap_or(flavour == Flavour::Add);
    for (text, source) in copy.sources.iter().zip(sources) {
        let fetched = match flavour {
            Flavour::Add => remote::fetch(current, copy, text, source)?,
            Flavour::Copy => None,
        };
        let Some(fetched) = fetched else {
            paths.push(source);
            continue;
        };
        if !paths.is_empty() {
            add(tree(current, copy)?, selection(copy, &paths), unpack);
            paths.clear();
        }
        let pattern = Selection {
            excludes: excludes(copy),
            ..Selection::of(vec![fetched.pattern])
        };
        add(fetched.vertex, pattern, copy.unpack.unwrap_or(false));
    }
    if !paths.is_empty() {
        add(tree(current, copy)?, selection(copy, &paths), unpack);
    }
    Ok((inputs, actions))
}

/// Returns the tree that paths are read from.
fn tree(current: &mut Current<'_, '_>, copy: &Copy) -> Result<VertexId, Diagnostic> {
    match &copy.from {
        Some(from) => current.origin(&Reference::Copy(from)),
        None => Ok(current.source(&Origin::Directory("context".to_owned()))),
    }
}

fn excludes(copy: &Copy) -> Vec<String> {
    copy.excludes.iter().map(|text| text.value.clone()).collect()
}

/// Returns what is read of the source's tree.
fn selection(copy: &Copy, sources: &[&String]) -> Selection {
    let patterns = sources.iter().map(|source| {
        if copy.parents {
            pivoted(source)
        } else {
            clean(source)
        }
    });
    Selection {
        patterns: patterns.collect(),
        excludes: excludes(copy),
        parents: copy.parents,
    }
}

/// Cleans a path of `--parents`: the first `/./` says which of the directories above the source are made again, so it
/// stays. Spec: dockerfile.md §10.5.
fn pivoted(source: &str) -> String {
    match source.split_once("/./") {
        // At the very start it keeps everything, as no pivot does.
        Some((above, below)) if clean(above) != "/" => format!("{}/.{}", clean(above), clean(below)),
        _ => clean(source),
    }
}

/// Returns what a heredoc's file holds.
fn body(current: &mut Current<'_, '_>, heredoc: &Heredoc) -> Result<String, Diagnostic> {
    let value = heredoc.chomped();
    if !heredoc.expand {
        return Ok(value);
    }
    let text = Text {
        value,
        span: heredoc.span,
    };
    Ok(current.expand_to(&text, Quotes::Plain)?.text)
}

/// Makes the layer on an empty tree, so that it doesn't depend on what lies below, and stacks it.
fn link(current: &mut Current<'_, '_>, op: Op, mut inputs: Vec<Input>, label: Label) {
    let plain = |name: String| Label {
        step: name.clone(),
        name,
        line: None,
        last_line: None,
        ignore_cache: false,
    };
    let graph = &mut current.lowering.graph;
    let scratch = graph.add(
        Op::Source(Source::Scratch),
        Vec::new(),
        plain("scratch".to_owned()),
    );
    inputs.insert(
        0,
        Input {
            vertex: scratch,
            view: InputView::Whole,
        },
    );
    let merged = match label.name.split_once("] ") {
        Some((number, text)) => format!("{number}] LINK {text}"),
        None => label.name.clone(),
    };
    let merge = Label {
        name: merged,
        step: format!("{} LINK", label.step),
        ignore_cache: false,
        ..label.clone()
    };
    let layer = graph.add(op, inputs, label);
    current.step(
        Op::Merge,
        vec![Input {
            vertex: layer,
            view: InputView::Whole,
        }],
        merge,
    );
}

fn change(
    current: &mut Current<'_, '_>,
    copy: &Copy,
    created_by: &mut String,
) -> Result<MetaChange, Diagnostic> {
    let mut change = MetaChange::default();
    if let Some(text) = &copy.chown {
        let owner = current.expand(text)?;
        created_by.push_str(&format!(" --chown={owner}"));
        change.owner = Some(owner).filter(|owner| !owner.is_empty());
    }
    if let Some(text) = &copy.chmod {
        let mode = current.expand(text)?;
        created_by.push_str(&format!(" --chmod={mode}"));
        let parsed = ModeChange::parse(&mode);
        change.mode = Some(parsed.map_err(|error| Diagnostic::error(error.to_string()).at(text.span))?);
    }
    Ok(change)
}

fn sources(current: &mut Current<'_, '_>, copy: &Copy, flavour: Flavour) -> Result<Vec<String>, Diagnostic> {
    let mut sources = Vec::with_capacity(copy.sources.len());
    for text in &copy.sources {
        let source = current.expand(text)?;
        let what = match crate::parse::remote(&source) {
            Some(Remote::Git) => Some("a git ref"),
            Some(Remote::Http) => Some("a URL"),
            None => None,
        };
        if let Some(what) = what.filter(|_| flavour == Flavour::Copy) {
            let message = format!("source can't be {what} for COPY");
            return Err(Diagnostic::error(message)
                .at(text.span)
                .help("ADD takes remote sources"));
        }
        if copy.from.is_none() && crate::parse::remote(&source).is_none() {
            lint_ignored(current, flavour, &source, text.span);
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Warns of a source that the ignore file keeps out. Where that has exceptions nobody can tell without looking.
fn lint_ignored(current: &mut Current<'_, '_>, flavour: Flavour, source: &str, span: Span) {
    let Some(ignore) = &current.lowering.options.ignore else {
        return;
    };
    let path = TreePath::clean(source.as_bytes());
    if ignore.has_exceptions() {
        return;
    }
    let Some(pattern) = ignore.excluding(&path) else {
        return;
    };
    let instruction = match flavour {
        Flavour::Add => "Add",
        Flavour::Copy => "Copy",
    };
    let message = format!("attempting to {instruction} file \"{source}\" that is excluded by .dockerignore");
    let label = format!("excluded by {} line {}", ignore.name(), pattern.line);
    current.warn(
        Diagnostic::warning(Rule::CopyIgnoredFile, message)
            .at(span)
            .label(label),
    );
}

/// Returns the absolute destination; a trailing slash says that it is a directory.
fn destination(
    current: &Current<'_, '_>,
    copy: &Copy,
    dest: &str,
    flavour: Flavour,
) -> Result<String, Diagnostic> {
    let working_dir = &current.state.config.config.working_dir;
    let path = absolute(working_dir, dest);
    let is_directory = matches!(dest.rsplit('/').next(), None | Some("" | "." | ".."));
    let is_known = is_directory || path == "/" || path == clean(working_dir);
    let is_many = copy.sources.len() + copy.heredocs.len() > 1;
    if is_many && !is_known && current.state.knows_directory() {
        // The manual demands the slash, BuildKit doesn't: where the destination is missing, the files overwrite each
        // other there, and only the last one is left.
        let message = format!(
            "when using {} with more than one source file, the destination must be a directory and end with a /",
            flavour.name()
        );
        return Err(Diagnostic::error(message)
            .at(copy.dest.span)
            .help(format!("write {dest}/")));
    }
    let slash = if (is_directory || is_many) && path != "/" {
        "/"
    } else {
        ""
    };
    Ok(format!("{path}{slash}"))
}

/// Adds the directory to the stage, unless it is the root.
pub(super) fn workdir(
    current: &mut Current<'_, '_>,
    instruction: &Instruction,
    text: &Text,
) -> Result<(), Diagnostic> {
    let written = current.expand(text)?;
    let config = &current.state.config.config;
    let path = absolute(&config.working_dir, &written);
    let user = config.user.clone();
    if !current.state.has_workdir && !written.starts_with('/') {
        let message =
            format!("relative workdir \"{written}\" can have unexpected results if the base image changes");
        current.warn(Diagnostic::warning(Rule::WorkdirRelativePath, message).at(text.span));
    }
    current.state.has_workdir = true;
    current.state.config.config.working_dir.clone_from(&path);
    let label = current.label(instruction, &instruction.text)?;
    let is_root = path == "/";
    let created_by = format!("WORKDIR {path}");
    if !is_root {
        let actions = vec![FileAction::MakeDir { path, user }];
        current.step(
            Op::File(FileOp {
                actions,
                epoch: current.lowering.epoch,
            }),
            Vec::new(),
            label,
        );
    }
    current.history(created_by, is_root)
}

/// Joins and cleans; no trailing slash.
pub(super) fn absolute(working_dir: &str, path: &str) -> String {
    if path.starts_with('/') {
        clean(path)
    } else {
        clean(&format!("{working_dir}/{path}"))
    }
}

/// Cleans a path as if it were rooted.
pub(super) fn clean(path: &str) -> String {
    TreePath::clean(path.as_bytes()).to_string()
}
