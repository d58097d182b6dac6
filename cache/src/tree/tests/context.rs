//! The build context: what is scanned, what is left alone, and files that change.

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::root::Root;

fn put(dir: &Path, name: &str, content: &str) {
    let mut at = dir.to_owned();
    let mut parts = name.split('/').peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        if parts.peek().is_some() {
            let _ = std::fs::create_dir(&at);
        }
    }
    File::create(&at).unwrap().write_all(content.as_bytes()).unwrap();
    std::fs::File::open(&at)
        .unwrap()
        .set_permissions(PermissionsExt::from_mode(0o644))
        .unwrap();
}

fn selection(patterns: &[&str]) -> Selection {
    Selection::of(patterns.iter().map(|&pattern| pattern.to_owned()).collect())
}

fn scan(dir: &Path, ignore: &[&str], wanted: &[&str]) -> Arc<ContextTree> {
    let ignore = IgnoreList::new(ignore.iter().copied()).unwrap();
    let root = Root::open_host(dir).unwrap();
    Arc::new(ContextTree::scan(root, &ignore, &[selection(wanted)], Arc::default()).unwrap())
}

fn paths(tree: &ContextTree) -> String {
    let names = tree.entries().iter().filter(|entry| !entry.path.is_root());
    names
        .map(|entry| String::from_utf8_lossy(entry.path.as_bytes()).into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("a.txt", "a"),
        ("src/main.c", "main"),
        ("src/lib/x.c", "x"),
        ("docs/api/i.md", "i"),
        ("docs/z.md", "z"),
    ] {
        put(dir.path(), name, content);
    }
    symlink("src/lib", dir.path().join("lib")).unwrap();
    symlink("/etc", dir.path().join("host")).unwrap();
    symlink("../../..", dir.path().join("src/up")).unwrap();
    dir
}

#[test]
fn only_what_is_wanted_is_scanned() {
    let dir = sample();
    let check = |ignore: &[&str], wanted: &[&str], expected: &str| {
        assert_eq!(
            paths(&scan(dir.path(), ignore, wanted)),
            expected,
            "{ignore:?} {wanted:?}"
        );
    };
    check(
        &[],
        &["."],
        "a.txt docs docs/api docs/api/i.md docs/z.md host lib src src/lib src/lib/x.c src/main.c src/up",
    );
    check(&[], &["a.txt"], "a.txt");
    check(&[], &["src/lib"], "src src/lib src/lib/x.c");
    check(&[], &["lib"], "lib src src/lib src/lib/x.c");
    check(&[], &["lib/*.c"], "lib src src/lib src/lib/x.c");
    check(&[], &["*.txt"], "a.txt");
    check(&[], &["d*/*.md"], "docs docs/z.md");
    // It leads to /etc, which the context doesn't have; what is beside that is for the error message.
    check(&[], &["host"], "a.txt docs host lib src");
    check(&["docs", "**/*.c"], &["."], "a.txt host lib src src/lib src/up");
    check(
        &["docs", "!docs/api"],
        &["."],
        "a.txt docs docs/api docs/api/i.md host lib src src/lib src/lib/x.c src/main.c src/up",
    );
    check(&["*", "!src/main.c"], &["."], "src src/main.c");
    check(&["*", "!src/main.c"], &["src/main.c"], "src src/main.c");
    check(&["*", "!src/none"], &["."], "");
    check(
        &["a.txt"],
        &["docs", "a.*"],
        "docs docs/api docs/api/i.md docs/z.md",
    );
}

#[test]
fn links_never_lead_out() {
    let dir = sample();
    symlink("loop", dir.path().join("loop")).unwrap();
    let tree = scan(dir.path(), &[], &["host/passwd", "src/up/a.txt", "loop", "."]);
    let view = View::of_directory(tree).unwrap();
    assert!(view.resolve(&path("host/passwd")).unwrap().node.is_none());
    assert_eq!(view.read_small(&path("src/up/a.txt"), 9).unwrap().unwrap(), b"a");
    assert!(matches!(
        view.select(&selection(&["host/passwd"])),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        view.select(&selection(&["loop"])),
        Err(Error::TooManyLinks { .. })
    ));
}

