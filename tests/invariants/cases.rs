//! Every case of `testdata/cases.md` has a test, and no test names a case that isn't there.
//!
//! Looks for names only: that a test shows what it names is for its author and its reviewers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Source, sources, workspace};

/// Letters of the list's sections; anything else in front of a number is not a case.
const SECTIONS: &str = "PKJVHSRCAIYXTU";

/// Ids that stand in the text from its start on, with what may stand between them: `S17, S14: …`.
fn leading_ids(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((id, after)) = id(rest) {
        found.push(id);
        let Some(next) = after.strip_prefix(',').or_else(|| after.strip_prefix(' ')) else {
            break;
        };
        rest = next.trim_start();
    }
    found
}

/// Splits off one id; what follows must not be part of a word. A small letter after the number tells
/// variants of one case apart (`S5b`), unless the list has it (`C56b`).
fn id(text: &str) -> Option<(String, &str)> {
    let letter = text.chars().next().filter(|c| SECTIONS.contains(*c))?;
    let digits = text[1..].bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=2).contains(&digits) {
        return None;
    }
    let (number, after) = text[1..].split_at(digits);
    let variant = after.bytes().take_while(u8::is_ascii_lowercase).count();
    let (variant, after) = after.split_at(variant);
    let ends = |c: char| !c.is_alphanumeric() && !"_/=.-".contains(c);
    if variant.len() > 1 || !after.chars().next().is_none_or(ends) {
        return None;
    }
    Some((format!("{letter}{number}{variant}"), after))
}

/// Ids that a line of a Rust test names: in a string that begins with them, or after `// case`.
fn ids_of_code(line: &str) -> Vec<String> {
    if let Some(comment) = line.trim_start().strip_prefix("// case ") {
        return leading_ids(comment);
    }
    // What a string holds and what stands between strings can't be told apart here, and need not be.
    let strings = line.split('"').skip(1);
    strings
        .filter(|text| !text.starts_with('/'))
        .flat_map(leading_ids)
        .collect()
}

/// Ids that a line of a script or of a data file names.
fn ids_of_data(line: &str) -> Vec<String> {
    line.strip_prefix("# case ").map(leading_ids).unwrap_or_default()
}

fn is_test(path: &str, text: &str) -> bool {
    path.starts_with("tests/") || path.contains("tests") || text.contains("#[cfg(test)]\nmod ")
}

/// Lines of tests with their 1-based number. In a file of the product only the module of tests counts, which stands at
/// its end.
pub(super) fn test_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let tests = source.text.find("#[cfg(test)]\nmod ");
    let begin = match source.path.contains("tests") {
        _ if !is_test(&source.path, &source.text) => source.text.len(),
        true => 0,
        false => tests.unwrap_or(0),
    };
    let n_before = source.text[..begin].lines().count();
    let lines = source.text[begin..].lines().enumerate();
    lines.map(move |(at, line)| (n_before + at + 1, line))
}

/// Files of data below a folder, relative to the workspace.
pub(super) fn data(folder: &Path) -> Vec<PathBuf> {
    let mut pending = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "txt") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Every id that a test names, with the places.
fn named(known: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |ids: Vec<String>, place: String| {
        for mut id in ids {
            if !known.contains(&id) {
                id = id.trim_end_matches(|c: char| c.is_ascii_lowercase()).to_owned();
            }
            found.entry(id).or_default().push(place.clone());
        }
    };
    let folders = ["cache/src", "solver", "frontend", "builder", "tests"];
    let mut seen = BTreeSet::new();
    for source in sources(&folders) {
        let own = source.path.contains("tests/invariants/");
        if own || !seen.insert(source.path.clone()) {
            continue;
        }
        for (at, line) in test_lines(&source) {
            add(ids_of_code(line), format!("{}:{at}", source.path));
        }
    }
    for path in data(&workspace().join("testdata")) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let name = path
            .strip_prefix(workspace())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        for (at, line) in text.lines().enumerate() {
            add(ids_of_data(line), format!("{name}:{}", at + 1));
        }
    }
    found
}

fn listed() -> Vec<String> {
    let text = std::fs::read_to_string(workspace().join("testdata/cases.md")).unwrap();
    let items = text.lines().filter_map(|line| line.strip_prefix("- "));
    items
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

/// Groups ids by section, for reading.
fn grouped<'a>(ids: impl Iterator<Item = &'a String>) -> String {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in ids {
        groups.entry(&id[..1]).or_default().push(id);
    }
    let mut out = String::new();
    for ids in groups.values_mut() {
        ids.sort_by_key(|id| id[1..].trim_end_matches('b').parse::<u32>().unwrap_or_default());
        out.push_str(&format!("  {}\n", ids.join(" ")));
    }
    out
}

#[test]
fn the_list_is_whole() {
    let ids = listed();
    assert_eq!(ids.len(), 428);
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "an id is there twice");
    for entry in &ids {
        assert!(
            id(entry).is_some_and(|(_, rest)| rest.is_empty()),
            "{entry} is not an id"
        );
    }
}

#[test]
fn every_case_has_a_test() {
    let known: BTreeSet<String> = listed().into_iter().collect();
    let found = named(&known);
    let unknown: Vec<String> = found
        .iter()
        .filter(|(id, _)| !known.contains(*id))
        .map(|(id, places)| format!("{id} at {}", places.join(", ")))
        .collect();
    assert!(unknown.is_empty(), "no such cases:\n  {}", unknown.join("\n  "));
    let missing = grouped(known.iter().filter(|id| !found.contains_key(*id)));
    assert!(missing.is_empty(), "cases without a test:\n{missing}");
}

#[test]
fn ids_are_read_where_they_begin_a_text() {
    assert_eq!(ids_of_code(r#"        ("P12b", "RUN x"),"#), ["P12b"]);
    assert_eq!(ids_of_code(r#"    "S17, S14""#), ["S17", "S14"]);
    assert_eq!(ids_of_code("    // case P6 P7: words"), ["P6", "P7"]);
    assert_eq!(ids_of_code(r#"check("P6 a misspelt FROM")"#), ["P6"]);
    assert_eq!(ids_of_data("# case X1: the lower-case name"), ["X1"]);
    assert_eq!(ids_of_data("# see case X1"), [""; 0]);
    for text in [
        "\"P\"",
        "\"S3_KEY\"",
        "\"T1=x\"",
        "\"K100\"",
        "\"R4/x\"",
        "\"hardening R37\"",
    ] {
        assert_eq!(ids_of_code(text), [""; 0], "{text}");
    }
}
