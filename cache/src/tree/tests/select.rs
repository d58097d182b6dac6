//! Selections and tree hashes.

use super::*;

const TREE: &str = "
    app dir
    app/main.py =print
    app/util.py =def
    app/sub dir 700
    app/sub/x.txt =x
    docs dir
    docs/a.md =a
    docs/b.md =b
    [odd] =odd
    cur >app
    file-link >app/main.py
    broken >nowhere
    link-dir dir
    link-dir/to-sub >../app/sub
    readme.md =hi
";

fn selection(patterns: &[&str]) -> Selection {
    Selection::of(patterns.iter().map(|&pattern| pattern.to_owned()).collect())
}

fn names(view: &View, patterns: &[&str]) -> Vec<String> {
    let selected = view.select(&selection(patterns)).unwrap();
    let draw = |found: &Selected<'_>| {
        let mark = if found.wildcard { "*" } else { "" };
        format!(
            "{}{mark}:{}:{}",
            found.pattern_index,
            found.source,
            String::from_utf8_lossy(&found.name)
        )
    };
    selected.iter().map(draw).collect()
}

#[test]
fn patterns_select_as_in_copy() {
    let view = stack(&[TREE]);
    let check =
        |patterns: &[&str], expected: &[&str]| assert_eq!(names(&view, patterns), expected, "{patterns:?}");
    check(&["app"], &["0:/app:app"]);
    for same in ["app/", "/app/.", "../app", "./app//", "docs/../app"] {
        check(&[same], &["0:/app:app"]);
    }
    check(&["."], &["0:/:"]);
    check(&["cur"], &["0:/app:cur"]);
    check(&["cur/main.py"], &["0:/app/main.py:main.py"]);
    check(
        &["file-link", "readme.md"],
        &["0:/app/main.py:file-link", "1:/readme.md:readme.md"],
    );
    check(
        &["app/*.py"],
        &["0*:/app/main.py:main.py", "0*:/app/util.py:util.py"],
    );
    check(
        &["cur/*.py"],
        &["0*:/app/main.py:main.py", "0*:/app/util.py:util.py"],
    );
    check(&["*/*.md"], &["0*:/docs/a.md:a.md", "0*:/docs/b.md:b.md"]);
    check(&["file-l*"], &["0*:/app/main.py:file-link"]);
    check(&["link-dir/*/x.txt"], &["0*:/app/sub/x.txt:x.txt"]);
    check(&["[[]odd]"], &["0*:/[odd]:[odd]"]);
    check(&["none*"], &[]);
    check(&["bro*"], &[]);
    check(&["app*/none"], &[]);
    check(&["*.py"], &[]);
}

#[test]
fn what_is_missing_is_an_error_that_suggests() {
    let view = stack(&[TREE]);
    let fail = |pattern: &str| view.select(&selection(&[pattern])).unwrap_err();
    for (pattern, expected) in [
        ("ap", &["/app"][..]),
        ("app/mian.py", &["/app/main.py"]),
        ("README.md", &["/readme.md"]),
        ("zzzzzz", &[]),
    ] {
        match fail(pattern) {
            Error::NotFound {
                pattern: named,
                candidates,
            } => {
                assert_eq!(
                    (named.as_str(), &candidates[..]),
                    (
                        pattern,
                        expected
                            .iter()
                            .map(|s| s.to_string())
                            .collect::<Vec<_>>()
                            .as_slice()
                    )
                );
            }
            other => panic!("{other}"),
        }
    }
    assert!(matches!(fail("broken"), Error::NotFound { .. }));
    assert!(matches!(fail("readme.md/x"), Error::NotFound { .. }));
    assert!(matches!(fail("a[/x"), Error::BadPattern { .. }));
}

/// Says whether two trees hash alike under a selection.
fn same(before: &[&str], after: &[&str], patterns: &[&str]) -> bool {
    let hash = |layers: &[&str]| stack(layers).tree_hash(&selection(patterns)).unwrap();
    hash(before) == hash(after)
}

