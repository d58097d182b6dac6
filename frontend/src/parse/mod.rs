//! Text to AST: stages, and the dispatch from an instruction's name to the room that reads it.
//!
//! Finds everything that can be known without variables and images, and goes on after a mistake so that all of them
//! are reported together. Spec: dockerfile.md §2–§5.

mod arguments;
pub(crate) mod command;
mod copy;
pub(crate) mod flags;
mod from;
mod healthcheck;
pub(crate) mod heredoc;
pub(crate) mod mount;
mod run;
#[cfg(test)]
mod tests;
pub(crate) mod traced;
mod words;

pub(crate) use copy::{Remote, remote};

use crate::ast::{Dockerfile, Instruction, Kind, Stage};
use crate::check::Checks;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::directive;
use crate::lines::{Lines, LogicalLine, Text};
use crate::lint;
use crate::source::{SourceText, Span};

/// Largest Dockerfile that is read.
pub const MAX_SIZE_BYTES: usize = 64 << 20;

/// The instructions, for suggestions.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a Dockerfile that error messages will call `name`.
///
/// Returns everything that was found, warnings included. The Dockerfile is there exactly if no finding is an error.
pub fn parse(name: &str, bytes: &[u8]) -> (Option<Dockerfile>, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    if bytes.len() > MAX_SIZE_BYTES {
        let message = format!("the Dockerfile is larger than {MAX_SIZE_BYTES} bytes");
        return (None, Diagnostic::error(message).into());
    }
    let source = SourceText::new(name, bytes);
    if source.text().is_empty() {
        return (None, Diagnostic::error("the Dockerfile cannot be empty").into());
    }
    let (directives, first_line) = directive::read(&source, &mut diagnostics);
    let mut file = File {
        escape: directives.escape,
        globals: Vec::new(),
        stages: Vec::new(),
        n_instructions: 0,
        checks: Checks::of_file(directives.check.clone()),
    };
    let mut lines = Lines::new(&source, first_line, directives.escape);
    loop {
        match lines.next(&mut diagnostics) {
            Ok(Some(line)) => file.add(line, &mut diagnostics),
            Ok(None) => break,
            Err(error) => {
                diagnostics.push(error);
                break;
            }
        }
        if diagnostics.omitted() > 0 && diagnostics.has_errors() {
            break;
        }
    }
    if !diagnostics.has_errors() {
        if file.n_instructions == 0 {
            diagnostics.push(Diagnostic::error("file with no instructions"));
        } else if file.stages.is_empty() {
            diagnostics.push(Diagnostic::error("dockerfile contains no stages to build"));
        }
    }
    lint::file::stage_names(&file.stages, &mut diagnostics);
    lint::file::casing(&file.stages, &mut diagnostics);
    diagnostics.sort();
    let mut heard = diagnostics.clone();
    file.checks.filter(&mut heard);
    let dockerfile = (!diagnostics.has_errors()).then(|| Dockerfile {
        source: source.clone(),
        directives,
        globals: file.globals,
        stages: file.stages,
        checks: file.checks,
        warnings: diagnostics,
    });
    (dockerfile, heard)
}

/// Parses a trigger of `ONBUILD`: one instruction. What is wrong is reported at `span`.
pub(crate) fn parse_trigger(text: &str, escape: char, span: Span) -> Result<Instruction, Diagnostics> {
    let source = SourceText::new("trigger", text.as_bytes());
    let mut diagnostics = Diagnostics::default();
    let mut lines = Lines::new(&source, 1, escape);
    let mut read = || -> Result<Option<Instruction>, Diagnostic> {
        let Some(line) = lines.next(&mut diagnostics)? else {
            return Ok(None);
        };
        let parsed = trigger_instruction(&line, &line.text, escape, &mut diagnostics)?;
        if lines.next(&mut diagnostics)?.is_some() {
            return Ok(None);
        }
        Ok(Some(parsed))
    };
    match read() {
        Ok(Some(instruction)) => Ok(Instruction { span, ..instruction }),
        Ok(None) => Err(
            Diagnostic::error("an ONBUILD trigger must be exactly one instruction")
                .at(span)
                .into(),
        ),
        Err(error) => {
            diagnostics.push(error);
            diagnostics.relocate(span);
            Err(diagnostics)
        }
    }
}

/// What was read so far.
struct File {
    escape: char,
    globals: Vec<Instruction>,
    stages: Vec<Stage>,
    n_instructions: usize,
    checks: Checks,
}

