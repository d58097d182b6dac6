//! What containers may use, where this machine lets control groups be made.

use super::*;
use crate::sandbox::{Cgroup, Limits, Ulimit};

/// Runs a script with limits; `None` where no group can be made.
fn limited(limits: &Limits, script: &str) -> Option<Exit> {
    let (cgroup, warnings) = Cgroup::make(limits, None).unwrap();
    if !warnings.is_empty() {
        skip(&warnings.join("; "));
        return None;
    }
    let root = busybox();
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let upper = Upper::tmpfs(1 << 20).unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let settings = shell(script);
    let spec = Spec {
        lowers: &[&lower],
        upper: Some(&upper),
        mounts: &[],
        network: None,
        cgroup: Some(&cgroup),
        settings: &settings,
    };
    let stdio = Stdio {
        stdin: None,
        stdout: null.as_fd(),
        stderr: null.as_fd(),
        on_terminal: None,
    };
    let exit = crate::sandbox::run(helper(), &spec, stdio, Cancel::never()).unwrap();
    let paths = cgroup.paths();
    assert!(
        !paths.is_empty() && paths.iter().all(|path| path.is_dir()),
        "{paths:?}"
    );
    drop(cgroup);
    assert!(!paths.iter().any(|path| path.is_dir()), "{paths:?} stay");
    Some(exit)
}

/// hardening T19, R42: what takes too much memory is killed, and it is said why.
#[test]
fn a_memory_limit_is_enforced_and_named() {
    if skipped() {
        return;
    }
    let limits = Limits {
        memory_bytes: Some(32 << 20),
        memory_and_swap: Some(crate::sandbox::Swap::Bytes(32 << 20)),
        ..Limits::default()
    };
    let greedy = "awk 'BEGIN { text = \"x\"; while (1) text = text text }'";
    let Some(exit) = limited(&limits, greedy) else {
        return;
    };
    assert!(exit.oom && exit.code == 137, "{exit:?}");
    assert_eq!(exit.limit.as_deref(), Some("out of memory: the limit is 32 MiB"));
    // Somebody else's SIGKILL isn't taken for it.
    let exit = limited(&limits, "sh -c 'kill -9 $$'; exit $?").unwrap();
    assert!(!exit.oom && exit.code == 137 && exit.limit.is_none(), "{exit:?}");
}

/// hardening T19: a fork bomb fills its own group only.
#[test]
fn a_limit_of_processes_is_enforced_and_named() {
    if skipped() {
        return;
    }
    let limits = Limits {
        n_pids: Some(16),
        ..Limits::default()
    };
    let bomb = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1000 & done; exit 1";
    let Some(exit) = limited(&limits, bomb) else {
        return;
    };
    assert_eq!(
        exit.limit.as_deref(),
        Some("out of processes: the limit is 16"),
        "{exit:?}"
    );
    let exit = limited(&limits, "exit 1").unwrap();
    assert_eq!((exit.code, exit.limit), (1, None));
}

#[test]
fn a_cpuset_is_what_the_container_sees() {
    if skipped() {
        return;
    }
    let limits = Limits {
        cpuset_cpus: Some("0".to_owned()),
        cpu_quota_us: Some(50_000),
        cpu_shares: Some(512),
        ..Limits::default()
    };
    let Some(exit) = limited(
        &limits,
        "[ $(grep -w Cpus_allowed_list /proc/self/status | awk '{ print $2 }') = 0 ]",
    ) else {
        return;
    };
    assert_eq!(exit.code, 0);
}

/// What a machine refuses is an error that says what was wanted of it.
#[test]
fn a_limit_that_the_kernel_refuses_is_an_error() {
    if skipped() {
        return;
    }
    let limits = Limits {
        cpuset_cpus: Some("4000".to_owned()),
        ..Limits::default()
    };
    match Cgroup::make(&limits, None) {
        Ok((_, warnings)) => skip(&warnings.join("; ")),
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.contains("cannot set --cpuset-cpus") && text.contains("`4000`"),
                "{text}"
            );
        }
    }
}

/// hardening R40: groups of a build that was killed go with the next one; those of a living one stay.
#[test]
fn groups_that_nobody_holds_are_swept_away() {
    if skipped() {
        return;
    }
    let limits = Limits {
        n_pids: Some(16),
        ..Limits::default()
    };
    let (held, warnings) = Cgroup::make(&limits, None).unwrap();
    let Some(path) = held.paths().pop() else {
        return skip(&warnings.join("; "));
    };
    let left = path.with_file_name("ashlar-run-0-0");
    std::fs::DirBuilder::new().create(&left).unwrap();
    let (_other, _) = Cgroup::make(&limits, None).unwrap();
    assert!(!left.exists() && path.exists());
}

/// case R48: hardening R47: a limit is set where it was asked for, and the builder's own is kept elsewhere.
#[test]
fn ulimits_are_set_and_others_are_the_builders() {
    if skipped() {
        return;
    }
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let check = |ulimits: Vec<Ulimit>, soft: String, hard: String| {
        let settings = Settings {
            ulimits,
            ..shell("ulimit -Sn; ulimit -Hn")
        };
        let outcome = run_in(busybox().path(), &settings);
        assert_eq!(outcome.output, format!("{soft}\n{hard}\n"));
    };
    check(Vec::new(), text(own.current), text(own.maximum));
    let nofile = Ulimit {
        name: "nofile".to_owned(),
        soft: Some(100),
        hard: Some(200),
    };
    check(vec![nofile], "100".to_owned(), "200".to_owned());
}
