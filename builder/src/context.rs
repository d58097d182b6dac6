//! Where a build reads from: the Dockerfile, the ignore file, the build context and named directories.
//!
//! A directory is scanned only as far as the graph uses it. A tar on stdin becomes a layer file in the scratch space
//! and is read from there. Spec: dockerfile.md §15.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::Store;
use cache::layer::{LayerFile, Limits, TreePath};
use cache::root::Root;
use cache::tree::{ContextTree, Memo, Notice, Selection, View};
use frontend::IgnoreFile;
use rustix::fs::FileType;

use crate::attest::Origin;
use crate::options::{ContextSource, DockerfileSource};

/// A Dockerfile of more bytes is a mistake; the same cap holds for ignore files.
const DOCKERFILE_LIMIT_BYTES: u64 = 16 << 20;
/// Nobody reads more lines about what was left out.
const MAX_NOTICES: usize = 10;

/// Says why the context can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("failed to read dockerfile: {path}: {source}")]
    Dockerfile { path: PathBuf, source: io::Error },
    #[error("the build context {path} is not a directory")]
    NotADirectory { path: PathBuf },
    #[error("failed to read dockerfile: {path}: no such file or directory")]
    NoDockerfile { path: PathBuf },
    #[error("{path} is larger than {DOCKERFILE_LIMIT_BYTES} bytes")]
    TooLarge { path: PathBuf },
    #[error("cannot read the ignore file {path}: {source}")]
    IgnoreFile { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    IgnorePattern {
        path: PathBuf,
        source: frontend::ignore::IgnoreError,
    },
    #[error("cannot use {path} as a build context: {source}")]
    Directory {
        path: PathBuf,
        source: cache::root::Error,
    },
    #[error("cannot read the build context: {source}")]
    Stream { source: io::Error },
    #[error("the tar is not a usable build context: {0}")]
    Tar(#[from] cache::Error),
    #[error(transparent)]
    Tree(#[from] cache::tree::Error),
    #[error("can't use stdin for both build context and dockerfile")]
    StdinTwice,
}

/// The Dockerfile and what the build may read.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// For diagnostics: the Dockerfile as the user would name it.
    pub(crate) dockerfile_name: String,
    pub(crate) dockerfile: Vec<u8>,
    main: MainContext,
    /// When the main context was made, in seconds since the epoch: what SOURCE_DATE_EPOCH=context means. A directory
    /// has no such time.
    pub(crate) time: Option<i64>,
}

#[derive(Debug)]
enum MainContext {
    Empty,
    Tar(View),
    Directory { path: PathBuf, ignore: Arc<IgnoreFile> },
}

/// What was fetched of the options before they are read.
#[derive(Default)]
pub(crate) struct Fetched {
    /// The main context.
    pub(crate) main: Option<File>,
    /// The main context, when it is a tree of files already.
    pub(crate) tree: Option<View>,
    /// When either was changed, in seconds since the epoch.
    pub(crate) time: Option<i64>,
    /// Where the main context came from: nothing that reading it depends on.
    pub(crate) origin: Option<Origin>,
    /// The Dockerfile, and where it is from.
    pub(crate) dockerfile: Option<(String, File)>,
}

/// Reads the Dockerfile and the ignore file.
pub(crate) fn read(
    context: &ContextSource,
    dockerfile: &DockerfileSource,
    fetched: Fetched,
    store: &Store,
) -> Result<Inputs, ContextError> {
    let Fetched {
        main,
        tree,
        time,
        dockerfile: remote,
        origin: _,
    } = fetched;
    let remote = match remote {
        Some((name, file)) => {
            let text = read_capped(file, Path::new(&name))?;
            Some((name, text))
        }
        None => None,
    };
    if let Some(tree) = tree {
        return Ok(Inputs {
            time,
            ..read_tree(tree, dockerfile, remote)?
        });
    }
    match (context, main) {
        (_, Some(file)) => {
            let inputs = read_stream(file, dockerfile, remote, store)?;
            Ok(Inputs {
                time: time.or(inputs.time),
                ..inputs
            })
        }
        (ContextSource::Stdin | ContextSource::Http(_) | ContextSource::Git(_), None) => {
            read_stream(io::stdin(), dockerfile, remote, store)
        }
        (ContextSource::Directory(dir), None) => {
            if !dir.is_dir() {
                return Err(ContextError::NotADirectory { path: dir.clone() });
            }
            let (name, dockerfile, beside) = match remote {
                Some((name, text)) => (name, text, None),
                None => read_dockerfile(dir, dockerfile)?,
            };
            let ignore = Arc::new(read_ignore(dir, beside.as_deref())?);
            let main = MainContext::Directory {
                path: dir.clone(),
                ignore,
            };
            Ok(Inputs {
                dockerfile_name: name,
                dockerfile,
                main,
                time: None,
            })
        }
    }
}

/// Returns the Dockerfile's name and text, and where an ignore file of its own would be.
fn read_dockerfile(
    dir: &Path,
    dockerfile: &DockerfileSource,
) -> Result<(String, Vec<u8>, Option<PathBuf>), ContextError> {
    let candidates = match dockerfile {
        DockerfileSource::Stdin => {
            let text = read_capped(io::stdin().lock(), Path::new("-"))?;
            return Ok(("Dockerfile".to_owned(), text, None));
        }
        DockerfileSource::File(file) => vec![file.clone()],
        DockerfileSource::InContext | DockerfileSource::Http(_) => {
            vec![dir.join("Dockerfile"), dir.join("dockerfile")]
        }
    };
    let mut first_error = None;
    for path in candidates {
        let wrap = |source| ContextError::Dockerfile {
            path: path.clone(),
            source,
        };
        match open_regular(&path) {
            Ok(opened) => {
                let text = read_capped(opened, &path)?;
                let mut beside = path.clone().into_os_string();
                beside.push(".dockerignore");
                return Ok((path.display().to_string(), text, Some(beside.into())));
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                first_error.get_or_insert(ContextError::NoDockerfile { path });
            }
            Err(source) => return Err(wrap(source)),
        }
    }
    Err(first_error.expect("there is at least one candidate"))
}

/// Opens a file without waiting for the writer of a named pipe.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

fn read_capped(reader: impl Read, path: &Path) -> Result<Vec<u8>, ContextError> {
    let mut text = Vec::new();
    reader
        .take(DOCKERFILE_LIMIT_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|source| ContextError::Dockerfile {
            path: path.to_owned(),
            source,
        })?;
    if text.len() as u64 > DOCKERFILE_LIMIT_BYTES {
        return Err(ContextError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// Reads `<dockerfile>.dockerignore` if there is one, else the context's `.dockerignore`.
fn read_ignore(dir: &Path, beside: Option<&Path>) -> Result<IgnoreFile, ContextError> {
    let candidates = beside
        .map(Path::to_owned)
        .into_iter()
        .chain([dir.join(".dockerignore")]);
    for path in candidates {
        match open_regular(&path) {
            Ok(opened) => {
                let text = read_capped(opened, &path)?;
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                return IgnoreFile::parse(&name, &text).map_err(|source| ContextError::IgnorePattern {
                    path: path.clone(),
                    source,
                });
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ContextError::IgnoreFile { path, source }),
        }
    }
    Ok(IgnoreFile::default())
}

/// Takes in a stream: a tar, compressed or not, is the context and holds the Dockerfile, unless that was fetched; else
/// it is the Dockerfile.
fn read_stream(
    stream: impl Read + Send,
    dockerfile: &DockerfileSource,
    remote: Option<(String, Vec<u8>)>,
    store: &Store,
) -> Result<Inputs, ContextError> {
    match open_stream(stream, store)? {
        Stream::Tar(tree) => {
            let time = newest(&tree);
            Ok(Inputs {
                time,
                ..read_tree(tree, dockerfile, remote)?
            })
        }
        Stream::File(file) => Ok(Inputs {
            dockerfile_name: "Dockerfile".to_owned(),
            dockerfile: file,
            main: MainContext::Empty,
            time: None,
        }),
    }
}

/// Takes a tree as the context, which holds the Dockerfile, unless that was fetched. Ignore files in it mean nothing.
fn read_tree(
    tree: View,
    dockerfile: &DockerfileSource,
    remote: Option<(String, Vec<u8>)>,
) -> Result<Inputs, ContextError> {
    if let Some((dockerfile_name, dockerfile)) = remote {
        return Ok(Inputs {
            dockerfile_name,
            dockerfile,
            main: MainContext::Tar(tree),
            time: None,
        });
    }
    let candidates = match dockerfile {
        DockerfileSource::File(file) => vec![file.as_path()],
        DockerfileSource::InContext | DockerfileSource::Http(_) => {
            vec![Path::new("Dockerfile"), Path::new("dockerfile")]
        }
        DockerfileSource::Stdin => return Err(ContextError::StdinTwice),
    };
    for name in &candidates {
        let inside = TreePath::clean(name.as_os_str().as_encoded_bytes());
        if let Some(dockerfile) = tree.read_small(&inside, DOCKERFILE_LIMIT_BYTES)? {
            let dockerfile_name = name.display().to_string();
            return Ok(Inputs {
                dockerfile_name,
                dockerfile,
                main: MainContext::Tar(tree),
                time: None,
            });
        }
    }
    Err(ContextError::NoDockerfile {
        path: candidates[0].to_owned(),
    })
}

/// What a stream turned out to be.
enum Stream {
    Tar(View),
    File(Vec<u8>),
}

/// Reads a tar archive, compressed or not, into scratch space; anything else, if it is small, into memory.
fn open_stream(stream: impl Read + Send, store: &Store) -> Result<Stream, ContextError> {
    let stream_error = |source| ContextError::Stream { source };
    let (_, mut reader) = cache::compress::decompressor(stream, Limits::default().max_bytes)
        .map_err(|error| stream_error(io::Error::other(error)))?;
    let mut head = Vec::new();
    (&mut reader)
        .take(512)
        .read_to_end(&mut head)
        .map_err(stream_error)?;
    let is_tar = cache::layer::is_tar_header(&head);
    let whole = Cursor::new(head).chain(reader);
    if !is_tar {
        return Ok(Stream::File(read_capped(whole, Path::new("-"))?));
    }
    let (scratch, path) = store.incomplete().file().map_err(stream_error)?;
    let written = cache::layer::import(whole, scratch, Limits::default());
    // The open file keeps the bytes for as long as they are needed.
    let _ = std::fs::remove_file(path);
    let written = written?;
    let layer = LayerFile::open(written.file, written.diff_id)?;
    Ok(Stream::Tar(View::of_layers([Arc::new(layer)])?))
}

/// Returns the tree of a tar archive that was fetched; `None` when it is none.
pub(crate) fn tree_of_archive(file: File, store: &Store) -> Result<Option<View>, ContextError> {
    match open_stream(file, store)? {
        Stream::Tar(tree) => Ok(Some(tree)),
        Stream::File(_) => Ok(None),
    }
}

/// Returns when the newest entry of a tree was changed.
fn newest(tree: &View) -> Option<i64> {
    let times = tree
        .walk(&TreePath::root())
        .map(|(_, node)| node.meta.mtime.seconds);
    times.max()
}

impl Inputs {
    /// Returns what keeps files out of the main context.
    pub(crate) fn ignore(&self) -> Option<Arc<IgnoreFile>> {
        match &self.main {
            MainContext::Directory { ignore, .. } => Some(Arc::clone(ignore)),
            MainContext::Empty | MainContext::Tar(_) => None,
        }
    }

    /// Returns a sentence about why a context doesn't have `path`, if it is there and an ignore file keeps it out.
    pub(crate) fn why_ignored(
        &self,
        context: &str,
        named: &BTreeMap<String, PathBuf>,
        path: &str,
    ) -> Option<String> {
        let own;
        let (dir, ignore) = match (named.get(context), &self.main) {
            (Some(dir), _) => {
                own = read_ignore(dir, None).ok()?;
                (dir, &own)
            }
            (None, MainContext::Directory { path, ignore }) => (path, &**ignore),
            (None, _) => return None,
        };
        let place = TreePath::clean(path.as_bytes());
        let pattern = ignore.excluding(&place)?;
        let found = Root::open_host(dir).ok()?.stat(&place).ok()?;
        let is_directory = FileType::from_raw_mode(found.st_mode).is_dir();
        let slash = if is_directory && !path.ends_with('/') {
            "/"
        } else {
            ""
        };
        Some(format!(
            "`{path}{slash}` is there, but it is excluded by {} line {}: {}",
            ignore.name(),
            pattern.line,
            pattern.text
        ))
    }

    /// Makes the trees that the graph reads, by context name: `wanted` maps each to what is selected of it. `warn` hears what
    /// is left out.
    pub(crate) fn trees(
        &self,
        wanted: &BTreeMap<String, Vec<Selection>>,
        named: &BTreeMap<String, NamedTree>,
        memo: &Arc<Memo>,
        warn: impl Fn(String),
    ) -> Result<BTreeMap<String, View>, ContextError> {
        let scan = |path: &Path, ignore: &IgnoreFile, selections: &[Selection]| {
            let tree = scan(path, ignore, selections, memo)?;
            tell_left_out(&tree, path, &warn);
            Ok::<_, ContextError>(View::of_directory(Arc::new(tree))?)
        };
        let mut trees = BTreeMap::new();
        for (name, selections) in wanted {
            let tree = match named.get(name) {
                // A named directory obeys the ignore file in its own root.
                Some(NamedTree::Directory(path)) => scan(path, &read_ignore(path, None)?, selections)?,
                Some(NamedTree::Fetched(tree)) => tree.clone(),
                None => match &self.main {
                    MainContext::Empty => View::default(),
                    MainContext::Tar(view) => view.clone(),
                    MainContext::Directory { path, ignore } => scan(path, ignore, selections)?,
                },
            };
            trees.insert(name.clone(), tree);
        }
        Ok(trees)
    }
}

/// What a named context is on this machine.
pub(crate) enum NamedTree {
    Directory(PathBuf),
    Fetched(View),
}

fn scan(
    path: &Path,
    ignore: &IgnoreFile,
    selections: &[Selection],
    memo: &Arc<Memo>,
) -> Result<ContextTree, ContextError> {
    let root = Root::open_host(path).map_err(|source| ContextError::Directory {
        path: path.to_owned(),
        source,
    })?;
    Ok(ContextTree::scan(
        root,
        ignore.list(),
        selections,
        Arc::clone(memo),
    )?)
}

/// What no image can hold is left out, as elsewhere, but not in silence.
fn tell_left_out(tree: &ContextTree, dir: &Path, warn: impl Fn(String)) {
    let notices = tree.notices();
    for notice in notices.iter().take(MAX_NOTICES) {
        let what = match notice {
            Notice::Socket(_) => "a socket",
            Notice::Whiteout(_) => "a device of number 0:0",
        };
        let path = notice.path().to_string();
        let path = dir.join(path.trim_start_matches('/'));
        warn(format!(
            "{} is left out: it is {what}, which no image can hold",
            path.display()
        ));
    }
    if let Some(more @ 1..) = notices.len().checked_sub(MAX_NOTICES) {
        warn(format!("{more} more files of {} are left out", dir.display()));
    }
}
