//! `--ssh`: what a build's steps may ask for signatures. Either an agent of the user, or private keys, for which this
//! process is the agent. Keys are in memory only; nothing that a step says gets one out, adds or removes one.
//!
//! | file | what is there |
//! |---|---|
//! | `forward` | a socket that is served, and what may be asked there |
//! | `keyring` | the answers of an agent that has keys itself |
//! | `private_key` | files of private keys, and signing |
//! | `wire` | how ssh writes numbers and strings |

mod forward;
mod keyring;
mod private_key;
mod wire;

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use forward::Forwarding;
use keyring::Keyring;
use private_key::{Key, KeyError};

use crate::options::Environment;

/// Where `ssh` looks for its agent.
pub(crate) const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// `--ssh`: a name, and where its agent listens or its keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshOption {
    /// Id.
    pub(crate) id: String,
    /// A socket, or private keys. None: what `SSH_AUTH_SOCK` says.
    pub(crate) paths: Vec<PathBuf>,
}

/// Who signs.
#[derive(Debug, Clone)]
pub(crate) enum Agent {
    /// Whoever listens there.
    Socket(PathBuf),
    /// This process.
    Keys(Arc<Keyring>),
}

/// Says why an agent or a key can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SshError {
    /// An option that says nothing.
    #[error("invalid --ssh `{text}`: {why}")]
    Option {
        /// As written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No agent.
    #[error("ssh {id}: invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")]
    NoAgent {
        /// Which agent.
        id: String,
    },
    /// There is nothing that can be used.
    #[error("ssh {id}: cannot use {}: {source}", path.display())]
    Path {
        /// Which agent.
        id: String,
        /// Its socket or key.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A socket among others.
    #[error("ssh {id}: {} is the socket of an agent, which must be the only path", path.display())]
    SeveralSockets {
        /// Which agent.
        id: String,
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no key, or one that can't be used.
    #[error("ssh {id}: {}: {source}", path.display())]
    Key {
        /// Which agent.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeyError,
    },
}

impl SshOption {
    /// Reads `ID[=SOCKET|=KEY[,KEY…]]`. Spec: cli-and-outputs.md §11.
    pub(crate) fn parse(text: &str) -> Result<Self, SshError> {
        let (id, value) = match text.split_once('=') {
            Some((id, value)) => (id, Some(value)),
            None => (text, None),
        };
        let wrong = |why| {
            let text = text.to_owned();
            Err(SshError::Option { text, why })
        };
        if id.is_empty() {
            return wrong("it has no id");
        }
        let mut paths = Vec::new();
        for path in value.iter().flat_map(|value| value.split(',')) {
            match path {
                "" => return wrong("a socket or key is missing"),
                // It asks for what is done to sockets but a filter on what may be asked of the agent.
                "raw=true" => {
                    return wrong("raw=true isn't supported: agents are asked for keys and signatures only");
                }
                "raw=false" => {}
                path => paths.push(PathBuf::from(path)),
            }
        }
        Ok(Self {
            id: id.to_owned(),
            paths,
        })
    }
}

impl Agent {
    /// Looks for the socket, or reads the keys: all at the start, so that what is missing fails before anything runs.
    pub(crate) fn load(option: &SshOption, environment: &Environment) -> Result<Self, SshError> {
        let id = || option.id.clone();
        let default;
        let paths = match option.paths.as_slice() {
            [] => {
                let socket = environment.var(AGENT_VARIABLE);
                default = [PathBuf::from(
                    socket.ok_or_else(|| SshError::NoAgent { id: id() })?,
                )];
                &default
            }
            paths => paths,
        };
        let mut keys = Vec::new();
        for path in paths {
            if is_socket(path).map_err(|source| SshError::Path {
                id: id(),
                path: path.clone(),
                source,
            })? {
                return match paths {
                    [path] => Ok(Self::Socket(path.clone())),
                    _ => Err(SshError::SeveralSockets {
                        id: id(),
                        path: path.clone(),
                    }),
                };
            }
            let key = Key::read(path).map_err(|source| SshError::Key {
                id: id(),
                path: path.clone(),
                source,
            })?;
            keys.push(key);
        }
        Ok(Self::Keys(Arc::new(Keyring::new(keys))))
    }
}

/// The user typed this path; it is followed as any program would.
fn is_socket(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.file_type().is_socket())
}

#[cfg(test)]
mod tests;
