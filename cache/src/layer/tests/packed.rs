//! Trees packed from directories, mounted and compared with what they were packed from.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use super::treecmp::{assert_same, scan};
use super::*;

/// Packs a directory; returns the layer.
fn packed(dir: &Path, options: &PackOptions) -> Result<LayerFile> {
    let upper = File::open(dir).unwrap();
    Ok(open(pack(
        upper.as_fd(),
        LayerWriter::create(scratch()).unwrap(),
        options,
        &|path| !path.as_bytes().starts_with(b"fresh"),
    )?))
}

fn shell(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .arg("-euc")
        .arg(script)
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(status.success(), "{script}");
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root to make devices and owners");
    }
    root
}

const AWKWARD: &str = r#"
umask 022
mkdir sizes ln hl hl2 dev dirs empty m0 xd acld
for n in 0 1 511 512 513 4095 4096 4097 65536 1000003; do head -c $n /dev/urandom > sizes/$n; done
echo x > suid; chown 1000:1000 suid; chmod 4755 suid; touch -d @-4.75 suid
echo y > sgid; chown 4000000000:70000 sgid; chmod 2755 sgid; touch -d '2033-01-01 00:00:00.123456789' sgid
echo raw > "$(printf 'bad\377\376name')"
echo long > $(printf 'n%.0s' $(seq 255))
echo nl > "$(printf ' new\nline\t')"
echo dot > '!first'; mkdir '-' ; echo z > '-/ '
L=$(printf 'L%.0s' $(seq 255)); mkdir -p dir/$L/$L/$L; echo deep > dir/$L/$L/$L/f
D=d; for i in $(seq 300); do D=$D/d$i; done; mkdir -p $D; echo deep > $D/leaf
for n in 1 99 100 101 400 447 448 449 511 512 513 4000 4095; do ln -s $(printf 'q%.0s' $(seq $n)) ln/l$n; done
touch -h -d @123456789.987654321 ln/l1; chown -h 5:6 ln/l1
ln -s "$(printf 'raw\377')" ln/raw
for i in 0 1 2; do echo hard$i > hl/src$i; for k in 0 1 2 3; do ln hl/src$i hl2/l${i}_$k; done; done
ln -s t hl/sym; ln -P hl/sym hl2/symhard
mknod dev/null c 1 3; mknod dev/big c 300 70000; mknod dev/blk b 8 1; mknod dev/blk2 b 259 1048575; mkfifo -m 600 dev/fifo
chmod 0 m0
for k in $(seq 59); do mkdir dirs/d$k; (cd dirs/d$k; seq -f "%0$((k % 9 + 1)).0f" $k | xargs touch); done
mkdir big; (cd big; seq -f 'file-%06g' 5000 | xargs touch)
touch -d @1234567890.5 dirs empty
"#;

