//! `ashlar inspect`: docker's JSON about images, or parts of it by template.

use std::collections::BTreeMap;

use cache::Store;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::template::{Field, Template};
use crate::cli::InspectArgs;
use crate::clock;
use crate::image::{self, StoredImage};
use crate::report::Failure;

/// Fields of `Config` that docker's JSON always has, with what they are when the image doesn't say.
const ALWAYS: [(&str, Value); 8] = [
    ("Cmd", Value::Null),
    ("Entrypoint", Value::Null),
    ("Env", Value::Null),
    ("Labels", Value::Null),
    ("OnBuild", Value::Null),
    ("User", Value::String(String::new())),
    ("Volumes", Value::Null),
    ("WorkingDir", Value::String(String::new())),
];

/// What docker 28's structures show where an image doesn't say; the order of `Config` is that of its `{{json .Config}}`.
/// What they have left of older versions (`VirtualSize`, `ContainerConfig`) is always empty there, and refused here.
const FIELDS: [Field; 16] = [
    field("", "Variant", ""),
    field("", "OsVersion", ""),
    field("Config", "User", ""),
    field("Config", "ExposedPorts", "map[]"),
    field("Config", "Env", "[]"),
    field("Config", "Entrypoint", "[]"),
    field("Config", "Cmd", "[]"),
    field("Config", "Volumes", "map[]"),
    field("Config", "WorkingDir", ""),
    field("Config", "Labels", "map[]"),
    field("Config", "StopSignal", ""),
    field("Config", "ArgsEscaped", "false"),
    field("Config", "Healthcheck", "<nil>"),
    field("Config", "OnBuild", "[]"),
    field("Config", "Shell", "[]"),
    field("GraphDriver", "Data", "map[]"),
];

const fn field(of: &'static str, name: &'static str, zero: &'static str) -> Field {
    Field { of, name, zero }
}

/// Returns what is known about images: a JSON array, or one line for each by `--format`.
pub(crate) fn inspect(args: &InspectArgs, store: &Store) -> Result<String, Failure> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"))?),
    };
    let mut facts = Vec::new();
    for word in &args.images {
        let image = image::find(store, word)?;
        let config = match template {
            Some(_) => typed_config(&image),
            None => whole_config(&image),
        };
        facts.push(of_image(store, &image, config)?);
    }
    match (template, args.format.as_deref()) {
        (Some(template), _) => facts
            .iter()
            .map(|facts| Ok(template.render_typed(facts, &FIELDS)? + "\n"))
            .collect(),
        (None, Some("json")) => Ok(format!("{}\n", Value::from(facts))),
        (None, _) => Ok(pretty(&Value::from(facts)) + "\n"),
    }
}

fn of_image(store: &Store, image: &StoredImage, config: Value) -> Result<Value, Failure> {
    let tags: Vec<String> = image.names().map(image::familiar).collect();
    let tagged_unix = image.rows.iter().map(|row| row.created_unix).max().unwrap_or(0);
    let mut facts = json!({
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": image.repo_digests(),
        "Parent": "",
        "Comment": last_comment(image),
        "Created": image.text("created"),
        "DockerVersion": image.text("docker_version"),
        "Author": image.text("author"),
        "Architecture": image.text("architecture"),
        "Variant": image.text("variant"),
        "Os": image.text("os"),
        "Size": image.size_bytes(store)?,
        // Docker's word for who keeps the layers, and where: nowhere that others could look.
        "GraphDriver": { "Data": null, "Name": "ashlar" },
        "RootFS": { "Type": "layers", "Layers": image.layers()? },
        "Metadata": { "LastTagTime": clock::rfc3339(tagged_unix) },
        "Config": config,
    });
    if image.text("variant").is_empty()
        && let Some(facts) = facts.as_object_mut()
    {
        // `remove` would move the last field here.
        facts.shift_remove("Variant");
    }
    Ok(facts)
}

fn last_comment(image: &StoredImage) -> &str {
    let last = image
        .config
        .get("history")
        .and_then(Value::as_array)
        .and_then(|steps| steps.last());
    last.and_then(|step| step.get("comment"))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Returns the image's `config` as docker's API has it: sorted, with the fields that are always there.
fn whole_config(image: &StoredImage) -> Value {
    let always = ALWAYS.map(|(field, value)| (field.to_owned(), value));
    let own = own_config(image).map(|(field, value)| (field.clone(), value.clone()));
    let sorted: BTreeMap<String, Value> = always.into_iter().chain(own).collect();
    Value::Object(sorted.into_iter().collect())
}

/// Returns the image's `config` as docker's templates see it: in its order, without what is empty.
fn typed_config(image: &StoredImage) -> Value {
    let known = FIELDS.iter().filter(|field| field.of == "Config");
    let known = known.map(|field| field.name);
    let own: Map<String, Value> = own_config(image)
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    let mut fields = Map::new();
    for name in known {
        if let Some(value) = own.get(name).filter(|value| !is_empty(value)) {
            fields.insert(name.to_owned(), value.clone());
        }
    }
    // What docker doesn't know is part of the image all the same.
    let others = own
        .into_iter()
        .filter(|(name, _)| !FIELDS.iter().any(|field| field.name == name));
    fields.extend(others);
    Value::Object(fields)
}

fn own_config(image: &StoredImage) -> impl Iterator<Item = (&String, &Value)> {
    let own = image.config.get("config").and_then(Value::as_object);
    own.into_iter().flatten()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Returns JSON with docker's indentation of four blanks.
fn pretty(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        .expect("because a JSON value has only string keys and a Vec takes every byte");
    String::from_utf8(out).expect("because serde_json writes UTF-8")
}
