//! `ashlar df`: what the store occupies, and what of it could go; with `--verbose` each part of it, and who needs it.

use std::collections::HashMap;

use cache::gc::{Kind, Pins, Unit};
use cache::{DiffId, Digest, Store};
use serde_json::{Map, Value};

use super::human;
use super::prune::{Filter, description, short_id, total_bytes};
use super::table::Format;
use crate::cli::DfArgs;
use crate::failure;
use crate::image::familiar;
use crate::report::Failure;
use crate::upkeep::{ImageNeeds, Needs, UpkeepError, only_unnamed};

const HEADINGS: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const UNIT_HEADINGS: [(&str, &str); 7] = [
    ("ID", "ID"),
    ("Type", "TYPE"),
    ("Size", "SIZE"),
    ("LastUsed", "LAST USED"),
    ("Took", "TOOK"),
    ("NeededBy", "NEEDED BY"),
    ("Description", "DESCRIPTION"),
];

/// Returns what the store occupies, as docker tells it.
pub(crate) fn df(args: &DfArgs, store: &Store, now_unix: i64) -> Result<String, Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let filter = Filter::parse(&args.filter)?;
    let failed = |error: UpkeepError| failure::of_upkeep(&error);
    let images = Needs::default().images(store).map_err(failed)?;
    let pins = Pins {
        layers: images
            .iter()
            .flat_map(|image| &image.pins.layers)
            .copied()
            .collect(),
        blobs: images
            .iter()
            .flat_map(|image| &image.pins.blobs)
            .copied()
            .collect(),
    };
    let units = store.units(&pins).map_err(|error| failed(error.into()))?;
    match args.verbose {
        false => list(&format, summary(&images, &units), &HEADINGS),
        true => {
            let units = units.into_iter().filter(|unit| filter.matches(unit, now_unix));
            list(&format, each(&images, units.collect(), now_unix), &UNIT_HEADINGS)
        }
    }
}

fn list(
    format: &Format,
    rows: Vec<Map<String, Value>>,
    headings: &[(&str, &str)],
) -> Result<String, Failure> {
    let columns: Vec<(&str, &str)> = headings
        .iter()
        .map(|(field, heading)| (*heading, *field))
        .collect();
    format.list(rows, &columns, headings)
}

/// Returns a row for the images, one for what only builds profit from, one for cache mounts, and one for
/// what was damaged, if anything was.
fn summary(images: &[ImageNeeds], units: &[Unit]) -> Vec<Map<String, Value>> {
    let row = |what: &str, total: usize, active: usize, size_bytes: u64, free_bytes: u64| {
        let share = (u128::from(free_bytes) * 100)
            .checked_div(u128::from(size_bytes))
            .unwrap_or(0);
        let fields = [
            ("Type", what.to_owned()),
            ("TotalCount", total.to_string()),
            ("Active", active.to_string()),
            ("Size", human::size(size_bytes)),
            ("Reclaimable", format!("{} ({share}%)", human::size(free_bytes))),
        ];
        to_row(fields)
    };
    let unnamed = only_unnamed(images);
    let ids = |named: bool| {
        let ids = images.iter().filter(|image| !named || image.is_named());
        let ids: std::collections::HashSet<Digest> = ids.map(|image| image.row.config).collect();
        ids.len()
    };
    let (pinned, others): (Vec<&Unit>, Vec<&Unit>) = units.iter().partition(|unit| unit.is_pinned);
    let (damaged, others): (Vec<&Unit>, Vec<&Unit>) =
        others.into_iter().partition(|unit| unit.kind == Kind::Damaged);
    let (mounts, cached): (Vec<&Unit>, Vec<&Unit>) =
        others.into_iter().partition(|unit| unit.kind == Kind::Mount);
    let freed = pinned
        .iter()
        .filter(|unit| unit.layer().is_some_and(|layer| unnamed.contains(&layer)));
    let freed_bytes = total_bytes(freed.copied());
    let leased: Vec<&Unit> = cached.iter().filter(|unit| unit.is_leased).copied().collect();
    let size = |units: &[&Unit]| total_bytes(units.iter().copied());
    let (n_leased, leased_bytes) = (leased.len(), size(&leased));
    let mut rows = vec![
        row("Images", ids(false), ids(true), size(&pinned), freed_bytes),
        row(
            "Build Cache",
            cached.len(),
            n_leased,
            size(&cached),
            size(&cached).saturating_sub(leased_bytes),
        ),
        row(
            "Cache Mounts",
            mounts.len(),
            mounts.iter().filter(|unit| unit.is_leased).count(),
            size(&mounts),
            total_bytes(mounts.iter().filter(|unit| !unit.is_leased).copied()),
        ),
    ];
    // Hardly any store has some.
    if !damaged.is_empty() {
        rows.push(row("Damaged", damaged.len(), 0, size(&damaged), size(&damaged)));
    }
    rows
}

/// Returns a row for each unit, the biggest first.
fn each(images: &[ImageNeeds], mut units: Vec<Unit>, now_unix: i64) -> Vec<Map<String, Value>> {
    let mut of_layers: HashMap<DiffId, Vec<String>> = HashMap::new();
    let mut of_blobs: HashMap<Digest, Vec<String>> = HashMap::new();
    for image in images {
        let name = match image.is_named() {
            true => familiar(&image.row.name),
            false => image.row.config.hex().chars().take(12).collect(),
        };
        for layer in &image.pins.layers {
            of_layers.entry(*layer).or_default().push(name.clone());
        }
        for blob in &image.pins.blobs {
            of_blobs.entry(*blob).or_default().push(name.clone());
        }
    }
    units.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.name.cmp(&b.name)));
    let row = |unit: &Unit| {
        let layer = unit.layer().and_then(|layer| of_layers.get(&layer));
        let names = layer.or_else(|| of_blobs.get(&unit.blob()?));
        let mut needed: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
        needed.extend(unit.is_leased.then_some("a running process"));
        let needed = match needed.as_slice() {
            [] => "-".to_owned(),
            [one] => (*one).to_owned(),
            [first, others @ ..] => format!("{first} and {} more", others.len()),
        };
        let took = match unit.took_ms {
            0 => "-".to_owned(),
            ms => format!("{:.1}s", ms as f64 / 1000.0),
        };
        to_row([
            ("ID", short_id(unit)),
            ("Type", unit.kind.word().to_owned()),
            ("Size", human::size(unit.size_bytes)),
            ("LastUsed", human::ago(unit.used_unix, now_unix)),
            ("Took", took),
            ("NeededBy", needed),
            ("Description", description(unit)),
        ])
    };
    units.iter().map(row).collect()
}

fn to_row<const N: usize>(fields: [(&str, String); N]) -> Map<String, Value> {
    let fields = fields.into_iter();
    fields
        .map(|(field, text)| (field.to_owned(), Value::from(text)))
        .collect()
}
