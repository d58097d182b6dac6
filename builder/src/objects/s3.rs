//! A bucket of S3, or of a server that speaks it. `rusty_s3` signs and knows the documents; sending is ours.
//!
//! Keys are those that BuildKit uses: `<prefix><blobs_prefix><digest>` and `<prefix><manifests_prefix><name>`.

use std::time::{Duration, SystemTime};

use cache::Digest;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderValue, LAST_MODIFIED};
use reqwest::{Method, Response, StatusCode, Url};
use rusty_s3::actions::{CompleteMultipartUpload, CreateMultipartUpload};
use rusty_s3::{Bucket, BucketError, Credentials, S3Action, UrlStyle};

use super::ObjectsError;
use super::parts::Parts;
use super::wire::{Call, Wire, element};
use crate::registry::push::Blob;
use crate::registry::{Retry, header, http_date};

/// How long a signature is good: longer than all tries of one request take.
const SIGNED_FOR: Duration = Duration::from_secs(3600);
/// The largest object that one request can copy onto itself.
const MAX_COPY_BYTES: u64 = 5 << 30;
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// What is known of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3Settings {
    /// Which.
    pub(crate) bucket: Bucket,
    /// Without them requests aren't signed.
    pub(crate) credentials: Option<Credentials>,
    /// What keys of blobs begin with.
    pub(crate) blobs: String,
    /// The keys of the manifest.
    pub(crate) manifests: Vec<String>,
    /// Blobs sent at once.
    pub(crate) n_parallel: usize,
    /// A blob that is older is marked as used, for the bucket's own rules of what is thrown away.
    pub(crate) refresh: Duration,
}

impl S3Settings {
    /// Returns what to call it.
    pub(crate) fn title(&self) -> String {
        let first = self.manifests.first().map_or("", String::as_str);
        format!("s3 {}/{first}", self.bucket.name())
    }
}

/// Finds a bucket: at an endpoint, or with Amazon.
pub(crate) fn bucket(
    name: &str,
    region: &str,
    endpoint: Option<&str>,
    path_style: bool,
) -> Result<Bucket, String> {
    let amazon = format!("https://s3.{region}.amazonaws.com");
    let endpoint = endpoint.unwrap_or(&amazon);
    let url = Url::parse(endpoint).map_err(|error| format!("endpoint_url `{endpoint}`: {error}"))?;
    let style = if path_style {
        UrlStyle::Path
    } else {
        UrlStyle::VirtualHost
    };
    Bucket::new(url, style, name.to_owned(), region.to_owned()).map_err(|error| match error {
        BucketError::UnsupportedScheme => format!("endpoint_url `{endpoint}`: expected http or https"),
        BucketError::ParseError(_) if !path_style => {
            format!("bucket `{name}` can't be part of the host `{endpoint}`: try use_path_style=true")
        }
        other => format!("bucket `{name}` at `{endpoint}`: {other}"),
    })
}

/// A bucket that is spoken to.
#[derive(Debug)]
pub(crate) struct S3 {
    settings: S3Settings,
    wire: Wire,
}

impl S3 {
    pub(super) fn new(settings: S3Settings) -> Self {
        let retry = Retry::default();
        let wire = Wire {
            title: settings.title(),
            retry,
            patience: Duration::ZERO,
        };
        Self { settings, wire }
    }

    pub(super) fn title(&self) -> &str {
        &self.wire.title
    }

    pub(super) fn place(&self) -> String {
        format!("{}{}", self.settings.bucket.base_url(), self.settings.blobs)
    }

    pub(super) fn n_parallel(&self) -> usize {
        self.settings.n_parallel
    }

    fn key(&self, blob: &Digest) -> String {
        format!("{}{blob}", self.settings.blobs)
    }

    fn credentials(&self) -> Option<&Credentials> {
        self.settings.credentials.as_ref()
    }

