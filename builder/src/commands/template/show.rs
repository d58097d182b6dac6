//! How Go's templates show a value: `[a b]`, `map[k:v]`, `<no value>`; and the verbs of `printf`.

use serde_json::Value;

/// Returns a value as text: strings as they are, anything else as Go shows it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => show(other),
    }
}

/// Shows a value as Go's templates do.
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
            // What stands in a set, which is a map to nothing.
            Todo::Value(Value::Object(map)) if map.is_empty() && !out.is_empty() => out.push_str("{}"),
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

/// Fills the verbs of a format, as Go's `fmt.Sprintf` does for the values that there are here.
pub(super) fn printf(format: &str, values: &[&Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        loop {
            match chars.next() {
                None => return Err("a `%` at the end of the format of `printf`".to_owned()),
                Some('%') => {
                    out.push('%');
                    break;
                }
                Some('-') => verb.is_left = true,
                Some('.') => verb.precision = Some(0),
                Some('0') if verb.width == 0 && verb.precision.is_none() => verb.is_zeroed = true,
                Some(digit @ '0'..='9') => verb.digit(digit)?,
                Some(kind) => {
                    let value = values
                        .next()
                        .ok_or("`printf` got fewer values than its format has verbs")?;
                    out.push_str(&verb.fill(kind, value)?);
                    break;
                }
            }
        }
    }
    match values.next() {
        Some(_) => Err("`printf` got more values than its format has verbs".to_owned()),
        None => Ok(out),
    }
}

/// The widest column that a format may ask for.
const MAX_WIDTH: usize = 4096;

#[derive(Default)]
struct Verb {
    is_left: bool,
    is_zeroed: bool,
    width: usize,
    precision: Option<usize>,
}

impl Verb {
    fn digit(&mut self, digit: char) -> Result<(), String> {
        let number = self.precision.as_mut().unwrap_or(&mut self.width);
        *number = *number * 10 + usize::try_from(u32::from(digit) - u32::from('0')).unwrap_or(0);
        match *number {
            0..=MAX_WIDTH => Ok(()),
            _ => Err(format!("`printf` pads to {MAX_WIDTH} characters at most")),
        }
    }

    fn fill(&self, kind: char, value: &Value) -> Result<String, String> {
        let mut shown = match (kind, value) {
            ('s' | 'v', value) => text(value),
            ('q', Value::String(text)) => Value::from(text.as_str()).to_string(),
            ('d', Value::Number(number)) if !number.is_f64() => number.to_string(),
            ('t', Value::Bool(is_true)) => is_true.to_string(),
            ('x', Value::Number(number)) if number.is_u64() => {
                format!("{:x}", number.as_u64().unwrap_or(0))
            }
            ('f', Value::Number(number)) => {
                format!(
                    "{:.*}",
                    self.precision.unwrap_or(6),
                    number.as_f64().unwrap_or(0.0)
                )
            }
            ('q' | 'd' | 't' | 'x' | 'f', value) => {
                return Err(format!("`%{kind}` of `printf` can't show {}", text(value)));
            }
            _ => return Err(format!("`printf` has no verb `%{kind}` here")),
        };
        if let (Some(most), 's' | 'v') = (self.precision, kind) {
            shown = shown.chars().take(most).collect();
        }
        let missing = self.width.saturating_sub(shown.chars().count());
        Ok(match (self.is_left, self.is_zeroed && kind != 's') {
            (true, _) => shown + &" ".repeat(missing),
            (false, true) => match shown.strip_prefix('-') {
                Some(digits) => format!("-{}{digits}", "0".repeat(missing)),
                None => "0".repeat(missing) + &shown,
            },
            (false, false) => " ".repeat(missing) + &shown,
        })
    }
}