impl File {
    fn add(&mut self, mut line: LogicalLine, diagnostics: &mut Diagnostics) {
        self.n_instructions += 1;
        let (checks, span) = (&mut self.checks, line.span);
        line.comments
            .retain(|comment| !checks.read_comment(&comment.value, comment.span, span, diagnostics));
        let line = &line;
        let (word, _) = keyword(&line.text);
        if word.eq_ignore_ascii_case("FROM") {
            match from::parse(line, self.escape, diagnostics) {
                Ok(stage) => {
                    lint::file::description_of_stage(line, &stage, diagnostics);
                    self.stages.push(stage);
                }
                Err(error) => {
                    diagnostics.push(error);
                    // So that what follows isn't reported as standing outside of any stage.
                    self.stages.push(from::placeholder(line));
                }
            }
            return;
        }
        let parsed = instruction(line, &line.text, self.escape, diagnostics);
        let target = match self.stages.last_mut() {
            Some(stage) => &mut stage.instructions,
            None if word.eq_ignore_ascii_case("ARG") => &mut self.globals,
            None => {
                let known = KEYWORDS.iter().any(|name| word.eq_ignore_ascii_case(name));
                diagnostics.push(match parsed {
                    Err(error) if !known => error,
                    _ => Diagnostic::error("no build stage in current context")
                        .at(line.text_of(word).span)
                        .help("only ARG may stand before the first FROM"),
                });
                return;
            }
        };
        match parsed {
            Ok(instruction) => {
                lint::file::description_of_args(line, &instruction, diagnostics);
                target.push(instruction);
            }
            Err(error) => diagnostics.push(error),
        }
    }
}

/// Splits off the first word; both parts are slices of `text`, the rest without blanks around it.
pub(crate) fn keyword(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// What the reader of one instruction gets.
pub(crate) struct Context<'a> {
    line: &'a LogicalLine,
    /// The instruction's name in upper case.
    name: &'static str,
    /// Where the name stands.
    keyword: Text,
    /// What follows the flags, trimmed; a slice of the line.
    rest: &'a str,
    flags: flags::Flags,
    escape: char,
}

impl Context<'_> {
    /// An error about the instruction as a whole: all of its lines, if it has several.
    fn error(&self, message: impl Into<String>) -> Diagnostic {
        let keyword = self.keyword.span;
        let span = if self.line.is_continued() {
            keyword.to(self.line.joined_span())
        } else {
            keyword
        };
        Diagnostic::error(message).at(span)
    }

    fn at_least_one(&self) -> Result<(), Diagnostic> {
        if self.rest.is_empty() {
            return Err(self.error(format!("{} requires at least one argument", self.name)));
        }
        Ok(())
    }

    fn exactly_one(&self) -> Result<Text, Diagnostic> {
        if self.rest.is_empty() {
            return Err(self.error(format!("{} requires exactly one argument", self.name)));
        }
        Ok(self.line.text_of(self.rest))
    }
}

/// Reads one instruction but FROM. `text` is `line.text` or, below ONBUILD, the end of it.
fn instruction(
    line: &LogicalLine,
    text: &str,
    escape: char,
    diagnostics: &mut Diagnostics,
) -> Result<Instruction, Diagnostic> {
    let (word, rest) = keyword(text);
    let keyword = line.text_of(word);
    let Some(name) = KEYWORDS.into_iter().find(|name| word.eq_ignore_ascii_case(name)) else {
        let shown: String = word.chars().take(64).collect();
        return Err(Diagnostic::error(format!("unknown instruction: {shown}"))
            .at(keyword.span)
            .suggest(word, KEYWORDS));
    };
    let (flags, rest) = flags::parse(line, name, rest, escape)?;
    let context = Context {
        line,
        name,
        keyword,
        rest: rest.trim(),
        flags,
        escape,
    };
    let kind = match name {
        "ADD" => Kind::Add(copy::parse(&context)?),
        "COPY" => Kind::Copy(copy::parse(&context)?),
        "RUN" => Kind::Run(run::parse(&context)?),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck::parse(&context)?),
        "ONBUILD" => onbuild(&context, diagnostics)?,
        "FROM" => return Err(context.error("FROM is not allowed here")),
        _ => arguments::parse(&context, diagnostics)?,
    };
    Ok(Instruction {
        span: line.span,
        text: text.trim().to_owned(),
        kind,
    })
}

/// Reads an instruction that may stand below ONBUILD.
fn trigger_instruction(
    line: &LogicalLine,
    text: &str,
    escape: char,
    diagnostics: &mut Diagnostics,
) -> Result<Instruction, Diagnostic> {
    let (word, _) = keyword(text);
    let upper = word.to_ascii_uppercase();
    let message = match upper.as_str() {
        "ONBUILD" => "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned(),
        "FROM" | "MAINTAINER" => format!("{upper} isn't allowed as an ONBUILD trigger"),
        _ => return instruction(line, text, escape, diagnostics),
    };
    Err(Diagnostic::error(message).at(line.text_of(word).span))
}

fn onbuild(context: &Context<'_>, diagnostics: &mut Diagnostics) -> Result<Kind, Diagnostic> {
    context.at_least_one()?;
    // The trigger's own warnings are for the image that it runs in.
    let mut unreported = Diagnostics::default();
    trigger_instruction(context.line, context.rest, context.escape, &mut unreported)?;
    unreported.retain(|diagnostic| diagnostic.rule.is_none());
    diagnostics.append(unreported);
    let mut text = context.rest.to_owned();
    for (_, heredoc) in &context.line.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(Kind::Onbuild(text))
}
