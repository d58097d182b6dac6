//! Tars that other programs make, in every format: kept byte for byte, and mounted as what they were made from.

use std::path::Path;
use std::process::Command;

use super::treecmp::{Tree, assert_same, scan};
use super::*;

const TREE: &str = r#"
umask 022
mkdir -p a/b empty
echo hello > a/b/file
chmod 4755 a/b/file
ln a/b/file hard
ln -s a/b/file soft
mkfifo fifo
echo x > $(printf 'n%.0s' $(seq 90))
truncate -s 3M holes
printf start | dd of=holes conv=notrunc status=none
printf middle | dd of=holes bs=1 seek=1048576 conv=notrunc status=none
printf end | dd of=holes bs=1 seek=3145725 conv=notrunc status=none
truncate -s 1M hole
find . -exec touch -h -d @1500000000 {} +
"#;

const LONG: &str = r#"
D=d$(printf 'x%.0s' $(seq 200)); mkdir -p $D/$D; echo deep > $D/$D/f
ln -s $(printf 'q%.0s' $(seq 300)) longlink
ln $D/$D/f longhard
chown 3000000:3000000 longhard
find . -exec touch -h -d @1500000000 {} +
"#;

fn shell(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .arg("-euc")
        .arg(script)
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(status.success(), "{script}");
}

fn imported(tar: &[u8]) -> LayerFile {
    let layer = open(import(tar, scratch(), Limits::default()).unwrap());
    let mut out = Vec::new();
    layer.tar_reader().read_to_end(&mut out).unwrap();
    assert!(out == tar, "the tar comes out as it went in");
    layer
}

fn check(what: &str, tar: &[u8], source: &Tree) {
    let layer = imported(tar);
    assert_eq!(layer.index().unwrap().len(), source.len(), "{what}");
    // Reads every file and compares its hash, whether or not it can be mounted.
    show(&layer);
    if mount::works() {
        let mounted = mount::erofs(layer.file(), &[]).unwrap();
        assert_same(what, source, &scan(&mount::place(&mounted)));
    }
}

#[test]
fn every_format_of_gnu_tar() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    shell(dir.path(), TREE);
    let tar = |options: &str| {
        let script = format!("tar {options} --sort=name -cf - .");
        let output = Command::new("sh")
            .arg("-euc")
            .arg(script)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    let formats = |names: &[&str], source: &Tree| {
        for format in names {
            check(format, &tar(format), source);
        }
    };
    let simple = ["--format=v7 --exclude=./fifo", "--format=ustar"];
    let source = scan(dir.path().to_str().unwrap());
    let mut without_fifo = source.clone();
    without_fifo.remove(&b"fifo"[..]);
    formats(&simple[..1], &without_fifo);
    formats(&simple[1..], &source);
    if rustix::process::geteuid().is_root() {
        shell(dir.path(), LONG);
    }
    let source = scan(dir.path().to_str().unwrap());
    formats(
        &[
            "--format=gnu",
            "--format=oldgnu",
            "--format=pax",
            "--format=gnu -S --hole-detection=raw",
            "--format=pax -S --sparse-version=0.0",
            "--format=pax -S --sparse-version=0.1",
            "--format=pax -S --sparse-version=1.0",
        ],
        &source,
    );
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    shell(
        dir.path(),
        "truncate -s 2G holes; printf end | dd of=holes bs=1 seek=1G conv=notrunc status=none",
    );
    let output = Command::new("tar")
        .args(["-S", "-cf", "-", "holes"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let layer = open(import(&output.stdout[..], scratch(), Limits::default()).unwrap());
    assert!(layer.file_bytes() > 2 << 30);
    assert!(layer.file().metadata().unwrap().blocks() < 1000);
}

#[test]
fn zeros_that_are_copied_become_holes() {
    use std::os::unix::fs::MetadataExt;
    let mut content = vec![0; 40 << 20];
    content[(20 << 20) + 7] = 1;
    content.push(2);
    let mut writer = LayerWriter::create(scratch()).unwrap();
    writer
        .add(path("holes"), Meta::default(), file(&mut &content[..]))
        .unwrap();
    let layer = open(writer.finish().unwrap());
    assert!(layer.file_bytes() > 40 << 20);
    // Two of its chunks have something, and so have headers and index.
    let n_blocks = layer.file().metadata().unwrap().blocks();
    assert!(n_blocks < 4 * 2048, "{n_blocks} blocks");
    // Reads the tar again: what isn't there counts as it was.
    let again = open(import(layer.tar_reader(), scratch(), Limits::default()).unwrap());
    assert_eq!(again.diff_id(), layer.diff_id());
    assert_eq!(again.index().unwrap(), layer.index().unwrap());
}

#[test]
fn python_reads_what_we_write() {
    let lines = ["d a", "f a/f hello", "l a/l f", "h a/h a/f", "w gone"];
    let layer = layer(&lines).unwrap();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tar = dir.path().join("layer.tar");
    layer.copy_tar(&File::create(&tar).unwrap()).unwrap();
    let script = "import sys, tarfile\nfor m in tarfile.open(sys.argv[1]): print(m.name, m.type.decode(), m.linkname, m.size)";
    match Command::new("python3").args(["-c", script]).arg(&tar).output() {
        Err(error) => skip(&format!("python3: {error}")),
        Ok(output) => {
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text, "a 5  0\na/f 0  5\na/l 2 f 0\na/h 1 a/f 0\n.wh.gone 0  0\n");
        }
    }
}
