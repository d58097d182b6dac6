//! Disks that are full or fail: errors of every call that writes, and file systems of every size.

use super::{Numbers, Trial, is_long};

const CALLS: [&str; 17] = [
    "pwrite64",
    "pwritev",
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
    "renameat2",
    "linkat",
    "mkdir",
    "mkdirat",
    "write",
];
const ERRORS: [&str; 4] = ["ENOSPC", "EIO", "EDQUOT", "EROFS"];

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
            false => vec![(ERRORS[place % 4], 1 + numbers.below(3))],
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
    let mut kinds: Vec<String> = match is_long() {
        true => (1..=64).map(|size| format!("size={size}m")).collect(),
        false => [1, 3, 4, 6, 8].map(|size| format!("size={size}m")).to_vec(),
    };
    let few: &[u32] = if is_long() {
        &[10, 20, 30, 40, 50, 60, 80]
    } else {
        &[20, 40]
    };
    kinds.extend(few.iter().map(|number| format!("size=64m,nr_inodes={number}")));
    let mut n_failed = 0;
    for kind in kinds {
        trial.on(
            &format!("mount -t tmpfs -o {kind},mode=700 tmpfs \"$STORE\""),
            || {
                let output = trial.scene.run("ashlar", &trial.args());
                trial.failed_or_right(&kind, &output);
                if output.code != Some(0) {
                    let said = output.stderr_text();
                    assert!(
                        said.contains("No space left") || said.contains("is full"),
                        "{kind}: {said}"
                    );
                    n_failed += 1;
                }
                let more = "mount -o remount,size=256m,nr_inodes=10000 \"$STORE\"";
                trial.scene.must("sh", &["-c", more]);
                trial.builds_right(&kind);
                let checked = trial.scene.run("ashlar", &["check", "--deep"]);
                assert_eq!(checked.code, Some(0), "{kind}: {}", checked.stdout_text());
            },
        );
    }
    assert!(n_failed >= 4, "only {n_failed} builds failed");
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
    // Nothing is left of what could be written only half; the disk of an output is no reason to remove what is in the store.
    for output in ["tar", "oci,compression=uncompressed", "docker"] {
        check(
            &format!(
                "mkdir -p small && mount -t tmpfs -o size=100k tmpfs small && {{ code=0; ashlar build -o type={output},dest=small/out.tar -f - . << E || code=$?\nFROM scratch\nCOPY data /\nCOPY data /data2\nE\nls small > left; umount small; exit $code; }}"
            ),
            3,
        );
        let left = scene.must("cat", &["left"]).stdout_text();
        assert_eq!(left, "", "half an output was left: {output}");
    }
    check(
        "mount -t tmpfs -o size=100k tmpfs small && { code=0; ashlar build -o small -f - . << E || code=$?\nFROM scratch\nCOPY data /\nCOPY data /data2\nE\numount small; exit $code; }",
        3,
    );
    check("ashlar save -o /dev/full app", 3);
    check("ashlar save app > /dev/full", 3);
    trial.is_sound("full outputs");
}

#[test]
fn logs_that_cannot_be_written() {
    // hardening R05: a full disk where a step's output is kept costs a warning
    let Some(trial) = Trial::new("logs_that_cannot_be_written", &["root"]) else {
        return;
    };
    let noise = "FROM busybox\nRUN head -c 3000000 /dev/urandom | base64 && echo made > /made\n";
    std::fs::write(trial.scene.work().join("Dockerfile"), noise).unwrap();
    let mut args = trial.args();
    args.retain(|arg| !arg.starts_with("--output"));
    let script =
        "mkdir -p -m 700 \"$STORE/logs\"; mount -t tmpfs -o size=256k,mode=700 tmpfs \"$STORE/logs\"";
    trial.scene.must("sh", &["-ec", script]);
    let output = trial.scene.run("ashlar", &args);
    trial.scene.must("sh", &["-c", "umount \"$STORE/logs\""]);
    let said = output.stderr_text();
    assert_eq!(output.code, Some(0), "{said}");
    assert!(said.contains("could not be kept"), "no warning");
    let made = trial
        .scene
        .must("ashlar", &["run", "--rm", "app", "cat", "/made"]);
    assert_eq!(made.stdout_text(), "made\n");
    trial.is_sound("full logs");
}

