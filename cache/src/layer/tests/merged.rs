//! Merged images: against what each stack must amount to, and against the kernel's overlay of the same layers.

use super::treecmp::{Tree, assert_same, scan};
use std::sync::Arc;

use super::*;
use crate::error::{Error, Problem};
use crate::tree::{Node, NodeKind, View};

fn merged(layers: &[&LayerFile]) -> Result<File> {
    let out = scratch();
    write_merged(layers, &out)?;
    let devices: Vec<&File> = layers.iter().map(|layer| layer.file()).collect();
    fsck(&out, &devices);
    Ok(out)
}

fn merged_tree(layers: &[&LayerFile]) -> Tree {
    let image = merged(layers).unwrap();
    let devices: Vec<&File> = layers.iter().map(|layer| layer.file()).collect();
    scan(&mount::place(&mount::erofs(&image, &devices).unwrap()))
}

/// Says what a stack amounts to: names with their modes, in one line each.
fn summary(layers: &[&[&str]]) -> Vec<String> {
    let layers: Vec<LayerFile> = layers.iter().map(|lines| layer(lines).unwrap()).collect();
    let tree = merged_tree(&layers.iter().collect::<Vec<_>>());
    let line = |(name, text): (&Vec<u8>, &String)| {
        let after = |key: &str| {
            text.split_once(key)
                .map(|(_, rest)| rest.split(' ').next().unwrap_or_default())
        };
        let links = after(" links ")
            .filter(|&links| links != "1")
            .map(|links| format!(" links {links}"));
        let target = after(" target ").map(|target| format!(" -> {target}"));
        let name = name.escape_ascii();
        format!(
            "{} {name}{}{}",
            after("mode ").unwrap(),
            links.unwrap_or_default(),
            target.unwrap_or_default()
        )
    };
    tree.iter().skip(1).map(line).collect()
}

#[test]
fn layers_are_applied_in_order() {
    if !mount::works() {
        return;
    }
    let cases: &[(&[&[&str]], &[&str])] = &[
        (
            &[&["d a", "f a/x 1", "f a/y 1"], &["d a", "w a/x"]],
            &["40755 a", "100644 a/y"],
        ),
        (
            &[&["d a", "f a/x 1"], &["o a", "f a/y 2"]],
            &["40755 a", "100644 a/y"],
        ),
        (&[&["d a", "f a/x 1"], &["w a"]], &[]),
        (&[&["d a", "f a/x 1"], &["f a 1"]], &["100644 a"]),
        (&[&["f a 1"], &["d a", "f a/x 1"]], &["40755 a", "100644 a/x"]),
        (&[&["d a", "f a/x 1"], &["f a 1"], &["d a"]], &["40755 a"]),
        // A link into a lower layer, also when the layer removes the name that it was made from.
        (
            &[&["f a 1"], &["h b a"]],
            &["100644 a links 2", "100644 b links 2"],
        ),
        (&[&["f a 1"], &["h b a", "w a"]], &["100644 b"]),
        (
            &[&["f a 1"], &["h b a", "h c b"]],
            &["100644 a links 3", "100644 b links 3", "100644 c links 3"],
        ),
        (&[&["f a 1", "h b a"], &["f a 2"]], &["100644 a", "100644 b"]),
        // Parents that the tar doesn't hold.
        (
            &[&["d a", "f a/x 1"], &["f a/y 1"]],
            &["40755 a", "100644 a/x", "100644 a/y"],
        ),
        (&[&["f a/b/c 1"]], &["40755 a", "40755 a/b", "100644 a/b/c"]),
        // And those that are links below.
        (
            &[
                &["d usr", "d usr/lib", "f usr/lib/x 1", "l lib usr/lib"],
                &["f lib/y 1", "w lib/x"],
            ],
            &[
                "120777 lib -> usr/lib",
                "40755 usr",
                "40755 usr/lib",
                "100644 usr/lib/y",
            ],
        ),
        (
            &[
                &["d usr", "d usr/lib", "f usr/lib/x 1", "l lib usr/lib"],
                &["d lib", "f lib/y 1"],
            ],
            &[
                "40755 lib",
                "100644 lib/y",
                "40755 usr",
                "40755 usr/lib",
                "100644 usr/lib/x",
            ],
        ),
        (
            &[&["l up ../../out"], &["f up/x 1"]],
            &["40755 out", "100644 out/x", "120777 up -> ../../out"],
        ),
    ];
    for (layers, expected) in cases {
        assert_eq!(summary(layers), *expected, "{layers:?}");
    }
}

#[test]
fn implied_parents_keep_what_lies_below() {
    if !mount::works() {
        return;
    }
    let mut writer = LayerWriter::create(scratch()).unwrap();
    writer
        .add(
            path("a"),
            Meta {
                uid: 7,
                ..meta(0o1777)
            },
            Body::Dir { opaque: false },
        )
        .unwrap();
    let base = open(writer.finish().unwrap());
    let top = layer(&["f a/x 1"]).unwrap();
    let tree = merged_tree(&[&base, &top]);
    assert!(
        tree[&b"a"[..]].starts_with("mode 41777 owner 7:0"),
        "{}",
        tree[&b"a"[..]]
    );
}

