//! What a build says of its images: noted before the graph is used up, told when the images are there.

use std::sync::Arc;

use cache::{DiffId, Store};
use frontend::{Build, ImageKind, ImageRequest, Platform};
use serde_json::{Map, Value};
use solver::VertexId;

use super::{Stops, Work, resolved_image};
use crate::attest::{Attestation, Generator, Provenance, Recipe, Run, SbomError, Sources};
use crate::clock;
use crate::failure;
use crate::options::host_platform;
use crate::report::{Failure, Kind};

/// The generator of a build, and its steps: one for each platform.
pub(super) struct Scanning {
    generator: Generator,
    pub(super) steps: Vec<VertexId>,
}

/// What is known of how images are made.
pub(super) struct Notes {
    /// One for each platform; none where nobody asks.
    recipes: Vec<Recipe>,
    /// What is in the images; one for each platform, or none.
    contents: Vec<Vec<Attestation>>,
    run: Run,
}

impl Stops<'_> {
    /// Adds the steps that find out what is in the images, where that is wanted and goes anywhere.
    pub(super) async fn add_scans(&self, work: &mut Work) -> Result<Option<Scanning>, Failure> {
        let wanted = self.options.attestations.sbom.as_ref();
        let is_kept = self
            .outputs
            .iter()
            .any(|(output, _)| output.carries_attestations());
        let Some(reference) = wanted.filter(|_| is_kept) else {
            return Ok(None);
        };
        let request = ImageRequest {
            reference: reference.clone(),
            kind: ImageKind::Registry,
            platform: host_platform(),
        };
        let resolved = self.resolve_image(&request).await.map_err(|error| {
            failure::of_locked(&error).with_help(format!(
                "--sbom runs the generator image {reference}: have its registry in reach, load it into the store, or name \
                 another one with --sbom=generator=IMAGE"
            ))
        })?;
        let image = resolved_image(&resolved)?;
        let generator = Generator {
            reference: image.reference,
            layers: image.layers,
            config: image.config,
        };
        work.images.push(Arc::new(resolved));
        work.asked.push(request);
        let mut steps = Vec::new();
        for (build, platform) in work.builds.iter().zip(&self.options.platforms) {
            let title = format!("[{platform}] ");
            let step = generator.add(&mut work.graph, build.target, &build.scans, self.options, &title);
            steps.push(step.map_err(|error| Failure::of(Kind::Build, &error))?);
        }
        Ok(Some(Scanning { generator, steps }))
    }

    /// Notes how each image is going to be made.
    pub(super) fn note(&self, work: &Work, scanning: Option<&Scanning>) -> Notes {
        let Work {
            graph,
            builds,
            images,
            ..
        } = work;
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
        let scans = scanning.map_or(&[][..], |scanning| &scanning.steps);
        let recipe = |(at, (build, platform)): (usize, (&Build, &Platform))| {
            Recipe::of(&sources, build.target, scans.get(at).copied(), platform)
        };
        let builds = builds.iter().zip(&options.platforms).enumerate();
        let wanted = builds.filter(|_| is_told);
        Notes {
            recipes: wanted.map(recipe).collect(),
            contents: Vec::new(),
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

    /// Takes what the generator found, given what its steps became.
    pub(super) fn with_contents(
        mut self,
        scanning: Option<&Scanning>,
        results: &[Arc<[DiffId]>],
        store: &Store,
    ) -> Result<Self, Failure> {
        if let Some(scanning) = scanning {
            let read = results
                .iter()
                .map(|layers| scanning.generator.read(store, layers));
            self.contents = read
                .collect::<Result<_, SbomError>>()
                .map_err(|error| Failure::of(Kind::Build, &error))?;
        }
        Ok(self)
    }

    /// Tells how each image was made. With an epoch the same is told every time.
    pub(super) fn attestations(
        &self,
        wanted: Option<&Provenance>,
        epoch: Option<i64>,
    ) -> Vec<Vec<Attestation>> {
        let mut contents = self.contents.iter();
        let Some(wanted) = wanted else {
            return contents.cloned().collect();
        };
        let run = Some(&self.run).filter(|_| epoch.is_none());
        let all = |recipe: &Recipe| {
            let found = contents.next().into_iter().flatten().cloned();
            found.chain([recipe.tell(wanted, run)]).collect()
        };
        self.recipes.iter().map(all).collect()
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
