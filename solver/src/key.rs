//! Cache keys: `key = BLAKE3(version, kind of op, its fields, how it sees each input)`.
//!
//! An allow-list: a field enters the key only by a line below. Every part is hashed as name and value, each with its
//! length before it, and the same parts are kept as *components* to explain a later miss, so that what is hashed and what is
//! explained can't drift apart. A test per row of this table shows that it is true:
//!
//! | part                | enters                                            | doesn't                          |
//! |---------------------|---------------------------------------------------|----------------------------------|
//! | `Source::Scratch`   | that it is scratch                                |                                  |
//! | `Source::Image`     | layers                                            | reference                        |
//! | `Source::Local`     | has no key, only hashes of what is selected of it | its name                         |
//! | `Source::Git`       | commit, subdir, keep_git_dir, submodules, mtime   | remote, reference                |
//! | `Source::Http`      | digest, name, mtime                               | url                              |
//! | `Exec`              | args, env in order, cwd, user, platform, network, hostname, extra hosts, scripts, security, devices | `env_unkeyed` (proxies) |
//! | `Mount::Bind`       | target, input, source, readonly                   |                                  |
//! | `Mount::Cache`      | target, namespace, id, sharing, readonly, from, owner | content                      |
//! | `Mount::Tmpfs`      | target, size, readonly                            |                                  |
//! | `Mount::Secret`     | id, target, env, required, owner                  | value                            |
//! | `Mount::Ssh`        | id, target, required, owner                       | what the agent holds             |
//! | `FileOp`            | epoch, actions in order                           |                                  |
//! | `FileAction::Copy`  | input, dest, owner, mode, unpack                  | patterns: see the input's view   |
//! | `FileAction::Write` | dest, name, data, owner, mode                     |                                  |
//! | `FileAction::MakeDir` | path, user                                      |                                  |
//! | `Merge`             | that it is a merge                                |                                  |
//! | input, `Whole`      | its key; of a local directory the hash of everything | its label                     |
//! | input, `Paths`      | tree hash of what is selected                     | the patterns, all else of the input |
//! | input               | its sort: local directory, image, step, files     |                                  |
//! | `Label`             |                                                   | all of it                        |
//!
//! Known holes: what a process fetches from the network is not in the key of its step, nor what it finds in cache mounts, nor
//! which project they are of: a result is found by every project that asks for the same step.

use std::fmt::Write as _;

use cache::{Component, Key, TreeHash};

use crate::graph::{Graph, InputView, VertexId};
use crate::mode::ModeChange;
use crate::op::{
    CacheMount, Copy, Device, Exec, FileAction, FileOp, FileOwner, Git, Http, MetaChange, Mount, Network, Op,
    Security, Sharing, Source,
};

/// Changing it makes every record of older versions unreachable.
const VERSION: &str = "ashlar key 2";

/// Values longer than this are kept as a hash in components.
const SHOWN_BYTES: usize = 160;

/// How an op sees one of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// All of the result of this key.
    Whole(Key),
    /// What is selected of it.
    Paths(TreeHash),
}

/// A key with the parts it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The key.
    pub key: Key,
    /// Its parts, for explaining.
    pub components: Vec<Component>,
}

/// Computes the key of a vertex from how it sees its inputs, in their order.
///
/// Returns `None` for a local directory, which has none, and when the number of `seen` isn't the number of inputs.
pub fn key(graph: &Graph, id: VertexId, seen: &[Seen]) -> Option<Key> {
    Some(finish(&parts(graph, id, seen)?))
}

/// Computes the key of a vertex and keeps its parts. See [`key`].
pub fn keyed(graph: &Graph, id: VertexId, seen: &[Seen]) -> Option<Keyed> {
    let parts = parts(graph, id, seen)?;
    let key = finish(&parts);
    let components = parts
        .0
        .into_iter()
        .map(|(name, value)| Component {
            value: shown(&value),
            name,
        })
        .collect();
    Some(Keyed { key, components })
}

/// Name and value of everything that enters a key, in order.
#[derive(Default)]
struct Parts(Vec<(String, Vec<u8>)>);

impl Parts {
    fn add(&mut self, name: impl Into<String>, value: impl AsRef<[u8]>) {
        self.0.push((name.into(), value.as_ref().to_vec()));
    }

    /// Adds a list unambiguously: each item quoted.
    fn add_list<'a>(&mut self, name: impl Into<String>, items: impl IntoIterator<Item = &'a String>) {
        let mut value = String::new();
        for item in items {
            // Debug quoting escapes quotes, so that no two lists read the same. Writing to a string can't fail.
            let _ = write!(value, "{}{item:?}", if value.is_empty() { "" } else { " " });
        }
        self.add(name, value);
    }
}

