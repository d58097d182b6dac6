//! Docker's API, as Docker and Podman serve it: which images are there, what they consist of, and a load.

use std::time::Duration;

use cache::{DiffId, Digest, Store};
use frontend::Platform;
use reqwest::{Body, Client, Response, StatusCode};
use serde_json::Value;

use super::answer::{self, Line, Listed, Report};
use super::place::Place;
use super::stream::{self, Sending};
use super::{EngineError, Known, Tell, Told};
use crate::export::Shipment;
use crate::options::host_platform;
use crate::registry::{MAX_MANIFEST_BYTES, Reference, engine_client};

/// Largest answer that is read whole.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Most images that are looked into for layers in common: an engine may have thousands.
const MAX_IMAGES: usize = 256;

/// How long a question may take; a load takes as long as it takes.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// An engine that answered.
pub(super) struct Api {
    client: Client,
    /// What paths are put behind, with the version that the engine speaks.
    base: String,
    pub(super) title: String,
    is_podman: bool,
    keeps_blobs: bool,
}

impl Api {
    /// Greets an engine.
    pub(super) async fn connect(title: String, place: &Place) -> Result<Self, EngineError> {
        let (client, base) = match place {
            Place::Network { base, tls } => (engine_client(None, tls.as_ref())?, base.clone()),
            Place::Socket(path) => (engine_client(Some(path), None)?, "http://engine".to_owned()),
            Place::Program(_) => unreachable!("a program has no API"),
        };
        let mut api = Self {
            client,
            base,
            title,
            is_podman: false,
            keeps_blobs: false,
        };
        let greeting = api.ask("/_ping").await?;
        let header = |name: &str| greeting.headers().get(name)?.to_str().ok();
        api.is_podman = header("libpod-api-version").is_some();
        let is_version =
            |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if let Some(version) = header("api-version").filter(is_version) {
            api.base = format!("{}/v{version}", api.base);
        }
        if !api.is_podman {
            api.keeps_blobs = answer::keeps_blobs(&api.get("/info").await?);
        }
        Ok(api)
    }

    /// Says whether it is Podman that speaks Docker's language.
    pub(super) fn is_podman(&self) -> bool {
        self.is_podman
    }

    /// Gives an image one more name.
    pub(super) async fn tag(&self, id: &Digest, name: &Reference) -> Result<(), EngineError> {
        // Nothing in a name has a meaning in a query.
        let (repository, tag) = (name.familiar_name(), name.tag().unwrap_or("latest"));
        let query = format!("repo={repository}&tag={tag}");
        let request = self
            .client
            .post(format!("{}/images/{}/tag?{query}", self.base, id.hex()));
        let answer = request.timeout(ANSWER_TIME).send().await;
        self.accepted(answer.map_err(|error| self.unreachable(&error))?)
            .await
            .map(drop)
    }

    /// Says whether the engine keeps images as registries do: then a layer is there only if its very blob is.
    pub(super) fn keeps_blobs(&self) -> bool {
        self.keeps_blobs
    }

    /// Returns what the engine's machine is; this one's platform where it doesn't say.
    pub(super) async fn platform(&self) -> Result<Platform, EngineError> {
        Ok(answer::platform(&self.get("/info").await?).unwrap_or_else(host_platform))
    }

    /// Returns how many of the image's layers, from the base on, the engine has, for each platform.
    pub(super) async fn known(&self, store: &Store, shipment: &Shipment) -> Result<Vec<usize>, EngineError> {
        let listed = self.images(shipment).await?;
        let mut known = Known::new(shipment);
        for image in listed.iter().take(MAX_IMAGES) {
            match self.keeps_blobs {
                true => image.manifests().for_each(|id| {
                    known.learn(&blobs_of(store, id), shipment, |part| {
                        part.blobs().copied().collect()
                    })
                }),
                false => known.learn(&self.layers_of(&image.id).await?, shipment, |part| {
                    part.layers().to_vec()
                }),
            }
            if known.is_all(shipment) {
                break;
            }
        }
        Ok(known.0)
    }

    /// Says whether the engine lacks blobs of an image that it has taken: one that keeps images as registries do takes any.
    pub(super) async fn lacks_some(&self, shipment: &Shipment) -> Result<bool, EngineError> {
        if !self.keeps_blobs {
            return Ok(false);
        }
        let (listed, id) = (self.images(shipment).await?, shipment.top().digest.to_string());
        let mut same = listed.iter().filter(|image| image.id == id);
        Ok(same.any(Listed::is_incomplete))
    }

