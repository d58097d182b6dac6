//! A test per row of the table in `key.rs`.

use std::collections::BTreeMap;

use cache::tree::Selection;
use cache::{DiffId, Key, TreeHash};

use super::*;
use crate::graph::{Input, Label};

fn exec() -> Exec {
    Exec {
        args: vec!["make".into(), "all".into()],
        env: vec![("A".into(), "1".into()), ("B".into(), "2".into())],
        env_unkeyed: vec![],
        cwd: "/".into(),
        user: String::new(),
        network: Network::Default,
        hostname: "h".into(),
        extra_hosts: vec![("a".into(), "1.1.1.1".into())],
        scripts: BTreeMap::from([("/s".into(), "x".into())]),
    }
}

fn copy() -> Copy {
    Copy {
        input: 0,
        dest: "/d".into(),
        change: MetaChange::default(),
        unpack: false,
    }
}

fn file(action: FileAction) -> Op {
    Op::File(FileOp {
        actions: vec![action],
        epoch: None,
    })
}

fn write(change: impl FnOnce(&mut String, &mut String, &mut Vec<u8>, &mut MetaChange)) -> Op {
    let (mut dest, mut name, mut data, mut meta) = (
        "/d".to_owned(),
        "n".to_owned(),
        b"x".to_vec(),
        MetaChange::default(),
    );
    change(&mut dest, &mut name, &mut data, &mut meta);
    file(FileAction::Write {
        dest,
        name,
        data,
        change: meta,
    })
}

/// Returns the key of an op without inputs.
fn key_of(op: Op) -> Option<Key> {
    let mut graph = Graph::new();
    let id = graph.add(op, vec![], Label::default());
    key(&graph, id, &[])
}

#[track_caller]
fn check(a: Op, b: Op, same: bool) {
    let (key_a, key_b) = (key_of(a.clone()).unwrap(), key_of(b.clone()).unwrap());
    assert_eq!(key_a == key_b, same, "{a:?}\n{b:?}");
}

#[test]
fn sources() {
    let image = |n: u8, reference: &str| {
        Op::Source(Source::Image {
            layers: vec![DiffId::from_bytes([n; 32])],
            reference: reference.into(),
        })
    };
    check(image(1, "a"), image(2, "a"), false);
    check(image(1, "a"), image(1, "b"), true);
    let none = Op::Source(Source::Image {
        layers: vec![],
        reference: "a".into(),
    });
    check(none, Op::Source(Source::Scratch), false);
    check(Op::Merge, Op::Source(Source::Scratch), false);
    assert_eq!(
        key_of(Op::Source(Source::Local {
            name: "context".into()
        })),
        None
    );
}

