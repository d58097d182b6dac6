//! What is in a store, as units.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::hash::Hash;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::str::FromStr;

use super::{Kind, Pins, Unit};
use crate::check::ASIDE;
use crate::digest::{DiffId, Digest};
use crate::index::RecordSummary;
use crate::leases::Item;
use crate::mounts::About;
use crate::root::Root;
use crate::store::{Store, StoreError};

/// What a file of the store occupies, and when it was last used.
#[derive(Clone, Copy, Default)]
struct Found {
    size_bytes: u64,
    used_unix: i64,
}

impl Found {
    fn of(meta: &Metadata) -> Self {
        Self {
            size_bytes: meta.blocks().saturating_mul(512),
            // A file system may keep no times of access.
            used_unix: meta.atime().max(meta.ctime()),
        }
    }
}

/// What all steps took whose results have a layer, and which step made it.
#[derive(Default)]
struct Worth<'r> {
    took_ms: u64,
    made_by: Option<&'r RecordSummary>,
}

impl Store {
    /// Returns everything in the store that could be removed, or is needed. Measures cache mounts, file by file.
    pub fn units(&self, pins: &Pins) -> Result<Vec<Unit>, StoreError> {
        let records = self.index().records()?;
        // Who needs what changes while things are measured; it is asked again before anything is removed.
        let taken = self.taken_now()?;
        let mut units = self.stored_units(pins, &taken, &records)?;
        for mount in self.mounts().list()? {
            units.push(Unit {
                kind: Kind::Mount,
                scope: mount.about.as_ref().map(About::scope),
                about: mount.about.map_or_else(String::new, |about| about.id),
                name: mount.name,
                size_bytes: mount.size_bytes,
                used_unix: mount.used_unix,
                took_ms: 0,
                is_findable: true,
                is_pinned: false,
                is_leased: mount.is_used,
                items: Vec::new(),
            });
        }
        units.extend(self.damaged()?);
        Ok(units)
    }

    /// Returns what repairs have set aside, and indexes that were found damaged.
    fn damaged(&self) -> Result<Vec<Unit>, StoreError> {
        let mut found: Vec<(String, Found)> = Vec::new();
        list(&self.root().join(ASIDE), |name, meta| {
            found.push((format!("{ASIDE}/{name}"), Found::of(meta)));
        })?;
        list(self.root(), |name, meta| {
            let is_index = name.starts_with("index.damaged-");
            found.extend(is_index.then(|| (name.to_owned(), Found::of(meta))));
        })?;
        let unit = |(name, found): (String, Found)| Unit {
            kind: Kind::Damaged,
            about: "set aside: it was damaged".to_owned(),
            name,
            size_bytes: found.size_bytes,
            used_unix: found.used_unix,
            took_ms: 0,
            is_findable: false,
            is_pinned: false,
            is_leased: false,
            items: Vec::new(),
            scope: None,
        };
        Ok(found.into_iter().map(unit).collect())
    }

    /// Returns what layer files and blobs occupy: not all of the store, but quickly known.
    pub fn quick_size_bytes(&self) -> Result<u64, StoreError> {
        let mut total = 0_u64;
        for part in ["layers", "blobs/sha256"] {
            list(&self.root().join(part), |_, meta| {
                total = total.saturating_add(Found::of(meta).size_bytes);
            })?;
        }
        Ok(total)
    }

