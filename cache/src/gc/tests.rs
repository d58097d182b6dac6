//! What garbage collection finds, chooses and removes; and that it takes nothing from under a running process.

use super::*;
use crate::layers::LayersError;
use crate::record::Record;
use crate::store::{Store, StoreError};
use crate::{Key, layer};

fn unit(name: &str, size_bytes: u64, used_unix: i64, took_ms: u64) -> Unit {
    Unit {
        kind: Kind::Layer,
        name: name.to_owned(),
        about: String::new(),
        size_bytes,
        used_unix,
        took_ms,
        is_findable: true,
        is_pinned: false,
        is_leased: false,
        scope: None,
        items: Vec::new(),
    }
}

const NOW: i64 = 1_000_000;

fn check_choice(units: &[Unit], limits: Limits, used_bytes: u64, free_bytes: u64, expected: &str) {
    let space = Space {
        used_bytes,
        free_bytes,
        disk_bytes: 1000,
    };
    let names: Vec<String> = choose(units.to_vec(), limits, space, NOW)
        .into_iter()
        .map(|unit| unit.name)
        .collect();
    assert_eq!(names.join(" "), expected, "{limits:?} {space:?}");
}

#[test]
fn the_least_valuable_goes_first() {
    let old = |name: &str, age: i64| unit(name, 10, NOW - age, 1000);
    let all = Limits::default();
    let check = |units: &[Unit], expected: &str| check_choice(units, all, 100, 0, expected);
    check(&[], "");
    check(
        &[old("new", 10), old("old", 1000), old("mid", 100)],
        "old mid new",
    );
    check(&[unit("small", 1, 0, 0), unit("big", 9, 0, 0)], "big small");
    check(
        &[unit("slow", 5, 0, 60_000), unit("quick", 5, 0, 1_000)],
        "quick slow",
    );
    // What costs an hour stays longer than what is a little older.
    check(
        &[
            unit("hour", 10, NOW - 2000, 3_600_000),
            unit("second", 10, NOW - 1000, 1000),
        ],
        "second hour",
    );
    // Nobody knows what a cache mount took: as much as fetching it would.
    let mount = Unit {
        kind: Kind::Mount,
        ..unit("mount", 40_000_000, NOW - 10, 0)
    };
    let layer = |name: &str, took_ms| unit(name, 40_000_000, NOW - 10, took_ms);
    check(
        &[layer("slow", 5000), mount, layer("quick", 1000)],
        "quick mount slow",
    );
    let lost = Unit {
        is_findable: false,
        ..unit("lost", 10, NOW - 1, 0)
    };
    check(&[old("old", 100_000), lost], "lost old");
    let pinned = Unit {
        is_pinned: true,
        ..old("pinned", 5)
    };
    let leased = Unit {
        is_leased: true,
        ..old("leased", 5)
    };
    check(&[pinned, leased, old("free", 5)], "free");
}

#[test]
fn limits_say_how_much_goes() {
    let units = [
        unit("a", 10, NOW - 3, 0),
        unit("b", 10, NOW - 2, 0),
        unit("c", 10, NOW - 1, 0),
    ];
    let check = |max: Option<u64>, min_free: Option<u64>, reserved: u64, expected: &str| {
        let limits = Limits {
            max_used_bytes: max,
            min_free_bytes: min_free,
            reserved_bytes: reserved,
        };
        check_choice(&units, limits, 30, 100, expected);
    };
    check(None, None, 0, "a b c");
    check(Some(30), None, 0, "");
    check(Some(29), None, 0, "a");
    check(Some(20), None, 0, "a");
    check(Some(0), None, 0, "a b c");
    check(None, Some(100), 0, "");
    check(None, Some(111), 0, "a b");
    check(Some(25), Some(125), 0, "a b c");
    // What is reserved stays, however little is free.
    check(None, Some(1000), 15, "a b");
    check(Some(0), None, 30, "");
    check(None, None, 12, "a b");
}

/// A store with a layer for each of a text's letters; the letter is a file in it.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn open(&self) -> Store {
        Store::open(&self.dir.path().join("store")).unwrap()
    }

    fn layer(store: &Store, name: &str) -> DiffId {
        let written = store.layers().write(store.incomplete(), |mut writer| {
            let meta = layer::Meta::default();
            let body = layer::Body::Dir { opaque: false };
            let path = layer::TreePath::clean(name.as_bytes());
            writer.add(path, meta, body).map_err(LayersError::from)?;
            writer.finish().map_err(LayersError::from)
        });
        written.unwrap().diff_id()
    }

    fn record(store: &Store, name: &str, layers: &[DiffId], took_ms: u64) -> Key {
        let key: Key = blake3::hash(name.as_bytes()).into();
        store
            .index()
            .put_record(&Record {
                key,
                layers: layers.to_vec(),
                components: Vec::new(),
                step: name.to_owned(),
                created_unix_ms: 1000,
                took_ms,
            })
            .unwrap();
        key
    }
}

