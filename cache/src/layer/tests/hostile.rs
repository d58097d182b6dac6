//! Archives that mean harm: each is refused with its own error, or means what other readers say that it means.

use std::sync::atomic::{AtomicU64, Ordering};

use ::tar as tar_crate;

use super::*;
use crate::error::{Error, Problem};

/// Builds tars by hand, as wrong as wanted.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    /// Appends a header of the given type and size; `change` may spoil it before the checksum is computed.
    fn entry(
        mut self,
        flag: u8,
        name: &str,
        size: u64,
        change: impl FnOnce(&mut tar_crate::UstarHeader),
    ) -> Self {
        let mut header = tar_crate::Header::new_ustar();
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.mode.copy_from_slice(b"0000644\0");
        fields.size.copy_from_slice(format!("{size:011o}\0").as_bytes());
        fields.typeflag[0] = flag;
        change(fields);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    fn link(self, flag: u8, name: &str, target: &str) -> Self {
        self.entry(flag, name, 0, |fields| {
            fields.linkname[..target.len()].copy_from_slice(target.as_bytes())
        })
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(b'0', name, content.len() as u64, |_| {})
            .data(content.as_bytes())
    }

    fn pax(self, records: &[u8]) -> Self {
        self.entry(b'x', "pax", records.len() as u64, |_| {})
            .data(records)
    }

    fn record(self, key: &str, value: &[u8]) -> Self {
        self.pax(&record(key, value))
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Makes one PAX record.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest..)
        .find(|length| rest + length.to_string().len() == *length)
        .unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// Makes the records of sparse format 0.1.
fn sparse(size: &str, map: &str) -> Vec<u8> {
    [
        record("GNU.sparse.size", size.as_bytes()),
        record("GNU.sparse.map", map.as_bytes()),
    ]
    .concat()
}

fn try_import(tar: &[u8]) -> Result<LayerFile> {
    import(tar, scratch(), Limits::default()).map(open)
}

fn problem(outcome: Result<LayerFile>) -> Problem {
    match outcome {
        Err(Error::Entry { problem, .. }) => problem,
        Err(other) => panic!("not refused as an entry: {other}"),
        Ok(layer) => panic!("accepted, with {} entries", layer.index().unwrap().len()),
    }
}

#[test]
fn what_no_layer_may_hold_is_refused() {
    const HUGE: u64 = (8 << 30) - 1;
    let long = "c".repeat(256);
    let deep = "d/".repeat(10_000);
    let cases = [
        ("up", Tar::default().file("../x", "1"), Problem::Name),
        ("up inside", Tar::default().file("a/../x", "1"), Problem::Name),
        ("link up", Tar::default().link(b'1', "x", "../y"), Problem::Name),
        (
            "long component",
            Tar::default().record("path", long.as_bytes()).file("x", "1"),
            Problem::ComponentTooLong,
        ),
        (
            "long path",
            Tar::default().record("path", deep.as_bytes()).file("x", "1"),
            Problem::PathTooLong,
        ),
        (
            "NUL",
            Tar::default().record("path", b"a\0b").file("x", "1"),
            Problem::Pax,
        ),
        (
            "bad PAX",
            Tar::default().pax(b"99 path=x\n").file("x", "1"),
            Problem::Pax,
        ),
        (
            "bad global",
            Tar::default().entry(b'g', "g", 3, |_| {}).data(b"abc"),
            Problem::Pax,
        ),
        (
            "huge PAX",
            Tar::default().entry(b'x', "x", HUGE, |_| {}),
            Problem::ExtendedHeader(HUGE),
        ),
        (
            "huge name",
            Tar::default().entry(b'L', "x", 2 << 20, |_| {}),
            Problem::ExtendedHeader(2 << 20),
        ),
        ("file root", Tar::default().file("./", "1"), Problem::RootType),
        (
            "below a file",
            Tar::default().file("a", "1").file("a/b", "1"),
            Problem::ParentNotDirectory,
        ),
        (
            "loop",
            Tar::default()
                .link(b'2', "a", "b")
                .link(b'2', "b", "a")
                .file("a/x", "1"),
            Problem::LinkLoop,
        ),
        (
            "directory link",
            Tar::default().entry(b'5', "d", 0, |_| {}).link(b'1', "x", "d"),
            Problem::LinkToDirectory,
        ),
        (
            "empty target",
            Tar::default().link(b'2', "x", ""),
            Problem::LinkTarget,
        ),
        (
            "whiteout device",
            Tar::default().entry(b'3', "x", 0, |_| {}),
            Problem::WhiteoutDevice,
        ),
        (
            "no whiteout",
            Tar::default().file("a/.wh.", ""),
            Problem::Whiteout,
        ),
        (
            "whiteout of ..",
            Tar::default().file("a/.wh...", ""),
            Problem::Whiteout,
        ),
        (
            "below a whiteout",
            Tar::default().file(".wh.a/b", ""),
            Problem::ReservedName,
        ),
        (
            "volume label",
            Tar::default().entry(b'V', "x", 0, |_| {}),
            Problem::Type(b'V'),
        ),
        (
            "negative size",
            Tar::default().entry(b'0', "x", 0, |f| f.size.fill(0xff)),
            Problem::Number("size"),
        ),
        (
            "bad owner",
            Tar::default().entry(b'0', "x", 0, |f| f.uid[0] = b'9'),
            Problem::Number("uid"),
        ),
        (
            "large owner",
            Tar::default().record("uid", b"4294967296").file("x", ""),
            Problem::Number("uid"),
        ),
        (
            "large size",
            Tar::default()
                .record("size", b"9223372036854775808")
                .file("x", ""),
            Problem::Number("size"),
        ),
        (
            "large time",
            Tar::default().record("mtime", b"1e9").file("x", ""),
            Problem::Number("mtime"),
        ),
        (
            "cut short",
            Tar::default().entry(b'0', "x", 2000, |_| {}),
            Problem::Truncated,
        ),
        (
            "large attribute",
            Tar::default()
                .record("SCHILY.xattr.user.x", &[1; 65536])
                .file("x", ""),
            Problem::Xattr,
        ),
        (
            "sparse overlap",
            Tar::default()
                .pax(&sparse("100", "0,5,2,5"))
                .file("x", "1234567890"),
            Problem::SparseMap,
        ),
        (
            "sparse size",
            Tar::default().pax(&sparse("99999999999", "0,1")).file("x", "1"),
            Problem::SparseTooLarge(64 << 30),
        ),
    ];
    for (name, tar, expected) in cases {
        let found = problem(try_import(&tar.end()));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn damaged_streams_are_refused() {
    let good = Tar::default().file("x", "1234").end();
    assert_eq!(show(&try_import(&good).unwrap()), ["i /", "f /x 1234"]);
    let mut bad = good.clone();
    bad[100] ^= 1;
    assert_eq!(problem(try_import(&bad)), Problem::Checksum);
    assert_eq!(problem(try_import(&good[..700])), Problem::Truncated);
    assert_eq!(problem(try_import(&good[..100])), Problem::Truncated);
    assert_eq!(problem(try_import(b"not a tar")), Problem::Truncated);
    let lone = [&good[..1536], &Tar::default().file("y", "").0].concat();
    assert_eq!(problem(try_import(&lone)), Problem::LoneZeroBlock);
    let limits = Limits {
        max_bytes: 1024,
        ..Limits::default()
    };
    let error = import(&good[..], scratch(), limits).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Entry {
                problem: Problem::TooLarge(1024),
                ..
            }
        ),
        "{error:?}"
    );
    let limits = Limits {
        max_entries: 3,
        ..Limits::default()
    };
    let many = Tar::default().file("a/b/c/d", "").end();
    let error = import(&many[..], scratch(), limits).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Entry {
                problem: Problem::TooManyEntries(3),
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn what_others_accept_is_accepted() {
    let dir = |tar: Tar, name: &str| tar.entry(b'5', name, 0, |_| {});
    for (name, tar, expected) in [
        ("nothing", Vec::new(), vec!["i /"]),
        ("no end", Tar::default().file("x", "1").0, vec!["i /", "f /x 1"]),
        (
            "rubbish after the end",
            [Tar::default().file("x", "1").end(), vec![7; 700]].concat(),
            vec!["i /", "f /x 1"],
        ),
        (
            "absolute",
            Tar::default().file("/x", "1").end(),
            vec!["i /", "f /x 1"],
        ),
        (
            "dots",
            Tar::default().file("././/x", "1").end(),
            vec!["i /", "f /x 1"],
        ),
        ("root", dir(Tar::default(), "./").end(), vec!["d /"]),
        (
            "size wins",
            Tar::default()
                .record("size", b"2")
                .entry(b'0', "x", 600, |_| {})
                .data(b"ab")
                .end(),
            vec!["i /", "f /x ab"],
        ),
        (
            "last key",
            Tar::default().pax(b"9 path=a\n9 path=b\n").file("x", "1").end(),
            vec!["i /", "f /b 1"],
        ),
        (
            "long name wins",
            Tar::default()
                .record("path", b"p")
                .entry(b'L', "l", 2, |_| {})
                .data(b"q\0")
                .file("x", "1")
                .end(),
            vec!["i /", "f /q 1"],
        ),
        (
            "global",
            Tar::default()
                .entry(b'g', "g", 9, |_| {})
                .data(b"9 path=a\n")
                .file("x", "1")
                .end(),
            vec!["i /", "f /x 1"],
        ),
        (
            "links have no data",
            Tar::default()
                .entry(b'2', "l", 700, |f| f.linkname[0] = b'x')
                .file("x", "1")
                .end(),
            vec!["i /", "l /l x", "f /x 1"],
        ),
        (
            "old directory",
            Tar::default().entry(0, "d/", 0, |_| {}).end(),
            vec!["i /", "d /d"],
        ),
        (
            "child first",
            dir(Tar::default().file("d/x", "1"), "d/").end(),
            vec!["i /", "d /d", "f /d/x 1"],
        ),
        (
            "whiteouts",
            Tar::default()
                .file("d/.wh.x", "")
                .file("d/.wh..wh..opq", "")
                .file(".wh..wh.plnk", "")
                .end(),
            vec!["i /", "oi /d"],
        ),
    ] {
        let layer = try_import(&tar).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(show(&layer), expected, "{name}");
        assert_eq!(layer.diff_id(), crate::digest::DiffId::of(&tar), "{name}");
        assert_eq!(layer.tar_bytes(), tar.len() as u64, "{name}");
    }
}

#[test]
fn attributes_of_overlay_and_host_stay_outside() {
    let mut tar = Tar::default();
    for key in [
        "trusted.overlay.opaque",
        "user.overlay.redirect",
        "security.selinux",
        "security.ima",
        "odd.name",
    ] {
        tar = tar
            .record(&format!("SCHILY.xattr.{key}"), b"y")
            .entry(b'5', key, 0, |_| {});
    }
    tar = tar
        .record("SCHILY.xattr.user.kept", b"a\nb")
        .entry(b'5', "kept", 0, |_| {});
    let layer = try_import(&tar.end()).unwrap();
    let kept = layer.index().unwrap().iter().flat_map(|entry| &entry.meta.xattrs);
    assert_eq!(
        kept.collect::<Vec<_>>(),
        [&(b"user.kept".to_vec(), b"a\nb".to_vec())]
    );
    assert!(
        layer
            .index()
            .unwrap()
            .iter()
            .all(|entry| !matches!(entry.kind, Kind::Dir { opaque: true, .. }))
    );
}

#[test]
fn detours_come_to_an_end() {
    // Every entry goes through forty links of two thousand components each.
    let target = "x/../".repeat(700);
    let mut tar = Tar::default().entry(b'5', "x", 0, |_| {});
    for at in 0..39 {
        let link = format!("{target}l{}", at + 1);
        tar = tar
            .record("linkpath", link.as_bytes())
            .link(b'2', &format!("l{at}"), "");
    }
    tar = tar.entry(b'5', "l39", 0, |_| {});
    for at in 0..2000 {
        tar = tar.file(&format!("l0/{at}"), "");
    }
    assert_eq!(problem(try_import(&tar.end())), Problem::LinkLoop);
}

#[test]
fn random_damage_never_panics() {
    let good = Tar::default()
        .record("SCHILY.xattr.user.x", b"y")
        .file("a/b", "content")
        .link(b'2', "l", "a")
        .link(b'1', "h", "l/b")
        .file("a/.wh.c", "")
        .pax(&sparse("100", "0,5"))
        .file("sparse", "12345")
        .end();
    let n_refused = AtomicU64::new(0);
    proptest::proptest!(|(at in 0..good.len(), byte: u8, fix: bool)| {
        let mut bad = good.clone();
        bad[at] = byte;
        if fix {
            let start = at / 512 * 512;
            let mut header = tar_crate::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&bad[start..start + 512]);
            header.set_cksum();
            bad[start..start + 512].copy_from_slice(header.as_bytes());
        }
        let outcome = import(&bad[..], scratch(), Limits::default());
        n_refused.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
    });
    assert!(n_refused.load(Ordering::Relaxed) > 20);
}
