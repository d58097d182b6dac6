//! What is mounted beside the root: where it lands, what can be done with it, and what stays behind of it.

#![expect(clippy::disallowed_methods, reason = "directories that only these tests know")]

use super::*;
use crate::sandbox::{Access, MountPoint, Ownership, Tree};

const SECRET: Ownership = Ownership {
    mode: 0o400,
    uid: 0,
    gid: 0,
};

fn at(target: &str, tree: Result<Tree>) -> MountPoint {
    MountPoint {
        target: target.to_owned(),
        stub: target.to_owned(),
        tree: tree.unwrap(),
    }
}

fn dir(path: &Path, access: Access) -> Result<Tree> {
    Tree::directory(open(path).as_fd(), access)
}

fn tmpfs() -> Result<Tree> {
    Tree::tmpfs(None, Access::ReadWrite)
}

/// Runs a script in a root with these mounts.
fn mounted(root: &Path, mounts: &[MountPoint], script: &str) -> Outcome {
    let lower = open(root);
    let lower = Lower::unpacked(lower.as_fd()).unwrap();
    run_with(&[&lower], Upper::tmpfs(64 << 20).unwrap(), mounts, &shell(script))
}

fn said(outcome: Outcome) -> String {
    match outcome.exit {
        Ok(exit) => format!("{}{}", outcome.output, exit.why.unwrap_or_default()),
        Err(error) => error.to_string(),
    }
}

fn write(path: &Path, text: &str) {
    std::io::Write::write_all(&mut File::create(path).unwrap(), text.as_bytes()).unwrap();
}

#[test]
fn mounts_are_there_in_any_order_and_leave_nothing_in_the_upper() {
    if skipped() {
        return;
    }
    let (root, outside) = (busybox(), tempfile::tempdir_in("/var/tmp").unwrap());
    std::fs::create_dir_all(root.path().join("opt/below")).unwrap();
    write(&root.path().join("opt/kept"), "of the image");
    write(&root.path().join("opt/below/deep"), "covered");
    write(&outside.path().join("a"), "outside");
    std::fs::create_dir(outside.path().join("inner")).unwrap();
    // case R46: the inner one is named first.
    let mounts = [
        at("/opt/below/inner", tmpfs()),
        at("/opt/below", dir(outside.path(), Access::ReadOnly)),
        at("/new/deep/dir", dir(outside.path(), Access::ReadWrite)),
        at("/run/secrets/key", Tree::secret(b"hush", SECRET)),
        // case R41: an existing file below a target.
        at("/opt/kept", Tree::secret(b"over it", SECRET)),
    ];
    let outcome = mounted(
        root.path(),
        &mounts,
        "cat /opt/below/a /opt/kept /run/secrets/key; echo; ls /opt/below; echo x > /opt/below/inner/x; \
         echo y > /new/deep/dir/y; touch /opt/below/b; touch /run/secrets/key; echo z > /opt/kept; \
         busybox stat -c '%a %u %g' /run/secrets/key",
    );
    assert_eq!(outcome.changed(), [""; 0]);
    assert_eq!(
        said(outcome),
        "outsideover ithush\na\ninner\ntouch: /opt/below/b: Read-only file system\n\
         touch: /run/secrets/key: Read-only file system\n/bin/sh: can't create /opt/kept: Read-only file system\n\
         400 0 0\n"
    );
    assert_eq!(
        std::fs::read(root.path().join("opt/kept")).unwrap(),
        b"of the image"
    );
    assert!(outside.path().join("y").exists() && !outside.path().join("inner/x").exists());
    assert!(!root.path().join("new").exists());
}

