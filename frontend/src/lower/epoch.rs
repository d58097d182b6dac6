//! `SOURCE_DATE_EPOCH`: seconds, or the name of something whose time it is. Spec: dockerfile.md §14.
//!
//! Names are those of the build context, a named context, or a stage that only fetches: `FROM scratch` and one remote
//! ADD. What has no time, such as a local directory, leaves the variable empty.

use crate::ast::{Arg, Copy, Dockerfile, Instruction, Kind, Stage};
use crate::diagnostic::Diagnostic;
use crate::expand::{Quotes, Variables, expand};
use crate::git::GitSource;
use crate::lines::Text;
use crate::options::{Answers, GitRequest, HttpRequest, NamedContext, Options, Request};
use crate::parse::{Remote, remote};
use crate::source::Span;

pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";

/// What the variable comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Epoch {
    /// It isn't set, or names something that has no time.
    Unset,
    /// Seconds.
    At(i64),
    /// The time of this has to be found out first.
    Of(Request, Span),
}

impl Epoch {
    /// Returns the time, where it is known.
    pub(super) fn seconds(&self) -> Option<i64> {
        match self {
            Self::At(seconds) => Some(*seconds),
            Self::Unset | Self::Of(..) => None,
        }
    }
}

/// Settles the variable: the build argument, else the default of the global one.
pub(super) fn settle(
    dockerfile: &Dockerfile,
    options: &Options,
    globals: &Variables,
    answers: &Answers,
) -> Result<Epoch, Diagnostic> {
    let Some(text) = options.build_arg(NAME).or_else(|| globals.get(NAME)) else {
        return Ok(Epoch::Unset);
    };
    if text.is_empty() {
        return Ok(Epoch::Unset);
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Epoch::At(seconds));
    }
    let span = declared_at(dockerfile);
    let request = match (text, find_stage(dockerfile, text)) {
        ("context", _) => return Ok(options.context_time.map_or(Epoch::Unset, Epoch::At)),
        _ if options.named_contexts.contains_key(text) => of_context(&options.named_contexts[text]),
        (_, Some(stage)) => Some(of_stage(stage, dockerfile, options, globals)?),
        (_, None) => {
            let error = Diagnostic::error(format!("invalid {NAME}: {text}"));
            let names = dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref());
            let names = names.map(|name| name.value.as_str());
            let help =
                "write whole seconds, `context`, or the name of a context or of a stage that only fetches";
            let error = error.help(help).suggest(text, names);
            return Err(Diagnostic { span, ..error });
        }
    };
    Ok(match request {
        None => Epoch::Unset,
        Some(request) => of_answer(request, span.unwrap_or_default(), answers),
    })
}

/// Returns the place of the global argument.
fn declared_at(dockerfile: &Dockerfile) -> Option<Span> {
    let args = dockerfile.globals.iter().filter_map(|global| match &global.kind {
        Kind::Arg(args) => Some(args),
        _ => None,
    });
    let mut args = args.flatten();
    args.find(|arg| arg.name.value == NAME).map(|arg| arg.name.span)
}

fn find_stage<'a>(dockerfile: &'a Dockerfile, name: &str) -> Option<&'a Stage> {
    let lower = name.to_lowercase();
    let mut stages = dockerfile.stages.iter();
    stages.find(|stage| stage.name.as_ref().is_some_and(|name| name.value == lower))
}

/// Returns what has the time of a named context; `None` when nothing has.
fn of_context(context: &NamedContext) -> Option<Request> {
    match context {
        NamedContext::Http(url) => Some(Request::Http(HttpRequest {
            url: url.clone(),
            checksum: None,
        })),
        NamedContext::Git(git) => Some(Request::Git(of_git(git.clone(), None))),
        NamedContext::Directory | NamedContext::Image(_) | NamedContext::OciLayout { .. } => None,
    }
}

