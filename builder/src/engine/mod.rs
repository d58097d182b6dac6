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

use crate::export::{ExportError, Shipment};
use crate::registry::{ImageError, Reference};
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
}

/// Hears how far a load is.
pub(crate) type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// Puts an image into an engine, sending what the engine doesn't have.
pub(crate) async fn load(
    engine: &Engine,
    store: &Arc<Store>,
    mut shipment: Shipment,
    tell: &Tell,
) -> Result<(), EngineError> {
    let access = match &engine.place {
        Place::Program(path) => Access::Program(Program::new(path)),
        place => Access::Api(Api::connect(engine.title(), place).await?),
    };
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
    let n_known = access.n_known(store, &shipment).await?;
    if n_known > 0 {
        let n_layers = shipment.layers().len();
        tell(Told::Known { n_known, n_layers });
    }
    match access.send(&shipment, n_known, tell).await {
        Err(EngineError::Refused { said, .. }) if n_known > 0 => {
            tell(Told::Again(said));
            access.send(&shipment, 0, tell).await?;
        }
        sent => sent?,
    }
    access.name(&shipment, &names).await?;
    access.remember(store, &shipment)
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
    /// Returns how many of the image's layers, from the base on, the engine has.
    async fn n_known(&self, store: &Store, shipment: &Shipment) -> Result<usize, EngineError> {
        match self {
            Self::Api(api) => api.n_known(store, shipment).await,
            Self::Program(program) => program.n_known(shipment).await,
        }
    }

    /// Sends the archive without its first `n_known` layers.
    async fn send(&self, shipment: &Arc<Shipment>, n_known: usize, tell: &Tell) -> Result<(), EngineError> {
        let begin = |reader: &str| stream::write(shipment, n_known, reader);
        match self {
            Self::Api(api) => api.send(begin(&api.title)?, tell).await,
            Self::Program(program) => {
                let reader = program.path.display().to_string();
                program.send(begin(&reader)?, tell).await
            }
        }
    }

    /// Says whether this is Podman, whose ways are its own.
    fn is_podman(&self) -> bool {
        match self {
            Self::Api(api) => api.is_podman(),
            Self::Program(_) => true,
        }
    }

    /// Gives a loaded image further names.
    async fn name(&self, shipment: &Shipment, names: &[Reference]) -> Result<(), EngineError> {
        for name in names {
            match self {
                Self::Api(api) => api.tag(shipment.id(), name).await?,
                Self::Program(program) => program.tag(shipment.id(), name).await?,
            }
        }
        Ok(())
    }

    /// Keeps what is needed to know next time what the engine has.
    fn remember(&self, store: &Store, shipment: &Shipment) -> Result<(), EngineError> {
        match self {
            Self::Api(api) if api.keeps_blobs() => {
                let (_, bytes) = shipment.manifest();
                let kept = store.blobs().put(bytes, store.incomplete());
                kept.map(drop).map_err(|error| ExportError::from(error).into())
            }
            _ => Ok(()),
        }
    }
}

/// Returns how many layers, from the base on, two stacks have in common.
fn n_common<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