/// hardening T23, T05, T31: where targets may lead.
#[test]
fn targets_stay_inside_and_off_what_protects_the_machine() {
    if skipped() {
        return;
    }
    let canary = tempfile::tempdir_in("/var/tmp").unwrap();
    let outside = format!("../../../../../../..{}", canary.path().display());
    let root = busybox();
    let link = |name: &str, target: &str| std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
    link("link", &outside);
    link("absolute", canary.path().to_str().unwrap());
    link("shm", "dev/shm");
    link("kernel", "proc/sys");
    let check = |target: &str, expected: &str| {
        let outcome = mounted(
            root.path(),
            &[at(target, tmpfs())],
            "grep -c ' tmpfs ' /proc/self/mounts >/dev/null; echo ran",
        );
        assert_eq!(said(outcome), expected, "{target}");
    };
    let kernels = |path: &str| {
        format!("refused to start the container: nothing can be mounted on {path}: it is the kernel's")
    };
    for path in [
        "/proc",
        "/proc/self/attr",
        "/proc/sys",
        "/sys",
        "/sys/fs",
        "/kernel",
        "/dev/pts",
        "/dev/mqueue",
    ] {
        check(path, &kernels(path));
    }
    check(
        "/dev",
        "refused to start the container: nothing can be mounted on /dev: it holds the container's devices",
    );
    check(
        "/dev/null",
        "refused to start the container: a directory can't be mounted on /dev/null, which is none",
    );
    check(
        "//proc/../proc",
        "refused to start the container: the path `//proc/../proc` is not clean",
    );
    check("/", "refused to start the container: nothing can be mounted on /");
    check(
        "/bin/busybox",
        "refused to start the container: a directory can't be mounted on /bin/busybox, which is none",
    );
    check("/dev/shm", "ran\n");
    check("/shm", "ran\n");
    // These name the same path inside the container, which has no such directory.
    for path in ["/link", "/absolute", "/link/new"] {
        let outcome = mounted(root.path(), &[at(path, tmpfs())], "echo ran");
        let text = said(outcome);
        assert!(
            text == "ran\n"
                || text.starts_with("refused to start the container: ")
                || text.contains("File exists"),
            "{path}: {text}"
        );
    }
    assert_eq!(std::fs::read_dir(canary.path()).unwrap().count(), 0);
}