fn set_xattrs(dir: &Path) {
    let long = [&b"user."[..], &[b'k'; 250]].concat();
    let set = |name: &str, key: &[u8], value: &[u8]| {
        let target = dir.join(name);
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(error) = rustix::fs::lsetxattr(&target, key, value, flags) {
            println!("skipped: {} on {name}: {error}", key.escape_ascii());
        }
    };
    set("suid", b"user.a", b"1");
    set("suid", b"user.newline", b"a\nb=c\0d");
    set("suid", b"user.big", &[7; 2000]);
    set("suid", b"trusted.t", b"");
    set("suid", &long, b"v");
    set("sgid", b"security.foo", b"bar");
    set(
        "sgid",
        b"security.capability",
        b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    set("xd", b"user.d", b"dir");
    set("ln/l1", b"trusted.sl", b"link");
    set("ln/l400", b"trusted.sl", &[b'x'; 150]);
    set("dev/fifo", b"trusted.f", b"fifo");
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x07\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
                \x10\0\x07\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    set("acld", b"system.posix_acl_default", acl);
    set("!first", b"system.posix_acl_access", acl);
}

#[test]
fn an_awkward_tree_mounts_as_it_was() {
    if !is_root() {
        return;
    }
    let dir = tree_dir();
    shell(dir.path(), AWKWARD);
    set_xattrs(dir.path());
    let source = scan(dir.path().to_str().unwrap());
    let layer = packed(
        dir.path(),
        &PackOptions {
            root: true,
            ..PackOptions::default()
        },
    )
    .unwrap();
    assert_eq!(layer.index().unwrap().len(), source.len());
    assert!(layer.stands_alone());
    if mount::works() {
        let mounted = mount::erofs(layer.file(), &[]).unwrap();
        assert_same("packed", &source, &scan(&mount::place(&mounted)));
    }
    // What we write, the others read; and what they read back is the same to us.
    let tree = tree_dir();
    let tar = tree.path().join("layer.tar");
    layer.copy_tar(&File::create(&tar).unwrap()).unwrap();
    let unpacked = tree.path().join("tree");
    std::fs::create_dir(&unpacked).unwrap();
    shell(
        &unpacked,
        "tar --xattrs --xattrs-include='*' --numeric-owner -xpf ../layer.tar 2> ../messages",
    );
    // GNU tar has records of its own for ACLs and leaves those of image tools alone.
    let without_acls = |mut tree: treecmp::Tree| {
        tree.retain(|name, _| name != b"!first" && name != b"acld");
        tree
    };
    let found = scan(unpacked.to_str().unwrap());
    assert_same("GNU tar", &without_acls(source), &without_acls(found));
    let again = open(import(File::open(&tar).unwrap(), scratch(), Limits::default()).unwrap());
    assert_eq!(again.diff_id(), layer.diff_id());
    assert_eq!(again.index().unwrap(), layer.index().unwrap());
}

#[test]
fn depth_does_not_matter() {
    let dir = tree_dir();
    // 1,500 levels: more than descriptors, and longer than any path that a system call takes.
    let mut at = std::os::fd::OwnedFd::from(File::open(dir.path()).unwrap());
    for _ in 0..1500 {
        rustix::fs::mkdirat(&at, "dd", 0o755.into()).unwrap();
        rustix::fs::mkdirat(&at, "e", 0o755.into()).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, "dd", flags, rustix::fs::Mode::empty()).unwrap();
    }
    let layer = packed(dir.path(), &PackOptions::default()).unwrap();
    assert_eq!(layer.index().unwrap().len(), 1 + 2 * 1500);
    // The standard library's own removal keeps every level open.
    shell(dir.path(), "rm -rf dd");
}

#[test]
fn what_overlay_leaves_becomes_whiteouts() {
    if !is_root() {
        return;
    }
    let dir = tree_dir();
    shell(
        dir.path(),
        "mkdir d d/stub o fresh forged; mknod gone c 0 0; mknod d/gone c 0 0; echo 1 > o/f; echo 2 > d/stub/x",
    );
    let set = |name: &str, key: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(dir.path().join(name), key, value, flags).unwrap();
    };
    set("o", "trusted.overlay.opaque", b"y");
    set("o", "trusted.overlay.origin", b"whatever");
    // New, with nothing below; and one whose mark is not this overlay's.
    set("fresh", "trusted.overlay.opaque", b"y");
    set("forged", "user.overlay.opaque", b"y");
    set("d", "trusted.overlay.impure", b"y");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let options = PackOptions {
        omit: [path("d/stub")].into(),
        root: false,
        ..PackOptions::default()
    };
    let layer = packed(dir.path(), &options).unwrap();
    assert_eq!(
        show(&layer),
        [
            "i /",
            "d /d",
            "w /d/gone",
            "d /forged",
            "d /fresh",
            "w /gone",
            "o /o",
            "f /o/f 1\n"
        ]
    );
    let mut tar = Vec::new();
    layer.tar_reader().read_to_end(&mut tar).unwrap();
    for name in [&b".wh.gone\0"[..], b"d/.wh.gone\0", b"o/.wh..wh..opq\0"] {
        assert!(
            tar.windows(name.len()).any(|window| window == name),
            "{}",
            name.escape_ascii()
        );
    }
    for (key, value) in [
        ("trusted.overlay.redirect", &b"/x"[..]),
        ("trusted.overlay.opaque", b"x"),
    ] {
        set("d", key, value);
        let error = packed(dir.path(), &options).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
        rustix::fs::lremovexattr(dir.path().join("d"), key).unwrap();
    }
    shell(dir.path(), "echo > .wh.x");
    let error = packed(dir.path(), &options).unwrap_err();
    assert!(error.to_string().contains("reserved"), "{error}");
}
