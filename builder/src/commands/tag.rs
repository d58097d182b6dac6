//! `ashlar tag`.

use cache::Store;
use cache::index::ImageName;

use super::stored;
use crate::cli::TagArgs;
use crate::options::tag_name;
use crate::report::{Failure, Kind};

/// Gives an image another name, taking it from whatever had it.
pub(crate) fn tag(args: &TagArgs, store: &Store, now_unix: i64) -> Result<(), Failure> {
    let name = tag_name(&args.target)?;
    let found = stored::look_up(store, &args.source)?;
    let rows = stored::rows_of(store, &found.id)?;
    let row = rows
        .iter()
        .find(|row| found.name.as_ref().is_none_or(|name| row.name == *name));
    let image = ImageName {
        name,
        config: found.id,
        manifest: row.and_then(|row| row.manifest),
        created_unix: now_unix,
    };
    store
        .index()
        .put_image(&image)
        .map_err(|error| Failure::of(Kind::Machine, &error))
}