/// What an image's whiteout hides is made in the upper, and taken away again.
#[test]
fn hidden_mountpoints_are_taken_away_and_parents_keep_their_times() {
    if skipped() {
        return;
    }
    let (base, above) = (busybox(), tempfile::tempdir_in("/var/tmp").unwrap());
    std::fs::create_dir_all(base.path().join("gone/deep")).unwrap();
    std::fs::create_dir_all(base.path().join("srv/gone")).unwrap();
    std::fs::create_dir(above.path().join("srv")).unwrap();
    for path in ["gone", "srv/gone"] {
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::empty();
        rustix::fs::mknodat(rustix::fs::CWD, above.path().join(path), kind, mode, 0).unwrap();
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    File::open(above.path().join("srv"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let (base, above) = (open(base.path()), open(above.path()));
    let lowers = [&above, &base].map(|dir| Lower::unpacked(dir.as_fd()).unwrap());
    let check = |script: &str, expected: &[&str], said: &str| {
        let mounts = [
            at("/gone/deep/dir", tmpfs()),
            at("/gone/file", Tree::secret(b"x", SECRET)),
            at("/srv/gone", tmpfs()),
        ];
        let upper = Upper::tmpfs(64 << 20).unwrap();
        let outcome = run_with(&[&lowers[0], &lowers[1]], upper, &mounts, &shell(script));
        assert_eq!(outcome.code(), 0, "{}", outcome.output);
        assert_eq!(outcome.changed(), expected, "{script}");
        assert_eq!(outcome.output, said, "{script}");
        let srv = format!("{}/srv", crate::sandbox::mount::fd_path(outcome.upper.dir()));
        if let Ok(meta) = std::fs::metadata(srv) {
            assert_eq!(meta.modified().unwrap(), time);
        }
    };
    check(
        "ls /gone /srv; cat /gone/file",
        &["/srv"],
        "/gone:\ndeep\nfile\n\n/srv:\ngone\nx",
    );
    check("echo new > /gone/new", &["/gone", "/gone/new", "/srv"], "");
}

/// hardening T23: what the process puts in place of a mountpoint's parent leads the clean-up nowhere.
#[test]
fn the_clean_up_follows_no_link() {
    if skipped() {
        return;
    }
    let canary = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir(canary.path().join("c")).unwrap();
    let (base, above) = (busybox(), tempfile::tempdir_in("/var/tmp").unwrap());
    std::fs::create_dir_all(base.path().join("a/b/c")).unwrap();
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        above.path().join("a"),
        kind,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
    let (base, above) = (open(base.path()), open(above.path()));
    let lowers = [&above, &base].map(|dir| Lower::unpacked(dir.as_fd()).unwrap());
    let script = format!(
        "busybox mv /a/b /moved; ln -s {} /a/b; ls -d /a/b/c; true",
        canary.path().display()
    );
    let mounts = [at("/a/b/c", tmpfs())];
    let upper = Upper::tmpfs(64 << 20).unwrap();
    let outcome = run_with(&[&lowers[0], &lowers[1]], upper, &mounts, &shell(&script));
    assert_eq!(outcome.code(), 0, "{}", outcome.output);
    assert!(canary.path().join("c").is_dir());
}

/// A layer below a mount: paths of it, whiteouts in it, throw-away changes of it.
#[test]
fn stacks_are_mounted_whole_or_in_part_and_changes_to_them_are_thrown_away() {
    if skipped() {
        return;
    }
    let (a, b) = (
        tempfile::tempdir_in("/var/tmp").unwrap(),
        tempfile::tempdir_in("/var/tmp").unwrap(),
    );
    std::fs::create_dir(a.path().join("dir")).unwrap();
    write(&a.path().join("dir/file"), "below");
    write(&a.path().join("dir/removed"), "no");
    std::fs::create_dir(b.path().join("dir")).unwrap();
    let kind = rustix::fs::FileType::CharacterDevice;
    let whiteout = b.path().join("dir/removed");
    rustix::fs::mknodat(rustix::fs::CWD, whiteout, kind, rustix::fs::Mode::empty(), 0).unwrap();
    let (fd_a, fd_b) = (open(a.path()), open(b.path()));
    let lowers = [&fd_b, &fd_a].map(|dir| Lower::unpacked(dir.as_fd()).unwrap());
    let root = busybox();
    let check = |layers: &[&Lower], path: &str, rw: bool, script: &str, expected: &str| {
        let upper = rw.then(|| Upper::tmpfs(1 << 20).unwrap());
        let tree = Tree::of_stack(helper(), layers, path.as_bytes(), upper.as_ref());
        drop(upper);
        assert_eq!(
            said(mounted(root.path(), &[at("/m", tree)], script)),
            expected,
            "{path}"
        );
    };
    let both = [&lowers[0], &lowers[1]];
    check(&both, "", false, "ls /m /m/dir", "/m:\ndir\n\n/m/dir:\nfile\n");
    check(
        &both,
        "dir",
        false,
        "ls /m; touch /m/x",
        "file\ntouch: /m/x: Read-only file system\n",
    );
    check(&both, "dir/file", false, "cat /m", "below");
    check(&both[1..], "dir", false, "ls /m", "file\nremoved\n");
    check(&[], "", false, "ls /m", "");
    check(&[], "", true, "touch /m/x; ls /m", "x\n");
    check(
        &both,
        "dir",
        true,
        "echo x > /m/file; touch /m/new; cat /m/*",
        "x\n",
    );
    check(&both, "dir/file", true, "echo x > /m; cat /m", "x\n");
    assert_eq!(std::fs::read(a.path().join("dir/file")).unwrap(), b"below");
    assert_eq!(std::fs::read_dir(a.path().join("dir")).unwrap().count(), 2);
}

#[test]
fn memory_mounts_have_the_size_and_the_protection_that_they_should() {
    if skipped() {
        return;
    }
    let root = busybox();
    let check = |mount: MountPoint, script: &str, expected: &str| {
        assert_eq!(said(mounted(root.path(), &[mount], script)), expected, "{script}");
    };
    let options = "awk '$2 == \"/m\" { print $3, $4 }' /proc/self/mounts | busybox sed 's/,inode64//; s/,size=[0-9]*k//; s/,noswap//'";
    check(at("/m", tmpfs()), options, "tmpfs rw,nosuid,nodev,relatime\n");
    // case R32
    check(
        at("/m", Tree::tmpfs(Some(1 << 20), Access::ReadWrite)),
        "dd if=/dev/zero of=/m/x bs=1k count=1025 2>/dev/null; busybox stat -c %s /m/x; busybox stat -c %a /m",
        "1048576\n1777\n",
    );
    check(
        at("/m", Tree::secret(b"x", SECRET)),
        options,
        "tmpfs ro,nosuid,nodev,noexec,relatime,mode=700\n",
    );
    // case R35
    let owner = Ownership {
        mode: 0o741,
        uid: 12,
        gid: 34,
    };
    check(
        at("/m", Tree::secret(b"#!/bin/sh\necho it runs\n", owner)),
        "busybox stat -c '%a %u %g' /m; /m",
        "741 12 34\nit runs\n",
    );
    let device = at("/m", tmpfs());
    check(
        device,
        "mknod /m/null c 1 3; echo x > /m/null",
        match needs_the_machines_root() {
            false => "/bin/sh: can't create /m/null: Permission denied\n",
            true => "mknod: /m/null: Operation not permitted\n",
        },
    );
}

#[test]
fn a_socket_reaches_the_builder() {
    if skipped() {
        return;
    }
    let root = busybox();
    let owner = Ownership {
        mode: 0o600,
        uid: 5,
        gid: 6,
    };
    let (tree, listener) = Tree::socket(owner).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"hello from outside\n").unwrap();
    });
    // The machine's own perl: busybox can't talk to such sockets.
    for name in ["lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.path().join(name)).unwrap();
    }
    let usr = dir(Path::new("/usr"), Access::ReadOnly);
    let outcome = mounted(
        root.path(),
        &[at("/usr", usr), at("/run/agent", Ok(tree))],
        "busybox stat -c '%F %a %u %g' /run/agent; \
         /usr/bin/perl -MIO::Socket::UNIX -e 'print IO::Socket::UNIX->new(Peer => \"/run/agent\")->getline'",
    );
    assert_eq!(said(outcome), "socket 600 5 6\nhello from outside\n");
    answering.join().unwrap();
}

