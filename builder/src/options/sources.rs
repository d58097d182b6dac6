//! Where a build takes its context and its Dockerfile from: what words on the command line stand for.

use std::path::PathBuf;

use frontend::GitSource;

use super::not_yet;
use crate::cli::BuildArgs;
use crate::report::Failure;

/// Where the build context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// Stdin: a tar archive is the context; anything else is a Dockerfile, and the context is empty.
    Stdin,
    /// A file of a web server, treated like stdin.
    Http(String),
    /// A commit of a git server.
    Git(GitSource),
}

/// Where the Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DockerfileSource {
    /// `Dockerfile` of the context.
    InContext,
    /// A file, relative to the working directory.
    File(PathBuf),
    /// Stdin.
    Stdin,
    /// A file of a web server.
    Http(String),
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedSource {
    /// A directory.
    Directory(PathBuf),
    /// An image in an OCI layout; the reference is a tag or digest within it.
    OciLayout {
        /// The layout.
        dir: PathBuf,
        /// A tag without its colon, or a digest with its `@`; `None`: the only image.
        reference: Option<String>,
    },
    /// An image, by reference as written.
    Image(String),
    /// A file of a web server: a tar archive, or a tree with that file alone.
    Http(String),
    /// A commit of a git server.
    Git(GitSource),
}

/// Where context and Dockerfile come from.
pub(super) fn sources(args: &BuildArgs) -> Result<(ContextSource, DockerfileSource), Failure> {
    let context = context(&args.path)?;
    let dockerfile = match args.file.as_deref() {
        None | Some("") => DockerfileSource::InContext,
        Some("-") => DockerfileSource::Stdin,
        Some(url) if is_http(url) => DockerfileSource::Http(url.to_owned()),
        Some(url) if is_remote(url) => return Err(not_yet("a Dockerfile from a git repository")),
        Some(path) => DockerfileSource::File(PathBuf::from(path)),
    };
    match (context, dockerfile) {
        (ContextSource::Stdin, DockerfileSource::Stdin) => Err(Failure::usage(
            "invalid argument: can't use stdin for both build context and dockerfile",
        )),
        both => Ok(both),
    }
}

pub(super) fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

/// Reads the address of a repository.
pub(super) fn git_source(url: &str) -> Result<GitSource, Failure> {
    GitSource::parse(url).map_err(|error| {
        let shown = frontend::without_credentials(url);
        Failure::usage(format!("invalid address `{shown}`: {error}"))
    })
}

/// Says whether an address is a file of a web server; one that ends in `.git` is a repository.
pub(super) fn is_http(text: &str) -> bool {
    let path = text.split(['#', '?']).next().unwrap_or_default();
    (text.starts_with("http://") || text.starts_with("https://")) && !path.ends_with(".git")
}

fn context(path: &str) -> Result<ContextSource, Failure> {
    match path {
        "-" => Ok(ContextSource::Stdin),
        "" => {
            Err(Failure::usage("the build context is empty").with_help("give a directory, or `-` for stdin"))
        }
        url if is_http(url) => Ok(ContextSource::Http(url.to_owned())),
        url if is_remote(url) => Ok(ContextSource::Git(git_source(url)?)),
        path => Ok(ContextSource::Directory(PathBuf::from(path))),
    }
}
