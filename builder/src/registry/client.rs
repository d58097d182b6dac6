//! Talks to one repository: requests with retries, mirrors, size limits, and what refusals mean.
//!
//! Knows HTTP, not what the bytes mean: digests are checked by whoever asked. One request to one host, with its
//! credentials and redirects, is `endpoint`'s. Spec: OCI distribution-spec, "Pull".

use std::error::Error as _;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cache::{Digest, compress};
use reqwest::header::{ACCEPT, CONTENT_ENCODING, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};

use super::auth::Scope;
use super::config::{Serves, Settings};
use super::endpoint::{Call, Endpoint, Target};
use super::error::ImageError;
use super::patience::{Patience, Retry};
use super::reference::Reference;
use crate::clock;

const MAX_ERROR_BYTES: u64 = 64 << 10;
/// A repository and the hosts that have it. Connections are shared by all sessions of the process.
#[derive(Debug)]
pub(crate) struct Session {
    reference: Reference,
    mirrors: Vec<Copy>,
    origin: Endpoint,
    retry: Retry,
}

/// A mirror, seen from one repository.
#[derive(Debug)]
struct Copy {
    endpoint: Endpoint,
    serves: Serves,
    /// It did not answer, and isn't asked again by this session.
    is_down: AtomicBool,
}

/// One thing to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// Below `/v2/<repository>/`.
    pub(crate) path: &'a str,
    /// Value of `Accept`.
    pub(crate) accept: &'a str,
    /// First byte wanted; not zero to go on with a broken download.
    pub(crate) offset: u64,
}

impl Session {
    /// Makes a session; connects to nothing yet.
    pub(crate) fn new(reference: &Reference) -> Result<Self, ImageError> {
        Self::with_retry(reference, Retry::default())
    }

    pub(crate) fn with_retry(reference: &Reference, retry: Retry) -> Result<Self, ImageError> {
        Self::with_settings(reference, retry, &Settings::of_process()?)
    }

    pub(crate) fn with_settings(
        reference: &Reference,
        retry: Retry,
        settings: &Arc<Settings>,
    ) -> Result<Self, ImageError> {
        let route = settings.route(reference)?;
        let mirrors = route.mirrors.into_iter().map(|mirror| {
            Ok(Copy {
                endpoint: Endpoint::new(reference.familiar(), mirror.host, settings)?,
                serves: mirror.serves,
                is_down: AtomicBool::new(false),
            })
        });
        Ok(Self {
            reference: reference.clone(),
            mirrors: mirrors.collect::<Result<_, ImageError>>()?,
            origin: Endpoint::new(reference.familiar(), route.origin, settings)?,
            retry,
        })
    }

    /// Returns what is being read or written.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Returns how patient this session is.
    pub(crate) fn retry(&self) -> Retry {
        self.retry
    }

