//! `ashlar import`: an image of one layer, made of a tar of a root file system.
//!
//! Addresses are not fetched, and configs not set: a Dockerfile with `FROM` the image does both, and says so.

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use cache::Store;
use cache::compress;
use cache::layer::Limits;
use serde_json::json;

use crate::cli::ImportArgs;
use crate::clock;
use crate::image;
use crate::options::{host_platform, tag_name};
use crate::report::{Failure, Kind};

/// Takes the tar in and returns the new image's ID. Blocks.
pub(crate) fn import(args: &ImportArgs, store: &Store, now_unix: i64) -> Result<String, Failure> {
    let names: Vec<String> = args
        .name
        .iter()
        .map(|name| tag_name(name))
        .collect::<Result<_, _>>()?;
    let title = args.file.display().to_string();
    if title.starts_with("http://") || title.starts_with("https://") {
        return Err(Failure::usage("`ashlar import` reads files, not addresses")
            .with_help(format!("curl -L {title} | ashlar import -")));
    }
    let broken = |error: &(dyn std::error::Error + 'static)| {
        Failure::build(format!("cannot import {title}: {error}"))
            .with_causes_of(error)
            .with_help("it takes a tar of a root file system; archives of images are for `ashlar load`")
    };
    let input: Box<dyn Read + Send> = if title != "-" {
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
    let platform = host_platform();
    let mut config = json!({
        "architecture": platform.architecture,
        "config": {},
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
    Ok(format!("{id}\n"))
}
