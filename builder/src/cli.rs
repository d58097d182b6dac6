//! The command line's grammar: what may be typed, with docker's names and shapes.
//!
//! Every flag of `docker buildx build` parses, so that what isn't supported is refused by name (in `options`), never
//! ignored and never called unknown. Nothing is decided here; `options` settles what was typed with the environment.

mod archives;
mod check;
mod limits;
mod space;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use check::CheckArgs;
pub(crate) use limits::LimitArgs;
pub(crate) use space::{CeilingArgs, DfArgs, PruneArgs};

pub(crate) use archives::{ExportArgs, Format as ArchiveFormat, ImportArgs, LoadArgs, SaveArgs};

/// Builds container images from Dockerfiles.
#[derive(Debug, Parser)]
#[command(
    name = "ashlar",
    version,
    about = "Builds container images from Dockerfiles, without a daemon",
    max_term_width = 110
)]
pub(crate) struct Cli {
    /// Store directory [default: $ASHLAR_ROOT; /var/lib/ashlar as root, else ~/.local/share/ashlar]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// List images
    Images(ImagesArgs),
    /// Show how an image was made, newest step first
    History(HistoryArgs),
    /// Show what is other in one image than in another
    Diff(DiffArgs),
    /// Show the details of images as JSON
    Inspect(InspectArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Remove image names, and images without names
    Rmi(RmiArgs),
    /// Remove what no image and no running build needs
    Prune(PruneArgs),
    /// Say what the store occupies, and what of it could be removed
    Df(DfArgs),
    /// Say whether the store is sound, and repair it
    Check(CheckArgs),
    /// Write images to a tar archive
    Save(SaveArgs),
    /// Read images from a tar archive
    Load(LoadArgs),
    /// Make an image of a tar of a root file system
    Import(ImportArgs),
    /// Write the files of an image, its layers merged, as a tar
    Export(ExportArgs),
    /// Show what the steps of a build wrote
    Logs(LogsArgs),
    /// Say why the steps of a build ran, or didn't
    Explain(ExplainArgs),
    /// Fetch an image from its registry
    Pull(PullArgs),
    /// Send images to their registry
    Push(PushArgs),
    /// Log in to a registry
    Login(LoginArgs),
    /// Forget the login to a registry
    Logout(LogoutArgs),
    /// Run a command in a throw-away container of an image, in the foreground
    Run(Box<RunArgs>),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Say what of this machine builds can use, what is missing, and how to get it
    Doctor(DoctorArgs),
    /// Show the version
    Version,
}

/// Arguments of `ashlar logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// List the builds that are known
    #[arg(long)]
    pub(crate) list: bool,
    /// One step: its number in progress, or a part of its name
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Name of the build, or its beginning [default: the last build]
    #[arg(value_name = "BUILD")]
    pub(crate) build: Option<String>,
}

/// Arguments of `ashlar explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Name of the build, or its beginning, as in `ashlar logs --list` [default: the last build]
    #[arg(value_name = "BUILD")]
    pub(crate) build: Option<String>,
}

/// `ashlar image …`: docker's other spelling of the same commands.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// List images
    #[command(alias = "list")]
    Ls(ImagesArgs),
    /// Show how an image was made, newest step first
    History(HistoryArgs),
    /// Show the details of images as JSON
    Inspect(InspectArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Remove image names, and images without names
    #[command(alias = "remove")]
    Rm(RmiArgs),
    /// Write images to a tar archive
    Save(SaveArgs),
    /// Read images from a tar archive
    Load(LoadArgs),
    /// Make an image of a tar of a root file system
    Import(ImportArgs),
    /// Fetch an image from its registry
    Pull(PullArgs),
}

impl ImageCommand {
    /// Returns the same command in its short spelling.
    pub(crate) fn flatten(self) -> Command {
        match self {
            Self::Build(args) => Command::Build(args),
            Self::Ls(args) => Command::Images(args),
            Self::History(args) => Command::History(args),
            Self::Inspect(args) => Command::Inspect(args),
            Self::Tag(args) => Command::Tag(args),
            Self::Rm(args) => Command::Rmi(args),
            Self::Save(args) => Command::Save(args),
            Self::Load(args) => Command::Load(args),
            Self::Import(args) => Command::Import(args),
            Self::Pull(args) => Command::Pull(args),
        }
    }
}

