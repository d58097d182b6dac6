//! Files of more bytes than 32 bits count, and than the size field of a tar holds, from context to layer.
//!
//! All of one is a hole but for a few bytes, and must be one in the store as well. One size by default; `ASHLAR_LONG=1`
//! (`sh tests/run --long`) takes all.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

use crate::machine;
use crate::scene::Scene;

const GIB: u64 = 1 << 30;

/// The build must not hold what it copies.
const PEAK_MIB: u64 = 256;

/// Builds, and tells the most memory that this took, in MiB.
const BUILD: &str = "
import resource, subprocess, sys
code = subprocess.run(['ashlar', 'build', '-q', '-t', 'app', '.'], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
";

/// Reads the tar that a layer file has from byte 4096 on, as its only file: size, the bytes that aren't zero, and whether
/// the digest of the tar is the one that the file is called by.
const READ: &str = "
import hashlib, os, sys, tarfile
path, hashed = sys.argv[1], sys.argv[2] == 'hashed'
file = open(path, 'rb')
file.seek(4096)
tar = tarfile.open(fileobj=file)
member = tar.next()
parts = []
for at in (0, member.size // 2, member.size - 3):
    file.seek(member.offset_data + at)
    parts.append(file.read(3).decode())
end = member.offset_data + -(-member.size // 512) * 512
file.seek(end)
assert file.read(1024) == bytes(1024), 'no end of a tar'
if hashed:
    file.seek(4096)
    sha256, left = hashlib.sha256(), end + 1024 - 4096
    while left:
        part = file.read(min(1 << 20, left))
        sha256.update(part)
        left -= len(part)
    assert sha256.hexdigest() == os.path.basename(path), 'another digest'
print(member.name, member.size, *parts)
";

/// hardening R22: sizes at which numbers end
#[test]
fn sizes_at_which_numbers_end_arrive_as_holes() {
    if let Some(reason) = machine::missing(&["exec:python3"]) {
        return machine::skip("huge", &reason);
    }
    let is_long = std::env::var_os("ASHLAR_LONG").is_some();
    let all = [4 * GIB, 4 * GIB - 1, 8 * GIB - 1, 8 * GIB, 20 * GIB];
    for size_bytes in &all[..if is_long { all.len() } else { 1 }] {
        check(*size_bytes, is_long);
    }
}

fn check(size_bytes: u64, is_hashed: bool) {
    let scene = Scene::new("huge").with_deadline(std::time::Duration::from_secs(1800));
    std::fs::write(scene.work().join("Dockerfile"), "FROM scratch\nCOPY big /\n").unwrap();
    let mut big = std::fs::File::create(scene.work().join("big")).unwrap();
    for (at, text) in [(0, "one"), (size_bytes / 2, "two"), (size_bytes - 3, "end")] {
        big.seek(SeekFrom::Start(at)).unwrap();
        big.write_all(text.as_bytes()).unwrap();
    }
    let built = scene.run("python3", &["-c", BUILD]);
    assert_eq!(built.code, Some(0), "{size_bytes}: {}", built.stderr_text());
    let peak_mib: u64 = built.stdout_text().trim().parse().unwrap();
    assert!(peak_mib < PEAK_MIB, "{size_bytes}: {peak_mib} MiB");
    let layer = layer(&scene);
    let n_kib = std::fs::metadata(&layer).unwrap().blocks() / 2;
    assert!(n_kib < 8 << 10, "{size_bytes}: {n_kib} KiB of a hole");
    let how = if is_hashed { "hashed" } else { "not" };
    let read = scene.run("python3", &["-c", READ, layer.to_str().unwrap(), how]);
    let expected = format!("big {size_bytes} one two end");
    assert_eq!(read.stdout_text().trim(), expected, "{}", read.stderr_text());
}

/// Returns the only layer file of the store.
fn layer(scene: &Scene) -> std::path::PathBuf {
    let layers = std::fs::read_dir(scene.store().join("layers")).unwrap();
    let layers: Vec<_> = layers.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(layers.len(), 1, "{layers:?}");
    layers[0].clone()
}
