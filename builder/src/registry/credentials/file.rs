//! One file of logins: Docker's `config.json`, or containers' `auth.json`, which is the same but for longer keys.
//!
//! What it holds besides logins is kept as it is. A file is replaced as a whole, and readable by its owner only.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::helper::Helper;
use super::{CredentialError, Credentials, key_of};
use crate::registry::config::read_capped;

/// Largest file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// Such a file, which need not exist.
#[derive(Debug, Clone)]
pub(crate) struct AuthFile {
    path: PathBuf,
}

/// Where a login was kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In a helper's keychain.
    Helper(String),
    /// In this file, where everybody who can read it can read the password.
    File(PathBuf),
}

impl AuthFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the credentials for a repository of a host: the helper's, else the file's own.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Result<Option<Credentials>, CredentialError> {
        let Some(document) = self.read()? else {
            return Ok(None);
        };
        if let Some(name) = helper_for(&document, host)
            && let Some(found) = Helper::new(name)?.get(host)?
        {
            return Ok(Some(found));
        }
        let Some(auths) = document.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        let wanted = format!("{host}/{repository}");
        let matching = auths
            .iter()
            .filter_map(|(key, entry)| Some((reach(key, &wanted)?, key, entry)));
        let Some((_, key, entry)) = matching.max_by_key(|(reach, _, _)| *reach) else {
            return Ok(None);
        };
        self.entry(key, entry)
    }

    /// Keeps a login, with the helper that the file names for the host if it names one.
    pub(crate) fn keep(&self, host: &str, user: &str, secret: &str) -> Result<Kept, CredentialError> {
        let mut document = self.read()?.unwrap_or_default();
        let helper = helper_for(&document, host).map(ToOwned::to_owned);
        let entry = match &helper {
            Some(name) => {
                Helper::new(name)?.store(host, user, secret)?;
                json!({})
            }
            None => json!({"auth": STANDARD.encode(format!("{user}:{secret}"))}),
        };
        let auths = document.entry("auths").or_insert_with(|| json!({}));
        let auths = auths
            .as_object_mut()
            .ok_or_else(|| self.malformed("`auths` is not an object"))?;
        auths.insert(key_of(host).to_owned(), entry);
        self.write(&document)?;
        Ok(helper.map_or_else(|| Kept::File(self.path.clone()), Kept::Helper))
    }

    /// Forgets the logins of a host; true when there was one.
    pub(crate) fn forget(&self, host: &str) -> Result<bool, CredentialError> {
        let Some(mut document) = self.read()? else {
            return Ok(false);
        };
        let mut was_there = match helper_for(&document, host) {
            Some(name) => Helper::new(name)?.erase(host)?,
            None => false,
        };
        if let Some(auths) = document.get_mut("auths").and_then(Value::as_object_mut) {
            let n_before = auths.len();
            auths.retain(|key, _| normal(key) != host);
            if auths.len() != n_before {
                was_there = true;
                self.write(&document)?;
            }
        }
        Ok(was_there)
    }

    fn entry(&self, key: &str, entry: &Value) -> Result<Option<Credentials>, CredentialError> {
        let field = |name: &str| entry.get(name)?.as_str().filter(|text| !text.is_empty());
        if let Some(token) = field("identitytoken") {
            return Ok(Some(Credentials::Identity(token.to_owned())));
        }
        if let Some(token) = field("registrytoken") {
            return Ok(Some(Credentials::Token(token.to_owned())));
        }
        if let Some(auth) = field("auth") {
            let broken = || self.malformed(&format!("`auth` of `{key}` is not NAME:PASSWORD in base64"));
            let pair = STANDARD.decode(auth.trim()).map_err(|_| broken())?;
            let pair = String::from_utf8(pair).map_err(|_| broken())?;
            let (user, password) = pair.split_once(':').ok_or_else(broken)?;
            // Old clients padded with NULs.
            let password = password.trim_end_matches('\0');
            return Ok(Some(Credentials::of_pair(user.to_owned(), password.to_owned())));
        }
        match (field("username"), field("password")) {
            (Some(user), Some(password)) => {
                Ok(Some(Credentials::of_pair(user.to_owned(), password.to_owned())))
            }
            _ => Ok(None),
        }
    }

    fn read(&self) -> Result<Option<Map<String, Value>>, CredentialError> {
        let Some(bytes) = read_capped(&self.path, MAX_BYTES).map_err(Box::new)? else {
            return Ok(None);
        };
        // As Docker does: an empty file is one without logins.
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        // Not the parser's words, which may quote the file.
        let document = serde_json::from_slice(&bytes).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            self.malformed(&format!("no JSON object (at {place})"))
        })?;
        Ok(Some(document))
    }

    /// Writes beside the file, then puts that in its place. A symlink is followed once, as people keep such files elsewhere.
    fn write(&self, document: &Map<String, Value>) -> Result<(), CredentialError> {
        let target = match std::fs::read_link(&self.path) {
            Ok(link) => self.path.parent().map_or(link.clone(), |dir| dir.join(&link)),
            Err(_) => self.path.clone(),
        };
        let failed = |source| CredentialError::Write {
            path: target.clone(),
            source,
        };
        let dir = target.parent().unwrap_or(Path::new("."));
        if !dir.is_dir() {
            make_private_dir(dir).map_err(failed)?;
        }
        let beside = target.with_extension(format!("json.{}", std::process::id()));
        let mut text = serde_json::to_vec_pretty(document).expect("because maps of text can be written");
        text.push(b'\n');
        let written = write_private(&beside, &text).and_then(|()| std::fs::rename(&beside, &target));
        if written.is_err() {
            // The first error is what matters.
            let _ = std::fs::remove_file(&beside);
        }
        written.map_err(failed)
    }

    fn malformed(&self, why: &str) -> CredentialError {
        CredentialError::Malformed {
            path: self.path.clone(),
            why: why.to_owned(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the user's own configuration directory")]
fn make_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if let Some(above) = dir.parent() {
        std::fs::create_dir_all(above)?;
    }
    std::fs::DirBuilder::new().mode(0o700).create(dir)
}

fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Returns the helper that a file names for a host; one for the host goes before the one for all.
fn helper_for<'a>(document: &'a Map<String, Value>, host: &str) -> Option<&'a str> {
    let helpers = document.get("credHelpers").and_then(Value::as_object);
    let own = helpers.and_then(|helpers| helpers.iter().find(|(key, _)| normal(key) == host));
    let name = match own {
        Some((_, name)) => name,
        None => document.get("credsStore")?,
    };
    name.as_str().filter(|name| !name.is_empty())
}

/// Returns the host, or host and path, that a key stands for: old keys are addresses.
fn normal(key: &str) -> String {
    let without_scheme = ["https://", "http://"]
        .iter()
        .find_map(|scheme| key.strip_prefix(scheme));
    let place = match without_scheme {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => key.trim_end_matches('/'),
    };
    match place {
        "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// Says how much of `wanted` (host and repository) a key covers; `None` when it is for something else.
fn reach(key: &str, wanted: &str) -> Option<usize> {
    let place = normal(key);
    let rest = wanted.strip_prefix(place.as_str())?;
    (rest.is_empty() || rest.starts_with('/')).then_some(place.len())
}
