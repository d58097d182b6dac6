//! `certs.d`: directories of certificates, one for each registry, as Docker and podman have them.
//!
//! `HOST:PORT/*.crt` are authorities; `NAME.cert` with `NAME.key` is what we show of ourselves.
//! Spec: containers-certs.d(5).

use std::path::PathBuf;

use super::ConfigError;
use crate::options::Environment;
use crate::registry::transport::Tls;

/// More files than this are a mistake.
const MAX_FILES: usize = 256;

/// The directories that are looked into; the first that has the registry wins.
#[derive(Debug, Clone, Default)]
pub(super) struct Directories {
    dirs: Vec<PathBuf>,
}

impl Directories {
    pub(super) fn of(environment: &Environment) -> Self {
        let home = environment.var("HOME").map(PathBuf::from);
        let user = home.map(|home| home.join(".config/containers/certs.d"));
        let machine = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        Self {
            dirs: user.into_iter().chain(machine).collect(),
        }
    }

    /// Returns what there is for a host.
    pub(super) fn of_host(&self, domain: &str) -> Result<Tls, ConfigError> {
        for dir in &self.dirs {
            let dir = dir.join(domain);
            let failed = |source| ConfigError::Read {
                path: dir.clone(),
                source,
            };
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                // Other users' certificates may be nobody's business.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => continue,
                Err(error) => return Err(failed(error)),
            };
            let mut paths = Vec::new();
            for entry in entries.take(MAX_FILES) {
                paths.push(entry.map_err(failed)?.path());
            }
            // Directories have no order of their own.
            paths.sort();
            let is =
                |path: &&PathBuf, extension: &str| path.extension().is_some_and(|found| found == extension);
            let certificate = paths
                .iter()
                .find(|path| is(path, "cert") && path.with_extension("key").is_file());
            return Ok(Tls {
                is_unverified: false,
                authorities: paths.iter().filter(|path| is(path, "crt")).cloned().collect(),
                identity: certificate.map(|path| (path.clone(), path.with_extension("key"))),
            });
        }
        Ok(Tls::default())
    }
}
