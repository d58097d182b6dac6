//! `ashlar save`: writes images to an archive that other tools load.

use cache::Store;

use super::{human, table};
use crate::cli::{ArchiveFormat, SaveArgs};
use crate::export::{self, Destination, ExportImage, Lists, Survey};
use crate::image;
use crate::options::{self, Environment};
use crate::report::{Failure, Kind};

/// Writes the archive to a file or to stdout; returns what to print instead where it is only asked about. Blocks.
pub(crate) fn save(args: &SaveArgs, store: &Store, environment: &Environment) -> Result<String, Failure> {
    if args.format == ArchiveFormat::Oci && !args.since.is_empty() {
        return Err(Failure::usage(
            "an OCI layout has all its layers: --since conflicts with --format oci",
        ));
    }
    let lists = match args.format {
        ArchiveFormat::Docker => Lists::DockerToo,
        ArchiveFormat::Oci => Lists::Oci,
    };
    let mut images: Vec<ExportImage> = Vec::new();
    let given = args.platform.as_deref();
    let platform = given.map(|given| options::one_platform(Some(given), environment));
    let platform = platform.transpose()?;
    for word in &args.images {
        let (image, variants) = match &platform {
            None => (
                image::find_to_use(store, word)?,
                image::find_variants(store, word)?,
            ),
            Some(platform) => (image::find_for_platform(store, word, platform)?, Vec::new()),
        };
        let mut image = ExportImage::from_stored(image, variants)?;
        // As docker does: by this name only. An ID stands for all of them.
        if let Some(name) = image::look_up(store, word)?.name {
            image.names = vec![name];
        }
        let is_same =
            |known: &&mut ExportImage| known.config == image.config && known.further == image.further;
        match images.iter_mut().find(is_same) {
            Some(known) => known.names.extend(image.names),
            None => images.push(image),
        }
    }
    for image in &mut images {
        image.names.sort();
        image.names.dedup();
    }
    for word in &args.since {
        // For the same words as with the images themselves.
        image::look_up(store, word)?;
    }
    if args.dry_run {
        let survey = export::survey(store, &images, lists, &args.since);
        let survey = survey.map_err(|error| Failure::of(Kind::Machine, &error))?;
        return Ok(listing(&survey));
    }
    let dest = Destination::of_flag(args.output.as_deref());
    export::save(store, &dest, &images, lists, &args.since)
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    Ok(String::new())
}

fn listing(survey: &Survey) -> String {
    let words = |words: [&str; 3]| words.map(str::to_owned).to_vec();
    let mut rows = vec![words(["LAYER", "SIZE", "ARCHIVE"])];
    for layer in &survey.layers {
        let place = if layer.is_left_out { "left out" } else { "included" };
        rows.push(words([
            &layer.diff_id.to_string(),
            &human::size(layer.size_bytes),
            place,
        ]));
    }
    format!(
        "{}\nsize of the archive: {} ({} bytes)\n",
        table::render(&rows),
        human::size(survey.size_bytes),
        survey.size_bytes
    )
}
