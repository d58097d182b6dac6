//! What users have configured about registries: which hosts stand for a name, whom to trust, and whose credentials to use.
//!
//! Read once per process, when a registry is first needed. A file that can't be understood is an error, never skipped:
//! it may be what protects somebody.

mod certs;
mod containers;
mod own;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use reqwest::Url;

use super::auth::is_loopback;
use super::credentials::{CredentialError, CredentialFiles, Credentials};
use super::reference::Reference;
use super::transport::Tls;
use crate::options::Environment;

/// Largest file of configuration that is read.
const MAX_TOML_BYTES: u64 = 1 << 20;

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
    /// Not what such a file may hold.
    #[error("{path} is malformed: {why}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// The parser's words.
        why: String,
    },
    /// Somebody does not want it used.
    #[error("{reference} may not be used: {path} blocks it")]
    Blocked {
        /// What was asked for.
        reference: String,
        /// Who says so.
        path: PathBuf,
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
    /// Hosts that are asked first, each once, in this order.
    pub(crate) mirrors: Vec<Mirror>,
    /// The registry itself; the only one that is written to.
    pub(crate) origin: Host,
}

/// A host that has copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) host: Host,
    pub(crate) serves: Serves,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    /// Everything.
    All,
    /// What a digest names, so that it can't be something else.
    Digests,
    /// What a tag names.
    Tags,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    credentials: CredentialFiles,
    own: own::Registries,
    containers: containers::Registries,
    certs: certs::Directories,
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
            own: own::Registries::of(environment)?,
            containers: containers::Registries::of(environment)?,
            certs: certs::Directories::of(environment),
        })
    }

    /// Returns the same, with nothing but these credentials for every host.
    pub(crate) fn trying(&self, credentials: Credentials) -> Self {
        Self {
            credentials: CredentialFiles::trying(credentials),
            ..self.clone()
        }
    }

    /// Returns the files of credentials.
    pub(crate) fn credential_files(&self) -> &CredentialFiles {
        &self.credentials
    }

    /// Says where the repository of `reference` is.
    pub(crate) fn route(&self, reference: &Reference) -> Result<Route, ConfigError> {
        let (domain, repository) = (reference.domain(), reference.path());
        if let Some(mirrors) = self.own.mirrors(domain) {
            let mut hosts = Vec::new();
            for place in mirrors {
                hosts.push(Mirror {
                    host: self.place(&format!("{place}/{repository}"))?,
                    serves: Serves::All,
                });
            }
            return Ok(Route {
                mirrors: hosts,
                origin: self.host(domain, repository)?,
            });
        }
        let Some(rule) = self.containers.rule(&reference.repository()) else {
            return Ok(Route {
                mirrors: Vec::new(),
                origin: self.host(domain, repository)?,
            });
        };
        if rule.is_blocked {
            return Err(ConfigError::Blocked {
                reference: reference.familiar(),
                path: rule.path,
            });
        }
        let mut mirrors = Vec::new();
        for copy in rule.mirrors {
            for host in self.loosely(&copy.location, copy.is_insecure)? {
                mirrors.push(Mirror {
                    host,
                    serves: copy.serves,
                });
            }
        }
        let mut own = self.loosely(&rule.location, rule.is_insecure)?;
        let origin = own.pop().expect("because there is at least one way to a host");
        let first = own.into_iter().map(|host| Mirror {
            host,
            serves: Serves::All,
        });
        mirrors.extend(first);
        Ok(Route { mirrors, origin })
    }

    /// Returns a registry's own host.
    pub(crate) fn host(&self, domain: &str, repository: &str) -> Result<Host, ConfigError> {
        let mut host = ordinary(domain, repository);
        let found = self.certs.of_host(domain)?;
        let has_found = found != Tls::default();
        host.tls = found;
        self.own.adjust(domain, &mut host);
        // Who has made certificates for a registry on this machine means TLS.
        if (has_found || host.tls != Tls::default()) && !self.own.is_plain(domain) {
            host.is_plain = false;
        }
        Ok(host)
    }

    /// Returns the host of a place, which is a host and a repository.
    fn place(&self, place: &str) -> Result<Host, ConfigError> {
        let (domain, repository) = place.split_once('/').unwrap_or((place, ""));
        self.host(domain, repository)
    }

    /// Returns the ways to a place. One that is insecure in containers' words is asked over TLS that isn't verified,
    /// then without TLS.
    fn loosely(&self, place: &str, is_insecure: bool) -> Result<Vec<Host>, ConfigError> {
        let host = self.place(place)?;
        if !is_insecure || host.is_plain {
            return Ok(vec![host]);
        }
        let mut protected = host.clone();
        protected.tls.is_unverified = true;
        let plain = Host {
            is_plain: true,
            ..host
        };
        Ok(vec![protected, plain])
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

/// Reads a file of configuration; `None` when there is none.
pub(crate) fn parse_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, ConfigError> {
    let malformed = |why: String| ConfigError::Malformed {
        path: path.to_owned(),
        why,
    };
    let Some(bytes) = read_capped(path, MAX_TOML_BYTES)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|_| malformed("it is no text".to_owned()))?;
    let parsed = toml::from_str(&text).map_err(|error| malformed(error.message().to_owned()))?;
    Ok(Some(parsed))
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
mod tests;
