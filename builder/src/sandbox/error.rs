//! What can go wrong before a process of a container runs.

use std::io;
use std::path::PathBuf;

/// Why a container could not be made. A process that ran and failed is not an error, but an [`Exit`](super::Exit).
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// The process lacks the rights for namespaces and mounts.
    #[error("containers need root here: running as uid {uid}")]
    NotRoot {
        /// Who runs.
        uid: u32,
    },
    /// No user namespace could be entered.
    #[error("containers without root need a user namespace: {reason}")]
    NoNamespace {
        /// What stood in the way.
        reason: String,
    },
    /// A user or group that this user namespace doesn't have.
    #[error(
        "{what} belongs to {uid}:{gid}, and there {} here: grant more to this user in /etc/subuid and /etc/subgid, and \
         install newuidmap (Debian's package uidmap), or build as root",
        match n_uids { 1 => "is no user but 0".to_owned(), n => format!("are {n} users only") }
    )]
    UnknownId {
        /// What belongs to them.
        what: String,
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// How many users there are.
        n_uids: u64,
    },
    /// The kernel lacks something, or what this process runs in forbids it.
    #[error("containers need {missing}, which isn't available here")]
    Missing {
        /// What, and since when Linux has it.
        missing: &'static str,
    },
    /// A system call of the builder's side failed.
    #[error("cannot {step}: {source}")]
    System {
        /// What was attempted.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step inside the new container failed.
    #[error("cannot set the container up: {step}: {source}")]
    Setup {
        /// What was attempted.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The image asks for something that would lead out of the container, or makes its protection impossible.
    #[error("refused to start the container: {reason}")]
    Refused {
        /// What is wrong with the image or the request.
        reason: String,
    },
    /// A network namespace could not be connected to the outside.
    #[error("{reason}")]
    Network {
        /// Which program failed, and what it said.
        reason: String,
    },
    /// The program that containers were to be made with can't be used, or failed.
    #[error("the OCI runtime {program} {reason}")]
    Runtime {
        /// Which program.
        program: String,
        /// What is wrong with it, or what it said.
        reason: String,
    },
    /// The kernel refused a limit.
    #[error("cannot set {option}: {source} (`{value}` in {file})")]
    Limit {
        /// The flag that asked for it.
        option: &'static str,
        /// Where it was written to.
        file: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The helper ended without a report.
    #[error("the sandbox helper was killed")]
    HelperDied,
    /// The run was cancelled.
    #[error("the container was stopped because the build was cancelled")]
    Cancelled,
}

/// Short form of the module's results.
pub(crate) type Result<T> = std::result::Result<T, SandboxError>;

/// Names the step that failed.
pub(super) trait Step<T> {
    /// Adds what was attempted, for the builder's side.
    fn step(self, step: impl Into<String>) -> Result<T>;
    /// Adds what was attempted, inside the container.
    fn setup(self, step: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Step<T> for std::result::Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T> {
        self.map_err(|source| SandboxError::System {
            step: step.into(),
            source: source.into(),
        })
    }

    fn setup(self, step: impl Into<String>) -> Result<T> {
        self.map_err(|source| SandboxError::Setup {
            step: step.into(),
            source: source.into(),
        })
    }
}
