//! The functions of templates: Go's own, and those that docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::show::{self, text};

/// The most that `pad` adds.
const MAX_PADDING: u64 = 4096;

macro_rules! functions {
    ($($name:literal $function:ident $least:literal..=$most:expr,)*) => {
        /// A function.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Function {
            $($function),*
        }

        impl Function {
            /// Returns the function of that name.
            pub(super) fn of(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$function),)*
                    _ => None,
                }
            }

            /// Returns its name.
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$function => $name),*
                }
            }

            /// Says whether it can be called with so many arguments.
            pub(super) fn takes(self, n: usize) -> bool {
                match self {
                    $(Self::$function => ($least..=$most).contains(&n)),*
                }
            }
        }
    };
}

/// As many as one likes.
const ANY: usize = usize::MAX;

functions! {
    "and" And 1..=ANY,
    "eq" Eq 2..=ANY,
    "ge" Ge 2..=2,
    "gt" Gt 2..=2,
    "index" Index 1..=ANY,
    "join" Join 2..=2,
    "json" Json 1..=1,
    "le" Le 2..=2,
    "len" Len 1..=1,
    "lower" Lower 1..=1,
    "lt" Lt 2..=2,
    "ne" Ne 2..=2,
    "not" Not 1..=1,
    "or" Or 1..=ANY,
    "pad" Pad 3..=3,
    "print" Print 0..=ANY,
    "printf" Printf 1..=ANY,
    "println" Println 0..=ANY,
    "slice" Slice 1..=3,
    "split" Split 2..=2,
    "title" Title 1..=1,
    "truncate" Truncate 2..=2,
    "upper" Upper 1..=1,
}

/// Says whether a value counts as true: it is neither false, nor zero, nor empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_true) => *is_true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Calls a function with as many values as it takes. An error says why it can't be called with these.
pub(super) fn call(function: Function, values: &[&Value]) -> Result<Value, String> {
    let misfit = || format!("`{}` got a value that doesn't fit it", function.name());
    let number = |value: &Value| value.as_u64().ok_or_else(misfit);
    Ok(match (function, values) {
        (Function::And, values) => pick(values, false),
        (Function::Or, values) => pick(values, true),
        (Function::Not, [value]) => Value::Bool(!is_true(value)),
        (Function::Eq, [first, others @ ..]) => {
            Value::Bool(others.iter().any(|other| is_equal(first, other)))
        }
        (Function::Ne, [a, b]) => Value::Bool(!is_equal(a, b)),
        (Function::Lt | Function::Le | Function::Gt | Function::Ge, [a, b]) => {
            let order = order(a, b).ok_or_else(misfit)?;
            Value::Bool(match function {
                Function::Lt => order.is_lt(),
                Function::Le => order.is_le(),
                Function::Gt => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        (Function::Index, [first, keys @ ..]) => index(first, keys)?,
        (Function::Slice, [first, ends @ ..]) => slice(first, ends).ok_or_else(misfit)?,
        (Function::Json, [value]) => Value::from(value.to_string()),
        (Function::Len, [Value::Array(list)]) => Value::from(list.len()),
        (Function::Len, [Value::Object(map)]) => Value::from(map.len()),
        (Function::Len, [Value::String(text)]) => Value::from(text.len()),
        (Function::Len, [Value::Null]) => Value::from(0),
        (Function::Join, [Value::Array(list), Value::String(between)]) => {
            Value::from(list.iter().map(text).collect::<Vec<_>>().join(between))
        }
        (Function::Join, [Value::Null, _]) => Value::from(""),
        (Function::Split, [Value::String(text), Value::String(at)]) => {
            Value::from_iter(match at.is_empty() {
                true => text.chars().map(String::from).collect::<Vec<_>>(),
                false => text.split(at.as_str()).map(str::to_owned).collect(),
            })
        }
        (Function::Upper, [value]) => Value::from(text(value).to_uppercase()),
        (Function::Lower, [value]) => Value::from(text(value).to_lowercase()),
        (Function::Title, [value]) => Value::from(title(&text(value))),
        (Function::Pad, [value, before, after]) => {
            let blanks = |n: &Value| Ok::<_, String>(" ".repeat(number(n)?.min(MAX_PADDING) as usize));
            Value::from(match text(value) {
                empty if empty.is_empty() => empty,
                text => blanks(before)? + &text + &blanks(after)?,
            })
        }
        (Function::Truncate, [value, most]) => {
            let most = usize::try_from(number(most)?).unwrap_or(usize::MAX);
            Value::from(text(value).chars().take(most).collect::<String>())
        }
        (Function::Print, values) => Value::from(print(values)),
        (Function::Println, values) => {
            let words: Vec<String> = values.iter().map(|value| text(value)).collect();
            Value::from(words.join(" ") + "\n")
        }
        (Function::Printf, [Value::String(format), values @ ..]) => {
            Value::from(show::printf(format, values)?)
        }
        _ => return Err(misfit()),
    })
}

/// Returns the first value whose truth decides, or the last.
fn pick(values: &[&Value], decides: bool) -> Value {
    let decided = values.iter().find(|value| is_true(value) == decides);
    decided
        .or(values.last())
        .map_or(Value::Null, |value| (*value).clone())
}

fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => order(a, b) == Some(Ordering::Equal),
        // What isn't there is as empty as a text can be.
        (Value::Null, Value::String(text)) | (Value::String(text), Value::Null) => text.is_empty(),
        (a, b) => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn index(first: &Value, keys: &[&Value]) -> Result<Value, String> {
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Array(list), Value::Number(at)) => at
                .as_u64()
                .and_then(|at| list.get(usize::try_from(at).ok()?))
                .cloned()
                .ok_or_else(|| format!("index {at} of a list of {}", list.len()))?,
            (Value::Object(map), Value::String(name)) => match map.get(name) {
                Some(value) => value.clone(),
                // Go's maps of texts have an empty one for every key.
                None if map.values().all(Value::is_string) => Value::from(""),
                None => Value::Null,
            },
            (Value::Null, Value::String(_)) => Value::from(""),
            _ => return Err("`index` got a key that doesn't fit its value".to_owned()),
        };
    }
    Ok(value)
}

fn slice(value: &Value, ends: &[&Value]) -> Option<Value> {
    let end = |at: usize, or: usize| match ends.get(at) {
        None => Some(or),
        Some(end) => usize::try_from(end.as_u64()?).ok(),
    };
    match value {
        Value::Array(list) => Some(Value::from(list.get(end(0, 0)?..end(1, list.len())?)?.to_vec())),
        Value::String(text) => Some(Value::from(text.get(end(0, 0)?..end(1, text.len())?)?)),
        _ => None,
    }
}

/// Puts blanks between values where neither is a text, as Go does.
fn print(values: &[&Value]) -> String {
    let mut out = String::new();
    let mut before: Option<&Value> = None;
    for value in values {
        if before.is_some_and(|before| !before.is_string() && !value.is_string()) {
            out.push(' ');
        }
        out.push_str(&text(value));
        before = Some(value);
    }
    out
}

fn title(text: &str) -> String {
    let mut is_first = true;
    text.chars()
        .flat_map(|c| {
            let upper = std::mem::replace(&mut is_first, c.is_whitespace());
            match upper {
                true => c.to_uppercase().collect::<Vec<_>>(),
                false => vec![c],
            }
        })
        .collect()
}
