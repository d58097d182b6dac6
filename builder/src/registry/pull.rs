//! Moves the missing layers of a resolved image into the store: several at a time, each downloaded, checked, kept,
//! decompressed and written as a layer file in one stream. A broken download goes on where it stopped.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;

use cache::lock::Attempt;
use cache::{DiffId, Digest, Store};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::{ETAG, HeaderValue};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;

use super::client::{Ask, Session};
use super::error::ImageError;
use super::intake::take_in;
use super::patience::{Patience, Retry};
use super::{Descriptor, LayerSource, Origin, Resolved};
use crate::archive::{Source, layout};
use crate::objects::Objects;
use crate::runtime::blocking;

/// Layers in flight. More would not be faster: two saturate what decompression can take.
const N_PARALLEL: usize = 4;
/// Chunks between the network and the decompressor; a chunk is at most some tens of KiB.
const N_CHUNKS: usize = 32;

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// The blob that is moved.
    pub(crate) blob: Digest,
    /// Bytes moved.
    pub(crate) done_bytes: u64,
    /// Bytes in all.
    pub(crate) total_bytes: u64,
    /// The layer file is there.
    pub(crate) is_finished: bool,
    /// Who fetches it just now, where that isn't this process's work.
    pub(crate) waits_for: Option<String>,
}

/// Brings in the layers whose files are missing. Ok means that all are there. Another process that fetches the same
/// layer is waited for.
pub(crate) async fn fetch_layers(
    store: &Arc<Store>,
    resolved: &Resolved,
    progress: impl Fn(Transfer),
) -> Result<(), ImageError> {
    let mut seen = BTreeSet::new();
    let missing: Vec<LayerSource> = resolved
        .layers
        .iter()
        .filter(|layer| seen.insert(layer.diff_id) && !store.layers().contains(&layer.diff_id))
        .cloned()
        .collect();
    stream::iter(missing)
        .map(|layer| fetch(store, resolved, layer, &progress))
        .buffer_unordered(N_PARALLEL)
        .try_collect::<()>()
        .await
}

async fn fetch(
    store: &Arc<Store>,
    resolved: &Resolved,
    layer: LayerSource,
    progress: &impl Fn(Transfer),
) -> Result<(), ImageError> {
    let Some(blob) = &layer.blob else {
        return Err(missing(resolved, layer.diff_id));
    };
    let moved = |done_bytes, is_finished, waits_for| Transfer {
        blob: blob.digest,
        done_bytes,
        total_bytes: blob.size_bytes,
        is_finished,
        waits_for,
    };
    let name = format!("layer{}", layer.diff_id.hex());
    let lock = match store.try_lock(&name)? {
        Attempt::Held(lock) => lock,
        Attempt::Busy(user) => {
            progress(moved(0, false, Some(user)));
            let store = Arc::clone(store);
            blocking(move || store.lock(&name)).await?
        }
    };
    if !store.layers().contains(&layer.diff_id) {
        match &resolved.origin {
            Origin::Local => return Err(missing(resolved, layer.diff_id)),
            Origin::OciLayout(dir) => {
                let (store, layer, dir) = (Arc::clone(store), layer.clone(), dir.clone());
                let (reference, digest) = (resolved.reference.clone(), blob.digest);
                blocking(move || {
                    let source = Source::directory(&dir)?;
                    take_in(&store, layout::open_blob(&source, &digest)?, &layer, &reference)
                })
                .await?;
            }
            Origin::Registry(session) => {
                let giver = Giver::Repository(session);
                download(store, giver, &layer, blob, progress).await?;
            }
            Origin::Objects(objects) => {
                let giver = Giver::Objects(objects);
                download(store, giver, &layer, blob, progress).await?;
            }
        }
        if let Some(made_unix) = layer.made_unix {
            store.layers().set_made_unix(&layer.diff_id, made_unix)?;
        }
    }
    drop(lock);
    progress(moved(blob.size_bytes, true, None));
    Ok(())
}

fn missing(resolved: &Resolved, layer: DiffId) -> ImageError {
    ImageError::MissingLayer {
        reference: resolved.reference.clone(),
        layer,
    }
}

/// Whom blobs are asked of.
#[derive(Clone, Copy)]
enum Giver<'a> {
    Repository(&'a Session),
    Objects(&'a Objects),
}

impl Giver<'_> {
    fn title(self) -> String {
        match self {
            Self::Repository(session) => session.reference().familiar(),
            Self::Objects(objects) => objects.title().to_owned(),
        }
    }

    fn retry(self) -> Retry {
        match self {
            Self::Repository(session) => session.retry(),
            Self::Objects(objects) => objects.retry(),
        }
    }

    async fn get(self, blob: &Digest, offset: u64, patience: &mut Patience) -> Result<Response, ImageError> {
        match self {
            Self::Repository(session) => {
                let ask = Ask {
                    path: &format!("blobs/{blob}"),
                    accept: "*/*",
                    offset,
                };
                session.get(ask, patience).await
            }
            Self::Objects(objects) => Ok(objects.get(blob, offset).await?),
        }
    }

    fn unreachable(self, error: &reqwest::Error) -> ImageError {
        match self {
            Self::Repository(session) => session.unreachable(error),
            Self::Objects(objects) => objects.unreachable(error).into(),
        }
    }
}

