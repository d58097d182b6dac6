//! An image of a build on its way into a container engine, and how that is shown.

use std::sync::Arc;
use std::time::Instant;

use solver::{Cancel, Event, Events, Stream, Subject};

use super::Stops;
use super::stop::Stop;
use crate::engine::{self, Tell, Told, Wanted};
use crate::export::{ExportImage, ImageOptions, Shipment};
use crate::failure;
use crate::options::Environment;
use crate::registry::Descriptor;
use crate::report::Failure;
use crate::runtime::blocking;

impl Stops<'_> {
    /// Loads an image under the build's names and those of the output; returns its manifest or index.
    pub(super) async fn load(
        &self,
        image: &ExportImage,
        options: &ImageOptions,
        wanted: &Wanted,
        epoch: Option<i64>,
        cancel: &Cancel,
    ) -> Result<Descriptor, Stop> {
        let engine = engine::find(wanted, &Environment::of_process());
        let engine = engine.map_err(|error| failure::of_engine(&error))?;
        let mut image = image.clone();
        image.attestations.clear();
        image.names.extend_from_slice(&options.names);
        image.names.sort();
        image.names.dedup();
        let shipment = {
            let (store, options) = (Arc::clone(&self.store), options.clone());
            blocking(move || Shipment::new(&store, &image, &options, epoch)).await
        };
        let shipment = shipment.map_err(|error| failure::of_export(&error))?;
        let events = self.progress.events();
        let subject = Subject::internal(&format!("loading into {}", engine.title()));
        events.send(Event::Started {
            subject: subject.clone(),
            why: None,
        });
        let begun = Instant::now();
        let tell = teller(&events, &subject);
        let loaded = tokio::select! {
            loaded = engine::load(&engine, &self.store, shipment, &tell) => loaded,
            () = cancel.cancelled() => {
                events.send(Event::Cancelled { subject });
                return Err(Failure::cancelled(libc::SIGINT).into());
            }
        };
        match loaded {
            Err(error) => {
                events.send(Event::Failed {
                    subject,
                    error: error.to_string(),
                });
                Err(failure::of_engine(&error).into())
            }
            Ok(top) => {
                events.send(Event::Finished {
                    subject,
                    took: begun.elapsed(),
                });
                Ok(top)
            }
        }
    }
}

/// Returns what shows how far a load is.
fn teller(events: &Events, subject: &Subject) -> Tell {
    let (events, subject) = (events.clone(), subject.clone());
    Arc::new(move |told| {
        match told {
        Told::Sent { bytes, total_bytes } => events.send(Event::Progress {
            subject: subject.clone(),
            part: "sending tarball".to_owned(),
            current_bytes: bytes,
            total_bytes: Some(total_bytes),
            done: bytes == total_bytes,
        }),
        Told::Known { n_known, n_layers } => log(
            &events,
            &subject,
            &format!("{n_known} of {n_layers} layers are there already"),
        ),
        Told::Said(text) => log(&events, &subject, &text),
        Told::Narrowed {
            engine,
            platform,
            n_platforms,
        } => events.warn(format!(
            "{engine} holds an image for one platform only: of the {n_platforms} it gets {platform}; Docker's containerd image store holds all"
        )),
        Told::Again(said) => events.warn(format!(
            "the engine did not take an archive without the layers that it has ({said}); it gets all of them"
        )),
    }
    })
}

fn log(events: &Events, subject: &Subject, text: &str) {
    events.log(subject, Stream::Stdout, format!("{text}\n").as_bytes());
}
