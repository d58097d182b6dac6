//! Archives that are small until somebody unpacks them: as layers, in ADD, as contexts, in `load` and `import`.
//!
//! What is measured is the command itself: how long it takes, and the most memory that it ever had.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::machine;
use crate::scene::Scene;
use crate::validate;

/// More memory than this nobody needs for data that streams.
const MAX_KIB: u64 = 256 << 10;
/// A bomb that works so long has done its harm. Ten seconds are asked for, of a machine that has nothing else to do.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Runs a command, its input from `$0`, and writes the most memory it had to `peak`.
const WATCH: &str = r#"
"$@" <"$0" >said 2>&1 & pid=$!
while grep VmHWM /proc/$pid/status >peak.new 2>/dev/null; do cat peak.new >peak; sleep 0.02; done
code=0; wait $pid || code=$?
cat said; exit $code
"#;

/// Makes a tar of a file of a terabyte of zeros, in 33 MB: a zstd frame of blocks that are one byte each, over and over.
fn terabyte(name: &str) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_size((1 << 40) - 512);
    header.set_mode(0o644);
    header.set_cksum();
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    let mut block = |kind: u32, size: u32, content: &[u8]| {
        out.extend_from_slice(&(size << 3 | kind << 1).to_le_bytes()[..3]);
        out.extend_from_slice(content);
    };
    block(0, 512, header.as_bytes());
    for _ in 0..(1_u64 << 40) / u64::from(BLOCK) {
        block(1, BLOCK, &[0]);
    }
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes an OCI layout of one image, whose only layer is `blob`.
fn layout(dir: &Path, blob: &[u8], diff_id: &str) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = cache::Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        serde_json::json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()})
    };
    let config = serde_json::json!({"os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let manifest = serde_json::json!({"schemaVersion": 2,
        "config": put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
        "layers": [put("application/vnd.oci.image.layer.v1.tar+zstd", blob)]});
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let index =
        serde_json::json!({"schemaVersion": 2, "manifests": [put(kind, manifest.to_string().as_bytes())]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

/// Runs a command that meets a bomb; returns its exit code and what it said.
fn watch(scene: &Scene, input: &str, words: &[&str]) -> (Option<i32>, String) {
    let begun = Instant::now();
    let args = [&["-c", WATCH, input][..], words].concat();
    let output = scene.run("sh", &args);
    let said = output.stdout_text();
    assert!(
        begun.elapsed() < MAX_TIME,
        "{words:?} took {:?}: {said}",
        begun.elapsed()
    );
    let peak = std::fs::read_to_string(scene.work().join("peak")).unwrap();
    let peak_kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kib < MAX_KIB, "{words:?}: {peak}");
    (output.code, said)
}

#[test]
fn bombs_are_refused_soon_and_cheaply() {
    // hardening T48
    if let Some(reason) = machine::missing(&["root"]) {
        machine::skip("bombs", &reason);
        return;
    }
    let scene = Scene::new("bombs");
    let work = scene.work();
    let bomb = terabyte("zeros");
    std::fs::write(work.join("bomb"), &bomb).unwrap();
    layout(
        &work.join("layout"),
        &bomb,
        &format!("sha256:{}", "0f".repeat(32)),
    );
    drop(bomb);
    std::fs::write(work.join("add"), "FROM scratch\nADD bomb /\n").unwrap();
    std::fs::write(work.join("from"), "FROM bombs\nCOPY add /\n").unwrap();
    let cases: [(&str, &[&str]); 5] = [
        ("/dev/null", &["ashlar", "load", "-i", "layout"]),
        ("bomb", &["ashlar", "load"]),
        ("bomb", &["ashlar", "build", "-q", "-"]),
        ("/dev/null", &["ashlar", "build", "-q", "-f", "add", "."]),
        (
            "/dev/null",
            &[
                "ashlar",
                "build",
                "-q",
                "--build-context",
                "bombs=oci-layout://layout",
                "-f",
                "from",
                ".",
            ],
        ),
    ];
    for (input, words) in cases {
        let (code, said) = watch(&scene, input, words);
        assert!(code.is_some_and(|code| code != 0), "{words:?}: {said}");
        assert!(said.contains("unpacked size limit"), "{words:?}: {said}");
        // What had been unpacked by then is gone.
        let kept = scene
            .must("du", &["-sk", &scene.store().display().to_string()])
            .stdout_text();
        let kept_kib: u64 = kept.split_whitespace().next().unwrap().parse().unwrap();
        assert!(kept_kib < 40 << 10, "{words:?}: {kept}");
    }
    let (code, said) = watch(&scene, "bomb", &["ashlar", "import", "-", "zeros"]);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("unpacked size limit"), "{said}");
    validate::finish(scene);
}

#[test]
fn a_million_empty_members_and_archives_in_archives_stay_small() {
    // hardening T48
    if let Some(reason) = machine::missing(&["root"]) {
        machine::skip("bombs_nested", &reason);
        return;
    }
    let scene = Scene::new("bombs_nested");
    let work = scene.work();
    std::fs::write(work.join("empties"), gzip(b"").repeat(1_000_000)).unwrap();
    let (code, said) = watch(&scene, "empties", &["ashlar", "load"]);
    assert!(code.is_some_and(|code| code != 0), "{said}");
    std::fs::write(work.join("add"), "FROM scratch\nADD empties /\n").unwrap();
    watch(&scene, "/dev/null", &["ashlar", "build", "-q", "-f", "add", "."]);

    // Only the outermost is taken apart.
    let mut inner = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(100_000);
    header.set_mode(0o644);
    inner
        .append_data(&mut header, "zeros", &vec![0; 100_000][..])
        .unwrap();
    let inner = gzip(&inner.into_inner().unwrap());
    let mut outer = tar::Builder::new(Vec::new());
    header.set_size(inner.len() as u64);
    outer
        .append_data(&mut header, "inner.tar.gz", &inner[..])
        .unwrap();
    std::fs::write(work.join("outer.tar.gz"), gzip(&outer.into_inner().unwrap())).unwrap();
    std::fs::write(work.join("nested"), "FROM scratch\nADD outer.tar.gz /\n").unwrap();
    let (code, said) = watch(
        &scene,
        "/dev/null",
        &["ashlar", "build", "-o", "out", "-f", "nested", "."],
    );
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(std::fs::read(work.join("out/inner.tar.gz")).unwrap(), inner);
    assert_eq!(std::fs::read_dir(work.join("out")).unwrap().count(), 1);
    validate::finish(scene);
}
