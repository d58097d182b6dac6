//! What a Dockerfile says, typed: stages and instructions with the places they stand at.
//!
//! Nothing is expanded yet: [`Text`]s are as written. What is checked here needs no variables.

use crate::check::Checks;
use crate::diagnostic::{Diagnostics, nearest};
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
    /// Which lint rules are heard, as the file says.
    pub checks: Checks,
    /// What fired while parsing, all of it: lowering tells it, once it is known what is heard.
    pub(crate) warnings: Diagnostics,
}

impl Dockerfile {
    /// Returns the stage whose name is nearly `written`, which names none.
    pub fn stage_like(&self, written: &str) -> Option<&str> {
        let names = self.stages.iter().filter_map(|stage| stage.name.as_ref());
        nearest(written, names.map(|name| name.value.as_str()))
    }
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
    /// What the comment above says of it.
    pub description: Option<String>,
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
    /// What the comment above says of it.
    pub description: Option<String>,
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
    /// `--security=insecure`; where.
    pub insecure: Option<Span>,
    /// `--device`, in order.
    pub devices: Vec<Device>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// What runs, flags removed.
    pub command: Command,
    /// Heredocs that the command opens.
    pub heredocs: Vec<Heredoc>,
    /// The command is one heredoc and nothing else.
    pub is_script: bool,
}

/// A value of `RUN --device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What is asked for.
    pub name: Text,
    /// Fails when it isn't there.
    pub required: bool,
}

/// A value of `RUN --mount`, not expanded yet. [`MountKey`] has the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The whole flag.
    pub span: Span,
    /// In order; a key may come again, and the last one counts.
    pub fields: Vec<MountField>,
}

/// `key=value` or `key` of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountField {
    /// Which key.
    pub key: MountKey,
    /// The key as written, in lower case.
    pub written: Text,
    /// The value; `None` for a bare key.
    pub value: Option<Text>,
}

/// The keys of mounts, each with all its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MountKey {
    /// `type`
    Type,
    /// `target`, `dst`, `destination`
    Target,
    /// `source`, `src`
    Source,
    /// `from`; its value is never expanded.
    From,
    /// `readonly`, `ro`, and the opposite: `readwrite`, `rw`
    Readonly,
    /// `id`
    Id,
    /// `sharing`
    Sharing,
    /// `mode`
    Mode,
    /// `uid`
    Uid,
    /// `gid`
    Gid,
    /// `size`
    Size,
    /// `required`
    Required,
    /// `env`
    Env,
}

impl Mount {
    /// Returns the last field with this key.
    pub fn field(&self, key: MountKey) -> Option<&MountField> {
        self.fields.iter().rev().find(|field| field.key == key)
    }

    /// Returns the stage, image or context that it takes files from, if it names one.
    pub fn from(&self) -> Option<&Text> {
        let from = self.field(MountKey::From)?.value.as_ref();
        from.filter(|from| !from.value.is_empty())
    }
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
