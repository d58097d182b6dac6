//! HTTP clients: one per way of trusting the other side, made when first needed and kept for the process.
//!
//! Proxies are those of the environment (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`), except to this machine. Redirects
//! and retries are their users' business.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, Url};

use super::auth::is_loopback;
use super::error::ImageError;

/// Largest file of certificates or keys that is read.
const MAX_PEM_BYTES: u64 = 4 << 20;
/// How long the other side may say nothing; tests have less patience.
const READ_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 4 } else { 60 });

/// How the other side of a TLS connection proves who it is, and we to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// Any certificate will do: somebody asked for that.
    pub(crate) is_unverified: bool,
    /// PEM files of authorities that are trusted besides the system's.
    pub(crate) authorities: Vec<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// Which client.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    /// `None` for plain HTTP.
    tls: Option<Tls>,
    is_here: bool,
}

/// Returns the process's HTTP client for an address. The one for plain HTTP never loads certificates, which takes
/// longer than the request; it trusts nobody, so a TLS connection made with it by mistake fails.
pub(crate) fn client(url: &Url, tls: &Tls) -> Result<Client, ImageError> {
    static CLIENTS: OnceLock<Mutex<HashMap<Kind, Client>>> = OnceLock::new();
    let kind = Kind {
        tls: (url.scheme() != "http").then(|| tls.clone()),
        is_here: url.host_str().is_some_and(is_loopback),
    };
    let clients = CLIENTS.get_or_init(Mutex::default);
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = clients.get(&kind) {
        return Ok(client.clone());
    }
    let client = build(&kind)?;
    clients.insert(kind, client.clone());
    Ok(client)
}

fn build(kind: &Kind) -> Result<Client, ImageError> {
    // Somebody else's having installed it already is just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(Duration::from_secs(15))
        .read_timeout(READ_TIMEOUT);
    if kind.is_here {
        builder = builder.no_proxy();
    }
    builder = match &kind.tls {
        None => builder.tls_backend_preconfigured(
            rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        ),
        Some(tls) => trust(builder, tls)?,
    };
    builder
        .build()
        .map_err(|error| ImageError::Setup(error.to_string()))
}

fn trust(mut builder: reqwest::ClientBuilder, tls: &Tls) -> Result<reqwest::ClientBuilder, ImageError> {
    let broken = |path: &Path, why: &reqwest::Error| {
        ImageError::Setup(format!("{} holds no usable certificate: {why}", path.display()))
    };
    for path in &tls.authorities {
        let certificates = Certificate::from_pem_bundle(&read_pem(path)?).map_err(|e| broken(path, &e))?;
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some((certificate, key)) = &tls.identity {
        let mut pem = read_pem(certificate)?;
        pem.push(b'\n');
        pem.extend(read_pem(key)?);
        builder = builder.identity(Identity::from_pem(&pem).map_err(|e| broken(certificate, &e))?);
    }
    Ok(builder.tls_danger_accept_invalid_certs(tls.is_unverified))
}

fn read_pem(path: &Path) -> Result<Vec<u8>, ImageError> {
    super::config::read_capped(path, MAX_PEM_BYTES)?
        .ok_or_else(|| ImageError::Setup(format!("{} is not there", path.display())))
}