fn finish(parts: &Parts) -> Key {
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    put(VERSION.as_bytes());
    for (name, value) in &parts.0 {
        put(name.as_bytes());
        put(value);
    }
    hasher.finalize().into()
}

fn shown(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= SHOWN_BYTES && !text.contains(char::is_control) => text.to_owned(),
        _ => format!("blake3:{}", Key::from(blake3::hash(value))),
    }
}

fn parts(graph: &Graph, id: VertexId, seen: &[Seen]) -> Option<Parts> {
    let vertex = graph.vertex(id);
    if seen.len() != vertex.inputs.len() {
        return None;
    }
    let mut parts = Parts::default();
    match &vertex.op {
        Op::Source(Source::Local { .. }) => return None,
        Op::Source(Source::Scratch) => parts.add("op", "scratch"),
        Op::Source(Source::Image { layers, reference: _ }) => {
            parts.add("op", "image");
            parts.add(
                "layers",
                layers
                    .iter()
                    .flat_map(|layer| *layer.as_bytes())
                    .collect::<Vec<u8>>(),
            );
        }
        Op::Source(Source::Git(git)) => git_parts(git, &mut parts),
        Op::Source(Source::Http(http)) => http_parts(http, &mut parts),
        Op::Exec(exec) => exec_parts(exec, &mut parts),
        Op::File(file) => file_parts(file, &mut parts),
        Op::Merge => parts.add("op", "merge"),
    }
    parts.add("inputs", seen.len().to_string());
    for (place, (input, seen)) in vertex.inputs.iter().zip(seen).enumerate() {
        let name = input_name(graph, place, input.vertex, &input.view);
        match seen {
            Seen::Whole(key) => parts.add(format!("{name} whole"), key.hex()),
            Seen::Paths(hash) => parts.add(format!("{name} paths"), hash.hex()),
        }
    }
    Some(parts)
}

/// Names an input by its place and sort, never by its label or its context's name: those don't enter the key.
fn input_name(graph: &Graph, place: usize, input: VertexId, view: &InputView) -> String {
    let sort = match (&graph.vertex(input).op, view) {
        (Op::Source(Source::Local { .. }), _) => "local",
        (_, InputView::Paths(_)) => "files",
        (Op::Source(Source::Image { .. }), InputView::Whole) => "image",
        (_, InputView::Whole) => "step",
    };
    format!("input {place} {sort}")
}

fn git_parts(git: &Git, parts: &mut Parts) {
    let Git {
        remote: _,
        reference: _,
        commit,
        subdir,
        keep_git_dir,
        submodules,
        mtime,
    } = git;
    parts.add("op", "git");
    parts.add("commit", commit);
    parts.add("subdir", subdir);
    parts.add("keep git dir", keep_git_dir.to_string());
    parts.add("submodules", submodules.to_string());
    if let Some(mtime) = mtime {
        parts.add("mtime", mtime.to_string());
    }
}

fn http_parts(http: &Http, parts: &mut Parts) {
    let Http {
        url: _,
        digest,
        name,
        mtime,
    } = http;
    parts.add("op", "http");
    parts.add("digest", digest.to_string());
    parts.add("name", name);
    parts.add("mtime", mtime.to_string());
}

fn exec_parts(exec: &Exec, parts: &mut Parts) {
    let Exec {
        args,
        env,
        env_unkeyed: _,
        cwd,
        user,
        platform,
        network,
        hostname,
        extra_hosts,
        scripts,
        mounts,
        security,
        devices,
    } = exec;
    parts.add("op", "exec");
    parts.add_list("args", args);
    for (name, value) in env {
        parts.add(format!("env {name}"), value);
    }
    parts.add("cwd", cwd);
    parts.add("user", user);
    parts.add("platform", platform);
    let network = match network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    };
    parts.add("network", network);
    parts.add("hostname", hostname);
    parts.add_list(
        "extra hosts",
        extra_hosts.iter().flat_map(|(name, address)| [name, address]),
    );
    for (path, content) in scripts {
        parts.add(format!("script {path}"), content);
    }
    let security = match security {
        Security::Sandbox => "sandbox",
        Security::Insecure => "insecure",
    };
    parts.add("security", security);
    for Device { name, required } in devices {
        parts.add(format!("device {name}"), required.to_string());
    }
    for (place, mount) in mounts.iter().enumerate() {
        mount_parts(mount, &|field| format!("mount {place} {field}"), parts);
    }
}