#[test]
fn every_field_of_an_exec_but_unkeyed_variables_enters() {
    type Change = (&'static str, fn(&mut Exec), bool);
    let changes: [Change; 15] = [
        ("args", |e| e.args.push("x".into()), false),
        ("args joined", |e| e.args = vec!["make all".into()], false),
        ("args quoted", |e| e.args = vec!["make\" \"all".into()], false),
        ("env value", |e| e.env[0].1 = "3".into(), false),
        ("env name", |e| e.env[0].0 = "C".into(), false),
        ("env gone", |e| drop(e.env.pop()), false),
        ("env order", |e| e.env.reverse(), false),
        ("cwd", |e| e.cwd = "/x".into(), false),
        ("user", |e| e.user = "u".into(), false),
        ("network", |e| e.network = Network::None, false),
        ("hostname", |e| e.hostname = "i".into(), false),
        ("extra hosts", |e| e.extra_hosts.clear(), false),
        (
            "script",
            |e| drop(e.scripts.insert("/s".into(), "y".into())),
            false,
        ),
        (
            "script path",
            |e| drop(e.scripts.insert("/t".into(), "y".into())),
            false,
        ),
        (
            "proxies",
            |e| e.env_unkeyed.push(("HTTP_PROXY".into(), "p".into())),
            true,
        ),
    ];
    for (what, change, same) in changes {
        let mut changed = exec();
        change(&mut changed);
        let equal = key_of(Op::Exec(changed)) == key_of(Op::Exec(exec()));
        assert_eq!(equal, same, "{what}");
    }
    let mut host = exec();
    host.network = Network::Host;
    check(Op::Exec(exec()), Op::Exec(host), false);
}

#[test]
fn every_field_of_file_actions_enters() {
    let with = |change: fn(&mut Copy)| {
        let mut copy = copy();
        change(&mut copy);
        file(FileAction::Copy(copy))
    };
    let plain = with(|_| ());
    check(plain.clone(), with(|_| ()), true);
    check(plain.clone(), with(|c| c.input = 1), false);
    check(plain.clone(), with(|c| c.dest = "/d/".into()), false);
    check(plain.clone(), with(|c| c.unpack = true), false);
    check(
        plain.clone(),
        with(|c| c.change.owner = Some(String::new())),
        false,
    );
    check(
        with(|c| c.change.owner = Some("1".into())),
        with(|c| c.change.owner = Some("2".into())),
        false,
    );
    check(
        with(|c| c.change.mode = Some(ModeChange::Octal(0o644))),
        with(|c| c.change.mode = Some(ModeChange::Symbolic("0644".into()))),
        false,
    );
    check(
        plain.clone(),
        with(|c| c.change.mode = Some(ModeChange::Octal(0))),
        false,
    );

    let inline = write(|_, _, _, _| ());
    check(inline.clone(), write(|dest, _, _, _| dest.push('x')), false);
    check(inline.clone(), write(|_, name, _, _| name.push('x')), false);
    check(inline.clone(), write(|_, _, data, _| data.push(0xff)), false);
    check(
        inline.clone(),
        write(|_, _, _, change| change.owner = Some("1".into())),
        false,
    );
    check(plain.clone(), inline, false);

    let directory = |path: &str, user: &str| {
        file(FileAction::MakeDir {
            path: path.into(),
            user: user.into(),
        })
    };
    check(directory("/a", ""), directory("/b", ""), false);
    check(directory("/a", ""), directory("/a", "u"), false);

    let epoch = |epoch| {
        Op::File(FileOp {
            actions: vec![],
            epoch,
        })
    };
    check(epoch(None), epoch(Some(0)), false);
    check(epoch(Some(1)), epoch(Some(0)), false);
    let twice = Op::File(FileOp {
        actions: vec![FileAction::Copy(copy()); 2],
        epoch: None,
    });
    check(plain, twice, false);
}

#[test]
fn inputs_enter_as_they_are_seen_and_labels_do_not() {
    let tree = |n| TreeHash::from_bytes([n; 32]);
    let result = |n| Key::from_bytes([n; 32]);
    let with = |context: &str, label: &str, patterns: &[&str], seen: &[Seen]| {
        let mut graph = Graph::new();
        let label = Label {
            name: label.into(),
            step: label.into(),
            line: Some(1),
            ..Label::default()
        };
        let local = Op::Source(Source::Local { name: context.into() });
        let local = graph.add(local, vec![], label.clone());
        let base = graph.add(Op::Source(Source::Scratch), vec![], label.clone());
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let inputs = vec![
            Input {
                vertex: base,
                view: InputView::Whole,
            },
            Input {
                vertex: local,
                view: InputView::Paths(Selection { patterns }),
            },
        ];
        let user = graph.add(file(FileAction::Copy(copy())), inputs, label);
        key(&graph, user, seen)
    };
    let first = with("c", "l", &["a"], &[Seen::Whole(result(1)), Seen::Paths(tree(1))]);
    assert!(first.is_some());
    assert_eq!(
        first,
        with("d", "m", &["*"], &[Seen::Whole(result(1)), Seen::Paths(tree(1))])
    );
    assert_ne!(
        first,
        with("c", "l", &["a"], &[Seen::Whole(result(2)), Seen::Paths(tree(1))])
    );
    assert_ne!(
        first,
        with("c", "l", &["a"], &[Seen::Whole(result(1)), Seen::Paths(tree(2))])
    );
    assert_ne!(
        first,
        with("c", "l", &["a"], &[Seen::Paths(tree(1)), Seen::Whole(result(1))])
    );
    assert_eq!(with("c", "l", &["a"], &[Seen::Whole(result(1))]), None);
}

#[test]
fn components_show_short_text_and_hash_the_rest() {
    let mut graph = Graph::new();
    let mut long = exec();
    long.env[0].1 = "x".repeat(SHOWN_BYTES + 1);
    long.env[1].1 = "\u{1b}[2J".into();
    let id = graph.add(Op::Exec(long), vec![], Label::default());
    let keyed = keyed(&graph, id, &[]).unwrap();
    let value = |name: &str| {
        keyed
            .components
            .iter()
            .find(|part| part.name == name)
            .unwrap()
            .value
            .clone()
    };
    assert_eq!(value("args"), r#""make" "all""#);
    assert!(value("env A").starts_with("blake3:"));
    assert!(value("env B").starts_with("blake3:"));
    assert_eq!(keyed.key, key(&graph, id, &[]).unwrap());
}

/// Changes only together with `VERSION`: an accidental change of keys throws every cache away.
#[test]
fn keys_are_stable_across_versions() {
    insta::assert_snapshot!(key_of(Op::Exec(exec())).unwrap(), @"f49ef5a615f2a07bf68e3bef2dc672dee077d5dea08dc3194afc281ffb7b1498");
    insta::assert_snapshot!(key_of(file(FileAction::Copy(copy()))).unwrap(), @"36d75f65a441e2a0487b7c438e11a26adc91a07dd61d63f378b95653cc8bd5df");
}
