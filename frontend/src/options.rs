//! What a build is asked for beside the Dockerfile, and what comes in and out of lowering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cache::{DiffId, Digest};
use solver::graph::VertexId;
use solver::op::Network;

use crate::config::ImageConfig;
use crate::diagnostic::Diagnostics;
use crate::git::GitSource;
use crate::ignore::IgnoreFile;
use crate::platform::Platform;
use crate::source::Span;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--build-arg`, in order; a later one wins. Names without a value were settled by the caller.
    pub build_args: Vec<(String, String)>,
    /// `--target`
    pub target: Option<String>,
    /// `--until`: the last step to build, instead of a whole stage.
    pub until: Option<Until>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// What the machine runs.
    pub build_platform: Platform,
    /// `--platform`
    pub target_platform: Platform,
    /// The target platform is one of several, so that step names must tell it.
    pub is_multi_platform: bool,
    /// `--build-context`, by name; a name may end in `::os/arch`.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache`
    pub no_cache: bool,
    /// `--no-cache-filter`: names of stages.
    pub no_cache_filter: Vec<String>,
    /// `--network`: what RUN gets unless it says otherwise.
    pub network: Network,
    /// `--add-host`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// When the main context was made, in seconds since the epoch; a directory has no such time.
    pub context_time: Option<i64>,
    /// `--allow network.host`
    pub allow_network_host: bool,
    /// `--allow security.insecure`
    pub allow_security_insecure: bool,
    /// `--allow device`, `--allow device=NAME`
    pub allow_device: AllowedDevices,
    /// What the context's ignore file keeps out.
    pub ignore: Option<Arc<IgnoreFile>>,
    /// Looks at all stages, not only at what the target needs: to check a file, not to build it.
    pub every_stage: bool,
}

/// Which devices `RUN --device` may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AllowedDevices {
    /// None.
    #[default]
    None,
    /// Those with these names, compared as written.
    Named(BTreeSet<String>),
    /// All.
    All,
}

impl AllowedDevices {
    /// Says whether a device may be asked for by this name.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::Named(names) => names.contains(name),
            Self::All => true,
        }
    }
}

impl Options {
    /// Returns the options of a plain build for `platform` on `platform`.
    pub fn new(platform: Platform) -> Self {
        Self {
            build_args: Vec::new(),
            target: None,
            until: None,
            labels: Vec::new(),
            build_platform: platform.clone(),
            target_platform: platform,
            is_multi_platform: false,
            named_contexts: BTreeMap::new(),
            no_cache: false,
            no_cache_filter: Vec::new(),
            network: Network::Default,
            extra_hosts: Vec::new(),
            context_time: None,
            allow_network_host: false,
            allow_security_insecure: false,
            allow_device: AllowedDevices::None,
            ignore: None,
            every_stage: false,
        }
    }

    /// Returns the value of a build argument.
    pub(crate) fn build_arg(&self, name: &str) -> Option<&str> {
        self.build_args
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A step to stop after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Until {
    /// The stage, by name, by index, or as `stage-N`: whatever step names show. Empty: the last.
    pub stage: String,
    /// Number of the step in its stage, from 1, as step names show it; `None`: the last.
    pub step: Option<usize>,
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory; the local tree is called by the context's name, as written in the options.
    Directory,
    /// A file of a web server, or the archive that it is, as a local tree called by the context's name.
    Http(String),
    /// A commit of a git server, likewise.
    Git(GitSource),
    /// `docker-image://`: an image reference.
    Image(String),
    /// `oci-layout://`
    OciLayout {
        /// The layout's directory.
        path: String,
        /// Tag or digest in it.
        reference: String,
    },
}

/// An image that has to be known before the graph can be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRequest {
    /// As written, variables expanded; making it complete is the resolver's business.
    pub reference: String,
    /// Where to look.
    pub kind: ImageKind,
    /// For what.
    pub platform: Platform,
}

/// Where an image is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageKind {
    /// The local store and registries.
    Registry,
    /// A layout on this machine.
    OciLayout {
        /// Its directory.
        path: String,
    },
}

/// The answer to an [`ImageRequest`].
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, base first.
    pub layers: Vec<DiffId>,
    /// Complete, with digest: for people.
    pub reference: String,
}

/// A reference of a git repository that has to be known as a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitRequest {
    /// The repository's address.
    pub remote: String,
    /// Branch, tag, full reference or commit id as written; empty for the default branch.
    pub reference: String,
    /// The commit id, whole or its beginning, that it must turn out to be.
    pub checksum: Option<String>,
    /// The commit's time is wanted too, which takes fetching it.
    pub wants_time: bool,
}

/// The answer to a [`GitRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedGit {
    /// The whole commit id, in lower-case hex.
    pub commit: String,
    /// The full reference that led there (`refs/heads/main`); empty for a commit id.
    pub reference: String,
    /// When the commit was made, in seconds since the epoch; known only where the commit was fetched to find out.
    pub time: Option<i64>,
}

/// A file that has to be known by its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpRequest {
    /// Its address.
    pub url: String,
    /// The digest that its content must have; with it, content that is stored needs no request.
    pub checksum: Option<Digest>,
}

/// The answer to an [`HttpRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedHttp {
    /// Digest of the content, which is a blob of the store now.
    pub digest: Digest,
    /// `Last-Modified`, in seconds since the epoch.
    pub last_modified: Option<i64>,
}

/// Something outside that has to be known before the graph can be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// An image's config and layers.
    Image(ImageRequest),
    /// A commit.
    Git(GitRequest),
    /// A file's digest.
    Http(HttpRequest),
}

/// What is known of the outside: the answers to all requests so far.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Images.
    pub images: BTreeMap<ImageRequest, ResolvedImage>,
    /// Commits.
    pub git: BTreeMap<GitRequest, ResolvedGit>,
    /// Files.
    pub http: BTreeMap<HttpRequest, ResolvedHttp>,
}

/// Something that lowering can't do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// What.
    pub request: Request,
    /// Where it is named first.
    pub span: Span,
}

/// What lowering came to.
#[derive(Debug)]
pub enum Lowered {
    /// These answers are needed first; call again with them and all earlier ones.
    Need(Vec<Needed>),
    /// The graph has what the build needs.
    Ready(Box<Build>),
}

/// What a list of an image's contents (SBOM) is to look at besides the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scans {
    /// The main context.
    pub context: bool,
    /// Stages that the target needs, by name.
    pub stages: Vec<(String, VertexId)>,
}

/// What the steps that were added to the graph make.
#[derive(Debug)]
pub struct Build {
    /// The tree of the image.
    pub target: VertexId,
    /// The image's config; `created`, `rootfs.diff_ids` and the times of new history entries are still missing.
    pub config: ImageConfig,
    /// How many entries of the config's history are the base image's, verbatim. Those after them are this build's:
    /// their times are missing, and each that isn't empty stands for one layer.
    pub n_base_history: usize,
    /// Local trees that the graph reads: `context` and names of directory contexts.
    pub contexts: BTreeSet<String>,
    /// What a list of contents is to look at besides the target.
    pub scans: Scans,
    /// What could be better, found while lowering.
    pub warnings: Diagnostics,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub epoch: Option<i64>,
}
