//! `ashlar export`: the files of an image as one tar.

use cache::Store;

use crate::cli::ExportArgs;
use crate::export::{self, Destination, ExportImage, Output};
use crate::failure;
use crate::image;
use crate::report::Failure;

/// Writes the tar to a file or to stdout. Blocks.
pub(crate) fn export(args: &ExportArgs, store: &Store) -> Result<(), Failure> {
    let image = ExportImage::from_stored(image::find_to_use(store, &args.image)?, Vec::new())?;
    let output = Output::Tar {
        dest: Destination::of_flag(args.output.as_deref()),
        split: true,
        prefix: String::new(),
    };
    let exported = export::export(store, &output, &image, None);
    exported.map(drop).map_err(|error| failure::of_export(&error))
}
