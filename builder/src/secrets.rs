//! What a build may show to its steps and must not keep: secret values, and the sockets of ssh agents.
//!
//! Values are read once, at the start, so that a missing file fails the build before anything runs. They are in memory
//! only: never in a key, a log, an error or a `Debug` output, and overwritten when they go. Private keys are not read:
//! an agent is there to hold them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::options::Environment;

/// Largest secret, as with BuildKit.
pub(crate) const MAX_SECRET_BYTES: usize = 500 * 1024;
/// Values shorter than this are not looked for in output: they would be found everywhere.
const MIN_MASKED_BYTES: usize = 4;
/// What is shown in place of a secret value.
const MASK: &[u8] = b"****";

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// The environment variable of the secret's name if it is set, else the file of that name.
    Either,
}

/// `--secret`: a name and where its value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretOption {
    /// Id.
    pub(crate) id: String,
    /// Source.
    pub(crate) source: SecretSource,
}

/// `--ssh`: a name and where its agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshOption {
    /// Id.
    pub(crate) id: String,
    /// The socket; `None`: what `SSH_AUTH_SOCK` says.
    pub(crate) socket: Option<PathBuf>,
}

/// Says why a secret or an agent can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// An option that says nothing.
    #[error("invalid --{option} `{text}`: {why}")]
    Option {
        /// `secret` or `ssh`.
        option: &'static str,
        /// As written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such variable.
    #[error("secret {id}: the environment variable {variable} is not set")]
    NoVariable {
        /// Which secret.
        id: String,
        /// Where it should be.
        variable: String,
    },
    /// The file can't be read.
    #[error("secret {id}: cannot read {}: {source}", path.display())]
    File {
        /// Which secret.
        id: String,
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// More than is allowed.
    #[error("secret {id} is too big: at most 500 KiB are allowed")]
    TooBig {
        /// Which secret.
        id: String,
    },
    /// No agent.
    #[error("ssh {id}: invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")]
    NoAgent {
        /// Which agent.
        id: String,
    },
    /// The agent's socket can't be used.
    #[error("ssh {id}: cannot use {}: {source}", path.display())]
    Socket {
        /// Which agent.
        id: String,
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A private key instead of an agent.
    #[error(
        "ssh {id}: {} is not a socket: private keys are not read here, load them into an ssh-agent",
        path.display()
    )]
    NotSocket {
        /// Which agent.
        id: String,
        /// What was given.
        path: PathBuf,
    },
}

impl SecretOption {
    /// Reads `id=ID[,src=FILE|,env=VAR][,type=file|env]`. Spec: cli-and-outputs.md §11.
    pub(crate) fn parse(text: &str) -> Result<Self, SecretError> {
        let wrong = |why: String| SecretError::Option {
            option: "secret",
            text: text.to_owned(),
            why,
        };
        let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
        for field in text.split(',') {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| wrong(format!("`{field}` must be a key=value pair")))?;
            match key.to_ascii_lowercase().as_str() {
                "id" => id = Some(value),
                "src" | "source" => file = Some(value),
                "env" => variable = Some(value),
                "type" if matches!(value, "file" | "env") => kind = Some(value),
                "type" => return Err(wrong(format!("unsupported secret type `{value}`"))),
                _ => return Err(wrong(format!("unexpected key `{key}`"))),
            }
        }
        let id = id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| wrong("it has no id".to_owned()))?;
        let source = match (kind, file, variable) {
            (_, Some(_), Some(_)) => return Err(wrong("both src and env are given".to_owned())),
            (Some("env"), Some(name), None) | (_, None, Some(name)) => {
                SecretSource::Variable(name.to_owned())
            }
            (_, Some(path), None) => SecretSource::File(path.into()),
            (Some("env"), None, None) => SecretSource::Variable(id.to_owned()),
            (Some("file"), None, None) => SecretSource::File(id.into()),
            _ => SecretSource::Either,
        };
        Ok(Self {
            id: id.to_owned(),
            source,
        })
    }
}

impl SshOption {
    /// Reads `ID[=SOCKET]`.
    pub(crate) fn parse(text: &str) -> Result<Self, SecretError> {
        let (id, socket) = match text.split_once('=') {
            Some((id, socket)) => (id, Some(socket)),
            None => (text, None),
        };
        let wrong = |why: &str| SecretError::Option {
            option: "ssh",
            text: text.to_owned(),
            why: why.to_owned(),
        };
        if id.is_empty() {
            return Err(wrong("it has no id"));
        }
        // `raw=true` asks for what is done to sockets but a filter on what may be asked of the agent.
        let socket = socket.map(|socket| socket.strip_suffix(",raw=false").unwrap_or(socket));
        match socket {
            Some("") => Err(wrong("the socket is missing")),
            Some(socket) if socket.ends_with(",raw=true") => Err(wrong(
                "raw=true isn't supported: agents are asked for keys and signatures only",
            )),
            Some(socket) if socket.contains(',') => Err(wrong(
                "several keys aren't supported: load them into an ssh-agent",
            )),
            socket => Ok(Self {
                id: id.to_owned(),
                socket: socket.map(PathBuf::from),
            }),
        }
    }
}

