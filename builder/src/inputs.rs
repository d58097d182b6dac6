//! What a build begins with: the context and the Dockerfile, fetched where they are elsewhere, and what the frontend is
//! told of the options.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use cache::Store;
use frontend::{Diagnostics, Dockerfile, HttpRequest, NamedContext, Platform, ResolvedHttp, SourceText};

use crate::context::{self, Fetched, Inputs};
use crate::failure;
use crate::options::{BuildOptions, ContextSource, DockerfileSource, NamedSource, host_platform};
use crate::remote;
use crate::report::{Failure, Kind};
use crate::secrets::Secrets;

/// Reads the Dockerfile and what tells what of the context is there, fetching what the command line names by address.
pub(crate) async fn read(build: &BuildOptions, store: &Store, secrets: &Secrets) -> Result<Inputs, Failure> {
    let fetched = fetch_inputs(build, store, secrets).await?;
    context::read(&build.context, &build.dockerfile, fetched, store)
        .map_err(|error| failure::of_context(&error))
}

/// Fetches what the command line names by address: the context, the Dockerfile.
async fn fetch_inputs(options: &BuildOptions, store: &Store, secrets: &Secrets) -> Result<Fetched, Failure> {
    let mut fetched = Fetched::default();
    if let ContextSource::Http(url) = &options.context {
        let (file, found) = fetch(url, store, secrets).await?;
        fetched.main = Some(file);
        fetched.time = found.last_modified;
    }
    if let DockerfileSource::Http(url) = &options.dockerfile {
        let (file, _) = fetch(url, store, secrets).await?;
        fetched.dockerfile = Some((frontend::without_credentials(url), file));
    }
    Ok(fetched)
}

/// Fetches a file into the store and opens it.
pub(crate) async fn fetch(
    url: &str,
    store: &Store,
    secrets: &Secrets,
) -> Result<(File, ResolvedHttp), Failure> {
    let request = HttpRequest {
        url: url.to_owned(),
        checksum: None,
    };
    let found = remote::http::resolve(store, &request, secrets).await;
    let found = found.map_err(|error| failure::of_http(&error))?;
    let file = store.blobs().open(&found.digest);
    let file = file.map_err(|error| Failure::of(Kind::Machine, &error))?;
    Ok((file, found))
}

/// Parses the Dockerfile, or says all that is wrong with it at once. What could be better is told by lowering, which knows
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
        .map(|platform| frontend_options(build, platform, inputs))
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
pub(crate) fn frontend_options(
    options: &BuildOptions,
    platform: &Platform,
    inputs: &Inputs,
) -> frontend::Options {
    let named = |(name, source): &(String, NamedSource)| {
        let context = match source {
            NamedSource::Directory(_) | NamedSource::Http(_) => NamedContext::Directory,
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
        allow_network_host: options.allow_host_network,
        allow_security_insecure: false,
        allow_device: frontend::AllowedDevices::None,
        ignore: inputs.ignore(),
        every_stage: false,
    }
}
