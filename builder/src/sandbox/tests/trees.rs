//! What a container is made of: layers, uppers, working directories, hostile images.

use super::*;

#[test]
fn a_process_runs_and_its_change_is_all_that_the_upper_has() {
    if skipped() {
        return;
    }
    let outcome = sh("echo hello; echo new > /new");
    assert_eq!(
        (outcome.exit.as_ref().unwrap().code, outcome.output.as_str()),
        (0, "hello\n")
    );
    assert_eq!(outcome.changed(), ["/new"]);
}

/// hardening T01: where links lead, and where descriptors would.
#[test]
fn the_working_directory_is_made_for_its_user_and_never_outside() {
    if skipped() {
        return;
    }
    let root = busybox();
    std::os::unix::fs::symlink("/real", root.path().join("link")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../../etc", root.path().join("up")).unwrap();
    std::fs::create_dir(root.path().join("real")).unwrap();
    let check = |cwd: &str, expected: &str| {
        let settings = Settings {
            cwd: cwd.to_owned(),
            uid: 7,
            gid: 8,
            groups: vec![8],
            ..shell("busybox pwd -P; busybox stat -c '%a %u %g' .; ls")
        };
        let outcome = run_in(root.path(), &settings);
        match outcome.exit {
            Ok(_) => assert_eq!(outcome.output, expected, "{cwd}"),
            Err(error) => assert_eq!(error.to_string(), expected, "{cwd}"),
        }
    };
    check("/a/b/c", "/a/b/c\n755 7 8\n");
    check("/link/x", "/real/x\n755 7 8\n");
    check("/up", "/etc\n755 0 0\nhosts\nresolv.conf\n");
    check(
        "/proc/self/fd/5",
        "refused to start the container: /proc/self/fd/5 does not lead to a directory of the container",
    );
    check(
        "/proc/self/root",
        "refused to start the container: /proc/self/root does not lead to a directory of the container",
    );
    check(
        "/bin/busybox/x",
        "refused to start the container: /bin/busybox/x does not lead to a directory of the container",
    );
    check(
        "/a/../b",
        "refused to start the container: the path `/a/../b` is not clean",
    );
    let fds = (3..128).flat_map(|fd| [format!("/proc/1/fd/{fd}"), format!("/proc/self/fd/{fd}")]);
    for cwd in fds.chain(["/proc/thread-self/cwd".to_owned(), "/proc/1/cwd".to_owned()]) {
        let settings = Settings {
            cwd,
            ..shell("echo inside")
        };
        let outcome = run_in(root.path(), &settings);
        let refused = outcome.exit.is_err() && outcome.output.is_empty();
        assert!(refused, "{}: {:?}", settings.cwd, outcome.exit);
    }
}

/// hardening T03, T06
#[test]
fn hostile_roots_are_refused_or_harmless() {
    if skipped() {
        return;
    }
    let canary = tempfile::tempdir_in("/var/tmp").unwrap();
    let victim = canary.path().join("victim");
    std::io::Write::write_all(&mut File::create(&victim).unwrap(), b"token").unwrap();
    let outside = format!("../../../../../../..{}", canary.path().display());
    let check = |links: &[(&str, &str)], expected: Option<&str>| {
        let root = busybox();
        for (name, target) in links {
            let path = root.path().join(name);
            if let Some(parent) = path.parent() {
                let _exists = std::fs::create_dir(parent);
            }
            std::os::unix::fs::symlink(target, path).unwrap();
        }
        let outcome = run_in(
            root.path(),
            &shell("cat /etc/hosts >/dev/null; echo x > /proc/sys/kernel/core_pattern; true"),
        );
        let error = outcome.exit.err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expected, "{links:?}");
        assert!(!outcome.output.contains("token"));
        let left: Vec<_> = std::fs::read_dir(canary.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["victim"], "{links:?}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"token", "{links:?}");
    };
    for name in ["dev", "proc", "sys"] {
        let refused = format!("refused to start the container: the image's /{name} is not a directory");
        check(&[(name, &outside)], Some(&refused));
    }
    check(
        &[("etc", &outside)],
        Some("refused to start the container: /etc does not lead to a directory of the container"),
    );
    check(&[("etc/hosts", victim.to_str().unwrap())], None);
    check(&[("etc/resolv.conf", &format!("{outside}/new"))], None);
    check(
        &[("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")],
        None,
    );
    check(
        &[
            ("dev/null", "/proc/sys/kernel/core_pattern"),
            ("dev/pts", &outside),
            ("dev/shm", &outside),
        ],
        None,
    );
}

#[test]
fn the_upper_holds_the_change_and_no_mountpoint() {
    if skipped() {
        return;
    }
    assert_eq!(sh("true").changed(), [""; 0]);
    let scripts = [
        ("/dev/pipes/EOF".to_owned(), "#!/bin/sh\necho one\n".to_owned()),
        ("/opt/two".to_owned(), "#!/bin/sh\necho two\n".to_owned()),
    ];
    let settings = Settings {
        scripts: scripts.into(),
        ..shell("/dev/pipes/EOF; /opt/two; cat /etc/hosts > /copy; echo y > /etc/mine; echo x > /opt/two")
    };
    let outcome = run_in(busybox().path(), &settings);
    assert!(
        outcome.output.starts_with("one\ntwo\n") && outcome.output.contains("Read-only"),
        "{}",
        outcome.output
    );
    assert_eq!(outcome.changed(), ["/copy", "/etc", "/etc/mine"]);
}

#[test]
fn a_full_tmpfs_says_so() {
    if skipped() {
        return;
    }
    let root = busybox();
    let outcome = run_in(
        root.path(),
        &shell("dd if=/dev/zero of=/big bs=1048576 count=100"),
    );
    assert!(
        outcome.code() != 0 && outcome.upper.is_full().unwrap(),
        "{}",
        outcome.output
    );
    assert!(!run_in(root.path(), &shell("true")).upper.is_full().unwrap());
}

#[test]
fn layers_are_stacked_top_first_however_many() {
    if skipped() {
        return;
    }
    let (base, top) = (busybox(), tempfile::tempdir_in("/var/tmp").unwrap());
    for (dir, text) in [(&base, "base"), (&top, "top")] {
        std::io::Write::write_all(
            &mut File::create(dir.path().join("which")).unwrap(),
            text.as_bytes(),
        )
        .unwrap();
    }
    let lowers = [
        Lower::unpacked(open(top.path()).as_fd()).unwrap(),
        Lower::unpacked(open(base.path()).as_fd()).unwrap(),
    ];
    let lowers: Vec<&Lower> = lowers.iter().collect();
    assert_eq!(run_on(&lowers, &shell("cat /which")).output, "top");
    // 300 more empty layers: nothing is cut off.
    let empties: Vec<_> = (0..300)
        .map(|_| tempfile::tempdir_in("/var/tmp").unwrap())
        .collect();
    let empties: Vec<_> = empties
        .iter()
        .map(|dir| Lower::unpacked(open(dir.path()).as_fd()).unwrap())
        .collect();
    let many: Vec<_> = empties.iter().chain(lowers).collect();
    assert_eq!(run_on(&many, &shell("cat /which")).output, "top");
}

#[test]
fn erofs_images_are_lowers() {
    if skipped() {
        return;
    }
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let tiny = scratch.path().join("tiny");
    std::io::Write::write_all(&mut File::create(&tiny).unwrap(), &crate::sandbox::tiny_image()).unwrap();
    if !crate::sandbox::can_mount(&File::open(&tiny).unwrap()).unwrap() {
        skip("EROFS can't be mounted here");
        return;
    }
    let garbage = scratch.path().join("garbage");
    std::io::Write::write_all(&mut File::create(&garbage).unwrap(), &[0; 4096]).unwrap();
    assert!(!crate::sandbox::can_mount(&File::open(&garbage).unwrap()).unwrap());
    let (root, image) = (busybox(), scratch.path().join("image"));
    let made = std::process::Command::new("mkfs.erofs")
        .args(["-b512".as_ref(), image.as_os_str(), root.path().as_os_str()])
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        skip("no mkfs.erofs");
        return;
    }
    let lower = Lower::mount(&File::open(&image).unwrap(), &[]).unwrap();
    let tiny = Lower::mount(&File::open(&tiny).unwrap(), &[]).unwrap();
    let outcome = run_on(
        &[&tiny, &lower],
        &shell("echo from erofs; rm=1; echo new > /bin/new; ls /"),
    );
    assert_eq!(
        (outcome.code(), outcome.output.as_str()),
        (0, "from erofs\nbin\ndev\netc\nproc\nsys\n")
    );
    assert_eq!(outcome.changed(), ["/bin", "/bin/new"]);
}

