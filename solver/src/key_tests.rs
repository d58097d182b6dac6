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
        platform: "linux/amd64".into(),
        network: Network::Default,
        hostname: "h".into(),
        extra_hosts: vec![("a".into(), "1.1.1.1".into())],
        scripts: BTreeMap::from([("/s".into(), "x".into())]),
        mounts: vec![],
        security: Security::Sandbox,
        devices: vec![],
    }
}

const OWNER: FileOwner = FileOwner {
    mode: 0o400,
    uid: 0,
    gid: 0,
};

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
    let changes: [Change; 16] = [
        ("args", |e| e.args.push("x".into()), false),
        ("args joined", |e| e.args = vec!["make all".into()], false),
        ("args quoted", |e| e.args = vec!["make\" \"all".into()], false),
        ("env value", |e| e.env[0].1 = "3".into(), false),
        ("env name", |e| e.env[0].0 = "C".into(), false),
        ("env gone", |e| drop(e.env.pop()), false),
        ("env order", |e| e.env.reverse(), false),
        ("cwd", |e| e.cwd = "/x".into(), false),
        ("user", |e| e.user = "u".into(), false),
        ("platform", |e| e.platform = "linux/arm64".into(), false),
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
    let device = |required| {
        let mut asking = exec();
        let name = "v.com/c=d".into();
        asking.devices.push(Device { name, required });
        Op::Exec(asking)
    };
    check(Op::Exec(exec()), device(false), false);
    check(device(true), device(false), false);
    let mut insecure = exec();
    insecure.security = Security::Insecure;
    check(Op::Exec(exec()), Op::Exec(insecure), false);
}

/// Checks that each change of a mount changes the key of an exec with it.
fn every_change_enters(mount: Mount, changes: &[fn(&mut Mount)]) {
    let with = |mount: Mount| {
        let mut mounting = exec();
        mounting.mounts.push(mount);
        Op::Exec(mounting)
    };
    check(Op::Exec(exec()), with(mount.clone()), false);
    for (place, change) in changes.iter().enumerate() {
        let mut changed = mount.clone();
        change(&mut changed);
        let equal = key_of(with(mount.clone())) == key_of(with(changed));
        assert!(!equal, "change {place} of {mount:?}");
    }
}

macro_rules! change {
    ($kind:ident, $field:ident, $value:expr) => {
        |mount| match mount {
            Mount::$kind { $field, .. } => *$field = $value,
            _ => unreachable!("it is of one kind"),
        }
    };
}

#[test]
fn every_field_of_mounts_enters() {
    let bind = Mount::Bind {
        target: "/t".into(),
        input: 1,
        source: "/".into(),
        readonly: true,
    };
    every_change_enters(
        bind,
        &[
            change!(Bind, target, "/u".into()),
            change!(Bind, input, 2),
            change!(Bind, source, "/s".into()),
            change!(Bind, readonly, false),
        ],
    );
    let tmpfs = Mount::Tmpfs {
        target: "/t".into(),
        size_bytes: None,
        readonly: false,
    };
    every_change_enters(
        tmpfs,
        &[
            change!(Tmpfs, target, "/u".into()),
            change!(Tmpfs, size_bytes, Some(0)),
            change!(Tmpfs, readonly, true),
        ],
    );
    let secret = Mount::Secret {
        id: "i".into(),
        target: Some("/t".into()),
        env: None,
        required: false,
        owner: OWNER,
    };
    every_change_enters(
        secret,
        &[
            change!(Secret, id, "j".into()),
            change!(Secret, target, None),
            change!(Secret, env, Some(String::new())),
            change!(Secret, required, true),
            change!(Secret, owner, FileOwner { mode: 0o440, ..OWNER }),
            change!(Secret, owner, FileOwner { uid: 1, ..OWNER }),
            change!(Secret, owner, FileOwner { gid: 1, ..OWNER }),
        ],
    );
    let ssh = Mount::Ssh {
        id: "i".into(),
        target: "/t".into(),
        required: false,
        owner: OWNER,
    };
    every_change_enters(
        ssh,
        &[
            change!(Ssh, id, "j".into()),
            change!(Ssh, target, "/u".into()),
            change!(Ssh, required, true),
            change!(Ssh, owner, FileOwner { uid: 1, ..OWNER }),
        ],
    );
}

#[test]
fn every_field_of_cache_mounts_enters() {
    let cache = CacheMount {
        target: "/t".into(),
        id: "i".into(),
        namespace: String::new(),
        sharing: Sharing::Shared,
        readonly: false,
        from: None,
        owner: OWNER,
    };
    let changes: [fn(&mut CacheMount); 8] = [
        |cache| cache.target = "/u".into(),
        |cache| cache.id = "j".into(),
        |cache| cache.namespace = "n".into(),
        |cache| cache.sharing = Sharing::Private,
        |cache| cache.sharing = Sharing::Locked,
        |cache| cache.readonly = true,
        |cache| cache.from = Some((1, "/".into())),
        |cache| cache.owner.uid = 1,
    ];
    let with = |cache: CacheMount| {
        let mut mounting = exec();
        mounting.mounts.push(Mount::Cache(cache));
        Op::Exec(mounting)
    };
    for (place, change) in changes.iter().enumerate() {
        let mut changed = cache.clone();
        change(&mut changed);
        let equal = key_of(with(cache.clone())) == key_of(with(changed));
        assert!(!equal, "change {place}");
    }
}

#[test]
fn remote_sources_are_keyed_by_content_not_by_place() {
    let git = Git {
        remote: "https://a/r.git".into(),
        reference: "refs/heads/main".into(),
        commit: "0".repeat(40),
        subdir: String::new(),
        keep_git_dir: false,
        submodules: true,
        mtime: None,
    };
    type GitChange = (fn(&mut Git), bool);
    let changes: [GitChange; 7] = [
        (|git| git.remote.push('x'), true),
        (|git| git.reference.clear(), true),
        (|git| git.commit = "1".repeat(40), false),
        (|git| git.subdir.push('x'), false),
        (|git| git.keep_git_dir = true, false),
        (|git| git.submodules = false, false),
        (|git| git.mtime = Some(0), false),
    ];
    for (change, same) in changes {
        let mut changed = git.clone();
        change(&mut changed);
        let op = |git| Op::Source(Source::Git(git));
        check(op(git.clone()), op(changed), same);
    }
    let http = Http {
        url: "https://a/f".into(),
        digest: cache::Digest::of(b"x"),
        name: "f".into(),
        mtime: 0,
    };
    type HttpChange = (fn(&mut Http), bool);
    let changes: [HttpChange; 4] = [
        (|http| http.url.push('x'), true),
        (|http| http.digest = cache::Digest::of(b"y"), false),
        (|http| http.name.push('x'), false),
        (|http| http.mtime = 1, false),
    ];
    for (change, same) in changes {
        let mut changed = http.clone();
        change(&mut changed);
        let op = |http| Op::Source(Source::Http(http));
        check(op(http.clone()), op(changed), same);
    }
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
                view: InputView::Paths(Selection::of(patterns)),
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
    insta::assert_snapshot!(key_of(Op::Exec(exec())).unwrap(), @"75f25d470b3d46f054fb51f463d66e00e8af3e418d786fdd1b7721548443f407");
    insta::assert_snapshot!(key_of(file(FileAction::Copy(copy()))).unwrap(), @"40121de704c8d1812a773c6ac74ac3c5226faa3b7c679db9d0c7b6837d52955e");
}
