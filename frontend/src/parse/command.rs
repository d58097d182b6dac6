//! Exec form or shell form. Spec: dockerfile.md §4.

use serde_json::Value;

use crate::ast::Command;
use crate::diagnostic::Diagnostic;
use crate::parse::Context;

/// Returns the elements if `text` is a JSON array: `Err` when one is not a string, `None` when it isn't an array
/// at all, which makes it shell form.
pub(crate) fn json_array(text: &str) -> Option<Result<Vec<String>, &'static str>> {
    if !text.starts_with('[') {
        return None;
    }
    // serde_json refuses nesting beyond 128 levels, so the recursion is bounded.
    let values: Vec<Value> = serde_json::from_str(text).ok()?;
    let strings = values
        .into_iter()
        .map(|value| match value {
            Value::String(text) => Ok(text),
            _ => Err("when using JSON array syntax, arrays must be comprised of strings only"),
        })
        .collect();
    Some(strings)
}

/// Says whether `text` is in JSON form.
pub(crate) fn is_json_array(text: &str) -> bool {
    text.trim_start().starts_with('[') && json_array(text.trim()).is_some()
}

/// Reads the rest of the line as a command.
pub(crate) fn parse(context: &Context<'_>) -> Result<Command, Diagnostic> {
    match json_array(context.rest) {
        Some(Ok(args)) => Ok(Command::Exec(args)),
        Some(Err(message)) => Err(Diagnostic::error(message).at(context.line.text_of(context.rest).span)),
        None => Ok(Command::Shell(context.rest.to_owned())),
    }
}
