//! Merged views, by hand-made cases.

use super::*;

fn check(layers: &[&str], expected: &str) {
    let tidy: String = expected
        .lines()
        .map(|line| line.trim().to_owned() + "\n")
        .collect();
    assert_eq!(draw(&stack(layers)).trim(), tidy.trim(), "{layers:?}");
}

#[test]
fn layers_merge_as_in_an_overlay() {
    check(&[], "");
    check(&["a =1 644", "a =2 600\nb dir"], "a =2 600\nb dir 755");
    check(
        &["d dir 700\nd/x =1\nd/y =2", "d dir 711\nd/x gone\nd/z =3"],
        "d dir 711\nd/y =2 755\nd/z =3 755",
    );
    check(
        &["d dir\nd/x =1", "d opaque\nd/y =2", "d dir 700\nd/z =3"],
        "d dir 700\nd/y =2 755\nd/z =3 755",
    );
    check(
        &["d dir\nd/x =1", "d =file", "d dir\nd/z =3"],
        "d dir 755\nd/z =3 755",
    );
    check(&["d dir\nd/x =1", "d gone", "d dir"], "d dir 755");
    check(&["d dir\nd/x =1", "d gone"], "");
    // Sorts between a directory and what is in it, byte by byte.
    check(
        &["a dir\na-b =1\na/c =2\na.d dir\na.d/e =3"],
        "a dir 755\na/c =2 755\na-b =1 755\na.d dir 755\na.d/e =3 755",
    );
}

#[test]
fn implied_directories_take_what_is_below() {
    check(&["d dir 700", "d implied\nd/x =1"], "d dir 700\nd/x =1 755");
    check(
        &["d dir 700", "d implied\nd/x =1", "d implied\nd/y =1"],
        "d dir 700\nd/x =1 755\nd/y =1 755",
    );
    check(&["d =1 600", "d implied\nd/x =1"], "d dir 755\nd/x =1 755");
    check(
        &["d dir 700", "d gone", "d implied\nd/x =1"],
        "d dir 755\nd/x =1 755",
    );
}

#[test]
fn implied_directories_over_links_follow_them() {
    let base = "lib >usr/lib\nusr dir\nusr/lib dir 711\nusr/lib/a =1";
    check(
        &[base, "lib implied\nlib/b =2"],
        "lib >usr/lib 755\nusr dir 755\nusr/lib dir 711\nusr/lib/a =1 755\nusr/lib/b =2 755",
    );
    check(
        &[base, "lib implied\nlib/a gone"],
        "lib >usr/lib 755\nusr dir 755\nusr/lib dir 711",
    );
    check(
        &[base, "lib dir 700\nlib/b =2"],
        "lib dir 700\nlib/b =2 755\nusr dir 755\nusr/lib dir 711\nusr/lib/a =1 755",
    );
    check(
        &[base, "lib implied\nlib/b =2\nlib/c @lib/b"],
        "lib >usr/lib 755\nusr dir 755\nusr/lib dir 711\nusr/lib/a =1 755\nusr/lib/b =2 755\nusr/lib/c @usr/lib/b 755",
    );
    // Dangling: the target is made.
    check(
        &["l >/x/y", "l implied\nl/f =1"],
        "l >/x/y 755\nx dir 755\nx/y dir 755\nx/y/f =1 755",
    );
    // One link leads to the next.
    check(
        &["a >b\nb dir\nb/c >/d\nd dir", "a implied\na/c implied\na/c/f =1"],
        "a >b 755\nb dir 755\nb/c >/d 755\nd dir 755\nd/f =1 755",
    );
    let loops = View::of_layers([
        TestLayer::parse("a >b\nb >a"),
        TestLayer::parse("a implied\na/f =1"),
    ]);
    assert!(matches!(loops.err(), Some(Error::TooManyLinks { .. })));
    let clash = View::of_layers([
        TestLayer::parse("a >b"),
        TestLayer::parse("a implied\na/x =1\nb =1"),
    ]);
    assert!(matches!(clash.err(), Some(Error::Conflict { .. })));
}

