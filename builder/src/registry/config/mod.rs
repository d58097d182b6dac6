//! What users have configured about registries: which hosts stand for a name, whom to trust, and whose credentials to use.
//!
//! Read once per process, when a registry is first needed. A file that can't be understood is an error, never skipped:
//! it may be what protects somebody.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use reqwest::Url;

use super::auth::is_loopback;
use super::credentials::{CredentialError, CredentialFiles, Credentials};
use super::reference::Reference;
use super::transport::Tls;
use crate::options::Environment;

/// Says what is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file system's word.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// More than a person writes.
    #[error("{path} has more than {limit_bytes} bytes")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// How many it may have.
        limit_bytes: u64,
    },
    /// Credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

/// A host that has a repository, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Name or address, with a port where there is one.
    pub(crate) address: String,
    /// The repository's name there.
    pub(crate) repository: String,
    /// The host that credentials are looked up for: the one that people write.
    pub(crate) credentials_key: String,
    /// Plain HTTP.
    pub(crate) is_plain: bool,
    /// How its certificate is checked.
    pub(crate) tls: Tls,
    /// Hosts of other sites that may exchange its credentials for tokens.
    pub(crate) realms: Vec<String>,
}

impl Host {
    /// Says whether the configuration lets a realm see this host's credentials.
    pub(crate) fn trusts_realm(&self, realm: &Url) -> bool {
        let host = realm.host_str().unwrap_or_default();
        self.realms.iter().any(|trusted| trusted == host)
    }
}

/// The hosts that have a repository.
#[derive(Debug)]
pub(crate) struct Route {
    /// The registry itself; the only one that is written to.
    pub(crate) origin: Host,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    credentials: CredentialFiles,
}

impl Settings {
    /// Reads what the process's environment points to, once.
    pub(crate) fn of_process() -> Result<Arc<Self>, ConfigError> {
        static SETTINGS: OnceLock<Arc<Settings>> = OnceLock::new();
        if let Some(settings) = SETTINGS.get() {
            return Ok(Arc::clone(settings));
        }
        let settings = Arc::new(Self::of(&Environment::of_process())?);
        Ok(Arc::clone(SETTINGS.get_or_init(|| settings)))
    }

    /// Reads what an environment points to.
    pub(crate) fn of(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self {
            credentials: CredentialFiles::of(environment),
        })
    }

    /// Returns the same, with nothing but these credentials for every host.
    pub(crate) fn trying(credentials: Credentials) -> Self {
        Self {
            credentials: CredentialFiles::trying(credentials),
        }
    }

    /// Returns the files of credentials.
    pub(crate) fn credential_files(&self) -> &CredentialFiles {
        &self.credentials
    }

    /// Says where the repository of `reference` is.
    pub(crate) fn route(&self, reference: &Reference) -> Result<Route, ConfigError> {
        Ok(Route {
            origin: self.host(reference.domain(), reference.path()),
        })
    }

    /// Returns a registry's own host.
    pub(crate) fn host(&self, domain: &str, repository: &str) -> Host {
        ordinary(domain, repository)
    }

    /// Returns the credentials for a repository of a host. Blocks while a helper runs.
    pub(crate) fn credentials(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, ConfigError> {
        Ok(self.credentials.find(host, repository)?)
    }
}

/// Returns a host as it is when nobody says anything: plain HTTP only where nobody can listen in.
fn ordinary(domain: &str, repository: &str) -> Host {
    let address = match domain {
        "docker.io" => "registry-1.docker.io",
        other => other,
    };
    let without_port = match address.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => address,
    };
    Host {
        address: address.to_owned(),
        repository: repository.to_owned(),
        credentials_key: domain.to_owned(),
        is_plain: is_loopback(without_port),
        tls: Tls::default(),
        realms: Vec::new(),
    }
}

/// Reads a file of at most `limit_bytes`; `None` when there is none.
pub(super) fn read_capped(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let mut bytes = Vec::new();
    let mut limited = file.take(limit_bytes + 1);
    limited.read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            limit_bytes,
        });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_tls() {
        // hardening T77
        for (name, address, is_plain) in [
            ("alpine", "registry-1.docker.io", false),
            ("ghcr.io/o/a", "ghcr.io", false),
            ("192.0.2.1:5000/a", "192.0.2.1:5000", false),
            ("localhost.example.org/a", "localhost.example.org", false),
            ("localhost:5000/a", "localhost:5000", true),
            ("127.9.9.9/a", "127.9.9.9", true),
            ("[::1]:5000/a", "[::1]:5000", true),
        ] {
            let route = Settings::default()
                .route(&Reference::parse(name).unwrap())
                .unwrap();
            let got = (route.origin.address.as_str(), route.origin.is_plain);
            assert_eq!(got, (address, is_plain), "{name}");
        }
    }
}
