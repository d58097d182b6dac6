//! Images into registries: what is missing there, then the manifests from the inside out, and the tags last.
//!
//! Until the last request a tag stands for what it stood for before, so that a push that fails or is killed changes
//! nothing that anybody pulls. How images are put together is `export`'s business. Spec: OCI distribution-spec, "Push".

mod blob;
mod content;
mod error;
mod neighbours;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;

use cache::{Digest, Store};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode};

use super::manifest::ACCEPT_MANIFESTS;
use super::{Descriptor, ImageError, Reference, Session, endpoint, header};
use wire::Wire;

pub(crate) use content::Content;
pub(crate) use error::PushError;
use neighbours::Neighbours;

/// Blobs under way at once.
const N_PARALLEL: usize = 4;

/// Everything that a repository must have so that the image can be pulled from it.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Layers and configs, in any order; equal ones are sent once.
    pub(crate) blobs: Vec<Blob>,
    /// Manifests before the index that lists them. The last is what a tag will stand for.
    pub(crate) manifests: Vec<Document>,
}

/// A layer or a config.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// Its name.
    pub(crate) digest: Digest,
    /// Its length.
    pub(crate) size_bytes: u64,
    /// Where it is.
    pub(crate) content: Content,
}

/// A manifest or index.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// What it is.
    pub(crate) descriptor: Descriptor,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was sent.
    Pushed,
    /// It was there.
    Exists,
    /// Another repository of the same registry had it.
    Mounted {
        /// Which.
        from: String,
    },
}

/// How far a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Which.
    pub(crate) blob: Digest,
    /// Bytes sent.
    pub(crate) done_bytes: u64,
    /// Bytes in all.
    pub(crate) total_bytes: u64,
    /// Known when it is there.
    pub(crate) outcome: Option<Outcome>,
}

/// Hears how far the blobs are.
pub(crate) type Report = Arc<dyn Fn(Progress) + Send + Sync>;

impl Upload {
    /// Returns what a tag will stand for.
    ///
    /// # Panics
    /// When there is no manifest.
    pub(crate) fn top(&self) -> &Document {
        self.manifests
            .last()
            .expect("because an image has at least one manifest")
    }
}

/// A repository, and what the image is to be called in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The repository; tag and digest don't matter.
    pub(crate) repository: Reference,
    /// None: only the digest names it.
    pub(crate) tags: Vec<String>,
}

impl Target {
    /// Groups complete names by their repositories, in order.
    pub(crate) fn of_names(names: &[String]) -> Result<Vec<Self>, PushError> {
        let mut targets: Vec<Self> = Vec::new();
        for name in names {
            let reference = Reference::parse(name).map_err(ImageError::from)?;
            let tag = reference.tag().map(ToOwned::to_owned);
            let same = |target: &&mut Self| target.repository.repository() == reference.repository();
            match targets.iter_mut().find(same) {
                Some(target) => target.tags.extend(tag),
                None => targets.push(Self {
                    repository: reference,
                    tags: tag.into_iter().collect(),
                }),
            }
        }
        match targets.is_empty() {
            true => Err(PushError::NoName),
            false => Ok(targets),
        }
    }
}

/// Brings an image into all its repositories, one after the other.
pub(crate) async fn push_all(
    store: &Store,
    upload: &Upload,
    targets: &[Target],
    report: &Report,
) -> Result<(), PushError> {
    for target in targets {
        let session = Session::new(&target.repository)?;
        let neighbours = Neighbours::find(store, &target.repository)?;
        push(&session, upload, &target.tags, &neighbours, report).await?;
    }
    Ok(())
}

/// Brings one blob there, and tells so.
async fn bring(
    wire: &Wire<'_>,
    blob: &Blob,
    neighbour: Option<&str>,
    report: &Report,
) -> Result<(), PushError> {
    let outcome = blob::upload(wire, blob, neighbour, report).await?;
    report(done(blob, outcome));
    Ok(())
}

