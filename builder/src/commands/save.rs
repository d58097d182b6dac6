//! `ashlar save`: writes images to a docker-archive that other tools load.

use cache::Store;

use crate::cli::SaveArgs;
use crate::export::{self, Destination, ExportImage};
use crate::image;
use crate::report::{Failure, Kind};

/// Writes the archive to a file or to stdout. Blocks.
pub(crate) fn save(args: &SaveArgs, store: &Store) -> Result<(), Failure> {
    let mut images = Vec::new();
    for word in &args.images {
        images.push(ExportImage::from_stored(image::find(store, word)?)?);
    }
    let dest = match args.output.clone().filter(|path| path.as_os_str() != "-") {
        Some(path) => Destination::File(path),
        None => Destination::Stdout,
    };
    export::save(store, &dest, &images).map_err(|error| Failure::of(Kind::Machine, &error))
}
