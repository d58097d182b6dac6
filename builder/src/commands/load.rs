//! `ashlar load`: takes in the images of an archive.

use std::io;

use cache::Store;

use crate::archive::{self, Input};
use crate::cli::LoadArgs;
use crate::failure;
use crate::image::familiar;
use crate::options::{Environment, host_platform, one_platform};
use crate::report::Failure;
use crate::upkeep::{self, Told};

/// Loads an archive from a file or stdin and returns docker's lines about what it held. Blocks.
pub(crate) fn load(args: &LoadArgs, store: &Store, environment: &Environment) -> Result<String, Failure> {
    let mut stdin = io::stdin();
    let input = match args.input.as_deref().filter(|path| path.as_os_str() != "-") {
        Some(path) => Input::Path(path),
        None if io::IsTerminal::is_terminal(&stdin) => {
            return Err(Failure::usage("nothing to load: stdin is a terminal")
                .with_help("name the archive with -i FILE"));
        }
        None => Input::Stream(&mut stdin),
    };
    let loaded = match args.platform.as_deref() {
        None => archive::load(store, input, &host_platform()),
        given => archive::load_only(store, input, &one_platform(given, environment)?),
    };
    let loaded = loaded.map_err(|error| failure::of_image(&error))?;
    upkeep::after_arrival(store, environment, Told::unless(args.quiet));
    let mut text = String::new();
    for image in loaded {
        for name in &image.names {
            text.push_str(&format!("Loaded image: {}\n", familiar(name)));
        }
        if image.names.is_empty() {
            text.push_str(&format!("Loaded image ID: {}\n", image.id));
        }
    }
    Ok(if args.quiet { String::new() } else { text })
}
