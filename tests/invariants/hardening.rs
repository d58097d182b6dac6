//! Every threat and failure of `testdata/hardening.md` has a test, in the ranges that the list calls complete.
//!
//! Looks for names only, as `cases` does: that a test shows what it names is for its author and its reviewers.

use std::collections::{BTreeMap, BTreeSet};

use super::cases::{data, test_lines};
use super::{sources, workspace};

/// An id: its letter, its number, and what tells variants apart.
type Id = (char, u32, String);

const LIST: &str = "testdata/hardening.md";
const NO_TEST: &str = "no test:";

/// Splits off one id, as `T07` or `T29b`.
fn id(text: &str) -> Option<(Id, &str)> {
    let letter = text.chars().next().filter(|c| "TR".contains(*c))?;
    let rest = &text[1..];
    let (number, rest) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
    let (variant, rest) = rest.split_at(rest.bytes().take_while(u8::is_ascii_lowercase).count());
    let ends = rest
        .chars()
        .next()
        .is_none_or(|c| !c.is_alphanumeric() && c != '_');
    let is_short = number.len() > 1 && variant.len() < 2;
    let number = number.parse().ok().filter(|_| ends && is_short)?;
    Some(((letter, number, variant.to_owned()), rest))
}

/// Ids that a line names: those after the word `hardening`, with commas or blanks between them.
fn ids_of(line: &str) -> Vec<Id> {
    let mut found = Vec::new();
    for part in line.split("hardening ").skip(1) {
        let mut rest = part;
        while let Some((id, after)) = id(rest) {
            found.push(id);
            rest = after.trim_start_matches(',').trim_start();
        }
    }
    found
}

/// Every id that a test names, with the places.
fn named() -> BTreeMap<Id, Vec<String>> {
    let mut found: BTreeMap<Id, Vec<String>> = BTreeMap::new();
    let mut add = |line: &str, place: String| {
        for id in ids_of(line) {
            found.entry(id).or_default().push(place.clone());
        }
    };
    for source in sources(&["cache/src", "solver", "frontend", "builder", "tests"]) {
        if !source.path.contains("tests/invariants/") {
            for (at, line) in test_lines(&source) {
                add(line, format!("{}:{at}", source.path));
            }
        }
    }
    for path in data(&workspace().join("testdata")) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let name = path.strip_prefix(workspace()).unwrap().display().to_string();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('#')) {
            add(line, format!("{name}:{}", at + 1));
        }
    }
    found
}

/// What the list says: its ids with their words, and the complete ranges.
fn listed(text: &str) -> (BTreeMap<Id, String>, Vec<(Id, Id)>) {
    let (mut ids, mut ranges) = (BTreeMap::new(), Vec::new());
    for line in text.lines() {
        if let Some(entry) = line.strip_prefix("- ") {
            let (id, words) = id(entry).unwrap_or_else(|| panic!("{LIST}: no id begins `{line}`"));
            assert!(
                ids.insert(id, words.trim().to_owned()).is_none(),
                "{LIST}: `{line}` is there twice"
            );
        } else if let Some(range) = line.strip_prefix("complete ") {
            let ends = range.split_once(" to ").map(|(from, to)| (id(from), id(to)));
            let Some((Some((from, "")), Some((to, "")))) = ends else {
                panic!("{LIST}: `{line}` is no range");
            };
            assert!(from.0 == to.0 && from.1 <= to.1, "{LIST}: `{line}` is no range");
            ranges.push((from, to));
        }
    }
    (ids, ranges)
}

/// Returns what is wrong between the list and the tests.
fn problems(ids: &BTreeMap<Id, String>, ranges: &[(Id, Id)], tested: &BTreeSet<Id>) -> Vec<String> {
    let show = |(letter, number, variant): &Id| format!("{letter}{number:02}{variant}");
    let mut found = Vec::new();
    for (from, to) in ranges {
        let numbers = (from.1..=to.1).map(|number| (from.0, number, String::new()));
        let unlisted = numbers.filter(|id| !ids.contains_key(id));
        found.extend(unlisted.map(|id| format!("{} is not in the list", show(&id))));
    }
    for (id, words) in ids {
        let is_complete = ranges
            .iter()
            .any(|(from, to)| from.0 == id.0 && (from.1..=to.1).contains(&id.1));
        match (words.contains(NO_TEST), tested.contains(id)) {
            (false, false) if is_complete => found.push(format!("{} has no test", show(id))),
            (true, true) => found.push(format!("{} has a test, and a reason for none", show(id))),
            _ => {}
        }
    }
    found
}

#[test]
fn every_threat_of_a_complete_range_has_a_test() {
    let text = std::fs::read_to_string(workspace().join(LIST)).unwrap();
    let (ids, ranges) = listed(&text);
    let named = named();
    let tested = named.keys().cloned().collect();
    let problems = problems(&ids, &ranges, &tested);
    assert!(problems.is_empty(), "{}\nnamed: {named:#?}", problems.join("\n"));
}

#[test]
fn gaps_are_found() {
    let check = |list: &str, tests: &str, expected: &[&str]| {
        let (ids, ranges) = listed(list);
        let tested = ids_of(tests).into_iter().collect();
        assert_eq!(problems(&ids, &ranges, &tested), expected, "{list}");
    };
    let list = "complete T01 to T03\n- T01 a\n- T02 b (no test: why)\n- T03 c\n- T04 d\n- T03b e\n";
    check(list, "// hardening T01, T03: x; hardening T03b", &[]);
    check(list, "// hardening T01", &["T03 has no test", "T03b has no test"]);
    check(
        list,
        "// hardening T01 T02 T03 T03b, R04",
        &["T02 has a test, and a reason for none"],
    );
    check(
        "complete R01 to R02\n- R02 b",
        "hardening R02",
        &["R01 is not in the list"],
    );
}

#[test]
fn ids_follow_the_word() {
    let names = |line| {
        let ids = ids_of(line).into_iter();
        ids.map(|(letter, number, variant)| format!("{letter}{number}{variant}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(names("/// hardening T07, T21: somebody"), "T7 T21");
    assert_eq!(names("# hardening T19 R42: too much"), "T19 R42");
    assert_eq!(names("// hardening R37, hardening R38: git"), "R37 R38");
    assert_eq!(names("# case R16: with rw; hardening T29b: as it was"), "T29b");
    assert_eq!(names("case R53 and hardening.md T10"), "");
    assert_eq!(names("hardening T1x hardening TOKEN hardening R123_"), "");
}
