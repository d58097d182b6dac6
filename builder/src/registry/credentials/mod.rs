//! As whom we speak to a registry: Docker's and containers' files of logins, and the helpers they name.
//!
//! Finds, keeps and forgets credentials; what they are exchanged for is `endpoint`'s. Secrets never enter an error, a
//! log or a helper's arguments. Spec: cli-and-outputs.md §19.

mod file;
mod helper;

use std::fmt;
use std::path::PathBuf;

pub(crate) use file::{AuthFile, Kept};

use super::config::ConfigError;
use crate::options::Environment;

/// What Docker Hub is called where credentials are kept.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Says why credentials can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The file can't be read.
    #[error(transparent)]
    File(#[from] Box<ConfigError>),
    /// The file is no such file.
    #[error("{path} is malformed: {why}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Which rule it breaks.
        why: String,
    },
    /// The file can't be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A helper can't be found, or fails. Its words are not repeated: they may hold what it was given.
    #[error("credential helper docker-credential-{name} {why}")]
    Helper {
        /// Which, without its prefix.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Nowhere to write to.
    #[error("no place for credentials: set DOCKER_CONFIG or HOME")]
    Nowhere,
}

/// Who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The secret.
        password: String,
    },
    /// A token that a realm exchanges for others.
    Identity(String),
    /// A token that the registry itself takes.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secrets.
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
            Self::Token(_) => "Token",
        })
    }
}

impl Credentials {
    /// Makes credentials of what helpers and files hold; the name `<token>` marks an identity token.
    fn of_pair(user: String, secret: String) -> Self {
        if user == "<token>" {
            return Self::Identity(secret);
        }
        Self::Password {
            user,
            password: secret,
        }
    }
}

/// The files that may hold credentials; the first that has some for a host wins.
#[derive(Debug, Clone, Default)]
pub(crate) struct CredentialFiles {
    /// What is used whatever the files say: a login that is being tried.
    tried: Option<Credentials>,
    files: Vec<AuthFile>,
}

impl CredentialFiles {
    /// Names the files that an environment points to: REGISTRY_AUTH_FILE, Docker's, then those of podman and skopeo.
    /// The first is where a login is kept.
    pub(crate) fn of(environment: &Environment) -> Self {
        let var = |name: &str| environment.var(name).map(PathBuf::from);
        let home = |below: &str| var("HOME").map(|home| home.join(below));
        let docker = var("DOCKER_CONFIG").or(home(".docker"));
        let user = var("XDG_CONFIG_HOME").or(home(".config"));
        let named = var("REGISTRY_AUTH_FILE");
        let ordinary = [
            docker.map(|dir| dir.join("config.json")),
            var("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            user.map(|dir| dir.join("containers/auth.json")),
        ];
        let files = named.into_iter().chain(ordinary.into_iter().flatten());
        Self {
            tried: None,
            files: files.map(AuthFile::new).collect(),
        }
    }

    /// Returns only these credentials, for every host.
    pub(crate) fn trying(credentials: Credentials) -> Self {
        Self {
            tried: Some(credentials),
            files: Vec::new(),
        }
    }

    /// Returns the credentials for a repository of a host. Blocks while a helper runs.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Result<Option<Credentials>, CredentialError> {
        if let Some(tried) = &self.tried {
            return Ok(Some(tried.clone()));
        }
        for file in &self.files {
            if let Some(found) = file.find(host, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns the file that logins are kept in.
    pub(crate) fn writable(&self) -> Result<&AuthFile, CredentialError> {
        self.files.first().ok_or(CredentialError::Nowhere)
    }

    /// Returns all files, the writable one first.
    pub(crate) fn all(&self) -> &[AuthFile] {
        &self.files
    }
}

/// Returns the key that a host's credentials are kept under.
fn key_of(host: &str) -> &str {
    match host {
        "docker.io" => HUB_KEY,
        other => other,
    }
}

#[cfg(test)]
mod tests;
