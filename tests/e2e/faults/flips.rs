//! Flipped bits in every kind of file that a store has: never a wrong image, and all is right after a repair.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::{Numbers, Trial, is_long};
use crate::registry::{Options, Registry};
use crate::scene::{Output, Scene};

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
    let output = trial.keep();
    let mut numbers = Numbers(0xdead_beef);
    let n_flips = if is_long() { 100 } else { 3 };
    for (kind, must_be_right) in KINDS {
        for _ in 0..n_flips {
            trial.again();
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
    trial.keep();
    let check = |what: &str| {
        trial.again();
        let script = format!("cd \"$STORE\" && {what}");
        trial.scene.must("sh", &["-ec", &script]);
        let _said = trial.builds_right(what);
        // Damaged files that no step needs any more.
        let repaired = trial.scene.run("ashlar", &["check", "--deep", "--repair"]);
        assert_eq!(repaired.code, Some(0), "{what}: {}", repaired.stdout_text());
        let problems = crate::validate::problems(&trial.scene);
        assert_eq!(problems, Vec::<String>::new(), "{what}");
    };
    check("rm layers/*");
    check("rm blobs/sha256/*");
    check("rm index index-wal index-shm || true");
    check("for file in layers/*; do : > $file; done");
    check("for file in layers/*; do truncate -s 5000 $file; done");
    check("rm $(ls -d layers/* | tail -n 2)");
    check("head -c 8192 /dev/urandom > index");
    // The header is right: that it is damaged shows only while it is used.
    check(
        "dd if=/dev/urandom of=index bs=4096 seek=1 conv=notrunc count=$(($(wc -c < index) / 4096 - 1)) 2> /dev/null",
    );
    check("dd if=/dev/zero of=index bs=4096 seek=2 conv=notrunc count=1 2> /dev/null");
    check("rm -r locks leases gate || true");
    let n_trials = if is_long() { 40 } else { 3 };
    for seed in 1..=n_trials {
        // Any of them, in any combination.
        check(&format!(
            "ls -d layers/* blobs/sha256/* | awk 'BEGIN {{ srand({seed}) }} rand() < 0.5' | xargs rm -f"
        ));
    }
}

/// Saves the image, and returns the archive with what was said.
fn save(scene: &Scene) -> (Output, Option<Vec<u8>>) {
    let path = scene.work().join("saved.tar");
    let _stale = std::fs::remove_file(&path);
    let output = scene.run("ashlar", &["save", "-o", "saved.tar", "app"]);
    (output, std::fs::read(path).ok())
}

/// Pushes the image, and returns the digest that the registry has then with what was said.
fn push(scene: &Scene, remote: &str) -> (Output, String) {
    let output = scene.run("ashlar", &["push", "-q", remote]);
    let place = format!("docker://{remote}");
    let words = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &place];
    (output, scene.run("skopeo", &words).stdout_text())
}

#[test]
fn flipped_bits_on_their_way_out() {
    // hardening R06: what is saved or pushed is right, or it is an error that says what was set aside; then it is made again
    let name = "flipped_bits_on_their_way_out";
    let Some(trial) = Trial::new(name, &["root"]) else {
        return;
    };
    let scene = &trial.scene;
    let Some(mut registry) = Registry::start(name, &scene.aside("registry"), Options::default()) else {
        return;
    };
    let remote = format!("{}/app:1", registry.host);
    scene.must("ashlar", &trial.args());
    scene.must("ashlar", &["tag", "app", &remote]);
    let (clean, digest) = (save(scene).1.unwrap(), push(scene, &remote).1);
    trial.keep();
    let mut numbers = Numbers(0x5eed);
    let n_flips = if is_long() { 60 } else { 3 };
    let mut n_refused = 0;
    let config = scene
        .must("ashlar", &["images", "-q", "--no-trunc"])
        .stdout_text();
    let config = config.lines().next().unwrap().replace("sha256:", "blobs/sha256/");
    for kind in [&config, "layers", "blobs/sha256"].repeat(n_flips) {
        trial.again();
        let Some(what) = flip(&trial, kind, &mut numbers) else {
            continue;
        };
        // So that nothing of it is there yet: otherwise what is damaged needn't be sent.
        registry.forget();
        let (saving, archive) = save(scene);
        assert!(
            archive.is_none_or(|bytes| bytes == clean),
            "{what}: another image was saved"
        );
        let (pushing, pushed) = push(scene, &remote);
        let is_right = pushed.is_empty() || pushed == digest;
        assert!(is_right, "{what}: another image was pushed");
        for output in [saving, pushing] {
            let said = output.stderr_text();
            // What the other one set aside is missing.
            let words = [
                "is set aside",
                "isn't here",
                "not in the store",
                "not found",
                "No such file",
            ];
            match output.code {
                Some(0) => {}
                Some(1 | 3) if words.iter().any(|word| said.contains(word)) => n_refused += 1,
                other => panic!("{what}: exit code {other:?}: {said}"),
            }
        }
        // Without a repair: what was set aside is made again. What nobody had to read is still wrong.
        let said = trial.builds_right(&what);
        scene.must("ashlar", &["tag", "app", &remote]);
        let codes = (save(scene).0.code, push(scene, &remote).0.code);
        assert_eq!(codes, (Some(0), Some(0)), "{what}: {said}");
        let repaired = scene.run("ashlar", &["check", "--deep", "--repair"]);
        assert!(
            matches!(repaired.code, Some(0 | 1)),
            "{what}: {}",
            repaired.stderr_text()
        );
        let _said = trial.builds_right(&what);
    }
    assert!(n_refused > 0, "no flip was met");
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
