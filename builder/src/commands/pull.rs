//! `ashlar pull`: brings an image into the store, with docker's words.

use std::sync::Arc;

use cache::{Digest, Store};
use frontend::Platform;

use super::human;
use super::transfers::{Sink, Transfers};
use crate::cli::PullArgs;
use crate::failure;
use crate::options::{self, Environment};
use crate::registry::{self, Transfer};
use crate::report::Failure;
use crate::runtime;
use crate::upkeep::{self, Told};

/// Fetches what is missing of an image and returns docker's lines about it: digest, status, complete name.
pub(crate) fn pull(args: &PullArgs, store: Store, environment: &Environment) -> Result<String, Failure> {
    let platform = options::one_platform(args.platform.as_deref(), environment)?;
    let store = Arc::new(store);
    let pulled = runtime::run(async {
        let transfers = Transfers::show("Pulling", &args.image, args.quiet);
        let sink = transfers.sink();
        transfers.during(fetch(&store, args, &platform, &sink)).await
    })?;
    upkeep::after_arrival(&store, environment, Told::unless(args.quiet));
    if args.quiet {
        return Ok(format!("{}\n", pulled.name));
    }
    let status = match pulled.is_news {
        true => "Downloaded newer image",
        false => "Image is up to date",
    };
    let digest = pulled
        .digest
        .map(|digest| format!("Digest: {digest}\n"))
        .unwrap_or_default();
    Ok(format!(
        "{digest}Status: {status} for {}\n{}\n",
        pulled.familiar, pulled.name
    ))
}

struct Pulled {
    name: String,
    familiar: String,
    digest: Option<Digest>,
    is_news: bool,
}

async fn fetch(
    store: &Arc<Store>,
    args: &PullArgs,
    platform: &Platform,
    sink: &Sink,
) -> Result<Pulled, Failure> {
    let failed = |error| failure::of_image(&error);
    let before = registry::stored(store, &args.image, platform).map_err(failed)?;
    let resolved = registry::resolve(store, &args.image, platform, true)
        .await
        .map_err(failed)?;
    let is_missing = |layer: &registry::LayerSource| !store.layers().contains(&layer.diff_id);
    let is_news = before.as_ref() != Some(&resolved.config) || resolved.layers.iter().any(is_missing);
    let tell = |transfer: Transfer| {
        let blob = transfer.blob.to_string();
        let done = || format!("{blob} {} done", human::size(transfer.total_bytes));
        let outcome = transfer.is_finished.then(done);
        sink.tell(&blob, transfer.done_bytes, transfer.total_bytes, outcome);
    };
    registry::fetch_layers(store, &resolved, tell)
        .await
        .map_err(failed)?;
    Ok(Pulled {
        familiar: crate::image::familiar(&resolved.reference),
        name: resolved.reference,
        digest: resolved.manifest,
        is_news,
    })
}
