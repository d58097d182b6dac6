//! What is put into an index, and what is found by another handle of it.

use super::*;
use crate::record::Component;

fn record(seed: u8, step: &str, created_unix_ms: i64) -> Record {
    Record {
        key: Key::from_bytes([seed; 32]),
        layers: vec![DiffId::of(&[seed]), DiffId::of(b"base")],
        components: vec![Component {
            name: "command".to_owned(),
            value: format!("echo {seed}"),
        }],
        step: step.to_owned(),
        created_unix_ms,
        took_ms: 12,
    }
}

/// Who is first makes it, who is last tidies it up, and the others come in between.
#[test]
fn any_number_may_open_and_close_it_at_once() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for round in 0..10 {
                        let (index, aside) = Index::open(path).unwrap();
                        assert_eq!(aside, None);
                        match (thread + round) % 3 {
                            0 => index.put_evicted(&[DiffId::of(&[round])], 1, "test").unwrap(),
                            _ => assert_eq!(index.images().unwrap(), []),
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn what_was_put_is_found_by_another_handle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let (index, aside) = Index::open(&path).unwrap();
    assert_eq!(aside, None);
    let (old, new) = (record(1, "RUN", 10), record(2, "RUN", 20));
    index.put_record(&old).unwrap();
    index.put_record(&new).unwrap();
    let selection = Selection::of(vec!["src/*.rs".to_owned()]);
    index
        .put_tree_hash(&old.key, &selection, &TreeHash::from_bytes([7; 32]))
        .unwrap();
    let image = ImageName {
        name: "docker.io/library/app:1".to_owned(),
        config: Digest::of(b"config"),
        manifest: None,
        variants: vec![Variant {
            platform: "linux/arm64".to_owned(),
            config: Digest::of(b"another config"),
        }],
        created_unix: 5,
    };
    index.put_image(&image).unwrap();
    let fetched = Fetched {
        etag: Some("\"x\"".to_owned()),
        modified: None,
        digest: Digest::of(b"content"),
    };
    index.put_fetched("http://u:p@h/x", &fetched).unwrap();
    assert_eq!(index.fetched("http://u:p@h/x").unwrap(), Some(fetched));
    assert_eq!(index.fetched("http://h/x").unwrap(), None);

    let (other, _) = Index::open(&path).unwrap();
    assert_eq!(other.record(&old.key).unwrap(), Some(old.clone()));
    assert_eq!(other.record(&Key::from_bytes([9; 32])).unwrap(), None);
    assert_eq!(other.latest("RUN").unwrap(), Some(new));
    assert_eq!(
        other.tree_hash(&old.key, &selection).unwrap(),
        Some(TreeHash::from_bytes([7; 32]))
    );
    other
        .put_record(&Record {
            took_ms: 99,
            ..old.clone()
        })
        .unwrap();
    assert!(other.tree_hash(&old.key, &selection).unwrap().is_some());
    other
        .put_record(&Record {
            layers: vec![],
            ..old.clone()
        })
        .unwrap();
    assert_eq!(other.tree_hash(&old.key, &selection).unwrap(), None);
    assert_eq!(other.images().unwrap(), std::slice::from_ref(&image));
    assert_eq!(other.image(&image.name).unwrap(), Some(image.clone()));
    assert!(other.remove_image(&image.name).unwrap());
    assert!(!index.remove_image(&image.name).unwrap());
}

#[test]
fn an_older_index_is_brought_up_to_date_and_a_newer_one_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let image = ImageName {
        name: "a:1".to_owned(),
        config: Digest::of(b"config"),
        manifest: None,
        variants: Vec::new(),
        created_unix: 5,
    };
    let old = Connection::open(&path).unwrap();
    old.execute_batch(open::STEPS[0]).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let values = params![image.name, image.config.as_bytes(), image.created_unix];
    old.execute("INSERT INTO image VALUES (?1, ?2, NULL, ?3)", values)
        .unwrap();
    drop(old);
    let (index, aside) = Index::open(&path).unwrap();
    assert_eq!((index.images().unwrap(), aside), (vec![image], None));
    drop(index);
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 1000).unwrap();
    drop(newer);
    let (index, aside) = Index::open(&path).unwrap();
    assert_eq!(aside, Some(dir.path().join("index.damaged-1")));
    assert_eq!(index.images().unwrap(), []);
}

#[test]
fn a_damaged_index_is_set_aside_not_believed() {
    for damage in [
        &b"not a database, but long enough to look like one at first sight"[..],
        &[0xff; 8192],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), damage).unwrap();
        let (index, aside) = Index::open(&path).unwrap();
        assert_eq!(aside, Some(dir.path().join("index.damaged-1")));
        assert_eq!(index.images().unwrap(), []);
    }
}

#[test]
fn text_that_is_none_costs_the_index_not_the_build() {
    // hardening R04: one flipped bit in a text is no damage to SQLite
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let (index, _) = Index::open(&path).unwrap();
    index.put_record(&record(1, "RUN make", 0)).unwrap();
    let spoil = "UPDATE record SET components = CAST(x'5bff5d' AS TEXT)";
    index.connection().execute(spoil, []).unwrap();
    assert!(index.record(&record(1, "RUN make", 0).key).is_err());
    drop(index);
    assert!(is_suspect(&path));
    let (index, _) = Index::open(&path).unwrap();
    assert!(index.record(&record(1, "RUN make", 0).key).unwrap().is_none());
    assert!(!is_suspect(&path));
}