/// One value. Overwritten when it goes.
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// Returns the value.
    pub(crate) fn value(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // The compiler must believe that somebody looks.
        std::hint::black_box(&mut self.0);
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// What the steps of one build may be shown.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    values: BTreeMap<String, Secret>,
    agents: BTreeMap<String, PathBuf>,
}

impl Secrets {
    /// Reads the values and looks for the sockets.
    pub(crate) fn load(
        secrets: &[SecretOption],
        ssh: &[SshOption],
        environment: &Environment,
    ) -> Result<Self, SecretError> {
        let mut loaded = Self::default();
        for option in secrets {
            let value = load(option, environment)?;
            if value.0.len() > MAX_SECRET_BYTES {
                return Err(SecretError::TooBig {
                    id: option.id.clone(),
                });
            }
            loaded.values.insert(option.id.clone(), value);
        }
        for option in ssh {
            loaded
                .agents
                .insert(option.id.clone(), agent(option, environment)?);
        }
        Ok(loaded)
    }

    /// Returns a secret's value.
    pub(crate) fn value(&self, id: &str) -> Option<&Secret> {
        self.values.get(id)
    }

    /// Returns where an agent listens.
    pub(crate) fn agent(&self, id: &str) -> Option<&Path> {
        self.agents.get(id).map(PathBuf::as_path)
    }

    /// Returns a text without these values.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut mask = self.mask();
        let mut shown = mask.pass(text.as_bytes());
        shown.extend(mask.finish());
        // Values may be anything, but what is left of a text without some of its bytes is shown all the same.
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Returns what hides these values in one stream of output.
    pub(crate) fn mask(&self) -> Mask<'_> {
        let mut values: Vec<&[u8]> = self
            .values
            .values()
            .map(|secret| secret.0.trim_ascii_end())
            .filter(|value| value.len() >= MIN_MASKED_BYTES)
            .collect();
        // Of two values that begin alike, the longer one hides both.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Mask {
            values,
            kept: Vec::new(),
        }
    }
}

fn load(option: &SecretOption, environment: &Environment) -> Result<Secret, SecretError> {
    let variable = |name: &str| {
        environment
            .vars
            .get(name)
            .map(|value| Secret(value.clone().into_bytes()))
    };
    match &option.source {
        SecretSource::Variable(name) => variable(name).ok_or_else(|| SecretError::NoVariable {
            id: option.id.clone(),
            variable: name.clone(),
        }),
        SecretSource::File(path) => file(&option.id, path),
        SecretSource::Either => {
            variable(&option.id).map_or_else(|| file(&option.id, Path::new(&option.id)), Ok)
        }
    }
}

/// Reads a file, one byte further than what is allowed.
fn file(id: &str, path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::File {
        id: id.to_owned(),
        path: path.to_owned(),
        source,
    };
    // All at once, so that no half-filled buffer with the value in it is left behind.
    let mut value = Secret(Vec::with_capacity(MAX_SECRET_BYTES + 1));
    let file = File::open(path).map_err(failed)?;
    let limit = MAX_SECRET_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut value.0).map_err(failed)?;
    Ok(value)
}

fn agent(option: &SshOption, environment: &Environment) -> Result<PathBuf, SecretError> {
    let id = || option.id.clone();
    let path = match &option.socket {
        Some(path) => path.clone(),
        None => environment
            .var("SSH_AUTH_SOCK")
            .map(PathBuf::from)
            .ok_or_else(|| SecretError::NoAgent { id: id() })?,
    };
    // The user typed this path; it is followed as any program would.
    match std::fs::metadata(&path) {
        Ok(meta) if meta.file_type().is_socket() => Ok(path),
        Ok(_) => Err(SecretError::NotSocket { id: id(), path }),
        Err(source) => Err(SecretError::Socket {
            id: id(),
            path,
            source,
        }),
    }
}

/// Hides secret values in one stream of output, also where they lie across two reads.
#[derive(Debug)]
pub(crate) struct Mask<'s> {
    /// Longest first.
    values: Vec<&'s [u8]>,
    /// The end of what came, which may be the beginning of a value.
    kept: Vec<u8>,
}

impl Mask<'_> {
    /// Takes what came, and returns what can be shown of it by now.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.kept.extend_from_slice(bytes);
        self.show(|values, rest| {
            let is_begun = |value: &&[u8]| value.len() > rest.len() && value.starts_with(rest);
            values.iter().any(is_begun)
        })
    }

    /// Returns the rest, when nothing more comes.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.show(|_, _| false)
    }

    /// Takes what is kept up to where `is_open` says that more must come first.
    fn show(&mut self, is_open: impl Fn(&[&[u8]], &[u8]) -> bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.kept.len());
        let mut at = 0;
        while let Some(rest) = self.kept.get(at..).filter(|rest| !rest.is_empty()) {
            let begins = self.values.iter().any(|value| value.first() == rest.first());
            if begins && is_open(&self.values, rest) {
                break;
            }
            match self.values.iter().find(|value| begins && rest.starts_with(value)) {
                Some(value) => {
                    out.extend_from_slice(MASK);
                    at += value.len();
                }
                None => {
                    out.extend(rest.first());
                    at += 1;
                }
            }
        }
        self.kept.drain(..at);
        out
    }

    /// Says whether there is nothing to hide.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
