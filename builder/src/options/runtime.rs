//! `--oci-runtime`: which program makes containers, if not the sandbox of this one. Whether it can is found out when a
//! container is needed.

use super::Environment;
use crate::cli::LimitArgs;
use crate::report::Failure;

const VARIABLE: &str = "ASHLAR_OCI_RUNTIME";
/// Our own sandbox, whatever the variable says.
const NATIVE: &str = "native";

/// Settles the flag and the variable; the former wins, and nothing is our own sandbox. What it can't be given is refused.
pub(crate) fn oci_runtime(
    flag: Option<&str>,
    limits: &LimitArgs,
    environment: &Environment,
) -> Result<Option<String>, Failure> {
    let named = flag.or(environment.var(VARIABLE));
    match named.filter(|name| !name.is_empty() && *name != NATIVE) {
        Some(_) if limits.init => Err(Failure::usage(
            "--init is of ashlar's own sandbox, and can't be had with --oci-runtime",
        )
        .with_help(format!(
            "--oci-runtime={NATIVE} is that sandbox, whatever {VARIABLE} says"
        ))),
        wanted => Ok(wanted.map(str::to_owned)),
    }
}