#[test]
fn the_hash_sees_what_a_copy_would() {
    let base = "d dir\nd/f =1 644\nd/l >f\nd/s dir 711\nd/c char:1:3\nd/h @d/f";
    for (what, after) in [
        (
            "content",
            "d dir\nd/f =2 644\nd/l >f\nd/s dir 711\nd/c char:1:3\nd/h @d/f",
        ),
        (
            "mode",
            "d dir\nd/f =1 600\nd/l >f\nd/s dir 711\nd/c char:1:3\nd/h @d/f",
        ),
        (
            "link target",
            "d dir\nd/f =1 644\nd/l >./f\nd/s dir 711\nd/c char:1:3\nd/h @d/f",
        ),
        (
            "mode of a directory below",
            "d dir\nd/f =1 644\nd/l >f\nd/s dir 755\nd/c char:1:3\nd/h @d/f",
        ),
        (
            "type",
            "d dir\nd/f =1 644\nd/l >f\nd/s dir 711\nd/c pipe\nd/h @d/f",
        ),
        (
            "device",
            "d dir\nd/f =1 644\nd/l >f\nd/s dir 711\nd/c block:8:0\nd/h @d/f",
        ),
        (
            "name",
            "d dir\nd/f =1 644\nd/l >f\nd/t dir 711\nd/c char:1:3\nd/h @d/f",
        ),
        (
            "hard link became a copy",
            "d dir\nd/f =1 644\nd/l >f\nd/s dir 711\nd/c char:1:3\nd/h =1 644",
        ),
        (
            "addition",
            "d dir\nd/f =1 644\nd/l >f\nd/s dir 711\nd/c char:1:3\nd/h @d/f\nd/s/n =1",
        ),
        ("removal", "d dir\nd/f =1 644\nd/l >f\nd/s dir 711\nd/c char:1:3"),
        (
            "depth",
            "d dir\nd/f =1 644\nd/l >f\nd/s dir 711\nd/s/c char:1:3\nd/h @d/f",
        ),
    ] {
        assert!(!same(&[base], &[after], &["d"]), "{what} must count");
    }
}

#[test]
fn the_hash_sees_owners_and_attributes_but_no_times() {
    let hash = |change: &dyn Fn(&mut Meta)| {
        let mut entries = TestLayer::parse("d dir\nd/f =1\nd/s dir").entries.clone();
        entries
            .iter_mut()
            .skip(1)
            .for_each(|entry| change(&mut entry.meta));
        let view = View::of_layers([TestLayer::new(entries, b"1")]).unwrap();
        view.tree_hash(&selection(&["d"])).unwrap()
    };
    let base = hash(&|_| {});
    assert_ne!(base, hash(&|meta| meta.uid = 1));
    assert_ne!(base, hash(&|meta| meta.gid = 1));
    assert_ne!(base, hash(&|meta| meta.xattrs.push((b"user.a".to_vec(), vec![]))));
    assert_ne!(
        hash(&|meta| meta.xattrs.push((b"user.a".to_vec(), b"b".to_vec()))),
        hash(&|meta| meta.xattrs.push((b"user.ab".to_vec(), b"".to_vec()))),
    );
    assert_eq!(base, hash(&|meta| meta.mtime.seconds = 9));
}

#[test]
fn the_hash_does_not_see_what_a_copy_would_not() {
    // The top directory's own metadata and name, what isn't selected, and which layer something is in.
    assert!(same(&["d dir 700\nd/f =1"], &["d dir 755\nd/f =1"], &["d"]));
    assert!(same(
        &["d dir\nd/f =1\nx =1"],
        &["d dir\nd/f =1\nx =2\ny =3"],
        &["d"]
    ));
    assert!(same(
        &["d dir\nd/f =1\nd/g =2"],
        &["d dir\nd/f =9", "d implied\nd/f =1\nd/g =2"],
        &["d"]
    ));
    assert!(same(
        &["d dir\nd/f =1"],
        &["d dir\nd/f =1\nd/g =1", "d dir\nd/g gone"],
        &["d"]
    ));
    // A hard link to something outside of the selection.
    assert!(same(&["d dir\nd/f =1\nx @d/f"], &["d dir\nd/f =1"], &["d"]));
    let hash = |layer: &str, patterns: &[&str]| stack(&[layer]).tree_hash(&selection(patterns)).unwrap();
    assert_eq!(hash("d dir\nd/f =1", &["d"]), hash("e dir\ne/f =1", &["e"]));
    assert_eq!(hash("d dir\nd/f =1\nl >d", &["l"]), hash("d dir\nd/f =1", &["d"]));
    // Names found by wildcards count; so do order and number of sources.
    assert_ne!(hash("a1 =1", &["a*"]), hash("a2 =1", &["a*"]));
    assert_ne!(hash("a =1\nb =2", &["a", "b"]), hash("a =1\nb =2", &["b", "a"]));
    assert_ne!(hash("a =1\nb =1", &["a", "b"]), hash("a =1\nb =1", &["a"]));
    assert_ne!(hash("a =1", &["a", "x*"]), hash("a =1", &["x*", "a"]));
    assert_ne!(
        hash("a =1 600", &["a"]),
        hash("a =1 644", &["a"]),
        "a file's own mode is copied"
    );
    assert_ne!(hash("d dir", &["d"]), hash("d =", &["d"]));
}
