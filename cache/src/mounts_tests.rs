//! Cache mounts: who gets which, what it begins with, and that ids are never paths.

use super::*;
use crate::Store;

fn about(id: &str) -> About {
    About {
        id: id.to_owned(),
        owner: Some((0o755, 0, 0)),
        ..About::default()
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn take(store: &Store, about: &About, sharing: Sharing, start: Start) -> Taken {
    let fill = |root: &Root| {
        root.create_file(&TreePath::clean(b"initial"), 0o600)?;
        Ok::<_, MountsError>(())
    };
    store
        .mounts()
        .take(about, (sharing, start), "the test", store.incomplete(), &fill)
        .unwrap()
}

fn write(path: &Path, bytes: &[u8]) {
    let file = File::create_new(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// Returns which copy of a cache was given, and whether it is as new.
fn copy(taken: &Taken) -> String {
    match taken {
        Taken::Busy(who) => format!("busy: {who}"),
        Taken::Held(held) => {
            let name = held
                .data()
                .parent()
                .unwrap()
                .file_name()
                .unwrap()
                .to_string_lossy();
            let files = std::fs::read_dir(held.data()).unwrap();
            let mut files: Vec<_> = files
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            files.sort();
            format!("{} {}", name.split_once('-').unwrap().1, files.join(" "))
        }
    }
}

fn leave(taken: &Taken, name: &str) {
    let Taken::Held(held) = taken else { panic!("held") };
    File::create(held.data().join(name)).unwrap();
}

/// case R26 on the level of the store.
#[test]
fn each_sharing_gets_the_copy_that_it_should() {
    use Sharing::{Locked, Private, Shared};
    let check = |held: &[Sharing], wanted: Sharing, expected: &str| {
        let (_dir, store) = store();
        let held: Vec<Taken> = held
            .iter()
            .map(|sharing| take(&store, &about("a"), *sharing, Start::Kept))
            .collect();
        let taken = take(&store, &about("a"), wanted, Start::Kept);
        assert_eq!(copy(&taken), expected, "{held:?} {wanted:?}");
        drop(held);
    };
    check(&[], Shared, "0 initial");
    check(&[Shared], Shared, "0 initial");
    check(&[Shared, Shared], Private, "1 initial");
    check(&[Shared], Locked, "busy: the test");
    check(&[Private], Shared, "1 initial");
    check(&[Private], Private, "1 initial");
    check(&[Private, Private], Private, "2 initial");
    check(&[Private], Locked, "busy: the test");
    check(&[Locked], Shared, "1 initial");
    check(&[Locked], Private, "1 initial");
    check(&[Locked], Locked, "busy: the test");
}

#[test]
fn content_stays_until_something_fresh_is_asked_for() {
    let (_dir, store) = store();
    let first = take(&store, &about("a"), Sharing::Shared, Start::Kept);
    leave(&first, "left");
    // Somebody still has it: what is fresh is another copy.
    let other = take(&store, &about("a"), Sharing::Shared, Start::Fresh);
    assert_eq!(copy(&other), "1 initial");
    drop((first, other));
    let again = take(&store, &about("a"), Sharing::Locked, Start::Kept);
    assert_eq!(copy(&again), "0 initial left");
    drop(again);
    assert_eq!(
        copy(&take(&store, &about("a"), Sharing::Shared, Start::Fresh)),
        "0 initial"
    );
}

/// hardening T26: an id is hashed and never a path. hardening T32: a namespace is a world of its own.
#[test]
fn ids_are_never_paths_and_never_meet() {
    let (dir, store) = store();
    let long = "x".repeat(4096);
    let ids = [
        "../../../canary",
        "/",
        ".",
        "..",
        "",
        "a/../b",
        "b",
        "a\0b",
        &long,
        "/a",
        "a",
    ];
    let mut abouts: Vec<About> = ids.iter().map(|id| about(id)).collect();
    abouts.push(About {
        namespace: "a".to_owned(),
        id: "b".to_owned(),
        ..about("")
    });
    abouts.push(About {
        namespace: "ab".to_owned(),
        ..about("")
    });
    for (project, namespace) in [("a", ""), ("a", "a"), ("/a", ""), ("aa", "")] {
        abouts.push(About {
            project: project.to_owned(),
            namespace: namespace.to_owned(),
            ..about("b")
        });
    }
    // case R28
    abouts.push(About {
        owner: Some((0o755, 1000, 0)),
        ..about("a")
    });
    abouts.push(About {
        owner: None,
        ..about("a")
    });
    abouts.push(About {
        owner: None,
        source: Some(String::new()),
        ..about("a")
    });
    let mut seen = std::collections::HashSet::new();
    for (number, about) in abouts.iter().enumerate() {
        let taken = take(&store, about, Sharing::Shared, Start::Kept);
        assert_eq!(copy(&taken), "0 initial", "{about:?}");
        leave(&taken, &number.to_string());
        let Taken::Held(held) = taken else { panic!("held") };
        assert!(held.data().starts_with(dir.path().join("store/mounts")));
        assert!(seen.insert(held.data().to_owned()), "{about:?}");
    }
    let outside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(outside.len(), 1);
}

/// What stores hold must be found again by later versions.
#[test]
fn identities_and_what_is_written_down_stay_the_same() {
    let check = |about: &About, identity: &str, json: &str| {
        assert_eq!(&about.identity().0[..16], identity);
        assert_eq!(serde_json::to_string(about).unwrap(), json);
        assert_eq!(serde_json::from_str::<About>(json).unwrap(), *about);
    };
    let old = about("npm");
    check(
        &old,
        "3fd46f036a4b28e6",
        r#"{"id":"npm","namespace":"","owner":[493,0,0],"source":null}"#,
    );
    let own = About {
        project: "/home/me/app".to_owned(),
        ..old.clone()
    };
    check(
        &own,
        "cecf00506f9afdaf",
        r#"{"id":"npm","namespace":"","project":"/home/me/app","owner":[493,0,0],"source":null}"#,
    );
    assert_eq!(own.anywhere(), old);
}

#[test]
fn what_nobody_uses_can_be_removed_whatever_is_in_it() {
    let (dir, store) = store();
    let canary = dir.path().join("canary");
    write(&canary, b"alive");
    assert!(store.mounts().list().unwrap().is_empty());
    let held = take(&store, &about("held"), Sharing::Shared, Start::Kept);
    let free = take(&store, &about("free"), Sharing::Private, Start::Kept);
    let Taken::Held(inside) = &free else {
        panic!("held")
    };
    std::os::unix::fs::symlink(&canary, inside.data().join("link")).unwrap();
    std::os::unix::fs::symlink("/", inside.data().join("root")).unwrap();
    write(&inside.data().join("large"), &[1; 100_000]);
    drop(free);
    let mut listed = store.mounts().list().unwrap();
    listed.sort_by_key(|listed| listed.about.as_ref().unwrap().id.clone());
    assert_eq!(listed.len(), 2);
    assert!((100_000..1 << 20).contains(&listed[0].size_bytes), "{listed:?}");
    assert!(listed[0].used_unix > 0);
    assert_eq!([listed[0].is_used, listed[1].is_used], [false, true]);
    let removed: Vec<bool> = listed
        .iter()
        .map(|listed| store.mounts().remove(&listed.name, store.incomplete()).unwrap())
        .collect();
    assert_eq!(removed, [true, false]);
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "alive");
    assert_eq!(copy(&held), "0 initial");
    drop(held);
    assert!(
        store
            .mounts()
            .remove(&listed[1].name, store.incomplete())
            .unwrap()
    );
    assert_eq!(std::fs::read_dir(store.root().join("mounts")).unwrap().count(), 0);
}

#[test]
fn a_cache_that_could_not_be_filled_is_not_there() {
    let (_dir, store) = store();
    let fails = |_: &Root| Err(MountsError::TooMany);
    let kind = (Sharing::Locked, Start::Kept);
    store
        .mounts()
        .take(&about("a"), kind, "", store.incomplete(), &fails)
        .unwrap_err();
    assert!(store.mounts().list().unwrap().is_empty());
    assert_eq!(
        copy(&take(&store, &about("a"), Sharing::Locked, Start::Kept)),
        "0 initial"
    );
}
