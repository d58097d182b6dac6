//! Disks that are full or fail: errors of every call that writes, and file systems of every size.

use super::{Numbers, Trial, is_long};

const CALLS: [&str; 15] = [
    "pwrite64",
    "writev",
    "copy_file_range",
    "sendfile",
    "splice",
    "fallocate",
    "ftruncate",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "linkat",
    "mkdir",
    "mkdirat",
    "write",
];
const ERRORS: [&str; 3] = ["ENOSPC", "EIO", "EDQUOT"];

#[test]
fn writes_that_fail() {
    // hardening R05: the sweep of errors; never a wrong image with exit code 0, and the next build is right
    let Some(trial) = Trial::new("writes_that_fail", &["root", "exec:strace"]) else {
        return;
    };
    let mut numbers = Numbers(11);
    let mut n_failed = 0;
    for (place, call) in CALLS.into_iter().enumerate() {
        let trials: Vec<(&str, u64)> = match is_long() {
            true => ERRORS
                .into_iter()
                .flat_map(|error| [1, 2, 3, 5, 9, 20].map(|when| (error, when)))
                .collect(),
            false => vec![(ERRORS[place % 3], 1 + numbers.below(3))],
        };
        for (error, when) in trials {
            // From then on; but without any write nothing could be said of it.
            let on = if call == "write" { "" } else { "+" };
            let inject = format!("inject={call}:error={error}:when={when}{on}");
            let output = trial.build_traced(call, &inject);
            n_failed += usize::from(output.code != Some(0));
            trial.failed_or_right(&inject, &output);
            trial.recovers(&inject, &output);
            trial.forget();
        }
    }
    assert!(n_failed >= 4, "only {n_failed} builds failed");
}

#[test]
fn stores_that_are_too_small() {
    // hardening R05: file systems of growing sizes; the message says what is full, and after room was made all is right
    let Some(trial) = Trial::new("stores_that_are_too_small", &["root"]) else {
        return;
    };
    let store = trial.scene.store().display().to_string();
    let mut kinds: Vec<String> = match is_long() {
        true => (1..=40).map(|size| format!("size={size}m")).collect(),
        false => [1, 2, 3, 4, 6, 8].map(|size| format!("size={size}m")).to_vec(),
    };
    kinds.extend([20, 40, 60].map(|number| format!("size=64m,nr_inodes={number}")));
    let mut n_failed = 0;
    for kind in kinds {
        let options = format!("{kind},mode=700");
        trial
            .scene
            .must("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &store]);
        let output = trial.scene.run("ashlar", &trial.args());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            trial.failed_or_right(&kind, &output);
            if output.code != Some(0) {
                let said = output.stderr_text();
                assert!(said.contains("No space left"), "{kind}: {said}");
            }
            let more = "remount,size=256m,nr_inodes=10000";
            trial.scene.must("mount", &["-o", more, &store]);
            let again = trial.scene.run("ashlar", &trial.args());
            assert_eq!(again.code, Some(0), "{kind}: {}", again.stderr_text());
            assert!(
                trial.take_result().is_some_and(|bytes| bytes == trial.clean),
                "{kind}"
            );
            let checked = trial.scene.run("ashlar", &["check", "--deep"]);
            assert_eq!(checked.code, Some(0), "{kind}: {}", checked.stdout_text());
        }));
        trial.scene.must("umount", &[&store]);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        n_failed += usize::from(output.code != Some(0));
    }
    assert!(n_failed >= 4, "only {n_failed} builds failed");
}

#[test]
fn stores_on_other_file_systems() {
    // hardening R12: a tmpfs, and an overlay on which no overlay can stand; hardening R10: building again adds nothing
    let Some(trial) = Trial::new("stores_on_other_file_systems", &["root"]) else {
        return;
    };
    let store = trial.scene.store().display().to_string();
    let aside = trial.scene.aside("overlay").display().to_string();
    let overlay = "mkdir -p \"$1/l\" \"$1/u\" \"$1/w\"; mount -t overlay -o \"lowerdir=$1/l,upperdir=$1/u,workdir=$1/w\" overlay \"$STORE\"";
    for mount in ["mount -t tmpfs -o mode=700 tmpfs \"$STORE\"", overlay] {
        trial.scene.must("sh", &["-ec", mount, "mount", &aside]);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            trial.builds_right(mount);
            // Of what is known of files there is one file, when they are old enough to be known.
            let files = || {
                let script = "find \"$STORE\" -not -path '*/logs*' -not -name files.memo | sort";
                trial.scene.must("sh", &["-c", script]).stdout_text()
            };
            let before = files();
            let n_builds = if is_long() { 500 } else { 5 };
            for _ in 0..n_builds {
                trial.builds_right(mount);
            }
            assert_eq!(files(), before, "{mount}: the store grew");
        }));
        trial.scene.must("umount", &[&store]);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn outputs_that_are_full() {
    // hardening R05: what is written for others fails aloud
    let Some(trial) = Trial::new("outputs_that_are_full", &["root"]) else {
        return;
    };
    let scene = &trial.scene;
    let check = |script: &str, code: i32| {
        let output = scene.run("sh", &["-c", script]);
        assert_eq!(output.code, Some(code), "{script}: {}", output.stderr_text());
        assert!(output.stderr_text().contains("No space left"), "{script}");
    };
    scene.must("ashlar", &trial.args());
    check("ashlar images > /dev/full", 3);
    check(
        "ashlar build -q --build-context busybox=$PWD/none -f - . > /dev/full << E\nFROM scratch\nCOPY data /\nE",
        3,
    );
    check(
        "mkdir small && mount -t tmpfs -o size=100k tmpfs small && { ashlar build -o type=tar,dest=small/out.tar -f - . << E\nFROM scratch\nCOPY data /\nCOPY data /data2\nE\ncode=$?; ls small; umount small; exit $code; }",
        3,
    );
    let listed = scene.run("sh", &["-c", "ls small"]);
    assert_eq!(listed.stdout_text(), "", "half an output was left");
    trial.is_sound("full outputs");
}
