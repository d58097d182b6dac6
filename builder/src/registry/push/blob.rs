//! One blob into a repository: asked for first, mounted from a neighbour where that has it, else uploaded; and an upload
//! that broke goes on where the registry says that it stopped.
//!
//! Large blobs are one streamed PATCH, as docker sends them: not every registry takes several. What the registry still
//! has after a cut is its own business; one that forgot the upload gets the blob again from the start.

use std::sync::Arc;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::content::Passage;
use super::error::PushError;
use super::wire::{self, Sent, Wire};
use super::{Blob, Outcome, Progress, Report};
use crate::registry::auth::Scope;
use crate::registry::endpoint::Target;
use crate::registry::{ImageError, header};
use crate::runtime::blocking;

/// Up to here a blob is one request, held in memory.
const MAX_WHOLE_BYTES: u64 = 1 << 20;
const BYTES: &str = "application/octet-stream";

/// Brings a blob into the repository. `neighbour` is a repository of the same registry that had it.
pub(super) async fn upload(
    wire: &Wire<'_>,
    blob: &Blob,
    neighbour: Option<&str>,
    report: &Report,
) -> Result<Outcome, PushError> {
    if exists(wire, blob).await? {
        return Ok(Outcome::Exists);
    }
    let passage = Passage::new(blob.content.clone(), blob.size_bytes);
    let mut neighbour = neighbour;
    let mut patience = wire.session.retry().patience();
    loop {
        let location = match begin(wire, blob, neighbour).await? {
            Begun::Mounted => {
                let from = neighbour.unwrap_or_default().to_owned();
                return Ok(Outcome::Mounted { from });
            }
            Begun::Refused => {
                neighbour = None;
                continue;
            }
            Begun::At(location) => location,
        };
        neighbour = None;
        let sent = match blob.size_bytes <= MAX_WHOLE_BYTES {
            true => whole(wire, blob, &passage, location).await,
            false => streamed(wire, blob, &passage, location, report).await,
        };
        let broken = match sent {
            Err(error) => return Err(unreadable(blob, &passage).unwrap_or(error)),
            Ok(Transfer::Done) => return Ok(Outcome::Pushed),
            Ok(Transfer::Broken { reason }) => reason,
        };
        if let Some(error) = unreadable(blob, &passage) {
            return Err(error);
        }
        if !patience.is_left(None).await {
            return Err(wire.interrupted(&what(blob), broken));
        }
        // Only the answer may have been lost.
        if exists(wire, blob).await? {
            return Ok(Outcome::Pushed);
        }
    }
}

fn what(blob: &Blob) -> String {
    format!("blob {}", blob.digest)
}

/// Returns the failure of the store's side, which explains whatever the network made of it.
fn unreadable(blob: &Blob, passage: &Passage) -> Option<PushError> {
    let source = passage.take_failure()?;
    Some(PushError::Read {
        blob: blob.digest,
        source,
    })
}

async fn exists(wire: &Wire<'_>, blob: &Blob) -> Result<bool, PushError> {
    let path = format!("blobs/{}", blob.digest);
    let call = wire::call(Method::HEAD, Target::Path(&path));
    let response = wire.send(call, &what(blob)).await?;
    match response.status() {
        StatusCode::OK => {
            // A length that isn't the blob's is that of something else.
            let length = header(response.headers(), CONTENT_LENGTH.as_str());
            Ok(length.is_none_or(|length| length == blob.size_bytes.to_string()))
        }
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(wire.refusal(&what(blob), response).await),
    }
}

/// How an upload began.
enum Begun {
    /// Nothing is to be sent.
    Mounted,
    /// Not with a neighbour, at least.
    Refused,
    /// Bytes are expected there.
    At(Url),
}

async fn begin(wire: &Wire<'_>, blob: &Blob, neighbour: Option<&str>) -> Result<Begun, PushError> {
    // A repository's name has nothing in it that an address would have to escape.
    let path = match neighbour {
        Some(from) => format!("blobs/uploads/?mount={}&from={from}", blob.digest),
        None => "blobs/uploads/".to_owned(),
    };
    let empty = || Body::from(Vec::new());
    let mut call = wire::with_body(wire::call(Method::POST, Target::Path(&path)), BYTES, &empty);
    if let Some(from) = neighbour {
        call.scope = Scope::Mount {
            from: from.to_owned(),
        };
    }
    let sent = wire.send(call, &what(blob)).await;
    let response = match sent {
        // Who may write here may have no rights there, and then gets no token for both.
        Err(PushError::Image(ImageError::Denied { .. })) if neighbour.is_some() => return Ok(Begun::Refused),
        sent => sent?,
    };
    match response.status() {
        StatusCode::CREATED if neighbour.is_some() => Ok(Begun::Mounted),
        StatusCode::ACCEPTED => Ok(Begun::At(wire.location(&response)?)),
        status if status.is_client_error() && neighbour.is_some() => Ok(Begun::Refused),
        _ => Err(wire.refusal(&what(blob), response).await),
    }
}

/// What became of sending bytes.
enum Transfer {
    Done,
    /// What the registry has of this upload is lost.
    Broken {
        reason: String,
    },
}

/// Sends a small blob in one request.
async fn whole(
    wire: &Wire<'_>,
    blob: &Blob,
    passage: &Arc<Passage>,
    location: Url,
) -> Result<Transfer, PushError> {
    let reading = Arc::clone(passage);
    let bytes = blocking(move || reading.whole())
        .await
        .map_err(|source| PushError::Read {
            blob: blob.digest,
            source,
        })?;
    check(blob, passage)?;
    let body = || Body::from(bytes.clone());
    let call = wire::call(Method::PUT, Target::Url(with_digest(location, blob)));
    let sent = wire.once(wire::with_body(call, BYTES, &body)).await?;
    finished(wire, blob, sent).await
}