    /// Says whether a blob is there; an old one is copied onto itself, which makes it new.
    pub(super) async fn has(&self, blob: &Digest, size_bytes: u64) -> Result<bool, ObjectsError> {
        let key = self.key(blob);
        let url = self.settings.bucket.head_object(self.credentials(), &key);
        let what = format!("blob {blob}");
        let call = Call::new(what.as_str(), Method::HEAD, url.sign(SIGNED_FOR));
        let response = self.wire.send(&call).await?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(false),
            status if status.is_success() => {}
            _ => return Err(self.wire.refusal(&what, response).await),
        }
        let headers = response.headers();
        let length = header(headers, CONTENT_LENGTH.as_str());
        if length.is_some_and(|length| length != size_bytes.to_string()) {
            return Ok(false);
        }
        let modified = header(headers, LAST_MODIFIED.as_str()).and_then(|text| http_date(&text));
        let age = modified.and_then(|at| SystemTime::now().duration_since(at.into()).ok());
        if age.is_some_and(|age| age > self.settings.refresh) && size_bytes <= MAX_COPY_BYTES {
            self.touch(&key, &what).await?;
        }
        Ok(true)
    }

    async fn touch(&self, key: &str, what: &str) -> Result<(), ObjectsError> {
        let (bucket, credentials) = (&self.settings.bucket, self.credentials());
        // Whatever a key may hold that a header may not is escaped in the address.
        let source = bucket.object_url(key).path().to_owned();
        let source = match source.strip_prefix(&format!("/{}/", bucket.name())) {
            Some(_) => source,
            None => format!("/{}{source}", bucket.name()),
        };
        let mut put = bucket.put_object(credentials, key);
        put.headers_mut().insert("x-amz-copy-source", source.clone());
        put.headers_mut().insert("x-amz-metadata-directive", "REPLACE");
        let source = HeaderValue::from_str(&source).expect("because a path in an address is escaped");
        let call = Call::new(what, Method::PUT, put.sign(SIGNED_FOR))
            .with_header("x-amz-copy-source", source)
            .with_header("x-amz-metadata-directive", HeaderValue::from_static("REPLACE"))
            .with_body(Vec::new());
        self.finished(&call).await
    }

    /// Sends a blob: a small one in one request, a larger one in parts, which count only when all are there.
    pub(super) async fn put(&self, blob: &Blob) -> Result<(), ObjectsError> {
        let (key, what) = (self.key(&blob.digest), format!("blob {}", blob.digest));
        let mut parts = Parts::new(blob);
        if parts.is_one() {
            let bytes = parts.next().await?.unwrap_or_default();
            return self.put_whole(&key, &what, bytes).await;
        }
        let upload = self.begin(&key, &what).await?;
        let sent = self.put_parts(&key, &what, &upload, &mut parts).await;
        if sent.is_err() {
            // Parts of nothing cost money until somebody removes them; that this fails is not worth more words.
            let abort = self
                .settings
                .bucket
                .abort_multipart_upload(self.credentials(), &key, &upload);
            let call = Call::new(what, Method::DELETE, abort.sign(SIGNED_FOR));
            let _ = self.wire.send(&call).await;
        }
        sent
    }

    async fn put_whole(&self, key: &str, what: &str, bytes: Vec<u8>) -> Result<(), ObjectsError> {
        let url = self.settings.bucket.put_object(self.credentials(), key);
        let call = Call::new(what, Method::PUT, url.sign(SIGNED_FOR)).with_body(bytes);
        self.wire.expect(&call).await.map(|_| ())
    }

    /// Begins an upload in parts; returns its name.
    async fn begin(&self, key: &str, what: &str) -> Result<String, ObjectsError> {
        let url = self
            .settings
            .bucket
            .create_multipart_upload(self.credentials(), key);
        let call = Call::new(what, Method::POST, url.sign(SIGNED_FOR)).with_body(Vec::new());
        let response = self.wire.expect(&call).await?;
        let body = self.wire.body(what, response, MAX_ANSWER_BYTES).await?;
        let answer = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&body));
        let answer = answer.map_err(|error| self.wire.refused(what, error.to_string()))?;
        Ok(answer.upload_id().to_owned())
    }

    async fn put_parts(
        &self,
        key: &str,
        what: &str,
        upload: &str,
        parts: &mut Parts,
    ) -> Result<(), ObjectsError> {
        let (bucket, credentials) = (&self.settings.bucket, self.credentials());
        let mut etags = Vec::new();
        while let Some(bytes) = parts.next().await? {
            let number =
                u16::try_from(etags.len() + 1).expect("because blobs have at most nine thousand parts");
            let url = bucket.upload_part(credentials, key, number, upload);
            let call = Call::new(what, Method::PUT, url.sign(SIGNED_FOR)).with_body(bytes);
            let response = self.wire.expect(&call).await?;
            let etag = header(response.headers(), ETAG.as_str());
            etags.push(etag.ok_or_else(|| self.wire.refused(what, "a part without ETag".to_owned()))?);
        }
        let each = etags.iter().map(String::as_str);
        let complete = CompleteMultipartUpload::new(bucket, credentials, key, upload, each);
        let url = complete.sign(SIGNED_FOR);
        let call = Call::new(what, Method::POST, url).with_body(complete.body().into_bytes());
        self.finished(&call).await
    }

    /// Sends a request whose answer may be a failure although its status is none.
    async fn finished(&self, call: &Call) -> Result<(), ObjectsError> {
        let response = self.wire.expect(call).await?;
        let body = self.wire.body(&call.what, response, MAX_ANSWER_BYTES).await?;
        let body = String::from_utf8_lossy(&body);
        match element(&body, "Code").filter(|_| body.contains("<Error>")) {
            Some(code) => Err(self.wire.refused(&call.what, code.to_owned())),
            None => Ok(()),
        }
    }

    pub(super) async fn put_manifests(&self, bytes: &[u8]) -> Result<(), ObjectsError> {
        for key in &self.settings.manifests {
            self.put_whole(key, &format!("manifest {key}"), bytes.to_vec())
                .await?;
        }
        Ok(())
    }

    pub(super) async fn manifests(&self, limit_bytes: u64) -> Result<Vec<Vec<u8>>, ObjectsError> {
        let mut manifests = Vec::new();
        for key in &self.settings.manifests {
            let what = format!("manifest {key}");
            match self.read(key, &what, 0).await {
                Ok(response) => manifests.push(self.wire.body(&what, response, limit_bytes).await?),
                Err(ObjectsError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(manifests)
    }

    pub(super) async fn get(&self, blob: &Digest, offset: u64) -> Result<Response, ObjectsError> {
        self.read(&self.key(blob), &format!("blob {blob}"), offset).await
    }

    async fn read(&self, key: &str, what: &str, offset: u64) -> Result<Response, ObjectsError> {
        let url = self.settings.bucket.get_object(self.credentials(), key);
        let call = Call::new(what, Method::GET, url.sign(SIGNED_FOR)).starting_at(offset);
        self.wire.expect(&call).await
    }
}
