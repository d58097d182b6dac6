//! `ashlar inspect`: docker's JSON about images, or parts of it by template.

use cache::Store;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::template::Template;
use crate::cli::InspectArgs;
use crate::clock;
use crate::image::{self, StoredImage};
use crate::report::Failure;

/// Fields that docker's JSON always has in `Config`, with what they are when the image doesn't say.
const CONFIG_FIELDS: [(&str, Value); 9] = [
    ("User", Value::String(String::new())),
    ("ExposedPorts", Value::Null),
    ("Env", Value::Null),
    ("Cmd", Value::Null),
    ("Volumes", Value::Null),
    ("WorkingDir", Value::String(String::new())),
    ("Entrypoint", Value::Null),
    ("OnBuild", Value::Null),
    ("Labels", Value::Null),
];

/// Returns what is known about images: a JSON array, or one line for each by `--format`.
pub(crate) fn inspect(args: &InspectArgs, store: &Store) -> Result<String, Failure> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"))?),
    };
    let mut facts = Vec::new();
    for word in &args.images {
        facts.push(of_image(store, &image::find(store, word)?)?);
    }
    match (template, args.format.as_deref()) {
        (Some(template), _) => facts
            .iter()
            .map(|facts| Ok(template.render(facts)? + "\n"))
            .collect(),
        (None, Some("json")) => Ok(format!("{}\n", Value::from(facts))),
        (None, _) => Ok(pretty(&Value::from(facts)) + "\n"),
    }
}

fn of_image(store: &Store, image: &StoredImage) -> Result<Value, Failure> {
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
        "Config": config(image),
        "RootFS": { "Type": "layers", "Layers": image.layers()? },
        "Metadata": { "LastTagTime": clock::rfc3339(tagged_unix) },
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

/// Returns the image's `config`, with the fields that are always there first.
fn config(image: &StoredImage) -> Value {
    let mut fields: Map<String, Value> = CONFIG_FIELDS
        .iter()
        .map(|(field, value)| ((*field).to_owned(), value.clone()))
        .collect();
    let own = image.config.get("config").and_then(Value::as_object);
    for (field, value) in own.into_iter().flatten() {
        fields.insert(field.clone(), value.clone());
    }
    Value::Object(fields)
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
