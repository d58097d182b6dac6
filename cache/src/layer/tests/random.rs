//! Random entries, written and read back: by our index, by our own import, and in the tar's own order.

use proptest::prelude::*;

use super::*;

/// A name that may hold anything a name may hold.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(prop::sample::select(&b"ab-"[..]), 1..3),
        1 => prop::collection::vec(any::<u8>(), 1..256),
    ]
    .prop_filter("a name", |name| {
        !name.contains(&0)
            && !name.contains(&b'/')
            && name != b"."
            && name != b".."
            && !name.starts_with(b".wh.")
    })
}

fn tree_path() -> impl Strategy<Value = TreePath> {
    prop::collection::vec(name(), 1..6).prop_map(|parts| TreePath::clean(&parts.join(&b'/')))
}

fn metadata() -> impl Strategy<Value = Meta> {
    let key = prop::sample::select(&["user.a", "user.b", "trusted.c", "security.capability"][..]);
    let xattrs = prop::collection::btree_map(key, prop::collection::vec(any::<u8>(), 0..40), 0..3);
    (
        0_u32..0o10000,
        any::<u32>(),
        any::<u32>(),
        any::<i64>(),
        0_u32..1_000_000_000,
        xattrs,
    )
        .prop_map(|(mode, uid, gid, seconds, nanos, xattrs)| Meta {
            mode,
            uid,
            gid,
            mtime: Timestamp { seconds, nanos },
            xattrs: xattrs
                .into_iter()
                .map(|(key, value)| (key.as_bytes().to_vec(), value))
                .collect(),
        })
}

/// An entry without its content: that is kept beside it.
fn kind() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let empty = FileData {
        size_bytes: 0,
        offset: 0,
        content: ContentHash::from_bytes([0; 32]),
    };
    let target = prop::collection::vec(1_u8..=255, 1..600);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(move |content| (Kind::File(empty), content)),
        any::<bool>().prop_map(|opaque| (
            Kind::Dir {
                opaque,
                implied: false
            },
            Vec::new()
        )),
        target.prop_map(|target| (Kind::Symlink(target), Vec::new())),
        tree_path().prop_map(|target| (Kind::Hardlink(target), Vec::new())),
        (0_u32..4096, 1_u32..1 << 20).prop_map(|(major, minor)| (Kind::CharDevice(major, minor), Vec::new())),
        (0_u32..4096, 0_u32..1 << 20)
            .prop_map(|(major, minor)| (Kind::BlockDevice(major, minor), Vec::new())),
        Just((Kind::Fifo, Vec::new())),
        Just((Kind::Whiteout, Vec::new())),
    ]
}

fn body<'a>(kind: &Kind, content: &'a mut &[u8]) -> Body<'a> {
    match kind {
        Kind::File(_) => file(content),
        Kind::Dir { opaque, .. } => Body::Dir { opaque: *opaque },
        Kind::Symlink(target) => Body::Symlink(target.clone()),
        Kind::Hardlink(target) => Body::Hardlink(target.clone()),
        Kind::CharDevice(major, minor) => Body::CharDevice(*major, *minor),
        Kind::BlockDevice(major, minor) => Body::BlockDevice(*major, *minor),
        Kind::Fifo => Body::Fifo,
        Kind::Whiteout => Body::Whiteout,
    }
}

/// Writes entries whose parents are directories and that don't collide; returns them as the index should show them.
fn write(entries: Vec<(TreePath, Meta, (Kind, Vec<u8>))>) -> (Written, Vec<Entry>) {
    let mut writer = LayerWriter::create(scratch()).unwrap();
    let mut expected: Vec<Entry> = Vec::new();
    let fits = |expected: &[Entry], path: &TreePath| {
        let dirs = std::iter::successors(path.parent(), TreePath::parent).filter(|parent| !parent.is_root());
        let mut dirs = dirs.map(|dir| expected.iter().find(|entry| entry.path == dir));
        let plain = |entry: &Entry| matches!(entry.kind, Kind::Dir { opaque: false, .. });
        dirs.all(|dir| dir.is_some_and(plain)) && expected.iter().all(|entry| entry.path != *path)
    };
    for (path, meta, (mut kind, content)) in entries {
        if !fits(&expected, &path) {
            continue;
        }
        // A link needs a target that has no other names; links elsewhere have tests of their own.
        let first_file = expected.iter().find(|entry| matches!(entry.kind, Kind::File(_)));
        let mut meta = meta;
        if let Kind::Hardlink(target) = &mut kind {
            let Some(entry) = first_file else { continue };
            (*target, meta) = (entry.path.clone(), entry.meta.clone());
        }
        writer
            .add(path.clone(), meta.clone(), body(&kind, &mut &content[..]))
            .unwrap();
        match &mut kind {
            Kind::Whiteout => meta = Meta::default(),
            Kind::File(data) => {
                data.size_bytes = content.len() as u64;
                data.content = blake3::hash(&content).into();
            }
            _ => {}
        }
        expected.push(Entry { path, meta, kind });
    }
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    (writer.finish().unwrap(), expected)
}

/// Forgets where contents are, which only the layer file knows.
fn without_offsets(entries: &[Entry]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    for entry in &mut entries {
        if let Kind::File(data) = &mut entry.kind {
            data.offset = 0;
        }
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn layers_say_what_they_were_told(
        entries in prop::collection::vec((tree_path(), metadata(), kind()), 0..60)
    ) {
        // Short paths first, so that many entries find their parents.
        let mut entries = entries;
        entries.sort_by_key(|(path, _, _)| path.components().count());
        let (written, expected) = write(entries);
        let layer = open(written);
        prop_assert_eq!(without_offsets(&layer.index().unwrap()[1..]), expected);
        show(&layer);
        let again = import(layer.tar_reader(), scratch(), Limits::default()).unwrap();
        prop_assert_eq!(again.diff_id, layer.diff_id());
        let again = LayerFile::open(again.file, again.diff_id).unwrap();
        prop_assert_eq!(again.index().unwrap(), layer.index().unwrap());
        if mount::works() {
            let mounted = mount::erofs(layer.file(), &[]).unwrap();
            prop_assert_eq!(treecmp::scan(&mount::place(&mounted)).len(), layer.index().unwrap().len());
        }
    }

    #[test]
    fn damaged_indexes_never_panic(at in 0_usize..1000, byte: u8) {
        let layer = layer(&["d a", "f a/f hello", "l a/l f", "h a/h a/f", "w gone"]).unwrap();
        let (mut bytes, _) = index::encode(layer.index().unwrap().iter().cloned());
        prop_assert_eq!(index::decode(&bytes).unwrap(), layer.index().unwrap());
        let at = at % bytes.len();
        bytes[at] = byte;
        index::decode(&bytes);
        index::decode(&bytes[..at]);
    }
}
