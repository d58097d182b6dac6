//! What a build may show to its steps and must not keep: secret values, and who signs for them (`crate::ssh`).
//!
//! Values are read once, at the start, so that a missing file fails the build before anything runs. They are in memory
//! only: never in a key, a log, an error or a `Debug` output, and overwritten when they go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::options::Environment;
use crate::ssh::{Agent, SshError, SshOption};

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

/// Says why a secret or an agent can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// An option that says nothing.
    #[error("invalid --secret `{text}`: {why}")]
    Option {
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
    /// No agent, or no key.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

impl SecretOption {
    /// Reads `id=ID[,src=FILE|,env=VAR][,type=file|env]`. Spec: cli-and-outputs.md §11.
    pub(crate) fn parse(text: &str) -> Result<Self, SecretError> {
        let wrong = |why: String| SecretError::Option {
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

/// One value. Overwritten when it goes.
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// Returns a value that is overwritten when it goes. What a vector leaves behind where it grows isn't: it begins with
    /// the capacity that it ends with.
    pub(crate) fn new(value: Vec<u8>) -> Self {
        Self(value)
    }

    /// Returns the value.
    pub(crate) fn value(&self) -> &[u8] {
        &self.0
    }

    /// Returns the value, to be made.
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
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
    agents: BTreeMap<String, Agent>,
}

impl Secrets {
    /// Reads the values and keys, and looks for the sockets.
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
                .insert(option.id.clone(), Agent::load(option, environment)?);
        }
        Ok(loaded)
    }

    /// Returns a secret's value.
    pub(crate) fn value(&self, id: &str) -> Option<&Secret> {
        self.values.get(id)
    }

    /// Returns who signs.
    pub(crate) fn agent(&self, id: &str) -> Option<&Agent> {
        self.agents.get(id)
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
