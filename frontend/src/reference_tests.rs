//! The reference page `docs/dockerfile.md` against the tables of the code: neither has what the other lacks.

use std::collections::BTreeSet;

use crate::lint::Rule;
use crate::parse::KEYWORDS;
use crate::parse::flags;
use crate::parse::mount::{KEYS, TYPES};

const PAGE: &str = include_str!("../../docs/dockerfile.md");

/// Returns the rows of the tables below a heading, up to the next heading.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let mut lines = PAGE.lines();
    assert!(lines.any(|line| line == heading), "no heading `{heading}`");
    lines
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .collect()
}

/// Returns the words of a cell that are set as code.
fn codes(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split('`').skip(1).step_by(2)
}

/// The code words of a table's first column are exactly `expected`.
#[track_caller]
fn check<'a>(heading: &str, expected: impl IntoIterator<Item = &'a str>) {
    let listed: BTreeSet<&str> = rows(heading).iter().flat_map(|row| codes(row[0])).collect();
    let expected: BTreeSet<&str> = expected.into_iter().collect();
    assert_eq!(listed, expected, "{heading}");
}

#[test]
fn the_page_lists_what_there_is() {
    check("## Instructions", KEYWORDS);
    check("### Mounts", TYPES.into_iter().chain(KEYS.map(|(name, _)| name)));
    check("### Directives", ["syntax", "escape", "check"]);
    check("## Checks", Rule::all().map(Rule::name));
    check("### Git repositories", crate::git::KEYS);
    let special = [
        "BUILDKIT_SYNTAX",
        "BUILDKIT_DOCKERFILE_CHECK",
        "BUILDKIT_CACHE_MOUNT_NS",
        "BUILDKIT_SANDBOX_HOSTNAME",
        "BUILDKIT_MULTI_PLATFORM",
        "BUILDKIT_SBOM_SCAN_CONTEXT",
        "BUILDKIT_SBOM_SCAN_STAGE",
        "SOURCE_DATE_EPOCH",
    ];
    let arguments = crate::lower::arguments();
    check("### Arguments", arguments.chain(special));
}

#[test]
fn the_page_lists_the_flags() {
    let listed: BTreeSet<(&str, &str)> = rows("### Flags")
        .iter()
        .flat_map(|row| codes(row[0]).zip(codes(row[1])))
        .collect();
    let names: Vec<(&str, String)> = KEYWORDS
        .into_iter()
        .flat_map(|instruction| flags::names(instruction).map(move |name| (instruction, format!("--{name}"))))
        .collect();
    let expected: BTreeSet<(&str, &str)> = names.iter().map(|(of, name)| (*of, name.as_str())).collect();
    assert_eq!(listed, expected);
}

#[test]
fn the_page_tells_our_own_rules_apart() {
    let own = PAGE.split("Ashlar's own only advise").nth(1).unwrap();
    for rule in Rule::all() {
        let is_below = own.contains(&format!("| `{rule}` |"));
        assert_eq!(is_below, rule.is_own(), "{rule}");
    }
}
