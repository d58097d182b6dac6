//! Why a step could not be answered from the cache, in one short line.
//!
//! Compares the parts of a key with those of the step's newest record. Names the part that changed; which files changed
//! within a tree is found out from the results, once there is a new one: hashes of trees don't hold them.

pub(crate) mod files;

use std::collections::BTreeMap;
use std::fmt;

use cache::{Component, Record};

use crate::error::IndexError;
use crate::graph::Label;
use crate::index::Index;
use crate::key::Keyed;

/// How many changes are named.
const NAMED: usize = 2;

/// Values longer than this aren't printed.
const VALUE_CHARS: usize = 32;

/// Files changed: of the context, or elsewhere.
const FILES: [&str; 2] = [
    "files of the context changed",
    "files copied from another stage or image changed",
];

/// The reason why a step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// No build has had this step.
    NeverBuilt,
    /// Its key is other than last time; what changed, in the key's order. Empty if only the order of parts did.
    Changed(Vec<String>),
    /// It was built like this before, but the result was removed: when and why, where that is known.
    Removed(Option<String>),
    /// The cache was not to be used.
    Ignored,
    /// A step it stands on ran again because the cache was not to be used.
    Refreshed,
}

impl Miss {
    /// Says why a step runs whose key is `keyed`, and last time was made of the parts of `latest`. `fresh`: even if a
    /// result is recorded.
    pub(crate) fn of(
        label: &Label,
        fresh: bool,
        keyed: &Keyed,
        latest: Option<&Record>,
        index: &dyn Index,
    ) -> Result<Self, IndexError> {
        if label.ignore_cache {
            return Ok(Self::Ignored);
        }
        if fresh {
            return Ok(Self::Refreshed);
        }
        // Though the step has been another since.
        if let Some(how) = index.removed(&keyed.key)? {
            return Ok(Self::Removed(Some(how)));
        }
        Ok(Self::explain(&keyed.components, latest))
    }

    /// Says whether files that the step reads are among what changed.
    pub fn is_about_files(&self) -> bool {
        matches!(self, Self::Changed(changes) if changes.iter().any(|change| FILES.contains(&change.as_str())))
    }

    /// Names the files, once they are known, in the place of their being among what changed.
    #[must_use]
    pub fn with_files(self, files: Vec<String>) -> Self {
        match self {
            Self::Changed(mut changes) if !files.is_empty() => {
                changes.retain(|change| !FILES.contains(&change.as_str()));
                Self::Changed(files.into_iter().chain(changes).collect())
            }
            other => other,
        }
    }