#[test]
fn images_that_the_kernel_cannot_serve_as_files_are_served_by_loop_devices() {
    use rustix::fs::MemfdFlags;
    use std::io::Write as _;
    if skipped() || needs_the_machines_root() {
        return;
    }
    // A memfd lies on a tmpfs, which EROFS can't read directly (ENOTBLK).
    let memfd = rustix::fs::memfd_create("image", MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(memfd);
    file.write_all(&crate::sandbox::tiny_image()).unwrap();
    let reopened = File::open(crate::sandbox::mount::fd_path(file.as_fd())).unwrap();
    if File::open("/dev/loop-control").is_err() {
        skip("no loop devices");
        return;
    }
    let lower = Lower::mount(&reopened, &[]).unwrap();
    let entries = std::fs::read_dir(crate::sandbox::mount::fd_path(lower.mounted())).unwrap();
    assert_eq!(entries.count(), 0);
}

#[test]
fn a_directory_can_be_the_upper() {
    if skipped() {
        return;
    }
    let (root, scratch) = (busybox(), tempfile::tempdir_in("/var/tmp").unwrap());
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let upper = Upper::directory(open(scratch.path()).as_fd()).unwrap();
    let null = File::create("/dev/null").unwrap();
    let settings = shell("echo new > /new");
    let spec = Spec {
        lowers: &[&lower],
        upper: Some(&upper),
        mounts: &[],
        network: None,
        cgroup: None,
        settings: &settings,
    };
    let stdio = Stdio {
        stdin: None,
        stdout: null.as_fd(),
        stderr: null.as_fd(),
        on_terminal: None,
    };
    let exit = crate::sandbox::run(helper(), &spec, stdio, Cancel::never()).unwrap();
    assert_eq!((exit.code, upper.is_full().unwrap()), (0, false));
    assert_eq!(std::fs::read(scratch.path().join("upper/new")).unwrap(), b"new\n");
}

#[test]
fn the_root_directory_keeps_mode_owner_and_time_of_the_images() {
    if skipped() {
        return;
    }
    let root = busybox();
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let check = |mode: u32, owner: u32, seconds: i64, expected: &str| {
        let upper = Upper::tmpfs(1 << 20).unwrap();
        let meta = cache::layer::Meta {
            mode,
            uid: owner,
            gid: owner + 1,
            mtime: cache::layer::Timestamp { seconds, nanos: 0 },
            ..Default::default()
        };
        upper.describe_root(&meta).unwrap();
        let settings = shell("busybox stat -c '%a %u %g %Y' /");
        assert_eq!(run_over(&[&lower], upper, &settings).output, expected);
    };
    check(0o700, 0, 1, "700 0 1 1\n");
    check(0o7755, 12, 1_700_000_000, "7755 12 13 1700000000\n");
    let upper = Upper::tmpfs(1 << 20).unwrap();
    let outcome = run_over(&[&lower], upper, &shell("busybox stat -c '%a %u %g' /"));
    assert_eq!(outcome.output, "755 0 0\n");
}

#[test]
fn attributes_of_users_survive_a_change() {
    if skipped() {
        return;
    }
    let (root, scratch) = (busybox(), tempfile::tempdir_in("/var/tmp").unwrap());
    let file = File::create(root.path().join("marked")).unwrap();
    let flags = rustix::fs::XattrFlags::CREATE;
    if rustix::fs::fsetxattr(&file, "user.mark", b"kept", flags).is_err() {
        skip("/var/tmp keeps no user attributes");
        return;
    }
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let memory = Upper::tmpfs(1 << 20).unwrap();
    let disk = Upper::directory(open(scratch.path()).as_fd()).unwrap();
    assert!(disk.keeps_user_attributes().unwrap());
    for upper in [memory, disk] {
        // What the answer is for: whether the attribute is in the upper, from where the layer is packed.
        let expected = upper.keeps_user_attributes().unwrap();
        let outcome = run_over(&[&lower], upper, &shell("busybox chmod 700 /marked"));
        assert_eq!(
            (outcome.code(), outcome.changed()),
            (0, vec!["/marked".to_owned()])
        );
        let path = format!("{}/marked", crate::sandbox::mount::fd_path(outcome.upper.dir()));
        let mut value = [0; 16];
        let found = rustix::fs::getxattr(&path, "user.mark", &mut value);
        assert_eq!(found.is_ok(), expected, "{found:?}");
    }
}
