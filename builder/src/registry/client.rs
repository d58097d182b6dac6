//! Talks to one repository of one registry: requests with retries, redirects, an anonymous token, size limits.
//!
//! Knows HTTP, not what the bytes mean: digests are checked by whoever asked. Redirects are followed here and not by
//! reqwest, so that a token stays with the host it was given for. Spec: OCI distribution-spec, "Pull".

use std::error::Error as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};

use super::auth::{self, Challenge};
use super::error::ImageError;
use super::reference::Reference;

const MAX_REDIRECTS: usize = 10;
const MAX_TOKEN_BYTES: u64 = 1 << 20;
const MAX_ERROR_BYTES: u64 = 64 << 10;
/// Longest that a `Retry-After` is obeyed.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often and how slowly a request is made again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// Tries in all.
    pub(crate) n_tries: u32,
    /// Longest wait before the second try; doubles with each further one.
    pub(crate) first_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            n_tries: 5,
            first_wait: Duration::from_millis(250),
        }
    }
}

impl Retry {
    /// Waits before try number `n_tried + 1`: what the server asked for, else a random part of a growing span.
    pub(crate) async fn pause(&self, n_tried: u32, asked: Option<Duration>) {
        let span = self
            .first_wait
            .saturating_mul(1 << n_tried.saturating_sub(1).min(5))
            .min(Duration::from_secs(8));
        let mut random = [0; 4];
        // Without randomness the full span is waited, which is right too.
        let part = match rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK) {
            Ok(_) => f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX),
            Err(_) => 1.0,
        };
        let wait = asked.map_or(span.mul_f64(part), |asked| asked.min(MAX_WAIT));
        tokio::time::sleep(wait).await;
    }
}

/// A repository being read; keeps its token. Connections are shared by all sessions of the process.
#[derive(Debug)]
pub(crate) struct Session {
    reference: Reference,
    base: Url,
    token: Mutex<Option<String>>,
    retry: Retry,
}