    /// Returns everything that is known of the reason, a line for each part of it.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Changed(changes) if !changes.is_empty() => changes.clone(),
            other => vec![other.to_string()],
        }
    }

    /// Compares the parts of a new key with the step's newest record.
    pub fn explain(new: &[Component], latest: Option<&Record>) -> Self {
        let Some(old) = latest else {
            return Self::NeverBuilt;
        };
        let of_key = |parts: &[Component]| -> Vec<Component> {
            let parts = parts.iter().filter(|part| !files::is_file(part));
            parts.cloned().collect()
        };
        let (before, after) = (of_key(&old.components), of_key(new));
        if before == after {
            return Self::Removed(None);
        }
        let mut changes = changes(&before, &after);
        let files = files::changes(&old.components, new);
        if !files.is_empty() {
            changes.retain(|change| change != FILES[0]);
        }
        Self::Changed(files.into_iter().chain(changes).collect())
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverBuilt => f.write_str("never built before"),
            Self::Removed(None) => f.write_str("its cached result was removed"),
            Self::Removed(Some(how)) => f.write_str(how),
            Self::Ignored => f.write_str("the cache is not used"),
            Self::Refreshed => f.write_str("a step before it ran again without the cache"),
            Self::Changed(changes) if changes.is_empty() => f.write_str("the order of its parts changed"),
            Self::Changed(changes) => {
                let named = changes.len().min(NAMED);
                f.write_str(&changes[..named].join(", "))?;
                match changes.len() - named {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

fn changes(old: &[Component], new: &[Component]) -> Vec<String> {
    let before: BTreeMap<&str, &str> = old.iter().map(|part| (&*part.name, &*part.value)).collect();
    let after: BTreeMap<&str, &str> = new.iter().map(|part| (&*part.name, &*part.value)).collect();
    let differing = new.iter().filter_map(|part| match before.get(&*part.name) {
        Some(value) if *value == part.value => None,
        value => describe(&part.name, value.copied(), Some(&part.value)),
    });
    let gone = old
        .iter()
        .filter(|part| !after.contains_key(&*part.name))
        .filter_map(|part| describe(&part.name, Some(&part.value), None));
    let mut changes: Vec<String> = Vec::new();
    for change in differing.chain(gone) {
        if !changes.contains(&change) {
            changes.push(change);
        }
    }
    changes
}

/// Words one change; `None` for parts that only accompany others.
fn describe(name: &str, old: Option<&str>, new: Option<&str>) -> Option<String> {
    if let Some(variable) = name.strip_prefix("env ") {
        return Some(value_change(&format!("ENV {variable}"), old, new));
    }
    if let Some(input) = name.strip_prefix("input ") {
        let (place, sort) = input.split_once(' ').unwrap_or((input, ""));
        return match sort.split(' ').next() {
            Some("local") => Some(FILES[0].to_owned()),
            Some("files") => Some(FILES[1].to_owned()),
            Some("image") => Some("base image changed".to_owned()),
            _ if place == "0" => Some("a step before it changed".to_owned()),
            _ => Some(format!("input {place} changed")),
        };
    }
    if name == "inputs" {
        return None;
    }
    if let Some(action) = name.strip_prefix("action ") {
        let field = action.split_once(' ').map_or(action, |(_, field)| field);
        return match field {
            "kind" => Some("what it does changed".to_owned()),
            "data" => Some("inline content changed".to_owned()),
            "input" => None,
            field => Some(value_change(field, old, new)),
        };
    }
    match name {
        "args" => Some("command changed".to_owned()),
        _ if name.starts_with("script ") => Some("script changed".to_owned()),
        _ => Some(value_change(name, old, new)),
    }
}

fn value_change(what: &str, old: Option<&str>, new: Option<&str>) -> String {
    let short = |value: &str| value.chars().count() <= VALUE_CHARS && !value.starts_with("blake3:");
    match (old, new) {
        (Some(""), Some(new)) if short(new) => format!("{what} set to {new}"),
        (Some(old), Some("")) if short(old) => format!("{what} {old} removed"),
        (Some(old), Some(new)) if short(old) && short(new) => format!("{what} {old} → {new}"),
        (Some(_), Some(_)) => format!("{what} changed"),
        (None, _) => format!("{what} added"),
        (Some(_), None) => format!("{what} removed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::Key;

    fn parts(list: &[(&str, &str)]) -> Vec<Component> {
        list.iter()
            .map(|(name, value)| Component {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect()
    }

    fn check(old: &[(&str, &str)], new: &[(&str, &str)], expected: &str) {
        let record = Record {
            key: Key::from_bytes([0; 32]),
            layers: vec![],
            components: parts(old),
            step: "s".into(),
            created_unix_ms: 0,
            took_ms: 0,
        };
        assert_eq!(Miss::explain(&parts(new), Some(&record)).to_string(), expected);
    }

    #[test]
    fn changes_are_told_in_one_short_line() {
        assert_eq!(Miss::explain(&parts(&[]), None).to_string(), "never built before");
        check(&[("cwd", "/")], &[("cwd", "/")], "its cached result was removed");
        check(
            &[("env VERSION", "1")],
            &[("env VERSION", "2")],
            "ENV VERSION 1 → 2",
        );
        check(&[("env V", "blake3:00")], &[("env V", "2")], "ENV V changed");
        check(&[], &[("env V", "2")], "ENV V added");
        check(&[("env V", "2")], &[], "ENV V removed");
        check(&[("user", "")], &[("user", "app")], "user set to app");
        check(&[("args", "a")], &[("args", "b")], "command changed");
        check(
            &[("input 0 image whole", "a")],
            &[("input 0 image whole", "b")],
            "base image changed",
        );
        check(
            &[("input 0 image whole", "a")],
            &[("input 0 step whole", "b")],
            "a step before it changed, base image changed",
        );
        check(
            &[("input 1 local paths", "a"), ("action 0 dest", "/a")],
            &[("input 1 local paths", "b"), ("action 0 dest", "/b")],
            "files of the context changed, dest /a → /b",
        );
        check(
            &[("cwd", "/"), ("user", "a"), ("hostname", "a")],
            &[("cwd", "/x"), ("user", "b"), ("hostname", "b")],
            "cwd / → /x, user a → b and 1 more",
        );
        check(
            &[("env A", "1"), ("env B", "1")],
            &[("env B", "1"), ("env A", "1")],
            "the order of its parts changed",
        );
    }
}
