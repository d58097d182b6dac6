//! One request: sent, sent again where that may help, and what an unwelcome answer means.
//!
//! Addresses carry signatures and are never shown; of a failure only the host is told.

use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::ObjectsError;
use crate::registry::{Retry, Tls, capped, client, is_passing, reason, retry_after};

/// Most bytes of an answer that is looked at for words.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// Whom requests are made to.
#[derive(Debug)]
pub(super) struct Wire {
    /// What the user named.
    pub(super) title: String,
    pub(super) retry: Retry,
    /// How long a place may say that there is too much to do before that is believed.
    pub(super) patience: Duration,
}

/// One request.
#[derive(Debug)]
pub(super) struct Call {
    /// What it is about, for people.
    pub(super) what: String,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
}

impl Call {
    pub(super) fn new(what: impl Into<String>, method: Method, url: Url) -> Self {
        Self {
            what: what.into(),
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
        }
    }

    pub(super) fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn with_header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Asks for what is behind `offset`.
    pub(super) fn starting_at(self, offset: u64) -> Self {
        if offset == 0 {
            return self;
        }
        let range = HeaderValue::from_str(&format!("bytes={offset}-"));
        self.with_header("range", range.expect("because a number is plain text"))
    }
}

impl Wire {
    /// Sends a request until it is answered with something else than a passing failure; Ok is whatever that is.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, ObjectsError> {
        let client = client(&call.url, &Tls::default())?;
        let begun = Instant::now();
        let mut left = self.retry.patience();
        let answer = loop {
            let mut request = client
                .request(call.method.clone(), call.url.clone())
                .headers(call.headers.clone());
            if let Some(body) = &call.body {
                request = request.body(Body::from(body.clone()));
            }
            let answer = request.send().await;
            let wait = match &answer {
                Ok(response) if is_passing(response.status()) => retry_after(response.headers()),
                Ok(_) => break answer,
                Err(_) => None,
            };
            if left.is_left(wait).await {
                continue;
            }
            let is_busy =
                matches!(&answer, Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS);
            if !is_busy || begun.elapsed() > self.patience {
                break answer;
            }
            left.renew();
            left.is_left(wait).await;
        };
        answer.map_err(|error| unreachable(&self.title, &error))
    }

    /// Sends a request that is to succeed.
    pub(super) async fn expect(&self, call: &Call) -> Result<Response, ObjectsError> {
        let response = self.send(call).await?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refusal(&call.what, response).await),
        }
    }

    /// Turns an unwelcome answer into an error, with the other side's own words where it has some.
    pub(super) async fn refusal(&self, what: &str, response: Response) -> ObjectsError {
        let status = response.status();
        let body = capped(response, MAX_ERROR_BYTES).await.ok().flatten();
        let words = body.and_then(|body| words(&String::from_utf8_lossy(&body)));
        // A bucket that isn't there is another thing than an object that isn't.
        let is_object = |words: &String| {
            ["NoSuchKey", "BlobNotFound"]
                .iter()
                .any(|code| words.starts_with(code))
        };
        if status == StatusCode::NOT_FOUND && words.as_ref().is_none_or(is_object) {
            return ObjectsError::Missing {
                place: self.title.clone(),
                what: what.to_owned(),
            };
        }
        self.refused(
            what,
            match words {
                Some(words) => format!("{status}: {words}"),
                None => status.to_string(),
            },
        )
    }

    pub(super) fn refused(&self, what: &str, answer: String) -> ObjectsError {
        ObjectsError::Refused {
            place: self.title.clone(),
            what: what.to_owned(),
            answer,
        }
    }

    /// Reads a whole small answer.
    pub(super) async fn body(
        &self,
        what: &str,
        response: Response,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, ObjectsError> {
        body(&self.title, what, response, limit_bytes).await
    }
}

/// Reads a whole answer of at most `limit_bytes`.
pub(super) async fn body(
    place: &str,
    what: &str,
    response: Response,
    limit_bytes: u64,
) -> Result<Vec<u8>, ObjectsError> {
    match capped(response, limit_bytes).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(ObjectsError::Refused {
            place: place.to_owned(),
            what: what.to_owned(),
            answer: format!("more than {limit_bytes} bytes"),
        }),
        Err(error) => Err(unreachable(place, &error)),
    }
}

pub(super) fn unreachable(place: &str, error: &reqwest::Error) -> ObjectsError {
    ObjectsError::Unreachable {
        place: place.to_owned(),
        host: error
            .url()
            .map(|url| url.authority().to_owned())
            .unwrap_or_default(),
        why: reason(error),
    }
}

/// Finds what an error document says: S3's and Azure's are XML, GitHub's are JSON.
fn words(body: &str) -> Option<String> {
    let said = match serde_json::from_str::<serde_json::Value>(body) {
        Ok(body) => body
            .get("msg")
            .or_else(|| body.get("message"))?
            .as_str()?
            .to_owned(),
        Err(_) => {
            let parts = ["Code", "Message"].map(|tag| element(body, tag));
            let parts: Vec<&str> = parts.into_iter().flatten().collect();
            parts.join(": ")
        }
    };
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(said).filter(|said| !said.is_empty())
}

/// Returns the text of the first element of a name.
pub(super) fn element<'a>(document: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{tag}>"))?;
    let (text, _) = rest.split_once(&format!("</{tag}>"))?;
    Some(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_error_are_found() {
        let check = |body: &str, expected: Option<&str>| assert_eq!(words(body).as_deref(), expected);
        check(
            r#"{"code":"permission_denied","msg":"no\u0007 way"}"#,
            Some("no way"),
        );
        check(
            "<?xml?><Error><Code>NoSuchBucket</Code><Message>It is not there</Message></Error>",
            Some("NoSuchBucket: It is not there"),
        );
        check("<html>", None);
        check("[1]", None);
        check("", None);
    }
}
