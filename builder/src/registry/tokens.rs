//! Exchanges credentials for a token of a realm, and keeps tokens for the process until shortly before they expire.
//!
//! Whether a realm may be asked at all, and may see credentials, is decided before. Time is the monotonic clock's: a
//! wrong date does no harm. Spec: distribution, "Token Authentication Specification", "OAuth2 Token Authentication".

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Response, Url};

use super::auth::TokenRequest;
use super::client::{capped, is_passing, reason, retry_after};
use super::credentials::Credentials;
use super::endpoint::basic;
use super::error::ImageError;
use super::json;
use super::patience::Retry;
use super::transport::{self, Tls};

const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// How long a token lives that doesn't say; the specification's words.
const ORDINARY_LIFE: Duration = Duration::from_secs(60);
/// A token that expires sooner than this is not used again.
const MARGIN: Duration = Duration::from_secs(5);

/// Says why there is no token.
#[derive(Debug)]
pub(super) enum TokenError {
    /// The realm does not like the credentials, or wants some.
    Denied,
    /// It answered something else.
    Answer(String),
    /// It did not answer.
    Unreachable(String),
    /// No connection can be set up.
    Client(ImageError),
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    url: Url,
    /// Says whose token it is: the secret itself, so that a new password never gets an old one's token.
    secret: String,
}

struct Known {
    token: String,
    expires: Instant,
}

/// Returns a token: a known one, unless it is what `refused` carries, else a new one.
pub(super) async fn get(
    request: &TokenRequest,
    credentials: Option<Credentials>,
    tls: &Tls,
    refused: Option<&HeaderValue>,
) -> Result<String, TokenError> {
    static KNOWN: OnceLock<Mutex<HashMap<Key, Known>>> = OnceLock::new();
    let account = match &credentials {
        Some(Credentials::Password { user, .. }) => Some(user.as_str()),
        _ => None,
    };
    let key = Key {
        url: request.url(account),
        secret: match &credentials {
            Some(Credentials::Password { password: secret, .. } | Credentials::Identity(secret)) => {
                secret.clone()
            }
            Some(Credentials::Token(_)) | None => String::new(),
        },
    };
    let known = KNOWN.get_or_init(Mutex::default);
    if let Some(found) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
        && found.expires > Instant::now() + MARGIN
        && refused.is_none_or(|value| value.as_bytes() != format!("Bearer {}", found.token).as_bytes())
    {
        return Ok(found.token.clone());
    }
    let asked = Instant::now();
    let (token, life) = ask(request, &key.url, credentials, tls).await?;
    let found = Known {
        token: token.clone(),
        expires: asked + life,
    };
    known
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key, found);
    Ok(token)
}

/// Asks the realm, with retries.
async fn ask(
    request: &TokenRequest,
    url: &Url,
    credentials: Option<Credentials>,
    tls: &Tls,
) -> Result<(String, Duration), TokenError> {
    let client = transport::client(url, tls).map_err(TokenError::Client)?;
    let mut patience = Retry::default().patience();
    loop {
        let asked = match &credentials {
            Some(Credentials::Identity(token)) => client
                .post(request.realm.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(request, token)),
            Some(Credentials::Password { user, password }) => client
                .get(url.clone())
                .header(AUTHORIZATION, basic(user, password)),
            Some(Credentials::Token(_)) | None => client.get(url.clone()),
        };
        let (error, wait) = match asked.send().await {
            Ok(response) if response.status().is_success() => return read(response).await,
            Ok(response) if !is_passing(response.status()) => {
                return Err(match response.status().as_u16() {
                    400 | 401 | 403 => TokenError::Denied,
                    status => TokenError::Answer(format!("{status} when asked for a token")),
                });
            }
            Ok(response) => {
                let said = format!("{} when asked for a token", response.status());
                (TokenError::Answer(said), retry_after(response.headers()))
            }
            Err(error) => (TokenError::Unreachable(reason(&error)), None),
        };
        if !patience.is_left(wait).await {
            return Err(error);
        }
    }
}

/// Returns the form that exchanges an identity token.
fn form(request: &TokenRequest, token: &str) -> String {
    let mut form = Url::parse("form:").expect("because it is an address");
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "ashlar")
        .extend_pairs(request.parameters.iter().filter(|(name, _)| *name == "service"))
        .append_pair("scope", &scopes(request))
        .append_pair("refresh_token", token);
    form.query().unwrap_or_default().to_owned()
}

fn scopes(request: &TokenRequest) -> String {
    let scopes = request.parameters.iter().filter(|(name, _)| *name == "scope");
    let words: Vec<&str> = scopes.map(|(_, value)| value.as_str()).collect();
    words.join(" ")
}

async fn read(response: Response) -> Result<(String, Duration), TokenError> {
    let bytes = capped(response, MAX_TOKEN_BYTES)
        .await
        .map_err(|error| TokenError::Unreachable(reason(&error)))?
        .ok_or_else(|| TokenError::Answer("an oversized token".to_owned()))?;
    let document = json::strict(&bytes)
        .map_err(|error| TokenError::Answer(format!("a token that is not JSON: {error}")))?;
    let token = ["token", "access_token"]
        .iter()
        .find_map(|name| document.get(name)?.as_str().filter(|token| !token.is_empty()))
        .ok_or_else(|| TokenError::Answer("no token".to_owned()))?;
    let life = document
        .get("expires_in")
        .and_then(serde_json::Value::as_u64)
        .map_or(ORDINARY_LIFE, Duration::from_secs);
    // A day is longer than any build; a larger number could overflow the clock.
    Ok((token.to_owned(), life.min(Duration::from_secs(86_400))))
}
