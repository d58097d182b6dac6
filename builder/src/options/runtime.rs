//! `--oci-runtime`: which program makes containers, if not the sandbox of this one. Whether it can is found out when a
//! container is needed.

use super::Environment;

const VARIABLE: &str = "ASHLAR_OCI_RUNTIME";
/// Our own sandbox, whatever the variable says.
const NATIVE: &str = "native";

/// Settles the flag and the variable; the former wins, and nothing is our own sandbox.
pub(crate) fn oci_runtime(flag: Option<&str>, environment: &Environment) -> Option<String> {
    let named = flag.or(environment.var(VARIABLE));
    named
        .filter(|name| !name.is_empty() && *name != NATIVE)
        .map(str::to_owned)
}