#[test]
fn files_that_may_not_grow() {
    // hardening R05: a limit of the size of files is an error like any other, not a signal that ends it without a word
    let Some(trial) = Trial::new("files_that_may_not_grow", &["root"]) else {
        return;
    };
    let own = trial.args().join("' '");
    // Blocks of 512 bytes: below what the base's layer needs, and below what the output needs.
    for limit in [1000, 3000] {
        let script = format!("ulimit -f {limit}; ashlar '{own}'");
        let output = trial.scene.run("sh", &["-c", &script]);
        let said = output.stderr_text();
        assert_eq!(output.code, Some(3), "{limit}: {said}");
        assert!(
            said.contains("File too large") && said.contains("ulimit -f"),
            "{limit}: {said}"
        );
        trial.failed_or_right("a limit", &output);
        trial.recovers("a limit", &output);
        trial.forget();
    }
    // Programs that a step runs get the signal as everywhere.
    let step = "FROM busybox\nRUN ulimit -f 1; head -c 100000 /dev/zero > /big; test $? = 153\n";
    std::fs::write(trial.scene.work().join("Dockerfile"), step).unwrap();
    trial.scene.must("ashlar", &trial.args());
}

#[test]
fn syncs_that_fail() {
    // hardening R05: whoever can't make it durable says so, and isn't believed the next time
    let Some(trial) = Trial::new("syncs_that_fail", &["root", "exec:strace"]) else {
        return;
    };
    let last = if is_long() { 12 } else { 1 };
    for when in 1..=last {
        let inject = format!("inject=fsync,fdatasync:error=EIO:when={when}+");
        let output = trial.build_traced("fsync,fdatasync", &inject);
        assert!(
            when > 1 || output.code == Some(3),
            "{inject}: {}",
            output.stderr_text()
        );
        trial.failed_or_right(&inject, &output);
        trial.recovers(&inject, &output);
        trial.forget();
    }
}

#[test]
fn a_full_disk_is_made_room_on() {
    // hardening R05: what nobody needs goes, once, and the build begins again; what was finished stays
    let Some(trial) = Trial::new("a_full_disk_is_made_room_on", &["root"]) else {
        return;
    };
    let scene = &trial.scene;
    let noise = "FROM busybox\nARG SIZE\nRUN echo small > /small\nRUN head -c $SIZE /dev/urandom > /noise\n";
    std::fs::write(scene.work().join("noise"), noise).unwrap();
    let context = format!("busybox={}", crate::rootfs::busybox().display());
    let build = |size: &str, more: &[&str]| {
        let size = format!("--build-arg=SIZE={size}");
        let words = [
            "build",
            "--progress=plain",
            "-f",
            "noise",
            "--build-context",
            &context,
            &size,
        ];
        scene.run("ashlar", &[&words[..], more, &["."]].concat())
    };
    // The automatic ceiling stays out of it.
    let no_ceiling = ["--gc-max-used-space=0", "--gc-min-free-space=0"];
    trial.on("mount -t tmpfs -o size=36m,mode=700 tmpfs \"$STORE\"", || {
        let cached = build("12000000", &[&no_ceiling[..], &["-o", "type=cacheonly"]].concat());
        assert_eq!(cached.code, Some(0), "{}", cached.stderr_text());
        let kept = build("11000000", &[&no_ceiling[..], &["-t", "kept"]].concat());
        assert_eq!(kept.code, Some(0), "{}", kept.stderr_text());
        let third = build("16000000", &[&no_ceiling[..], &["-t", "third"]].concat());
        let said = third.stderr_text();
        assert_eq!(third.code, Some(0), "{said}");
        assert_eq!(said.matches("beginning once more").count(), 1, "{said}");
        let size = scene.must("ashlar", &["run", "--rm", "third", "wc", "-c", "/noise"]);
        assert_eq!(size.stdout_text(), "16000000 /noise\n");
        // An image is never what goes.
        scene.must("ashlar", &["run", "--rm", "kept", "test", "-s", "/noise"]);
        // More than the whole disk: it is tried once again, and said.
        let never = build("50000000", &no_ceiling);
        let said = never.stderr_text();
        assert_eq!(never.code, Some(3), "{said}");
        assert!(said.contains("No space left"), "{said}");
        assert!(said.matches("beginning once more").count() <= 1, "{said}");
        // To look deeply takes room, too.
        scene.must("ashlar", &["check"]);
    });
}
