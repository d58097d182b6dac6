//! An image of a build on its way into registries: put together, sent, and shown while that goes on.

use std::sync::Arc;
use std::time::Instant;

use cache::Digest;
use cache::index::ImageName;
use solver::{Cancel, Event, Subject};

use super::Stops;
use super::stop::Stop;
use crate::clock;
use crate::export::{self, ExportImage, ImageOptions, Naming};
use crate::failure;
use crate::image;
use crate::ops;
use crate::registry::push::{self, Target};
use crate::registry::{Descriptor, ImageError};
use crate::report::{Failure, Kind};
use crate::runtime::blocking;

impl Stops<'_> {
    /// Pushes an image under the build's names and those of the output; returns what a tag stands for then.
    pub(super) async fn push(
        &self,
        image: &ExportImage,
        options: &ImageOptions,
        naming: Naming,
        epoch: Option<i64>,
        cancel: &Cancel,
    ) -> Result<Descriptor, Stop> {
        let mut names = self.options.tags.clone();
        names.extend_from_slice(&options.names);
        names.sort();
        names.dedup();
        let mut targets = Target::of_names(&names).map_err(|error| failure::of_push(&error))?;
        if naming.by_digest {
            targets.iter_mut().for_each(|target| target.tags.clear());
        }
        let upload = {
            let (store, image, options) = (Arc::clone(&self.store), image.clone(), options.clone());
            blocking(move || export::upload(&store, &image, &options, epoch)).await
        };
        let upload = upload.map_err(|error| failure::of_export(&error))?;
        let events = self.progress.events();
        let subject = Subject::internal(&format!("pushing {}", names.join(", ")));
        events.send(Event::Started {
            subject: subject.clone(),
            why: None,
        });
        let begun = Instant::now();
        let report = ops::upload_report(&events, &subject);
        let pushed = tokio::select! {
            pushed = push::push_all(&self.store, &upload, &targets, &report) => pushed,
            () = cancel.cancelled() => {
                events.send(Event::Cancelled { subject });
                return Err(Failure::cancelled(libc::SIGINT).into());
            }
        };
        if let Err(error) = pushed {
            events.send(Event::Failed {
                subject,
                error: error.to_string(),
            });
            return Err(failure::of_push(&error).into());
        }
        events.send(Event::Finished {
            subject,
            took: begun.elapsed(),
        });
        let top = upload.top();
        if !naming.by_digest {
            image::remember_pushed(&self.store, &names, image.id(), &top.bytes)
                .map_err(|error| Failure::of(Kind::Machine, &error))?;
        }
        if naming.canonical {
            let id = Digest::of(&image.config);
            self.name_by_digest(&targets, top, id)
                .map_err(|error| Failure::of(Kind::Machine, &error))?;
        }
        Ok(top.descriptor.clone())
    }

    /// Gives the image the names that it has in its repositories for good.
    fn name_by_digest(
        &self,
        targets: &[Target],
        top: &push::Document,
        config: Digest,
    ) -> Result<(), ImageError> {
        let manifest = self.store.blobs().put(&top.bytes, self.store.incomplete())?;
        for target in targets {
            self.store.index().put_image(&ImageName {
                name: format!("{}@{manifest}", target.repository.repository()),
                config,
                manifest: Some(manifest),
                variants: Vec::new(),
                created_unix: clock::now_unix(),
            })?;
        }
        Ok(())
    }
}
