//! Arguments of `ashlar check`.

use clap::Args;

/// `ashlar check`.
#[derive(Debug, Args)]
#[command(
    long_about = "Say whether everything in the store is there and what it should be: layers, blobs, records, images, cache \
                  mounts. Exits with 0 if all is well or was repaired, with 1 if something is wrong."
)]
pub(crate) struct CheckArgs {
    /// Read every byte: hash blobs and layers, and make each layer file once more to compare
    #[arg(long)]
    pub(crate) deep: bool,
    /// Set aside what is wrong (into `damaged` in the store), so that it is made or fetched again
    #[arg(long)]
    pub(crate) repair: bool,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}
