//! What limits are in the files of control groups. Pure. Spec: linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/.

use super::super::limits::{Limits, Swap};

/// Stands for what the parent group has.
pub(super) const INHERIT: &str = "(inherit)";
/// The kernel's period, in microseconds, for who says nothing about it.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// One limit, in both versions. An empty file name means that this version needs nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The flag that asked for it.
    pub(super) option: &'static str,
    /// The controller that enforces it.
    pub(super) controller: &'static str,
    /// File and content, version 1.
    pub(super) v1: (&'static str, String),
    /// File and content, version 2.
    pub(super) v2: (&'static str, String),
}

/// Returns what limits come to, in the order in which it must be written.
pub(super) fn wanted(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    memory(limits, &mut settings);
    cpu(limits, &mut settings);
    cpuset(limits, &mut settings);
    if let Some(n_pids) = limits.n_pids {
        let value = n_pids.to_string();
        settings.push(Setting {
            option: "--pids-limit",
            controller: "pids",
            v1: ("pids.max", value.clone()),
            v2: ("pids.max", value),
        });
    }
    settings
}

fn memory(limits: &Limits, settings: &mut Vec<Setting>) {
    let Some(bytes) = limits.memory_bytes else { return };
    settings.push(Setting {
        option: "--memory",
        controller: "memory",
        v1: ("memory.limit_in_bytes", bytes.to_string()),
        v2: ("memory.max", bytes.to_string()),
    });
    // As docker: who limits memory and says nothing about swap gets as much again of that.
    let (option, total) = match limits.memory_and_swap {
        None => ("--memory", Some(bytes.saturating_mul(2))),
        Some(Swap::Bytes(total)) => ("--memory-swap", Some(total)),
        Some(Swap::Unlimited) => ("--memory-swap", None),
    };
    settings.push(Setting {
        option,
        controller: "memory",
        // Version 1 counts both together, version 2 swap alone.
        v1: (
            "memory.memsw.limit_in_bytes",
            total.map_or_else(|| "-1".to_owned(), |total| total.to_string()),
        ),
        v2: (
            "memory.swap.max",
            total.map_or_else(
                || "max".to_owned(),
                |total| (total.saturating_sub(bytes)).to_string(),
            ),
        ),
    });
}

fn cpu(limits: &Limits, settings: &mut Vec<Setting>) {
    if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
        let period = limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
        let quota = |none: &str| {
            limits
                .cpu_quota_us
                .map_or_else(|| none.to_owned(), |quota| quota.to_string())
        };
        settings.push(Setting {
            option: "--cpu-period",
            controller: "cpu",
            v1: ("cpu.cfs_period_us", period.to_string()),
            v2: ("", String::new()),
        });
        settings.push(Setting {
            option: "--cpus or --cpu-quota",
            controller: "cpu",
            v1: ("cpu.cfs_quota_us", quota("-1")),
            v2: ("cpu.max", format!("{} {period}", quota("max"))),
        });
    }
    if let Some(shares) = limits.cpu_shares {
        settings.push(Setting {
            option: "--cpu-shares",
            controller: "cpu",
            v1: ("cpu.shares", shares.to_string()),
            v2: ("cpu.weight", weight(shares).to_string()),
        });
    }
}

/// Brings 2 to 262144 shares to a weight of 1 to 10000, in proportion, as container runtimes do.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

fn cpuset(limits: &Limits, settings: &mut Vec<Setting>) {
    if limits.cpuset_cpus.is_none() && limits.cpuset_mems.is_none() {
        return;
    }
    let lists = [
        ("--cpuset-cpus", "cpuset.cpus", &limits.cpuset_cpus),
        ("--cpuset-mems", "cpuset.mems", &limits.cpuset_mems),
    ];
    for (option, file, list) in lists {
        settings.push(Setting {
            option,
            controller: "cpuset",
            v1: (file, list.clone().unwrap_or_else(|| INHERIT.to_owned())),
            v2: match list {
                Some(list) => (file, list.clone()),
                None => ("", String::new()),
            },
        });
    }
}