/// One request.
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
        let host = match reference.domain() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let without_port = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => name,
            _ => host,
        };
        // Plain HTTP only where nobody can listen in; other hosts never fall back to it.
        let scheme = if auth::is_loopback(without_port) {
            "http"
        } else {
            "https"
        };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{}/", reference.path()))
            .map_err(|error| ImageError::Setup(error.to_string()))?;
        Ok(Self {
            reference: reference.clone(),
            base,
            token: Mutex::default(),
            retry,
        })
    }

    /// Returns what is being read.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Returns how patient this session is.
    pub(crate) fn retry(&self) -> Retry {
        self.retry
    }

    /// Asks, with retries; Ok is a 200 or 206 whose body is still to be read.
    pub(crate) async fn get(&self, ask: Ask<'_>) -> Result<Response, ImageError> {
        let mut has_authenticated = false;
        let mut n_tried = 0;
        loop {
            let failure = match self.follow(ask).await? {
                Err(error) => (self.unreachable(&error), None),
                Ok(response) => match response.status() {
                    StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                    StatusCode::UNAUTHORIZED if !has_authenticated => {
                        has_authenticated = true;
                        self.authenticate(response.headers()).await?;
                        continue;
                    }
                    status if is_passing(status) => {
                        let wait = retry_after(response.headers());
                        (self.refusal(response).await, wait)
                    }
                    _ => return Err(self.refusal(response).await),
                },
            };
            n_tried += 1;
            if n_tried >= self.retry.n_tries {
                return Err(failure.0);
            }
            self.retry.pause(n_tried, failure.1).await;
        }
    }

    /// Reads a whole small document. The second value is its `Content-Type`.
    pub(crate) async fn document(
        &self,
        ask: Ask<'_>,
        limit_bytes: u64,
    ) -> Result<(Vec<u8>, Option<String>), ImageError> {
        let mut n_tried = 0;
        loop {
            let response = self.get(ask).await?;
            let content_type = header(response.headers(), "content-type");
            let error = match capped(response, limit_bytes).await {
                Ok(Some(bytes)) => return Ok((bytes, content_type)),
                Ok(None) => {
                    return Err(ImageError::WrongSize {
                        what: format!("{} of {}", ask.path, self.reference),
                        expected_bytes: limit_bytes,
                        actual: "more".to_owned(),
                    });
                }
                Err(error) => error,
            };
            n_tried += 1;
            if n_tried >= self.retry.n_tries {
                return Err(self.unreachable(&error));
            }
            self.retry.pause(n_tried, None).await;
        }
    }

    /// Sends once and follows redirects. The outer error is final, the inner one may pass.
    async fn follow(&self, ask: Ask<'_>) -> Result<Result<Response, reqwest::Error>, ImageError> {
        let mut url = self
            .base
            .join(ask.path)
            .map_err(|error| self.answer(format!("an address that is none: {error}")))?;
        for _ in 0..MAX_REDIRECTS {
            let mut request = http(url.scheme())?.get(url.clone()).header(ACCEPT, ask.accept);
            if ask.offset > 0 {
                request = request.header(RANGE, format!("bytes={}-", ask.offset));
            }
            if let Some(token) = self.token().filter(|_| url.origin() == self.base.origin()) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => return Ok(Err(error)),
            };
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Ok(response));
            }
            let target = header(response.headers(), LOCATION.as_str())
                .and_then(|target| url.join(&target).ok())
                .ok_or_else(|| self.answer("a redirect to nowhere".to_owned()))?;
            let is_safe = match target.scheme() {
                "https" => true,
                "http" => self.base.scheme() == "http" && target.host_str().is_some_and(auth::is_loopback),
                _ => false,
            };
            if !is_safe {
                return Err(self.answer("a redirect to an unprotected address, which is refused".to_owned()));
            }
            url = target;
        }
        Err(self.answer(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Gets the anonymous token that the registry's challenge asks for.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<(), ImageError> {
        let offered = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(auth::challenge)
            .find(|challenge| *challenge != Challenge::Basic);
        let Some(Challenge::Bearer { realm, service }) = offered else {
            return Err(self.denied());
        };
        let url = auth::token_url(&self.base, &realm, service.as_deref(), self.reference.path())
            .map_err(|why| self.answer(why))?;
        let mut n_tried = 0;
        let response = loop {
            match http(url.scheme())?.get(url.clone()).send().await {
                Ok(response) if response.status().is_success() => break response,
                Ok(response) if !is_passing(response.status()) => return Err(self.denied()),
                Ok(_) if n_tried + 1 >= self.retry.n_tries => return Err(self.denied()),
                Err(error) if n_tried + 1 >= self.retry.n_tries => return Err(self.unreachable(&error)),
                Ok(_) | Err(_) => {}
            }
            n_tried += 1;
            self.retry.pause(n_tried, None).await;
        };
        let bytes = capped(response, MAX_TOKEN_BYTES)
            .await
            .map_err(|error| self.unreachable(&error))?
            .ok_or_else(|| self.answer("an oversized token".to_owned()))?;
        let document: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| self.answer(format!("a token that is not JSON: {error}")))?;
        let token = ["token", "access_token"]
            .iter()
            .find_map(|name| document.get(name)?.as_str())
            .ok_or_else(|| self.answer("no token".to_owned()))?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        Ok(())
    }

    fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn denied(&self) -> ImageError {
        ImageError::Denied {
            reference: self.reference.familiar(),
        }
    }

    fn answer(&self, answer: String) -> ImageError {
        ImageError::Answer {
            reference: self.reference.familiar(),
            answer,
        }
    }

    /// Words a broken connection, with its causes: reqwest's own message is only the outermost.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> ImageError {
        let mut reason = None;
        let mut cause = error.source();
        while let Some(inner) = cause {
            reason = Some(inner.to_string());
            cause = inner.source();
        }
        ImageError::Unreachable {
            reference: self.reference.familiar(),
            host: self.base.authority().to_owned(),
            reason: reason.unwrap_or_else(|| error.to_string()),
        }
    }

    /// Turns an unwelcome status into an error, with the registry's own words where it has some.
    async fn refusal(&self, response: Response) -> ImageError {
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return self.denied(),
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
        self.answer(match message {
            Some(message) => format!("{status}: {message}"),
            None => status.to_string(),
        })
    }
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
async fn capped(mut response: Response, limit_bytes: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > limit_bytes {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

/// Returns the process's HTTP client for a scheme. The one for plain HTTP never loads certificates, which takes
/// longer than the request; it trusts nobody, so a TLS connection made with it by mistake fails.
pub(crate) fn http(scheme: &str) -> Result<reqwest::Client, ImageError> {
    static PLAIN: OnceLock<reqwest::Client> = OnceLock::new();
    static TLS: OnceLock<reqwest::Client> = OnceLock::new();
    let slot = if scheme == "http" { &PLAIN } else { &TLS };
    if let Some(client) = slot.get() {
        return Ok(client.clone());
    }
    let setup = |error: &dyn std::fmt::Display| ImageError::Setup(error.to_string());
    // Somebody else's having installed it already is just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(Duration::from_secs(15))
        .read_timeout(Duration::from_secs(60));
    if scheme == "http" {
        let trusts_nobody = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder = builder.tls_backend_preconfigured(trusts_nobody);
    }
    let client = builder.build().map_err(|error| setup(&error))?;
    Ok(slot.get_or_init(|| client).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_tls() {
        for (name, base) in [
            ("alpine", "https://registry-1.docker.io/v2/library/alpine/"),
            ("ghcr.io/o/a", "https://ghcr.io/v2/o/a/"),
            ("192.0.2.1:5000/a", "https://192.0.2.1:5000/v2/a/"),
            ("localhost.example.org/a", "https://localhost.example.org/v2/a/"),
            ("localhost:5000/a", "http://localhost:5000/v2/a/"),
            ("127.9.9.9/a", "http://127.9.9.9/v2/a/"),
            ("[::1]:5000/a", "http://[::1]:5000/v2/a/"),
        ] {
            let session = Session::new(&Reference::parse(name).unwrap()).unwrap();
            assert_eq!(session.base.as_str(), base, "{name}");
        }
        for scheme in ["http", "https"] {
            http(scheme).unwrap();
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_a_date() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert!(asked("Fri, 31 Dec 2099 23:59:59 GMT").is_some_and(|wait| wait > MAX_WAIT));
        assert_eq!(
            [asked("-1"), asked("soon"), asked("99999999999999999999999")],
            [None; 3]
        );
    }
}
