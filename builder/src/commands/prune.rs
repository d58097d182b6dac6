//! `ashlar prune`: removes what no image and no running process needs, the least valuable first.

mod filter;

use std::io::BufRead;

use cache::Store;
use cache::gc::{Kind, Limits, Space, Unit, choose};

use super::human;
use super::table;
use crate::cli::PruneArgs;
use crate::failure;
use crate::report::{self, Failure};
use crate::upkeep::{Amount, Needs, UpkeepError};

pub(crate) use filter::Filter;

/// Columns have room for descriptions of this length.
const MAX_ABOUT_CHARS: usize = 60;
/// How many digits of a name are shown.
const ID_CHARS: usize = 12;
/// Why layers are gone: steps that run again for it say so.
const BECAUSE: &str = "prune";

/// Removes what is meant and not needed; returns a table of what is gone. `answer` is asked for leave unless that was given.
pub(crate) fn prune(
    args: &PruneArgs,
    store: &Store,
    now_unix: i64,
    answer: &mut dyn BufRead,
) -> Result<String, Failure> {
    let filter = Filter::parse(&args.filter)?;
    let limits = AskedLimits::parse(args)?;
    if !args.force && !args.dry_run && !may(args, answer)? {
        return Ok("Total:\t0B\n".to_owned());
    }
    let failed = |error: UpkeepError| failure::of_upkeep(&error);
    let mut needs = Needs::default();
    let pins = needs.pins(store).map_err(failed)?;
    let units = store.units(&pins).map_err(|error| failed(error.into()))?;
    let used_bytes = total_bytes(&units);
    let space = store.space(used_bytes).map_err(|error| failed(error.into()))?;
    let is_meant = |unit: &Unit| {
        let is_internal = matches!(unit.kind, Kind::Blob | Kind::Unpacked | Kind::Damaged);
        (args.all || !is_internal || filter.names(unit.kind)) && filter.matches(unit, now_unix)
    };
    let meant = units.into_iter().filter(is_meant).collect();
    let going = choose(meant, limits.on(space), space, now_unix);
    if args.dry_run {
        return Ok(told(&going, now_unix));
    }
    let removed = store
        .remove_units(going, (now_unix, BECAUSE), &mut || needs.pins(store))
        .map_err(failed)?;
    store
        .sweep_leftovers(now_unix, &pins)
        .map_err(|error| failed(error.into()))?;
    for kept in &removed.kept {
        let what = match kept.kind {
            Kind::Mount => format!("the cache mount `{}`", description(kept)),
            _ => short_id(kept),
        };
        report::note(&format!("{what} is in use and stays"));
    }
    Ok(told(&removed.units, now_unix))
}

/// The limits as they were typed.
struct AskedLimits {
    max_used: Option<Amount>,
    min_free: Option<Amount>,
    reserved: Option<Amount>,
}

impl AskedLimits {
    fn parse(args: &PruneArgs) -> Result<Self, Failure> {
        let amount = |text: &Option<String>| text.as_deref().map(Amount::parse).transpose();
        Ok(Self {
            max_used: amount(&args.max_used_space)?,
            min_free: amount(&args.min_free_space)?,
            reserved: amount(&args.reserved_space)?,
        })
    }

    fn on(&self, space: Space) -> Limits {
        let bytes = |amount: Option<Amount>| amount.map(|amount| amount.bytes(space.disk_bytes));
        Limits {
            max_used_bytes: bytes(self.max_used),
            min_free_bytes: bytes(self.min_free),
            reserved_bytes: bytes(self.reserved).unwrap_or(0),
        }
    }
}

/// Adds up what units occupy.
pub(super) fn total_bytes<'u>(units: impl IntoIterator<Item = &'u Unit>) -> u64 {
    let sizes = units.into_iter().map(|unit| unit.size_bytes);
    sizes.fold(0, u64::saturating_add)
}

