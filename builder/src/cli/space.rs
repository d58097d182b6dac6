//! The flags about what the store occupies.

use clap::Args;

/// The ceiling of the store, of `ashlar build`.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = "Space (also ASHLAR_GC_…, and gc.toml in ~/.config/ashlar)")]
pub(crate) struct CeilingArgs {
    /// The most that the store may occupy after the build; 0: any amount [default: 20% of the disk, at most 50g]
    #[arg(long, value_name = "SIZE|PERCENT%")]
    pub(crate) gc_max_used_space: Option<String>,
    /// What is to be free on the disk then; 0: nothing [default: 10%]
    #[arg(long, value_name = "SIZE|PERCENT%")]
    pub(crate) gc_min_free_space: Option<String>,
    /// What the store keeps, however little is free [default: 2% of the disk, at most 10g]
    #[arg(long, value_name = "SIZE|PERCENT%")]
    pub(crate) gc_reserved_space: Option<String>,
}

/// `ashlar prune`.
#[derive(Debug, Args, Default)]
#[command(
    about = "Remove what no image and no running build needs",
    long_about = "Remove layers and cache mounts that no image and no running build needs, the least valuable first: what is \
                  big, unused for long and quickly made again. Without limits all of them go. Beside running builds this \
                  is safe."
)]
pub(crate) struct PruneArgs {
    /// As well what only saves downloads and compression (manifests, compressed layers, files of web servers), and what was
    /// damaged and is set aside
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Say what would go, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Only these: type=regular|internal|exec.cachemount|damaged, id=ID, until=DURATION (not used for so long), description=WORDS
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Remove only until the store occupies no more than this
    #[arg(long, value_name = "SIZE|PERCENT%")]
    pub(crate) max_used_space: Option<String>,
    /// Remove only until this is free on the disk
    #[arg(long, value_name = "SIZE|PERCENT%")]
    pub(crate) min_free_space: Option<String>,
    /// Leave so much in the store
    #[arg(long, alias = "keep-storage", value_name = "SIZE|PERCENT%")]
    pub(crate) reserved_space: Option<String>,
}

/// `ashlar df`.
#[derive(Debug, Args, Default)]
pub(crate) struct DfArgs {
    /// Each part of the store: its size, when it was used last, how long it took, who needs it
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// With --verbose only these: type=…, id=…, until=…, description=…
    #[arg(long, value_name = "KEY=VALUE", requires = "verbose")]
    pub(crate) filter: Vec<String>,
}
