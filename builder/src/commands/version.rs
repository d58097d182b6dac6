//! `ashlar version`.

use crate::options::host_platform;

/// Returns name, version and platform, one line.
pub(crate) fn version() -> String {
    format!("ashlar {} {}\n", env!("CARGO_PKG_VERSION"), host_platform())
}
