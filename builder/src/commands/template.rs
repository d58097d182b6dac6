//! The part of Go's templates that people use with `--format`: text, field paths, and the functions `json`, `index`,
//! `len`, `join`, `upper`, `lower`, `println`. Control structures (`range`, `if`) are refused by name.

use serde_json::Value;

use crate::report::Failure;

/// Longest template, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Call(Function, Vec<Operand>),
}

#[derive(Debug, Clone, Copy)]
enum Function {
    Show,
    Json,
    Index,
    Len,
    Join,
    Upper,
    Lower,
    Println,
}

#[derive(Debug)]
enum Operand {
    /// Names to follow from the top; empty is the top itself.
    Path(Vec<String>),
    Literal(Value),
}

fn invalid(action: &str, why: &str) -> Failure {
    Failure::usage(format!("invalid format `{{{{{action}}}}}`: {why}"))
}

impl Template {
    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if text.len() > MAX_BYTES {
            return Err(Failure::usage(format!(
                "the format is longer than {MAX_BYTES} bytes"
            )));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find("{{") {
            parts.push(Part::Text(rest[..open].to_owned()));
            let inside = &rest[open + 2..];
            let close = inside
                .find("}}")
                .ok_or_else(|| Failure::usage("invalid format: `{{` without `}}`"))?;
            parts.push(action(&inside[..close])?);
            rest = &inside[close + 2..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// Fills the template with the fields of `top`. A field that `top` doesn't have is an error; deeper ones show as
    /// `<no value>`, because there they are keys of maps.
    pub(crate) fn render(&self, top: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Call(function, operands) => {
                    let values = operands
                        .iter()
                        .map(|operand| operand.value(top))
                        .collect::<Result<Vec<_>, _>>()?;
                    out.push_str(&call(*function, &values)?);
                }
            }
        }
        Ok(out)
    }
}

fn action(text: &str) -> Result<Part, Failure> {
    let words = words(text)?;
    let Some((first, rest)) = words.split_first() else {
        return Err(invalid(text, "it is empty"));
    };
    let function = match first.as_str() {
        "json" => Function::Json,
        "index" => Function::Index,
        "len" => Function::Len,
        "join" => Function::Join,
        "upper" => Function::Upper,
        "lower" => Function::Lower,
        "println" => Function::Println,
        path if path.starts_with('.') && rest.is_empty() => {
            return Ok(Part::Call(Function::Show, vec![operand(text, path)?]));
        }
        other if other.starts_with('.') => return Err(invalid(text, "a field takes no arguments")),
        other => return Err(invalid(text, &format!("`{other}` isn't supported"))),
    };
    let n_operands = match function {
        Function::Index => 2..=8,
        Function::Join => 2..=2,
        _ => 1..=1,
    };
    if !n_operands.contains(&rest.len()) {
        return Err(invalid(text, &format!("`{first}` got {} arguments", rest.len())));
    }
    let operands = rest
        .iter()
        .map(|word| operand(text, word))
        .collect::<Result<_, _>>()?;
    Ok(Part::Call(function, operands))
}

/// Splits an action at blanks, but for those in double quotes. Quoted words keep their quotes.
fn words(text: &str) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut escaped = false;
    for c in text.chars() {
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        if c.is_whitespace() && !quoted {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        } else {
            word.push(c);
        }
    }
    if quoted {
        return Err(invalid(text, "a quote is not closed"));
    }
    words.extend((!word.is_empty()).then_some(word));
    Ok(words)
}

fn operand(action: &str, word: &str) -> Result<Operand, Failure> {
    if let Some(path) = word.strip_prefix('.') {
        let names: Vec<String> = path.split('.').map(str::to_owned).collect();
        return match names.as_slice() {
            [only] if only.is_empty() => Ok(Operand::Path(Vec::new())),
            names if names.iter().any(String::is_empty) => {
                Err(invalid(action, &format!("`{word}` is no field")))
            }
            _ => Ok(Operand::Path(names)),
        };
    }
    // Go's numbers and quoted strings are JSON's, as far as anybody uses them here.
    match serde_json::from_str(word) {
        Ok(value @ (Value::String(_) | Value::Number(_))) => Ok(Operand::Literal(value)),
        _ => Err(invalid(
            action,
            &format!("`{word}` is neither a field, a number nor a string"),
        )),
    }
}

impl Operand {
    fn value<'a>(&'a self, top: &'a Value) -> Result<&'a Value, Failure> {
        let names = match self {
            Self::Literal(value) => return Ok(value),
            Self::Path(names) => names,
        };
        let mut value = top;
        for (depth, name) in names.iter().enumerate() {
            match value.get(name) {
                Some(next) => value = next,
                None if depth == 0 => {
                    let known: Vec<&str> = top
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(name, _)| name.as_str())
                        .collect();
                    return Err(Failure::usage(format!("no field `.{name}`"))
                        .with_help(format!("the fields are {}", known.join(", "))));
                }
                None => return Ok(&Value::Null),
            }
        }
        Ok(value)
    }
}

