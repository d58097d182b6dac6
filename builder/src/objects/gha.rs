//! The cache service of GitHub Actions, version 2: entries that are written once, under a key, in the scope of a branch.
//!
//! The service only hands out signed addresses; the bytes are in Azure's storage. An entry can't be changed, so that a
//! manifest is a row of entries, of which the newest counts. Version 1 of the service is gone from github.com and not
//! spoken. There is no description of the protocol; this follows actions/toolkit and BuildKit.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cache::Digest;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::wire::{Call, Wire};
use super::{ObjectsError, azure};
use crate::registry::Retry;
use crate::registry::push::Blob;

/// Blobs sent at once.
pub(super) const N_PARALLEL: usize = 4;
const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// So many builds of one scope may be about to write a manifest at once.
const MAX_TRIES: u64 = 16;
/// Which scopes of a token may be written to: a bit of its permissions.
const WRITE: u64 = 2;

/// What is known of a cache service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GhaSettings {
    /// Where it is; ends in a slash.
    pub(crate) url: Url,
    /// What it knows us by.
    pub(crate) token: Token,
    /// Which cache of the repository.
    pub(crate) scope: String,
    /// How long it may say that there is too much to do.
    pub(crate) timeout: Duration,
}

impl GhaSettings {
    /// Returns what to call it.
    pub(crate) fn title(&self) -> String {
        format!("gha {}", self.scope)
    }
}

/// A token; never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A branch, as the token has it, and what may be done with its entries.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Branch {
    scope: String,
    permission: u64,
}

impl Token {
    /// Returns the branches that the token is for, the nearest first; none where it isn't what GitHub gives out.
    fn branches(&self) -> Vec<Branch> {
        let read = || {
            let claims = self.0.split('.').nth(1)?;
            let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
            let claims: Value = serde_json::from_slice(&claims).ok()?;
            serde_json::from_str(claims.get("ac")?.as_str()?).ok()
        };
        read().unwrap_or_default()
    }
}

/// A cache service that is spoken to.
#[derive(Debug)]
pub(crate) struct Gha {
    settings: GhaSettings,
    wire: Wire,
}

impl Gha {
    pub(super) fn new(settings: GhaSettings) -> Self {
        let wire = Wire {
            title: settings.title(),
            retry: Retry::default(),
            patience: settings.timeout,
        };
        Self { settings, wire }
    }

    pub(super) fn title(&self) -> &str {
        &self.wire.title
    }

    pub(super) fn place(&self) -> String {
        self.settings.url.to_string()
    }

    pub(super) async fn has(&self, blob: &Digest) -> Result<bool, ObjectsError> {
        Ok(self.find(&blob_key(blob), false).await?.is_some())
    }

    pub(super) async fn put(&self, blob: &Blob) -> Result<(), ObjectsError> {
        let (key, what) = (blob_key(&blob.digest), format!("blob {}", blob.digest));
        // Another job may be bringing it just now.
        let Some(url) = self.create(&key).await? else {
            return Ok(());
        };
        azure::put(&self.wire, &what, &url, blob).await?;
        self.finalize(&key, blob.size_bytes).await
    }

    /// Writes the next entry in the row of manifests of the branch that may be written to.
    pub(super) async fn put_manifest(&self, bytes: &[u8]) -> Result<(), ObjectsError> {
        let branches = self.settings.token.branches();
        let own = branches.iter().rfind(|branch| branch.permission & WRITE != 0);
        let row = self.row(own.map_or("", |branch| &branch.scope));
        let newest = self.find(&row, true).await?;
        let newest = newest.and_then(|entry| entry.key.strip_prefix(&row)?.parse::<u64>().ok());
        let first = newest.map_or(1, |number| number.saturating_add(1));
        for number in first..first.saturating_add(MAX_TRIES) {
            let key = format!("{row}{number}");
            if let Some(url) = self.create(&key).await? {
                azure::put_whole(&self.wire, &manifest(&row), &url, bytes.to_vec()).await?;
                return self.finalize(&key, bytes.len() as u64).await;
            }
        }
        let answer = format!("that its entries {first} and {MAX_TRIES} more are taken");
        Err(self.wire.refused(&manifest(&row), answer))
    }

    /// Reads the newest manifest of each branch that the token is for.
    pub(super) async fn manifests(&self, limit_bytes: u64) -> Result<Vec<Vec<u8>>, ObjectsError> {
        let mut branches = self.settings.token.branches();
        if branches.is_empty() {
            branches.push(Branch {
                scope: String::new(),
                permission: 0,
            });
        }
        let mut manifests = Vec::new();
        for branch in branches {
            let row = self.row(&branch.scope);
            if let Some(entry) = self.find(&row, true).await? {
                let what = manifest(&row);
                let response = self
                    .wire
                    .expect(&Call::new(&what, Method::GET, entry.url))
                    .await?;
                manifests.push(self.wire.body(&what, response, limit_bytes).await?);
            }
        }
        Ok(manifests)
    }

