//! The steps of a build as provenance tells them: in the words of BuildKit's LLB, whose meaning our ops have.
//!
//! It is told, not meant to be run again: a file that is written is told by its content, a mount by its place. Values of
//! secrets aren't in ops; what a user put into an argument all the same is hidden.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use solver::op::{Copy, Exec, FileAction, FileOp, Mount, Network, Op, Security, Source};
use solver::{Graph, InputView, Vertex, VertexId};

use super::materials;
use crate::registry::{Origin, Resolved};

/// Returns the steps that a result needs, inputs before their users, the result last.
pub(super) fn needed(graph: &Graph, target: VertexId) -> Vec<VertexId> {
    let mut is_needed = vec![false; graph.len()];
    is_needed[target.index()] = true;
    for id in graph.ids().rev() {
        if is_needed[id.index()] {
            graph.used(id).for_each(|input| is_needed[input.index()] = true);
        }
    }
    graph.ids().filter(|id| is_needed[id.index()]).collect()
}

/// The steps of a result, told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Steps {
    /// `llbDefinition`.
    pub(super) list: Vec<Value>,
    /// Lines of the Dockerfile, by step.
    pub(super) locations: Map<String, Value>,
    /// The step that made the result.
    pub(super) last: String,
}

impl Steps {
    /// Tells steps that [`needed`] returned.
    pub(super) fn of(
        graph: &Graph,
        steps: &[VertexId],
        images: &[Arc<Resolved>],
        hide: &dyn Fn(&str) -> String,
    ) -> Self {
        let numbers: HashMap<VertexId, usize> = steps.iter().copied().zip(0..).collect();
        let name = |id: &VertexId| format!("step{}", numbers[id]);
        let mut told = Self::default();
        for id in steps {
            let vertex = graph.vertex(*id);
            let mut step = json!({"id": name(id), "op": op(vertex, images, hide)});
            if !vertex.inputs.is_empty() {
                let inputs = vertex
                    .inputs
                    .iter()
                    .map(|input| format!("{}:0", name(&input.vertex)));
                step["inputs"] = inputs.collect();
            }
            told.list.push(step);
            if let (Some(first), Some(last)) = (vertex.label.line, vertex.label.last_line) {
                let range = json!({"start": {"line": first}, "end": {"line": last}});
                told.locations
                    .insert(name(id), json!({"locations": [{"ranges": [range]}]}));
            }
            told.last = name(id);
        }
        // An op that does nothing names the result, as LLB definitions end.
        told.list.push(json!({
            "id": format!("step{}", steps.len()),
            "op": {"Op": null},
            "inputs": [format!("{}:0", told.last)],
        }));
        told
    }
}

fn op(vertex: &Vertex, images: &[Arc<Resolved>], hide: &dyn Fn(&str) -> String) -> Value {
    match &vertex.op {
        Op::Source(source) => json!({"Op": {"source": {"identifier": hide(&identifier(source, images))}}}),
        Op::Exec(exec) => {
            let mut parts = exec.platform.split('/');
            let mut platform = Map::new();
            for key in ["OS", "Architecture", "Variant"] {
                platform.extend(parts.next().map(|part| (key.to_owned(), json!(part))));
            }
            json!({"Op": {"exec": of_exec(exec, hide)}, "platform": platform})
        }
        Op::File(file) => json!({"Op": {"file": {"actions": actions(file, vertex)}}}),
        Op::Merge => {
            let inputs: Value = (0..vertex.inputs.len())
                .map(|input| json!({"input": input}))
                .collect();
            json!({"Op": {"merge": {"inputs": inputs}}})
        }
    }
}

fn identifier(source: &Source, images: &[Arc<Resolved>]) -> String {
    match source {
        Source::Scratch => "scratch://".to_owned(),
        Source::Image { layers, reference } => {
            match materials::image(images, layers, reference).map(|image| &image.origin) {
                Some(Origin::OciLayout(dir)) => format!("oci-layout://{}", materials::layout_name(dir)),
                _ => format!("docker-image://{reference}"),
            }
        }
        Source::Local { name } => format!("local://{name}"),
        Source::Git(git) => {
            let url = frontend::without_credentials(&git.remote);
            let subdir = match git.subdir.as_str() {
                "" => String::new(),
                subdir => format!(":{subdir}"),
            };
            format!("git://{url}#{}{subdir}", git.commit)
        }
        Source::Http(file) => frontend::without_credentials(&file.url),
    }
}

