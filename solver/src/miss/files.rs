//! Files that a step reads without copying them: what of each counted, kept with the record beside the parts of its key,
//! so that the next build can name those that changed.

use std::collections::BTreeMap;

use cache::Component;

use crate::execute::Listing;

/// What names of such parts begin with. They are no parts of the key: the hash of their tree is.
const PREFIX: &str = "file ";
/// The most files that a record keeps; trees with more are only told to have changed.
pub const MAX_FILES: usize = 2000;
/// More files than anybody reads of; the rest is counted.
const NAMED: usize = 1000;
/// What the words of a file's state are, in their order.
const ASPECTS: [&str; 4] = ["type", "content", "mode", "owner"];

/// Adds the files of an input. A state is words for [`ASPECTS`], and perhaps more, for extended attributes.
pub(crate) fn add(components: &mut Vec<Component>, input: usize, files: Vec<(String, String)>) {
    components.extend(files.into_iter().map(|(path, state)| Component {
        name: format!("{PREFIX}{input} {path}"),
        value: state,
    }));
}

/// Says whether a part is a file's.
pub(super) fn is_file(part: &Component) -> bool {
    part.name.starts_with(PREFIX)
}

/// Names the files that differ, by path; none where one of both has no list.
pub(super) fn changes(old: &[Component], new: &[Component]) -> Vec<String> {
    let (old, new) = (of(old), of(new));
    match old.is_empty() || new.is_empty() {
        true => Vec::new(),
        false => differences(&old, &new),
    }
}

/// Names the files that differ between two lists, by path.
pub(crate) fn listed_changes([old, new]: &[Listing; 2]) -> Vec<String> {
    differences(&of_listing(old), &of_listing(new))
}

fn of_listing(files: &Listing) -> States<'_> {
    files
        .iter()
        .map(|(path, state)| ((&**path, ""), &**state))
        .collect()
}

/// Files by path and input, with their states.
type States<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

fn differences(old: &States<'_>, new: &States<'_>) -> Vec<String> {
    let mut said = Vec::new();
    let gone = old.iter().filter(|(file, _)| !new.contains_key(*file));
    let gone = gone.map(|(file, _)| (*file, "removed".to_owned()));
    let differing = new.iter().filter_map(|(file, state)| match old.get(file) {
        None => Some((*file, "added".to_owned())),
        Some(before) if before == state => None,
        Some(before) => Some((*file, format!("changed ({})", aspect(before, state)))),
    });
    let mut all: Vec<((&str, &str), String)> = gone.chain(differing).collect();
    all.sort();
    let n_more = all.len().saturating_sub(NAMED);
    for ((path, _), what) in all.into_iter().take(NAMED) {
        said.push(format!("{path} {what}"));
    }
    if n_more > 0 {
        said.push(format!("{n_more} more files"));
    }
    said
}

/// Returns the files of a list by path and input.
fn of(parts: &[Component]) -> States<'_> {
    let files = parts.iter().filter_map(|part| {
        let (input, path) = part.name.strip_prefix(PREFIX)?.split_once(' ')?;
        Some(((path, input), &*part.value))
    });
    files.collect()
}

fn aspect(old: &str, new: &str) -> &'static str {
    let pairs = old.split(' ').zip(new.split(' '));
    let first = pairs.zip(ASPECTS).find(|((old, new), _)| old != new);
    first.map_or("extended attributes", |(_, aspect)| aspect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &[(&str, &str)], new: &[(&str, &str)], expected: &[&str]) {
        let parts = |files: &[(&str, &str)]| {
            let mut parts = Vec::new();
            let files = files
                .iter()
                .map(|(path, state)| ((*path).to_owned(), (*state).to_owned()));
            add(&mut parts, 1, files.collect());
            parts
        };
        assert_eq!(changes(&parts(old), &parts(new)), expected);
    }

    #[test]
    fn the_first_thing_that_differs_is_named() {
        let old = [("a b", "file 1 644 0:0"), ("c", "dir - 755 0:0")];
        check(&old, &old, &[]);
        check(&old, &[("c", "dir - 755 0:0")], &["a b removed"]);
        check(&old[1..], &old, &["a b added"]);
        let with = |state| [("a b", state), old[1]];
        check(&old, &with("file 2 600 0:0"), &["a b changed (content)"]);
        check(&old, &with("file 1 600 1:1"), &["a b changed (mode)"]);
        check(&old, &with("file 1 644 1:1"), &["a b changed (owner)"]);
        check(&old, &with("symlink 1 644 0:0"), &["a b changed (type)"]);
        check(
            &old,
            &with("file 1 644 0:0 x"),
            &["a b changed (extended attributes)"],
        );
        // A build that kept no list can't be compared with.
        check(&[], &old, &[]);
        check(&old, &[], &[]);
    }
}