    fn stored_units(
        &self,
        pins: &Pins,
        taken: &HashSet<Item>,
        records: &[RecordSummary],
    ) -> Result<Vec<Unit>, StoreError> {
        let mut blobs: HashMap<Digest, Found> = self.found_in("blobs/sha256")?;
        let layers: HashMap<DiffId, Found> = self.found_in("layers")?;
        let mut forms: HashMap<DiffId, Vec<Digest>> = HashMap::new();
        for form in self.index().forms()? {
            forms.entry(form.layer).or_default().push(form.digest);
        }
        let mut unpacked = self.unpacked()?;
        let mut unpacked_names = names_by_layer(unpacked.keys());
        // A result of which a layer is gone can't be found any more. What an image needs may just not be fetched yet.
        let is_there = |layer: &DiffId| layers.contains_key(layer) || pins.layers.contains(layer);
        let found = records.iter().filter(|record| record.layers.iter().all(is_there));
        let worths = worths(found);
        let none = Worth::default();
        let mut units = Vec::new();
        for (layer, found) in layers {
            let worth = worths.get(&layer).unwrap_or(&none);
            let item = Item::Layer(layer);
            let mut unit = Unit {
                kind: Kind::Layer,
                name: layer.hex(),
                about: worth
                    .made_by
                    .map_or_else(String::new, |record| record.step.clone()),
                scope: None,
                size_bytes: found.size_bytes,
                used_unix: found.used_unix,
                took_ms: worth.took_ms,
                is_findable: worth.took_ms > 0 || worth.made_by.is_some(),
                is_pinned: pins.hold(&item),
                is_leased: taken.contains(&item),
                items: vec![item],
            };
            if !unit.is_pinned && !unit.is_leased {
                let own = forms.remove(&layer).unwrap_or_default().into_iter();
                let own = own.filter(|digest| !pins.blobs.contains(digest));
                for digest in own {
                    unit.take_over(blobs.remove(&digest), Item::Blob(digest));
                }
                for name in unpacked_names.remove(&layer.hex()).into_iter().flatten() {
                    unit.take_over(unpacked.remove(&name), Item::Unpacked(name));
                }
            }
            units.push(unit);
        }
        let others = blobs.into_iter().map(|(digest, found)| {
            let item = Item::Blob(digest);
            (Kind::Blob, digest.hex(), found, item)
        });
        let kept = unpacked
            .into_iter()
            .map(|(name, found)| (Kind::Unpacked, name.clone(), found, Item::Unpacked(name)));
        for (kind, name, found, item) in others.chain(kept) {
            units.push(Unit {
                kind,
                name,
                about: String::new(),
                scope: None,
                size_bytes: found.size_bytes,
                used_unix: found.used_unix,
                took_ms: 0,
                is_findable: true,
                is_pinned: pins.hold(&item),
                is_leased: taken.contains(&item),
                items: vec![item],
            });
        }
        Ok(units)
    }

    /// Measures files that are named by the digits of a digest.
    fn found_in<D: FromStr + Eq + Hash>(&self, part: &str) -> Result<HashMap<D, Found>, StoreError> {
        let mut all = HashMap::new();
        list(&self.root().join(part), |name, meta| {
            let digest = format!("sha256:{name}").parse();
            all.extend(digest.ok().map(|digest: D| (digest, Found::of(meta))));
        })?;
        Ok(all)
    }

    /// Measures what was unpacked, by name.
    fn unpacked(&self) -> Result<HashMap<String, Found>, StoreError> {
        let dir = self.root().join("unpacked");
        let mut found = HashMap::new();
        list(&dir, |name, meta| {
            found.insert(name.to_owned(), Found::of(meta));
        })?;
        for (name, found) in &mut found {
            found.size_bytes = match Root::open_host(&dir.join(name)) {
                Err(error) if error.is_missing() => 0,
                other => other?.size_bytes()?,
            };
        }
        Ok(found)
    }
}

impl Unit {
    fn take_over(&mut self, found: Option<Found>, item: Item) {
        if let Some(found) = found {
            self.size_bytes = self.size_bytes.saturating_add(found.size_bytes);
            self.used_unix = self.used_unix.max(found.used_unix);
            self.items.push(item);
        }
    }
}

/// Sorts what was unpacked, in whatever user namespace, by the digits of its layer; of stacks that have it there may be more.
fn names_by_layer<'n>(names: impl Iterator<Item = &'n String>) -> HashMap<String, Vec<String>> {
    let mut sorted: HashMap<String, Vec<String>> = HashMap::new();
    for name in names.filter(|name| !name.contains("chain-")) {
        let hex = name.rsplit('-').next().unwrap_or(name).to_owned();
        sorted.entry(hex).or_default().push(name.clone());
    }
    sorted
}

/// Returns what the layers of records are worth. A layer is lost for every result that has it.
fn worths<'r>(records: impl Iterator<Item = &'r RecordSummary>) -> HashMap<DiffId, Worth<'r>> {
    let mut worths: HashMap<DiffId, Worth<'_>> = HashMap::new();
    for record in records {
        for layer in &record.layers {
            let worth = worths.entry(*layer).or_default();
            worth.took_ms = worth.took_ms.saturating_add(record.took_ms);
        }
        if let Some(top) = record.layers.last() {
            let worth = worths.entry(*top).or_default();
            // Steps that make no layer stand on the layers of earlier ones: the oldest made it.
            let is_older = |known: &RecordSummary| record.created_unix_ms < known.created_unix_ms;
            if worth.made_by.is_none_or(is_older) {
                worth.made_by = Some(record);
            }
        }
    }
    worths
}

/// Lists a directory of the store; one that isn't there is empty, and what goes away meanwhile isn't there.
fn list(dir: &Path, mut each: impl FnMut(&str, &Metadata)) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io {
        action: "list",
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // Names that aren't text are not ours.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => each(&name, &other.map_err(failed)?),
        }
    }
    Ok(())
}
