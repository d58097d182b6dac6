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
    /// PEM files of authorities: trusted besides the system's by registries' clients, instead of them by engines'.
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
        None => without_tls(builder),
        Some(tls) => trust(builder, tls, Authorities::BesidesTheSystems)?,
    };
    builder
        .build()
        .map_err(|error| ImageError::Setup(error.to_string()))
}

/// Makes a client for a container engine: behind a socket, or at an address of somebody who is trusted in this way or,
/// with plain HTTP, not at all. Nothing it does ends by itself: loading takes an engine as long as it takes.
pub(crate) fn engine_client(socket: Option<&Path>, tls: Option<&Tls>) -> Result<Client, ImageError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only()
        .no_proxy();
    if let Some(path) = socket {
        builder = builder.unix_socket(path);
    }
    builder = match tls {
        None => without_tls(builder),
        Some(tls) if tls.authorities.is_empty() => trust(builder, tls, Authorities::BesidesTheSystems)?,
        // As Docker's client does: whoever names who vouches for an engine wants nobody else to.
        Some(tls) => trust(builder, tls, Authorities::Alone)?,
    };
    let built = builder.build();
    built.map_err(|error| ImageError::Setup(error.to_string()))
}

/// Trusts nobody, which needs no certificates to be loaded.
fn without_tls(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder.tls_backend_preconfigured(
        rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    )
}

/// Who else is trusted than the authorities that are named.
enum Authorities {
    BesidesTheSystems,
    Alone,
}

fn trust(
    mut builder: reqwest::ClientBuilder,
    tls: &Tls,
    named: Authorities,
) -> Result<reqwest::ClientBuilder, ImageError> {
    let broken = |path: &Path, why: &reqwest::Error| {
        ImageError::Setup(format!("{} holds no usable certificate: {why}", path.display()))
    };
    for path in &tls.authorities {
        let certificates = Certificate::from_pem_bundle(&read_pem(path)?).map_err(|e| broken(path, &e))?;
        builder = match named {
            Authorities::BesidesTheSystems => builder.tls_certs_merge(certificates),
            Authorities::Alone => builder.tls_certs_only(certificates),
        };
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
