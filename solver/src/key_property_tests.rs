//! Key sensitivity over random ops: two ops have one key exactly if they are equal in all that enters.
//!
//! Values come from few short texts, so that equal ones, and such that differ only in where one ends, are met often. Every op is
//! taken apart field by field: one that is added doesn't compile until it is decided here whether it enters.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::graph::Label;

fn key_of(op: Op) -> Key {
    let mut graph = Graph::new();
    let id = graph.add(op, vec![], Label::default());
    key(&graph, id, &[]).expect("because the op is no local directory")
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(&["", "a", "b", "ab", "a=", "=", "\u{0}", "1", "01"][..]).prop_map(str::to_owned)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..3)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map(text(), text(), 0..3).prop_map(|map| map.into_iter().collect())
}

fn owner() -> impl Strategy<Value = FileOwner> {
    (0_u32..2, 0_u32..2, 0_u32..2).prop_map(|(mode, uid, gid)| FileOwner { mode, uid, gid })
}

fn optional() -> impl Strategy<Value = Option<String>> {
    prop::option::of(text())
}

fn cache_mount() -> impl Strategy<Value = CacheMount> {
    let sharing = prop::sample::select(&[Sharing::Shared, Sharing::Private, Sharing::Locked][..]);
    let from = prop::option::of((0_usize..2, text()));
    (text(), text(), text(), sharing, any::<bool>(), from, owner()).prop_map(
        |(target, id, namespace, sharing, readonly, from, owner)| CacheMount {
            target,
            id,
            namespace,
            sharing,
            readonly,
            // What a cache begins with has an owner of its own: this one doesn't count then, and has no other value.
            owner: if from.is_some() {
                FileOwner {
                    mode: 0,
                    uid: 0,
                    gid: 0,
                }
            } else {
                owner
            },
            from,
        },
    )
}

fn mount() -> impl Strategy<Value = Mount> {
    prop_oneof![
        (text(), 0_usize..2, text(), any::<bool>()).prop_map(|(target, input, source, readonly)| {
            Mount::Bind {
                target,
                input,
                source,
                readonly,
            }
        }),
        cache_mount().prop_map(Mount::Cache),
        (text(), prop::option::of(0_u64..2), any::<bool>()).prop_map(|(target, size_bytes, readonly)| {
            Mount::Tmpfs {
                target,
                size_bytes,
                readonly,
            }
        }),
        (text(), optional(), optional(), any::<bool>(), owner()).prop_map(
            |(id, target, env, required, owner)| Mount::Secret {
                id,
                target,
                env,
                required,
                owner,
            }
        ),
        (text(), text(), any::<bool>(), owner()).prop_map(|(id, target, required, owner)| Mount::Ssh {
            id,
            target,
            required,
            owner,
        }),
    ]
}

fn exec() -> impl Strategy<Value = Exec> {
    let network = prop::sample::select(&[Network::Default, Network::None, Network::Host][..]);
    let security = prop::sample::select(&[Security::Sandbox, Security::Insecure][..]);
    let device = (text(), any::<bool>()).prop_map(|(name, required)| Device { name, required });
    let words = (texts(), pairs(), pairs(), text(), text(), text());
    let rest = (
        network,
        text(),
        pairs(),
        pairs(),
        prop::collection::vec(mount(), 0..2),
        security,
        prop::collection::vec(device, 0..2),
    );
    (words, rest).prop_map(
        |(
            (args, env, env_unkeyed, cwd, user, platform),
            (network, hostname, extra_hosts, scripts, mounts, security, devices),
        )| Exec {
            args,
            env,
            env_unkeyed,
            cwd,
            user,
            platform,
            network,
            hostname,
            extra_hosts,
            scripts: scripts.into_iter().collect::<BTreeMap<_, _>>(),
            mounts,
            security,
            devices,
        },
    )
}

fn action() -> impl Strategy<Value = FileAction> {
    let mode = prop_oneof![
        (0_u32..3).prop_map(ModeChange::Octal),
        text().prop_map(ModeChange::Symbolic)
    ];
    let change = (optional(), prop::option::of(mode))
        .prop_map(|(owner, mode)| MetaChange { owner, mode })
        .boxed();
    prop_oneof![
        (0_usize..2, text(), change.clone(), any::<bool>()).prop_map(|(input, dest, change, unpack)| {
            FileAction::Copy(Copy {
                input,
                dest,
                change,
                unpack,
            })
        }),
        (text(), text(), text(), change).prop_map(|(dest, name, data, change)| FileAction::Write {
            dest,
            name,
            data: data.into_bytes(),
            change,
        }),
        (text(), text()).prop_map(|(path, user)| FileAction::MakeDir { path, user }),
    ]
}

/// Takes from an exec what doesn't enter.
fn keyed_part(exec: &Exec) -> Exec {
    let Exec {
        args: _,
        env: _,
        env_unkeyed: _,
        cwd: _,
        user: _,
        platform: _,
        network: _,
        hostname: _,
        extra_hosts: _,
        scripts: _,
        mounts: _,
        security: _,
        devices: _,
    } = exec;
    Exec {
        env_unkeyed: Vec::new(),
        ..exec.clone()
    }
}

/// Puts one field of `from` into `into`.
fn take_field(into: &mut Exec, from: &Exec, which: usize) {
    let from = from.clone();
    match which {
        0 => into.args = from.args,
        1 => into.env = from.env,
        2 => into.env_unkeyed = from.env_unkeyed,
        3 => into.cwd = from.cwd,
        4 => into.user = from.user,
        5 => into.platform = from.platform,
        6 => into.network = from.network,
        7 => into.hostname = from.hostname,
        8 => into.extra_hosts = from.extra_hosts,
        9 => into.scripts = from.scripts,
        10 => into.mounts = from.mounts,
        11 => into.security = from.security,
        _ => into.devices = from.devices,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// "hardening T84": any single field of an exec that is other makes another key, and nothing else does.
    #[test]
    fn one_other_field_of_an_exec_is_another_key(first in exec(), other in exec(), which in 0_usize..13) {
        let mut changed = first.clone();
        take_field(&mut changed, &other, which);
        let is_same = keyed_part(&first) == keyed_part(&changed);
        prop_assert_eq!(key_of(Op::Exec(first)) == key_of(Op::Exec(changed)), is_same);
    }

    /// "hardening T84": the same of mounts, which are many and alike.
    #[test]
    fn other_mounts_are_another_key(first in mount(), second in mount()) {
        let with = |mount: &Mount| {
            key_of(Op::Exec(Exec {
                args: vec![],
                env: vec![],
                env_unkeyed: vec![],
                cwd: String::new(),
                user: String::new(),
                platform: String::new(),
                network: Network::Default,
                hostname: String::new(),
                extra_hosts: vec![],
                scripts: BTreeMap::new(),
                mounts: vec![mount.clone()],
                security: Security::Sandbox,
                devices: vec![],
            }))
        };
        prop_assert_eq!(with(&first) == with(&second), first == second);
    }

    /// "hardening T84": file actions, alone and one after the other.
    #[test]
    fn other_file_actions_are_another_key(
        first in prop::collection::vec(action(), 0..3),
        second in prop::collection::vec(action(), 0..3),
        epochs in (prop::option::of(0_i64..2), prop::option::of(0_i64..2)),
    ) {
        let a = FileOp { actions: first, epoch: epochs.0 };
        let b = FileOp { actions: second, epoch: epochs.1 };
        let is_same = a == b;
        prop_assert_eq!(key_of(Op::File(a)) == key_of(Op::File(b)), is_same);
    }
}
