//! `ashlar tag`.

use cache::Store;
use cache::index::ImageName;

use crate::cli::TagArgs;
use crate::image;
use crate::options::tag_name;
use crate::report::{Failure, Kind};

/// Gives an image another name, taking it from whatever had it.
pub(crate) fn tag(args: &TagArgs, store: &Store, now_unix: i64) -> Result<(), Failure> {
    let name = tag_name(&args.target)?;
    let found = image::look_up(store, &args.source)?;
    let rows = image::rows_of(store, &found.id)?;
    let row = rows
        .iter()
        .find(|row| found.name.as_ref().is_none_or(|name| row.name == *name));
    let named = ImageName {
        name,
        config: found.id,
        manifest: row.and_then(|row| row.manifest),
        variants: row.map(|row| row.variants.clone()).unwrap_or_default(),
        created_unix: now_unix,
    };
    store
        .index()
        .put_image(&named)
        .map_err(|error| Failure::of(Kind::Machine, &error))
}
