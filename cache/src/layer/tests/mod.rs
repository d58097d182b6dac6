//! Tests of layer files as a whole: made in every way, read back, mounted, compared.
//!
//! Mounting needs root and a kernel with file-backed EROFS; tests that can't say so and pass.

mod foreign;
mod hostile;
mod merged;
mod mount;
mod packed;
mod random;
mod treecmp;

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::sync::OnceLock;

use super::*;
use crate::digest::ContentHash;
use crate::error::Result;

pub(super) fn path(text: &str) -> TreePath {
    TreePath::clean(text.as_bytes())
}

pub(super) fn scratch() -> File {
    tempfile::tempfile_in("/var/tmp").unwrap()
}

/// Makes a place for thousands of small files: in memory where that is possible, disks are slow at these.
pub(super) fn tree_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir_in("/var/tmp").unwrap())
}

pub(super) fn meta(mode: u32) -> Meta {
    Meta {
        mode,
        mtime: Timestamp {
            seconds: 1_600_000_000,
            nanos: 0,
        },
        ..Meta::default()
    }
}

pub(super) fn file<'a>(reader: &'a mut &[u8]) -> Body<'a> {
    Body::File {
        size_bytes: reader.len() as u64,
        reader,
        content: None,
    }
}

/// Opens what was written, as the store does later, and checks it from outside.
pub(super) fn open(written: Written) -> LayerFile {
    let layer = LayerFile::open(written.file, written.diff_id).unwrap();
    assert_eq!(layer.index().unwrap().len(), written.n_entries);
    layer.check_metadata().unwrap();
    fsck(layer.file(), &[]);
    layer
}

/// The simplest kind of layer: what each line says. `d PATH`, `f PATH CONTENT`, `l PATH TARGET`, `h PATH TARGET`,
/// `o PATH` (opaque directory), `w PATH` (whiteout).
pub(super) fn layer(lines: &[&str]) -> Result<LayerFile> {
    let mut writer = LayerWriter::create(scratch())?;
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let mut content = words.get(2).copied().unwrap_or_default().as_bytes();
        let target = content.to_vec();
        let (mode, body) = match words[0] {
            "d" => (0o755, Body::Dir { opaque: false }),
            "o" => (0o755, Body::Dir { opaque: true }),
            "f" => (0o644, file(&mut content)),
            "l" => (0o777, Body::Symlink(target)),
            "h" => (0o644, Body::Hardlink(TreePath::clean(&target))),
            "w" => (0, Body::Whiteout),
            other => panic!("unknown kind {other}"),
        };
        writer.add(path(words[1]), meta(mode), body)?;
    }
    Ok(open(writer.finish()?))
}

/// Shows an index in the same language; implied directories as `i`.
pub(super) fn show(layer: &LayerFile) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let show = |entry: &Entry| match &entry.kind {
        Kind::File(data) => {
            let mut content = Vec::new();
            layer.read_file(data).read_to_end(&mut content).unwrap();
            assert_eq!(
                ContentHash::from(blake3::hash(&content)),
                data.content,
                "{}",
                entry.path
            );
            format!("f {} {}", entry.path, text(&content))
        }
        Kind::Dir { opaque, implied } => {
            let kind = match (opaque, implied) {
                (false, false) => "d",
                (true, false) => "o",
                (false, true) => "i",
                (true, true) => "oi",
            };
            format!("{kind} {}", entry.path)
        }
        Kind::Symlink(target) => format!("l {} {}", entry.path, text(target)),
        Kind::Hardlink(target) => format!("h {} {target}", entry.path),
        Kind::Whiteout => format!("w {}", entry.path),
        other => format!("{other:?} {}", entry.path),
    };
    layer.index().unwrap().iter().map(show).collect()
}

/// Names a file that has no name.
pub(super) fn fd_path(file: &File) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// Says that a test, or a part of it, did not run; `tests/run` looks for these lines.
pub(super) fn skip(reason: &str) {
    let thread = std::thread::current();
    println!("SKIP {}: {reason}", thread.name().unwrap_or("cache"));
}