    async fn images(&self, shipment: &Shipment) -> Result<Vec<Listed>, EngineError> {
        let names: Vec<String> = shipment.names().iter().map(Reference::familiar).collect();
        let listed = self.get("/images/json?manifests=1").await?;
        answer::images(&listed, &names).map_err(|why| self.nonsense(why))
    }

    /// Returns the layers of an image of the engine; none where it is gone meanwhile.
    async fn layers_of(&self, id: &str) -> Result<Vec<DiffId>, EngineError> {
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b':') {
            return Err(self.nonsense(format!("an image has the ID `{}`", id.escape_debug())));
        }
        let answer = match self.get(&format!("/images/{id}/json")).await {
            Err(EngineError::Refused { .. }) => return Ok(Vec::new()),
            answer => answer?,
        };
        let image: Value =
            serde_json::from_slice(&answer).map_err(|error| self.nonsense(error.to_string()))?;
        Ok(answer::layers(&image))
    }

    /// Sends an archive, and hears what the engine makes of it.
    pub(super) async fn send(&self, sending: Sending, tell: &Tell) -> Result<(), EngineError> {
        let Sending {
            writer,
            outlet,
            total_bytes,
        } = sending;
        let body = Body::wrap_stream(stream::read(outlet, total_bytes, tell)?);
        let request = self.client.post(format!("{}/images/load?quiet=0", self.base));
        let request = request.header("content-type", "application/x-tar").body(body);
        let answer = match request.send().await {
            Ok(answer) => self.accepted(answer).await?,
            Err(error) => {
                // An archive that can't be written is the better explanation.
                writer.finish().await?;
                return Err(self.unreachable(&error));
            }
        };
        self.hear(answer, tell).await?;
        writer.finish().await
    }

    async fn hear(&self, mut answer: Response, tell: &Tell) -> Result<(), EngineError> {
        let mut report = Report::default();
        let mut refused = None;
        let mut take = |line: Line| match line {
            Line::Said(text) => tell(Told::Said(text)),
            Line::Refused(said) => refused = refused.take().or(Some(said)),
            Line::Other => {}
        };
        while let Some(piece) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            let lines = report.push(&piece).map_err(|why| self.nonsense(why))?;
            lines.into_iter().for_each(&mut take);
        }
        take(report.finish().map_err(|why| self.nonsense(why))?);
        match refused {
            Some(said) => Err(self.refused(said)),
            None => Ok(()),
        }
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, EngineError> {
        let answer = self.ask(path).await?;
        self.whole(answer).await
    }

    async fn ask(&self, path: &str) -> Result<Response, EngineError> {
        let request = self
            .client
            .get(format!("{}{path}", self.base))
            .timeout(ANSWER_TIME);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.accepted(answer).await
    }

    async fn accepted(&self, answer: Response) -> Result<Response, EngineError> {
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED => Ok(answer),
            status => {
                let body = self.whole(answer).await?;
                Err(self.refused(match answer::refusal(&body) {
                    said if said.is_empty() => status.to_string(),
                    said => said,
                }))
            }
        }
    }

    async fn whole(&self, mut answer: Response) -> Result<Vec<u8>, EngineError> {
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(self.nonsense(format!("it has more than {MAX_ANSWER_BYTES} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn refused(&self, said: String) -> EngineError {
        EngineError::Refused {
            engine: self.title.clone(),
            said,
        }
    }

    fn nonsense(&self, why: String) -> EngineError {
        EngineError::Answer {
            engine: self.title.clone(),
            why,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> EngineError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        EngineError::Unreachable {
            engine: self.title.clone(),
            why: cause.to_string(),
        }
    }
}

/// Returns the blobs of an image that such an engine has, where this store knows its manifest: from a load, or from the
/// same registry.
fn blobs_of(store: &Store, id: &str) -> Vec<Digest> {
    let manifest = id.parse().ok().filter(|id| store.blobs().contains(id));
    let manifest = manifest.and_then(|id| store.blobs().read(&id, MAX_MANIFEST_BYTES).ok());
    manifest.map_or_else(Vec::new, |bytes| answer::blobs(&bytes))
}
