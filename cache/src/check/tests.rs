//! Every kind of thing in a store, damaged: found, set aside, and the store sound again.
#![expect(clippy::disallowed_methods, reason = "files of a store of this test")]

use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::*;
use crate::layer::{Body, LayerWriter, Meta, TreePath};
use crate::layers::LayersError;

/// A store with a layer of two files and a compressed form of it, in a directory that the caller keeps.
fn store() -> (tempfile::TempDir, Store, DiffId, Digest) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let fill = |mut writer: LayerWriter| {
        for (name, content) in [("a", vec![1_u8; 9000]), ("b", b"text".to_vec())] {
            let body = Body::File {
                size_bytes: content.len() as u64,
                reader: &mut &content[..],
                content: None,
            };
            writer.add(TreePath::clean(name.as_bytes()), Meta::default(), body)?;
        }
        writer.finish().map_err(LayersError::from)
    };
    let layer = store.layers().write(store.incomplete(), fill).unwrap().diff_id();
    let blob = store.blobs().put(b"compressed", store.incomplete()).unwrap();
    let form = crate::index::LayerBlob {
        digest: blob,
        size_bytes: 10,
    };
    store.index().put_layer_blob(&layer, "gzip", &form).unwrap();
    (dir, store, layer, blob)
}

fn faults(store: &Store, depth: Depth) -> Vec<(String, String)> {
    let checked = store.check(depth, &HashMap::new()).unwrap();
    let shown = |fault: &Fault| (fault.subject.to_string(), fault.what.clone());
    checked.faults.iter().map(shown).collect()
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Repairs everything and checks that nothing is wrong any more.
fn repair(store: &Store) {
    for fault in store.check(Depth::Deep, &HashMap::new()).unwrap().faults {
        assert!(store.repair(&fault).unwrap(), "{fault:?}");
    }
    assert_eq!(faults(store, Depth::Deep), []);
}

/// "hardening R06": wherever a bit of a layer file is other than it was, a deep check says so.
#[test]
fn a_flipped_bit_anywhere_in_a_layer_file_is_found() {
    let (_dir, store, layer, _) = store();
    assert_eq!(faults(&store, Depth::Deep), []);
    let path = store.layers().path(&layer);
    let length = std::fs::metadata(&path).unwrap().len();
    // Every block, and every byte that the head uses; in steps that meet all kinds of bytes.
    for at in (0..length).step_by(61).chain(0..200).chain(992..1160) {
        flip(&path, at);
        let found = faults(&store, Depth::Deep);
        assert_eq!(found.len(), 1, "byte {at}");
        assert_eq!(found[0].0, format!("layer {layer}"), "byte {at}");
        flip(&path, at);
    }
    assert_eq!(faults(&store, Depth::Deep), []);
}

/// hardening T32: of a cache mount is told whose it is, as far as that can be read.
#[test]
fn a_broken_cache_mount_is_somebodys() {
    let (_dir, store, ..) = store();
    let name = format!("{}-0", "a".repeat(64));
    let dir = store.root().join("mounts").join(&name);
    std::fs::create_dir_all(&dir).unwrap();
    let about = r#"{"id":"npm","namespace":"","project":"/home/me","owner":null,"source":null}"#;
    std::fs::write(dir.join("about"), about).unwrap();
    let expected = (
        format!("cache mount {name}"),
        "it has no data (`npm`, project /home/me)".to_owned(),
    );
    assert_eq!(faults(&store, Depth::Quick), [expected]);
    repair(&store);
}

#[test]
fn what_is_wrong_is_set_aside_and_can_be_made_again() {
    let check = |damage: &dyn Fn(&Store, &DiffId, &Digest), quick: &[&str], deep: &[&str]| {
        let (_dir, store, layer, blob) = store();
        damage(&store, &layer, &blob);
        for (depth, expected) in [(Depth::Quick, quick), (Depth::Deep, deep)] {
            let found = faults(&store, depth);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for ((_, what), expected) in found.iter().zip(expected) {
                assert!(what.contains(expected), "{found:?}");
            }
        }
        repair(&store);
    };
    let blob_path = |store: &Store, blob: &Digest| store.root().join("blobs/sha256").join(blob.hex());
    let cut = |path: &Path| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(5)
            .unwrap()
    };
    check(&|_, _, _| {}, &[], &[]);
    check(
        &|store, layer, _| flip(&store.layers().path(layer), 8192),
        &[],
        &["another layer's"],
    );
    check(
        &|store, layer, _| cut(&store.layers().path(layer)),
        &["too short"],
        &["too short"],
    );
    check(
        &|store, _, blob| flip(&blob_path(store, blob), 3),
        &[],
        &["its bytes hash to"],
    );
    check(
        &|store, _, blob| cut(&blob_path(store, blob)),
        &["5 bytes instead of 10"],
        &["5 bytes instead of 10"],
    );
    check(
        &|store, _, _| {
            std::fs::File::create(store.root().join("layers/x y"))
                .map(drop)
                .unwrap()
        },
        &["no digest"],
        &["no digest"],
    );
    check(
        &|store, _, _| {
            std::fs::create_dir_all(store.root().join(format!("mounts/{}-0/data", "a".repeat(64)))).unwrap()
        },
        &["isn't known"],
        &["isn't known"],
    );
    check(
        &|store, layer, _| {
            let dir = store.root().join("unpacked").join(layer.hex());
            std::fs::create_dir(&dir).unwrap();
            std::fs::copy(store.layers().path(layer), dir.join("a")).unwrap();
        },
        &[],
        &["`/a` isn't what the layer has there"],
    );
}

