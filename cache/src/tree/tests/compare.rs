//! What differs between two trees.

use super::*;
use crate::layer::Timestamp;

/// Draws the changes: `+ path`, `- path`, `path: aspects`.
fn draw_changes(older: &View, newer: &View, times: Times) -> Vec<String> {
    older
        .changes(newer, times)
        .map(|change| {
            let change = change.unwrap();
            let path = String::from_utf8_lossy(change.path.as_bytes()).into_owned();
            match (&change.before, &change.after) {
                (None, Some(_)) => format!("+ {path}"),
                (Some(_), None) => format!("- {path}"),
                _ => format!("{path}: {:?}", change.aspects),
            }
        })
        .collect()
}

fn check(older: &[&str], newer: &[&str], expected: &[&str]) {
    let found = draw_changes(&stack(older), &stack(newer), Times::Ignore);
    assert_eq!(found, expected, "{older:?} {newer:?}");
}

#[test]
fn changes_are_told_path_by_path() {
    check(&[], &[], &[]);
    check(&["a =1"], &["a =1"], &[]);
    check(&["a =1"], &["a =2"], &["a: [Content]"]);
    check(&["a =1"], &["a =22 600"], &["a: [Content, Mode]"]);
    check(&["a =1"], &["a >1"], &["a: [Type]"]);
    check(&["a >1"], &["a >2"], &["a: [Content]"]);
    check(&["a >1 777"], &["a >1 755"], &[]);
    check(&["a char:1:3"], &["a block:8:0"], &["a: [Type]"]);
    check(&["d dir\nd/x =1"], &[], &["- d", "- d/x"]);
    check(
        &["d dir\nd/x =1"],
        &["d =1", "e dir\ne/y =1"],
        &["d: [Type]", "- d/x", "+ e", "+ e/y"],
    );
    // A dash sorts before the slash: whoever compares whole paths as bytes loses his place here.
    check(
        &["a dir\na/c =1\na-b =1"],
        &["a dir\na/c =2\na-b =1"],
        &["a/c: [Content]"],
    );
}

#[test]
fn how_layers_make_a_tree_is_no_difference() {
    check(&["a =1\nb =2"], &["b =3\nc =1", "a =1\nb =2\nc gone"], &[]);
    check(&["a =1\nb @a"], &["a =1\nb =1"], &[]);
}

#[test]
fn the_root_and_times_count_where_asked() {
    let at = |seconds: i64, root_mode: u32| {
        let entry = |path: &str, mode: u32| Entry {
            path: super::path(path),
            meta: Meta {
                mode,
                mtime: Timestamp { seconds, nanos: 0 },
                ..Meta::default()
            },
            kind: Kind::Dir {
                opaque: false,
                implied: false,
            },
        };
        View::of_layers([TestLayer::new(vec![entry("", root_mode), entry("d", 0o755)], b"")]).unwrap()
    };
    let (old, new) = (at(1, 0o755), at(2, 0o700));
    assert_eq!(draw_changes(&old, &new, Times::Ignore), [": [Mode]"]);
    assert_eq!(
        draw_changes(&old, &new, Times::Compare),
        [": [Mode, Time]", "d: [Time]"]
    );
}