#[test]
fn what_was_not_scanned_is_not_answered_for() {
    let dir = sample();
    let view = View::of_directory(scan(dir.path(), &[], &["src/main.c"])).unwrap();
    assert!(view.tree_hash(&selection(&["src/main.c"])).is_ok());
    assert!(matches!(
        view.tree_hash(&selection(&["src"])),
        Err(Error::NotScanned { .. })
    ));
    let view = View::of_directory(scan(dir.path(), &[], &["scr"])).unwrap();
    let error = view.select(&selection(&["scr"])).unwrap_err();
    assert!(matches!(error, Error::NotFound { candidates, .. } if candidates == ["/src"]));
}

#[test]
fn special_files_and_links_are_kept_or_told() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "one", "1");
    std::fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let root = Root::open_host(dir.path()).unwrap();
    root.make_node(&path("pipe"), crate::root::Node::Fifo, 0o600)
        .unwrap();
    symlink("\u{fffd}/../x", dir.path().join("link")).unwrap();
    let tree = scan(dir.path(), &[], &["."]);
    assert_eq!(tree.notices(), [Notice::Socket(path("socket"))]);
    let view = View::of_directory(tree).unwrap();
    assert_eq!(
        draw(&view),
        "link >\u{fffd}/../x 777\none =1 644\npipe pipe 600\ntwo @one 644\n"
    );
    assert_eq!(view.lookup(&path("one")).unwrap().meta.uid, 0);
}

#[test]
fn ignored_files_are_never_touched() {
    let dir = sample();
    for (name, ignore) in [("docs", &["docs"][..]), ("docs", &["*", "!src/**"])] {
        let closed = dir.path().join(name);
        std::fs::File::open(&closed)
            .unwrap()
            .set_permissions(PermissionsExt::from_mode(0o0))
            .unwrap();
        // Root may look anyway, so the access time is what would tell; a scan as another user would just fail.
        let before = rustix::fs::stat(&closed).unwrap();
        scan(dir.path(), ignore, &["."]);
        let after = rustix::fs::stat(&closed).unwrap();
        assert_eq!(
            (before.st_atime, before.st_atime_nsec),
            (after.st_atime, after.st_atime_nsec)
        );
        std::fs::File::open(&closed)
            .unwrap()
            .set_permissions(PermissionsExt::from_mode(0o755))
            .unwrap();
    }
}

#[test]
fn a_file_that_changes_is_an_error_not_a_wrong_image() {
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 6] = [
        ("grown", |file| {
            File::options()
                .append(true)
                .open(file)
                .unwrap()
                .write_all(b"x")
                .unwrap()
        }),
        ("shrunk", |file| {
            File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(1)
                .unwrap()
        }),
        ("gone", |file| std::fs::remove_file(file).unwrap()),
        ("rewritten", |file| {
            let mut file = File::options().write(true).open(file).unwrap();
            file.write_all(b"9").unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }),
        ("a link now", |file| {
            std::fs::remove_file(file).unwrap();
            symlink("/etc/passwd", file).unwrap();
        }),
        ("a directory now", |file| {
            std::fs::remove_file(file).unwrap();
            std::fs::create_dir(file).unwrap();
        }),
    ];
    for (what, change) in changes {
        let dir = sample();
        let view = View::of_directory(scan(dir.path(), &[], &["src"])).unwrap();
        let node = view.lookup(&path("src/main.c")).unwrap();
        change(&dir.path().join("src/main.c"));
        assert!(
            matches!(view.content(&node), Err(Error::Changed { .. })),
            "{what}, before hashing"
        );

        let dir = sample();
        let view = View::of_directory(scan(dir.path(), &[], &["src"])).unwrap();
        let node = view.lookup(&path("src/main.c")).unwrap();
        view.content(&node).unwrap();
        let mut reader = view.read(&node).unwrap();
        change(&dir.path().join("src/main.c"));
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/src/main.c changed while reading",
            "{what}, while reading"
        );
    }
}