    pub(super) async fn get(&self, blob: &Digest, offset: u64) -> Result<Response, ObjectsError> {
        let what = format!("blob {blob}");
        let Some(entry) = self.find(&blob_key(blob), false).await? else {
            return Err(ObjectsError::Missing {
                place: self.wire.title.clone(),
                what,
            });
        };
        let call = Call::new(what, Method::GET, entry.url).starting_at(offset);
        self.wire.expect(&call).await
    }

    /// Returns what all keys of a branch's manifests begin with. The branch is hashed: its name may be anything.
    fn row(&self, branch: &str) -> String {
        let branch = &Digest::of(branch.as_bytes()).hex()[..8];
        format!("ashlar-index-1-{}-{branch}#", self.settings.scope)
    }

    /// Finds an entry: of this very key, or the newest of those whose keys begin with it.
    async fn find(&self, key: &str, by_prefix: bool) -> Result<Option<Entry>, ObjectsError> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            ok: bool,
            #[serde(default)]
            signed_download_url: String,
            #[serde(default)]
            matched_key: String,
        }
        let restore: &[&str] = if by_prefix { &[key] } else { &[] };
        let asked = json!({"key": key, "restore_keys": restore, "version": version()});
        let Some(found) = self
            .ask::<Found>("GetCacheEntryDownloadURL", key, &asked, StatusCode::NOT_FOUND)
            .await?
        else {
            return Ok(None);
        };
        // A server that takes every key for the beginning of one is not believed.
        let is_it = |found: &Found| match by_prefix {
            true => found.matched_key.starts_with(key),
            false => found.matched_key == key,
        };
        if !found.ok || !is_it(&found) {
            return Ok(None);
        }
        Ok(Some(Entry {
            url: self.address(key, &found.signed_download_url)?,
            key: found.matched_key,
        }))
    }

    /// Begins an entry; `None` where there is one of that key, or one is being made.
    async fn create(&self, key: &str) -> Result<Option<Url>, ObjectsError> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(default)]
            ok: bool,
            #[serde(default)]
            signed_upload_url: String,
        }
        let asked = json!({"key": key, "version": version()});
        let created = self
            .ask::<Created>("CreateCacheEntry", key, &asked, StatusCode::CONFLICT)
            .await?;
        match created {
            Some(created) if created.ok => Ok(Some(self.address(key, &created.signed_upload_url)?)),
            _ => Ok(None),
        }
    }

    /// Makes an entry count whose bytes are there.
    async fn finalize(&self, key: &str, size_bytes: u64) -> Result<(), ObjectsError> {
        #[derive(Deserialize)]
        struct Finalized {
            #[serde(default)]
            ok: bool,
        }
        // As protobuf has it in JSON, 64 bits are text.
        let asked = json!({"key": key, "size_bytes": size_bytes.to_string(), "version": version()});
        match self
            .ask::<Finalized>("FinalizeCacheEntryUpload", key, &asked, StatusCode::CONFLICT)
            .await?
        {
            Some(Finalized { ok: true }) => Ok(()),
            _ => Err(self
                .wire
                .refused(key, "that the entry can't be finished".to_owned())),
        }
    }

    /// Asks the service; `None` where it answers `no`.
    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        method: &str,
        key: &str,
        asked: &Value,
        no: StatusCode,
    ) -> Result<Option<T>, ObjectsError> {
        let what = format!("entry {key}");
        let url = self.settings.url.join(&format!("{SERVICE}/{method}"));
        let url = url.expect("because the service's name is a part of an address");
        let secret = format!("Bearer {}", self.settings.token.0);
        let mut secret = HeaderValue::from_str(&secret).map_err(|_| {
            self.wire
                .refused(&what, "no request: the token isn't plain text".to_owned())
        })?;
        secret.set_sensitive(true);
        let call = Call::new(what.as_str(), Method::POST, url)
            .with_header(AUTHORIZATION.as_str(), secret)
            .with_header("content-type", HeaderValue::from_static("application/json"))
            .with_body(asked.to_string().into_bytes());
        let response = self.wire.send(&call).await?;
        match response.status() {
            status if status == no => return Ok(None),
            status if status.is_success() => {}
            _ => return Err(self.wire.refusal(&what, response).await),
        }
        let body = self.wire.body(&what, response, MAX_ANSWER_BYTES).await?;
        let answer = serde_json::from_slice(&body);
        let answer = answer.map_err(|error| self.wire.refused(&what, error.to_string()))?;
        Ok(Some(answer))
    }

    fn address(&self, key: &str, url: &str) -> Result<Url, ObjectsError> {
        Url::parse(url).map_err(|error| self.wire.refused(key, format!("an invalid address ({error})")))
    }
}

/// An entry that is there.
struct Entry {
    key: String,
    url: Url,
}

fn blob_key(blob: &Digest) -> String {
    format!("ashlar-blob-1-{blob}")
}

fn manifest(row: &str) -> String {
    format!("manifest {row}")
}

/// Returns what the service keeps entries of different programs apart by.
fn version() -> String {
    Digest::of(b"|ashlar-cache-1").hex()
}
