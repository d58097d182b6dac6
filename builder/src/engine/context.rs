//! Docker's contexts: names that people gave to engines, and where these are. Only read.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::EngineError;
use super::place::Place;
use crate::options::Environment;
use crate::registry::Tls;

/// Largest file of Docker's that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The name of what is no context: the variables, or the usual socket.
const DEFAULT: &str = "default";

/// Returns the context that Docker's own client would use, where there is one.
pub(super) fn current(environment: &Environment) -> Option<String> {
    let name = match environment.var("DOCKER_CONTEXT") {
        Some(name) => name.to_owned(),
        None => {
            let config = read(&directory(environment)?.join("config.json")).ok()?;
            config.get("currentContext")?.as_str()?.to_owned()
        }
    };
    (name != DEFAULT && !name.is_empty()).then_some(name)
}

/// Says where the engine of a context is.
pub(super) fn place(name: &str, environment: &Environment) -> Result<Place, EngineError> {
    let failed = |why: String| EngineError::Context {
        name: name.to_owned(),
        why,
    };
    let directory = directory(environment).ok_or_else(|| failed("HOME is not set".to_owned()))?;
    let key = cache::digest::hex(&Sha256::digest(name.as_bytes()));
    let facts = read(&directory.join("contexts/meta").join(&key).join("meta.json"));
    let facts = facts.map_err(|why| failed(format!("{why}; `docker context ls` lists those there are")))?;
    let endpoint = facts.pointer("/Endpoints/docker");
    let host = endpoint.and_then(|endpoint| endpoint.get("Host")?.as_str());
    let host = host.ok_or_else(|| failed("it doesn't say where its engine is".to_owned()))?;
    let is_unverified = endpoint.and_then(|endpoint| endpoint.get("SkipTLSVerify")?.as_bool());
    let tls = tls(&directory.join("contexts/tls").join(&key).join("docker"));
    let tls = tls.map(|tls| Tls {
        is_unverified: is_unverified == Some(true),
        ..tls
    });
    Place::parse(host, tls, &format!("Docker's context `{name}`"))
}

/// Returns the certificates of a directory, as Docker calls them; `None` where there are none.
pub(super) fn tls(directory: &Path) -> Option<Tls> {
    let file = |name: &str| Some(directory.join(name)).filter(|path| path.is_file());
    let tls = Tls {
        is_unverified: false,
        authorities: file("ca.pem").into_iter().collect(),
        identity: file("cert.pem").zip(file("key.pem")),
    };
    (tls != Tls::default()).then_some(tls)
}

/// Returns the directory of Docker's client.
pub(super) fn directory(environment: &Environment) -> Option<PathBuf> {
    let home = || Some(Path::new(environment.var("HOME")?).join(".docker"));
    environment.var("DOCKER_CONFIG").map(PathBuf::from).or_else(home)
}

fn read(path: &Path) -> Result<Value, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| failed(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(&error))
}