#[test]
fn links_to_nothing_are_refused() {
    let layer = layer(&["h b nowhere"]).unwrap();
    let error = merged(&[&layer]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Merge {
                problem: Problem::DanglingLink,
                ..
            }
        ),
        "{error}"
    );
}

/// A generator of numbers: the same seeds give the same stacks, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Makes a layer that stands alone: every parent is there, no links into lower layers.
fn random_layer(random: &mut Random, bottom: bool) -> LayerFile {
    let mut lines: Vec<String> = Vec::new();
    let mut ahead = vec![(String::new(), 0)];
    while let Some((dir, depth)) = ahead.pop() {
        for name in ["a", "a-b", "b", "c", ".x"] {
            let path = if dir.is_empty() {
                name.to_owned()
            } else {
                format!("{dir}/{name}")
            };
            let content = random.below(1000);
            match random.below(10) {
                0 | 1 if depth < 3 => {
                    lines.push(format!("d {path}"));
                    ahead.push((path, depth + 1));
                }
                2 if depth < 3 && !bottom => {
                    lines.push(format!("o {path}"));
                    ahead.push((path, depth + 1));
                }
                3 | 4 => lines.push(format!("f {path} {content}")),
                5 => lines.push(format!("l {path} {content}")),
                6 if !bottom => lines.push(format!("w {path}")),
                7 => {
                    let file = lines.iter().rev().find(|line| line.starts_with("f "));
                    let target = file.map(|line| line.split(' ').nth(1).unwrap().to_owned());
                    lines.extend(target.map(|target| format!("h {path} {target}")));
                }
                _ => {}
            }
        }
    }
    layer(&lines.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

#[test]
fn the_kernels_overlay_says_the_same() {
    if !mount::works() {
        return;
    }
    for seed in 1..=60 {
        let mut random = Random(seed);
        let n_layers = 2 + random.below(4);
        let mut layers: Vec<Arc<LayerFile>> = (0..n_layers)
            .map(|at| Arc::new(random_layer(&mut random, at == 0)))
            .collect();
        // Overlay wants two layers, and something to be in them.
        layers.insert(0, Arc::new(layer(&["f always 1"]).unwrap()));
        let mounts: Vec<_> = layers
            .iter()
            .map(|layer| mount::erofs(layer.file(), &[]).unwrap())
            .collect();
        let overlay = mount::overlay(&mounts).unwrap();
        let expected = scan(&mount::place(&overlay));
        let parts: Vec<&LayerFile> = layers.iter().map(AsRef::as_ref).collect();
        let found = merged_tree(&parts);
        // Overlay counts the links of the layer; the merged image those that are left.
        let without_counts =
            |tree: Tree| -> Tree { tree.into_iter().map(|(k, v)| (k, strip_links(&v))).collect() };
        let expected = without_counts(expected);
        assert_same(
            &format!("seed {seed}, merged image"),
            &expected,
            &without_counts(found),
        );
        assert_same(&format!("seed {seed}, view"), &expected, &view_tree(layers));
    }
}

/// Reads the merged view of the indexes in the words of [`scan`], without counts of links.
fn view_tree(layers: Vec<Arc<LayerFile>>) -> Tree {
    let view = View::of_layers(layers).unwrap();
    let nodes: Vec<(TreePath, Node<'_>)> = view.walk(&TreePath::root()).collect();
    let mut first_names = std::collections::HashMap::new();
    for (path, node) in &nodes {
        let first: &mut &[u8] = first_names.entry(node.inode).or_insert(path.as_bytes());
        *first = (*first).min(path.as_bytes());
    }
    let mut tree = Tree::from([(Vec::new(), "the root is not compared".to_owned())]);
    for (path, node) in &nodes {
        let Meta {
            mode,
            uid,
            gid,
            mtime,
            ..
        } = node.meta;
        let (kind, body) = match node.kind {
            NodeKind::Dir => (0o040_000, String::new()),
            NodeKind::File { size_bytes } => {
                let content = &view.content(node).unwrap().hex()[..16];
                (0o100_000, format!("rdev 0 size {size_bytes} content {content}"))
            }
            NodeKind::Symlink(target) => (0o120_000, format!("rdev 0 target {}", target.escape_ascii())),
            other => panic!("random layers have no {other:?}"),
        };
        let mut text = format!(
            "mode {:o} owner {uid}:{gid} mtime {}.{:09} xattrs []",
            kind | mode,
            mtime.seconds,
            mtime.nanos
        );
        if !node.is_dir() {
            text += &format!(" {body} first name {}", first_names[&node.inode].escape_ascii());
        }
        tree.insert(path.as_bytes().to_vec(), text);
    }
    tree
}

fn strip_links(text: &str) -> String {
    match text.split_once(" links ") {
        Some((before, after)) => format!("{before} {}", after.split_once(' ').map_or("", |(_, rest)| rest)),
        None => text.to_owned(),
    }
}

#[test]
fn many_layers_are_one_mount() {
    if !mount::works() {
        return;
    }
    let layers: Vec<LayerFile> = (0..200)
        .map(|at| layer(&[&format!("f file{at} {at}")]).unwrap())
        .collect();
    let tree = merged_tree(&layers.iter().collect::<Vec<_>>());
    assert_eq!(tree.len(), 201);
}