fn no_pins() -> Result<Pins, StoreError> {
    Ok(Pins::default())
}

/// Who removes in these tests.
const BY: (i64, &str) = (NOW, "test");

#[test]
fn what_was_set_aside_counts_and_goes_only_when_it_is_asked_for() {
    let scene = Scene::new();
    let store = scene.open();
    let damaged = Scene::layer(&store, "damaged");
    let layer = Scene::layer(&store, "layer");
    drop(store);
    let root = scene.dir.path().join("store");
    std::fs::create_dir(root.join("damaged")).unwrap();
    let aside = format!("damaged/layer-{}", damaged.hex());
    std::fs::rename(root.join("layers").join(damaged.hex()), root.join(&aside)).unwrap();
    let mut index = std::fs::File::create(root.join("index.damaged-1")).unwrap();
    std::io::Write::write_all(&mut index, &[1; 5000]).unwrap();
    let store = scene.open();
    let of_kind = |kind| {
        let mut units = store.units(&Pins::default()).unwrap();
        units.retain(|unit| unit.kind == kind);
        units.sort_by(|a, b| a.name.cmp(&b.name));
        units
    };
    let found = of_kind(Kind::Damaged);
    let names: Vec<&str> = found.iter().map(|unit| &unit.name[..]).collect();
    assert_eq!(names, [&aside[..], "index.damaged-1"]);
    assert!(found.iter().all(|unit| unit.size_bytes > 0 && unit.used_unix > 0));
    // The ceiling counts them, and takes everything else.
    let limits = Limits {
        max_used_bytes: Some(0),
        ..Limits::default()
    };
    let kept = store
        .keep_below(limits, NOW, "the ceiling", &mut no_pins)
        .unwrap();
    let left_bytes: u64 = found.iter().map(|unit| unit.size_bytes).sum();
    assert_eq!(kept.unwrap().over_bytes, left_bytes);
    assert!(!store.layers().contains(&layer));
    assert_eq!(of_kind(Kind::Damaged), found);
    let removed = store.remove_units(found, BY, &mut no_pins).unwrap();
    assert_eq!(removed.units.len(), 2);
    assert_eq!(of_kind(Kind::Damaged), []);
}