/// Brings an image into the session's repository, under `tags`; under none, only its digest names it. Ok means that
/// all of it is there, not that this call sent it. A tag that stands for this very image is left alone, and when all
/// do, nothing else is looked at: the registry has checked the rest when it took the manifest.
async fn push(
    session: &Session,
    upload: &Upload,
    tags: &[String],
    neighbours: &Neighbours,
    report: &Report,
) -> Result<(), PushError> {
    let wire = Wire { session };
    let (top, children) = upload
        .manifests
        .split_last()
        .expect("because an image has at least one manifest");
    let by_digest = [top.descriptor.digest.to_string()];
    let targets = if tags.is_empty() { &by_digest } else { tags };
    let mut missing = Vec::new();
    for target in targets {
        if !has_manifest(&wire, target, &top.descriptor.digest).await? {
            missing.push(target);
        }
    }
    if missing.is_empty() {
        for blob in distinct(upload) {
            report(done(blob, Outcome::Exists));
        }
        return Ok(());
    }
    let mut uploads = Vec::new();
    for blob in distinct(upload) {
        uploads.push(bring(&wire, blob, neighbours.of(&blob.digest), report));
    }
    stream::iter(uploads)
        .buffer_unordered(N_PARALLEL)
        .try_collect::<()>()
        .await?;
    for child in children {
        let name = child.descriptor.digest.to_string();
        if !has_manifest(&wire, &name, &child.descriptor.digest).await? {
            put_manifest(&wire, child, &name).await?;
        }
    }
    for target in missing {
        put_manifest(&wire, top, target).await?;
    }
    Ok(())
}

fn distinct(upload: &Upload) -> Vec<&Blob> {
    let mut seen = BTreeSet::new();
    let blobs = upload.blobs.iter();
    blobs.filter(|blob| seen.insert(blob.digest)).collect()
}

fn done(blob: &Blob, outcome: Outcome) -> Progress {
    Progress {
        blob: blob.digest,
        done_bytes: blob.size_bytes,
        total_bytes: blob.size_bytes,
        outcome: Some(outcome),
    }
}

/// Says whether a tag or digest stands for a manifest. A registry that doesn't say which one it has counts as without.
async fn has_manifest(wire: &Wire<'_>, target: &str, digest: &Digest) -> Result<bool, PushError> {
    let path = format!("manifests/{target}");
    let mut call = wire::call(Method::HEAD, endpoint::Target::Path(&path));
    call.headers
        .insert(ACCEPT, HeaderValue::from_static(ACCEPT_MANIFESTS));
    let what = format!("manifest {target}");
    let response = wire.send(call, &what).await?;
    match response.status() {
        StatusCode::OK => {
            let known = header(response.headers(), "docker-content-digest");
            Ok(known.is_some_and(|known| known == digest.to_string()))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(wire.refusal(&what, response).await),
        _ => Ok(false),
    }
}

/// Stores a manifest under a tag or its digest. Sending it again changes nothing, so it is, when the answer is lost.
async fn put_manifest(wire: &Wire<'_>, document: &Document, target: &str) -> Result<(), PushError> {
    let Document { descriptor, bytes } = document;
    let body = || Body::from(bytes.clone());
    let path = format!("manifests/{target}");
    let call = wire::call(Method::PUT, endpoint::Target::Path(&path));
    let what = format!("manifest {target}");
    let response = wire
        .send(wire::with_body(call, &descriptor.media_type, &body), &what)
        .await?;
    match response.status().is_success() {
        true => check_digest(wire, &descriptor.digest, &response),
        false => Err(wire.refusal(&what, response).await),
    }
}

/// Fails where the registry says that it has got something else than was sent.
fn check_digest(wire: &Wire<'_>, expected: &Digest, response: &Response) -> Result<(), PushError> {
    match header(response.headers(), "docker-content-digest") {
        Some(actual) if actual != expected.to_string() => Err(PushError::WrongDigest {
            reference: wire.session.reference().familiar(),
            expected: *expected,
            actual: actual.chars().filter(|c| !c.is_control()).take(100).collect(),
        }),
        _ => Ok(()),
    }
}