/// Streams a large blob, going on after cuts, and then says what it was.
async fn streamed(
    wire: &Wire<'_>,
    blob: &Blob,
    passage: &Arc<Passage>,
    mut location: Url,
    report: &Report,
) -> Result<Transfer, PushError> {
    let mut at = 0;
    let mut patience = wire.session.retry().patience();
    while at < blob.size_bytes {
        let body = || {
            let (report, digest, total_bytes) = (Arc::clone(report), blob.digest, blob.size_bytes);
            let moved = move |done_bytes| {
                report(Progress {
                    blob: digest,
                    done_bytes,
                    total_bytes,
                    outcome: None,
                });
            };
            Body::wrap_stream(passage.from(at, moved))
        };
        let call = wire::call(Method::PATCH, Target::Url(location.clone()));
        let mut call = wire::with_body(call, BYTES, &body);
        range_headers(&mut call.headers, at, blob.size_bytes);
        let (before, reason, is_last) = match wire.once(call).await? {
            Sent::Answered(response) if response.status().is_success() => {
                location = wire.location(&response)?;
                let has = uploaded(&response).unwrap_or(blob.size_bytes);
                if has > blob.size_bytes {
                    return Err(wire.refused(&what(blob), "more bytes than were sent".to_owned()));
                }
                let is_last = has <= at && !patience.is_left(None).await;
                let reason = "only a part of it was taken".to_owned();
                (std::mem::replace(&mut at, has), reason, is_last)
            }
            Sent::Answered(response) => return lost(wire, blob, response).await,
            Sent::Broken { reason, wait } => {
                if passage.failed() {
                    return Ok(Transfer::Broken { reason });
                }
                let is_last = !patience.is_left(wait).await;
                let Some((next, has)) = resumed(wire, blob, &location).await? else {
                    return Ok(Transfer::Broken { reason });
                };
                location = next;
                (std::mem::replace(&mut at, has), reason, is_last)
            }
        };
        if at > before {
            patience.renew();
        } else if is_last {
            return Ok(Transfer::Broken { reason });
        }
    }
    check(blob, passage)?;
    let empty = || Body::from(Vec::new());
    let call = wire::call(Method::PUT, Target::Url(with_digest(location, blob)));
    let sent = wire.once(wire::with_body(call, BYTES, &empty)).await?;
    finished(wire, blob, sent).await
}

/// Sets what a part of a blob needs. The first is sent as docker does it, without a range.
fn range_headers(headers: &mut HeaderMap, at: u64, size_bytes: u64) {
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size_bytes - at));
    if at > 0 {
        let range = HeaderValue::from_str(&format!("{at}-{}", size_bytes - 1));
        headers.insert(
            CONTENT_RANGE,
            range.expect("because digits and a dash are a header's value"),
        );
    }
}

/// Asks how much of an upload has arrived; `None` when the registry no longer knows, or knows more than we do.
async fn resumed(wire: &Wire<'_>, blob: &Blob, location: &Url) -> Result<Option<(Url, u64)>, PushError> {
    let call = wire::call(Method::GET, Target::Url(location.clone()));
    let response = wire.send(call, &what(blob)).await?;
    let has = uploaded(&response).filter(|_| response.status() == StatusCode::NO_CONTENT);
    match has.filter(|has| *has <= blob.size_bytes) {
        // An answer without an address means that the old one stands.
        Some(has) => Ok(Some((
            wire.location(&response).unwrap_or_else(|_| location.clone()),
            has,
        ))),
        None => Ok(None),
    }
}

/// Reads how many bytes a registry has: `Range: 0-N`, where `0-0` is also what some say of nothing.
fn uploaded(response: &Response) -> Option<u64> {
    let range = header(response.headers(), "range")?;
    let range = range.trim().strip_prefix("bytes=").unwrap_or(range.trim());
    let (start, last) = range.split_once('-')?;
    match (start.parse().ok()?, last.parse().ok()?) {
        (0_u64, 0_u64) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

/// Fails where the bytes that went by aren't the blob.
fn check(blob: &Blob, passage: &Passage) -> Result<(), PushError> {
    match passage.digest() {
        Some(actual) if actual != blob.digest => Err(PushError::Damaged {
            expected: blob.digest,
            actual,
        }),
        _ => Ok(()),
    }
}

fn with_digest(mut location: Url, blob: &Blob) -> Url {
    location
        .query_pairs_mut()
        .append_pair("digest", &blob.digest.to_string());
    location
}

/// Reads the answer to the request that ends an upload.
async fn finished(wire: &Wire<'_>, blob: &Blob, sent: Sent) -> Result<Transfer, PushError> {
    match sent {
        Sent::Answered(response) if response.status().is_success() => {
            super::check_digest(wire, &blob.digest, &response)?;
            Ok(Transfer::Done)
        }
        Sent::Answered(response) => lost(wire, blob, response).await,
        Sent::Broken { reason, .. } => Ok(Transfer::Broken { reason }),
    }
}

/// An upload that the registry doesn't know (any more) can be begun anew; whatever else it says is final.
async fn lost(wire: &Wire<'_>, blob: &Blob, response: Response) -> Result<Transfer, PushError> {
    match response.status() {
        status @ (StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE) => Ok(Transfer::Broken {
            reason: status.to_string(),
        }),
        _ => Err(wire.refusal(&what(blob), response).await),
    }
}
