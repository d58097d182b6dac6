//! `registries.conf`, version 2, as podman, buildah and skopeo have it: mirrors, other locations, what is insecure or blocked.
//!
//! Short names are Docker's here, so `unqualified-search-registries` and aliases are read over.
//! Spec: containers-registries.conf(5), containers-registries.conf.d(5).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, Serves, parse_toml};
use crate::options::Environment;

/// Other keys (short names, credential helpers) are not this file's business.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<PullFrom>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

/// What the files say.
#[derive(Debug, Clone, Default)]
pub(super) struct Registries {
    /// Later ones go before earlier ones with the same prefix.
    entries: Vec<(PathBuf, Entry)>,
}

/// What becomes of one repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// The file that says so.
    pub(super) path: PathBuf,
    /// Host and repository.
    pub(super) location: String,
    pub(super) is_insecure: bool,
    pub(super) is_blocked: bool,
    pub(super) mirrors: Vec<Copy>,
}

/// A mirror of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Host and repository.
    pub(super) location: String,
    pub(super) is_insecure: bool,
    pub(super) serves: Serves,
}

impl Registries {
    pub(super) fn of(environment: &Environment) -> Result<Self, ConfigError> {
        let user = environment
            .var("HOME")
            .map(|home| Path::new(home).join(".config/containers"));
        let machine = Path::new("/etc/containers");
        let main = match (environment.var("CONTAINERS_REGISTRIES_CONF"), &user) {
            (Some(named), _) => PathBuf::from(named),
            (None, Some(dir)) if dir.join("registries.conf").is_file() => dir.join("registries.conf"),
            _ => machine.join("registries.conf"),
        };
        let mut paths = vec![main];
        // A file that is named stands alone.
        if environment.var("CONTAINERS_REGISTRIES_CONF").is_none() {
            for dir in [Some(machine.to_owned()), user].into_iter().flatten() {
                paths.extend(drop_ins(&dir.join("registries.conf.d"))?);
            }
        }
        let mut entries = Vec::new();
        for path in paths {
            let file = parse_toml::<File>(&path)?.unwrap_or_default();
            entries.extend(file.registry.into_iter().map(|entry| (path.clone(), entry)));
        }
        Ok(Self { entries })
    }

    /// Returns what is said of a repository, with its host; the longest prefix wins.
    pub(super) fn rule(&self, repository: &str) -> Option<Rule> {
        let matching = self.entries.iter().filter_map(|(path, entry)| {
            let prefix = entry.prefix.as_deref().or(entry.location.as_deref())?;
            Some((reach(prefix, repository)?, path, entry))
        });
        let (n_matched, path, entry) = matching.max_by_key(|(n_matched, _, _)| *n_matched)?;
        let rest = &repository[n_matched..];
        let own = entry.location.as_deref().filter(|location| !location.is_empty());
        let mirrors = entry.mirror.iter().map(|mirror| Copy {
            location: format!("{}{rest}", mirror.location),
            is_insecure: mirror.insecure,
            serves: match mirror.pull_from_mirror {
                Some(PullFrom::DigestOnly) => Serves::Digests,
                Some(PullFrom::TagOnly) => Serves::Tags,
                None if entry.mirror_by_digest_only => Serves::Digests,
                Some(PullFrom::All) | None => Serves::All,
            },
        });
        Some(Rule {
            path: path.clone(),
            location: own.map_or_else(|| repository.to_owned(), |location| format!("{location}{rest}")),
            is_insecure: entry.insecure,
            is_blocked: entry.blocked,
            mirrors: mirrors.collect(),
        })
    }
}

/// Returns how many bytes of a repository's name a prefix covers; `*.example.org` covers whole hosts.
fn reach(prefix: &str, repository: &str) -> Option<usize> {
    if let Some(suffix) = prefix.strip_prefix("*.") {
        let host = repository.split('/').next().unwrap_or(repository);
        let below = host.strip_suffix(suffix)?;
        return (below.len() > 1 && below.ends_with('.')).then_some(host.len());
    }
    let rest = repository.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

/// Returns the `*.conf` of a directory, in order.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(_) => return Ok(Vec::new()),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| ConfigError::Read {
            path: dir.to_owned(),
            source,
        })?;
        paths.push(entry.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    Ok(paths)
}
