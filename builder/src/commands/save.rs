//! `ashlar save`: writes images to a docker-archive that other tools load.

use cache::Store;

use super::{human, table};
use crate::cli::SaveArgs;
use crate::export::{self, Destination, ExportImage, Listed};
use crate::image;
use crate::report::{Failure, Kind};

/// Writes the archive to a file or to stdout, or only says what would be in it. Blocks.
pub(crate) fn save(args: &SaveArgs, store: &Store) -> Result<String, Failure> {
    let failed = |error| Failure::of(Kind::Machine, &error);
    let mut images = Vec::new();
    for word in &args.images {
        images.push(ExportImage::from_stored(image::find(store, word)?)?);
    }
    // Before anything is written: a name that isn't known is no reason to overwrite a file.
    for word in &args.since {
        image::find(store, word)?;
    }
    if args.dry_run {
        let listed = export::save_preview(store, &images, &args.since).map_err(failed)?;
        return Ok(shown(&listed));
    }
    let dest = match args.output.clone().filter(|path| path.as_os_str() != "-") {
        Some(path) => Destination::File(path),
        None => Destination::Stdout,
    };
    export::save(store, &dest, &images, &args.since).map_err(failed)?;
    Ok(String::new())
}

fn shown(listed: &[Listed]) -> String {
    let mut rows = vec![["LAYER", "SIZE", "ARCHIVE"].map(str::to_owned).to_vec()];
    rows.extend(listed.iter().map(|one| {
        let what = if one.is_left_out { "left out" } else { "written" };
        vec![
            one.layer.to_string(),
            human::size(one.size_bytes),
            what.to_owned(),
        ]
    }));
    let sum = |is_left_out: bool| {
        let sizes = listed.iter().filter(|one| one.is_left_out == is_left_out);
        human::size(sizes.map(|one| one.size_bytes).sum())
    };
    format!(
        "{}Written:\t{}\nLeft out:\t{}\n",
        table::render(&rows),
        sum(false),
        sum(true)
    )
}
