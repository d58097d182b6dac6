//! JSON that others wrote, read so that it means the same to everybody: no key twice, nothing deeper than needed.
//!
//! Readers differ in which of two equal keys they believe, and attacks live off the difference. What the document
//! means is the callers' business.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep arrays and objects may lie in each other.
const MAX_DEPTH: usize = 64;

/// Parses a document. The error says what is wrong with it.
pub(crate) fn strict(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { n_left: MAX_DEPTH }.deserialize(&mut reader);
    value
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| error.to_string())
}

/// Reads one value with so many levels left below it.
struct Strict {
    n_left: usize,
}

impl Strict {
    fn below<E: Error>(&self) -> Result<Self, E> {
        let n_left = self.n_left.checked_sub(1);
        n_left
            .map(|n_left| Self { n_left })
            .ok_or_else(|| E::custom(format_args!("it is nested more than {MAX_DEPTH} deep")))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(self.below()?)? {
            out.push(item);
        }
        Ok(out.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(self.below()?)?;
            if out.contains_key(&key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format_args!("it has the key `{key}` twice")));
            }
            out.insert(key, value);
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_mean_one_thing_only() {
        // hardening T55
        let nested = |n: usize| format!("{}1{}", "[{\"a\":".repeat(n / 2), "}]".repeat(n / 2));
        for (text, expected) in [
            (r#"{"a":1,"b":{"a":[null,true,-2,0.5,"x\u00e9"]}}"#, ""),
            (r#"{"a":1,"b":2,"a":1}"#, "the key `a` twice"),
            (r#"{"x":[{"\u0061":1,"a":2}]}"#, "the key `a` twice"),
            ("{} {}", "trailing characters"),
            ("", "EOF"),
            (&nested(MAX_DEPTH), ""),
            (&nested(MAX_DEPTH + 2), "more than 64 deep"),
            (&nested(1_000_000), "more than 64 deep"),
        ] {
            let shown = &text[..text.len().min(60)];
            match strict(text.as_bytes()) {
                Ok(value) => {
                    assert_eq!(expected, "", "{shown}");
                    assert_eq!(value, serde_json::from_str::<Value>(text).unwrap(), "{shown}");
                }
                Err(error) => {
                    assert_ne!(expected, "", "{shown}: {error}");
                    assert!(error.contains(expected), "{shown}: {error}");
                }
            }
        }
    }
}
