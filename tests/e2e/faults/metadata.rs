//! Everything that a store keeps beside layers and blobs is a memory of work: losing it costs time.

use std::path::{Path, PathBuf};

use super::{Trial, is_long};

/// What is done to a file: `$1` is its path.
const WAYS: [(&str, &str); 5] = [
    ("emptied", ": > \"$1\""),
    ("cut", "truncate -s $(($(stat -c %s \"$1\") / 2)) \"$1\""),
    (
        "zeroed",
        "n=$(stat -c %s \"$1\"); truncate -s 0 \"$1\"; truncate -s $n \"$1\"",
    ),
    (
        "flipped",
        "n=$(stat -c %s \"$1\"); [ $n = 0 ] || { at=$((n / 3)); byte=$(od -An -tu1 -j $at -N 1 \"$1\"); \
         printf \"$(printf '\\\\%03o' $((byte ^ 4)))\" | dd of=\"$1\" bs=1 seek=$at conv=notrunc 2> /dev/null; }",
    ),
    ("deleted", "rm \"$1\""),
];
/// Commands that read what builds don't.
const READERS: [&[&str]; 4] = [&["logs"], &["explain"], &["df"], &["images"]];

#[test]
fn metadata_that_is_lost() {
    // hardening R04: every file in turn, in every way; the build succeeds, is warned of once at most, and nothing panics
    let Some(trial) = Trial::new("metadata_that_is_lost", &["root"]) else {
        return;
    };
    trial.keep();
    let files = files(&trial.scene.store());
    // Of each kind one: the index, the memo of files, what was measured, records of a build, a mount's, locks.
    assert!(files.len() >= 8, "{files:?}");
    for (place, file) in files.iter().enumerate() {
        for (way, (name, script)) in WAYS.into_iter().enumerate() {
            // The index is what everything else is found by.
            let is_chosen = is_long() || file.ends_with("index") || way == place % WAYS.len();
            if !is_chosen {
                continue;
            }
            trial.again();
            let what = format!("{} {name}", file.display());
            let path = trial.scene.store().join(file).display().to_string();
            trial.scene.must("sh", &["-ec", script, "injure", &path]);
            let said = trial.builds_right(&what);
            let n_warnings = said.lines().filter(|line| line.starts_with("warning")).count();
            assert!(n_warnings <= 1, "{what}: {said}");
            for reader in READERS {
                let output = trial.scene.run("ashlar", reader);
                let said = output.stderr_text();
                let is_clear = matches!(output.code, Some(0)) || said.contains("error: ");
                assert!(is_clear && output.code != Some(101), "{what}: {reader:?}: {said}");
            }
            let repaired = trial.scene.run("ashlar", &["check", "--deep", "--repair"]);
            assert_eq!(repaired.code, Some(0), "{what}: {}", repaired.stdout_text());
            trial.is_sound(&what);
        }
    }
}

#[test]
fn an_index_of_another_version() {
    // hardening R04: an older format is brought up to date, nothing is lost; a newer one is kept aside, and said
    let Some(trial) = Trial::new("an_index_of_another_version", &["root", "exec:python3"]) else {
        return;
    };
    trial.keep();
    let change = |commands: &str| {
        trial.again();
        let path = trial.scene.store().join("index").display().to_string();
        let program =
            "import sqlite3, sys\nindex = sqlite3.connect(sys.argv[1])\nindex.executescript(sys.argv[2])";
        trial.scene.must("python3", &["-c", program, &path, commands]);
        trial.builds_right(commands)
    };
    let oldest = "drop table evicted; drop table fetched; drop table variant; pragma user_version = 1";
    let said = change(oldest);
    assert!(!said.contains("warning") && said.contains("CACHED"), "{said}");
    trial.is_sound(oldest);
    let newer = "pragma user_version = 1000";
    let said = change(newer);
    assert_eq!(
        said.matches("warning: the index of the store").count(),
        1,
        "{said}"
    );
    trial.is_sound(newer);
    let kept = std::fs::read_dir(trial.scene.store()).unwrap().flatten();
    let is_aside = |name: String| name.starts_with("index.damaged") || name.starts_with("index-damaged");
    let names: Vec<String> = kept
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().cloned().any(is_aside), "{names:?}");
}

/// Returns the files of a store that aren't content, from its root.
fn files(root: &Path) -> Vec<PathBuf> {
    let content = ["layers", "blobs", "incomplete", "unpacked", "damaged"];
    let mut pending = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let is_content = content.iter().any(|part| relative.starts_with(part)) || path.ends_with("data");
            match entry.file_type().unwrap().is_dir() {
                _ if is_content => {}
                true => pending.push(path),
                false => files.push(relative),
            }
        }
    }
    files.sort();
    files
}
