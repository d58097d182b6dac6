//! What the frontend is told of a build: the Dockerfile's text, and the part of the options that decides what it means.

use std::collections::BTreeMap;
use std::path::PathBuf;

use frontend::{Diagnostics, Dockerfile, NamedContext, Platform, SourceText};

use crate::context::Inputs;
use crate::options::{BuildOptions, NamedSource, host_platform};

/// Reads the Dockerfile, or says all that is wrong with it at once. What could be better is told by lowering, which knows
/// what is heard.
pub(crate) fn parse(
    build: &BuildOptions,
    inputs: &Inputs,
    source: &SourceText,
) -> Result<Dockerfile, Diagnostics> {
    let (name, text) = (source.name(), inputs.dockerfile.as_slice());
    let foreign = build
        .platforms
        .first()
        .map(|platform| options(build, platform, inputs))
        .and_then(|options| frontend::foreign_syntax(name, text, &options));
    if let Some(error) = foreign {
        return Err(error.into());
    }
    let (dockerfile, diagnostics) = frontend::parse(name, text);
    dockerfile.ok_or(diagnostics)
}

/// Returns the directories among the named contexts.
pub(crate) fn directories(options: &BuildOptions) -> BTreeMap<String, PathBuf> {
    let directory = |(name, source): &(String, NamedSource)| match source {
        NamedSource::Directory(path) => Some((name.clone(), path.clone())),
        _ => None,
    };
    options.named_contexts.iter().filter_map(directory).collect()
}

/// Returns the part of the options that decides what the Dockerfile means.
pub(crate) fn options(options: &BuildOptions, platform: &Platform, inputs: &Inputs) -> frontend::Options {
    let named = |(name, source): &(String, NamedSource)| {
        let context = match source {
            NamedSource::Directory(_) => NamedContext::Directory,
            NamedSource::Http(url) => NamedContext::Http(url.clone()),
            NamedSource::Git(source) => NamedContext::Git(source.clone()),
            NamedSource::Image(reference) => NamedContext::Image(reference.clone()),
            NamedSource::OciLayout { dir, reference } => NamedContext::OciLayout {
                path: dir.display().to_string(),
                reference: reference.clone().unwrap_or_default(),
            },
        };
        (name.clone(), context)
    };
    frontend::Options {
        build_args: options.build_args.clone(),
        target: options.target.clone(),
        until: options.until.clone(),
        labels: options.labels.clone(),
        build_platform: host_platform(),
        target_platform: platform.clone(),
        is_multi_platform: options.platforms.len() > 1,
        named_contexts: options.named_contexts.iter().map(named).collect(),
        no_cache: options.no_cache,
        no_cache_filter: options.no_cache_filter.clone(),
        network: options.network,
        extra_hosts: options.extra_hosts.clone(),
        context_time: inputs.time,
        allow_network_host: options.allowed.host_network,
        allow_security_insecure: options.allowed.insecure,
        allow_device: options.allowed.devices.clone(),
        ignore: inputs.ignore(),
        every_stage: false,
    }
}