    /// Makes any request to the registry itself, with its credentials; Ok is whatever it answers. What may pass
    /// (broken connections, 429, 5xx) is tried again if the call says that it may be.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Response, ImageError> {
        self.send_to(&self.origin, call, &mut self.retry.patience()).await
    }

    /// Reads from the first mirror that has it, else from the registry itself. A mirror is asked once: there is somebody
    /// else to ask.
    async fn read(&self, call: &Call<'_>, patience: &mut Patience) -> Result<Response, ImageError> {
        for copy in &self.mirrors {
            let Target::Path(path) = &call.target else {
                continue;
            };
            let is_by_digest = path.starts_with("blobs/") || path.starts_with("manifests/sha256:");
            let serves = match copy.serves {
                Serves::All => true,
                Serves::Digests => is_by_digest,
                Serves::Tags => !is_by_digest,
            };
            if !serves || copy.is_down.load(Ordering::Relaxed) {
                continue;
            }
            match copy.endpoint.send(call).await {
                Ok(Ok(response)) if response.status().is_success() => return Ok(response),
                // It doesn't have this, or not for us.
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(_)) => copy.is_down.store(true, Ordering::Relaxed),
            }
        }
        self.send_to(&self.origin, call, patience).await
    }

    async fn send_to(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        patience: &mut Patience,
    ) -> Result<Response, ImageError> {
        loop {
            let answer = endpoint.send(call).await?;
            let wait = match &answer {
                Ok(response) if !is_passing(response.status()) => {
                    return Ok(answer.expect("because it is one"));
                }
                Ok(response) => retry_after(response.headers()),
                Err(_) => None,
            };
            if !call.is_repeatable || !patience.is_left(wait).await {
                return answer.map_err(|error| self.unreachable(&error));
            }
        }
    }

    /// Reads, with retries; Ok is a 200 or 206 whose body is still to be read. `patience` is that of all that is read for one
    /// purpose.
    pub(crate) async fn get(&self, ask: Ask<'_>, patience: &mut Patience) -> Result<Response, ImageError> {
        let mut call = Call::new(Method::GET, Target::Path(ask.path), Scope::Pull);
        let accept = HeaderValue::from_str(ask.accept).expect("because media types are plain text");
        call.headers.insert(ACCEPT, accept);
        if ask.offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", ask.offset));
            call.headers
                .insert(RANGE, range.expect("because a number is plain text"));
        }
        let response = self.read(&call, patience).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(self.refusal(&call, response).await),
        }
    }

    /// Asks for the digest of something, without its bytes. `None` from a registry that doesn't say.
    pub(crate) async fn head(&self, path: &str, accept: &'static str) -> Result<Option<Digest>, ImageError> {
        let mut call = Call::new(Method::HEAD, Target::Path(path), Scope::Pull);
        call.headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let response = self.read(&call, &mut self.retry.patience()).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => return Ok(None),
            _ => return Err(self.refusal(&call, response).await),
        }
        Ok(header(response.headers(), "docker-content-digest").and_then(|text| text.parse().ok()))
    }

    /// Reads a whole small document. The second value is its `Content-Type`.
    pub(crate) async fn document(
        &self,
        ask: Ask<'_>,
        limit_bytes: u64,
    ) -> Result<(Vec<u8>, Option<String>), ImageError> {
        let mut patience = self.retry.patience();
        loop {
            let response = self.get(ask, &mut patience).await?;
            let content_type = header(response.headers(), "content-type");
            let encoding = header(response.headers(), CONTENT_ENCODING.as_str());
            let too_large = || ImageError::WrongSize {
                what: format!("{} of {}", ask.path, self.reference),
                expected_bytes: limit_bytes,
                actual: "more".to_owned(),
            };
            let error = match capped(response, limit_bytes).await {
                Ok(Some(bytes)) => {
                    let bytes = decoded(bytes, encoding.as_deref(), limit_bytes).ok_or_else(too_large)?;
                    return Ok((bytes, content_type));
                }
                Ok(None) => return Err(too_large()),
                Err(error) => error,
            };
            if !patience.is_left(None).await {
                return Err(self.unreachable(&error));
            }
        }
    }

    /// Words a broken connection, with its cause.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> ImageError {
        ImageError::Unreachable {
            reference: self.reference.familiar(),
            host: error.url().map_or_else(
                || self.origin.base().authority().to_owned(),
                |url| url.authority().to_owned(),
            ),
            reason: reason(error),
        }
    }

    /// Turns an unwelcome status into an error, with the registry's own words where it has some.
    pub(crate) async fn refusal(&self, call: &Call<'_>, response: Response) -> ImageError {
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return self.origin.denied(&call.scope),
            StatusCode::NOT_FOUND => {
                return ImageError::NotFound {
                    reference: self.reference.familiar(),
                };
            }
            _ => {}
        }
        let body = capped(response, MAX_ERROR_BYTES).await.ok().flatten();
        let message = body
            .and_then(|body| serde_json::from_slice::<serde_json::Value>(&body).ok())
            .and_then(|body| Some(body.get("errors")?.get(0)?.get("message")?.as_str()?.to_owned()))
            .map(|message| {
                message
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(300)
                    .collect::<String>()
            });
        self.origin.answer(match message {
            Some(message) => format!("{status}: {message}"),
            None => status.to_string(),
        })
    }
}

