//! What a process of a container sees, and what it can't do.

use super::*;

/// hardening T09: nothing is inheritable or ambient.
#[test]
fn the_default_profile_is_dockers() {
    if skipped() {
        return;
    }
    let outcome = sh("grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; umask; echo $$");
    let expected = "Groups:\t0 \nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n0022\n1\n";
    assert_eq!(outcome.output, expected);
    let user = Settings {
        uid: 1000,
        gid: 1001,
        groups: vec![29, 1001],
        ..shell("id -u; id -g; grep -E '^(Cap|Groups)' /proc/self/status")
    };
    let outcome = run_in(busybox().path(), &user);
    let expected = "1000\n1001\nGroups:\t29 1001 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                    CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n";
    assert_eq!(outcome.output, expected);
}

#[test]
fn the_mounts_are_the_profiles_and_nothing_of_the_host() {
    if skipped() {
        return;
    }
    // Target, type and the attributes that protect; masks depend on the kernel and are checked by their effect.
    let outcome =
        sh("awk '{t=$5; split($0,h,\" - \"); split(h[2],f,\" \"); print t, f[1], $6}' /proc/self/mountinfo");
    let found: Vec<&str> = outcome.output.lines().collect();
    for expected in [
        "/ overlay rw,nodev,relatime",
        "/proc proc rw,nosuid,nodev,noexec,relatime",
        "/sys sysfs ro,nosuid,nodev,noexec,relatime",
        "/dev tmpfs rw,nosuid,nodev",
        match needs_the_machines_root() {
            false => "/dev/null tmpfs rw,nosuid,noexec,relatime",
            true => "/dev/null devtmpfs ro,nosuid,noexec,relatime",
        },
        "/dev/pts devpts rw,nosuid,noexec,relatime",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime",
        "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
        "/etc/hosts tmpfs ro,nosuid,nodev,noexec,relatime",
        "/etc/resolv.conf tmpfs ro,nosuid,nodev,noexec,relatime",
        "/proc/sys proc ro,nosuid,nodev,noexec,relatime",
    ] {
        assert!(found.contains(&expected), "{expected} not in {found:#?}");
    }
    let known = ["/", "/proc", "/sys", "/dev", "/etc/hosts", "/etc/resolv.conf"];
    for line in &found {
        let target = line.split(' ').next().unwrap();
        let ours = known.contains(&target)
            || ["/dev/", "/proc/", "/sys/firmware", "/sys/devices/"]
                .iter()
                .any(|below| target.starts_with(below));
        assert!(ours, "unexpected mount {line}");
    }
    assert!(!outcome.output.contains("cgroup"));
}

/// hardening T12
#[test]
fn masked_files_are_empty_and_kernel_settings_read_only() {
    if skipped() {
        return;
    }
    for path in crate::sandbox::profile::MASKED {
        let outcome = sh(&format!(
            "if [ -d /{path} ]; then ls /{path}; elif [ -e /{path} ]; then cat /{path}; fi"
        ));
        assert_eq!(outcome.output, "", "/{path}");
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/profiling",
    ] {
        let outcome = sh(&format!("echo x > {path}"));
        assert!(
            outcome.output.contains("Read-only file system") || outcome.output.contains("nonexistent"),
            "{path}: {}",
            outcome.output
        );
    }
}

/// hardening T14
#[test]
fn devices_are_dockers_and_no_other_can_be_opened() {
    if skipped() {
        return;
    }
    let outcome = sh(
        "ls /dev; echo x > /dev/null; dd if=/dev/zero bs=1 count=1 2>/dev/null | wc -c 2>/dev/null || busybox wc -c < /dev/null",
    );
    let names: Vec<&str> = outcome.output.lines().take(14).collect();
    for name in [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ] {
        assert!(names.contains(&name), "{name} not in {names:?}");
    }
    if needs_the_machines_root() {
        // There no node can be made at all, and those that are there are the machine's: nobody may change them.
        let outcome = sh("mknod /d b 8 0; chmod 600 /dev/null; echo x > /dev/zero && echo written");
        let expected =
            "mknod: /d: Operation not permitted\nchmod: /dev/null: Read-only file system\nwritten\n";
        assert_eq!(outcome.output, expected);
        return;
    }
    // CAP_MKNOD is there; opening what it makes is not, wherever it is made.
    for place in ["/d", "/dev/d", "/dev/shm/d"] {
        let outcome = sh(&format!(
            "mknod {place} b 8 0 && echo made; dd if={place} of=/dev/null count=1; echo x > {place}"
        ));
        let denied = outcome.output.matches("Permission denied").count();
        assert!(
            outcome.output.starts_with("made\n") && denied == 2,
            "{place}: {}",
            outcome.output
        );
    }
}

#[test]
fn only_the_three_streams_are_open_and_stdin_is_empty() {
    if skipped() {
        return;
    }
    let outcome = sh("for f in /proc/$$/fd/*; do echo ${f##*/}; done; cat; echo end");
    let fds: Vec<&str> = outcome
        .output
        .lines()
        .filter(|line| line.parse::<u32>().is_ok_and(|fd| fd < 255))
        .collect();
    // The glob's own directory descriptor may show as 3.
    assert!(
        fds == ["0", "1", "2"] || fds == ["0", "1", "2", "3"],
        "{}",
        outcome.output
    );
    assert!(outcome.output.ends_with("end\n"), "{}", outcome.output);
    let outcome = sh("ls -l /proc/1/fd /proc/1/cwd /proc/1/root /proc/1/exe");
    assert!(
        !outcome.output.contains("memfd") && !outcome.output.contains("socket"),
        "{}",
        outcome.output
    );
}

#[test]
fn the_environment_is_exactly_the_settings_one() {
    if skipped() {
        return;
    }
    let env = [("PATH", "/bin"), ("B", "2 = two"), ("A", "1")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec();
    let settings = Settings {
        args: vec!["env".to_owned()],
        env,
        home: Some("/home/u".to_owned()),
        ..Settings::default()
    };
    let outcome = run_in(busybox().path(), &settings);
    assert_eq!(outcome.output, "PATH=/bin\nB=2 = two\nA=1\nHOME=/home/u\n");
    let env = [("PATH", "/bin"), ("HOME", "/mine")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec();
    let outcome = run_in(busybox().path(), &Settings { env, ..settings });
    assert_eq!(outcome.output, "PATH=/bin\nHOME=/mine\n");
}

#[test]
fn a_network_of_its_own_has_loopback_only() {
    if skipped() {
        return;
    }
    let outcome = sh("busybox ip -o link | awk '{print $2, $3}'; busybox hostname");
    assert_eq!(outcome.output, "lo: <LOOPBACK,UP,LOWER_UP>\nbuildkitsandbox\n");
}