/// `ashlar build`.
#[derive(Debug, Clone, Args, Default)]
pub(crate) struct BuildArgs {
    /// Build context: a directory, or `-` for a tar archive or a Dockerfile on stdin
    #[arg(value_name = "PATH|-")]
    pub(crate) path: String,
    /// Name the image (repeatable)
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// Dockerfile, `-` for stdin [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Stop after a step, as progress shows it, and keep what is there as the image: build:2
    #[arg(long, value_name = "STAGE[:N]", conflicts_with = "target")]
    pub(crate) until: Option<String>,
    /// Set a build argument; without `=` from the environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Set the build arguments of a file of KEY=VALUE lines; those of --build-arg come after them
    #[arg(long, value_name = "FILE")]
    pub(crate) build_arg_file: Vec<PathBuf>,
    /// Write FILE.lock beside the Dockerfile FILE: the digests of what its names stand for
    #[arg(long, conflicts_with = "locked")]
    pub(crate) lock: bool,
    /// Take the digests of base images from FILE.lock, and refuse what isn't in it
    #[arg(long)]
    pub(crate) locked: bool,
    /// Additional context: a directory, oci-layout://DIR[:TAG] or docker-image://REF
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Add a label to the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Run every step again
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(crate) no_cache: Option<bool>,
    /// Run every step of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Where to: a directory, `-`, or type=oci|docker|tar|local|image|registry|cacheonly[,dest=…]
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) output: Vec<String>,
    /// Take results of earlier builds from a cache: NAME, or type=registry|local|s3|gha,…. Repeat it for several
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_from: Vec<String>,
    /// Leave this build's results in a cache: type=registry,ref=NAME[,mode=max], or type=local|inline|s3|gha,…. Repeat it for several
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_to: Vec<String>,
    /// Share cache mounts with the builds that give this name, or (global) with all [default: builds of the same context] [env: ASHLAR_CACHE_NS]
    #[arg(long, value_name = "NAME|global")]
    pub(crate) cache_ns: Option<String>,
    /// Push the image to the registries of its names: -o type=registry
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(crate) push: Option<bool>,
    /// How to show progress: auto, plain, tty, quiet, rawjson or none
    #[arg(long, value_name = "MODE")]
    pub(crate) progress: Option<String>,
    /// Print nothing but the image ID
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(crate) quiet: Option<bool>,
    /// Mark the image's manifests or index: KEY=VALUE, index:KEY=VALUE, manifest[linux/arm64]:KEY=VALUE (repeatable)
    #[arg(long, value_name = "[LEVEL:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Attach what is said of the image: type=provenance[,mode=min|max], type=sbom[,generator=IMAGE] (repeatable)
    #[arg(long, value_name = "type=TYPE")]
    pub(crate) attest: Vec<String>,
    /// Attach how the image was built: true, false, or mode=min|max,builder-id=URL,version=v1|v0.2 …
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "SPEC")]
    pub(crate) provenance: Option<String>,
    /// Attach what is in the image: true, false, or generator=IMAGE
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "SPEC")]
    pub(crate) sbom: Option<String>,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write facts about the result to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Platforms to build for, comma-separated or repeated [default: the machine's own]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Vec<String>,
    /// Network of RUN: default, none, or host (with --allow network.host)
    #[arg(long, value_name = "MODE")]
    pub(crate) network: Option<String>,
    /// Grant an entitlement to RUN: network.host, security.insecure, device or device=NAME (repeatable)
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// Have RUN's containers made by runc, crun, or one of them at a path; native: by ashlar itself [env: ASHLAR_OCI_RUNTIME]
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) oci_runtime: Option<String>,
    /// Directory with descriptions of devices (CDI) for RUN --device [default: /etc/cdi and /var/run/cdi]
    #[arg(long, value_name = "DIR")]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,
    /// Add a line to /etc/hosts during RUN; the address host-gateway is the machine's
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Let RUN see a secret: id=ID[,src=FILE|,env=VAR] (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,
    /// Let RUN use an ssh agent or private keys: default, ID=SOCKET or ID=KEY[,KEY] (repeatable)
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,
    /// End the build after this long, for instance 90s, 10m or 1h30m
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// End a RUN that takes this long, and the build with it; waiting for cache mounts counts
    #[arg(long, value_name = "DURATION")]
    pub(crate) step_timeout: Option<String>,
    /// What to do when a RUN fails: stop, or open a shell in its container, as it is then
    #[arg(long, value_name = "stop|shell", value_parser = ["stop", "shell"])]
    pub(crate) on_error: Option<String>,
    /// Ask the registry again what base images are
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(crate) pull: Option<bool>,
    /// Answer instead of building: check, outline, targets or subrequests.describe[,format=json]
    #[arg(long, value_name = "WHAT")]
    pub(crate) call: Option<String>,
    /// Say what could be better in the Dockerfile, instead of building: --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(crate) check: Option<bool>,
    /// Say at the end why each step ran, or didn't; `ashlar explain` says it later
    #[arg(long)]
    pub(crate) explain: bool,
    /// Say which steps would run, and why, and run none of them
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Put the image into Docker or Podman as well, whichever is here, or the one named: -o type=docker
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "docker|podman")]
    pub(crate) load: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) ceiling: CeilingArgs,
    #[command(flatten)]
    pub(crate) refused: RefusedArgs,
    #[command(flatten)]
    pub(crate) legacy: LegacyArgs,
}

