//! The operations on a host tree, and what must not lead out of it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::clean(text.as_bytes())
}

/// A tree with every way out that links offer, and a canary outside it.
fn trap() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(inside.join("real")).unwrap();
    std::fs::File::create(inside.join("real/file")).unwrap();
    std::fs::File::create(outside.join("canary")).unwrap();
    symlink(&outside, inside.join("absolute")).unwrap();
    symlink("../out", inside.join("relative")).unwrap();
    symlink("/proc/self/root", inside.join("magic")).unwrap();
    symlink("real", inside.join("good")).unwrap();
    symlink("/real", inside.join("rooted")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();
    let root = Root::open_host(&inside).unwrap();
    (dir, root)
}

#[test]
fn nothing_leads_outside() {
    let (dir, root) = trap();
    for root in [root.clone(), root.with_links(Links::FollowInside)] {
        for way in ["absolute", "relative", "magic", "loop"] {
            let canary = path(&format!("{way}/canary"));
            assert!(root.open_file(&canary).is_err(), "{way}");
            assert!(root.stat(&canary).is_err(), "{way}");
            assert!(
                root.create_file(&path(&format!("{way}/new")), 0o644).is_err(),
                "{way}"
            );
            assert!(
                root.make_dir(&path(&format!("{way}/new")), 0o755).is_err(),
                "{way}"
            );
            assert!(root.unlink(&canary).is_err(), "{way}");
            assert!(root.set_owner(&canary, 1, 1).is_err(), "{way}");
            assert!(root.set_mode(&canary, 0).is_err(), "{way}");
            assert!(root.sub(&path(way)).is_err(), "{way}");
            assert!(root.open_file(&path(way)).is_err(), "{way}");
        }
    }
    root.set_mode(&path("absolute"), 0o700).unwrap();
    root.set_time(&path("absolute"), Timestamp { seconds: 1, nanos: 2 })
        .unwrap();
    let outside = std::fs::metadata(dir.path().join("out")).unwrap();
    assert_eq!(
        outside.permissions().mode() & 0o7777,
        0o755,
        "the link's target kept its mode"
    );
    assert_ne!(mtime_of(&root.stat(&path("real")).unwrap()).seconds, 1);
    root.remove_tree(&path("absolute")).unwrap();
    assert!(dir.path().join("out/canary").exists());
}

#[test]
fn links_inside_are_followed_on_request_only() {
    let (_dir, root) = trap();
    for way in ["good/file", "rooted/file"] {
        assert!(root.open_file(&path(way)).is_err(), "{way}");
        assert!(
            root.with_links(Links::FollowInside).open_file(&path(way)).is_ok(),
            "{way}"
        );
    }
    assert!(matches!(
        root.open_file(&path("real")),
        Err(Error::NotRegular { .. })
    ));
    assert!(root.open_file(&path("real/file/x")).unwrap_err().is_missing());
}

#[test]
fn a_pipe_is_refused_without_waiting() {
    let (_dir, root) = trap();
    root.make_node(&path("pipe"), Node::Fifo, 0o644).unwrap();
    assert!(matches!(
        root.open_file(&path("pipe")),
        Err(Error::NotRegular { .. })
    ));
}

#[test]
fn an_exchange_race_never_escapes() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let (dir, root) = trap();
    let (real, link) = (dir.path().join("in/real"), dir.path().join("in/relative"));
    std::fs::File::create(dir.path().join("out/file")).unwrap();
    let inode_of = |file: &File| rustix::fs::fstat(file).unwrap().st_ino;
    let outside = inode_of(&File::open(dir.path().join("out/file")).unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut n_escapes = 0;
        for links in [Links::Refuse, Links::FollowInside] {
            let root = root.with_links(links);
            for _ in 0..5_000 {
                let opened = root.open_file(&path("real/file"));
                n_escapes += usize::from(opened.is_ok_and(|file| inode_of(&file) == outside));
            }
        }
        // Before the verdict, or a failing test would wait for the other thread.
        stop.store(true, Ordering::Relaxed);
        assert_eq!(n_escapes, 0);
    });
}

#[test]
fn trees_of_any_depth_are_made_listed_and_removed() {
    let (dir, root) = trap();
    let name = [b'd'; 200];
    let mut deep = path("deep");
    for _ in 0..60 {
        deep.push(&name);
    }
    root.make_dirs(&deep, 0o755).unwrap();
    root.create_file(&deep.join(b"leaf"), 0o644).unwrap();
    assert_eq!(root.sub(&deep).unwrap().list().unwrap()[0].name, b"leaf");
    root.make_dirs(&path("deep/closed/x"), 0o755).unwrap();
    root.set_mode(&path("deep/closed"), 0).unwrap();
    root.make_symlink(&path("deep/out"), b"../../out").unwrap();
    root.remove_tree(&path("deep")).unwrap();
    assert!(root.stat(&path("deep")).unwrap_err().is_missing());
    assert!(dir.path().join("out/canary").exists());
    root.remove_tree(&path("never/was")).unwrap();
    assert!(matches!(
        root.remove_tree(&TreePath::root()),
        Err(Error::IsRoot { .. })
    ));
}

#[test]
fn attributes_round_trip() {
    let (_dir, root) = trap();
    let file = path("real/file");
    root.set_mode(&file, 0o640).unwrap();
    root.set_time(
        &file,
        Timestamp {
            seconds: -7,
            nanos: 999_999_999,
        },
    )
    .unwrap();
    let stat = root.stat(&file).unwrap();
    assert_eq!(stat.st_mode & 0o7777, 0o640);
    assert_eq!(
        mtime_of(&stat),
        Timestamp {
            seconds: -7,
            nanos: 999_999_999
        }
    );
    for at in [&file, &path("real"), &TreePath::root()] {
        assert_eq!(root.xattr(at, b"user.none").unwrap(), None);
    }
    // Some file systems have no user attributes; everything else must then say so rather than lose them.
    if root.set_xattr(&file, b"user.b", b"2\n\0").is_ok() {
        root.set_xattr(&file, b"user.a", b"").unwrap();
        let expected = [
            (b"user.a".to_vec(), vec![]),
            (b"user.b".to_vec(), b"2\n\0".to_vec()),
        ];
        assert_eq!(root.xattrs(&file).unwrap(), expected);
    }
    root.make_hardlink(&path("twin"), &root, &file).unwrap();
    assert_eq!(root.stat(&path("twin")).unwrap().st_ino, stat.st_ino);
    root.rename(&path("twin"), &path("real/twin")).unwrap();
    root.make_symlink(&path("l"), b"\xff//x").unwrap();
    assert_eq!(root.read_link(&path("l")).unwrap(), b"\xff//x");
}
