//! `ashlar rmi`: forgets names, and with the last name the image.
//!
//! Only the index changes. Layers and configs that no image reaches any more stay in the store, where the next build
//! may find them again, until pruning takes them.

use cache::Store;
use cache::index::ImageName;

use crate::cli::RmiArgs;
use crate::image::{self, familiar};
use crate::report::{Failure, Kind};

/// What came of removing several images: each is tried, whatever happens to the others.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// docker's lines: `Untagged: …`, `Deleted: …`.
    pub(crate) text: String,
    /// What could not be removed, and why.
    pub(crate) failures: Vec<Failure>,
}

/// Removes names and images.
pub(crate) fn rmi(args: &RmiArgs, store: &Store) -> Outcome {
    let mut outcome = Outcome::default();
    for word in &args.images {
        match remove(store, word, args) {
            Ok(text) => outcome.text.push_str(&text),
            Err(failure) => outcome.failures.push(failure),
        }
    }
    outcome
}

fn remove(store: &Store, word: &str, args: &RmiArgs) -> Result<String, Failure> {
    let found = match image::look_up(store, word) {
        Err(failure) if args.force && failure.kind() == Kind::Build => return Ok(String::new()),
        other => other?,
    };
    let rows = image::rows_of(store, &found.id)?;
    let named = rows.iter().filter(|row| row.name != found.id.to_string()).count();
    if found.name.is_none() && named > 1 && !args.force {
        return Err(Failure::build(format!("image {word} has {named} names"))
            .with_help("remove the names one by one, or all with --force"));
    }
    let is_meant = |row: &&ImageName| found.name.as_ref().is_none_or(|name| row.name == *name);
    let takes_last_name = rows.iter().filter(is_meant).count() >= named;
    let mut text = String::new();
    // With the last name goes the row that keeps an image without names, should there be one.
    for row in rows.iter().filter(|row| takes_last_name || is_meant(row)) {
        store
            .index()
            .remove_image(&row.name)
            .map_err(|error| Failure::of(Kind::Machine, &error))?;
        if row.name != found.id.to_string() {
            text.push_str(&format!("Untagged: {}\n", familiar(&row.name)));
        }
    }
    if takes_last_name {
        text.push_str(&format!("Deleted: {}\n", found.id));
    }
    Ok(text)
}
