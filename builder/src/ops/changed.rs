//! Which files differ between the layers that one step made at two times: the answer to why it ran again.

use cache::layer::{Difference, TreePath, differences};
use cache::layers::LayersError;
use cache::{DiffId, Store};

/// More files than anybody reads of; the rest is counted.
const NAMED: usize = 1000;

/// Names the files, in the order of their paths. An error says that the older layer isn't here any more.
pub(super) fn files(store: &Store, older: &DiffId, newer: &DiffId) -> Result<Vec<String>, LayersError> {
    let (older, newer) = (store.layers().get(older)?, store.layers().get(newer)?);
    let found = differences(older.index()?, newer.index()?);
    let mut said: Vec<String> = found
        .iter()
        .take(NAMED)
        .map(|(path, what)| say(path, *what))
        .collect();
    if let Some(more @ 1..) = found.len().checked_sub(NAMED) {
        said.push(format!("{more} more files"));
    }
    Ok(said)
}

fn say(path: &TreePath, what: Difference) -> String {
    match what {
        Difference::Added => format!("{path} added"),
        Difference::Removed => format!("{path} removed"),
        Difference::Type => format!("{path} changed (type)"),
        Difference::Content => format!("{path} changed (content)"),
        Difference::Mode => format!("{path} changed (mode)"),
        Difference::Owner => format!("{path} changed (owner)"),
        Difference::Attributes => format!("{path} changed (extended attributes)"),
    }
}
