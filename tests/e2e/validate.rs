//! What must be true of a store and of the machine when a test is over.
//!
//! Every layer file is a sound EROFS image, nothing is half written, nothing is mounted, nothing runs; no loop device
//! serves a file of the test, its group of processes has none below it, no hierarchy of control groups has one that a
//! command of the test made, and its directory for temporary files is empty (H-LEAK: what a test shares with the others, such
//! as /tmp and /dev/shm, can't be told from theirs; namespaces and deleted files end with the processes).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::machine;
use crate::scene::Scene;

/// How long processes may take to disappear after the command that started them has ended.
const GRACE: Duration = Duration::from_secs(5);
/// How long loop devices may: a build of another test that began meanwhile has their mounts in its namespace, to its end.
const LOOP_GRACE: Duration = Duration::from_secs(60);

/// Fails the test unless its place is left in order; said with everything that is wrong.
pub(crate) fn finish(scene: Scene) {
    let problems = problems(&scene);
    assert!(
        problems.is_empty(),
        "{}: left in disorder:\n  {}",
        scene.name(),
        problems.join("\n  ")
    );
}

/// Returns everything that is wrong with what the test left behind, one line each.
pub(crate) fn problems(scene: &Scene) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(processes(scene).into_iter().map(|p| format!("process left: {p}")));
    found.extend(
        mounts(scene.dir())
            .into_iter()
            .map(|m| format!("mount left: {m}")),
    );
    found.extend(held(scene).into_iter().map(|h| format!("left: {h}")));
    // A script may have used further stores, beside its files.
    let work = std::fs::read_dir(scene.work()).into_iter().flatten().flatten();
    let others = work
        .map(|entry| entry.path())
        .filter(|path| path.join("layers").is_dir() && path.join("incomplete").is_dir());
    for store in std::iter::once(scene.store()).chain(others) {
        found.extend(store_problems(&store));
    }
    found
}

/// Returns what is wrong with the files of the store at `root`.
pub(crate) fn store_problems(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in files_below(&root.join("incomplete")) {
        found.push(format!("incomplete: {} was left", path.display()));
    }
    let Some(fsck) = machine::find_program("fsck.erofs") else {
        machine::skip("validate/fsck.erofs", "erofs-utils is not installed");
        return found;
    };
    for layer in files_below(&root.join("layers")) {
        let checked = std::process::Command::new(&fsck).arg(&layer).output().unwrap();
        if !checked.status.success() {
            let said = String::from_utf8_lossy(&checked.stdout).into_owned()
                + &String::from_utf8_lossy(&checked.stderr);
            found.push(format!("fsck.erofs refuses {}: {}", layer.display(), said.trim()));
        }
    }
    found
}

/// Kills everything that still runs in `cgroup`.
pub(crate) fn kill_all(cgroup: &Path) {
    for pid in pids(cgroup) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // It may have ended by itself in the meantime.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn processes(scene: &Scene) -> Vec<String> {
    let deadline = Instant::now() + GRACE;
    loop {
        let mut left: Vec<i32> = scene.cgroup().map(pids).unwrap_or_default();
        left.extend(users_of(&scene.store()));
        left.sort_unstable();
        left.dedup();
        if left.is_empty() || Instant::now() > deadline {
            return left.iter().map(|pid| describe(*pid)).collect();
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Reads the process ids of a cgroup and of those below it.
fn pids(cgroup: &Path) -> Vec<i32> {
    let mut pending = vec![cgroup.to_owned()];
    let mut pids = Vec::new();
    while let Some(dir) = pending.pop() {
        let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        let below = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        pending.extend(
            below
                .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                .map(|e| e.path()),
        );
    }
    pids
}

/// Finds processes that were started with this store, for machines without a usable cgroup tree.
fn users_of(store: &Path) -> Vec<i32> {
    let wanted = format!("ASHLAR_ROOT={}", store.display());
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    listed
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|b| *b == 0)
                .any(|variable| variable == wanted.as_bytes())
        })
        .collect()
}

fn describe(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " "))
}

fn mounts(dir: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = format!("{}/", dir.display());
    table
        .lines()
        .filter(|line| line.contains(&below))
        .map(str::to_owned)
        .collect()
}

