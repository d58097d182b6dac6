//! Flipped bits in every kind of file that a store has: never a wrong image, and all is right after a repair.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::{Numbers, Trial, is_long};

/// Parts of a store, and whether the very next build must be right: what is only a memory of work may be lost.
const KINDS: [(&str, bool); 5] = [
    ("layers", false),
    ("blobs/sha256", false),
    ("index", true),
    ("index-wal", true),
    ("files.memo", true),
];

#[test]
fn flipped_bits() {
    // hardening R06, hardening R04: one bit of a layer, a blob, a config, the index, its journal, the memo of context files
    let Some(trial) = Trial::new("flipped_bits", &["root"]) else {
        return;
    };
    let output = trial.scene.must("ashlar", &trial.args());
    let _result = trial.take_result();
    let store = trial.scene.store().display().to_string();
    let kept = trial.scene.aside("kept").display().to_string();
    trial.scene.must("cp", &["-a", &store, &kept]);
    let mut numbers = Numbers(0xdead_beef);
    let n_flips = if is_long() { 100 } else { 3 };
    for (kind, must_be_right) in KINDS {
        for _ in 0..n_flips {
            trial.scene.must("rm", &["-r", &store]);
            trial.scene.must("cp", &["-a", &kept, &store]);
            let Some(what) = flip(&trial, kind, &mut numbers) else {
                continue;
            };
            let injured = trial.scene.run("ashlar", &trial.args());
            trial.failed_or_right(&what, &injured);
            assert!(
                !must_be_right || injured.code == Some(0),
                "{what}: {}",
                injured.stderr_text()
            );
            let repaired = trial.scene.run("ashlar", &["check", "--deep", "--repair"]);
            assert!(
                matches!(repaired.code, Some(0 | 1)),
                "{what}: {}",
                repaired.stderr_text()
            );
            // What was damaged is made again, and an image that had nothing else has it again.
            let mut before = output.clone();
            before.stderr.clear();
            trial.recovers(&what, &before);
        }
    }
}

#[test]
fn lost_files() {
    // hardening R04, hardening R07: what is deleted, emptied or cut is made again by the very next build
    let Some(trial) = Trial::new("lost_files", &["root"]) else {
        return;
    };
    let store = trial.scene.store().display().to_string();
    let check = |what: &str| {
        trial.scene.must("ashlar", &trial.args());
        let _result = trial.take_result();
        let script = format!("cd \"$STORE\" && {what}");
        trial.scene.must("sh", &["-ec", &script]);
        let output = trial.scene.run("ashlar", &trial.args());
        assert_eq!(output.code, Some(0), "{what}: {}", output.stderr_text());
        let is_same = trial.take_result().is_some_and(|bytes| bytes == trial.clean);
        assert!(is_same, "{what}: {}", output.stderr_text());
        // Damaged files that no step needs any more.
        let repaired = trial.scene.run("ashlar", &["check", "--deep", "--repair"]);
        assert_eq!(repaired.code, Some(0), "{what}: {}", repaired.stdout_text());
        let problems = crate::validate::problems(&trial.scene);
        assert_eq!(problems, Vec::<String>::new(), "{what}");
        trial.scene.must("rm", &["-r", &store]);
        trial.scene.must("mkdir", &["-m", "700", &store]);
    };
    check("rm layers/*");
    check("rm blobs/sha256/*");
    check("rm index index-wal index-shm || true");
    check("rm index");
    check("rm files.memo");
    check("for file in layers/*; do : > $file; done");
    check("for file in layers/*; do truncate -s 5000 $file; done");
    check("rm $(ls -d layers/* | tail -n 2)");
    check(": > index");
    check("head -c 8192 /dev/urandom > index");
    // The header is right: that it is damaged shows only while it is used.
    check(
        "dd if=/dev/urandom of=index bs=4096 seek=1 conv=notrunc count=$(($(wc -c < index) / 4096 - 1)) 2> /dev/null",
    );
    check("dd if=/dev/zero of=index bs=4096 seek=2 conv=notrunc count=1 2> /dev/null");
    check(": > files.memo");
    check("rm -r locks leases gate || true");
}

/// Flips one bit of one file of a kind; says which.
fn flip(trial: &Trial, kind: &str, numbers: &mut Numbers) -> Option<String> {
    let part = trial.scene.store().join(kind);
    let mut files: Vec<PathBuf> = match part.is_dir() {
        true => std::fs::read_dir(&part)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect(),
        false => vec![part],
    };
    files.sort();
    let path = files.swap_remove(usize::try_from(numbers.below(files.len() as u64)).unwrap());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .ok()?;
    let length = file.metadata().unwrap().len();
    if length == 0 {
        return None;
    }
    let at = numbers.below(length);
    let bit = numbers.below(8);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
    Some(format!(
        "bit {bit} of byte {at} of {length} of {}",
        path.display()
    ))
}
