//! `registries.toml`, Ashlar's own configuration of registries: `~/.config/ashlar/`, then `/etc/ashlar/`.
//!
//! It has the words of BuildKit's configuration: `[registry."docker.io"]` with `mirrors`, `http`, `insecure`, `ca`,
//! `keypair`, and `realms` for hosts of other sites that give out tokens. What is said of a registry here is all that is said:
//! podman's file is not asked any more.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, Host, parse_toml};
use crate::options::Environment;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    http: bool,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    ca: Vec<PathBuf>,
    keypair: Option<KeyPair>,
    #[serde(default)]
    realms: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyPair {
    cert: PathBuf,
    key: PathBuf,
}

/// What the files say; the user's word goes before the machine's, registry by registry.
#[derive(Debug, Clone, Default)]
pub(super) struct Registries {
    by_domain: BTreeMap<String, Entry>,
}

impl Registries {
    pub(super) fn of(environment: &Environment) -> Result<Self, ConfigError> {
        let user = environment
            .var("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(environment.var("HOME")?).join(".config")));
        let files = [
            Some(PathBuf::from("/etc/ashlar/registries.toml")),
            user.map(|dir| dir.join("ashlar/registries.toml")),
        ];
        let mut by_domain = BTreeMap::new();
        for path in files.into_iter().flatten() {
            if let Some(file) = parse_toml::<File>(&path)? {
                by_domain.extend(file.registry);
            }
        }
        Ok(Self { by_domain })
    }

    /// Returns the mirrors of a registry; `None` when nothing is said of it.
    pub(super) fn mirrors(&self, domain: &str) -> Option<&[String]> {
        self.by_domain.get(domain).map(|entry| entry.mirrors.as_slice())
    }

    /// Says whether a registry is to be reached without TLS.
    pub(super) fn is_plain(&self, domain: &str) -> bool {
        self.by_domain.get(domain).is_some_and(|entry| entry.http)
    }

    /// Makes a host what is said of it.
    pub(super) fn adjust(&self, domain: &str, host: &mut Host) {
        let Some(entry) = self.by_domain.get(domain) else {
            return;
        };
        host.is_plain |= entry.http;
        host.tls.is_unverified = entry.insecure;
        host.tls.authorities.extend(entry.ca.iter().cloned());
        if let Some(pair) = &entry.keypair {
            host.tls.identity = Some((pair.cert.clone(), pair.key.clone()));
        }
        host.realms.clone_from(&entry.realms);
    }
}