/// Finds loop devices, groups of processes and temporary files of this test. The kernel takes its time with the former.
fn held(scene: &Scene) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let mut found = loop_devices(scene.dir());
        let grace = if found.is_empty() { GRACE } else { LOOP_GRACE };
        let groups = scene.cgroup().and_then(|cgroup| std::fs::read_dir(cgroup).ok());
        let groups = groups.into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(
            groups
                .filter(|path| path.is_dir())
                .map(|path| path.display().to_string()),
        );
        found.extend(
            limits(Path::new("/sys/fs/cgroup"), |pid| scene.started(pid))
                .iter()
                .map(|path| path.display().to_string()),
        );
        if found.is_empty() || begun.elapsed() > grace {
            let files = files_below(&scene.dir().join("tmp"));
            found.extend(files.iter().map(|path| path.display().to_string()));
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Finds groups that were made for limits by a process of one of these numbers, beside this process's own in each hierarchy:
/// `ashlar-run-<pid>-<number>`.
fn limits(root: &Path, is_ours: impl Fn(u32) -> bool) -> Vec<PathBuf> {
    let memberships = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else {
            continue;
        };
        for place in [controllers, "unified", ""] {
            let dir = root.join(place).join(own.trim_start_matches('/'));
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let groups = entries.map(|entry| entry.path()).filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let pid = name
                    .strip_prefix("ashlar-run-")
                    .and_then(|rest| rest.split('-').next()?.parse().ok());
                pid.is_some_and(&is_ours)
            });
            found.extend(groups);
        }
    }
    found.sort();
    found.dedup();
    found
}

fn loop_devices(dir: &Path) -> Vec<String> {
    let below = format!("{}/", dir.display());
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let served = devices.filter_map(|device| {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        file.starts_with(&below)
            .then(|| format!("{} serves {}", device.path().display(), file.trim()))
    });
    served.collect()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut pending = vec![dir.to_owned()];
    let mut files = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let into = if entry.file_type().unwrap().is_dir() {
                &mut pending
            } else {
                &mut files
            };
            into.push(entry.path());
        }
    }
    files.sort();
    files
}

#[test]
fn disorder_is_found() {
    let scene = Scene::new("disorder");
    assert_eq!(problems(&scene), Vec::<String>::new());
    std::fs::create_dir_all(scene.store().join("incomplete")).unwrap();
    std::fs::create_dir_all(scene.store().join("layers")).unwrap();
    std::fs::write(scene.store().join("incomplete/half"), "").unwrap();
    std::fs::write(scene.store().join("layers/sha256:00"), "not a layer").unwrap();
    std::fs::write(scene.dir().join("tmp/forgotten"), "").unwrap();
    let found = problems(&scene).join("\n");
    assert!(found.contains("incomplete/half was left"), "{found}");
    assert!(found.contains("tmp/forgotten"), "{found}");
    let has_fsck = machine::find_program("fsck.erofs").is_some();
    assert_eq!(found.contains("fsck.erofs refuses"), has_fsck, "{found}");
}

#[test]
fn a_loop_device_left_behind_is_found() {
    let scene = Scene::new("loop");
    let image = scene.work().join("image");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let made = scene.run("losetup", &["--find", "--show", image.to_str().unwrap()]);
    if made.code != Some(0) {
        return machine::skip("a_loop_device_left_behind_is_found", "no loop device can be made");
    }
    let found = loop_devices(scene.dir());
    scene.must("losetup", &["--detach", made.stdout_text().trim()]);
    assert!(found.iter().any(|line| line.contains("work/image")), "{found:?}");
    finish(scene);
}

#[test]
fn a_group_for_limits_left_behind_is_found() {
    let root = tempfile::tempdir().unwrap();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let Some(line) = own.lines().next() else { return };
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, own) = (fields.next().unwrap(), fields.next().unwrap());
    let dir = root.path().join(controllers).join(own.trim_start_matches('/'));
    for name in ["ashlar-run-77-0", "ashlar-run-78-1", "ashlar-run-x", "other-77-0"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    assert_eq!(
        limits(root.path(), |pid| pid == 77),
        [dir.join("ashlar-run-77-0")]
    );
}

#[test]
fn a_process_left_behind_is_found_and_ended() {
    let scene = Scene::new("left-behind");
    // It is there when it has said so, and stays because nobody answers.
    let script =
        "mkfifo said; setsid sh -c 'echo > said; read answer < said' >/dev/null 2>&1 & read up < said";
    scene.run("sh", &["-c", script]);
    // The environment names the store, so it is found with or without cgroups.
    let left: Vec<i32> = users_of(&scene.store());
    assert_eq!(left.len(), 1, "{left:?}");
    let pid = rustix::process::Pid::from_raw(left[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(problems(&scene), Vec::<String>::new());
}
