//! `ashlar prune`: removes cache mounts that no build uses, the one thing in the store that nothing else ever replaces.
//!
//! Layers, records and images are not touched: what of them is still of use is for garbage collection to know.

use std::io::BufRead;

use cache::Store;
use cache::mounts::Listed;

use super::human;
use super::table;
use crate::cli::PruneArgs;
use crate::options::seconds;
use crate::report::{self, Failure, Kind};

/// The one kind of record there is to prune, in BuildKit's words.
const CACHE_MOUNT: &str = "exec.cachemount";
/// Columns have room for ids of this length.
const MAX_ID_CHARS: usize = 40;

/// What is to be removed of the cache mounts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    /// Only this id.
    id: Option<String>,
    /// Only what wasn't used for so long.
    unused_seconds: Option<i64>,
}

/// Removes cache mounts; returns a table of what is gone. `answer` is asked for leave unless that was given.
pub(crate) fn prune(
    args: &PruneArgs,
    store: &Store,
    now_unix: i64,
    answer: &mut dyn BufRead,
) -> Result<String, Failure> {
    if args.all {
        return Err(Failure::usage("`--all` isn't supported yet")
            .with_help("only cache mounts can be pruned: leave --all out"));
    }
    let filter = Filter::parse(&args.filter)?;
    if !args.force && !may(answer)? {
        return Ok("Total:\t0B\n".to_owned());
    }
    let failed = |error| Failure::of(Kind::Machine, &error);
    let mut found = store.mounts().list().map_err(failed)?;
    found.retain(|listed| filter.matches(listed, now_unix));
    found.sort_by(|a, b| id(a).cmp(id(b)).then_with(|| a.name.cmp(&b.name)));
    let mut rows = vec![
        ["ID", "NAMESPACE", "SIZE", "LAST ACCESSED"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut total = 0_u64;
    for listed in &found {
        if store
            .mounts()
            .remove(&listed.name, store.incomplete())
            .map_err(failed)?
        {
            total = total.saturating_add(listed.size_bytes);
            rows.push(row(listed, now_unix));
        } else {
            report::note(&format!("the cache mount `{}` is in use and stays", id(listed)));
        }
    }
    let mut text = match rows.len() {
        1 => String::new(),
        _ => table::render(&rows),
    };
    text.push_str(&format!("Total:\t{}\n", human::size(total)));
    Ok(text)
}

fn row(listed: &Listed, now_unix: i64) -> Vec<String> {
    let namespace = listed.about.as_ref().map_or("", |about| &about.namespace);
    // Ids are text of Dockerfiles: nothing in them may reach a terminal as a command.
    let shown = |text: &str| {
        let clean: String = text
            .chars()
            .map(|char| if char.is_control() { '?' } else { char })
            .collect();
        table::ellipsis(&clean, MAX_ID_CHARS)
    };
    vec![
        shown(id(listed)),
        shown(namespace),
        human::size(listed.size_bytes),
        human::ago(listed.used_unix, now_unix),
    ]
}

fn id(listed: &Listed) -> &str {
    listed.about.as_ref().map_or("(unknown)", |about| &about.id)
}

/// Asks as docker does; only a yes is one.
fn may(answer: &mut dyn BufRead) -> Result<bool, Failure> {
    report::note(
        "this removes the cache mounts that no build uses. Are you sure you want to continue? [y/N]",
    );
    let mut line = String::new();
    let mut limited = std::io::Read::take(answer, 100);
    limited
        .read_line(&mut line)
        .map_err(|error| Failure::machine(format!("cannot read the answer: {error}")))?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

impl Filter {
    fn parse(given: &[String]) -> Result<Self, Failure> {
        let mut filter = Self::default();
        for text in given {
            let wrong = |why: &str| Failure::usage(format!("invalid --filter `{text}`: {why}"));
            match text.split_once('=') {
                Some(("type", CACHE_MOUNT)) => {}
                Some(("type", _)) => return Err(wrong("only type=exec.cachemount can be pruned yet")),
                Some(("id", id)) => filter.id = Some(id.to_owned()),
                Some(("until", duration)) => {
                    let seconds = seconds(duration).and_then(|seconds| i64::try_from(seconds).ok());
                    let seconds = seconds.ok_or_else(|| wrong("not a duration such as 24h"))?;
                    filter.unused_seconds = Some(seconds);
                }
                Some(_) => return Err(wrong("one of type, id, until can be asked for")),
                None => return Err(wrong("it is not KEY=VALUE")),
            }
        }
        Ok(filter)
    }

    fn matches(&self, listed: &Listed, now_unix: i64) -> bool {
        let unused = now_unix.saturating_sub(listed.used_unix);
        self.id.as_ref().is_none_or(|wanted| wanted == id(listed))
            && self.unused_seconds.is_none_or(|least| unused >= least)
    }
}

#[cfg(test)]
mod tests {
    use cache::layer::TreePath;
    use cache::mounts::{About, MountsError, Sharing, Start, Taken};
    use cache::root::Root;

    use super::*;

    fn cache(store: &Store, id: &str, n_bytes: usize) -> Taken {
        let about = About {
            id: id.to_owned(),
            namespace: String::new(),
            owner: None,
            source: None,
        };
        let fill = |root: &Root| {
            let mut file = root.create_file(&TreePath::clean(b"file"), 0o600)?;
            std::io::Write::write_all(&mut file, &vec![1; n_bytes]).unwrap();
            Ok::<_, MountsError>(())
        };
        let kind = (Sharing::Shared, Start::Kept);
        store
            .mounts()
            .take(&about, kind, "", store.incomplete(), &fill)
            .unwrap()
    }

    #[test]
    fn what_is_free_and_meant_goes_and_is_told() {
        let check = |filters: &[&str], force: bool, answer: &str, expected: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            let _used = cache(&store, "used", 1);
            for id in ["a", "b\u{1b}[2J"] {
                drop(cache(&store, id, 5000));
            }
            let args = PruneArgs {
                all: false,
                force,
                filter: filters.iter().map(|text| (*text).to_owned()).collect(),
            };
            let now = crate::clock::now_unix() + 60;
            let text = match prune(&args, &store, now, &mut answer.as_bytes()) {
                Ok(text) => text,
                Err(failure) => failure.render(false),
            };
            let firsts: Vec<&str> = text
                .lines()
                .map(|line| line.split("  ").next().unwrap().trim())
                .filter(|word| !word.starts_with("ID"))
                .collect();
            assert_eq!(firsts.len(), expected.len(), "{filters:?}: {text}");
            for (first, expected) in firsts.iter().zip(expected) {
                assert!(first.starts_with(expected), "{filters:?}: {text}");
            }
        };
        let type_is = "type=exec.cachemount";
        check(&[type_is], true, "", &["a", "b?[2J", "Total:\t"]);
        check(&[], true, "", &["a", "b?[2J", "Total:\t"]);
        check(&[], false, "y\n", &["a", "b?[2J", "Total:\t"]);
        check(&[], false, "", &["Total:\t0B"]);
        check(&[], false, "no\n", &["Total:\t0B"]);
        check(&[type_is, "id=a"], true, "", &["a", "Total:\t"]);
        check(&["id=none"], true, "", &["Total:\t0B"]);
        check(&["until=50s"], true, "", &["a", "b?[2J", "Total:\t"]);
        check(&["until=1h1m1s"], true, "", &["Total:\t0B"]);
        check(&["until=1x"], true, "", &["error: invalid --filter `until=1x`"]);
        check(
            &["type=regular"],
            true,
            "",
            &["error: invalid --filter `type=regular`: only"],
        );
        check(
            &["x"],
            true,
            "",
            &["error: invalid --filter `x`: it is not KEY=VALUE"],
        );
    }
}
