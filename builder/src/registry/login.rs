//! Logging in and out: a login is tried before it is kept.
//!
//! Where it is kept is `credentials`' business; what people type and read is the command's.

use std::sync::Arc;

use reqwest::{Method, StatusCode};

use super::auth::Scope;
use super::client::reason;
use super::config::Settings;
use super::credentials::{Credentials, Kept};
use super::endpoint::{Call, Endpoint, Target};
use super::error::ImageError;
use super::reference::{Reference, ReferenceError};
use crate::runtime::blocking;

/// Returns the registry that a word names, as references write it: without a scheme and a path.
pub(crate) fn registry_of(word: &str) -> Result<String, ReferenceError> {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| word.strip_prefix(scheme));
    let host = rest.unwrap_or(word).split('/').next().unwrap_or_default();
    let named = Reference::parse(&format!("{host}/x"))?;
    let domain = named.domain();
    if domain == host || (domain == "docker.io" && host == "index.docker.io") {
        return Ok(domain.to_owned());
    }
    Err(ReferenceError::Format(word.chars().take(300).collect()))
}

/// Tries a login at a registry and keeps it. Ok is where.
pub(crate) async fn log_in(registry: &str, user: &str, secret: &str) -> Result<Kept, ImageError> {
    let settings = Settings::of_process()?;
    let password = Credentials::Password {
        user: user.to_owned(),
        password: secret.to_owned(),
    };
    let trying = Arc::new(settings.trying(password));
    let endpoint = Endpoint::new(registry.to_owned(), trying.host(registry, "")?, &trying)?;
    let call = Call::new(Method::GET, Target::Path(""), Scope::Login);
    let answer = endpoint.send(&call).await?;
    let response = answer.map_err(|error| ImageError::Unreachable {
        reference: registry.to_owned(),
        host: endpoint.base().authority().to_owned(),
        reason: reason(&error),
    })?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(endpoint.denied(&Scope::Login)),
        status => return Err(endpoint.answer(status.to_string())),
    }
    let (registry, user, secret) = (registry.to_owned(), user.to_owned(), secret.to_owned());
    blocking(move || {
        let file = settings.credential_files().writable()?;
        file.keep(&registry, &user, &secret)
    })
    .await
    .map_err(ImageError::from)
}

/// What logging out has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LoggedOut {
    /// There was a login, and it is gone.
    pub(crate) was_in: bool,
    /// Other files that still have one, and are other programs'.
    pub(crate) elsewhere: Vec<std::path::PathBuf>,
}

/// Forgets a registry's login. Blocks.
pub(crate) fn log_out(registry: &str) -> Result<LoggedOut, ImageError> {
    let settings = Settings::of_process()?;
    let files = settings.credential_files();
    let was_in = files.writable()?.forget(registry)?;
    let mut elsewhere = Vec::new();
    for file in files.all().iter().skip(1) {
        if file.find(registry, "")?.is_some() {
            elsewhere.push(file.path().to_owned());
        }
    }
    Ok(LoggedOut { was_in, elsewhere })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_as_references_name_them() {
        for (word, expected) in [
            ("docker.io", Some("docker.io")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("http://r.example:5000/v2/", Some("r.example:5000")),
            ("localhost", Some("localhost")),
            ("[::1]:5000", Some("[::1]:5000")),
            ("registry", None),
            ("", None),
            ("user@host", None),
        ] {
            assert_eq!(registry_of(word).ok().as_deref(), expected, "{word}");
        }
    }
}