/// Returns what a stage fetches, which must be all that it does.
fn of_stage(
    stage: &Stage,
    dockerfile: &Dockerfile,
    options: &Options,
    globals: &Variables,
) -> Result<Request, Diagnostic> {
    let escape = dockerfile.directives.escape;
    let mut env = globals.clone();
    // It can't depend on itself.
    env.set(NAME, "");
    let base = value(&stage.base, escape, &env)?;
    if base != "scratch" {
        let message = format!("{NAME} stage must use FROM scratch");
        return Err(Diagnostic::error(message).at(stage.base.span));
    }
    let mut found = None;
    for instruction in &stage.instructions {
        match &instruction.kind {
            Kind::Arg(args) => declare(args, escape, options, &mut env)?,
            Kind::Add(add) if found.is_none() => {
                found = Some(of_add(add, instruction, escape, &env)?);
            }
            Kind::Add(_) => return Err(not_one(instruction.span)),
            _ => {
                let (word, _) = crate::parse::keyword(&instruction.text);
                let message = format!(
                    "{NAME} stage does not meet source-only requirements: unsupported {} instruction",
                    word.to_ascii_uppercase()
                );
                return Err(Diagnostic::error(message).at(instruction.span));
            }
        }
    }
    found.ok_or_else(|| not_one(stage.span))
}

fn not_one(span: Span) -> Diagnostic {
    Diagnostic::error(format!("{NAME} stage must contain exactly one remote ADD")).at(span)
}

fn declare(args: &[Arg], escape: char, options: &Options, env: &mut Variables) -> Result<(), Diagnostic> {
    for arg in args {
        match (options.build_arg(&arg.name.value), &arg.value) {
            (Some(given), _) => env.set(&arg.name.value, given),
            (None, Some(text)) => env.set(&arg.name.value, &value(text, escape, env)?),
            (None, None) => {}
        }
    }
    Ok(())
}

fn of_add(
    add: &Copy,
    instruction: &Instruction,
    escape: char,
    env: &Variables,
) -> Result<Request, Diagnostic> {
    let [source] = &add.sources[..] else {
        return Err(not_one(instruction.span));
    };
    if !add.heredocs.is_empty() {
        return Err(not_one(instruction.span));
    }
    let url = value(source, escape, env)?;
    let checksum = match &add.checksum {
        Some(text) => Some((value(text, escape, env)?, text.span)),
        None => None,
    };
    match remote(&url) {
        Some(Remote::Http) => {
            let parse = |(text, span): (String, Span)| {
                let error = |error| Diagnostic::error(format!("invalid checksum {text}: {error}")).at(span);
                text.parse().map_err(error)
            };
            Ok(Request::Http(HttpRequest {
                url,
                checksum: checksum.map(parse).transpose()?,
            }))
        }
        Some(Remote::Git) => {
            let git = GitSource::parse(&url)
                .map_err(|error| Diagnostic::error(error.to_string()).at(source.span))?;
            Ok(Request::Git(of_git(git, checksum.map(|(text, _)| text))))
        }
        None => {
            let message = format!("{NAME} stage source must be a single HTTP(S) or Git ADD");
            Err(Diagnostic::error(message).at(source.span))
        }
    }
}

fn of_git(git: GitSource, checksum: Option<String>) -> GitRequest {
    GitRequest {
        remote: git.remote,
        reference: git.reference,
        checksum: checksum.or(git.checksum),
        wants_time: true,
    }
}

fn value(text: &Text, escape: char, env: &Variables) -> Result<String, Diagnostic> {
    let done = expand(&text.value, escape, Quotes::Remove, env);
    let done = done.map_err(|error| {
        Diagnostic::error(format!("failed to process \"{}\": {error}", text.value)).at(text.span)
    })?;
    Ok(done.text)
}

/// Returns the time in an answer, or asks for it.
fn of_answer(request: Request, span: Span, answers: &Answers) -> Epoch {
    let time = match &request {
        Request::Http(http) => answers.http.get(http).map(|file| file.last_modified),
        Request::Git(git) => answers.git.get(git).map(|commit| commit.time),
        Request::Image(_) => Some(None),
    };
    match time {
        None => Epoch::Of(request, span),
        Some(None) => Epoch::Unset,
        Some(Some(seconds)) => Epoch::At(seconds),
    }
}