#[test]
fn small_files_are_copied_as_they_were_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let large = "l".repeat(1 << 20);
    for number in 0..20 {
        put(dir.path(), &format!("d/{number}"), &format!("content {number}"));
    }
    put(dir.path(), "d/empty", "");
    put(dir.path(), "d/large", &large);
    let view = View::of_directory(scan(dir.path(), &[], &["d"])).unwrap();
    let before = view.tree_hash(&selection(&["d"])).unwrap();
    let read = |name: &str| -> std::io::Result<String> {
        let node = view.lookup(&path(&format!("d/{name}"))).unwrap();
        let mut text = String::new();
        // In pieces, as a copy with little room left does.
        let mut reader = view.read(&node).map_err(std::io::Error::other)?;
        while (&mut reader).take(3).read_to_string(&mut text)? > 0 {}
        Ok(text)
    };
    for number in 0..20 {
        put(dir.path(), &format!("d/{number}"), "changed since");
    }
    assert_eq!(read("7").unwrap(), "content 7");
    // Once only: then the file must still be the same.
    assert_eq!(read("7").unwrap_err().to_string(), "/d/7 changed while reading");
    assert_eq!(
        (read("empty").unwrap(), read("large").unwrap()),
        (String::new(), large)
    );
    put(dir.path(), "d/large", "changed since");
    assert_eq!(
        read("large").unwrap_err().to_string(),
        "/d/large changed while reading"
    );
    assert_eq!(view.tree_hash(&selection(&["d"])).unwrap(), before);
}

#[test]
fn the_memo_answers_for_unchanged_files_only() {
    let (dir, store) = (sample(), tempfile::tempdir().unwrap());
    let store = Root::open_host(store.path()).unwrap();
    let file = dir.path().join("src/main.c");
    let build = || {
        let memo = Arc::new(Memo::load(&store));
        let root = Root::open_host(dir.path()).unwrap();
        let tree = ContextTree::scan(
            root,
            &IgnoreList::default(),
            &[selection(&["src"])],
            Arc::clone(&memo),
        )
        .unwrap();
        let view = View::of_directory(Arc::new(tree)).unwrap();
        let hash = view.tree_hash(&selection(&["src"])).unwrap();
        memo.save(&store).unwrap();
        hash
    };
    let first = build();
    assert_eq!(build(), first);
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(99))
        .unwrap();
    assert_eq!(build(), first, "a touch changes nothing");
    // Same size, and the old time put back.
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let mut edit = File::options().write(true).open(&file).unwrap();
    edit.write_all(b"MAIN").unwrap();
    edit.set_modified(time).unwrap();
    assert_ne!(build(), first);
}

#[test]
fn a_hit_in_the_memo_reads_nothing() {
    let dir = sample();
    let tree = |memo: &Arc<Memo>| {
        let root = Root::open_host(dir.path()).unwrap();
        ContextTree::scan(
            root,
            &IgnoreList::default(),
            &[selection(&["a.txt"])],
            Arc::clone(memo),
        )
        .unwrap()
    };
    let memo = Arc::new(Memo::default());
    let cold = tree(&memo);
    let number = cold
        .entries()
        .iter()
        .position(|entry| entry.path == path("a.txt"))
        .unwrap();
    // As if hashed a minute from now, when the file's times are settled, and to a value that reading never gives.
    let answer = blake3::hash(b"remembered").into();
    memo.remember(
        cold.identity(number),
        answer,
        SystemTime::now() + Duration::from_secs(60),
    );
    let store = tempfile::tempdir().unwrap();
    let store = Root::open_host(store.path()).unwrap();
    memo.save(&store).unwrap();
    let warm = tree(&Arc::new(Memo::load(&store)));
    assert_eq!(warm.content(number).unwrap(), answer);

    // Whatever the memo says, bytes that don't have the recorded hash never get into a layer.
    let view = View::of_directory(Arc::new(warm)).unwrap();
    let node = view.lookup(&path("a.txt")).unwrap();
    let error = view
        .read(&node)
        .unwrap()
        .read_to_end(&mut Vec::new())
        .unwrap_err();
    assert_eq!(error.to_string(), "/a.txt changed while reading");
}
