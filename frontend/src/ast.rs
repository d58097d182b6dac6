//! What a Dockerfile says, typed: stages and instructions with the places they stand at.
//!
//! Nothing is expanded yet: [`Text`]s are as written. What is checked here needs no variables.

use crate::directive::Directives;
use crate::lines::Text;
use crate::parse::heredoc::Heredoc;
use crate::source::{SourceText, Span};

/// A whole file.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// Where it was read from.
    pub source: SourceText,
    /// What its top says.
    pub directives: Directives,
    /// `ARG`s before the first `FROM`.
    pub globals: Vec<Instruction>,
    /// At least one, in order.
    pub stages: Vec<Stage>,
    /// Lint rules that fired while parsing, for `check=error=true`.
    pub(crate) fired: Vec<&'static str>,
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The whole `FROM` instruction.
    pub span: Span,
    /// `FROM` line as written.
    pub text: String,
    /// What it starts from.
    pub base: Text,
    /// `--platform`.
    pub platform: Option<Text>,
    /// Name after `AS`, in lower case.
    pub name: Option<Text>,
    /// What follows, in order.
    pub instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// From the keyword to the last line, heredocs included.
    pub span: Span,
    /// The logical line, keyword included, heredoc bodies not.
    pub text: String,
    /// What it does.
    pub kind: Kind,
}

/// The instructions but `FROM`.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `ADD`
    Add(Copy),
    /// `ARG`
    Arg(Vec<Arg>),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Pairs),
    /// `EXPOSE`
    Expose(Vec<Text>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Pairs),
    /// `MAINTAINER`
    Maintainer(Text),
    /// `ONBUILD`: the trigger's text, heredoc bodies included; it was parsed once, so it is well-formed.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    Stopsignal(Text),
    /// `USER`
    User(Text),
    /// `VOLUME`
    Volume(Vec<Text>),
    /// `WORKDIR`
    Workdir(Text),
}

/// `name` or `name=value`.
#[derive(Debug, Clone)]
pub struct Arg {
    /// The name.
    pub name: Text,
    /// The default.
    pub value: Option<Text>,
}

/// The two forms of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A JSON array: program and arguments.
    Exec(Vec<String>),
    /// Anything else: a text for the shell.
    Shell(String),
}

/// `name=value` pairs of `ENV` and `LABEL`.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// In order.
    pub pairs: Vec<(Text, Text)>,
    /// Written as `ENV name value`.
    pub legacy: bool,
}

/// What `HEALTHCHECK` sets. Durations are in nanoseconds, zero means "not given".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `NONE`, `CMD` or `CMD-SHELL` and the command.
    pub test: Vec<String>,
    /// `--interval`
    pub interval_ns: i64,
    /// `--timeout`
    pub timeout_ns: i64,
    /// `--start-period`
    pub start_period_ns: i64,
    /// `--start-interval`
    pub start_interval_ns: i64,
    /// `--retries`
    pub retries: i64,
}

/// `RUN`
#[derive(Debug, Clone)]
pub struct Run {
    /// `--network`
    pub network: Option<RunNetwork>,
    /// Flags that are understood but can't be done yet; using the instruction is an error.
    pub unsupported: Vec<Text>,
    /// What runs, flags removed.
    pub command: Command,
    /// Heredocs that the command opens.
    pub heredocs: Vec<Heredoc>,
    /// The command is one heredoc and nothing else.
    pub is_script: bool,
}

/// A value of `RUN --network`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunNetwork {
    /// As the build says.
    Default,
    /// Loopback only.
    None,
    /// The host's; where it was asked for.
    Host(Span),
}

/// `COPY` and `ADD`
#[derive(Debug, Clone)]
pub struct Copy {
    /// `--from`
    pub from: Option<Text>,
    /// `--chown`
    pub chown: Option<Text>,
    /// `--chmod`
    pub chmod: Option<Text>,
    /// `--link`
    pub link: bool,
    /// `--parents` (`COPY`)
    pub parents: bool,
    /// `--exclude`, in order; never expanded.
    pub excludes: Vec<Text>,
    /// `--checksum` (`ADD`)
    pub checksum: Option<Text>,
    /// `--keep-git-dir` (`ADD`); `None` means that it wasn't given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack` (`ADD`); `None` means the instruction's default.
    pub unpack: Option<bool>,
    /// Paths or patterns, in order.
    pub sources: Vec<Text>,
    /// Sources whose content is in the Dockerfile, in order.
    pub heredocs: Vec<Heredoc>,
    /// The last argument.
    pub dest: Text,
}
