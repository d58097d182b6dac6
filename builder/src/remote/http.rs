//! Files over HTTP: asked for with what is known of them, stored by digest, made into a layer of one file.
//!
//! What a server says of a file (`ETag`, `Last-Modified`) is kept per address, so that what hasn't changed isn't sent
//! again. Tokens come from secrets and stay with the host they are for. Spec: dockerfile.md §10.7, RFC 9110.

use std::io::Write as _;

use cache::blobs::{BlobError, BlobWriter};
use cache::index::{Fetched, IndexError};
use cache::layer::{Body, Meta, Timestamp, TreePath, Xattrs};
use cache::layers::LayersError;
use cache::{DiffId, Digest, Store};
use frontend::{HttpRequest, ResolvedHttp};
use reqwest::header::{
    AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::{Response, StatusCode, Url};
use solver::op::Http;

use crate::registry::{ImageError, Retry, Tls, client, header, http_date, is_passing, retry_after};
use crate::secrets::Secrets;

const MAX_REDIRECTS: usize = 10;
/// A file of more bytes is a mistake, or an attack on the disk.
const MAX_BYTES: u64 = 64 << 30;

/// Says why a file could not be had. Addresses are without credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// It is no address.
    #[error("invalid address {url}: {why}")]
    Address {
        /// Which.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server answered with something else.
    #[error("failed to fetch {url}: invalid response status {status}")]
    Status {
        /// Which file.
        url: String,
        /// The answer.
        status: u16,
    },
    /// No answer, or a broken one, after several tries.
    #[error("failed to fetch {url}: {why}")]
    Unreachable {
        /// Which file.
        url: String,
        /// What happened.
        why: String,
    },
    /// A redirect that isn't followed.
    #[error("failed to fetch {url}: {why}")]
    Redirect {
        /// Which file.
        url: String,
        /// Where it would lead.
        why: String,
    },
    /// Other content than was promised.
    #[error("digest mismatch for {url}: expected {expected}, found {found}")]
    Digest {
        /// Which file.
        url: String,
        /// What `--checksum` says.
        expected: Digest,
        /// What was sent.
        found: Digest,
    },
    /// More than is allowed.
    #[error("failed to fetch {url}: it is larger than {MAX_BYTES} bytes")]
    TooLarge {
        /// Which file.
        url: String,
    },
    /// The client could not be set up.
    #[error(transparent)]
    Client(#[from] ImageError),
    /// The store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Its index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Its layers.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The disk.
    #[error("cannot write what {url} sends: {source}")]
    Write {
        /// Which file.
        url: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Finds out what the file at an address is, and stores it. What is stored and unchanged isn't sent again; with a
/// checksum, what is stored isn't even asked for.
pub(crate) async fn resolve(
    store: &Store,
    request: &HttpRequest,
    secrets: &Secrets,
) -> Result<ResolvedHttp, HttpError> {
    let known = store.index().fetched(&kept_as(&request.url))?;
    let known = known.filter(|known| store.blobs().contains(&known.digest));
    let is_expected = |known: &Fetched| request.checksum.as_ref() == Some(&known.digest);
    let fetched = match known {
        Some(known) if is_expected(&known) => known,
        known => {
            let get = Get::new(request, secrets)?;
            get.run(store, known.as_ref()).await?
        }
    };
    if let Some(expected) = request.checksum.filter(|expected| *expected != fetched.digest) {
        return Err(HttpError::Digest {
            url: frontend::without_credentials(&request.url),
            expected,
            found: fetched.digest,
        });
    }
    let date = fetched.modified.as_deref().and_then(http_date);
    Ok(ResolvedHttp {
        digest: fetched.digest,
        last_modified: date.map(time::OffsetDateTime::unix_timestamp),
    })
}

/// Returns what the index calls an address: itself, or what it hashes to where it has secrets. Two tokens may be for two
/// files, so that leaving them out would not do.
fn kept_as(url: &str) -> String {
    let shown = frontend::without_credentials(url);
    match shown == url {
        true => shown,
        false => format!("{shown} {}", cache::Digest::of(url.as_bytes())),
    }
}

/// Makes the layer of a fetched file. Blocks.
pub(crate) fn layer(store: &Store, file: &Http) -> Result<DiffId, HttpError> {
    let mut content = store.blobs().open(&file.digest)?;
    let size_bytes = content
        .metadata()
        .map_err(|source| HttpError::Write {
            url: file.url.clone(),
            source,
        })?
        .len();
    let meta = Meta {
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Timestamp {
            seconds: file.mtime,
            nanos: 0,
        },
        xattrs: Xattrs::default(),
    };
    let layer = store.layers().write(store.incomplete(), |mut writer| {
        let body = Body::File {
            size_bytes,
            reader: &mut content,
            content: None,
        };
        let path = TreePath::root().join(file.name.as_bytes());
        writer.add(path, meta, body).map_err(LayersError::from)?;
        writer.finish().map_err(LayersError::from)
    })?;
    Ok(layer.diff_id())
}

/// One file being fetched.
struct Get<'a> {
    request: &'a HttpRequest,
    /// Without credentials, for people.
    shown: String,
    url: Url,
    authorization: Option<HeaderValue>,
    retry: Retry,
}

/// How far a download is.
struct Partial {
    writer: BlobWriter,
    /// Says that later bytes are of the same file: an ETag or a date.
    validator: Option<String>,
    etag: Option<String>,
    modified: Option<String>,
}

impl<'a> Get<'a> {
    fn new(request: &'a HttpRequest, secrets: &Secrets) -> Result<Self, HttpError> {
        let shown = frontend::without_credentials(&request.url);
        let url = Url::parse(&request.url).map_err(|error| HttpError::Address {
            url: shown.clone(),
            why: error.to_string(),
        })?;
        Ok(Self {
            authorization: authorization(&url, secrets),
            request,
            shown,
            url,
            retry: Retry::default(),
        })
    }

    async fn run(&self, store: &Store, known: Option<&Fetched>) -> Result<Fetched, HttpError> {
        let mut partial: Option<Partial> = None;
        let mut patience = self.retry.patience();
        loop {
            let why = match self.send(known, partial.as_ref()).await? {
                Ok(response) => match response.status() {
                    StatusCode::NOT_MODIFIED if known.is_some() => {
                        return Ok(known.expect("because it was just looked at").clone());
                    }
                    StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                        match self.receive(response, store, &mut partial).await? {
                            Ok(()) => return self.finish(store, partial),
                            Err(error) => words(&error),
                        }
                    }
                    status if is_passing(status) => {
                        if !patience.is_left(retry_after(response.headers())).await {
                            return Err(self.refused(status));
                        }
                        continue;
                    }
                    // What was there can't be gone on with: from the start.
                    StatusCode::RANGE_NOT_SATISFIABLE if partial.is_some() => {
                        partial = None;
                        "a range that it does not have".to_owned()
                    }
                    status => return Err(self.refused(status)),
                },
                Err(error) => words(&error),
            };
            if !patience.is_left(None).await {
                return Err(HttpError::Unreachable {
                    url: self.shown.clone(),
                    why,
                });
            }
        }
    }

    fn refused(&self, status: StatusCode) -> HttpError {
        HttpError::Status {
            url: self.shown.clone(),
            status: status.as_u16(),
        }
    }

    /// Sends the request and follows redirects. The outer error is final, the inner one may pass.
    async fn send(
        &self,
        known: Option<&Fetched>,
        partial: Option<&Partial>,
    ) -> Result<Result<Response, reqwest::Error>, HttpError> {
        let mut url = self.url.clone();
        let refused = |why: String| HttpError::Redirect {
            url: self.shown.clone(),
            why,
        };
        for _ in 0..=MAX_REDIRECTS {
            let mut request = client(&url, &Tls::default())?.get(url.clone());
            if let Some(value) = self
                .authorization
                .as_ref()
                .filter(|_| url.origin() == self.url.origin())
            {
                request = request.header(AUTHORIZATION, value.clone());
            }
            match (
                partial.and_then(|partial| Some((partial, partial.validator.as_ref()?))),
                known,
            ) {
                (Some((partial, validator)), _) => {
                    let range = format!("bytes={}-", partial.writer.size_bytes());
                    request = request.header(RANGE, range).header(IF_RANGE, validator);
                }
                (None, Some(known)) => {
                    for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.modified)]
                    {
                        if let Some(value) = value {
                            request = request.header(name, value);
                        }
                    }
                }
                (None, None) => {}
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
                .ok_or_else(|| refused("a redirect to nowhere".to_owned()))?;
            let is_safe = match target.scheme() {
                "https" => true,
                "http" => url.scheme() == "http",
                _ => false,
            };
            if !is_safe {
                let scheme = target.scheme();
                return Err(refused(format!(
                    "a redirect from {} to {scheme}, which is refused",
                    url.scheme()
                )));
            }
            url = target;
        }
        Err(refused(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Reads the body into the store's scratch space. The inner error may pass; what came before it is kept.
    async fn receive(
        &self,
        mut response: Response,
        store: &Store,
        partial: &mut Option<Partial>,
    ) -> Result<Result<(), reqwest::Error>, HttpError> {
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && partial.as_ref().is_some_and(|partial| {
                let start = format!("bytes {}-", partial.writer.size_bytes());
                header(response.headers(), CONTENT_RANGE.as_str())
                    .is_some_and(|range| range.starts_with(&start))
            });
        if !goes_on {
            let etag = header(response.headers(), ETAG.as_str());
            let modified = header(response.headers(), LAST_MODIFIED.as_str());
            // A weak tag says nothing about bytes.
            let strong = etag.clone().filter(|etag| !etag.starts_with("W/"));
            *partial = Some(Partial {
                writer: store.blobs().writer(store.incomplete())?,
                validator: strong.or_else(|| modified.clone()),
                etag,
                modified,
            });
        }
        let writer = &mut partial.as_mut().expect("because it was just made").writer;
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            if writer.size_bytes() + chunk.len() as u64 > MAX_BYTES {
                return Err(HttpError::TooLarge {
                    url: self.shown.clone(),
                });
            }
            writer.write_all(&chunk).map_err(|source| HttpError::Write {
                url: self.shown.clone(),
                source,
            })?;
        }
    }

    fn finish(&self, store: &Store, partial: Option<Partial>) -> Result<Fetched, HttpError> {
        let Partial {
            writer,
            etag,
            modified,
            ..
        } = partial.expect("because a body was received");
        // Stored whatever it is: a wrong checksum is often a mistake of who wrote it, and the next try sends nothing.
        let digest = store.blobs().commit(writer, None)?;
        let fetched = Fetched {
            etag,
            modified,
            digest,
        };
        store.index().put_fetched(&kept_as(&self.request.url), &fetched)?;
        Ok(fetched)
    }
}

/// Returns what proves who is asking: a secret for the host, or what stands in the address.
fn authorization(url: &Url, secrets: &Secrets) -> Option<HeaderValue> {
    let host = url.host_str()?;
    let text = |name: &str| {
        let secret = secrets.value(&format!("{name}_{host}"))?;
        Some(std::str::from_utf8(secret.value()).ok()?.trim().to_owned())
    };
    let value = text("HTTP_AUTH_HEADER").or_else(|| Some(format!("Bearer {}", text("HTTP_AUTH_TOKEN")?)))?;
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Words a broken connection by its innermost cause: reqwest's own message is only the outermost.
fn words(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
