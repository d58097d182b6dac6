//! What the attributes of outputs come to: plain data, which `spec` reads and the writers obey.

use std::path::{Path, PathBuf};

use cache::compress::Codec;

use super::annotations::Annotations;
use super::delta::Older;

/// Where a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Standard output.
    Stdout,
    /// A file, written beside and renamed.
    File(PathBuf),
}

impl Destination {
    /// Reads what `-o` of a command says: a file, or stdout for none and for `-`.
    pub(crate) fn of_flag(path: Option<&Path>) -> Self {
        match path.filter(|path| path.as_os_str() != "-") {
            Some(path) => Self::File(path.to_owned()),
            None => Self::Stdout,
        }
    }
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compression {
    /// Codec and level for layers that have no suitable blob yet.
    pub(crate) codec: Codec,
    /// The user named it; otherwise blobs of base layers are taken as they are.
    pub(crate) is_explicit: bool,
    /// Compress even layers whose blobs came from elsewhere.
    pub(crate) force: bool,
}

/// How an image is written into an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageOptions {
    /// Names in addition to the build's tags.
    pub(crate) names: Vec<String>,
    /// What the layers become.
    pub(crate) compression: Compression,
    /// OCI media types, rather than Docker's, which know no annotations and no attestations: with these it is OCI.
    pub(crate) oci_types: bool,
    /// Attestations are OCI artifacts that name their subject, and not only images that can't be run.
    pub(crate) oci_artifact: bool,
    /// What manifests and index are marked with.
    pub(crate) annotations: Annotations,
    /// Images of the store whose layers are left out, as the user named them.
    pub(crate) since: Vec<String>,
    /// What they were when the build began: it may give their names to its own image.
    pub(crate) older: Older,
}

/// Which time an output's own `source-date-epoch` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Epoch {
    /// None was given: the build's.
    #[default]
    OfBuild,
    /// An empty one: real times.
    Off,
    /// This one.
    At(i64),
}

impl Epoch {
    /// Returns the time that counts, in seconds since the Unix epoch.
    pub(crate) fn or(self, of_build: Option<i64>) -> Option<i64> {
        match self {
            Self::OfBuild => of_build,
            Self::Off => None,
            Self::At(seconds) => Some(seconds),
        }
    }
}

/// What an output says about times. Spec: dockerfile.md §14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Times {
    /// Takes the place of the build's SOURCE_DATE_EPOCH.
    pub(crate) epoch: Epoch,
    /// Lowers times of files that are later than the epoch, in the layers that the build made.
    pub(crate) rewrite: bool,
}

/// What an image is called in a registry and here, besides its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Naming {
    /// No tag stands for it: names are those of repositories.
    pub(crate) by_digest: bool,
    /// The store knows it as `name@digest` too.
    pub(crate) canonical: bool,
}