/// Undoes the compression that some servers put on documents though nobody asked for it; `None` when that makes them
/// larger than `limit_bytes`. What can't be decoded stays as it is: its digest or its parser will tell.
fn decoded(bytes: Vec<u8>, encoding: Option<&str>, limit_bytes: u64) -> Option<Vec<u8>> {
    let is_gzip = encoding.is_some_and(|word| word.eq_ignore_ascii_case("gzip"));
    if !is_gzip || compress::sniff(&bytes) != compress::Format::Gzip {
        return Some(bytes);
    }
    let mut out = Vec::new();
    let n = compress::decompressor(&bytes[..], u64::MAX)
        .ok()
        .and_then(|(_, plain)| plain.take(limit_bytes + 1).read_to_end(&mut out).ok());
    match n {
        Some(n) if n as u64 > limit_bytes => None,
        Some(_) => Some(out),
        None => Some(bytes),
    }
}

/// Returns the innermost cause of a broken connection: reqwest's own message is only the outermost.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut reason = None;
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = Some(inner.to_string());
        cause = inner.source();
    }
    let reason = reason.unwrap_or_else(|| error.to_string());
    match is_about_time(&reason) {
        true => format!(
            "{reason}; the clock of this machine says {}",
            clock::rfc3339(clock::now_unix())
        ),
        false => reason,
    }
}

/// Says whether the other side's certificate is refused for the date, which a wrong clock is as good a reason for.
fn is_about_time(reason: &str) -> bool {
    // The words of rustls: with the times where it has them, and without.
    let words = [
        "certificate: Expired",
        "certificate: NotValidYet",
        "certificate expired",
        "certificate not valid yet",
    ];
    words.iter().any(|word| reason.contains(word))
}

/// Says whether a status may be another one soon.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Reads `Retry-After`: seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = header(headers, RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = http_date(&value)?;
    Some(
        (date - time::OffsetDateTime::now_utc())
            .try_into()
            .unwrap_or_default(),
    )
}

/// Reads a date as HTTP writes it. Spec: RFC 9110, 5.6.7.
pub(crate) fn http_date(text: &str) -> Option<time::OffsetDateTime> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = time::PrimitiveDateTime::parse(text.trim(), format).ok()?;
    Some(date.assume_utc())
}

pub(crate) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}

/// Reads a body of at most `limit_bytes`; `None` when it is longer.
pub(crate) async fn capped(
    mut response: Response,
    limit_bytes: u64,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > limit_bytes {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_a_date() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert!(asked("Fri, 31 Dec 2099 23:59:59 GMT").is_some_and(|wait| wait > Duration::from_secs(3600)));
        assert_eq!(
            [asked("-1"), asked("soon"), asked("99999999999999999999999")],
            [None; 3]
        );
    }

    #[test]
    fn certificates_that_are_too_old_or_too_new_are_told_apart_from_bad_ones() {
        // hardening R18
        use rustls::{CertificateError, Error};
        let time = rustls::pki_types::UnixTime::now();
        for (error, expected) in [
            (CertificateError::Expired, true),
            (CertificateError::NotValidYet, true),
            (
                CertificateError::ExpiredContext {
                    time,
                    not_after: time,
                },
                true,
            ),
            (
                CertificateError::NotValidYetContext {
                    time,
                    not_before: time,
                },
                true,
            ),
            (CertificateError::UnknownIssuer, false),
            (CertificateError::Revoked, false),
        ] {
            let reason = Error::InvalidCertificate(error).to_string();
            assert_eq!(is_about_time(&reason), expected, "{reason}");
        }
    }
}
