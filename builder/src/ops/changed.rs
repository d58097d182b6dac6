//! Which files differ between the layers that one step made at two times: the answer to why it ran again.

use cache::tree::{Aspect, Change, Times, View};
use cache::{DiffId, Store};

use super::OpError;

/// More files than anybody reads of; the rest is counted.
const NAMED: usize = 1000;

/// Names the files, parents first. An error says that the older layer isn't here any more.
pub(super) fn files(store: &Store, older: &DiffId, newer: &DiffId) -> Result<Vec<String>, OpError> {
    let older = View::of_layers([store.layers().get(older)?])?;
    let newer = View::of_layers([store.layers().get(newer)?])?;
    let (mut said, mut n_more) = (Vec::new(), 0_usize);
    for change in older.changes(&newer, Times::Ignore) {
        match said.len() < NAMED {
            true => said.push(say(&change?)),
            false => n_more += 1,
        }
    }
    if n_more > 0 {
        said.push(format!("{n_more} more files"));
    }
    Ok(said)
}

fn say(change: &Change<'_>) -> String {
    let path = &change.path;
    let Some(aspect) = change.aspects.first() else {
        return match change.before {
            Some(_) => format!("{path} removed"),
            None => format!("{path} added"),
        };
    };
    let what = match aspect {
        Aspect::Type => "type",
        Aspect::Content => "content",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Attributes => "extended attributes",
        Aspect::Time => "time",
    };
    format!("{path} changed ({what})")
}
