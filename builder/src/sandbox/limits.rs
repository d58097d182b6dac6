//! What a container may use of the machine, as asked for: plain data. Control groups enforce [`Limits`] (`cgroup`),
//! the kernel's limits of processes are [`Ulimit`]s.

use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::error::{Result, Step as _};
use super::userns::Namespace;

/// Limits of a container as a whole; `None` is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory, without swap.
    pub(crate) memory_bytes: Option<u64>,
    /// Memory and swap together. Without it, as much swap as memory.
    pub(crate) memory_and_swap: Option<Swap>,
    /// CPU time in each period, in microseconds.
    pub(crate) cpu_quota_us: Option<u64>,
    /// That period.
    pub(crate) cpu_period_us: Option<u64>,
    /// Weight against others, 1024 being everybody's.
    pub(crate) cpu_shares: Option<u64>,
    /// CPUs that may be used: `0-2,4`.
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes that may be used.
    pub(crate) cpuset_mems: Option<String>,
    /// Processes and threads.
    pub(crate) n_pids: Option<u64>,
}

/// How much memory and swap may be used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swap {
    /// This many bytes.
    Bytes(u64),
    /// As much swap as there is.
    Unlimited,
}

impl Limits {
    /// Says whether there are any.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A limit of every process of a container. Spec: setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ulimit {
    /// Docker's name of it: `nofile`. One of [`Ulimit::NAMES`].
    pub(crate) name: String,
    /// What counts; the process may raise it up to `hard`. `None` is no limit.
    pub(crate) soft: Option<u64>,
    /// The most that the process can ask for.
    pub(crate) hard: Option<u64>,
}

const RESOURCES: &[(&str, Resource)] = &[
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl Ulimit {
    /// Returns the names that there are.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        RESOURCES.iter().map(|(name, _)| *name)
    }

    fn resource(&self) -> Option<Resource> {
        RESOURCES
            .iter()
            .find(|(name, _)| *name == self.name)
            .map(|(_, resource)| *resource)
    }

    /// Lowers what this process may not raise; the second value says so, for people.
    pub(crate) fn within_reach(&self) -> (Self, Option<String>) {
        let may_raise = Namespace::current().is_initial()
            && rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
        match self.resource() {
            Some(resource) if !may_raise => self.at_most(rustix::process::getrlimit(resource).maximum),
            _ => (self.clone(), None),
        }
    }

    fn at_most(&self, most: Option<u64>) -> (Self, Option<String>) {
        let lower = |wanted: Option<u64>| match (wanted, most) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        };
        let lowered = Self {
            name: self.name.clone(),
            soft: lower(self.soft),
            hard: lower(self.hard),
        };
        let says = (lowered != *self).then(|| {
            let most = most.map_or_else(String::new, |most| most.to_string());
            format!(
                "--ulimit {}: at most {most} here, which raising needs root's CAP_SYS_RESOURCE",
                self.name
            )
        });
        (lowered, says)
    }

    /// Limits this process and those that it starts.
    pub(super) fn apply(&self) -> Result<()> {
        self.apply_to(None)
    }

    /// Limits another process, or this one.
    pub(super) fn apply_to(&self, process: Option<Pid>) -> Result<()> {
        let Some(resource) = self.resource() else {
            return Err(super::SandboxError::Refused {
                reason: format!("there is no ulimit `{}`", self.name),
            });
        };
        let limit = Rlimit {
            current: self.soft,
            maximum: self.hard,
        };
        rustix::process::prlimit(process, resource, limit)
            .map(drop)
            .setup(format!("set the ulimit {}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_raised_is_lowered_and_said() {
        let check = |wanted: (Option<u64>, Option<u64>), most, expected: (Option<u64>, Option<u64>)| {
            let ulimit = Ulimit {
                name: "nofile".to_owned(),
                soft: wanted.0,
                hard: wanted.1,
            };
            let (found, says) = ulimit.at_most(most);
            assert_eq!((found.soft, found.hard), expected, "{wanted:?} of {most:?}");
            assert_eq!(says.is_some(), wanted != expected, "{says:?}");
        };
        check((Some(10), Some(20)), Some(100), (Some(10), Some(20)));
        check((Some(10), Some(200)), Some(100), (Some(10), Some(100)));
        check((Some(200), None), Some(100), (Some(100), Some(100)));
        check((None, None), None, (None, None));
    }
}
