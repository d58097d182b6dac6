//! The default profile: which system calls, capabilities and kernel files a container has. Docker's, as facts.
//!
//! Data only; `profile.json` holds the system calls (`allow`; `deny` is known and refused; anything newer than the
//! newest name of either is "not implemented"). There is one profile: an unknown mode can't be asked for.

use serde::Deserialize;

/// CHOWN, DAC_OVERRIDE, FSETID, FOWNER, MKNOD, NET_RAW, SETGID, SETUID, SETFCAP, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT,
/// KILL, AUDIT_WRITE.
pub(super) const CAPABILITIES: u64 = 0xa804_25fb;

/// Kernel files that tell about the machine: containerd's list and Docker's additions. Missing ones are skipped.
pub(super) const MASKED: &[&str] = &[
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
    "sys/firmware",
    "sys/devices/virtual/powercap",
];

/// Kernel files that must not be written.
pub(super) const READ_ONLY: &[&str] = &[
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// Devices of `/dev`: name, major, minor; all 0666.
pub(super) const DEVICES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links of `/dev`: name, target.
pub(super) const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The system-call table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) errno: Vec<ErrnoRule>,
    pub(super) allow_when: Vec<ConditionalRule>,
}

/// A system call that always fails with a certain error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrnoRule {
    pub(super) name: String,
    pub(super) errno: u16,
}

/// A system call that is allowed when all tests hold; several rules for one name are alternatives.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConditionalRule {
    pub(super) name: String,
    pub(super) all: Vec<Test>,
}

/// `arg & mask` compared with `value`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    pub(super) arg: u8,
    pub(super) op: Comparison,
    #[serde(default = "all_bits")]
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Comparison {
    Eq,
    Ne,
}

fn all_bits() -> u64 {
    u64::MAX
}

/// Returns the default profile.
pub(super) fn default_profile() -> Profile {
    serde_json::from_str(include_str!("profile.json")).expect("because a test parses the committed table")
}
