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

fn tar() -> Tar {
    Tar::default()
}

#[track_caller]
fn refused(tar: Tar, expected: Problem) {
    assert_eq!(problem(try_import(&tar.end())), expected);
}

#[test]
fn names_that_no_layer_may_hold_are_refused() {
    let (long, deep) = ("c".repeat(256), "d/".repeat(10_000));
    refused(tar().file("../x", "1"), Problem::Name);
    refused(tar().file("a/../x", "1"), Problem::Name);
    refused(tar().link(b'1', "x", "../y"), Problem::Name);
    refused(
        tar().record("path", long.as_bytes()).file("x", ""),
        Problem::ComponentTooLong,
    );
    let removed = |name: &str| {
        tar()
            .record("path", format!("a/.wh.{name}").as_bytes())
            .file("x", "")
    };
    refused(removed(&long), Problem::ComponentTooLong);
    assert!(try_import(&removed(&long[1..]).end()).is_ok());
    refused(
        tar().record("path", deep.as_bytes()).file("x", ""),
        Problem::PathTooLong,
    );
    refused(tar().record("path", b"a\0b").file("x", "1"), Problem::Pax);
    refused(tar().file("./", "1"), Problem::RootType);
    refused(tar().file("a/.wh.", ""), Problem::Whiteout);
    refused(tar().file("a/.wh...", ""), Problem::Whiteout);
    refused(tar().file(".wh.a/b", ""), Problem::ReservedName);
}

#[test]
fn entries_that_fit_nowhere_are_refused() {
    let looped = tar().link(b'2', "a", "b").link(b'2', "b", "a");
    refused(looped.file("a/x", "1"), Problem::LinkLoop);
    refused(tar().file("a", "1").file("a/b", "1"), Problem::ParentNotDirectory);
    let dir = tar().entry(b'5', "d", 0, |_| {});
    refused(dir.link(b'1', "x", "d"), Problem::LinkToDirectory);
    refused(tar().link(b'2', "x", ""), Problem::LinkTarget);
    refused(tar().entry(b'3', "x", 0, |_| {}), Problem::WhiteoutDevice);
    refused(tar().entry(b'V', "x", 0, |_| {}), Problem::Type(b'V'));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let number = Problem::Number;
    refused(tar().entry(b'0', "x", 0, |f| f.size.fill(0xff)), number("size"));
    refused(tar().entry(b'0', "x", 0, |f| f.uid[0] = b'9'), number("uid"));
    refused(tar().record("uid", b"4294967296").file("x", ""), number("uid"));
    refused(
        tar().record("size", b"9223372036854775808").file("x", ""),
        number("size"),
    );
    refused(tar().record("mtime", b"1e9").file("x", ""), number("mtime"));
    refused(
        tar().entry(b'4', "x", 0, |f| f.dev_major[..7].fill(b'7')),
        number("device"),
    );
}

#[test]
fn extensions_that_claim_too_much_are_refused() {
    const HUGE: u64 = (8 << 30) - 1;
    refused(tar().pax(b"99 path=x\n").file("x", "1"), Problem::Pax);
    refused(tar().entry(b'g', "g", 3, |_| {}).data(b"abc"), Problem::Pax);
    refused(
        tar().entry(b'x', "x", HUGE, |_| {}),
        Problem::ExtendedHeader(HUGE),
    );
    refused(
        tar().entry(b'L', "x", 2 << 20, |_| {}),
        Problem::ExtendedHeader(2 << 20),
    );
    let attribute = tar().record("SCHILY.xattr.user.x", &[1; 65536]);
    refused(attribute.file("x", ""), Problem::Xattr);
    let overlap = tar().pax(&sparse("100", "0,5,2,5"));
    refused(overlap.file("x", "1234567890"), Problem::SparseMap);
    let large = tar().pax(&sparse("99999999999", "0,1"));
    refused(large.file("x", "1"), Problem::SparseTooLarge(64 << 30));
    refused(tar().entry(b'0', "x", 2000, |_| {}), Problem::Truncated);
}

/// Not every writer fills the last block up, and not every one says that this is the end.
#[test]
fn an_archive_may_end_with_its_last_content() {
    let good = Tar::default().file("x", "1234").end();
    for length in [516, 700, 1024, 1536] {
        let shown = show(&try_import(&good[..length]).unwrap());
        assert_eq!(shown, ["i /", "f /x 1234"], "{length}");
    }
}

#[test]
fn damaged_streams_are_refused() {
    let good = Tar::default().file("x", "1234").end();
    assert_eq!(show(&try_import(&good).unwrap()), ["i /", "f /x 1234"]);
    let mut bad = good.clone();
    bad[100] ^= 1;
    assert_eq!(problem(try_import(&bad)), Problem::Checksum);
    assert_eq!(problem(try_import(&good[..514])), Problem::Truncated);
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

#[track_caller]
fn accepted(tar: &[u8], expected: &[&str]) {
    let layer = try_import(tar).unwrap();
    assert_eq!(show(&layer), expected);
    assert_eq!(layer.diff_id(), crate::digest::DiffId::of(tar));
    assert_eq!(layer.tar_bytes(), tar.len() as u64);
}

#[test]
fn what_others_accept_is_accepted() {
    let one = &["i /", "f /x 1"];
    let file = || tar().file("x", "1");
    accepted(&[], &["i /"]);
    accepted(&file().0, one);
    accepted(&[file().end(), vec![7; 700]].concat(), one);
    accepted(&tar().file("/x", "1").end(), one);
    accepted(&tar().file("././/x", "1").end(), one);
    accepted(&tar().entry(b'5', "./", 0, |_| {}).end(), &["d /"]);
    accepted(&tar().entry(0, "d/", 0, |_| {}).end(), &["i /", "d /d"]);
    let child_first = tar().file("d/x", "1").entry(b'5', "d/", 0, |_| {});
    accepted(&child_first.end(), &["i /", "d /d", "f /d/x 1"]);
    let whiteouts = tar()
        .file("d/.wh.x", "")
        .file("d/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "");
    accepted(&whiteouts.end(), &["i /", "oi /d"]);
}

#[test]
fn where_readers_differ_this_one_does_as_go() {
    let size_wins = tar()
        .record("size", b"2")
        .entry(b'0', "x", 600, |_| {})
        .data(b"ab");
    accepted(&size_wins.end(), &["i /", "f /x ab"]);
    let last_wins = tar().pax(b"9 path=a\n9 path=b\n").file("x", "1");
    accepted(&last_wins.end(), &["i /", "f /b 1"]);
    let long_name_wins = tar()
        .record("path", b"p")
        .entry(b'L', "l", 2, |_| {})
        .data(b"q\0");
    accepted(&long_name_wins.file("x", "1").end(), &["i /", "f /q 1"]);
    let ignored = tar().entry(b'g', "g", 9, |_| {}).data(b"9 path=a\n");
    accepted(&ignored.file("x", "1").end(), &["i /", "f /x 1"]);
    let no_data = tar().entry(b'2', "l", 700, |f| f.linkname[0] = b'x');
    accepted(&no_data.file("x", "1").end(), &["i /", "l /l x", "f /x 1"]);
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
