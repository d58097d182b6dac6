//! How containers end: by themselves, by request, and with whoever started them.

use super::*;

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
    // hardening R42: every one; where the same is tried in other ways, some.
    let step = if is_again() { 51 } else { 1 };
    let root = busybox();
    for code in (0..=255).step_by(step).chain([125, 126, 127]) {
        let exit = run_in(root.path(), &shell(&format!("exit {code}"))).exit.unwrap();
        assert_eq!((exit.code, exit.signal, exit.why), (code, None, None));
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
fn a_small_process_1_reaps_and_ends_with_the_command() {
    if skipped() {
        return;
    }
    let check = |script: &str, code: i32, output: &str| {
        let settings = Settings {
            has_init: true,
            ..shell(script)
        };
        let outcome = run_in(busybox().path(), &settings);
        let found = (outcome.code(), outcome.output.as_str());
        assert_eq!(found, (code, output), "{script}");
    };
    // A runtime has processes of its own while it begins.
    check("test $$ -gt 1; echo $?; exit 7", 7, "0\n");
    check("(sleep 1000 &) ; exit 0", 0, "");
    check("(true &); kill -TERM $$", 143, "");
    // Nobody may look into it: it is a copy of the helper's memory.
    check(
        "cat /proc/1/environ 2>&1",
        1,
        "cat: can't open '/proc/1/environ': Permission denied\n",
    );
    let looks = "readlink /proc/1/exe || readlink /proc/1/fd/0 || ls /proc/1/fd";
    check(looks, 0, "0\n1\n2\n");
    // It is one of the container, with the command's rights.
    check(
        "cat /proc/1/mounts | cmp - /proc/$$/mounts && echo same",
        0,
        "same\n",
    );
    let rights = "for n in 1 $$; do grep -E '^(Uid|Gid|Groups|Cap|Seccomp:)' /proc/$n/status > /$n; done";
    check(&format!("{rights}; cmp /1 /$$ && echo same"), 0, "same\n");
    // Nothing is left as a zombie.
    let waits = "until [ -z \"$(ps -o stat,comm | grep ^Z)\" ]; do :; done";
    check(
        &format!("for n in 1 2 3; do sh -c 'true &'; done; {waits}"),
        0,
        "",
    );
    let settings = Settings {
        has_init: true,
        args: vec!["nothing".to_owned()],
        ..shell("")
    };
    let exit = run_in(busybox().path(), &settings).exit.unwrap();
    assert_eq!((exit.code, exit.why.is_some()), (127, true), "{exit:?}");
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
        lowers: &[&lower],
        upper: Some(&upper),
        mounts: &[],
        network: None,
        cgroup: None,
        settings: &settings,
    };
    let stdio = Stdio {
        stdin: None,
        stdout: writer.as_fd(),
        stderr: writer.as_fd(),
        on_terminal: None,
    };
    let exit = crate::sandbox::run(helper(), &spec, stdio, Cancel::on(stop.as_fd()));
    drop(writer);
    assert!(
        matches!(exit, Err(crate::sandbox::SandboxError::Cancelled)),
        "{exit:?}"
    );
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
        terminal: Some(crate::sandbox::TerminalSize {
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
        lowers: &[&lower],
        upper: None,
        mounts: &[],
        network: None,
        cgroup: None,
        settings: &settings,
    };
    let exit = crate::sandbox::run(helper(), &spec, stdio, Cancel::never()).unwrap();
    assert_eq!(exit.code, 3);
    assert_eq!(reading.join().unwrap(), "/dev/pts/0\r\n33 99\r\n");
}

/// Not a test by itself: what `nothing_survives` kills. It runs a container on its own standard output.
#[test]
fn stand_in_builder() {
    let Some(root) = std::env::var_os("ASHLAR_TEST_STAND_IN") else {
        return;
    };
    crate::sandbox::launch::enter_private_mounts().unwrap();
    let lower = Lower::unpacked(open(Path::new(&root)).as_fd()).unwrap();
    let upper = Upper::tmpfs(1 << 20).unwrap();
    let uid = std::env::var("ASHLAR_TEST_STAND_IN_USER")
        .unwrap()
        .parse()
        .unwrap();
    let settings = Settings {
        uid,
        gid: uid,
        ..shell("(trap '' TERM HUP; sleep 1000) & echo the container runs; sleep 1000")
    };
    let (stdout, stderr) = (std::io::stdout(), File::create("/dev/null").unwrap());
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
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        on_terminal: None,
    };
    let _killed = crate::sandbox::run(helper(), &spec, stdio, Cancel::never());
}

/// Returns the processes that a process started.
fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let children = entries.filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.contains(&format!("\nPPid:\t{parent}\n")).then_some(pid)
    });
    children.collect()
}

/// Returns the helper that a process started.
fn helper_of(parent: u32) -> Option<u32> {
    children_of(parent).into_iter().find(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.starts_with(crate::sandbox::standby::MARKER.as_bytes())
    })
}

/// Starts a builder with a running container, kills one of its processes, and waits until nobody holds the output.
fn check_nothing_survives(uid: u32, victim: impl Fn(u32) -> u32) {
    use rustix::event::{PollFd, PollFlags, Timespec};
    // Made here: the one that is killed can't remove it.
    let root = busybox();
    let mut builder = std::process::Command::new("/proc/self/exe")
        .args(["--exact", "sandbox::tests::life::stand_in_builder", "--nocapture"])
        .env("ASHLAR_TEST_STAND_IN", root.path())
        .env("ASHLAR_TEST_STAND_IN_USER", uid.to_string())
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
    // The kernel forgets the death signal of a process that becomes another user.
    for uid in [0, 33] {
        let helper = |builder| helper_of(builder).expect("a helper runs");
        check_nothing_survives(uid, |builder| builder);
        check_nothing_survives(uid, helper);
        check_nothing_survives(uid, |builder| {
            let forked = children_of(helper(builder));
            let has_container = |pid: &u32| !children_of(*pid).is_empty();
            forked
                .into_iter()
                .find(has_container)
                .expect("one for the container")
        });
    }
}

#[test]
fn whoever_stands_by_may_be_killed_and_goes_with_the_helper() {
    if skipped() {
        return;
    }
    let root = busybox();
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let own = Helper::load().unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let settings = shell("exit 7");
    let run = || {
        let upper = Upper::tmpfs(1 << 20).unwrap();
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
        crate::sandbox::run(&own, &spec, stdio, Cancel::never()).map(|exit| exit.code)
    };
    for _ in 0..5 {
        for pid in children_of(own.process_id()) {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            // It may have ended by itself.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        // One that is killed when it was just asked takes its container along; the next is made all the same.
        assert_eq!(run().unwrap_or(7), 7);
    }
    assert_eq!(run().unwrap(), 7);
    let left = children_of(own.process_id());
    assert!(!left.is_empty(), "nobody stands by");
    drop(own);
    for pid in left {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(status.is_err(), "somebody is left: {status:?}");
    }
}
