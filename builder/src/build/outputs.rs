//! The outputs of a build, settled and checked before time is spent on it.

use cache::Store;

use crate::caches::CachePlace;
use crate::export::{self, Output, Shape, Times};
use crate::failure;
use crate::options::BuildOptions;
use crate::report::{self, Failure, Kind};

/// Reads `-o`, and finds out whether its places can be written before time is spent on the build.
pub(super) fn parse(options: &BuildOptions) -> Result<Vec<(Output, Times)>, Failure> {
    let shape = Shape {
        n_platforms: options.platforms.len(),
        has_index: options.platforms.len() > 1 || options.wants_index() || !options.attestations.is_empty(),
        is_attested: options.attestations.are_needed(),
    };
    let mut outputs = Vec::new();
    for text in &with_push(options) {
        let (mut output, times) = Output::parse(text).map_err(|error| Failure::of(Kind::Usage, &error))?;
        output.annotate(&options.annotations);
        check_names(options, &output)?;
        export::check(&output, shape).map_err(|error| failure::of_export(&error))?;
        outputs.push((output, times));
    }
    let is_lost = outputs.iter().all(|(output, _)| output.image_options().is_none());
    if !options.annotations.is_empty() && is_lost {
        report::warn(
            "annotations are part of archives and layouts only, not of the store: add an output such as -o type=oci,dest=FILE",
        );
    }
    let is_lost = outputs.iter().all(|(output, _)| !output.carries_attestations());
    if options.attestations.are_needed() && is_lost {
        report::warn(
            "the store keeps no attestations: add an output such as -o type=oci,dest=FILE to have them",
        );
    }
    let is_inline = options.cache_to.iter().any(|to| to.place == CachePlace::Inline);
    if is_inline && !outputs.iter().any(|(output, _)| output.carries_caches()) {
        report::warn(
            "an inline cache is part of a manifest, and the store keeps none: push the image, or add an output such as -o type=oci,dest=FILE",
        );
    }
    Ok(outputs)
}

/// Finds the older images that outputs are differences to.
pub(super) fn find_older(outputs: &mut [(Output, Times)], store: &Store) -> Result<(), Failure> {
    let mut each = outputs.iter_mut();
    each.try_for_each(|(output, _)| output.find_older(store))
        .map_err(|error| failure::of_export(&error))
}

/// Returns all names that the image gets, each once.
pub(super) fn names(options: &BuildOptions, outputs: &[(Output, Times)]) -> Vec<String> {
    let mut names = options.tags.clone();
    for name in outputs.iter().flat_map(|(output, _)| output.names()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Returns the outputs with what `--push` means: those of type image are pushed, and without one the image is.
fn with_push(options: &BuildOptions) -> Vec<String> {
    let mut texts = options.outputs.clone();
    if !options.push {
        return texts;
    }
    let is_image = |text: &&mut String| {
        let kind = |kind: &str| text.split(',').any(|field| field.trim() == kind);
        kind("type=image") || kind("type=registry")
    };
    let mut has_image = false;
    for text in texts.iter_mut().filter(is_image) {
        text.push_str(",push=true");
        has_image = true;
    }
    if !has_image {
        texts.push("type=registry".to_owned());
    }
    texts
}

/// Refuses to push what has no name, or a name that it can't have.
fn check_names(options: &BuildOptions, output: &Output) -> Result<(), Failure> {
    let Output::Registry { image, naming } = output else {
        return Ok(());
    };
    let mut names = options.tags.iter().chain(&image.names).peekable();
    if names.peek().is_none() {
        return Err(
            Failure::usage("tag is needed when pushing to registry").with_help("name the image with -t")
        );
    }
    let has_tag = |name: &&String| !name.ends_with(":latest");
    match names.find(has_tag).filter(|_| naming.by_digest) {
        Some(name) => Err(Failure::usage(format!("can't push tagged ref {name} by digest"))),
        None => Ok(()),
    }
}
