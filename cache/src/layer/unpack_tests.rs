//! Unpacking: what is on disk afterwards, compared with the entries.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::layer::Timestamp;

fn path(text: &str) -> TreePath {
    TreePath::clean(text.as_bytes())
}

fn entry(at: &str, mode: u32, kind: Kind) -> Entry {
    let mtime = Timestamp {
        seconds: -5 + i64::from(mode),
        nanos: 123_456_789,
    };
    Entry {
        path: path(at),
        meta: Meta {
            mode,
            uid: 7,
            gid: 4_000_000_000,
            mtime,
            ..Meta::default()
        },
        kind,
    }
}

fn file(bytes: &mut Vec<u8>, content: &[u8]) -> Kind {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let offset = bytes.len() as u64;
    bytes.extend_from_slice(content);
    Kind::File(FileData {
        size_bytes: content.len() as u64,
        offset,
        content: blake3::hash(content).into(),
    })
}

const DIR: Kind = Kind::Dir {
    opaque: false,
    implied: false,
};

fn nothing(_: &TreePath) -> Option<(Root, TreePath)> {
    None
}

fn try_unpack(
    entries: &[Entry],
    bytes: &[u8],
    below: &Below<'_>,
) -> (tempfile::TempDir, Result<Vec<Notice>, Error>) {
    let mut sorted = entries.to_vec();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut layer = tempfile::tempfile().unwrap();
    layer.write_all(bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open_host(dir.path()).unwrap();
    let owners = if is_root() { Owners::Keep } else { Owners::Ignore };
    let options = UnpackOptions {
        overlay: OverlayXattr::User,
        owners,
        below,
    };
    let result = unpack(&sorted, &layer, &root, &options);
    (dir, result)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Compares what is on disk with an entry.
fn check_on_disk(dir: &std::path::Path, entry: &Entry) {
    let at = dir.join(String::from_utf8_lossy(entry.path.as_bytes()).as_ref());
    let found = std::fs::symlink_metadata(&at).unwrap();
    if let Kind::Hardlink(_) = entry.kind {
        assert_eq!(found.ino(), std::fs::metadata(dir.join("d/x")).unwrap().ino());
        return;
    }
    let (seconds, nanos) = (entry.meta.mtime.seconds, i64::from(entry.meta.mtime.nanos));
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (seconds, nanos),
        "{}",
        entry.path
    );
    if !found.is_symlink() {
        assert_eq!(found.mode() & 0o7777, entry.meta.mode, "{}", entry.path);
    }
    if is_root() {
        assert_eq!((found.uid(), found.gid()), (entry.meta.uid, entry.meta.gid));
    }
    match &entry.kind {
        Kind::File(data) => {
            assert_eq!(
                blake3::hash(&std::fs::read(&at).unwrap()),
                blake3::Hash::from(*data.content.as_bytes())
            );
        }
        Kind::Symlink(target) => assert_eq!(
            std::fs::read_link(&at).unwrap().as_os_str().as_encoded_bytes(),
            target
        ),
        _ => {}
    }
}

#[test]
fn everything_arrives_as_the_index_says() {
    let mut bytes = vec![0; 4096];
    let mut with_xattr = entry("d/x", 0o600, file(&mut bytes, b"xattrs"));
    with_xattr.meta.xattrs = vec![(b"user.a".to_vec(), b"1\n".to_vec())];
    let big: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let mut entries = vec![
        entry("", 0o711, DIR),
        entry("d", 0o500, DIR),
        entry("d/big", 0o4755, file(&mut bytes, &big)),
        entry("d/empty", 0o644, file(&mut bytes, b"")),
        with_xattr,
        entry("d/link", 0o777, Kind::Symlink(b"/no/../such".to_vec())),
        entry("d/again", 0o600, Kind::Hardlink(path("d/x"))),
        entry("d/chain", 0o600, Kind::Hardlink(path("d/again"))),
        entry("pipe", 0o640, Kind::Fifo),
    ];
    // Enough for more than one group.
    for number in 0..600 {
        entries.push(entry(
            &format!("d/many{number}"),
            0o644,
            file(&mut bytes, number.to_string().as_bytes()),
        ));
    }
    let (dir, result) = try_unpack(&entries, &bytes, &nothing);
    let notices = result.unwrap();
    assert!(
        notices.iter().all(|notice| matches!(notice, Notice::Xattr(..))),
        "{notices:?}"
    );
    entries.iter().for_each(|entry| check_on_disk(dir.path(), entry));
    if notices.is_empty() {
        let root = Root::open_host(dir.path()).unwrap();
        assert_eq!(
            root.xattrs(&path("d/x")).unwrap(),
            [(b"user.a".to_vec(), b"1\n".to_vec())]
        );
    }
    Root::open_host(dir.path())
        .unwrap()
        .remove_tree(&path("d"))
        .unwrap();
}

#[test]
fn removals_become_the_overlays_marks() {
    let opaque = entry(
        "d",
        0o755,
        Kind::Dir {
            opaque: true,
            implied: false,
        },
    );
    let (dir, result) = try_unpack(&[opaque, entry("d/gone", 0, Kind::Whiteout)], b"", &nothing);
    // Some file systems for temporary files have no user attributes.
    if let Err(Error::Root(error)) = &result
        && error.errno() == Some(Errno::OPNOTSUPP)
    {
        return;
    }
    assert_eq!(result.unwrap(), []);
    let found = std::fs::symlink_metadata(dir.path().join("d/gone")).unwrap();
    assert_eq!((found.mode() & 0o170_000, found.rdev()), (0o020_000, 0));
    let root = Root::open_host(dir.path()).unwrap();
    assert_eq!(
        root.xattrs(&path("d")).unwrap(),
        [(b"user.overlay.opaque".to_vec(), b"y".to_vec())]
    );
}

#[test]
fn lower_layers_are_asked_for_what_only_they_have() {
    let mut bytes = Vec::new();
    let lower = [
        entry("d", 0o750, DIR),
        entry("d/f", 0o640, file(&mut bytes, b"lower")),
        entry("e", 0o700, DIR),
    ];
    let (lower_dir, result) = try_unpack(&lower, &bytes, &nothing);
    result.unwrap();
    let lower_root = Root::open_host(lower_dir.path()).unwrap();
    let below = |at: &TreePath| {
        lower_root
            .stat(at)
            .is_ok()
            .then(|| (lower_root.clone(), at.clone()))
    };
    let implied = Kind::Dir {
        opaque: false,
        implied: true,
    };
    let upper = [
        entry("d", 0, implied.clone()),
        entry("d/f", 0, Kind::Whiteout),
        entry("d/g", 0, Kind::Hardlink(path("d/f"))),
        entry("new", 0, implied),
    ];
    let (dir, result) = try_unpack(&upper, b"", &below);
    result.unwrap();
    let stat = |dir: &tempfile::TempDir, at: &str| std::fs::symlink_metadata(dir.path().join(at)).unwrap();
    assert_eq!(stat(&dir, "d/g").ino(), stat(&lower_dir, "d/f").ino());
    assert_eq!(stat(&dir, "d").mode(), stat(&lower_dir, "d").mode());
    assert_eq!(stat(&dir, "d").mtime_nsec(), 123_456_789);
    assert_eq!(stat(&dir, "new").mode() & 0o7777, 0o755);

    for bad in ["none", "l", "e"] {
        let link = [entry("l", 0, Kind::Hardlink(path(bad)))];
        let (_dir, result) = try_unpack(&link, b"", &nothing);
        assert!(matches!(result, Err(Error::DanglingLink { .. })), "{bad}");
    }
}

#[test]
fn holes_stay_holes() {
    let layer = tempfile::tempfile().unwrap();
    layer.set_len(64 << 20).unwrap();
    layer.write_all_at(b"middle", 40 << 20).unwrap();
    let size_bytes = (64 << 20) - 4096;
    let data = FileData {
        size_bytes,
        offset: 4096,
        content: blake3::hash(b"").into(),
    };
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open_host(dir.path()).unwrap();
    let options = UnpackOptions {
        overlay: OverlayXattr::User,
        owners: Owners::Ignore,
        below: &nothing,
    };
    unpack(
        &[entry("sparse", 0o644, Kind::File(data))],
        &layer,
        &root,
        &options,
    )
    .unwrap();
    let file = File::open(dir.path().join("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size_bytes);
    let mut middle = [0; 8];
    file.read_exact_at(&mut middle, (40 << 20) - 4096 - 1).unwrap();
    assert_eq!(&middle, b"\0middle\0");
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn a_layer_file_that_is_too_short_is_an_error() {
    for size_bytes in [10, 100_000, u64::MAX] {
        let data = FileData {
            size_bytes,
            offset: 512,
            content: blake3::hash(b"").into(),
        };
        let (_dir, result) = try_unpack(&[entry("f", 0o644, Kind::File(data))], b"short", &nothing);
        assert!(
            matches!(result, Err(Error::Copy { .. })),
            "{size_bytes}: {result:?}"
        );
    }
}
