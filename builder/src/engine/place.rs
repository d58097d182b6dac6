//! Where engines are: variables, Docker's contexts, the usual sockets, and Podman's program. The first that answers is it;
//! one that was named is it, whether it answers or not.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::{EngineError, context};
use crate::options::Environment;
use crate::registry::Tls;
use crate::sandbox::userns::{Namespace, program_in_path};

/// What people see of the place of an engine.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
const PODMAN_SOCKET: &str = "/run/podman/podman.sock";

/// Which engine an image is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The one that is there; Docker, where both are.
    Any,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// The one of this context of Docker's.
    Context(String),
}

/// How an engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Its API, behind a socket.
    Socket(PathBuf),
    /// Its API, at an address.
    Network {
        /// Scheme, host and port.
        base: String,
        /// Who is trusted there; `None` for plain HTTP.
        tls: Option<Tls>,
    },
    /// Podman's program.
    Program(PathBuf),
}

/// An engine that seems to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    name: &'static str,
    pub(super) place: Place,
}

impl Engine {
    /// Returns what people call it, and where it is.
    pub(crate) fn title(&self) -> String {
        match &self.place {
            Place::Socket(path) => format!("{} at {}", self.name, path.display()),
            Place::Network { base, .. } => format!("{} at {base}", self.name),
            Place::Program(path) => path.display().to_string(),
        }
    }
}

impl Place {
    /// Reads an address as Docker's and Podman's variables have it. `from` says where it stands.
    pub(super) fn parse(address: &str, tls: Option<Tls>, from: &str) -> Result<Self, EngineError> {
        let bad = |why: &str| EngineError::Address {
            from: from.to_owned(),
            address: address.to_owned(),
            why: why.to_owned(),
        };
        if let Some(path) = address.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Socket(path.into())),
                false => Err(bad("the path of a socket begins with /")),
            };
        }
        let (host, secure) = match address.split_once("://") {
            Some(("tcp", host)) => (host, tls.is_some()),
            Some(("http", host)) => (host, false),
            Some(("https", host)) => (host, true),
            Some(("ssh", _)) => {
                return Err(bad(
                    "for an engine behind ssh, `ashlar save NAME | ssh HOST docker load` does it",
                ));
            }
            _ => return Err(bad("expected unix://PATH or tcp://HOST:PORT")),
        };
        let scheme = if secure { "https" } else { "http" };
        let mut url = Url::parse(&format!("{scheme}://{host}")).map_err(|error| bad(&error.to_string()))?;
        if url.port().is_none() && address.starts_with("tcp://") {
            let port = if secure { 2376 } else { 2375 };
            url.set_port(Some(port)).map_err(|()| bad("it has no port"))?;
        }
        Ok(Self::Network {
            base: url.as_str().trim_end_matches('/').to_owned(),
            tls: secure.then(|| tls.unwrap_or_default()),
        })
    }

    /// Says why nobody can be there, as far as that is known without speaking.
    fn trouble(&self) -> Option<String> {
        match self {
            Self::Socket(path) => UnixStream::connect(path).err().map(|error| error.to_string()),
            Self::Network { .. } | Self::Program(_) => None,
        }
    }
}

/// Finds the engine to load into.
pub(crate) fn find(wanted: &Wanted, environment: &Environment) -> Result<Engine, EngineError> {
    if let Some(engine) = named(wanted, environment)? {
        return match engine.place.trouble() {
            Some(why) => Err(EngineError::Unreachable {
                engine: engine.title(),
                why,
            }),
            None => Ok(engine),
        };
    }
    let mut tried = Vec::new();
    for engine in usual(wanted, environment) {
        match engine.place.trouble() {
            None => return Ok(engine),
            Some(why) => tried.push(format!("{}: {why}", engine.title())),
        }
    }
    if *wanted != Wanted::Docker {
        match program_in_path("podman") {
            // It would take the namespace for the machine, and look for its images in root's place.
            Some(program) if !Namespace::current().is_initial() => {
                return Err(EngineError::Namespace { program });
            }
            Some(program) => {
                let (name, place) = (PODMAN, Place::Program(program));
                return Ok(Engine { name, place });
            }
            None => tried.push("podman is not in PATH".to_owned()),
        }
    }
    Err(EngineError::Nowhere { tried })
}

const DOCKER: &str = "Docker";
const PODMAN: &str = "Podman";

/// Returns the engine that variables or a context name.
fn named(wanted: &Wanted, environment: &Environment) -> Result<Option<Engine>, EngineError> {
    let docker = |place| Ok(Some(Engine { name: DOCKER, place }));
    if let Wanted::Context(name) = wanted {
        return docker(context::place(name, environment)?);
    }
    if *wanted != Wanted::Podman {
        if let Some(host) = environment.var("DOCKER_HOST") {
            let is_secure = ["DOCKER_TLS_VERIFY", "DOCKER_TLS"].map(|name| environment.var(name).is_some());
            let tls = is_secure
                .contains(&true)
                .then(|| certificates(environment, is_secure[0]));
            let tls = tls.transpose()?;
            return docker(Place::parse(host, tls, "DOCKER_HOST")?);
        }
        if let Some(name) = context::current(environment) {
            return docker(context::place(&name, environment)?);
        }
    }
    match environment.var("CONTAINER_HOST") {
        Some(host) if *wanted != Wanted::Docker => Ok(Some(Engine {
            name: PODMAN,
            place: Place::parse(host, None, "CONTAINER_HOST")?,
        })),
        _ => Ok(None),
    }
}

/// Finds the certificates of `$DOCKER_CERT_PATH` or of Docker's directory. One that was named to verify an engine by has what
/// that takes.
fn certificates(environment: &Environment, is_verified: bool) -> Result<Tls, EngineError> {
    let named = environment.var("DOCKER_CERT_PATH").map(PathBuf::from);
    let directory = named.clone().or_else(|| context::directory(environment));
    let found = directory.and_then(|directory| context::tls(&directory));
    let tls = Tls {
        is_unverified: !is_verified,
        ..found.unwrap_or_default()
    };
    match named.filter(|_| is_verified && tls.authorities.is_empty()) {
        Some(directory) => Err(EngineError::Certificates { directory }),
        None => Ok(tls),
    }
}

/// Lists where engines are when nobody says otherwise, an ordinary user's own first.
fn usual(wanted: &Wanted, environment: &Environment) -> Vec<Engine> {
    let own = |below: &str| Some(Path::new(environment.var("XDG_RUNTIME_DIR")?).join(below));
    let docker = [own("docker.sock"), Some(DOCKER_SOCKET.into())];
    let podman = [own("podman/podman.sock"), Some(PODMAN_SOCKET.into())];
    let engines = |name: &'static str, paths: [Option<PathBuf>; 2]| {
        let paths = paths.into_iter().flatten();
        paths.map(move |path| Engine {
            name,
            place: Place::Socket(path),
        })
    };
    match wanted {
        Wanted::Docker => engines(DOCKER, docker).collect(),
        Wanted::Podman => engines(PODMAN, podman).collect(),
        _ => engines(DOCKER, docker).chain(engines(PODMAN, podman)).collect(),
    }
}
