//! `Dockerfile.lock`: what the names of a Dockerfile stood for when it was built, so that they stand for the same again.
//!
//! Pure text and types, and the file they are in; what a name stands for is found out by `registry` and its like.
//! Build contexts and layouts of this machine are not in it: they are named by the command line, not by the Dockerfile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use cache::Digest;
use frontend::{Answers, GitRequest, Platform, without_credentials};
use serde::{Deserialize, Serialize};

use crate::options::{BuildOptions, ContextSource, DockerfileSource};
use crate::registry::Reference;

const VERSION: u32 = 1;
/// A lock file of more bytes is none.
const MAX_BYTES: u64 = 16 << 20;

/// What a build does with its lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LockMode {
    /// Nothing.
    #[default]
    Off,
    /// Writes it when the build is done.
    Write,
    /// Takes everything from it, and refuses what isn't in it.
    Locked,
}

/// Says why a lock file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("there is no {path}")]
    Missing { path: PathBuf },
    #[error("{path} is not a lock file: {source}")]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{path} is of version {version}, and this program knows version {VERSION}")]
    Version { path: PathBuf, version: u32 },
    #[error("{what} is not in {path}")]
    NotLocked { path: PathBuf, what: String },
    #[error("{what} is {actual} now, and {expected} in {path}")]
    Differs {
        path: PathBuf,
        what: String,
        expected: String,
        actual: String,
    },
}

/// What an image was, as precisely as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Digest of its manifest: any registry can be asked for it.
    Manifest(Digest),
    /// Digest of its config: an image that was built here and never was in a registry.
    Id(Digest),
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifest(digest) => write!(f, "{digest}"),
            Self::Id(digest) => write!(f, "id:{digest}"),
        }
    }
}

impl std::str::FromStr for Pin {
    type Err = cache::digest::ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("id:") {
            Some(id) => id.parse().map(Self::Id),
            None => text.parse().map(Self::Manifest),
        }
    }
}

impl Serialize for Pin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The file's content: sorted, one name a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// By complete reference, then by platform.
    #[serde(default)]
    images: BTreeMap<String, BTreeMap<String, Pin>>,
    /// Digests of fetched files, by address without credentials.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
    /// Commit ids, by address without credentials, `#` and reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    commits: BTreeMap<String, String>,
}

/// A lock file that is read, or being filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    path: PathBuf,
    content: Content,
}

/// Returns where the lock file of a build is: beside its Dockerfile. `None` when that is no file of a directory.
pub(crate) fn path(options: &BuildOptions) -> Option<PathBuf> {
    let dockerfile = match (&options.dockerfile, &options.context) {
        (DockerfileSource::File(path), _) => path.clone(),
        (DockerfileSource::InContext, ContextSource::Directory(dir)) => dir.join("Dockerfile"),
        _ => return None,
    };
    let mut path = dockerfile.into_os_string();
    path.push(".lock");
    Some(path.into())
}

