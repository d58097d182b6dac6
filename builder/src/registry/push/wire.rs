//! Requests of a push: with a body that can be sent again, retried where that is safe, and what the answers mean.
//!
//! Whether a part of an upload arrived is not decided here. Spec: OCI distribution-spec, "Push".

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::error::PushError;
use crate::registry::auth::Scope;
use crate::registry::client::capped;
use crate::registry::endpoint::{Call, Target};
use crate::registry::{ImageError, Session, header, is_passing, retry_after};

/// Most bytes that are read of a refusal.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// One repository being written.
#[derive(Debug)]
pub(super) struct Wire<'a> {
    pub(super) session: &'a Session,
}

/// Makes a request for something in the repository, or at an address that the registry named.
pub(super) fn call(method: Method, target: Target<'_>) -> Call<'_> {
    Call::new(method, target, Scope::Push)
}

/// Gives a request a body.
pub(super) fn with_body<'a>(
    mut call: Call<'a>,
    media_type: &str,
    body: &'a (dyn Fn() -> Body + Sync),
) -> Call<'a> {
    let media_type = media_type
        .parse()
        .expect("because our media types are plain words");
    call.headers.insert(CONTENT_TYPE, media_type);
    call.body = Some(body);
    call
}

/// What came of a request that was sent once.
pub(super) enum Sent {
    /// An answer, whatever it says; not one that a later request may turn into another.
    Answered(Response),
    /// No answer, or one for now only.
    Broken {
        reason: String,
        wait: Option<std::time::Duration>,
    },
}

impl Wire<'_> {
    /// Returns where an answer says to go on.
    pub(super) fn location(&self, response: &Response) -> Result<Url, PushError> {
        let base = response.url();
        let next = header(response.headers(), LOCATION.as_str()).and_then(|text| base.join(&text).ok());
        let mut next =
            next.ok_or_else(|| self.refused("an upload", "it named no place to upload to".to_owned()))?;
        let same_host = next.host_str() == base.host_str() && next.port() == base.port();
        if base.scheme() == "https" && next.scheme() == "http" && same_host {
            // A registry behind a proxy that speaks TLS for it doesn't know its own address.
            next.set_scheme("https")
                .expect("because both schemes are of the web");
        }
        Ok(next)
    }

    /// Sends once.
    pub(super) async fn once(&self, mut call: Call<'_>) -> Result<Sent, PushError> {
        call.is_repeatable = false;
        match self.session.send(&call).await {
            Ok(response) if is_passing(response.status()) => {
                let wait = retry_after(response.headers());
                let reason = words(response).await;
                Ok(Sent::Broken { reason, wait })
            }
            Ok(response) => Ok(Sent::Answered(response)),
            Err(ImageError::Unreachable { reason, .. }) => Ok(Sent::Broken { reason, wait: None }),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what may be sent again until it is answered for good. `what` is what it is about.
    pub(super) async fn send(&self, call: Call<'_>, what: &str) -> Result<Response, PushError> {
        let response = self.session.send(&call).await?;
        match is_passing(response.status()) {
            true => Err(self.interrupted(what, words(response).await)),
            false => Ok(response),
        }
    }

    /// Words an answer that says no.
    pub(super) async fn refusal(&self, what: &str, response: Response) -> PushError {
        let status = response.status();
        let answer = words(response).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PushError::Denied {
                reference: self.session.reference().familiar(),
                answer,
            },
            _ => self.refused(what, answer),
        }
    }

    pub(super) fn refused(&self, what: &str, answer: String) -> PushError {
        PushError::Refused {
            reference: self.session.reference().familiar(),
            what: what.to_owned(),
            answer,
        }
    }

    pub(super) fn interrupted(&self, what: &str, reason: String) -> PushError {
        PushError::Interrupted {
            reference: self.session.reference().familiar(),
            what: what.to_owned(),
            reason,
        }
    }
}

/// Returns the status of an answer with the registry's own words, where it has some.
async fn words(response: Response) -> String {
    let status = response.status();
    let body = capped(response, MAX_ERROR_BYTES)
        .await
        .ok()
        .flatten()
        .unwrap_or_default();
    let said: Option<String> = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|body| Some(body.get("errors")?.get(0)?.get("message")?.as_str()?.to_owned()));
    match said {
        Some(said) => {
            let said = said.chars().filter(|c| !c.is_control()).take(300);
            format!("{status}: {}", said.collect::<String>())
        }
        None => status.to_string(),
    }
}