#[test]
fn what_is_there_is_found_with_what_it_is_worth() {
    let scene = Scene::new();
    let store = scene.open();
    let (base, top, lost) = (
        Scene::layer(&store, "base"),
        Scene::layer(&store, "top"),
        Scene::layer(&store, "lost"),
    );
    Scene::record(&store, "first", &[base], 5);
    Scene::record(&store, "second", &[base, top], 30);
    let form = store.blobs().put(b"form of top", store.incomplete()).unwrap();
    let known = crate::index::LayerBlob {
        digest: form,
        size_bytes: 11,
    };
    store.index().put_layer_blob(&top, "gzip", &known).unwrap();
    let config = store.blobs().put(b"config", store.incomplete()).unwrap();
    drop(store);

    let store = scene.open();
    let pins = Pins {
        layers: [base].into(),
        blobs: [config].into(),
    };
    let mut units = store.units(&pins).unwrap();
    units.sort_by_key(|unit| (unit.kind, unit.took_ms));
    let told: Vec<(&str, u64, bool, bool, usize)> = units
        .iter()
        .map(|unit| {
            let Unit { about, took_ms, .. } = unit;
            (
                &about[..],
                *took_ms,
                unit.is_findable,
                unit.is_pinned,
                unit.items.len(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("", 0, false, false, 1),
            ("second", 30, true, false, 2),
            ("first", 35, true, true, 1),
            ("", 0, true, true, 1),
        ]
    );
    assert!(units.iter().all(|unit| unit.size_bytes > 0 && unit.used_unix > 0));
    assert!(store.quick_size_bytes().unwrap() > 0);

    let removed = store
        .remove_units(units, BY, &mut || Ok::<_, StoreError>(pins.clone()))
        .unwrap();
    assert_eq!((removed.units.len(), removed.kept.len()), (2, 2));
    assert!(store.layers().contains(&base) && store.blobs().contains(&config));
    assert!(!store.layers().contains(&top) && !store.layers().contains(&lost));
    assert!(!store.blobs().contains(&form));
    assert_eq!(store.index().layer_blob(&top, "gzip").unwrap(), None);
    let evicted = store.index().evicted(&top).unwrap().unwrap();
    assert_eq!((evicted.at_unix, &evicted.because[..]), BY);
    assert_eq!(store.index().evicted(&base).unwrap(), None);
}

#[test]
fn what_stands_on_what_is_gone_is_lost() {
    let scene = Scene::new();
    let store = scene.open();
    let [base, top, lazy] = ["base", "top", "lazy"].map(|name| match name {
        "lazy" => DiffId::of(b"lazy"),
        name => Scene::layer(&store, name),
    });
    Scene::record(&store, "top", &[base, top], 30);
    Scene::record(&store, "on lazy", &[lazy, base], 7);
    let worths = |pins: &Pins| {
        let mut units = store.units(pins).unwrap();
        units.sort_by_key(|unit| unit.took_ms);
        let told = units.iter().map(|unit| (unit.took_ms, unit.is_findable));
        told.collect::<Vec<_>>()
    };
    // An image's layer that no step needed so far will be fetched.
    let pins = Pins {
        layers: [lazy].into(),
        ..Pins::default()
    };
    assert_eq!(worths(&pins), [(30, true), (37, true)]);
    assert_eq!(worths(&Pins::default()), [(30, true), (30, true)]);
    std::fs::remove_file(store.layers().path(&base)).unwrap();
    assert_eq!(worths(&pins), [(0, false)]);
}

#[test]
fn what_a_process_found_stays_as_long_as_it_lives() {
    let scene = Scene::new();
    let maker = scene.open();
    let (found, other) = (Scene::layer(&maker, "found"), Scene::layer(&maker, "other"));
    let blob = maker.blobs().put(b"blob", maker.incomplete()).unwrap();
    drop(maker);

    let (user, collector) = (scene.open(), scene.open());
    // Chosen before anybody needed them.
    let units = collector.units(&Pins::default()).unwrap();
    assert_eq!(units.len(), 3);
    assert!(user.layers().contains(&found) && user.blobs().contains(&blob));
    let removed = collector.remove_units(units.clone(), BY, &mut no_pins).unwrap();
    assert_eq!((removed.units.len(), removed.kept.len()), (1, 2));
    assert!(user.layers().get(&found).is_ok() && user.blobs().open(&blob).is_ok());
    assert!(!user.layers().contains(&other));

    let leased = collector.units(&Pins::default()).unwrap();
    assert!(leased.iter().all(|unit| unit.is_leased));
    drop(user);
    let removed = collector.remove_units(units, BY, &mut no_pins).unwrap();
    assert_eq!(removed.kept.len(), 0);
    assert_eq!(collector.units(&Pins::default()).unwrap(), []);
}

#[test]
fn what_an_image_needs_by_now_stays() {
    let scene = Scene::new();
    let store = scene.open();
    let layer = Scene::layer(&store, "layer");
    drop(store);
    let store = scene.open();
    let units = store.units(&Pins::default()).unwrap();
    let mut n_asked = 0;
    let mut pins = || {
        n_asked += 1;
        Ok::<_, StoreError>(Pins {
            layers: [layer].into(),
            ..Pins::default()
        })
    };
    let removed = store.remove_units(units, BY, &mut pins).unwrap();
    assert_eq!((removed.kept.len(), n_asked), (1, 1));
    assert!(store.layers().contains(&layer));
}

#[test]
fn a_store_that_outgrew_its_ceiling_shrinks_below_it() {
    let scene = Scene::new();
    let store = scene.open();
    let layers: Vec<DiffId> = ["a", "b", "c", "d", "e"]
        .into_iter()
        .map(|name| Scene::layer(&store, name))
        .collect();
    drop(store);
    let store = scene.open();
    let used_bytes = store.quick_size_bytes().unwrap();
    let size_bytes = used_bytes / 5;
    let keep = |max_used_bytes| {
        let limits = Limits {
            max_used_bytes,
            ..Limits::default()
        };
        let now = i64::from(u32::MAX);
        let kept = store
            .keep_below(limits, now, "the ceiling", &mut no_pins)
            .unwrap();
        kept.map(|kept| (kept.removed_bytes / size_bytes, kept.over_bytes))
    };
    assert!(store.has_arrivals());
    assert_eq!(keep(None), None);
    assert_eq!(keep(Some(used_bytes)), None);
    // A tenth too much, and a tenth more for room.
    assert_eq!(keep(Some(used_bytes * 9 / 10)), Some((1, 0)));
    assert_eq!(keep(Some(used_bytes * 9 / 10)), None);
    // What somebody uses stays, whatever the ceiling.
    let user = scene.open();
    assert!(user.layers().contains(&layers[0]) || user.layers().contains(&layers[1]));
    assert_eq!(keep(Some(0)), Some((3, size_bytes)));
    drop(user);
    assert_eq!(keep(Some(0)), Some((1, 0)));
    assert!(layers.iter().all(|layer| !store.layers().path(layer).is_file()));
}

#[test]
fn what_arrives_is_noticed_and_nothing_else() {
    let scene = Scene::new();
    let store = scene.open();
    Scene::layer(&store, "a");
    let look = || {
        let limits = Limits {
            max_used_bytes: Some(u64::MAX),
            ..Limits::default()
        };
        let kept = store
            .keep_below(limits, NOW, "the ceiling", &mut no_pins)
            .unwrap();
        assert_eq!(kept, None);
    };
    // What came within the same tick of the clock counts as new.
    let settle = || {
        while store.has_arrivals() {
            look();
        }
    };
    settle();
    assert!(
        store.layers().contains(&Scene::layer(&store, "a")),
        "it was there already"
    );
    assert!(!store.has_arrivals());
    Scene::layer(&store, "b");
    assert!(store.has_arrivals());
    settle();
    store.blobs().put(b"blob", store.incomplete()).unwrap();
    assert!(store.has_arrivals());
    settle();
    let tidied = std::fs::File::open(scene.dir.path().join("store/tidied")).unwrap();
    let tomorrow = std::time::SystemTime::now() + std::time::Duration::from_secs(86400);
    tidied.set_modified(tomorrow).unwrap();
    assert!(store.has_arrivals(), "the clock was wrong");
}

#[test]
fn leftovers_of_the_killed_are_swept() {
    let scene = Scene::new();
    let store = scene.open();
    let held = store.lock("held").unwrap();
    let root = scene.dir.path().join("store");
    for name in ["locks/dead", "leases/dead"] {
        std::fs::File::create(root.join(name)).unwrap();
    }
    store.sweep_leftovers(NOW, &Pins::default()).unwrap();
    assert!(!root.join("locks/dead").exists() && !root.join("leases/dead").exists());
    assert!(root.join("locks/held").exists());
    drop(held);
}

#[test]
fn records_of_what_is_gone_explain_for_a_month_and_go() {
    let scene = Scene::new();
    let store = scene.open();
    let here = Scene::layer(&store, "here");
    let kept = Scene::record(&store, "here", &[here], 1);
    let dead = Scene::record(&store, "gone", &[here, DiffId::of(b"gone")], 1);
    let lazy = Scene::record(&store, "lazy", &[here, DiffId::of(b"lazy")], 1);
    let has = |key: &Key| store.index().record(key).unwrap().is_some();
    // Of an image, and never fetched.
    let pins = Pins {
        layers: [DiffId::of(b"lazy")].into(),
        ..Pins::default()
    };
    let forget = |days: i64| store.forget_dead_records(days * 24 * 3600, &pins).unwrap();
    forget(29);
    assert!(has(&kept) && has(&dead) && has(&lazy));
    forget(31);
    assert!(has(&kept) && !has(&dead) && has(&lazy));
}

#[test]
fn an_endless_removal_beside_builds_takes_nothing_from_them() {
    const N_ROUNDS: usize = 30;
    let scene = Scene::new();
    let layers = ["a", "b", "c", "d"];
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let builds: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for round in 0..N_ROUNDS {
                        // A process each time, as far as the store knows.
                        let store = scene.open();
                        let name = layers[round % layers.len()];
                        let made = Scene::layer(&store, name);
                        assert!(store.layers().contains(&made));
                        store.layers().get(&made).unwrap().index().unwrap();
                        assert!(store.layers().path(&made).is_file());
                    }
                })
            })
            .collect();
        let removing = scope.spawn(|| {
            let mut n_removed = 0;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                let store = scene.open();
                let units = store.units(&Pins::default()).unwrap();
                n_removed += store.remove_units(units, BY, &mut no_pins).unwrap().units.len();
            }
            n_removed
        });
        let built: Vec<_> = builds.into_iter().map(|build| build.join()).collect();
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        let n_removed = removing.join().unwrap();
        assert!(built.iter().all(Result::is_ok));
        assert!(n_removed > 0, "it has removed what nobody used any more");
    });
}