fn of_exec(exec: &Exec, hide: &dyn Fn(&str) -> String) -> Value {
    let args: Vec<String> = exec.args.iter().map(|arg| hide(arg)).collect();
    let env: Vec<String> = exec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={}", hide(value)))
        .collect();
    let mut meta = json!({"args": args, "env": env, "cwd": exec.cwd});
    if !exec.user.is_empty() {
        meta["user"] = json!(exec.user);
    }
    if !exec.extra_hosts.is_empty() {
        let hosts = exec.extra_hosts.iter();
        meta["extraHosts"] = hosts.map(|(host, ip)| json!({"Host": host, "IP": ip})).collect();
    }
    let root = json!({"input": 0, "dest": "/", "output": 0});
    let mounts = std::iter::once(root).chain(exec.mounts.iter().map(mount));
    let mut told = json!({"meta": meta, "mounts": mounts.collect::<Value>()});
    match exec.network {
        Network::Default => {}
        Network::None => told["network"] = json!("NONE"),
        Network::Host => told["network"] = json!("HOST"),
    }
    if exec.security == Security::Insecure {
        told["security"] = json!("INSECURE");
    }
    if !exec.devices.is_empty() {
        let devices = exec.devices.iter();
        told["cdiDevices"] = devices
            .map(|device| json!({"name": device.name, "optional": !device.required}))
            .collect();
    }
    told
}

fn mount(mount: &Mount) -> Value {
    match mount {
        Mount::Bind {
            target,
            input,
            source,
            readonly,
        } => json!({"input": input, "selector": source, "dest": target, "output": -1, "readonly": readonly}),
        Mount::Cache(cache) => json!({
            "input": cache.from.as_ref().map_or(-1, |(input, _)| i64::try_from(*input).unwrap_or(-1)),
            "dest": cache.target,
            "output": -1,
            "mountType": 3,
            "cacheOpt": {"ID": cache.id},
        }),
        Mount::Tmpfs { target, .. } => json!({"input": -1, "dest": target, "output": -1, "mountType": 4}),
        Mount::Secret {
            id,
            target,
            env,
            required,
            ..
        } => {
            let mut told = json!({"input": -1});
            if let Some(target) = target {
                told["dest"] = json!(target);
            }
            if let Some(env) = env {
                told["env"] = json!(env);
            }
            told["output"] = json!(-1);
            told["mountType"] = json!(1);
            told["secretOpt"] = json!({"ID": id, "optional": !required});
            told
        }
        Mount::Ssh {
            id, target, required, ..
        } => json!({
            "input": -1,
            "dest": target,
            "output": -1,
            "mountType": 2,
            "SSHOpt": {"ID": id, "optional": !required},
        }),
    }
}

fn actions(file: &FileOp, vertex: &Vertex) -> Vec<Value> {
    let action = |action: &FileAction| {
        let told = match action {
            FileAction::Copy(copy) => return copies(copy, vertex),
            FileAction::Write { dest, data, .. } => {
                json!({"mkfile": {"path": dest, "data": STANDARD.encode(data)}})
            }
            FileAction::MakeDir { path, user } => {
                let mut told = json!({"path": path, "mode": 0o755, "makeParents": true});
                if !user.is_empty() {
                    told["owner"] = json!(user);
                }
                json!({ "mkdir": told })
            }
        };
        vec![json!({"input": 0, "secondaryInput": -1, "output": 0, "Action": told})]
    };
    file.actions.iter().flat_map(action).collect()
}

/// LLB copies one source at a time.
fn copies(copy: &Copy, vertex: &Vertex) -> Vec<Value> {
    let sources = match vertex.inputs.get(copy.input).map(|input| &input.view) {
        Some(InputView::Paths(selection)) => selection.patterns.clone(),
        _ => vec!["/".to_owned()],
    };
    let told = |source: &String| {
        let mut told =
            json!({"src": source, "dest": copy.dest, "attemptUnpackDockerCompatibility": copy.unpack});
        if let Some(owner) = &copy.change.owner {
            told["owner"] = json!(owner);
        }
        json!({"input": 0, "secondaryInput": copy.input, "output": 0, "Action": {"copy": told}})
    };
    sources.iter().map(told).collect()
}
