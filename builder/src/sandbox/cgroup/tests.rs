//! Control groups: what is read and written, and, where this machine lets groups be made, what they do.

use super::super::limits::Swap;
use super::*;

const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn the_groups_of_this_process_are_found() {
    let check = |memberships: &str, controller: &str, expected: Option<&str>| {
        let found = Hierarchies::parse(V1, memberships);
        let limits = Limits {
            memory_bytes: (controller == "memory").then_some(1),
            cpu_shares: (controller == "cpu").then_some(1),
            ..Limits::default()
        };
        let mut warnings = Vec::new();
        let places = found.places(&settings::wanted(&limits), None, &mut warnings);
        let dirs: Vec<_> = places.keys().map(|place| place.dir.to_str().unwrap()).collect();
        assert_eq!(dirs, Vec::from_iter(expected), "{memberships}");
        assert_eq!(warnings.is_empty(), expected.is_some(), "{warnings:?}");
    };
    check("4:cpu,cpuacct:/\n", "cpu", Some("/sys/fs/cgroup/cpu,cpuacct/"));
    check(
        "4:cpu,cpuacct:/a/b\n",
        "cpu",
        Some("/sys/fs/cgroup/cpu,cpuacct/a/b"),
    );
    check(
        "2:memory:/docker/abc/x\n",
        "memory",
        Some("/sys/fs/cgroup/memory/x"),
    );
    // Outside of what is mounted, and outside of the namespace.
    check("2:memory:/docker/abd\n0::/\n", "memory", None);
    check("4:cpu,cpuacct:/../x\n", "cpu", None);
    check("", "memory", None);
}

#[test]
fn a_parent_is_below_the_own_group_or_absolute() {
    let found = Hierarchies::parse(V1, "4:cpu,cpuacct:/a\n");
    let limits = Limits {
        cpu_shares: Some(5),
        ..Limits::default()
    };
    for (parent, expected) in [
        ("/builds", "/sys/fs/cgroup/cpu,cpuacct/builds"),
        ("builds", "/sys/fs/cgroup/cpu,cpuacct/a/builds"),
    ] {
        let places = found.places(&settings::wanted(&limits), Some(parent), &mut Vec::new());
        assert_eq!(places.keys().next().unwrap().dir, Path::new(expected));
    }
}

/// Checks the files and contents of limits in both versions, each as `file content`.
fn check_settings(limits: &Limits, v1: &[&str], v2: &[&str]) {
    let wanted = settings::wanted(limits);
    let of = |pick: fn(&Setting) -> &(&'static str, String)| -> Vec<String> {
        let pairs = wanted.iter().map(pick);
        pairs
            .filter(|(file, _)| !file.is_empty())
            .map(|(file, value)| format!("{file} {value}"))
            .collect()
    };
    assert_eq!(of(|setting| &setting.v1), v1, "{limits:?}");
    assert_eq!(of(|setting| &setting.v2), v2, "{limits:?}");
}

#[test]
fn memory_is_limited_as_each_version_wants_it() {
    let check = |memory_and_swap, v1: [&str; 2], v2: [&str; 2]| {
        let limits = Limits {
            memory_bytes: Some(100),
            memory_and_swap,
            ..Limits::default()
        };
        check_settings(&limits, &v1, &v2);
    };
    check(
        None,
        ["memory.limit_in_bytes 100", "memory.memsw.limit_in_bytes 200"],
        ["memory.max 100", "memory.swap.max 100"],
    );
    check(
        Some(Swap::Bytes(100)),
        ["memory.limit_in_bytes 100", "memory.memsw.limit_in_bytes 100"],
        ["memory.max 100", "memory.swap.max 0"],
    );
    check(
        Some(Swap::Unlimited),
        ["memory.limit_in_bytes 100", "memory.memsw.limit_in_bytes -1"],
        ["memory.max 100", "memory.swap.max max"],
    );
}

#[test]
fn other_limits_are_written_as_each_version_wants_them() {
    let none = Limits::default;
    check_settings(&none(), &[], &[]);
    let cpu = Limits {
        cpu_quota_us: Some(50_000),
        cpu_shares: Some(1024),
        ..none()
    };
    let v1 = [
        "cpu.cfs_period_us 100000",
        "cpu.cfs_quota_us 50000",
        "cpu.shares 1024",
    ];
    check_settings(&cpu, &v1, &["cpu.max 50000 100000", "cpu.weight 39"]);
    let rest = Limits {
        cpuset_cpus: Some("0-1".to_owned()),
        n_pids: Some(7),
        ..none()
    };
    let inherited = format!("cpuset.mems {}", settings::INHERIT);
    check_settings(
        &rest,
        &["cpuset.cpus 0-1", &inherited, "pids.max 7"],
        &["cpuset.cpus 0-1", "pids.max 7"],
    );
}

/// A version 2 hierarchy as files in a directory: enough to see which group is chosen.
#[test]
fn version_2_groups_are_made_where_controllers_are_handed_on() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(path.parent().unwrap())
            .unwrap();
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let check = |own: &str, expected: Option<&str>| {
        let mounts = format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw", root.path().display());
        let found = Hierarchies::parse(&mounts, &format!("0::{own}\n"));
        let limits = Limits {
            n_pids: Some(1),
            ..Limits::default()
        };
        let mut warnings = Vec::new();
        let places = found.places(&settings::wanted(&limits), None, &mut warnings);
        let dirs: Vec<_> = places.keys().map(|place| place.dir.clone()).collect();
        let expected = expected.map(|path| root.path().join(path));
        assert_eq!(dirs, Vec::from_iter(expected), "{own}: {warnings:?}");
    };
    put("delegated/cgroup.subtree_control", "memory pids\n");
    check("/delegated", Some("delegated"));
    // A file that isn't there can't be written: as if the kernel refused.
    put("slice/cgroup.subtree_control", "pids\n");
    put("slice/service/cgroup.procs", "1\n");
    check("/slice/service", Some("slice"));
    put("slice/limited/pids.max", "100\n");
    check("/slice/limited", None);
    put("other/service/cgroup.procs", "1\n");
    check("/other/service", None);
}

#[test]
fn sizes_are_written_for_people() {
    for (bytes, expected) in [
        (256 << 20, "256 MiB"),
        (3 << 30, "3 GiB"),
        (1 << 10, "1 KiB"),
        (1000, "1000 bytes"),
        (0, "0 bytes"),
    ] {
        assert_eq!(human(bytes), expected);
    }
}
