//! kill -9 at random instants, and at system calls of every kind that matters.

use super::{Numbers, Trial, is_long};

/// What a build may do to the disk, to mounts and to processes. Some of it no build does today: then nothing is killed.
const CALLS: [&str; 21] = [
    "openat2",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "mount",
    "fsmount",
    "move_mount",
    "clone3",
    "execve",
    "flock",
    "fcntl",
    "ftruncate",
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
        // How long the build takes was measured once, and the machine may be faster by now.
        n_killed * 10 >= n_trials,
        "only {n_killed} of {n_trials} were killed"
    );
}

#[test]
fn kill_at_system_calls() {
    // hardening R03: the sweep over system calls; the first of each; in the long form on to the last
    let Some(trial) = Trial::new("kill_at_system_calls", &["root", "exec:strace"]) else {
        return;
    };
    let mut n_killed = 0;
    for call in CALLS {
        let is_killed = |when: u64| {
            let inject = format!("inject={call}:signal=KILL:when={when}");
            let output = trial.build_traced(call, &inject);
            trial.recovers(&inject, &output);
            trial.forget();
            output.code != Some(0)
        };
        // Counted for each thread, most of which make fewer calls than the build as a whole: until none makes so many.
        // Threads share the work differently each time, so that it takes several that survive to say so.
        let mut n_survived = 0;
        let mut when = 1;
        while n_survived < 3 {
            match is_killed(when) {
                true => (n_killed, n_survived) = (n_killed + 1, 0),
                false => n_survived += 1,
            }
            if !is_long() {
                break;
            }
            // What is done hundreds of times is the same again and again.
            when += 1 + when / 10;
        }
    }
    assert!(n_killed >= 10, "only {n_killed} builds were killed");
}