/// Returns a table of units and their sum.
fn told(units: &[Unit], now_unix: i64) -> String {
    let mut rows = vec![
        [
            "ID",
            "RECLAIMABLE",
            "SIZE",
            "LAST ACCESSED",
            "TYPE",
            "DESCRIPTION",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(units.iter().map(|unit| {
        vec![
            short_id(unit),
            "true".to_owned(),
            human::size(unit.size_bytes),
            human::ago(unit.used_unix, now_unix),
            unit.kind.word().to_owned(),
            description(unit),
        ]
    }));
    let mut text = match rows.len() {
        1 => String::new(),
        _ => table::render(&rows),
    };
    text.push_str(&format!("Total:\t{}\n", human::size(total_bytes(units))));
    text
}

/// Returns the first digits of a unit's name; names that aren't digits are short.
pub(super) fn short_id(unit: &Unit) -> String {
    if unit.kind == Kind::Damaged {
        // Its kind, and as much of its digest as of others.
        let name = unit.name.strip_prefix("damaged/").unwrap_or(&unit.name);
        let n_kind = name.find('-').map_or(0, |dash| dash + 1);
        return name.chars().take(n_kind + ID_CHARS).collect();
    }
    let digits = unit.name.strip_prefix("chain-").unwrap_or(&unit.name);
    digits.chars().take(ID_CHARS).collect()
}

/// Returns what people know a unit as; of a cache mount also whose it is, in full: one directory of many is meant.
pub(super) fn description(unit: &Unit) -> String {
    let about = shown(&unit.about);
    match &unit.scope {
        Some(scope) => format!("{about} ({})", clean(&scope.to_string())),
        None => about,
    }
}

/// Returns a text of Dockerfiles so that nothing in it reaches a terminal as a command, and not too long.
fn shown(text: &str) -> String {
    table::ellipsis(&clean(text), MAX_ABOUT_CHARS)
}

fn clean(text: &str) -> String {
    let chars = text.chars();
    chars
        .map(|char| if char.is_control() { '?' } else { char })
        .collect()
}

/// Asks as docker does; only a yes is one.
fn may(args: &PruneArgs, answer: &mut dyn BufRead) -> Result<bool, Failure> {
    let what = match args.all {
        true => "everything that no image and no running build needs, and what was damaged and is set aside",
        false => "the layers and cache mounts that no image and no running build needs",
    };
    report::note(&format!(
        "this removes {what}. Are you sure you want to continue? [y/N]"
    ));
    let mut line = String::new();
    let mut limited = std::io::Read::take(answer, 100);
    limited
        .read_line(&mut line)
        .map_err(|error| Failure::machine(format!("cannot read the answer: {error}")))?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
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
            project: format!("/home/{id}"),
            ..About::default()
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
                force,
                filter: filters.iter().map(|text| (*text).to_owned()).collect(),
                ..PruneArgs::default()
            };
            let now = crate::clock::now_unix() + 60;
            let text = match prune(&args, &store, now, &mut answer.as_bytes()) {
                Ok(text) => text,
                Err(failure) => failure.render(false),
            };
            // Of a table what people know units as, otherwise the line.
            let firsts: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with("ID"))
                .map(|line| line.split("exec.cachemount   ").last().unwrap().trim())
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
        check(&["id=a", "id=none"], true, "", &["a", "Total:\t"]);
        let told = "b?[2J (project /home/b?[2J)";
        check(&["description=[2J"], true, "", &[told, "Total:\t"]);
        check(
            &["description=home/a"],
            true,
            "",
            &["a (project /home/a)", "Total:\t"],
        );
        check(&["type=regular"], true, "", &["Total:\t0B"]);
        check(&["type=regular", type_is, "id=a"], true, "", &["a", "Total:\t"]);
        check(&["until=50s"], true, "", &["a", "b?[2J", "Total:\t"]);
        check(&["until=1h1m1s"], true, "", &["Total:\t0B"]);
        check(&["until=1x"], true, "", &["error: invalid --filter `until=1x`"]);
        check(
            &["type=other"],
            true,
            "",
            &["error: invalid --filter `type=other`: one of"],
        );
        check(
            &["x"],
            true,
            "",
            &["error: invalid --filter `x`: it is not KEY=VALUE"],
        );
    }
}
