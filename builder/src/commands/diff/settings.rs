//! The settings of images that differ: variables, labels, ports and volumes one by one, the others as a whole.
//!
//! What is absent, null or empty is the same. When an image was made and how is not a setting.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Fields of an image that matter to whoever runs it, beside those of its `config`.
const OUTER: [(&str, &str); 4] = [
    ("architecture", "Architecture"),
    ("os", "Os"),
    ("variant", "Variant"),
    ("author", "Author"),
];
/// Fields of `config` that are sets or maps.
const BY_KEY: [&str; 3] = ["Labels", "ExposedPorts", "Volumes"];

/// Says only how somebody once wrote the command of an image for Windows.
const NO_SETTING: &str = "ArgsEscaped";

/// A setting that isn't the same in both images.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SettingChange {
    field: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// Compares two image configs.
pub(super) fn changes(from: &Value, to: &Value) -> Vec<SettingChange> {
    let (mut before, mut after) = (settings(from), settings(to));
    let mut fields: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    fields.sort_unstable();
    fields.dedup();
    fields
        .into_iter()
        .map(|field| SettingChange {
            before: before.remove(&field),
            after: after.remove(&field),
            field,
        })
        .filter(|change| change.before != change.after)
        .collect()
}

fn settings(image: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (field, name) in OUTER {
        found.extend(image.get(field).map(|value| (name.to_owned(), value.clone())));
    }
    for (field, value) in image
        .get("config")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        match value {
            Value::Object(map) if BY_KEY.contains(&field.as_str()) => {
                found.extend(map.iter().map(|(key, value)| {
                    // That it is there is all that a port or a volume says.
                    let value = match value {
                        Value::Object(empty) if empty.is_empty() => Value::Bool(true),
                        other => other.clone(),
                    };
                    (format!("{field}.{key}"), value)
                }));
            }
            Value::Array(list) if field == "Env" => {
                let pairs = list.iter().filter_map(Value::as_str).map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    // A variable may be empty, and is another thing then than none.
                    (format!("Env.{name}"), Value::from(value))
                });
                found.extend(pairs);
            }
            value => {
                found.insert(field.clone(), value.clone());
            }
        }
    }
    let may_be_empty = |field: &str| field.starts_with("Env.") || field.starts_with("Labels.");
    found.retain(|field, value| field != NO_SETTING && (!is_empty(value) || may_be_empty(field)));
    found
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

impl SettingChange {
    pub(super) fn text(&self) -> String {
        let said = |value: &Value| match value {
            Value::Bool(true) => String::new(),
            other => format!(" {other}"),
        };
        let field = &self.field;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => format!("config {field}: {before} → {after}"),
            (Some(before), None) => format!("config {field}: removed{}", said(before)),
            (None, Some(after)) => format!("config {field}: added{}", said(after)),
            (None, None) => String::new(),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "Field": self.field, "Before": self.before, "After": self.after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_compared_one_by_one() {
        let check = |from: Value, to: Value, expected: &[&str]| {
            let image =
                |config: &Value| json!({"os": "linux", "created": config.to_string(), "config": config});
            let lines: Vec<String> = changes(&image(&from), &image(&to))
                .iter()
                .map(SettingChange::text)
                .collect();
            assert_eq!(lines, expected, "{from} {to}");
        };
        check(json!({}), json!({}), &[]);
        check(
            json!({"Env": null, "User": "", "Cmd": []}),
            json!({"Volumes": {}}),
            &[],
        );
        check(
            json!({"Env": ["A=1", "B=2", "C"]}),
            json!({"Env": ["B=3", "D=", "A=1"]}),
            &[
                "config Env.B: \"2\" → \"3\"",
                "config Env.C: removed \"\"",
                "config Env.D: added \"\"",
            ],
        );
        check(
            json!({"Labels": {"a.b": "1"}, "ExposedPorts": {"80/tcp": {}}}),
            json!({"Labels": {"a.b": "2"}, "ExposedPorts": {"81/udp": {}}}),
            &[
                "config ExposedPorts.80/tcp: removed",
                "config ExposedPorts.81/udp: added",
                "config Labels.a.b: \"1\" → \"2\"",
            ],
        );
        check(
            json!({"Cmd": ["a"], "Healthcheck": {"Test": ["CMD", "x"]}}),
            json!({"Cmd": ["a", "b"], "Entrypoint": ["e"]}),
            &[
                "config Cmd: [\"a\"] → [\"a\",\"b\"]",
                "config Entrypoint: added [\"e\"]",
                "config Healthcheck: removed {\"Test\":[\"CMD\",\"x\"]}",
            ],
        );
    }
}
