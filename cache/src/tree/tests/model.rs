//! Views against a naive model that applies one layer after the other to a map of paths.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What the model knows of an inode: its drawing.
#[derive(Debug, Clone, PartialEq)]
struct Inode {
    number: usize,
    mode: u32,
    kind: Kind,
}

type State = BTreeMap<TreePath, Inode>;

/// One wish about a layer; those that make no sense where they stand are dropped.
#[derive(Debug, Clone)]
struct Wish {
    path: TreePath,
    what: u8,
    other: TreePath,
}

/// Few names, so that layers meet. `l` is never a parent: links as parents of implied directories have tests of
/// their own.
fn a_path() -> impl Strategy<Value = TreePath> {
    let dir = prop::sample::select(vec!["a", "b", "a-", "a."]);
    let leaf = prop::sample::select(vec!["a", "b", "l", "a-"]);
    (prop::collection::vec(dir, 0..3), leaf).prop_map(|(dirs, leaf)| {
        let mut path = TreePath::root();
        dirs.iter()
            .chain([&leaf])
            .for_each(|name| path.push(name.as_bytes()));
        path
    })
}

fn a_layer() -> impl Strategy<Value = Vec<Wish>> {
    let wish = (a_path(), 0..9u8, a_path()).prop_map(|(path, what, other)| Wish { path, what, other });
    prop::collection::vec(wish, 0..9)
}

/// Says what a wish wants.
fn kind_of(wish: &Wish) -> Kind {
    let is_link = wish.path.name() == Some(b"l");
    match wish.what {
        _ if is_link => Kind::Symlink(wish.other.as_bytes().to_vec()),
        0 | 1 => Kind::File(FileData {
            size_bytes: 0,
            offset: 0,
            content: blake3::hash(b"").into(),
        }),
        2 | 3 => Kind::Dir {
            opaque: false,
            implied: false,
        },
        4 => Kind::Dir {
            opaque: true,
            implied: false,
        },
        5 => Kind::Dir {
            opaque: true,
            implied: true,
        },
        6 => Kind::Whiteout,
        7 => Kind::Hardlink(wish.other.clone()),
        _ => Kind::Fifo,
    }
}

/// Turns wishes into a well-formed layer on top of `below`. Every entry gets a mode of its own.
fn build(wishes: &[Wish], below: &State, next_mode: &mut u32) -> BTreeMap<TreePath, Entry> {
    let mut layer: BTreeMap<TreePath, Entry> = BTreeMap::new();
    for wish in wishes {
        let kind = kind_of(wish);
        if let Kind::Hardlink(target) = &kind {
            let own = layer
                .get(target)
                .map(|entry| !matches!(entry.kind, Kind::Dir { .. } | Kind::Whiteout));
            let lower = below
                .get(target)
                .is_some_and(|inode| !matches!(inode.kind, Kind::Dir { .. }));
            // Another name for a link could become a parent.
            let to_symlink = target.name() == Some(b"l");
            if to_symlink || leads_to(&layer, target, &wish.path) || !own.unwrap_or(lower) {
                continue;
            }
        }
        let parents: Vec<TreePath> = std::iter::successors(wish.path.parent(), TreePath::parent).collect();
        let blocked = parents.iter().any(|path| {
            layer
                .get(path)
                .is_some_and(|entry| !matches!(entry.kind, Kind::Dir { .. }))
        });
        if blocked || layer.contains_key(&wish.path) {
            continue;
        }
        for parent in parents.into_iter().filter(|path| !path.is_root()) {
            layer.entry(parent.clone()).or_insert(Entry {
                path: parent,
                meta: Meta::default(),
                kind: Kind::Dir {
                    opaque: false,
                    implied: true,
                },
            });
        }
        *next_mode += 1;
        let meta = Meta {
            mode: *next_mode,
            ..Meta::default()
        };
        layer.insert(
            wish.path.clone(),
            Entry {
                path: wish.path.clone(),
                meta,
                kind,
            },
        );
    }
    layer
}

/// Says whether `from`, followed through the hard links of a layer, ends at `to`: a link there would close a loop.
fn leads_to(layer: &BTreeMap<TreePath, Entry>, from: &TreePath, to: &TreePath) -> bool {
    let mut at = from;
    while let Some(Kind::Hardlink(next)) = layer.get(at).map(|entry| &entry.kind) {
        at = next;
    }
    at == to
}

