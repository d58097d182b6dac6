//! What a container is asked to be: plain data, checked by whoever runs it.
//!
//! Nothing here touches the kernel. [`Settings`] crosses to the helper as JSON; descriptors cross beside it.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::attach::MountPoint;
use super::cgroup::Cgroup;
use super::limits::Ulimit;
use super::lower::Lower;
use super::upper::Upper;

/// One container: its layers, and what runs in it.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    /// The root's layers, top first. At most [`Spec::MAX_LOWERS`].
    pub(crate) lowers: &'a [&'a Lower],
    /// Where changes go; `None` makes the root read-only. Good for one run.
    pub(crate) upper: Option<&'a Upper>,
    /// What else is mounted. At most `attach::MAX_MOUNTS`; good for one run.
    pub(crate) mounts: &'a [MountPoint],
    /// The network namespace, for [`Net::Own`] and nothing else.
    pub(crate) network: Option<BorrowedFd<'a>>,
    /// The control groups that it is a member of, if it is to have limits.
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// The process and its surroundings.
    pub(crate) settings: &'a Settings,
}

impl Spec<'_> {
    /// Overlayfs takes 500 lower layers; one is the sandbox's own (mountpoints), so that none enters the upper.
    pub(crate) const MAX_LOWERS: usize = 499;
}

/// Which network the container has, after the choice was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Net {
    /// An own namespace with loopback only.
    None,
    /// The host's.
    Host,
    /// An own namespace with access to the outside: [`Spec::network`].
    Own,
}

/// What a container may do to the machine. Nothing lies between, and there is no third: what isn't one of these can't be
/// asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Privilege {
    /// The default profile.
    Sandbox,
    /// Whatever the build may: all its capabilities, every system call, `/proc` and `/sys` as they are, devices.
    Insecure,
}

/// A process and what surrounds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The program and its arguments; a program without `/` is looked up in the container's `PATH`.
    pub(crate) args: Vec<String>,
    /// The environment, complete and in order.
    pub(crate) env: Vec<(String, String)>,
    /// Absolute working directory; made (0755, owned by the user) when missing.
    pub(crate) cwd: String,
    /// User.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one included.
    pub(crate) groups: Vec<u32>,
    /// Becomes `HOME` when the environment has none.
    pub(crate) home: Option<String>,
    /// Host name.
    pub(crate) hostname: String,
    /// Content of `/etc/hosts`.
    pub(crate) hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
    /// Network.
    pub(crate) net: Net,
    /// What it may do to the machine.
    pub(crate) privilege: Privilege,
    /// Files that are there during the run only, read-only, mode 0755: absolute path to content.
    pub(crate) scripts: BTreeMap<String, String>,
    /// Size of `/dev/shm`, in bytes.
    pub(crate) shm_size_bytes: u64,
    /// Limits of every process; those that aren't named are the builder's own.
    pub(crate) ulimits: Vec<Ulimit>,
    /// Puts a small process 1 above the process, which reaps orphans.
    pub(crate) has_init: bool,
    /// Gives the process a terminal of this size instead of the three streams.
    pub(crate) terminal: Option<TerminalSize>,
}

/// Size of `/dev/shm` where nobody says, as with docker.
pub(crate) const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TerminalSize {
    /// Lines.
    pub(crate) rows: u16,
    /// Characters per line.
    pub(crate) columns: u16,
}

impl Default for Settings {
    /// `true` as root in `/`, with the default profile and no network.
    fn default() -> Self {
        Self {
            args: vec!["true".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: None,
            hostname: "buildkitsandbox".to_owned(),
            hosts: "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
                .to_owned(),
            resolv_conf: String::new(),
            net: Net::None,
            privilege: Privilege::Sandbox,
            scripts: BTreeMap::new(),
            shm_size_bytes: DEFAULT_SHM_BYTES,
            ulimits: Vec::new(),
            has_init: false,
            terminal: None,
        }
    }
}

/// The streams of the process.
pub(crate) struct Stdio<'a> {
    /// Standard input; `None` is `/dev/null`.
    pub(crate) stdin: Option<BorrowedFd<'a>>,
    /// Standard output.
    pub(crate) stdout: BorrowedFd<'a>,
    /// Standard error.
    pub(crate) stderr: BorrowedFd<'a>,
    /// Receives the terminal's master side when the settings ask for a terminal.
    pub(crate) on_terminal: Option<Box<dyn FnOnce(OwnedFd) + Send + 'a>>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// The exit code; 128 plus the signal's number for a killed process, 126 and 127 when nothing could be executed.
    pub(crate) code: i32,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// The kernel's OOM killer was at work in the container, where it has a memory limit; else on this machine while
    /// the process ran, and the code is SIGKILL's.
    pub(crate) oom: bool,
    /// The limit that it ran into, for people.
    pub(crate) limit: Option<String>,
    /// Why nothing could be executed, for people.
    pub(crate) why: Option<String>,
}
