//! Container engines of this machine, Docker and Podman: which one is there, what it has of an image, and how the rest
//! gets into it.
//!
//! An engine gets a docker archive on a stream, without the layers that it says it has. One that refuses such an archive
//! gets the whole. Nothing is ever taken out of an engine here, and none is started.

mod answer;
mod api;
mod context;
mod place;
mod program;
mod stream;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cache::Store;
use frontend::Platform;

use crate::export::{ExportError, Part, Shipment};
use crate::options::host_platform;
use crate::registry::{Descriptor, ImageError, Reference};
use api::Api;
use place::Place;
pub(crate) use place::{Engine, Wanted, find};
use program::Program;

/// Says why an image didn't get into an engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// Nothing was found.
    #[error("no container engine to load the image into: {}", tried.join("; "))]
    Nowhere {
        /// What was looked at, and what was wrong with it.
        tried: Vec<String>,
    },
    /// A variable or a context says what can't be.
    #[error("{from} names an engine that can't be reached from here: `{address}`: {why}")]
    Address {
        /// Who says so.
        from: String,
        /// The address.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// A context of Docker's can't be used.
    #[error("cannot use Docker's context `{name}`: {why}")]
    Context {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
    /// Nobody is named who vouches for an engine that is to be verified.
    #[error("cannot use the certificates in {directory}, which DOCKER_CERT_PATH names: it has no ca.pem")]
    Certificates {
        /// Where they should be.
        directory: PathBuf,
    },
    /// It was named, and nobody answers there.
    #[error("cannot reach {engine}: {why}")]
    Unreachable {
        /// Which.
        engine: String,
        /// Why.
        why: String,
    },
    /// It said no.
    #[error("{engine} refused: {said}")]
    Refused {
        /// Which.
        engine: String,
        /// Its words.
        said: String,
    },
    /// It said something that can't be understood.
    #[error("{engine} gave an answer that can't be understood: {why}")]
    Answer {
        /// Which.
        engine: String,
        /// What is wrong.
        why: String,
    },
    /// Podman's program is of no use in a user namespace that isn't its own.
    #[error("{program} can't be used by a build that runs steps as an ordinary user")]
    Namespace {
        /// Which.
        program: PathBuf,
    },
    /// A program can't be started.
    #[error("cannot run {program}: {source}")]
    Program {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No pipe to be had.
    #[error("cannot make a pipe: {0}")]
    Pipe(io::Error),
    /// The archive.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The HTTP client.
    #[error(transparent)]
    Client(#[from] ImageError),
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The engine has layers of the image, which stay here.
    Known {
        /// So many, from the base on.
        n_known: usize,
        /// Of so many.
        n_layers: usize,
    },
    /// So much of the archive is on its way.
    Sent {
        /// Bytes taken by the engine.
        bytes: u64,
        /// All bytes of the archive.
        total_bytes: u64,
    },
    /// The engine said something.
    Said(String),
    /// It did not take an archive without the layers that it has; now comes the whole.
    Again(String),
    /// It holds an image for one platform only, and gets that.
    Narrowed {
        /// Who.
        engine: String,
        /// For which platform.
        platform: String,
        /// Of so many.
        n_platforms: usize,
    },
}

/// Hears how far a load is.
pub(crate) type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// Puts an image into an engine, sending what the engine doesn't have. Of one for several platforms an engine that holds but
/// one gets what its machine runs. Returns what the names stand for there: a manifest or an index.
pub(crate) async fn load(
    engine: &Engine,
    store: &Arc<Store>,
    mut shipment: Shipment,
    tell: &Tell,
) -> Result<Descriptor, EngineError> {
    let access = match &engine.place {
        Place::Program(path) => Access::Program(Program::new(path)),
        place => Access::Api(Api::connect(engine.title(), place).await?),
    };
    let n_platforms = shipment.n_platforms();
    if n_platforms > 1 && !access.keeps_blobs() {
        tell(Told::Narrowed {
            engine: engine.title(),
            platform: shipment.narrow(&access.platform().await?),
            n_platforms,
        });
    }
    let mut names = Vec::new();
    if access.is_podman() {
        names = shipment
            .names()
            .iter()
            .map(podmans_name)
            .collect::<Result<_, _>>()?;
        // It takes an archive without layers only as an OCI layout, and such a one only with one name.
        let further = names.split_off(names.len().min(1));
        shipment.set_names(std::mem::replace(&mut names, further));
    }
    let shipment = Arc::new(shipment);
    send(&access, store, &shipment, tell).await?;
    access.name(&shipment, &names).await?;
    access.remember(store, &shipment)?;
    Ok(shipment.top().clone())
}

/// Sends what the engine lacks; everything, where that turns out to be too little.
async fn send(
    access: &Access,
    store: &Store,
    shipment: &Arc<Shipment>,
    tell: &Tell,
) -> Result<(), EngineError> {
    let known = access.known(store, shipment).await?;
    let n_known = known.iter().sum();
    if n_known == 0 {
        return access.send(shipment, &known, tell).await;
    }
    let n_layers = shipment.parts().map(|part| part.layers().len()).sum();
    tell(Told::Known { n_known, n_layers });
    let why = match access.send(shipment, &known, tell).await {
        Err(EngineError::Refused { said, .. }) => said,
        Ok(()) if access.lacks_some(shipment).await? => "some are missing there".to_owned(),
        sent => return sent,
    };
    tell(Told::Again(why));
    access.send(shipment, &vec![0; known.len()], tell).await
}

/// Returns the name that Podman gives to what is built with it under a name without a registry, so that it runs what was
/// loaded last, however it came.
fn podmans_name(name: &Reference) -> Result<Reference, EngineError> {
    let familiar = name.familiar();
    if familiar == name.to_string() {
        return Ok(name.clone());
    }
    let local = Reference::parse(&format!("localhost/{familiar}"));
    Ok(local.map_err(ImageError::from)?)
}

/// How an engine is spoken to.
enum Access {
    Api(Api),
    Program(Program),
}

impl Access {
    /// Returns how many of the image's layers, from the base on, the engine has, for each platform.
    async fn known(&self, store: &Store, shipment: &Shipment) -> Result<Vec<usize>, EngineError> {
        match self {
            Self::Api(api) => api.known(store, shipment).await,
            Self::Program(program) => program.known(shipment).await,
        }
    }

    /// Sends the archive without the layers that are known.
    async fn send(&self, shipment: &Arc<Shipment>, known: &[usize], tell: &Tell) -> Result<(), EngineError> {
        let begin = |reader: &str| stream::write(shipment, known, reader);
        match self {
            Self::Api(api) => api.send(begin(&api.title)?, tell).await,
            Self::Program(program) => {
                let reader = program.path.display().to_string();
                program.send(begin(&reader)?, tell).await
            }
        }
    }

    /// Says whether the engine has an image, but not all of it.
    async fn lacks_some(&self, shipment: &Shipment) -> Result<bool, EngineError> {
        match self {
            Self::Api(api) => api.lacks_some(shipment).await,
            Self::Program(_) => Ok(false),
        }
    }

    /// Says whether the engine keeps images as registries do: for several platforms under one name.
    fn keeps_blobs(&self) -> bool {
        matches!(self, Self::Api(api) if api.keeps_blobs())
    }

    /// Returns what the engine's machine is.
    async fn platform(&self) -> Result<Platform, EngineError> {
        match self {
            Self::Api(api) => api.platform().await,
            Self::Program(_) => Ok(host_platform()),
        }
    }

    /// Says whether this is Podman, whose ways are its own.
    fn is_podman(&self) -> bool {
        match self {
            Self::Api(api) => api.is_podman(),
            Self::Program(_) => true,
        }
    }

    /// Gives a loaded image, which is for one platform, further names.
    async fn name(&self, shipment: &Shipment, names: &[Reference]) -> Result<(), EngineError> {
        for (part, name) in shipment
            .parts()
            .flat_map(|part| names.iter().map(move |name| (part, name)))
        {
            match self {
                Self::Api(api) => api.tag(part.id(), name).await?,
                Self::Program(program) => program.tag(part.id(), name).await?,
            }
        }
        Ok(())
    }

    /// Keeps what is needed to know next time what the engine has.
    fn remember(&self, store: &Store, shipment: &Shipment) -> Result<(), EngineError> {
        let mut documents = shipment.documents().filter(|_| self.keeps_blobs());
        documents.try_for_each(|bytes| {
            let kept = store.blobs().put(bytes, store.incomplete());
            kept.map(drop).map_err(|error| ExportError::from(error).into())
        })
    }
}

/// How many layers of each part of a shipment, from the base on, an engine is known to have.
struct Known(Vec<usize>);

impl Known {
    fn new(shipment: &Shipment) -> Self {
        Self(vec![0; shipment.n_platforms()])
    }

    /// Takes into account that the engine has a stack of layers, or of their blobs, which `of` says of a part.
    fn learn<T: PartialEq>(&mut self, stack: &[T], shipment: &Shipment, of: impl Fn(Part<'_>) -> Vec<T>) {
        for (n_known, part) in self.0.iter_mut().zip(shipment.parts()) {
            *n_known = (*n_known).max(n_common(stack, &of(part)));
        }
    }

    fn is_all(&self, shipment: &Shipment) -> bool {
        let mut each = self.0.iter().zip(shipment.parts());
        each.all(|(n_known, part)| *n_known == part.layers().len())
    }
}

/// Returns how many layers, from the base on, two stacks have in common.
fn n_common<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
