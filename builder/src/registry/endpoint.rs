//! One host that has a repository: makes a request of it with the credentials that it wants, and follows redirects.
//!
//! Credentials are bound to the host's origin and are never sent to another; a token is renewed once when it is
//! refused. Trying again what failed is `client`'s. Spec: OCI distribution-spec; distribution, "Token Authentication".

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::auth::{self, Challenge, Scope, TokenRequest};
use super::client::header;
use super::config::{Host, Settings};
use super::credentials::Credentials;
use super::error::ImageError;
use super::tokens;
use super::transport;
use crate::runtime::blocking;

const MAX_REDIRECTS: usize = 10;

/// What a request is for.
#[derive(Debug, Clone)]
pub(crate) enum Target<'a> {
    /// Below `/v2/<repository>/`.
    Path(&'a str),
    /// An address that the registry has named, such as that of an upload.
    Url(Url),
}

/// One request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) target: Target<'a>,
    /// Without `Authorization`, which is the endpoint's.
    pub(crate) headers: HeaderMap,
    /// Makes the body; asked again for each time that it has to be sent.
    pub(crate) body: Option<&'a (dyn Fn() -> Body + Sync)>,
    /// What the credentials must allow.
    pub(crate) scope: Scope,
    /// The request may be made again when its answer was lost, or was one that may pass.
    pub(crate) is_repeatable: bool,
}

impl<'a> Call<'a> {
    /// Makes a request without headers and body, that may be repeated.
    pub(crate) fn new(method: Method, target: Target<'a>, scope: Scope) -> Self {
        Self {
            method,
            target,
            headers: HeaderMap::new(),
            body: None,
            scope,
            is_repeatable: true,
        }
    }
}

/// What is to be sent as `Authorization` for a scope, and what a registry has asked for.
#[derive(Debug, Default)]
struct Authorized {
    challenge: Option<Challenge>,
    by_scope: Vec<(Scope, HeaderValue)>,
}

/// A host, seen from one repository.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// What errors are about: the image, as people know it.
    subject: String,
    host: Host,
    /// `<scheme>://<host>/v2/<repository>/`.
    base: Url,
    settings: Arc<Settings>,
    authorized: Mutex<Authorized>,
    /// Held while credentials are exchanged for a token, so that this happens once for all who wait for it.
    renewal: tokio::sync::Mutex<()>,
}

impl Endpoint {
    /// Returns the way to a repository of `host`, or to the host alone where it names none. Connects to nothing yet.
    pub(crate) fn new(subject: String, host: Host, settings: &Arc<Settings>) -> Result<Self, ImageError> {
        let scheme = if host.is_plain { "http" } else { "https" };
        let slash = if host.repository.is_empty() { "" } else { "/" };
        let base = Url::parse(&format!(
            "{scheme}://{}/v2/{}{slash}",
            host.address, host.repository
        ))
        .map_err(|error| ImageError::Setup(error.to_string()))?;
        Ok(Self {
            subject,
            host,
            base,
            settings: Arc::clone(settings),
            authorized: Mutex::default(),
            renewal: tokio::sync::Mutex::default(),
        })
    }