/// Lets erofs-utils check an image; they may not be installed, or be too old to know blocks below a page.
pub(super) fn fsck(image: &File, devices: &[&File]) {
    static WHY_NOT: OnceLock<String> = OnceLock::new();
    if WHY_NOT.get().is_none() {
        let mut command = Command::new("fsck.erofs");
        command.args(
            devices
                .iter()
                .map(|device| format!("--device={}", fd_path(device))),
        );
        match command.arg(fd_path(image)).output() {
            Err(error) => drop(WHY_NOT.set(error.to_string())),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                if text.contains("blksize 512 isn't supported on this platform") {
                    drop(WHY_NOT.set(text.into_owned()));
                } else {
                    assert!(output.status.success(), "fsck.erofs: {} {text}", output.status);
                }
            }
        }
    }
    if let Some(text) = WHY_NOT.get() {
        skip(&format!("fsck.erofs: {text}"));
    }
}

#[test]
fn what_is_added_is_in_the_index() {
    let layer = layer(&[
        "d a",
        "f a/f hello",
        "l a/l f",
        "h a/h a/f",
        "w gone",
        "o b",
        "d c",
        "w c/x",
    ])
    .unwrap();
    let expected = [
        "i /",
        "d /a",
        "f /a/f hello",
        "h /a/h /a/f",
        "l /a/l f",
        "o /b",
        "d /c",
        "w /c/x",
        "w /gone",
    ];
    assert_eq!(show(&layer), expected);
    assert!(layer.stands_alone());
}

#[test]
fn the_last_word_counts() {
    for (lines, expected) in [
        (&["f a 1", "f a 2"][..], &["i /", "f /a 2"][..]),
        (&["d a", "f a/x 1", "f a 2"], &["i /", "f /a 2"]),
        (&["d a", "f a 1", "d a", "f a/x 2"], &["i /", "o /a", "f /a/x 2"]),
        (
            &["l lib usr/lib", "f lib/x 1"],
            &["i /", "l /lib usr/lib", "i /usr", "i /usr/lib", "f /usr/lib/x 1"],
        ),
        (
            &["d usr", "l lib /usr", "f lib/x 1", "w lib/y"],
            &["i /", "l /lib /usr", "d /usr", "f /usr/x 1", "w /usr/y"],
        ),
        (&["l a b", "d a", "f a/x 1"], &["i /", "o /a", "f /a/x 1"]),
        (&["f a 1", "w a"], &["i /", "f /a 1"]),
        (&["d a", "w a"], &["i /", "o /a"]),
        (&["f a 1", "h b a", "f a 2"], &["i /", "f /a 2", "f /b 1"]),
        (
            &["f a 1", "h c a", "h b a", "f a 2"],
            &["i /", "f /a 2", "f /b 1", "h /c /b"],
        ),
        (&["h b low"], &["i /", "h /b /low"]),
        (&["f x/y 1"], &["i /", "i /x", "f /x/y 1"]),
        (
            &["d x", "h b low/z", "h c b"],
            &["i /", "h /b /low/z", "h /c /low/z", "d /x"],
        ),
    ] {
        assert_eq!(show(&layer(lines).unwrap()), expected, "{lines:?}");
    }
    assert!(!layer(&["h b low"]).unwrap().stands_alone());
    assert!(!layer(&["f x/y 1"]).unwrap().stands_alone());
}

