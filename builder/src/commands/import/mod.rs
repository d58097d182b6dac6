//! `ashlar import`: an image of one layer, made of a tar of a root file system, with the settings that it is given.

mod changes;

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use cache::Store;
use cache::compress;
use cache::layer::Limits;
use frontend::HttpRequest;
use serde_json::json;

use crate::cli::ImportArgs;
use crate::clock;
use crate::failure;
use crate::image;
use crate::options::{self, Environment, tag_name};
use crate::remote::http;
use crate::report::{Failure, Kind};
use crate::runtime;
use crate::secrets::Secrets;
use crate::upkeep::{self, Told};

/// Takes the tar in and returns the new image's ID. Blocks.
pub(crate) fn import(
    args: &ImportArgs,
    store: &Store,
    environment: &Environment,
    now_unix: i64,
) -> Result<String, Failure> {
    let names: Vec<String> = args
        .name
        .iter()
        .map(|name| tag_name(name))
        .collect::<Result<_, _>>()?;
    let platform = options::one_platform(args.platform.as_deref(), environment)?;
    let settings = changes::config(&args.change, &platform)?;
    let place = args.file.display().to_string();
    let title = frontend::without_credentials(&place);
    let broken = |error: &(dyn std::error::Error + 'static)| {
        Failure::build(format!("cannot import {title}: {error}"))
            .with_causes_of(error)
            .with_help("it takes a tar of a root file system; archives of images are for `ashlar load`")
    };
    let input: Box<dyn Read + Send> = if place.starts_with("http://") || place.starts_with("https://") {
        Box::new(fetch(store, &place)?)
    } else if place != "-" {
        Box::new(File::open(&args.file).map_err(|error| broken(&error))?)
    } else if io::stdin().is_terminal() {
        return Err(Failure::usage("nothing to import: stdin is a terminal"));
    } else {
        Box::new(io::stdin())
    };
    let limits = Limits::default();
    let (_, tar) = compress::decompressor(input, limits.max_bytes).map_err(|error| broken(&error))?;
    let (layers, scratch) = (store.layers(), store.incomplete());
    let layer = layers
        .import(tar, None, limits, scratch)
        .map_err(|error| broken(&error))?;
    let created = clock::rfc3339(now_unix);
    let comment = args
        .message
        .clone()
        .unwrap_or_else(|| format!("Imported from {title}"));
    let mut config = json!({
        "architecture": platform.architecture,
        "config": settings,
        "created": created,
        "history": [{"created": created, "comment": comment}],
        "os": platform.os,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id().to_string()]},
    });
    if let Some(variant) = platform.variant {
        config["variant"] = json!(variant);
    }
    let id = image::commit(store, config.to_string().as_bytes(), None, &[], &names)
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    upkeep::after_arrival(store, environment, Told::All);
    Ok(format!("{id}\n"))
}

/// Fetches what an address stands for, unless that is here and unchanged.
fn fetch(store: &Store, url: &str) -> Result<File, Failure> {
    let request = HttpRequest {
        url: url.to_owned(),
        checksum: None,
    };
    let secrets = Secrets::default();
    let fetching = async {
        let fetched = http::resolve(store, &request, &secrets).await;
        fetched.map_err(|error| failure::of_http(&error))
    };
    let fetched = runtime::run(fetching)?;
    let file = store.blobs().open(&fetched.digest);
    file.map_err(|error| Failure::of(Kind::Machine, &error))
}
