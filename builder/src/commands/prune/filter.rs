//! `--filter` of `ashlar prune` and `ashlar df -v`: which units are meant. Several values of one key are alternatives; of several
//! keys all must hold.

use cache::gc::{Kind, Unit};

use crate::options::seconds;
use crate::report::Failure;

/// BuildKit's words for kinds of which nothing is here: asked for, they mean nothing.
const ELSEWHERE: [&str; 3] = ["source.local", "source.git.checkout", "frontend"];

/// Which units are meant.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// These ids: of cache mounts, or the beginning of what units are named.
    ids: Vec<String>,
    /// These kinds, in BuildKit's words.
    types: Vec<String>,
    /// These words in what people know units as.
    descriptions: Vec<String>,
    /// Only what wasn't used for so long.
    unused_seconds: Option<i64>,
}

impl Filter {
    pub(crate) fn parse(given: &[String]) -> Result<Self, Failure> {
        let mut filter = Self::default();
        for text in given {
            let wrong = |why: &str| Failure::usage(format!("invalid --filter `{text}`: {why}"));
            match text.split_once('=') {
                Some((_, "")) => return Err(wrong("it has no value")),
                Some(("type", word)) => {
                    let own = [Kind::Layer, Kind::Blob, Kind::Mount, Kind::Damaged].map(Kind::word);
                    if !own.contains(&word) && !ELSEWHERE.contains(&word) {
                        return Err(wrong(
                            "one of regular, internal, exec.cachemount, damaged can be asked for",
                        ));
                    }
                    filter.types.push(word.to_owned());
                }
                Some(("id", id)) => filter.ids.push(id.to_owned()),
                Some(("description", words)) => filter.descriptions.push(words.to_owned()),
                Some(("until" | "unused-for", duration)) => {
                    let seconds = seconds(duration).and_then(|seconds| i64::try_from(seconds).ok());
                    let seconds = seconds.ok_or_else(|| wrong("not a duration such as 24h"))?;
                    filter.unused_seconds = filter.unused_seconds.max(Some(seconds));
                }
                Some(_) => return Err(wrong("one of type, id, until, description can be asked for")),
                None => return Err(wrong("it is not KEY=VALUE")),
            }
        }
        Ok(filter)
    }

    /// Says whether a kind was asked for by its name.
    pub(crate) fn names(&self, kind: Kind) -> bool {
        self.types.iter().any(|word| word == kind.word())
    }

    pub(crate) fn matches(&self, unit: &Unit, now_unix: i64) -> bool {
        let any = |wanted: &[String], is_it: &dyn Fn(&String) -> bool| {
            wanted.is_empty() || wanted.iter().any(is_it)
        };
        let unused = now_unix.saturating_sub(unit.used_unix);
        let is_called = |id: &String| match unit.kind {
            Kind::Mount if unit.about == *id => true,
            Kind::Damaged => unit.name.trim_start_matches("damaged/").starts_with(id),
            _ => unit.name.starts_with(id),
        };
        // In full, however much of it is shown.
        let is_described = |words: &String| {
            let scope = unit.scope.as_ref().map(ToString::to_string);
            unit.about.contains(words) || scope.is_some_and(|scope| scope.contains(words))
        };
        any(&self.types, &|word| word == unit.kind.word())
            && any(&self.ids, &is_called)
            && any(&self.descriptions, &is_described)
            && self.unused_seconds.is_none_or(|least| unused >= least)
    }
}
