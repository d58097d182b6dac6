//! Arguments of the commands that read and write archives. What they mean is in `commands/`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What an archive has beside its blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Docker's lists and those of an OCI layout.
    Docker,
    /// Those of an OCI layout only.
    Oci,
}

/// `ashlar save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Image names or IDs
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Write to a file [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What the archive is: for docker, podman and readers of OCI layouts alike, or an OCI layout only
    #[arg(long, value_name = "docker|oci", default_value = "docker")]
    pub(crate) format: Format,
    /// Leave out the layers that this older image begins with: for readers who have it (may be repeated)
    #[arg(long, value_name = "IMAGE")]
    pub(crate) since: Vec<String>,
    /// Write the images for this platform only [default: for all that there are]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Write nothing; list the layers and the size of the archive
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `ashlar load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Read from a file, or from a directory that is an OCI layout; `-` for stdin [default: stdin]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Take the images for this platform only, and refuse others [default: for all that there are]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Print nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `ashlar import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A tar of a root file system, compressed or not: a file, an address, or `-` for stdin
    #[arg(value_name = "FILE|URL|-")]
    pub(crate) file: PathBuf,
    /// Name of the image [default: none]
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// What the image's history says of it
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Set something of the image's config, in a Dockerfile's words: -c 'CMD ["sh"]' (repeatable)
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// What the image is for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
}

/// `ashlar export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Image name or ID; there are no containers that outlive their command
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Write to a file [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