#[test]
fn rows_that_nobody_would_write_are_forgotten() {
    let (_dir, store, _, _) = store();
    let other = rusqlite::Connection::open(store.root().join("index")).unwrap();
    let rows = [
        "blob VALUES (x'00', 'gzip', x'00', 1)",
        "evicted VALUES (x'00', 0, 'prune')",
        "fetched VALUES (x'00', NULL, NULL, x'00')",
        "image VALUES ('n', x'00', NULL, 0)",
        "record VALUES (x'00', 's', x'', '[]', 0, 0)",
        "tree_hash VALUES (x'00', '', x'')",
        "variant VALUES ('n', 'p', x'00')",
    ];
    for row in rows {
        other.execute(&format!("INSERT INTO {row}"), []).unwrap();
    }
    let tables: Vec<String> = faults(&store, Depth::Quick)
        .into_iter()
        .map(|fault| fault.0)
        .collect();
    let expected = rows.map(|row| format!("index, table `{}`", row.split(' ').next().unwrap()));
    assert_eq!(tables, expected);
    repair(&store);
    assert_eq!(store.index().sizes().unwrap().len(), 1, "what was right stays");
}

/// "hardening R04": a database that isn't one any more, found while it is open.
#[test]
fn a_damaged_database_is_set_aside() {
    let (dir, store, _, _) = store();
    // Into the file, out of the journal.
    let other = rusqlite::Connection::open(store.root().join("index")).unwrap();
    other.pragma_update(None, "wal_checkpoint", "truncate").unwrap();
    drop(other);
    drop(store);
    let path = dir.path().join("store/index");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 4096], 4096).unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(faults(&store, Depth::Quick)[0].0, "index");
    let fault = store
        .check(Depth::Quick, &HashMap::new())
        .unwrap()
        .faults
        .remove(0);
    assert!(store.repair(&fault).unwrap());
    drop(store);
    let store = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(faults(&store, Depth::Deep), []);
    assert!(store.root().join("index.damaged-1").exists());
}

/// What is wrong is the file that was looked at, not what a build put in its place meanwhile.
#[test]
fn what_was_replaced_meanwhile_stays() {
    let (_dir, store, _, blob) = store();
    let path = store.root().join("blobs/sha256").join(blob.hex());
    flip(&path, 0);
    let fault = store
        .check(Depth::Deep, &HashMap::new())
        .unwrap()
        .faults
        .remove(0);
    let good = store.root().join("good");
    std::fs::write(&good, b"compressed").unwrap();
    std::fs::rename(&good, &path).unwrap();
    assert!(store.repair(&fault).unwrap());
    let mut text = String::new();
    std::fs::File::open(&path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "compressed");
}
