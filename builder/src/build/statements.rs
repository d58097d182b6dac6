//! What a build says of its images: noted before the graph is used up, told when the images are there.

use std::sync::Arc;

use frontend::{Build, Platform};
use serde_json::{Map, Value};
use solver::Graph;

use super::Stops;
use crate::attest::{Attestation, Provenance, Recipe, Run, Sources};
use crate::clock;
use crate::registry::Resolved;

/// What is known of how images are made.
pub(super) struct Notes {
    /// One for each platform; none where nobody asks.
    recipes: Vec<Recipe>,
    run: Run,
}

impl Stops<'_> {
    /// Notes how each image is going to be made.
    pub(super) fn note(&self, graph: &Graph, builds: &[Build], images: &[Arc<Resolved>]) -> Notes {
        let options = self.options;
        let is_told = options.attestations.provenance.is_some()
            || options.metadata_file.is_some() && options.metadata_provenance.is_some();
        let sources = Sources {
            options,
            graph,
            images,
            dockerfile: (self.source.name(), &self.inputs.dockerfile),
            origin: self.origin.as_ref(),
            hide: &|text| self.secrets.hide(text),
        };
        let recipe = |(build, platform): (&Build, &Platform)| Recipe::of(&sources, build.target, platform);
        let wanted = builds.iter().zip(&options.platforms).filter(|_| is_told);
        Notes {
            recipes: wanted.map(recipe).collect(),
            run: Run {
                id: self.id.clone(),
                started: clock::rfc3339(self.started_unix),
                finished: String::new(),
            },
        }
    }
}

impl Notes {
    /// Notes that the images are made.
    pub(super) fn finished(mut self) -> Self {
        self.run.finished = clock::rfc3339(clock::now_unix());
        self
    }

    /// Tells how each image was made. With an epoch the same is told every time.
    pub(super) fn attestations(
        &self,
        wanted: Option<&Provenance>,
        epoch: Option<i64>,
    ) -> Vec<Vec<Attestation>> {
        let Some(wanted) = wanted else {
            return Vec::new();
        };
        let run = Some(&self.run).filter(|_| epoch.is_none());
        self.recipes
            .iter()
            .map(|recipe| vec![recipe.tell(wanted, run)])
            .collect()
    }

    /// Tells it for the metadata file: by platform where there are several.
    pub(super) fn metadata(&self, wanted: Option<&Provenance>, platforms: &[Platform]) -> Map<String, Value> {
        let Some(wanted) = wanted else {
            return Map::new();
        };
        let name = |platform: &Platform| match platforms.len() {
            1 => "buildx.build.provenance".to_owned(),
            _ => format!("buildx.build.provenance/{platform}"),
        };
        let told = self
            .recipes
            .iter()
            .map(|recipe| recipe.tell(wanted, Some(&self.run)).predicate);
        platforms.iter().map(name).zip(told).collect()
    }
}
