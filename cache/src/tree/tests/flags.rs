//! `--parents` and `--exclude`: what is selected, where it goes, and what the hash sees of it.

use std::path::Path;

use super::*;
use crate::root::Root;

const TREE: &str = "
    a dir 711
    a/b dir 700
    a/b/c =c 600
    a/b/d.txt =d
    a/e.png =e
    a/keep.png =k
    a/link >b
    x dir
    x/y dir 750
    x/y/z =z
    m1 dir
    m1/s.mp3 =1
    m1/t =2
    m1/deep dir
    m1/deep/u.mp3 =3
    m2 dir
    m2/v.mp3 =4
    top.txt =t
    to-x >x
";

fn selection(patterns: &[&str], parents: bool, excludes: &[&str]) -> Selection {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Selection {
        patterns: owned(patterns),
        excludes: owned(excludes),
        parents,
    }
}

/// Draws what would be copied: sources with their name, `+` before what belongs to one.
fn draw(view: &View, selection: &Selection) -> Result<String, Error> {
    let mut out = Vec::new();
    for selected in view.select(selection)? {
        if selected.parents.is_none() {
            out.push(String::from_utf8_lossy(&selected.name).into_owned());
        }
        let entries = view.entries_of(&selected);
        out.extend(
            entries
                .iter()
                .map(|(path, _)| format!("+{}", &path.to_string()[1..])),
        );
    }
    Ok(out.join(" "))
}

fn check(patterns: &[&str], parents: bool, excludes: &[&str], expected: &str) {
    let selection = selection(patterns, parents, excludes);
    let drawn = draw(&stack(&[TREE]), &selection).unwrap_or_else(|error| format!("error: {error}"));
    assert_eq!(drawn, expected, "{selection:?}");
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    // case C50 C51 C52 C53 C54
    let check = |pattern: &str, expected: &str| check(&[pattern], true, &[], expected);
    check("/a/b/c", "+a +a/b +a/b/c");
    check("a/b", "+a +a/b +a/b/c +a/b/d.txt");
    check("/x/./y/z", "+y +y/z");
    check("/a/./b/c", "+b +b/c");
    check("/a/./b/./c", "+b +b/c");
    check("/a/b/./", "+c +d.txt");
    check("/x/./", "+y +y/z");
    check("**/*.txt", "+a +a/b +a/b/d.txt +top.txt");
    check("/a/./**/*.txt", "+b +b/d.txt");
    check("a/**/c", "+a +a/b +a/b/c");
    check("**/b", "+a +a/b +a/b/c +a/b/d.txt");
    check("*/*.png", "+a +a/e.png +a +a/keep.png");
    check("/m*/./*.mp3", "+s.mp3 +v.mp3");
    check("missing/*", "");
    check("**/*.none", "");
    check("missing/file", "error: `missing/file` not found");
    check("/a/./missing", "error: `/a/./missing` not found");
    check("/missing/./a", "error: `/missing/./a` not found");
    check("/top.txt/x", "error: `/top.txt/x` not found");
    check("a/[", "error: syntax error in pattern `a/[`");
    check("a/**/[", "error: syntax error in pattern `a/**/[`");
    // Up to the pivot links are followed, behind it they are what they are.
    check("/to-x/./y/z", "+y +y/z");
    check("to-x", "+to-x");
    check("a/link", "+a +a/link");
    check("a/link/c", "error: `a/link/c` not found");
    check("to-x/*", "");
}

#[test]
fn excludes_leave_out() {
    // case C55 C56 C56b C57
    check(&["a"], false, &["*.png"], "a +b +b/c +b/d.txt +link");
    check(
        &["a"],
        false,
        &["*.png", "!keep.png"],
        "a +b +b/c +b/d.txt +keep.png +link",
    );
    check(&["a"], false, &["**/*.txt", "b/c"], "a +b +e.png +keep.png +link");
    check(&["a"], false, &["b", "link"], "a +e.png +keep.png");
    check(&["a"], false, &["*", "!b/c"], "a +b +b/c");
    check(&["a"], false, &["*"], "a");
    check(&["m*"], false, &["*.mp3"], "m1 +deep +deep/u.mp3 +t m2");
    check(&["m*"], false, &["**/*.mp3", "deep"], "m1 +t m2");
    check(&["top.txt"], false, &["*.txt"], "");
    check(&["*.txt", "a/b"], false, &["*.txt"], "b +c");
    check(&["a"], false, &["!"], "error: illegal exclusion pattern: \"!\"");
    // With parents, from the pivot on.
    check(&["/a"], true, &["a/*.png", "a/b/c"], "+a +a/b +a/b/d.txt +a/link");
    check(&["/a/./b"], true, &["b/c"], "+b +b/d.txt");
    check(&["/a/b"], true, &["a", "!a/b/c"], "+a +a/b +a/b/c");
    check(&["/a/b"], true, &["a"], "");
    check(&["/a/b/d.txt"], true, &["*.txt"], "");
    check(&["/x/./"], true, &["y/z"], "+y");
}