/// Applies a layer the slow way.
fn apply(state: &State, layer: &BTreeMap<TreePath, Entry>, next_inode: &mut usize) -> State {
    let mut out = state.clone();
    let remove = |out: &mut State, path: &TreePath, itself: bool| {
        out.retain(|other, _| other.below(path).is_none_or(|rest| rest.is_root() && !itself));
    };
    for (path, entry) in layer {
        match entry.kind {
            Kind::Whiteout => remove(&mut out, path, true),
            Kind::Dir { opaque: true, .. } => remove(&mut out, path, false),
            Kind::Dir { .. } => {}
            _ => remove(&mut out, path, true),
        }
    }
    let mut own: BTreeMap<TreePath, Inode> = BTreeMap::new();
    for (path, entry) in layer {
        let mode = match entry.kind {
            Kind::Whiteout | Kind::Hardlink(_) => continue,
            Kind::Dir { implied: true, .. } => match state.get(path).filter(|lower| is_dir(lower)) {
                // Hidden by an opaque parent?
                Some(lower) if !hidden(layer, path) => lower.mode,
                _ => 0o755,
            },
            _ => entry.meta.mode,
        };
        *next_inode += 1;
        let inode = Inode {
            number: *next_inode,
            mode,
            kind: entry.kind.clone(),
        };
        own.insert(path.clone(), inode);
    }
    for (path, entry) in layer {
        if let Kind::Hardlink(_) = &entry.kind {
            let mut target = path;
            while let Some(Kind::Hardlink(next)) = layer.get(target).map(|entry| &entry.kind) {
                target = next;
            }
            let inode = own.get(target).filter(|inode| !is_dir(inode));
            let inode = inode.or_else(|| state.get(target)).unwrap().clone();
            out.insert(path.clone(), inode);
        }
    }
    out.extend(own);
    out
}

fn hidden(layer: &BTreeMap<TreePath, Entry>, path: &TreePath) -> bool {
    std::iter::successors(path.parent(), TreePath::parent).any(|above| {
        layer
            .get(&above)
            .is_some_and(|entry| matches!(entry.kind, Kind::Dir { opaque: true, .. }))
    })
}

fn is_dir(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::Dir { .. })
}

fn draw_kind(kind: NodeKind<'_>) -> String {
    format!("{kind:?}")
}

fn draw_model(kind: &Kind) -> String {
    draw_kind(match kind {
        Kind::File(data) => NodeKind::File {
            size_bytes: data.size_bytes,
        },
        Kind::Dir { .. } => NodeKind::Dir,
        Kind::Symlink(target) => NodeKind::Symlink(target),
        Kind::Fifo => NodeKind::Fifo,
        other => panic!("{other:?}"),
    })
}

/// Follows links in the model, one component at a time and from the start again after each link.
fn resolve(state: &State, path: &TreePath) -> Option<(TreePath, bool)> {
    let mut path = path.clone();
    for _ in 0..=40 {
        let mut at = TreePath::root();
        let names: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        let mut link = None;
        for (number, name) in names.iter().enumerate() {
            let next = at.join(name);
            match state.get(&next).map(|inode| &inode.kind) {
                Some(Kind::Symlink(target)) => {
                    let rest = names[number + 1..].join(&b'/');
                    link = Some([at.as_bytes(), b"/", target, b"/", &rest].concat());
                    break;
                }
                Some(Kind::Dir { .. }) | None => {}
                Some(_) if number + 1 < names.len() => return None,
                Some(_) => {}
            }
            at = next;
        }
        match link {
            Some(next) => path = TreePath::clean(&next),
            None => return Some((path.clone(), path.is_root() || state.contains_key(&path))),
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    // hardening R26
    #[test]
    fn views_equal_layers_applied_in_order(
        stacks in prop::collection::vec(a_layer(), 0..6),
        paths in prop::collection::vec(a_path(), 8),
    ) {
        let (mut state, mut view) = (State::new(), View::default());
        let (mut next_mode, mut next_inode) = (0, 0);
        for wishes in &stacks {
            let layer = build(wishes, &state, &mut next_mode);
            state = apply(&state, &layer, &mut next_inode);
            view.push(TestLayer::new(layer.into_values().collect(), b"")).unwrap();
        }
        let walked: Vec<(TreePath, Node<'_>)> = view.walk(&TreePath::root()).collect();
        let mut expected: Vec<(&TreePath, &Inode)> = state.iter().collect();
        expected.sort_by(|a, b| a.0.components().cmp(b.0.components()));
        let lines = |all: Vec<(String, u32, String)>| all;
        prop_assert_eq!(
            lines(walked.iter().map(|(p, n)| (p.to_string(), n.meta.mode, draw_kind(n.kind))).collect()),
            lines(expected.iter().map(|(p, i)| (p.to_string(), i.mode, draw_model(&i.kind))).collect())
        );
        for ((path, node), (_, inode)) in walked.iter().zip(&expected) {
            prop_assert_eq!(view.lookup(path), Some(*node));
            for ((_, other_node), (_, other)) in walked.iter().zip(&expected) {
                prop_assert_eq!(node.inode == other_node.inode, inode.number == other.number);
                prop_assert!(node.inode != other_node.inode || std::ptr::eq(node.meta, other_node.meta));
            }
        }
        for path in &paths {
            prop_assert_eq!(view.lookup(path).is_some(), state.contains_key(path));
            let got = view.resolve(path).ok().map(|found| (found.path, found.node.is_some()));
            prop_assert_eq!(got, resolve(&state, path));
        }
    }
}