/// hardening T31: a secret lands inside, whatever its target leads through, or nowhere.
#[test]
fn secrets_land_inside_or_nowhere() {
    if skipped() {
        return;
    }
    let canary = tempfile::tempdir_in("/var/tmp").unwrap();
    let outside = format!("../../../../../../..{}", canary.path().display());
    let root = busybox();
    std::os::unix::fs::symlink(&outside, root.path().join("link")).unwrap();
    std::os::unix::fs::symlink("bin/cat", root.path().join("over")).unwrap();
    let check = |target: &str, expected: &str| {
        let mount = at(target, Tree::secret(b"hush", SECRET));
        let outcome = mounted(root.path(), &[mount], "busybox head -c 4 /over; echo ran");
        let changed = outcome.changed();
        let text = said(outcome);
        assert!(text.starts_with(expected), "{target}: {text}");
        assert_eq!(changed, [""; 0], "{target}");
    };
    check(
        &format!("/{outside}/s"),
        "refused to start the container: the path `/../",
    );
    check(
        "/link/s",
        "refused to start the container: /link does not lead to a directory of the container",
    );
    // The link leads to busybox, which can't be executed any more.
    check("/over", "/bin/sh is not executable (permission denied)");
    assert_eq!(std::fs::read_dir(canary.path()).unwrap().count(), 0);
}

/// hardening T07, T21: somebody swaps what lies on the way to a target for a link, over and over, while the mountpoint is
/// made there. A hundred times, and two thousand with `ASHLAR_LONG`; where the mountpoint is there already: `tests/e2e/races.rs`.
#[test]
fn a_target_that_changes_meanwhile_leads_nowhere() {
    if skipped() {
        return;
    }
    let (shared, canary) = (
        tempfile::tempdir_in("/var/tmp").unwrap(),
        tempfile::tempdir_in("/var/tmp").unwrap(),
    );
    let root = busybox();
    std::fs::create_dir(shared.path().join("d")).unwrap();
    std::os::unix::fs::symlink(canary.path(), shared.path().join("evil")).unwrap();
    let (dir, done) = (open(shared.path()), std::sync::atomic::AtomicBool::new(false));
    let (mut n_inside, mut n_refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let swap = rustix::fs::RenameFlags::EXCHANGE;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                rustix::fs::renameat_with(&dir, "d", &dir, "evil", swap).unwrap();
            }
        });
        let is_long = std::env::var_os("ASHLAR_LONG").is_some() && !is_again();
        for _ in 0..if is_long { 2_000 } else { 100 } {
            let mounts = [
                at("/c", Tree::directory(dir.as_fd(), Access::ReadWrite)),
                at("/c/d/e", tmpfs()),
            ];
            // It is in the container's own table, by whichever name its directory has now.
            let outcome = mounted(
                root.path(),
                &mounts,
                "grep -cE '^[^ ]+ /c/(d|evil)/e tmpfs ' /proc/self/mounts",
            );
            match outcome.exit {
                Ok(_) => {
                    assert_eq!(outcome.output, "1\n");
                    n_inside += 1;
                }
                Err(_) => n_refused += 1,
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_dir(canary.path()).unwrap().count(), 0);
    assert!(n_inside > 0 && n_refused > 0, "{n_inside} {n_refused}");
}
