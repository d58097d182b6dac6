//! The shapes that the JSON answers share: places and sources, as BuildKit's protocol writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::source::{SourceText, Span};

/// Returns an object's text as `MarshalIndent` writes it, with a newline at the end.
pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Returns a place: lines from 1, characters from 0; zeros are left out, as everywhere in this format.
pub(super) fn location(source: &SourceText, span: Span) -> Value {
    let end = span.end.max(span.start);
    json!({"ranges": [{"start": position(source, span.start), "end": position(source, end)}]})
}

fn position(source: &SourceText, offset: usize) -> Value {
    let number = source.line_number(offset);
    let (start, line) = source.line(number);
    let before = line.get(..offset.saturating_sub(start)).unwrap_or(line);
    let mut position = Map::new();
    position.insert("line".to_owned(), number.into());
    match before.chars().count() {
        0 => {}
        character => {
            position.insert("character".to_owned(), character.into());
        }
    }
    position.into()
}

/// Inserts a text that isn't empty.
pub(super) fn insert_text(object: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        object.insert(name.to_owned(), text.into());
    }
}

/// Returns the file's bytes as the format wants them: in base64 with padding. Spec: RFC 4648, section 4.
pub(super) fn data(source: &SourceText) -> String {
    STANDARD.encode(source.text())
}
