//! `--oci-runtime`: which program makes containers, if not the sandbox of this one. Whether it can is found out when a
//! container is needed.

use super::Environment;
use crate::report::Failure;

const VARIABLE: &str = "ASHLAR_OCI_RUNTIME";

/// Settles the flag and the variable; empty is none, and `native` is our own sandbox whatever the variable says.
pub(crate) fn oci_runtime(
    flag: Option<&str>,
    wants_terminal: bool,
    environment: &Environment,
) -> Result<Option<String>, Failure> {
    let wanted = flag.or(environment.var(VARIABLE)).filter(|name| !name.is_empty());
    match wanted {
        None | Some("native") => Ok(None),
        Some(_) if wants_terminal => Err(Failure::usage(
            "containers of an OCI runtime get no terminal: --oci-runtime goes with neither --on-error=shell nor --tty",
        )
        .with_help(format!("--oci-runtime=native is ashlar's own sandbox, whatever {VARIABLE} says"))),
        Some(name) => Ok(Some(name.to_owned())),
    }
}