/// Streams one blob from the network into [`take_in`].
async fn download(
    store: &Arc<Store>,
    giver: Giver<'_>,
    layer: &LayerSource,
    blob: &Descriptor,
    progress: &impl Fn(Transfer),
) -> Result<(), ImageError> {
    let (sender, receiver) = mpsc::channel(N_CHUNKS);
    let intake = {
        let (store, layer) = (Arc::clone(store), layer.clone());
        let reference = giver.title();
        blocking(move || take_in(&store, Chunks::new(receiver), &layer, &reference))
    };
    let feed = async move {
        let mut state = State::default();
        let mut patience = giver.retry().patience();
        loop {
            let offset = if state.ignores_ranges { 0 } else { state.done_bytes };
            let mut response = giver.get(&blob.digest, offset, &mut patience).await?;
            let Some(mut n_skip) = state.start(giver, blob, &response)? else {
                continue;
            };
            let failure = loop {
                match response.chunk().await {
                    Ok(Some(mut chunk)) => {
                        let n_known = chunk.len().min(usize::try_from(n_skip).unwrap_or(usize::MAX));
                        n_skip -= n_known as u64;
                        chunk = chunk.slice(n_known..);
                        state.done_bytes += chunk.len() as u64;
                        if !chunk.is_empty() {
                            patience.renew();
                        }
                        if sender.send(chunk).await.is_err() {
                            // The intake has stopped; it knows why.
                            return Ok(());
                        }
                        progress(Transfer {
                            blob: blob.digest,
                            done_bytes: state.done_bytes.min(blob.size_bytes),
                            total_bytes: blob.size_bytes,
                            is_finished: false,
                            waits_for: None,
                        });
                    }
                    Ok(None) if state.done_bytes >= blob.size_bytes => return Ok(()),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            if !patience.is_left(None).await {
                return Err(match failure {
                    Some(error) => giver.unreachable(&error),
                    None => ImageError::WrongSize {
                        what: format!("blob {}", blob.digest),
                        expected_bytes: blob.size_bytes,
                        actual: state.done_bytes.to_string(),
                    },
                });
            }
        }
    };
    // The network's failure is the cause when there is one: the intake then only saw the bytes end. It is always
    // waited for, so that nothing is being written any more when this returns.
    let (fed, taken): (Result<(), ImageError>, _) = futures_util::future::join(feed, intake).await;
    fed.and(taken)
}

/// Where a download is.
#[derive(Debug, Default)]
struct State {
    done_bytes: u64,
    ignores_ranges: bool,
    /// Which version of the blob is being read, where the server says.
    version: Option<HeaderValue>,
}

impl State {
    /// Looks at the head of an answer: how many bytes of it are known already, or `None` to ask again without a range.
    fn start(
        &mut self,
        giver: Giver<'_>,
        blob: &Descriptor,
        response: &Response,
    ) -> Result<Option<u64>, ImageError> {
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let start = response.headers().get("content-range").and_then(|value| {
                value
                    .to_str()
                    .ok()?
                    .strip_prefix("bytes ")?
                    .split('-')
                    .next()?
                    .parse()
                    .ok()
            });
            // Part of something else, even if it lies at the right place.
            let is_same = self.version.as_ref() == response.headers().get(ETAG);
            if start == Some(self.done_bytes) && is_same {
                return Ok(Some(0));
            }
            if std::mem::replace(&mut self.ignores_ranges, true) {
                return Err(ImageError::Answer {
                    reference: giver.title(),
                    answer: "part of a blob that wasn't asked for".to_owned(),
                });
            }
            return Ok(None);
        }
        self.version = response.headers().get(ETAG).cloned();
        match response.content_length() {
            Some(actual) if actual != blob.size_bytes => Err(ImageError::WrongSize {
                what: format!("blob {} of {}", blob.digest, giver.title()),
                expected_bytes: blob.size_bytes,
                actual: actual.to_string(),
            }),
            _ => Ok(Some(self.done_bytes)),
        }
    }
}

/// Reads what the network side sends; ends when that side is dropped.
struct Chunks<B> {
    receiver: mpsc::Receiver<B>,
    current: Option<B>,
    n_used: usize,
}

impl<B> Chunks<B> {
    fn new(receiver: mpsc::Receiver<B>) -> Self {
        Self {
            receiver,
            current: None,
            n_used: 0,
        }
    }
}

impl<B: AsRef<[u8]>> Read for Chunks<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(chunk) = &self.current {
                let rest = &chunk.as_ref()[self.n_used..];
                if !rest.is_empty() {
                    let n = rest.len().min(buffer.len());
                    buffer[..n].copy_from_slice(&rest[..n]);
                    self.n_used += n;
                    return Ok(n);
                }
            }
            self.n_used = 0;
            self.current = self.receiver.blocking_recv();
            if self.current.is_none() {
                return Ok(0);
            }
        }
    }
}