#[test]
fn the_same_entries_give_the_same_file() {
    let bytes = || {
        let layer = layer(&["d a", "f a/f hello", "l a/l f", "w gone"]).unwrap();
        let mut bytes = vec![0; usize::try_from(layer.file_bytes()).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(layer.file(), &mut bytes, 0).unwrap();
        bytes
    };
    let first = bytes();
    assert_eq!(first, bytes());
    // A change of these bytes is a change of the on-disk format, or of every diff ID that we make.
    insta::assert_snapshot!(blake3::hash(&first).to_hex(), @"f5aa1f143235ef2ef8a963dd178c90622529c3757870be79e7159a8941d1af85");
}

#[test]
fn damage_is_found() {
    use std::os::unix::fs::FileExt;
    let make = || layer(&["d a", "f a/f hello"]).unwrap();
    let layer_file = make();
    let length = layer_file.file_bytes();
    let mut n_found = 0;
    // Everything but the tar, in steps that meet every part.
    for at in (0..1536)
        .step_by(7)
        .chain((4096 + layer_file.tar_bytes()..length).step_by(13))
    {
        let layer = make();
        let mut byte = [0];
        layer.file().read_exact_at(&mut byte, at).unwrap();
        layer.file().write_all_at(&[byte[0] ^ 1], at).unwrap();
        let file = layer.file().try_clone().unwrap();
        let outcome = LayerFile::open(file, layer.diff_id())
            .and_then(|layer| layer.index().map(drop).and_then(|()| layer.check_metadata()));
        n_found += u32::from(outcome.is_err());
        let head = &layer.head_for_tests();
        let covered = at < 1536 || head.iter().any(|range| range.contains(&at));
        assert_eq!(outcome.is_err(), covered, "byte {at}");
    }
    assert!(n_found > 200);
    let layer = make();
    let other = crate::digest::DiffId::of(b"other");
    assert!(LayerFile::open(layer.file().try_clone().unwrap(), other).is_err());
    layer.file().set_len(length - 1).unwrap();
    assert!(LayerFile::open(layer.file().try_clone().unwrap(), layer.diff_id()).is_err());
}

#[test]
fn the_tar_comes_out_as_it_is() {
    let layer = layer(&["d a", "f a/f hello"]).unwrap();
    let mut bytes = Vec::new();
    layer.tar_reader().read_to_end(&mut bytes).unwrap();
    assert_eq!(crate::digest::DiffId::of(&bytes), layer.diff_id());
    let mut out = scratch();
    assert_eq!(layer.copy_tar(&out).unwrap(), layer.tar_bytes());
    let mut copied = Vec::new();
    std::io::Seek::rewind(&mut out).unwrap();
    out.read_to_end(&mut copied).unwrap();
    assert_eq!(copied, bytes);
    let (mut from, to) = std::io::pipe().unwrap();
    layer
        .copy_tar(&File::from(std::os::fd::OwnedFd::from(to)))
        .unwrap();
    copied.clear();
    from.read_to_end(&mut copied).unwrap();
    assert_eq!(copied, bytes);
}

/// "hardening R06": bytes that leave the store are what their digest says, or it is said.
#[test]
fn a_damaged_tar_does_not_leave_unnoticed() {
    use std::os::unix::fs::FileExt;
    let layer = layer(&["d a", "f a/f hello"]).unwrap();
    let mut reader = layer.checked_tar_reader();
    reader.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "and once more");
    // In the content of the file.
    let at = 4096 + 3 * 512 / 2;
    let mut byte = [0];
    layer.file().read_exact_at(&mut byte, at).unwrap();
    layer.file().write_all_at(&[byte[0] ^ 1], at).unwrap();
    layer.tar_reader().read_to_end(&mut Vec::new()).unwrap();
    layer
        .checked_tar_reader()
        .read_to_end(&mut Vec::new())
        .unwrap_err();
    let error = layer.copy_tar(&scratch()).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot read the layer file"),
        "{error}"
    );
}

#[test]
fn known_content_must_be_what_is_read() {
    for (known, is_taken) in [(&b"hello"[..], true), (b"hallo", false)] {
        let mut writer = LayerWriter::create(scratch()).unwrap();
        let body = Body::File {
            size_bytes: 5,
            reader: &mut &b"hello"[..],
            content: Some(blake3::hash(known).into()),
        };
        let outcome = writer.add(path("f"), meta(0o644), body);
        assert_eq!(outcome.is_ok(), is_taken, "{outcome:?}");
    }
}

#[test]
fn sizes_must_be_true() {
    for (size_bytes, expected) in [
        (4, "the file grew while it was read"),
        (6, "the file shrank while it was read"),
    ] {
        let mut writer = LayerWriter::create(scratch()).unwrap();
        let mut content = &b"hello"[..];
        let body = Body::File {
            size_bytes,
            reader: &mut content,
            content: None,
        };
        let error = writer.add(path("f"), meta(0o644), body).unwrap_err();
        assert_eq!(error.to_string(), format!("entry 1 (`f`): {expected}"));
    }
}
