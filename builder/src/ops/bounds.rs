//! The limits of one build's containers: settled once, with what the user must hear of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::options::ContainerLimits;
use crate::sandbox::{Cgroup, DEFAULT_SHM_BYTES, SandboxError, Settings, Ulimit};

/// Limits that every container of a build gets.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    limits: ContainerLimits,
    has_warned: AtomicBool,
}

impl Bounds {
    /// Settles limits; tells those that this process may not give.
    pub(crate) fn new(mut limits: ContainerLimits, warn: impl Fn(&str)) -> Self {
        for ulimit in &mut limits.ulimits {
            let (lowered, says) = ulimit.within_reach();
            *ulimit = lowered;
            says.iter().for_each(|says| warn(says));
        }
        let given = open_files();
        if !limits.ulimits.iter().any(|ulimit| ulimit.name == given.name) {
            limits.ulimits.push(given);
        }
        Self {
            limits,
            has_warned: AtomicBool::new(false),
        }
    }

    /// Says whether what a container keeps in memory counts for it. Then its changes must not be kept there.
    pub(crate) fn limits_memory(&self) -> bool {
        self.limits.limits.memory_bytes.is_some()
    }

    /// Tells a container its limits.
    pub(crate) fn apply(&self, settings: &mut Settings) {
        settings.ulimits.clone_from(&self.limits.ulimits);
        settings.shm_size_bytes = self.limits.shm_size_bytes.unwrap_or(DEFAULT_SHM_BYTES);
        settings.has_init = self.limits.has_init;
    }

    /// Makes a container's control groups; tells once what can't be had here.
    pub(crate) fn cgroup(&self, warn: impl Fn(&str)) -> Result<Cgroup, SandboxError> {
        let (cgroup, warnings) = Cgroup::make(&self.limits.limits, self.limits.cgroup_parent.as_deref())?;
        if !warnings.is_empty() && !self.has_warned.swap(true, Ordering::Relaxed) {
            warnings.iter().for_each(|warning| warn(warning));
        }
        Ok(cgroup)
    }
}

/// Returns how many open files this process was given. It takes as many as it may from here on: each container needs some
/// twenty, and there are as many at once as the machine has cores for. Containers get what was given.
fn open_files() -> Ulimit {
    static GIVEN: OnceLock<Rlimit> = OnceLock::new();
    let given = GIVEN.get_or_init(|| {
        let given = getrlimit(Resource::Nofile);
        let most = Rlimit {
            current: given.maximum,
            maximum: given.maximum,
        };
        // Where that is refused, what was given must do.
        let _refused = setrlimit(Resource::Nofile, most);
        given
    });
    Ulimit {
        name: "nofile".to_owned(),
        soft: given.current,
        hard: given.maximum,
    }
}