    /// Returns the address below which the repository lies.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Sends once, and once more with new credentials where the registry wants some. The outer error is final, the
    /// inner one may pass.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Result<Response, reqwest::Error>, ImageError> {
        let mut authorization = match self.known(&call.scope) {
            (None, Some(challenge)) => self.renew(&challenge, &call.scope, None).await?,
            (authorization, _) => authorization,
        };
        let mut has_renewed = false;
        loop {
            let response = match self.follow(call, authorization.as_ref()).await? {
                Ok(response) => response,
                Err(error) => return Ok(Err(error)),
            };
            let is_ours = response.url().origin() == self.base.origin();
            if response.status() != StatusCode::UNAUTHORIZED || !is_ours || has_renewed {
                return Ok(Ok(response));
            }
            has_renewed = true;
            let Some(challenge) = offered(response.headers()) else {
                return Err(self.denied(&call.scope));
            };
            authorization = self
                .renew(&challenge, &call.scope, authorization.as_ref())
                .await?;
        }
    }

    /// Follows redirects; `authorization` is sent to the endpoint's own origin only, and not when somebody else has sent
    /// us back there.
    async fn follow(
        &self,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Result<Response, reqwest::Error>, ImageError> {
        let mut url = match &call.target {
            Target::Path(path) => self
                .base
                .join(path)
                .map_err(|error| self.answer(format!("an address that is none: {error}")))?,
            Target::Url(url) if self.may_be_sent_to(url) => url.clone(),
            Target::Url(_) => {
                return Err(self.answer("an unprotected address, which is refused".to_owned()));
            }
        };
        let mut is_ours = true;
        for _ in 0..MAX_REDIRECTS {
            is_ours &= url.origin() == self.base.origin();
            let client = transport::client(&url, self.tls_for(&url))?;
            let mut request = client
                .request(call.method.clone(), url.clone())
                .headers(call.headers.clone());
            if let Some(body) = call.body {
                request = request.body(body());
            }
            if let Some(value) = authorization.filter(|_| is_ours) {
                request = request.header(AUTHORIZATION, value.clone());
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => return Ok(Err(error)),
            };
            // The old kinds may turn a request into a `GET`, so only what reads follows them.
            let is_redirect = match response.status().as_u16() {
                307 | 308 => true,
                301..=303 => matches!(call.method, Method::GET | Method::HEAD),
                _ => false,
            };
            if !is_redirect {
                return Ok(Ok(response));
            }
            let target = header(response.headers(), LOCATION.as_str())
                .and_then(|target| url.join(&target).ok())
                .ok_or_else(|| self.answer("a redirect to nowhere".to_owned()))?;
            if !self.may_be_sent_to(&target) {
                return Err(self.answer("a redirect to an unprotected address, which is refused".to_owned()));
            }
            url = target;
        }
        Err(self.answer(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Says whether the registry may send us to an address: to a protected one always, to another only if it is one
    /// itself, and then to itself or to this machine.
    fn may_be_sent_to(&self, url: &Url) -> bool {
        let is_near = url.host_str().is_some_and(auth::is_loopback) || url.host_str() == self.base.host_str();
        match url.scheme() {
            "https" => true,
            "http" => self.base.scheme() == "http" && is_near,
            _ => false,
        }
    }

    /// What the configuration says about trust is about the host itself, not about where it sends us.
    fn tls_for(&self, url: &Url) -> &transport::Tls {
        static ORDINARY: transport::Tls = transport::Tls {
            is_unverified: false,
            authorities: Vec::new(),
            identity: None,
        };
        if url.host_str() == self.base.host_str() {
            &self.host.tls
        } else {
            &ORDINARY
        }
    }

    fn known(&self, scope: &Scope) -> (Option<HeaderValue>, Option<Challenge>) {
        let authorized = self.authorized.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = authorized.by_scope.iter();
        let value = known.find(|(other, _)| other == scope);
        (
            value.map(|(_, value)| value.clone()),
            authorized.challenge.clone(),
        )
    }

    /// Gets what the challenge asks for, unless somebody else did meanwhile; `refused` is what the registry did not like.
    async fn renew(
        &self,
        challenge: &Challenge,
        scope: &Scope,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, ImageError> {
        let _waits = self.renewal.lock().await;
        let (current, _) = self.known(scope);
        if current.is_some() && current.as_ref() != refused {
            return Ok(current);
        }
        let credentials = self.credentials().await?;
        let value = match (challenge, credentials) {
            (Challenge::Basic, Some(Credentials::Password { user, password })) => basic(&user, &password),
            (Challenge::Basic, _) => return Err(self.denied(scope)),
            (Challenge::Bearer { .. }, Some(Credentials::Token(token))) => format!("Bearer {token}"),
            (Challenge::Bearer { realm, service }, credentials) => {
                let realm = (realm.as_str(), service.as_deref());
                let request = TokenRequest::new(&self.base, realm, &self.host.repository, scope)
                    .map_err(|why| self.answer(why))?;
                let token = self.token(&request, scope, credentials, refused).await?;
                format!("Bearer {token}")
            }
        };
        let mut value =
            HeaderValue::from_str(&value).map_err(|_| self.answer("a token that is no text".to_owned()))?;
        value.set_sensitive(true);
        if refused == Some(&value) {
            return Err(self.denied(scope));
        }
        let mut authorized = self.authorized.lock().unwrap_or_else(PoisonError::into_inner);
        authorized.challenge = Some(challenge.clone());
        authorized.by_scope.retain(|(other, _)| other != scope);
        authorized.by_scope.push((scope.clone(), value.clone()));
        Ok(Some(value))
    }

    /// Asks the realm for a token, unless the process has one that wasn't refused.
    async fn token(
        &self,
        request: &TokenRequest,
        scope: &Scope,
        credentials: Option<Credentials>,
        refused: Option<&HeaderValue>,
    ) -> Result<String, ImageError> {
        let may_be_told =
            auth::shares_site(&self.base, &request.realm) || self.host.trusts_realm(&request.realm);
        if credentials.is_some() && !may_be_told {
            return Err(self.answer(format!(
                "a token realm of another site, {}, which gets no credentials unless `realms` in registries.toml lists it",
                request.realm.host_str().unwrap_or_default()
            )));
        }
        let answer = tokens::get(request, credentials, self.tls_for(&request.realm), refused).await;
        answer.map_err(|error| match error {
            tokens::TokenError::Denied => self.denied(scope),
            tokens::TokenError::Answer(answer) => self.answer(answer),
            tokens::TokenError::Unreachable(reason) => ImageError::Unreachable {
                reference: self.subject.clone(),
                host: request.realm.authority().to_owned(),
                reason,
            },
            tokens::TokenError::Client(error) => error,
        })
    }

    /// Looks up what this host gets from us. Runs a credential helper where one is configured.
    async fn credentials(&self) -> Result<Option<Credentials>, ImageError> {
        let (settings, host) = (Arc::clone(&self.settings), self.host.clone());
        blocking(move || Ok(settings.credentials(&host.credentials_key, &host.repository)?)).await
    }

    /// Words a refusal.
    pub(crate) fn denied(&self, scope: &Scope) -> ImageError {
        let action = match scope {
            Scope::Login => {
                return ImageError::LoginRefused {
                    host: self.subject.clone(),
                };
            }
            Scope::Pull => "pull",
            Scope::Push | Scope::Mount { .. } => "push",
        };
        ImageError::Denied {
            action,
            reference: self.subject.clone(),
            host: self.host.credentials_key.clone(),
        }
    }

    /// Words an answer that no registry may give.
    pub(crate) fn answer(&self, answer: String) -> ImageError {
        ImageError::Answer {
            reference: self.subject.clone(),
            answer,
        }
    }
}

/// Returns the challenge that suits us best: a bearer one where several are offered.
fn offered(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    let challenges: Vec<Challenge> = values
        .filter_map(|value| auth::challenge(value.to_str().ok()?))
        .collect();
    let bearer = challenges
        .iter()
        .find(|challenge| **challenge != Challenge::Basic);
    bearer.or(challenges.first()).cloned()
}

/// Returns the value of `Authorization` for a name and a password. Spec: RFC 7617.
pub(super) fn basic(user: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {pair}")
}
