//! What a command needs before its first thread starts: private mounts, and for ordinary users a user namespace.
//!
//! Only containers need it, so a build without `RUN` is spared it. That is guessed from the Dockerfile's text; where the
//! guess was wrong (`ONBUILD RUN` of a base image) the program starts again, once.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::options::{BuildOptions, ContextSource, DockerfileSource};
use crate::report::{self, Failure, Kind};
use crate::sandbox::{self, Entered};

/// Set for the program that was started again: enter, whatever the Dockerfile looks like.
const ENTER: &str = "ASHLAR_ENTER_NAMESPACE";
/// More of a Dockerfile than this isn't searched; such a file is taken for one that runs something.
const MAX_SEARCHED_BYTES: u64 = 1 << 20;

/// Gets the rights for a build. What can't be had is an error of the first step that needs it, if one does.
pub(crate) fn for_build(options: &BuildOptions) -> Result<(), Failure> {
    if sandbox::has_rights() {
        return for_container();
    }
    let may_run = options.attestations.sbom.is_some() || may_run(options);
    if std::env::var_os(ENTER).is_some() || may_run {
        // The sandbox keeps the error.
        if let Ok(entered) = sandbox::enter() {
            warn_of(&entered);
        }
    }
    Ok(())
}

/// Gets the rights for a container.
pub(crate) fn for_container() -> Result<(), Failure> {
    let entered = sandbox::enter().map_err(|error| Failure::of(Kind::Machine, &error))?;
    warn_of(&entered);
    Ok(())
}

/// Gets what is needed to remove what containers wrote as other users: they exist only inside. Where that can't be had,
/// removing says what it can't remove.
pub(crate) fn for_removal() {
    if !sandbox::has_rights() {
        // The error would be of containers, and none is wanted.
        let _kept_by_the_sandbox = sandbox::enter();
    }
}

/// Starts the program again, with the rights for containers; returns only if it has them, or tried to get them.
pub(crate) fn start_again() -> Result<(), Failure> {
    if sandbox::has_tried() || std::env::var_os(ENTER).is_some() {
        return Ok(());
    }
    let error = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(ENTER, "1")
        .exec();
    Err(Failure::machine(format!(
        "cannot start this program again: {error}"
    )))
}

fn warn_of(entered: &Entered) {
    if let Entered::Single(because) = entered {
        report::warn(&format!(
            "containers have user and group 0 only, because {because}; steps that need others fail (see `ashlar doctor`)"
        ));
    }
}

/// Says whether the build may run something. A stream can be read only once, so it may.
fn may_run(options: &BuildOptions) -> bool {
    let path = match (&options.dockerfile, &options.context) {
        (DockerfileSource::File(path), _) => path.clone(),
        (DockerfileSource::InContext, ContextSource::Directory(dir)) => dir.join("Dockerfile"),
        _ => return true,
    };
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_SEARCHED_BYTES).read_to_end(&mut text)) {
        Ok(n_bytes) => n_bytes as u64 == MAX_SEARCHED_BYTES || mentions_run(&text),
        // What is wrong with it is said by who reads it.
        Err(_) => false,
    }
}

fn mentions_run(text: &[u8]) -> bool {
    text.windows(3).any(|word| word.eq_ignore_ascii_case(b"run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_that_may_run_something_is_told_from_one_that_cannot() {
        let check =
            |text: &str, expected: bool| assert_eq!(mentions_run(text.as_bytes()), expected, "{text}");
        check("FROM scratch\nCOPY . .\n", false);
        check("FROM a\nRUN x", true);
        check("FROM a\nONBUILD rUn x", true);
        check("", false);
    }
}