#[test]
fn the_hash_sees_parents_and_nothing_of_what_is_excluded() {
    let hash = |tree: &str, selection: &Selection| stack(&[tree]).tree_hash(selection).unwrap();
    let plain = selection(&["a/b"], false, &[]);
    let parents = selection(&["a/b"], true, &[]);
    let pivot = selection(&["/a/./b"], true, &[]);
    let base = "a dir 711\na/b dir\na/b/c =c\na/b/x =1";
    assert_ne!(hash(base, &plain), hash(base, &parents));
    assert_ne!(hash(base, &parents), hash(base, &pivot));
    let mode = "a dir 755\na/b dir\na/b/c =c\na/b/x =1";
    assert_ne!(hash(base, &parents), hash(mode, &parents), "it is made again");
    assert_eq!(hash(base, &pivot), hash(mode, &pivot));
    let changed = "a dir 711\na/b dir\na/b/c =c\na/b/x =2";
    for parents in [false, true] {
        let without = selection(&["a/b"], parents, &["**/x"]);
        assert_eq!(hash(base, &without), hash(changed, &without));
        assert_ne!(
            hash(base, &without),
            hash(base, &selection(&["a/b"], parents, &[]))
        );
        assert_ne!(
            hash(base, &without),
            hash(base, &selection(&["a/b"], parents, &["**/c"]))
        );
    }
}

/// Scans a directory with [`TREE`]'s files for the selection alone: the same must come of it.
#[test]
fn contexts_are_scanned_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open_host(dir.path()).unwrap();
    let whole = stack(&[TREE]);
    for (path, node) in whole.walk(&TreePath::root()) {
        match node.kind {
            NodeKind::Dir => root.make_dir(&path, node.meta.mode).unwrap(),
            NodeKind::Symlink(target) => root.make_symlink(&path, target).unwrap(),
            _ => drop(root.create_file(&path, node.meta.mode).unwrap()),
        }
    }
    let scan = |host: &Path, selection: &Selection| {
        let root = Root::open_host(host).unwrap();
        let none = IgnoreList::default();
        ContextTree::scan(root, &none, std::slice::from_ref(selection), Arc::default()).unwrap()
    };
    for (patterns, parents) in [
        (&["/a/b/c"][..], true),
        (&["a/b", "x/./y/z"], true),
        (&["**/*.txt"], true),
        (&["/a/./**/*.txt", "a/**/c"], true),
        (&["*/*.png", "/m*/./*.mp3"], true),
        (&["/to-x/./y", "to-x", "to-x/*", "/a/b/./"], true),
        // Behind a link patterns go on being patterns.
        (&["to-x/*", "to-x/?/z"], false),
    ] {
        let selection = selection(patterns, parents, &[]);
        let context = scan(dir.path(), &selection);
        let view = View::of_directory(Arc::new(context)).unwrap();
        assert_eq!(
            draw(&view, &selection).unwrap(),
            draw(&whole, &selection).unwrap(),
            "{patterns:?}"
        );
    }
    let narrow = scan(dir.path(), &selection(&["/a/b/c"], true, &[]));
    assert_eq!(narrow.n_entries(), 4, "the root, two directories and a file");
}

#[test]
fn excluded_files_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open_host(dir.path()).unwrap();
    for name in ["kept", "left"] {
        root.create_file(&path(name), 0o644).unwrap();
    }
    let selection = selection(&["."], false, &["left"]);
    let none = IgnoreList::default();
    let context = ContextTree::scan(root, &none, std::slice::from_ref(&selection), Arc::default()).unwrap();
    let view = View::of_directory(Arc::new(context)).unwrap();
    // Reading it would fail: it isn't what was scanned any more.
    Root::open_host(dir.path())
        .unwrap()
        .unlink(&path("left"))
        .unwrap();
    view.tree_hash(&selection).unwrap();
}
