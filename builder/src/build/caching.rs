//! A build's dealings with caches that leave the machine: read while the Dockerfile is lowered, written beside the outputs.

use std::collections::HashSet;
use std::sync::Arc;

use cache::DiffId;
use frontend::Dockerfile;
use solver::{Cancel, Graph, VertexId};
use tokio::task::JoinSet;

use super::stop::Stop;
use super::{Bench, Stops, Work};
use crate::caches::{self, CacheError, CachePlace, CacheTo, Imports, Made};
use crate::export::{ExportImage, Output};
use crate::failure;
use crate::registry::Resolved;
use crate::report::Failure;
use crate::runtime::blocking;

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

    /// Plans, runs, and fetches what outputs need. When a cache doesn't have what it promised, all of it is done again
    /// without caches: steps that they had answered run.
    pub(super) async fn make(
        &self,
        dockerfile: &Dockerfile,
        graph: Arc<Graph>,
        images: &[Arc<Resolved>],
        imports: Imports,
        targets: &[VertexId],
        cancel: &Cancel,
    ) -> Result<Made, Stop> {
        self.begin_journal();
        let bench = self
            .bench(dockerfile, Arc::clone(&graph), images, imports)
            .await?;
        let made = self.solve_and_fetch(bench, targets, cancel).await;
        let Some(error) = made.as_ref().err().and_then(Stop::lost_cache) else {
            return made;
        };
        let again = "the build begins again without caches";
        self.progress.events().warn(format!("{error}; {again}"));
        let bench = self.bench(dockerfile, graph, images, Imports::default()).await?;
        self.solve_and_fetch(bench, targets, cancel).await
    }

    async fn solve_and_fetch(
        &self,
        bench: Bench,
        targets: &[VertexId],
        cancel: &Cancel,
    ) -> Result<Made, Stop> {
        let made = self.solve(bench, targets, cancel).await?;
        // Layers that aren't here are fetched unless nothing is made of them.
        if self.has_place() {
            let layers: HashSet<DiffId> = made
                .targets
                .iter()
                .flat_map(|layers| layers.iter().copied())
                .collect();
            let layers: Vec<DiffId> = layers.into_iter().collect();
            made.worker.ensure(&layers).await.map_err(Stop::Fetch)?;
        }
        Ok(made)
    }

    /// Says whether anything is made of the result, other than caches.
    pub(super) fn has_place(&self) -> bool {
        let only_caches = |(output, _): &(Output, _)| *output == Output::CacheOnly;
        let is_kept = self.outputs.is_empty() || !self.options.tags.is_empty();
        is_kept || !self.outputs.iter().all(only_caches)
    }

    /// Says whether all layers of an image are here.
    pub(super) fn is_complete(&self, image: &ExportImage) -> bool {
        image
            .all_layers()
            .all(|layer| self.store.layers().contains(layer))
    }

    /// Makes what an image carries of the cache, for each of its platforms; nothing unless that was asked for.
    pub(super) async fn inline_caches(
        &self,
        image: &ExportImage,
        made: &Made,
        epoch: Option<i64>,
    ) -> Result<Vec<Option<String>>, Failure> {
        let is_inline = |to: &&CacheTo| to.place == CachePlace::Inline;
        let Some(to) = self.options.cache_to.iter().find(is_inline) else {
            return Ok(Vec::new());
        };
        let further = image.further.iter().flatten().map(|image| &image.layers);
        let layers: Vec<Vec<DiffId>> = std::iter::once(&image.layers).chain(further).cloned().collect();
        let made = made.clone();
        let each = blocking(move || {
            let each = layers
                .iter()
                .map(|layers| caches::annotation(&made, layers, epoch));
            each.collect::<Result<Vec<_>, _>>()
        });
        match each.await {
            Ok(each) => Ok(each),
            Err(error) if to.ignore_error => {
                self.progress.events().warn(error.to_string());
                Ok(Vec::new())
            }
            Err(error) => Err(failure::of_cache(&error)),
        }
    }

    /// Begins to write the caches that were asked for, but for the image's own.
    pub(super) fn start_exports(&self, made: &Made) -> Exports {
        let mut running = JoinSet::new();
        let own = |to: &&CacheTo| to.place != CachePlace::Inline;
        for to in self.options.cache_to.iter().filter(own) {
            running.spawn(caches::export(to.clone(), made.clone(), self.progress.events()));
        }
        Exports { running }
    }
}
