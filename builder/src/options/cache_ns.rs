//! `--cache-ns`: with which builds cache mounts are shared. A flag and no word of the Dockerfile: the file is what must not open
//! the caches of others, and BuildKit's `sharing` knows no such value. Which project a build is of is found out by whoever builds.

use super::Environment;
use crate::report::Failure;

const VARIABLE: &str = "ASHLAR_CACHE_NS";
/// Sharing with everybody is a word of its own, not what is left out: it has to be asked for.
const GLOBAL: &str = "global";
/// Names are shown in tables.
const MAX_BYTES: usize = 128;

/// With which builds cache mounts are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CacheNs {
    /// With those of the same project.
    Project,
    /// With those that give the same name.
    Named(String),
    /// With all of the store.
    Global,
}

/// Settles the flag and the variable; the former wins, also when it is empty: then it is the project, whatever the variable
/// says.
pub(super) fn cache_ns(flag: Option<&str>, environment: &Environment) -> Result<CacheNs, Failure> {
    match flag.or(environment.var(VARIABLE)).unwrap_or_default() {
        "" => Ok(CacheNs::Project),
        GLOBAL => Ok(CacheNs::Global),
        name if name.len() > MAX_BYTES || name.contains(char::is_control) => {
            let shown: String = name.chars().take(20).flat_map(char::escape_debug).collect();
            Err(
                Failure::usage(format!("invalid name of a cache namespace `{shown}`")).with_help(format!(
                    "--cache-ns and {VARIABLE} take up to {MAX_BYTES} bytes without control characters"
                )),
            )
        }
        name => Ok(CacheNs::Named(name.to_owned())),
    }
}
