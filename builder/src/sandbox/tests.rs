//! Containers with busybox, as root: what a process sees, what it can't do, what it leaves behind.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use super::{Cancel, Exit, Helper, Lower, Result, Settings, Spec, Stdio, Upper};

/// Says why a test that needs root does nothing without it.
fn skipped() -> bool {
    let skip = super::probe().is_err();
    if skip {
        eprintln!("SKIPPED: needs root");
    }
    skip
}

fn helper() -> &'static Helper {
    static HELPER: OnceLock<Helper> = OnceLock::new();
    HELPER.get_or_init(|| Helper::load().unwrap())
}

/// A root with a static busybox and the links that the tests use.
fn busybox() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::hard_link("/bin/busybox", bin.join("busybox"))
        .or_else(|_| {
            let mut from = File::open("/bin/busybox")?;
            let mut to = File::create(bin.join("busybox"))?;
            std::io::copy(&mut from, &mut to)?;
            use std::os::unix::fs::PermissionsExt as _;
            to.set_permissions(std::fs::Permissions::from_mode(0o755))
        })
        .unwrap();
    for name in [
        "sh", "cat", "ls", "true", "env", "id", "grep", "awk", "mount", "mknod", "dd", "sleep", "touch", "ln",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    dir
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// Everything that a run gave back.
struct Outcome {
    exit: Result<Exit>,
    output: String,
    upper: Upper,
}

impl Outcome {
    fn code(&self) -> i32 {
        self.exit.as_ref().unwrap().code
    }

    /// Paths of the upper, sorted.
    fn changed(&self) -> Vec<String> {
        let base = super::mount::fd_path(self.upper.dir());
        let mut found = Vec::new();
        let mut left = vec![String::new()];
        while let Some(below) = left.pop() {
            for entry in std::fs::read_dir(format!("{base}{below}")).unwrap() {
                let entry = entry.unwrap();
                let path = format!("{below}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().unwrap().is_dir() {
                    left.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }
}

fn run_in(root: &Path, settings: &Settings) -> Outcome {
    let dir = open(root);
    let lower = Lower::unpacked(dir.as_fd()).unwrap();
    run_on(&[lower.as_fd()], settings)
}

fn run_on(lowers: &[BorrowedFd<'_>], settings: &Settings) -> Outcome {
    let upper = Upper::tmpfs(64 << 20).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let reading = std::thread::spawn(move || {
        let mut output = Vec::new();
        reader.read_to_end(&mut output).unwrap();
        String::from_utf8_lossy(&output).into_owned()
    });
    let spec = Spec {
        lowers,
        upper: Some(&upper),
        settings,
    };
    let stdio = Stdio {
        stdin: None,
        stdout: writer.as_fd(),
        stderr: writer.as_fd(),
        on_terminal: None,
    };
    let exit = super::run(helper(), &spec, stdio, Cancel::never());
    drop(writer);
    Outcome {
        exit,
        output: reading.join().unwrap(),
        upper,
    }
}

fn shell(script: &str) -> Settings {
    Settings {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        ..Settings::default()
    }
}

/// Runs a script as root in a fresh busybox container.
fn sh(script: &str) -> Outcome {
    run_in(busybox().path(), &shell(script))
}

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

#[test]
fn the_default_profile_is_dockers() {
    if skipped() {
        return;
    }
    let outcome = sh("grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; umask; echo $$");
    let expected = "Groups:\t0 \nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n0022\n1\n";
    assert_eq!(outcome.output, expected);
    let user = Settings {
        uid: 1000,
        gid: 1001,
        groups: vec![29, 1001],
        ..shell("id -u; id -g; grep -E '^(Cap|Groups)' /proc/self/status")
    };
    let outcome = run_in(busybox().path(), &user);
    let expected = "1000\n1001\nGroups:\t29 1001 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                    CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n";
    assert_eq!(outcome.output, expected);
}

#[test]
fn the_mounts_are_the_profiles_and_nothing_of_the_host() {
    if skipped() {
        return;
    }
    // Target, type and the attributes that protect; masks depend on the kernel and are checked by their effect.
    let outcome =
        sh("awk '{t=$5; split($0,h,\" - \"); split(h[2],f,\" \"); print t, f[1], $6}' /proc/self/mountinfo");
    let found: Vec<&str> = outcome.output.lines().collect();
    for expected in [
        "/ overlay rw,nodev,relatime",
        "/proc proc rw,nosuid,nodev,noexec,relatime",
        "/sys sysfs ro,nosuid,nodev,noexec,relatime",
        "/dev tmpfs rw,nosuid,nodev",
        "/dev/null tmpfs rw,nosuid,noexec,relatime",
        "/dev/pts devpts rw,nosuid,noexec,relatime",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime",
        "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
        "/etc/hosts tmpfs ro,nosuid,nodev,noexec,relatime",
        "/etc/resolv.conf tmpfs ro,nosuid,nodev,noexec,relatime",
        "/proc/sys proc ro,nosuid,nodev,noexec,relatime",
    ] {
        assert!(found.contains(&expected), "{expected} not in {found:#?}");
    }
    let known = ["/", "/proc", "/sys", "/dev", "/etc/hosts", "/etc/resolv.conf"];
    for line in &found {
        let target = line.split(' ').next().unwrap();
        let ours = known.contains(&target)
            || ["/dev/", "/proc/", "/sys/firmware", "/sys/devices/"]
                .iter()
                .any(|below| target.starts_with(below));
        assert!(ours, "unexpected mount {line}");
    }
    assert!(!outcome.output.contains("cgroup"));
}

#[test]
fn masked_files_are_empty_and_kernel_settings_read_only() {
    if skipped() {
        return;
    }
    for path in super::profile::MASKED {
        let outcome = sh(&format!(
            "if [ -d /{path} ]; then ls /{path}; elif [ -e /{path} ]; then cat /{path}; fi"
        ));
        assert_eq!(outcome.output, "", "/{path}");
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/profiling",
    ] {
        let outcome = sh(&format!("echo x > {path}"));
        assert!(
            outcome.output.contains("Read-only file system") || outcome.output.contains("nonexistent"),
            "{path}: {}",
            outcome.output
        );
    }
}

#[test]
fn devices_are_dockers_and_no_other_can_be_opened() {
    if skipped() {
        return;
    }
    let outcome = sh(
        "ls /dev; echo x > /dev/null; dd if=/dev/zero bs=1 count=1 2>/dev/null | wc -c 2>/dev/null || busybox wc -c < /dev/null",
    );
    let names: Vec<&str> = outcome.output.lines().take(14).collect();
    for name in [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ] {
        assert!(names.contains(&name), "{name} not in {names:?}");
    }
    // CAP_MKNOD is there; opening what it makes is not, wherever it is made.
    for place in ["/d", "/dev/d", "/dev/shm/d"] {
        let outcome = sh(&format!(
            "mknod {place} b 8 0 && echo made; dd if={place} of=/dev/null count=1; echo x > {place}"
        ));
        let denied = outcome.output.matches("Permission denied").count();
        assert!(
            outcome.output.starts_with("made\n") && denied == 2,
            "{place}: {}",
            outcome.output
        );
    }
}

#[test]
fn only_the_three_streams_are_open_and_stdin_is_empty() {
    if skipped() {
        return;
    }
    let outcome = sh("for f in /proc/$$/fd/*; do echo ${f##*/}; done; cat; echo end");
    let fds: Vec<&str> = outcome
        .output
        .lines()
        .filter(|line| line.parse::<u32>().is_ok_and(|fd| fd < 255))
        .collect();
    // The glob's own directory descriptor may show as 3.
    assert!(
        fds == ["0", "1", "2"] || fds == ["0", "1", "2", "3"],
        "{}",
        outcome.output
    );
    assert!(outcome.output.ends_with("end\n"), "{}", outcome.output);
    let outcome = sh("ls -l /proc/1/fd /proc/1/cwd /proc/1/root /proc/1/exe");
    assert!(
        !outcome.output.contains("memfd") && !outcome.output.contains("socket"),
        "{}",
        outcome.output
    );
}

#[test]
fn the_environment_is_exactly_the_settings_one() {
    if skipped() {
        return;
    }
    let env = [("PATH", "/bin"), ("B", "2 = two"), ("A", "1")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec();
    let settings = Settings {
        args: vec!["env".to_owned()],
        env,
        home: Some("/home/u".to_owned()),
        ..Settings::default()
    };
    let outcome = run_in(busybox().path(), &settings);
    assert_eq!(outcome.output, "PATH=/bin\nB=2 = two\nA=1\nHOME=/home/u\n");
    let env = [("PATH", "/bin"), ("HOME", "/mine")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec();
    let outcome = run_in(busybox().path(), &Settings { env, ..settings });
    assert_eq!(outcome.output, "PATH=/bin\nHOME=/mine\n");
}

/// Runs one command and checks code, signal and a part of the explanation.
fn check_exit(args: &[&str], code: i32, signal: Option<i32>, why: Option<&str>) {
    let settings = Settings {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..shell("")
    };
    let root = busybox();
    let plain = root.path().join("bin/plain");
    std::fs::File::create(&plain).unwrap();
    let script = root.path().join("bin/lost");
    std::io::Write::write_all(&mut File::create(&script).unwrap(), b"#!/no/such/shell\n").unwrap();
    let empty = root.path().join("bin/empty");
    File::create(&empty).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    for file in [script, empty] {
        File::open(file)
            .unwrap()
            .set_permissions(std::fs::Permissions::from_mode(0o755))
            .unwrap();
    }
    let exit = run_in(root.path(), &settings).exit.unwrap();
    assert_eq!((exit.code, exit.signal), (code, signal), "{args:?}: {exit:?}");
    match (&exit.why, why) {
        (None, None) => {}
        (Some(found), Some(why)) => assert!(found.contains(why), "{args:?}: {found}"),
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn exit_codes_are_the_commands_own_and_explained_when_nothing_ran() {
    if skipped() {
        return;
    }
    for code in [0, 1, 2, 7, 125, 126, 127, 137, 143, 255] {
        check_exit(&["sh", "-c", &format!("exit {code}")], code, None, None);
    }
    check_exit(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, None, None);
    check_exit(&["nothing"], 127, None, Some("`nothing` not found in the PATH"));
    check_exit(
        &["/bin/nothing"],
        127,
        None,
        Some("`/bin/nothing` not found in the image"),
    );
    check_exit(
        &["/bin/lost"],
        127,
        None,
        Some("interpreter or loader is missing"),
    );
    check_exit(&["plain"], 126, None, Some("not executable"));
    check_exit(&["/bin"], 126, None, Some("is a directory"));
    check_exit(&["empty"], 126, None, Some("exec format error"));
    check_exit(&[""], 127, None, Some("not found"));
}

#[test]
fn background_processes_end_with_the_first() {
    if skipped() {
        return;
    }
    let outcome = sh("(sleep 1000 &) ; exit 7");
    // `run` returned although the background process still held the output; the reader ended because it is dead.
    assert_eq!(outcome.code(), 7);
}

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
    for fd in 3..128 {
        let settings = Settings {
            cwd: format!("/proc/1/fd/{fd}"),
            ..shell("echo inside")
        };
        let outcome = run_in(root.path(), &settings);
        assert!(
            outcome.exit.is_err() && outcome.output.is_empty(),
            "{fd}: {:?}",
            outcome.exit
        );
    }
}

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
fn a_network_of_its_own_has_loopback_only() {
    if skipped() {
        return;
    }
    let outcome = sh("busybox ip -o link | awk '{print $2, $3}'; busybox hostname");
    assert_eq!(outcome.output, "lo: <LOOPBACK,UP,LOWER_UP>\nbuildkitsandbox\n");
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
fn layers_are_stacked_top_first_and_a_directory_can_be_the_upper() {
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
    let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(AsFd::as_fd).collect();
    assert_eq!(run_on(&lowers, &shell("cat /which")).output, "top");
    // 300 more empty layers: nothing is cut off.
    let empties: Vec<_> = (0..300)
        .map(|_| tempfile::tempdir_in("/var/tmp").unwrap())
        .collect();
    let empties: Vec<_> = empties
        .iter()
        .map(|dir| Lower::unpacked(open(dir.path()).as_fd()).unwrap())
        .collect();
    let many: Vec<_> = empties.iter().map(AsFd::as_fd).chain(lowers).collect();
    assert_eq!(run_on(&many, &shell("cat /which")).output, "top");
}

#[test]
fn erofs_images_are_lowers() {
    if skipped() {
        return;
    }
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let tiny = scratch.path().join("tiny");
    std::io::Write::write_all(&mut File::create(&tiny).unwrap(), &super::tiny_image()).unwrap();
    if !super::can_mount(&File::open(&tiny).unwrap()).unwrap() {
        eprintln!("SKIPPED: EROFS can't be mounted here");
        return;
    }
    let garbage = scratch.path().join("garbage");
    std::io::Write::write_all(&mut File::create(&garbage).unwrap(), &[0; 4096]).unwrap();
    assert!(!super::can_mount(&File::open(&garbage).unwrap()).unwrap());
    let (root, image) = (busybox(), scratch.path().join("image"));
    let made = std::process::Command::new("mkfs.erofs")
        .args(["-b512".as_ref(), image.as_os_str(), root.path().as_os_str()])
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("SKIPPED: no mkfs.erofs");
        return;
    }
    let lower = Lower::mount(&File::open(&image).unwrap()).unwrap();
    let tiny = Lower::mount(&File::open(&tiny).unwrap()).unwrap();
    let outcome = run_on(
        &[tiny.as_fd(), lower.as_fd()],
        &shell("echo from erofs; rm=1; echo new > /bin/new; ls /"),
    );
    assert_eq!(
        (outcome.code(), outcome.output.as_str()),
        (0, "from erofs\nbin\ndev\netc\nproc\nsys\n")
    );
    assert_eq!(outcome.changed(), ["/bin", "/bin/new"]);
}

#[test]
fn cancelling_kills() {
    if skipped() {
        return;
    }
    let root = busybox();
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let upper = Upper::tmpfs(1 << 20).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (stop, stopper) = std::io::pipe().unwrap();
    let stopping = std::thread::spawn(move || {
        // The process runs: its first output is here.
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        drop(stopper);
        reader.read_to_end(&mut Vec::new()).unwrap();
    });
    let settings = shell("trap '' TERM; echo x; sleep 1000");
    let spec = Spec {
        lowers: &[lower.as_fd()],
        upper: Some(&upper),
        settings: &settings,
    };
    let stdio = Stdio {
        stdin: None,
        stdout: writer.as_fd(),
        stderr: writer.as_fd(),
        on_terminal: None,
    };
    let exit = super::run(helper(), &spec, stdio, Cancel::on(stop.as_fd()));
    drop(writer);
    assert!(matches!(exit, Err(super::SandboxError::Cancelled)), "{exit:?}");
    // End of file: nobody of the container is left.
    stopping.join().unwrap();
}

#[test]
fn a_terminal_is_the_containers_own() {
    if skipped() {
        return;
    }
    let root = busybox();
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let settings = Settings {
        terminal: Some(super::TerminalSize {
            rows: 33,
            columns: 99,
        }),
        ..shell("busybox tty; busybox stty size; exit 3")
    };
    let null = File::open("/dev/null").unwrap();
    let (give, master) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut file = File::from(master.recv().unwrap());
        // Linux ends a terminal whose last user is gone with EIO.
        let (mut output, mut buffer) = (Vec::new(), [0; 512]);
        while let Ok(n @ 1..) = file.read(&mut buffer) {
            output.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(output).unwrap()
    });
    let stdio = Stdio {
        stdin: None,
        stdout: null.as_fd(),
        stderr: null.as_fd(),
        on_terminal: Some(Box::new(move |fd| give.send(fd).unwrap())),
    };
    let spec = Spec {
        lowers: &[lower.as_fd()],
        upper: None,
        settings: &settings,
    };
    let exit = super::run(helper(), &spec, stdio, Cancel::never()).unwrap();
    assert_eq!(exit.code, 3);
    assert_eq!(reading.join().unwrap(), "/dev/pts/0\r\n33 99\r\n");
}

/// Not a test by itself: what `nothing_survives` kills. It runs a container on its own standard output.
#[test]
fn stand_in_builder() {
    if std::env::var_os("ASHLAR_TEST_STAND_IN").is_none() || skipped() {
        return;
    }
    super::enter_private_mounts().unwrap();
    let root = busybox();
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let upper = Upper::tmpfs(1 << 20).unwrap();
    let settings = shell("(trap '' TERM HUP; sleep 1000) & echo the container runs; sleep 1000");
    let (stdout, stderr) = (std::io::stdout(), File::create("/dev/null").unwrap());
    let spec = Spec {
        lowers: &[lower.as_fd()],
        upper: Some(&upper),
        settings: &settings,
    };
    let stdio = Stdio {
        stdin: None,
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        on_terminal: None,
    };
    let _killed = super::run(helper(), &spec, stdio, Cancel::never());
}

/// Returns the helper that a process started.
fn helper_of(parent: u32) -> Option<u32> {
    std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = status.contains(&format!("\nPPid:\t{parent}\n"));
        (ours && command.starts_with(super::helper::MARKER.as_bytes())).then_some(pid)
    })
}

/// Starts a builder with a running container, kills one of its processes, and waits until nobody holds the output.
fn check_nothing_survives(victim: impl Fn(u32) -> u32) {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let mut builder = std::process::Command::new("/proc/self/exe")
        .args(["--exact", "sandbox::tests::stand_in_builder", "--nocapture"])
        .env("ASHLAR_TEST_STAND_IN", "1")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut output = builder.stdout.take().unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 256];
    let mut killed = false;
    loop {
        let mut fds = [PollFd::new(&output, PollFlags::IN)];
        let deadline = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        assert_eq!(
            rustix::event::poll(&mut fds, Some(&deadline)),
            Ok(1),
            "somebody is left: {seen}"
        );
        let n = output.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        if !killed && seen.contains("the container runs") {
            let pid = i32::try_from(victim(builder.id())).unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            killed = true;
        }
    }
    assert!(killed, "{seen}");
    builder.wait().unwrap();
}

#[test]
fn nothing_survives_when_builder_or_helper_is_killed() {
    if skipped() {
        return;
    }
    check_nothing_survives(|builder| builder);
    check_nothing_survives(|builder| helper_of(builder).expect("a helper runs"));
}
