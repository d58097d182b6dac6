//! A build's dealings with caches that leave the machine: read while the Dockerfile is lowered, written beside the outputs.

use std::collections::HashSet;

use cache::DiffId;
use frontend::Dockerfile;
use tokio::task::JoinSet;

use super::{Stops, Work};
use crate::caches::{self, CacheError, Imports, Made};
use crate::export::{ExportImage, Output};
use crate::failure;
use crate::report::Failure;

/// Caches that are being written.
pub(super) struct Exports {
    running: JoinSet<Result<(), CacheError>>,
}

impl Exports {
    /// Waits for all of them; the first error counts.
    pub(super) async fn finish(mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Ok(written) => result = result.and(written),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        result.map_err(|error| failure::of_cache(&error))
    }
}

impl Stops<'_> {
    /// Turns the AST into a graph and reads the caches, both at once.
    pub(super) async fn lower_and_import(&self, dockerfile: &Dockerfile) -> Result<(Work, Imports), Failure> {
        let events = self.progress.events();
        let importing = caches::import(&self.options.cache_from, &events);
        let (work, imports) = futures_util::future::join(self.lower(dockerfile), importing).await;
        Ok((work?, imports))
    }

    /// Fetches the layers of the result that aren't here, unless nothing is made of them.
    pub(super) async fn fetch_what_outputs_need(&self, made: &Made) -> Result<(), Failure> {
        let outputs = &self.outputs;
        let only_caches = |(output, _): &(Output, _)| *output == Output::CacheOnly;
        if !outputs.is_empty() && outputs.iter().all(only_caches) {
            return Ok(());
        }
        let layers: HashSet<DiffId> = made
            .targets
            .iter()
            .flat_map(|layers| layers.iter().copied())
            .collect();
        let layers: Vec<DiffId> = layers.into_iter().collect();
        let fetched = made.worker.ensure(&layers).await;
        fetched.map_err(|error| failure::of_fetch(&error))
    }

    /// Says whether all layers of an image are here.
    pub(super) fn is_complete(&self, image: &ExportImage) -> bool {
        image
            .all_layers()
            .all(|layer| self.store.layers().contains(layer))
    }

    /// Begins to write the caches that were asked for.
    pub(super) fn start_exports(&self, made: &Made) -> Exports {
        let mut running = JoinSet::new();
        for to in &self.options.cache_to {
            running.spawn(caches::export(to.clone(), made.clone(), self.progress.events()));
        }
        Exports { running }
    }
}
