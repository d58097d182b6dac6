//! `ashlar push`: sends images of the store to the registry that their names begin with, with docker's words.
//!
//! An image that came from a registry as it is goes on as it is: the same manifest, the same compressed layers.

use std::sync::Arc;

use cache::index::ImageName;
use cache::{DiffId, Digest, Store};
use frontend::Platform;

use super::transfers::{Sink, Transfers};
use crate::cli::PushArgs;
use crate::export::{self, ExportImage, ImageOptions, Output, PlatformImage};
use crate::failure;
use crate::image::{self, familiar};
use crate::options::{self, Environment};
use crate::registry::push::{self, Blob, Content, Outcome, Progress, Report, Target, Upload};
use crate::registry::{
    self, ConfigFacts, Document, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, Reference, config_facts,
};
use crate::report::{self, Failure, Kind};
use crate::runtime::{self, blocking};

/// Pushes one tag or all of a repository, and returns docker's line about each.
pub(crate) fn push(args: &PushArgs, store: Store, environment: &Environment) -> Result<String, Failure> {
    let reference = Reference::parse(&args.image).map_err(|error| Failure::of(Kind::Usage, &error))?;
    if reference.digest().is_some() {
        return Err(Failure::usage("a push names a tag, not a digest"));
    }
    let images = images(args, &store, &reference)?;
    let platform = args
        .platform
        .as_deref()
        .map(|platform| options::one_platform(Some(platform), environment))
        .transpose()?;
    let how = how(args)?;
    let store = Arc::new(store);
    runtime::run(async {
        let mut text = String::new();
        if !args.quiet {
            report::note(&format!(
                "the push refers to repository [{}]",
                reference.repository()
            ));
        }
        for image in &images {
            let line = one(args, &store, image, platform.as_ref(), &how).await?;
            text.push_str(&line);
        }
        Ok(text)
    })
}

/// Returns what is to be pushed.
fn images(args: &PushArgs, store: &Store, reference: &Reference) -> Result<Vec<ImageName>, Failure> {
    let failed = |error| Failure::of(Kind::Machine, &error);
    let found: Vec<ImageName> = match args.all_tags {
        false => {
            let name = reference.to_string();
            store.index().image(&name).map_err(failed)?.into_iter().collect()
        }
        true => {
            let all = store.index().images().map_err(failed)?;
            let is_tag = |name: &str| {
                Reference::parse(name).is_ok_and(|known| {
                    known.repository() == reference.repository() && known.digest().is_none()
                })
            };
            all.into_iter().filter(|image| is_tag(&image.name)).collect()
        }
    };
    if found.is_empty() {
        let name = match args.all_tags {
            true => reference.familiar_name(),
            false => reference.familiar(),
        };
        return Err(
            Failure::build(format!("an image does not exist locally with the tag: {name}"))
                .with_help("`ashlar images` lists the images of the store, `ashlar tag` gives one a name"),
        );
    }
    Ok(found)
}

/// Returns how layers are written that have to be.
fn how(args: &PushArgs) -> Result<ImageOptions, Failure> {
    let compression = args
        .compression
        .as_deref()
        .map(|codec| format!(",compression={codec},force-compression=true"));
    let text = format!("type=registry{}", compression.unwrap_or_default());
    match Output::parse(&text).map_err(|error| Failure::of(Kind::Usage, &error))? {
        (Output::Registry { image, .. }, _) => Ok(image),
        _ => unreachable!("that is what type=registry is"),
    }
}

/// Pushes what one name stands for.
async fn one(
    args: &PushArgs,
    store: &Arc<Store>,
    image: &ImageName,
    platform: Option<&Platform>,
    how: &ImageOptions,
) -> Result<String, Failure> {
    let upload = {
        let (store, image, how) = (Arc::clone(store), image.clone(), how.clone());
        let platform = platform.cloned();
        let is_as_it_is = args.compression.is_none();
        complete(&store, &image).await?;
        blocking(move || prepare(&store, &image, platform.as_ref(), &how, is_as_it_is)).await?
    };
    let targets = Target::of_names(std::slice::from_ref(&image.name));
    let targets = targets.map_err(|error| failure::of_push(&error))?;
    let transfers = Transfers::show("Pushing", &familiar(&image.name), args.quiet);
    let report = report(transfers.sink());
    let pushing = async {
        let pushed = push::push_all(store, &upload, &targets, &report).await;
        pushed.map_err(|error| failure::of_push(&error))
    };
    transfers.during(pushing).await?;
    // Part of an image for several platforms is not what its name stands for here.
    if platform.is_none() {
        let names = std::slice::from_ref(&image.name);
        image::remember_pushed(store, names, image.config, &upload.top().bytes)
            .map_err(|error| failure::of_image(&error))?;
    }
    if args.quiet {
        return Ok(format!("{}\n", image.name));
    }
    let top = &upload.top().descriptor;
    let tags = targets.iter().flat_map(|target| &target.tags);
    let line = |tag: &String| format!("{tag}: digest: {} size: {}\n", top.digest, top.size_bytes);
    Ok(tags.map(line).collect())
}