impl Lock {
    /// Returns an empty lock that will be at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        let content = Content {
            version: VERSION,
            images: BTreeMap::new(),
            files: BTreeMap::new(),
            commits: BTreeMap::new(),
        };
        Self { path, content }
    }

    /// Reads a lock file.
    pub(crate) fn read(path: PathBuf) -> Result<Self, LockError> {
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        match read {
            Ok(_) => Self::parse(path, &bytes),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(LockError::Missing { path }),
            Err(source) => Err(LockError::Read { path, source }),
        }
    }

    fn parse(path: PathBuf, bytes: &[u8]) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        // A later version may have more fields: it is told by its number, not by them.
        match serde_json::from_slice(bytes) {
            Ok(Versioned { version: VERSION }) => {}
            Ok(Versioned { version }) => return Err(LockError::Version { path, version }),
            Err(source) => return Err(LockError::Malformed { path, source }),
        }
        match serde_json::from_slice(bytes) {
            Ok(content) => Ok(Self { path, content }),
            Err(source) => Err(LockError::Malformed { path, source }),
        }
    }

    fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(&self.content)
            .expect("because a lock holds only strings, numbers and maps with string keys");
        format!("{text}\n")
    }

    /// Writes the file, whole or not at all; one that says the same already is left alone.
    pub(crate) fn write(&self) -> Result<(), LockError> {
        let text = self.to_json();
        if Self::read(self.path.clone()).is_ok_and(|there| there == *self) {
            return Ok(());
        }
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let written = File::create(&beside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&beside, &self.path));
        written.map_err(|source| {
            // What can't be removed either is only a file too many.
            let _ = std::fs::remove_file(&beside);
            LockError::Write {
                path: self.path.clone(),
                source,
            }
        })
    }

    /// Notes what an image was.
    pub(crate) fn add_image(&mut self, reference: &Reference, platform: &Platform, pin: Pin) {
        let platforms = self.content.images.entry(reference.to_string()).or_default();
        platforms.insert(platform.to_string(), pin);
    }

    /// Returns what an image must be.
    pub(crate) fn image(&self, reference: &Reference, platform: &Platform) -> Result<Pin, LockError> {
        let platforms = self.content.images.get(&reference.to_string());
        platforms
            .and_then(|platforms| platforms.get(&platform.to_string()))
            .copied()
            .ok_or_else(|| self.not_locked(format!("{} for {platform}", reference.familiar())))
    }

    /// Notes what the files and commits were that lowering asked for.
    pub(crate) fn add_sources(&mut self, known: &Answers) {
        for (request, file) in &known.http {
            self.content
                .files
                .insert(without_credentials(&request.url), file.digest.to_string());
        }
        for (request, commit) in &known.git {
            self.content
                .commits
                .insert(commit_name(request), commit.commit.clone());
        }
    }

    /// Returns the digest that a fetched file must have.
    pub(crate) fn file(&self, url: &str) -> Result<Digest, LockError> {
        let name = without_credentials(url);
        let locked = self
            .content
            .files
            .get(&name)
            .and_then(|digest| digest.parse().ok());
        locked.ok_or_else(|| self.not_locked(name))
    }

    /// Fails when a reference isn't the commit that it was.
    pub(crate) fn check_commit(&self, request: &GitRequest, commit: &str) -> Result<(), LockError> {
        let name = commit_name(request);
        let Some(locked) = self.content.commits.get(&name) else {
            return Err(self.not_locked(name));
        };
        if locked == commit {
            return Ok(());
        }
        Err(LockError::Differs {
            path: self.path.clone(),
            what: name,
            expected: locked.clone(),
            actual: commit.to_owned(),
        })
    }

    fn not_locked(&self, what: String) -> LockError {
        LockError::NotLocked {
            path: self.path.clone(),
            what,
        }
    }

    /// The error for something that isn't what it was.
    pub(crate) fn differs(&self, what: String, expected: Pin, actual: impl ToString) -> LockError {
        LockError::Differs {
            path: self.path.clone(),
            what,
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }
}

fn commit_name(request: &GitRequest) -> String {
    format!("{}#{}", without_credentials(&request.remote), request.reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn example() -> Lock {
        let mut lock = Lock::new("Dockerfile.lock".into());
        let reference = |text| Reference::parse(text).unwrap();
        let platform = |text: &str| text.parse().unwrap();
        let manifest = Pin::Manifest(digest("m"));
        lock.add_image(&reference("b:1"), &platform("linux/arm64"), manifest);
        lock.add_image(&reference("a"), &platform("linux/amd64"), Pin::Id(digest("i")));
        lock.add_image(&reference("b:1"), &platform("linux/amd64"), manifest);
        lock
    }

    #[test]
    fn what_is_written_is_sorted_and_can_be_read() {
        let lock = example();
        insta::assert_snapshot!(lock.to_json(), @r#"
        {
          "version": 1,
          "images": {
            "docker.io/library/a:latest": {
              "linux/amd64": "id:sha256:de7d1b721a1e0632b7cf04edf5032c8ecffa9f9a08492152b926f1a5a7e765d7"
            },
            "docker.io/library/b:1": {
              "linux/amd64": "sha256:62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a",
              "linux/arm64": "sha256:62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a"
            }
          }
        }
        "#);
        assert_eq!(
            Lock::parse("Dockerfile.lock".into(), lock.to_json().as_bytes()).unwrap(),
            lock
        );
    }

    #[test]
    fn what_is_not_in_it_is_refused() {
        let lock = example();
        let b = Reference::parse("docker.io/library/b:1").unwrap();
        let amd64 = "linux/amd64".parse().unwrap();
        assert_eq!(lock.image(&b, &amd64).unwrap(), Pin::Manifest(digest("m")));
        let missing = lock.image(&b, &"linux/s390x".parse().unwrap()).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "b:1 for linux/s390x is not in Dockerfile.lock"
        );
    }

    #[test]
    fn what_is_no_lock_file_is_refused() {
        for (text, message) in [
            ("", "is not a lock file"),
            ("{}", "missing field `version`"),
            ("{\"version\":2,\"new\":1}", "is of version 2"),
            ("{\"version\":1,\"new\":1}", "unknown field `new`"),
            (
                "{\"version\":1,\"images\":{\"a\":{\"linux/amd64\":\"sha256:x\"}}}",
                "is not a lock file",
            ),
        ] {
            let error = Lock::parse("x.lock".into(), text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(message), "{text}: {error}");
        }
    }
}