fn call(function: Function, values: &[&Value]) -> Result<String, Failure> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => show(other),
    };
    match (function, values) {
        (Function::Show, [value]) => Ok(text(value)),
        (Function::Println, [value]) => Ok(text(value) + "\n"),
        (Function::Json, [value]) => Ok(value.to_string()),
        (Function::Upper, [value]) => Ok(text(value).to_uppercase()),
        (Function::Lower, [value]) => Ok(text(value).to_lowercase()),
        (Function::Len, [Value::Array(list)]) => Ok(list.len().to_string()),
        (Function::Len, [Value::Object(map)]) => Ok(map.len().to_string()),
        (Function::Len, [Value::String(text)]) => Ok(text.len().to_string()),
        (Function::Len, [Value::Null]) => Ok("0".to_owned()),
        (Function::Join, [Value::Array(list), Value::String(between)]) => {
            Ok(list.iter().map(text).collect::<Vec<_>>().join(between))
        }
        (Function::Join, [Value::Null, _]) => Ok(String::new()),
        (Function::Index, [first, keys @ ..]) => {
            let mut value = *first;
            for key in keys {
                value = match (value, key) {
                    (Value::Array(list), Value::Number(at)) => at
                        .as_u64()
                        .and_then(|at| list.get(usize::try_from(at).ok()?))
                        .ok_or_else(|| Failure::usage(format!("index {at} of a list of {}", list.len())))?,
                    (Value::Object(map), Value::String(name)) => map.get(name).unwrap_or(&Value::Null),
                    (Value::Null, Value::String(_)) => &Value::Null,
                    _ => return Err(Failure::usage("`index` got a key that doesn't fit its value")),
                };
            }
            Ok(text(value))
        }
        _ => Err(Failure::usage(
            "a function of the format got a value that doesn't fit",
        )),
    }
}

/// Shows a value as Go's templates do: `[a b]`, `map[k:v]`, `<no value>`.
///
/// An explicit stack, because image configs are foreign and may nest deeply.
fn show(value: &Value) -> String {
    enum Todo<'a> {
        Value(&'a Value),
        Text(&'a str),
    }
    let mut out = String::new();
    let mut todo = vec![Todo::Value(value)];
    while let Some(next) = todo.pop() {
        match next {
            Todo::Text(text) => out.push_str(text),
            Todo::Value(Value::Null) => out.push_str("<no value>"),
            Todo::Value(Value::String(text)) => out.push_str(text),
            Todo::Value(Value::Array(list)) => {
                out.push('[');
                todo.push(Todo::Text("]"));
                for (at, item) in list.iter().enumerate().rev() {
                    todo.push(Todo::Value(item));
                    todo.extend((at > 0).then_some(Todo::Text(" ")));
                }
            }
            Todo::Value(Value::Object(map)) => {
                out.push_str("map[");
                todo.push(Todo::Text("]"));
                // Go sorts the keys of maps.
                let mut sorted: Vec<_> = map.iter().collect();
                sorted.sort_by_key(|(name, _)| name.as_str());
                for (at, (name, item)) in sorted.into_iter().enumerate().rev() {
                    todo.extend([Todo::Value(item), Todo::Text(":"), Todo::Text(name)]);
                    todo.extend((at > 0).then_some(Todo::Text(" ")));
                }
            }
            Todo::Value(plain) => out.push_str(&plain.to_string()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top() -> Value {
        serde_json::json!({
            "Id": "sha256:ab", "RepoTags": ["a:1", "b:2"], "Size": 12, "None": null,
            "Config": {"Env": ["A=1", "B=2"], "Labels": {"z": "last", "a.b": "x y"}, "Cmd": null, "Tty": false},
        })
    }

    #[test]
    fn templates_render() {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{{.Id}}", "sha256:ab"),
            ("<{{ .Id }}|{{.Size}}>", "<sha256:ab|12>"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[a.b:x y z:last]"),
            ("{{.Config.Nothing.There}}", "<no value>"),
            ("{{.None}}", "<no value>"),
            ("{{.Config.Tty}}", "false"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{json .Config.Cmd}}", "null"),
            ("{{index .RepoTags 1}}", "b:2"),
            (r#"{{index .Config.Labels "a.b"}}"#, "x y"),
            (r#"{{index .Config "Env" 0}}"#, "A=1"),
            ("{{len .RepoTags}}", "2"),
            (r#"{{join .RepoTags ", "}}"#, "a:1, b:2"),
            (
                "{{upper .Id}}{{lower .Id}}{{println .Size}}",
                "SHA256:ABsha256:ab12\n",
            ),
        ] {
            assert_eq!(
                Template::parse(template).unwrap().render(&top()).unwrap(),
                expected,
                "{template}"
            );
        }
    }

    #[test]
    fn what_cannot_be_rendered_says_why() {
        for (template, expected) in [
            ("{{.Id", "`{{` without `}}`"),
            ("{{}}", "it is empty"),
            ("{{range .RepoTags}}", "`range` isn't supported"),
            ("{{.Id .Size}}", "a field takes no arguments"),
            ("{{json}}", "`json` got 0 arguments"),
            ("{{index .RepoTags 2}}", "index 2 of a list of 2"),
            ("{{index .RepoTags -1}}", "index -1 of a list of 2"),
            ("{{index .Id 0}}", "doesn't fit its value"),
            ("{{json \"a}}", "a quote is not closed"),
            ("{{json x}}", "neither a field, a number nor a string"),
            ("{{.A..B}}", "is no field"),
            ("{{.Ids}}", "no field `.Ids`"),
        ] {
            let failure = Template::parse(template)
                .and_then(|parsed| parsed.render(&top()))
                .unwrap_err();
            assert!(
                failure.render(false).contains(expected),
                "{template}: {}",
                failure.render(false)
            );
            assert_eq!(failure.exit_code(), 2);
        }
    }
}
