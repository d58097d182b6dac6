//! Containers by another program: an OCI runtime (runc, crun) executes the process, everything around it stays ours.
//!
//! The process that becomes the command otherwise (`init`) stays process 1 of namespaces of its own, furnishes the root as
//! always, and has the runtime make a second pid and mount namespace inside (`life`), from a `config.json` that says what
//! the profile says (`config`, `filter`), and checks what it got (`tighten`). So the runtime, its state and its mounts are
//! in a view that nobody else has: with process 1 they are gone, whoever dies. Mounts of the root are made here, by descriptor, and not named in the
//! config: a runtime would resolve paths of the image again, each in its way.
//!
//! Network, IPC and host name are those of process 1. Limits are our control groups: the runtime is shown a read-only
//! hierarchy, makes none, and the container is moved into ours before its process is executed.
//!
//! Ordinary users' runtimes are started inside of the user namespace that the build entered, as its root: they make none, and
//! need no privilege of their own. With `--init` process 1 is ours, made before the runtime, which joins its pid namespace
//! (`reaper`).
//!
//! Not here: other runtimes (an unknown one could drop part of the config without a word; youki 0.7 lets `clone` make user
//! namespaces). They are refused.
//!
//! Known deviations: system calls that are newer than the profile are "not implemented" with runc as with us, and refused
//! with crun, whose filters know one answer for all that isn't listed. runc refuses users and groups beyond 2^31 - 1, and
//! variables whose name is empty; the build fails with its words.

mod config;
mod console;
mod filter;
mod life;
mod reaper;
mod tighten;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::error::{Result, SandboxError, Step as _};
use super::userns::program_in_path;

pub(super) use life::contain;

/// A program that makes containers, and how it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runtime {
    program: PathBuf,
    kind: Kind,
    version: String,
}

/// What the program says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Runc,
    Crun,
}

impl Runtime {
    /// The names of those that are known.
    pub(crate) const KNOWN: [&str; 2] = ["runc", "crun"];

    /// Says whether there is a program of this name.
    pub(crate) fn is_installed(name: &str) -> bool {
        program_in_path(name).is_some()
    }

    /// Returns what the program says of its age.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Finds a runtime by its name or path, and asks it what it is.
    pub(crate) fn find(name: &str) -> Result<Self> {
        let failed = |reason: &str| SandboxError::Runtime {
            program: name.to_owned(),
            reason: reason.to_owned(),
        };
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
            Some((kind, version)) => Ok(Self {
                program,
                kind,
                version,
            }),
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
    /// Reads the answer to `--version`: what it is, and which.
    fn of(answer: &str) -> Option<(Self, String)> {
        let mut words = answer.lines().next()?.split_whitespace();
        let kind = match words.next() {
            Some("runc") => Self::Runc,
            Some("crun") => Self::Crun,
            _ => return None,
        };
        Some((kind, words.next_back().unwrap_or_default().to_owned()))
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
        let check = |said: &str, expected: Option<(Kind, &str)>| {
            let expected = expected.map(|(kind, version)| (kind, version.to_owned()));
            assert_eq!(Kind::of(said), expected, "{said}");
        };
        check(
            "runc version 1.1.5+ds1\ncommit: 1.1.5\nspec: 1.0.2-dev\n",
            Some((Kind::Runc, "1.1.5+ds1")),
        );
        check("crun version 1.8.1\ncommit: f8a0\n", Some((Kind::Crun, "1.8.1")));
        check("crun\n", Some((Kind::Crun, "")));
        check("youki version 0.5.0\n", None);
        check("runcible 1\n", None);
        check("", None);
    }

    #[test]
    fn what_is_no_runtime_is_refused_by_name() {
        let check = |name: &str, expected: &str| {
            let error = Runtime::find(name).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("no-such-runtime", "no-such-runtime is not installed");
        check("/no/such/runtime", "can't be executed");
        check("/bin/echo", "neither runc nor crun");
    }
}
