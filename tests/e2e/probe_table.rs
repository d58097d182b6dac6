//! The table of what the probe must find: facts, and how the ways to make containers differ in them.
//!
//! A line `name = expected` is for all; indented lines below it, `modes: expected`, are for some. `for modes: names = expected`
//! says it once for many facts, of which `*` stands for any part; a fact's own indented line comes before it, its first
//! line after it. `@set = modes` names several modes. A line whose name has a `*` is about facts that need not be there.
//! Expected are a value (with `*` for any part of it), `absent`, `any`, `!value` for everything but it, and several of these
//! with ` | ` between them.

use std::collections::BTreeMap;

/// The parsed table.
pub(crate) struct Table<'a> {
    entries: Vec<Entry<'a>>,
    rules: Vec<Rule<'a>>,
}

struct Entry<'a> {
    name: &'a str,
    expected: &'a str,
    special: Vec<(Vec<&'a str>, &'a str)>,
}

struct Rule<'a> {
    modes: Vec<&'a str>,
    names: &'a str,
    expected: &'a str,
}

impl<'a> Table<'a> {
    /// Reads a table about `modes`; panics where it makes no sense.
    pub(crate) fn parse(text: &'a str, modes: &[&'a str]) -> Self {
        let mut sets = BTreeMap::<&str, Vec<&str>>::new();
        let mut table = Self {
            entries: Vec::new(),
            rules: Vec::new(),
        };
        let known = |sets: &BTreeMap<&str, Vec<&'a str>>, names: &'a str| -> Vec<&'a str> {
            let mut found = Vec::new();
            for name in names.split_whitespace() {
                match sets.get(name) {
                    Some(several) => found.extend(several),
                    None => found.push(
                        *modes
                            .iter()
                            .find(|mode| **mode == name)
                            .unwrap_or_else(|| panic!("no mode {name}")),
                    ),
                }
            }
            found
        };
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.trim_start().starts_with('#'))
        {
            let pair = |line: &'a str, between: &str| {
                line.split_once(between)
                    .unwrap_or_else(|| panic!("`{between}` is missing: {line}"))
            };
            if let Some(special) = line.strip_prefix("    ") {
                let (names, expected) = pair(special, ": ");
                let entry = table.entries.last_mut().expect("because a fact stands above");
                entry.special.push((known(&sets, names), expected));
            } else if line.starts_with('@') {
                let (name, names) = pair(line, " = ");
                let found = known(&sets, names);
                sets.insert(name, found);
            } else if let Some(rule) = line.strip_prefix("for ") {
                let (names, rest) = pair(rule, ": ");
                let modes = known(&sets, names);
                let (names, expected) = pair(rest, " = ");
                table.rules.push(Rule {
                    modes,
                    names,
                    expected,
                });
            } else {
                let (name, expected) = pair(line, " = ");
                assert!(
                    table.entries.iter().all(|entry| entry.name != name),
                    "{name} is there twice"
                );
                let special = Vec::new();
                table.entries.push(Entry {
                    name,
                    expected,
                    special,
                });
            }
        }
        table
    }

    /// Compares what was found in one mode; every difference is a line.
    pub(crate) fn differences(&self, mode: &str, found: &BTreeMap<String, String>) -> Vec<String> {
        let names = self
            .exact()
            .map(|entry| entry.name)
            .chain(found.keys().map(String::as_str));
        let names: std::collections::BTreeSet<&str> = names.collect();
        let tell = |name: &str| {
            let value = found.get(name).map_or(ABSENT, String::as_str);
            let expected = self.expected(mode, name);
            let is_right = expected.split(" | ").any(|expected| meets(value, expected));
            (!is_right).then(|| format!("  {name}: found `{value}`, expected `{expected}`"))
        };
        names.into_iter().filter_map(tell).collect()
    }

    /// Returns facts that the table takes for right.
    pub(crate) fn example(&self, mode: &str) -> BTreeMap<String, String> {
        let fact = |entry: &Entry<'_>| {
            let expected = self
                .expected(mode, entry.name)
                .split(" | ")
                .next()
                .unwrap_or_default();
            let value = match expected.strip_prefix('!') {
                Some(_) => "something else".to_owned(),
                None => expected.replace('*', ""),
            };
            (value != ABSENT).then(|| (entry.name.to_owned(), value))
        };
        self.exact().filter_map(fact).collect()
    }

    /// Says whether no value of the fact would be wrong, but for one.
    pub(crate) fn takes_anything(&self, mode: &str, name: &str) -> bool {
        let expected = self.expected(mode, name);
        expected == "any" || expected.starts_with('!')
    }

    fn exact(&self) -> impl Iterator<Item = &Entry<'a>> {
        self.entries.iter().filter(|entry| !entry.name.contains('*'))
    }

    fn expected(&self, mode: &str, name: &str) -> &'a str {
        let exact = self.exact().find(|entry| entry.name == name);
        let some = || {
            self.entries
                .iter()
                .find(|entry| entry.name.contains('*') && matches(name, entry.name))
        };
        let special = |entry: &Entry<'a>| {
            let of_mode = entry.special.iter().find(|(modes, _)| modes.contains(&mode));
            of_mode.map(|(_, expected)| *expected)
        };
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.modes.contains(&mode) && matches(name, rule.names));
        exact
            .and_then(special)
            .or(rule.map(|rule| rule.expected))
            .or(exact.map(|entry| entry.expected))
            .or_else(|| some().map(|entry| special(entry).unwrap_or(entry.expected)))
            .unwrap_or(ABSENT)
    }
}

/// What is expected, and found, where there is no such fact.
const ABSENT: &str = "absent";

fn meets(value: &str, expected: &str) -> bool {
    match expected.strip_prefix('!') {
        Some(wrong) => value != ABSENT && value != wrong,
        None => (expected == "any" && value != ABSENT) || matches(value, expected),
    }
}

/// Compares with a pattern in which `*` stands for any text.
fn matches(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn differences_are_found_in_the_mode_that_has_them() {
    let text =
        "@both = a b\nx = 1\n    b: 2 | 3\nkernel * = off\n    a: absent\ny = on*\nfor b: z* = !1\nz1 = 1\n";
    let table = Table::parse(text, &["a", "b", "c"]);
    let check = |mode: &str, facts: &[(&str, &str)], expected: &[&str]| {
        let found = facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let differences = table.differences(mode, &found.collect());
        let names: Vec<&str> = differences
            .iter()
            .map(|line| line.trim().split_once(':').unwrap().0)
            .collect();
        assert_eq!(names, expected, "{mode} {facts:?}");
    };
    check("a", &[("x", "1"), ("y", "on and on"), ("z1", "1")], &[]);
    check("a", &[("x", "2"), ("y", "off"), ("z1", "2")], &["x", "y", "z1"]);
    check("a", &[("y", "on"), ("z1", "1"), ("w", "1")], &["w", "x"]);
    check("b", &[("x", "3"), ("y", "on"), ("z1", "2")], &[]);
    check("b", &[("x", "1"), ("y", "on"), ("z1", "1")], &["x", "z1"]);
    check("b", &[("x", "2"), ("y", "on")], &["z1"]);
    check(
        "c",
        &[("x", "1"), ("y", "on"), ("z1", "1"), ("kernel k", "off")],
        &[],
    );
    check(
        "a",
        &[("x", "1"), ("y", "on"), ("z1", "1"), ("kernel k", "off")],
        &["kernel k"],
    );
}

#[test]
#[should_panic(expected = "no mode typo")]
fn a_mode_that_is_not_there_is_refused() {
    Table::parse("x = 1\n    typo: 2\n", &["a"]);
}
