//! Containers by another program: an OCI runtime (runc, crun) executes the process, everything around it stays ours.
//!
//! The process that becomes the command otherwise (`init`) stays process 1 of namespaces of its own, furnishes the root as
//! always, and has the runtime make a second pid and mount namespace inside (`life`), from a `config.json` that says what
//! the profile says (`config`, `filter`), and checks what it got (`tighten`). So the runtime, its state and its mounts are in a view that nobody else has:
//! with process 1 they are gone, whoever dies. Mounts of the root are made here, by descriptor, and not named in the
//! config: a runtime would resolve paths of the image again, each in its way.
//!
//! Network, IPC and host name are those of process 1. Limits are our control groups: the runtime is shown a read-only
//! hierarchy, makes none, and the container is moved into ours before its process is executed.
//!
//! Not here: other runtimes (an unknown one could drop part of the config without a word; youki 0.7 lets `clone` make user
//! namespaces), `--init`, and user namespaces. They are refused.
//!
//! Known deviation: system calls that are newer than the profile are "not implemented" with runc as with us, and refused
//! with crun, whose filters know one answer for all that isn't listed.

mod config;
mod console;
mod filter;
mod life;
mod tighten;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::error::{Result, SandboxError, Step as _};
use super::userns::{Namespace, program_in_path};

pub(super) use life::contain;

/// A program that makes containers, and how it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runtime {
    program: PathBuf,
    kind: Kind,
}

/// What the program says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Runc,
    Crun,
}

impl Runtime {
    /// Finds a runtime by its name or path, and asks it what it is.
    pub(crate) fn find(name: &str) -> Result<Self> {
        let failed = |reason: &str| SandboxError::Runtime {
            program: name.to_owned(),
            reason: reason.to_owned(),
        };
        if !Namespace::current().is_initial() {
            return Err(failed("needs root: build as root, or without --oci-runtime"));
        }
        let program = match name.contains('/') {
            true => std::path::absolute(name).step(format!("find {name}"))?,
            false => program_in_path(name).ok_or_else(|| failed("is not installed"))?,
        };
        let asked = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let said = asked.map_err(|error| failed(&format!("can't be executed: {error}")))?;
        match Kind::of(&String::from_utf8_lossy(&said.stdout)) {
            Some(kind) => Ok(Self { program, kind }),
            None => Err(failed(
                "is neither runc nor crun, by what it answers to --version",
            )),
        }
    }

    /// Returns its name, for people.
    fn name(&self) -> String {
        self.program.display().to_string()
    }

    fn program(&self) -> &Path {
        &self.program
    }
}

impl Kind {
    /// Reads the answer to `--version`.
    fn of(version: &str) -> Option<Self> {
        match version.split_whitespace().next() {
            Some("runc") => Some(Self::Runc),
            Some("crun") => Some(Self::Crun),
            _ => None,
        }
    }

    /// Options that keep it from making control groups.
    fn without_cgroups(self) -> &'static [&'static str] {
        match self {
            // It goes on where it may not make them, if it isn't asked for limits.
            Self::Runc => &["--rootless=true"],
            Self::Crun => &["--cgroup-manager=disabled"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_what_it_says() {
        let check = |said: &str, expected| assert_eq!(Kind::of(said), expected, "{said}");
        check(
            "runc version 1.1.5+ds1\ncommit: 1.1.5\nspec: 1.0.2-dev\n",
            Some(Kind::Runc),
        );
        check("crun version 1.8.1\n", Some(Kind::Crun));
        check("youki version 0.5.0\n", None);
        check("runcible 1\n", None);
        check("", None);
    }

    #[test]
    fn what_is_no_runtime_is_refused_by_name() {
        if !Namespace::current().is_initial() {
            return;
        }
        let check = |name: &str, expected: &str| {
            let error = Runtime::find(name).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("no-such-runtime", "no-such-runtime is not installed");
        check("/no/such/runtime", "can't be executed");
        check("/bin/echo", "neither runc nor crun");
    }
}