/// Tells how far each blob is, and what became of it.
fn report(sink: Sink) -> Report {
    Arc::new(move |progress: Progress| {
        let outcome = progress.outcome.map(|outcome| match outcome {
            Outcome::Pushed => "pushed".to_owned(),
            Outcome::Exists => "already exists".to_owned(),
            Outcome::Mounted { from } => format!("mounted from {from}"),
        });
        let outcome = outcome.map(|outcome| format!("{}: {outcome}", &progress.blob.hex()[..12]));
        let blob = progress.blob.to_string();
        sink.tell(&blob, progress.done_bytes, progress.total_bytes, outcome);
    })
}

/// Fetches layers that no build has needed so far, from where the image came.
async fn complete(store: &Arc<Store>, image: &ImageName) -> Result<(), Failure> {
    let (_, facts) = config(store, &image.config)?;
    if facts.diff_ids.iter().all(|layer| store.layers().contains(layer)) {
        return Ok(());
    }
    let failed = |error| failure::of_image(&error);
    let resolved = registry::resolve(store, &image.name, &facts.platform, false)
        .await
        .map_err(failed)?;
    registry::fetch_layers(store, &resolved, |_| {})
        .await
        .map_err(failed)
}

fn config(store: &Store, id: &Digest) -> Result<(Vec<u8>, ConfigFacts), Failure> {
    let bytes = store
        .blobs()
        .read(id, MAX_CONFIG_BYTES)
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    let facts = config_facts(&bytes)
        .map_err(|why| Failure::machine(format!("the config of image {id} is malformed: {why}")))?;
    Ok((bytes, facts))
}

/// Puts together what is to be sent. Blocks.
fn prepare(
    store: &Store,
    image: &ImageName,
    platform: Option<&Platform>,
    how: &ImageOptions,
    is_as_it_is: bool,
) -> Result<Upload, Failure> {
    let mut platforms = Vec::new();
    let ids = std::iter::once(&image.config).chain(image.variants.iter().map(|variant| &variant.config));
    for id in ids {
        let (bytes, facts) = config(store, id)?;
        platforms.push((*id, bytes, facts));
    }
    if let Some(wanted) = platform {
        platforms.retain(|(_, _, facts)| facts.platform == *wanted);
        if platforms.is_empty() {
            let name = familiar(&image.name);
            return Err(Failure::build(format!("{name} has no image for {wanted}")));
        }
    }
    if let [(id, bytes, facts)] = &platforms[..]
        && *id == image.config
        && is_as_it_is
        && let Some(upload) = as_it_came(store, image, bytes, &facts.diff_ids)
    {
        return Ok(upload);
    }
    let platforms = platforms.into_iter().map(|(_, config, facts)| PlatformImage {
        config,
        layers: facts.diff_ids,
    });
    let image = ExportImage::of_platforms(platforms.collect(), &[], false);
    export::upload(store, &image, how, None).map_err(|error| failure::of_export(&error))
}

/// Returns an image with the very manifest that it came with, where the store still has all that this names.
fn as_it_came(store: &Store, image: &ImageName, config: &[u8], layers: &[DiffId]) -> Option<Upload> {
    let digest = image.manifest?;
    let bytes = store.blobs().read(&digest, MAX_MANIFEST_BYTES).ok()?;
    let Ok(Document::Manifest(manifest)) = registry::parse(&bytes, None) else {
        return None;
    };
    let Manifest {
        config: named,
        layers: blobs,
    } = manifest;
    if named.digest != image.config || blobs.len() != layers.len() {
        return None;
    }
    let mut all = vec![Blob {
        digest: image.config,
        size_bytes: config.len() as u64,
        content: Content::Memory(Arc::from(config)),
    }];
    for (blob, layer) in blobs.into_iter().zip(layers) {
        let content = match store.blobs().open(&blob.digest) {
            Ok(file) => Content::File(Arc::new(file)),
            // Not compressed: the layer is the blob.
            Err(_) if blob.digest.as_bytes() == layer.as_bytes() => {
                Content::Layer(store.layers().get(layer).ok()?)
            }
            Err(_) => return None,
        };
        all.push(Blob {
            digest: blob.digest,
            size_bytes: blob.size_bytes,
            content,
        });
    }
    let kind = serde_json::from_slice::<serde_json::Value>(&bytes).ok()?;
    // A manifest needn't say what it is; then its config does.
    let kind = match kind.get("mediaType").and_then(|kind| kind.as_str()) {
        Some(kind) => kind.to_owned(),
        None if named.media_type.starts_with("application/vnd.docker.") => {
            "application/vnd.docker.distribution.manifest.v2+json".to_owned()
        }
        None => "application/vnd.oci.image.manifest.v1+json".to_owned(),
    };
    let descriptor = registry::Descriptor {
        media_type: kind,
        digest,
        size_bytes: bytes.len() as u64,
    };
    Some(Upload {
        blobs: all,
        manifests: vec![push::Document { descriptor, bytes }],
    })
}