#[test]
fn hard_links_share_an_inode() {
    check(&["a =1 600\nb @a"], "a =1 600\nb @a 600");
    check(&["a =1 600", "b @a 777"], "a =1 600\nb @a 600");
    // The name goes, the inode stays: a rename.
    check(&["a =1 600", "a gone\nb @a"], "b =1 600");
    // A later layer's file under the target's name is another inode.
    check(&["a =1 600", "b @a", "a =2 644"], "a =2 644\nb =1 600");
    check(&["a =1 600\nb @a\nc @b"], "a =1 600\nb @a 600\nc @a 600");
    check(
        &["l >d\nd dir\nd/f =1", "x @l/f"],
        "d dir 755\nd/f =1 755\nl >d 755\nx @d/f 755",
    );
    let view = stack(&["a =1\nc =3", "b @a"]);
    for (name, linked) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(view.lookup(&path(name)).unwrap().has_links, linked, "{name}");
    }
    for bad in ["b @a", "b @b", "a @b\nb @a", "d dir\nb @d", "a gone\nb @a"] {
        let result = View::of_layers([TestLayer::parse(bad)]);
        assert!(matches!(result.err(), Some(Error::DanglingLink { .. })), "{bad}");
    }
}

#[test]
fn links_resolve_inside_the_tree() {
    let view = stack(&["
        d dir
        d/f =1
        abs >/d
        rel >d/../d/./
        up >../../../d/f
        chain >abs/f
        dangling >/no/such/../place
        loop >loop
        d/back >..
        file =1
    "]);
    for (from, to, there) in [
        ("/", "/", true),
        ("d/f", "/d/f", true),
        ("abs/f", "/d/f", true),
        ("rel/f", "/d/f", true),
        ("up", "/d/f", true),
        ("chain", "/d/f", true),
        ("d/back/d/back/file", "/file", true),
        ("dangling/x", "/no/place/x", false),
        ("d/new/x", "/d/new/x", false),
    ] {
        let resolved = view.resolve(&path(from)).unwrap();
        assert_eq!(resolved.path.to_string(), to, "{from}");
        assert_eq!(resolved.node.is_some(), there, "{from}");
    }
    assert!(matches!(
        view.resolve(&path("loop/x")),
        Err(Error::TooManyLinks { .. })
    ));
    assert!(matches!(
        view.resolve(&path("file/x")),
        Err(Error::NotDirectory { .. })
    ));
    assert!(matches!(
        view.resolve(&path("chain/x")),
        Err(Error::NotDirectory { .. })
    ));
    let chain =
        |n: usize| (0..n).map(|i| format!("l{i} >l{}\n", i + 1)).collect::<String>() + &format!("l{n} =1");
    assert!(stack(&[&chain(40)]).resolve(&path("l0")).unwrap().node.is_some());
    assert!(stack(&[&chain(41)]).resolve(&path("l0")).is_err());
}

#[test]
fn small_files_are_read_with_a_limit() {
    let view = stack(&["etc dir\netc/passwd =root:x:0:0\nlink >etc/passwd\npipe pipe"]);
    assert_eq!(
        view.read_small(&path("link"), 10).unwrap().unwrap(),
        b"root:x:0:0"
    );
    assert!(matches!(
        view.read_small(&path("link"), 9),
        Err(Error::TooLarge { .. })
    ));
    assert!(matches!(
        view.read_small(&path("etc"), 9),
        Err(Error::NotFile { .. })
    ));
    assert!(matches!(
        view.read_small(&path("pipe"), 9),
        Err(Error::NotFile { .. })
    ));
    assert_eq!(view.read_small(&path("none"), 9).unwrap(), None);
    assert_eq!(view.read_small(&path("etc/passwd/x"), 9).unwrap(), None);
}
