//! kill -9 at random instants, and at system calls of every kind that matters.

use super::{Numbers, Trial, is_long};

/// What a build does to the disk, to mounts and to processes.
const CALLS: [&str; 15] = [
    "openat2",
    "write",
    "pwrite64",
    "fsync",
    "rename",
    "renameat",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "fsmount",
    "move_mount",
    "clone3",
    "execve",
    "flock",
];

#[test]
fn kill_at_random_instants() {
    // hardening R03: and hardening R01, as a deep look after each finds no blob that isn't what its name says
    let Some(trial) = Trial::new("kill_at_random_instants", &["root"]) else {
        return;
    };
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let n_trials = if is_long() { 200 } else { 5 };
    let mut n_killed = 0;
    for _ in 0..n_trials {
        let micros = numbers.below(u64::try_from(trial.took.as_micros()).unwrap());
        let instant = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000 + 1);
        let output = trial.build_under("timeout", &["--foreground", "-s", "KILL", &instant]);
        n_killed += usize::from(output.code != Some(0));
        trial.recovers(&format!("killed after {instant} s"), &output);
        trial.forget();
    }
    assert!(
        n_killed * 2 > n_trials,
        "only {n_killed} of {n_trials} were killed"
    );
}

#[test]
fn kill_at_system_calls() {
    // hardening R03: the sweep over system calls
    let Some(trial) = Trial::new("kill_at_system_calls", &["root", "exec:strace"]) else {
        return;
    };
    let mut n_killed = 0;
    for call in CALLS {
        // Counted for each thread: most have made fewer calls than the build as a whole.
        let whens: Vec<u64> = match is_long() {
            true => vec![1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50, 100],
            false => vec![1],
        };
        for when in whens {
            let inject = format!("inject={call}:signal=KILL:when={when}");
            let output = trial.build_traced(call, &inject);
            n_killed += usize::from(output.code != Some(0));
            trial.recovers(&inject, &output);
            trial.forget();
        }
    }
    assert!(n_killed >= 12, "only {n_killed} builds were killed");
}