/// Flags of `docker buildx build` that aren't supported yet: they parse, and `options` refuses them by name.
#[derive(Debug, Clone, Args, Default)]
pub(crate) struct RefusedArgs {
    #[arg(long, hide = true)]
    pub(crate) builder: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) policy: Vec<String>,
    #[arg(short = 'D', long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) debug: Option<bool>,
}

/// Flags that BuildKit accepts without effect, for scripts written for the old builder.
#[derive(Debug, Clone, Args, Default)]
pub(crate) struct LegacyArgs {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) compress: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) force_rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) squash: Option<bool>,
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) security_opt: Vec<String>,
}

/// `ashlar images`.
#[derive(Debug, Args, Default)]
pub(crate) struct ImagesArgs {
    /// Only images of this repository, optionally with a tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) repository: Option<String>,
    /// Accepted for docker's sake: intermediate images don't exist
    #[arg(short, long, hide = true)]
    pub(crate) all: bool,
    /// Print image IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show manifest digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Show whole IDs
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// reference=PATTERN, dangling=true|false, label=NAME[=VALUE], before=IMAGE or since=IMAGE (repeatable)
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
}

/// `ashlar history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Image name or ID
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Show whole IDs and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show what makes the image big: of each layer its N heaviest files and directories, and what later layers hide
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "10", value_name = "N", conflicts_with = "quiet")]
    pub(crate) files: Option<usize>,
    /// Sizes and dates for people [default: true]
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub(crate) human: Option<bool>,
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `ashlar diff`.
#[derive(Debug, Args)]
#[command(
    long_about = "Show what is other in one image than in another: files that were added (A), changed (C) or removed (D), \
                  settings and layers. Contents, types, modes, owners and extended attributes of files count."
)]
pub(crate) struct DiffArgs {
    /// Name or ID of the older image
    #[arg(value_name = "IMAGE")]
    pub(crate) from: String,
    /// Name or ID of the newer image
    #[arg(value_name = "IMAGE")]
    pub(crate) to: String,
    /// Modification times of files count, too
    #[arg(long)]
    pub(crate) times: bool,
    /// Exit with 1 if there are differences
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `ashlar inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Image names or IDs
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// json, or a Go template: {{.Config.Env}}, {{json .Config}}, {{range .RepoTags}}{{println .}}{{end}}
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Accepted for docker's sake
    #[arg(long = "type", value_parser = ["image"], hide = true)]
    pub(crate) kind: Option<String>,
}

/// `ashlar tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Image name or ID
    #[arg(value_name = "IMAGE")]
    pub(crate) source: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) target: String,
}

/// `ashlar rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Image names or IDs
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Remove an image by ID although it has several names; a missing image is not an error
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Accepted for docker's sake: parents are never removed
    #[arg(long, hide = true)]
    pub(crate) no_prune: bool,
}

/// `ashlar push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Image name; its first part is the registry
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) image: String,
    /// Push all tags of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Push the image for all its platforms (it always is, without --platform)
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
    /// Push the image for one platform only
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Compress layers so, even those that came in another form: gzip, zstd or uncompressed
    #[arg(long, value_name = "CODEC")]
    pub(crate) compression: Option<String>,
    /// Print the image's name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `ashlar pull`.
#[derive(Debug, Args, Default)]
pub(crate) struct PullArgs {
    /// Which image: NAME[:TAG][@DIGEST]
    #[arg(value_name = "NAME")]
    pub(crate) image: String,
    /// For which platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Print the complete name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `ashlar login`.
#[derive(Debug, Args, Default)]
pub(crate) struct LoginArgs {
    /// Registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
    /// Name of the user; asked for at a terminal
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password or token; others can see it here
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// `ashlar logout`.
#[derive(Debug, Args, Default)]
pub(crate) struct LogoutArgs {
    /// Registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

/// `ashlar doctor`.
#[derive(Debug, Args, Default)]
pub(crate) struct DoctorArgs {
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `ashlar run`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Print help; `-h` is docker's short form of `--hostname`
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Accepted for docker's sake: containers are always removed
    #[arg(long, hide = true)]
    pub(crate) rm: bool,
    /// Connect stdin
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; without `=` from the environment (repeatable)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User, optionally with group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Program instead of the image's ENTRYPOINT; empty clears it
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Make an image of the container's files, with the settings of the image that it ran
    #[arg(long, value_name = "NAME[:TAG]")]
    pub(crate) commit: Option<String>,
    /// default, none or host
    #[arg(
        long,
        alias = "net",
        value_name = "MODE",
        default_value = "default",
        hide_default_value = true
    )]
    pub(crate) network: String,
    /// Have the container made by runc, crun, or one of them at a path; native: by ashlar itself [env: ASHLAR_OCI_RUNTIME]
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) oci_runtime: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Image name or ID; after it, a command and its arguments instead of the image's CMD
    // In one, because whatever follows the image is the command's: `-c` too.
    #[arg(value_names = ["IMAGE", "COMMAND"], num_args = 1.., required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

impl RunArgs {
    /// Returns the image.
    pub(crate) fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Returns the command and its arguments; empty: the image's own.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}