fn mount_parts(mount: &Mount, name: &dyn Fn(&str) -> String, parts: &mut Parts) {
    match mount {
        Mount::Bind {
            target,
            input,
            source,
            readonly,
        } => {
            parts.add(name("type"), "bind");
            parts.add(name("target"), target);
            parts.add(name("input"), input.to_string());
            parts.add(name("source"), source);
            parts.add(name("readonly"), readonly.to_string());
        }
        Mount::Cache(cache) => cache_mount_parts(cache, name, parts),
        Mount::Tmpfs {
            target,
            size_bytes,
            readonly,
        } => {
            parts.add(name("type"), "tmpfs");
            parts.add(name("target"), target);
            if let Some(size_bytes) = size_bytes {
                parts.add(name("size"), size_bytes.to_string());
            }
            parts.add(name("readonly"), readonly.to_string());
        }
        Mount::Secret {
            id,
            target,
            env,
            required,
            owner,
        } => {
            parts.add(name("type"), "secret");
            parts.add(name("id"), id);
            if let Some(target) = target {
                parts.add(name("target"), target);
            }
            if let Some(env) = env {
                parts.add(name("env"), env);
            }
            parts.add(name("required"), required.to_string());
            owner_parts(owner, name, parts);
        }
        Mount::Ssh {
            id,
            target,
            required,
            owner,
        } => {
            parts.add(name("type"), "ssh");
            parts.add(name("id"), id);
            parts.add(name("target"), target);
            parts.add(name("required"), required.to_string());
            owner_parts(owner, name, parts);
        }
    }
}

fn cache_mount_parts(cache: &CacheMount, name: &dyn Fn(&str) -> String, parts: &mut Parts) {
    let CacheMount {
        target,
        id,
        namespace,
        sharing,
        readonly,
        from,
        owner,
    } = cache;
    parts.add(name("type"), "cache");
    parts.add(name("target"), target);
    parts.add(name("namespace"), namespace);
    parts.add(name("id"), id);
    let sharing = match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    };
    parts.add(name("sharing"), sharing);
    parts.add(name("readonly"), readonly.to_string());
    if let Some((input, source)) = from {
        parts.add(name("from"), input.to_string());
        parts.add(name("source"), source);
    }
    owner_parts(owner, name, parts);
}

fn owner_parts(owner: &FileOwner, name: &dyn Fn(&str) -> String, parts: &mut Parts) {
    let FileOwner { mode, uid, gid } = owner;
    parts.add(name("mode"), format!("{mode:04o}"));
    parts.add(name("owner"), format!("{uid}:{gid}"));
}

fn file_parts(file: &FileOp, parts: &mut Parts) {
    let FileOp { actions, epoch } = file;
    parts.add("op", "file");
    parts.add(
        "epoch",
        epoch.map(|seconds| seconds.to_string()).unwrap_or_default(),
    );
    for (place, action) in actions.iter().enumerate() {
        let name = |field: &str| format!("action {place} {field}");
        match action {
            FileAction::Copy(Copy {
                input,
                dest,
                change,
                unpack,
            }) => {
                parts.add(name("kind"), "copy");
                parts.add(name("input"), input.to_string());
                parts.add(name("dest"), dest);
                parts.add(name("unpack"), unpack.to_string());
                change_parts(change, name, parts);
            }
            FileAction::Write {
                dest,
                name: file_name,
                data,
                change,
            } => {
                parts.add(name("kind"), "write");
                parts.add(name("dest"), dest);
                parts.add(name("name"), file_name);
                parts.add(name("data"), data);
                change_parts(change, name, parts);
            }
            FileAction::MakeDir { path, user } => {
                parts.add(name("kind"), "mkdir");
                parts.add(name("path"), path);
                parts.add(name("user"), user);
            }
        }
    }
}

fn change_parts(change: &MetaChange, name: impl Fn(&str) -> String, parts: &mut Parts) {
    let MetaChange { owner, mode } = change;
    // Absent and empty are different parts: an absent field has no name either.
    if let Some(owner) = owner {
        parts.add(name("owner"), owner);
    }
    match mode {
        Some(ModeChange::Octal(bits)) => parts.add(name("mode"), format!("{bits:04o}")),
        Some(ModeChange::Symbolic(clauses)) => parts.add(name("symbolic mode"), clauses),
        None => {}
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "key_property_tests.rs"]
mod property_tests;
