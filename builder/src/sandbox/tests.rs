//! Containers with busybox, as root. Here: how the tests make them.

mod attached;
mod life;
mod limits;
mod network;
mod privilege;
mod seen;
mod trees;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use super::error::Result;
use super::overlay::Way;
use super::{Cancel, Exit, Helper, Lower, Runtime, Settings, Spec, Stdio, Upper};

/// Says why a test that needs root does nothing without it.
fn skipped() -> bool {
    let cannot = super::launch::probe().is_err();
    if cannot {
        skip("needs root");
    }
    cannot
}

/// Says that a test did not run; `tests/run` looks for these lines.
fn skip(reason: &str) {
    let thread = std::thread::current();
    eprintln!("SKIP {}: {reason}", thread.name().unwrap_or("sandbox"));
}

/// Names the way in which a run of these tests mounts overlays; without it the kernel decides.
const WAY: &str = "ASHLAR_TEST_WAY";

fn helper() -> &'static Helper {
    static HELPER: OnceLock<Helper> = OnceLock::new();
    HELPER.get_or_init(|| {
        match std::env::var(WAY).as_deref() {
            Err(_) => Helper::load(),
            Ok("Added") => Helper::with(Way::Added),
            Ok("Listed") => Helper::with(Way::Listed),
            Ok(other) => panic!("{other} is no way"),
        }
        .unwrap()
        .by(runtime())
    })
}

/// Names the OCI runtime that a run of these tests has its containers made by.
const RUNTIME: &str = "ASHLAR_TEST_RUNTIME";

fn runtime() -> Option<Runtime> {
    std::env::var(RUNTIME)
        .ok()
        .map(|name| Runtime::find(&name).unwrap())
}

/// Runs all tests of this module again through runc: another program's container, the same answers.
#[test]
fn the_same_holds_through_another_runtime() {
    if skipped() || is_again() {
        return;
    }
    for name in ["runc", "crun"] {
        again(&[(RUNTIME, name)]);
    }
}

/// And so for ordinary users, whose runtime is started where they are root.
#[test]
fn the_same_holds_through_another_runtime_in_a_user_namespace() {
    if skipped() || is_again() {
        return;
    }
    for name in ["runc", "crun"] {
        again(&[(RUNTIME, name), (NAMESPACE, "1")]);
    }
}

/// Makes a run of these tests happen in a user namespace with all of root's ids, where root is nobody outside.
pub(super) const NAMESPACE: &str = "ASHLAR_TEST_NAMESPACE";

/// Says that what only the machine's own root can do isn't possible in this run.
fn needs_the_machines_root() -> bool {
    !super::Namespace::current().is_initial()
}

/// Says that this is a run of these tests inside another one.
fn is_again() -> bool {
    [WAY, NAMESPACE, RUNTIME]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

/// Runs all tests of this module with variables.
fn again(variables: &[(&str, &str)]) {
    let ran = std::process::Command::new("/proc/self/exe")
        .args(["sandbox::tests::", "--test-threads=2"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&ran.stdout);
    let several = !output.contains("running 0 tests") && !output.contains("running 1 test\n");
    assert!(ran.status.success() && several, "{variables:?}: {output}");
}

/// Runs all tests of this module again as ordinary users' builds run: with the same answers.
#[test]
fn the_same_holds_in_a_user_namespace() {
    if skipped() || is_again() {
        return;
    }
    again(&[(NAMESPACE, "1")]);
}

/// Runs all tests of this module again, each time as if the kernel couldn't do better.
#[test]
fn the_same_holds_in_every_way_that_older_kernels_need() {
    if skipped() || is_again() {
        return;
    }
    let found = Way::find().unwrap();
    eprintln!("this kernel takes layers: {found:?}");
    let ways = [Way::Added, Way::Listed];
    for way in ways
        .iter()
        .skip_while(|way| found != Way::Detached && **way != found)
    {
        again(&[(WAY, &format!("{way:?}"))]);
    }
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
        "sh", "cat", "cmp", "ls", "true", "env", "id", "grep", "awk", "mount", "mknod", "dd", "sleep",
        "touch", "ln",
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
    run_on(&[&lower], settings)
}

fn run_on(lowers: &[&Lower], settings: &Settings) -> Outcome {
    run_over(lowers, Upper::tmpfs(64 << 20).unwrap(), settings)
}

fn run_over(lowers: &[&Lower], upper: Upper, settings: &Settings) -> Outcome {
    run_with(lowers, upper, &[], settings)
}

fn run_with(lowers: &[&Lower], upper: Upper, mounts: &[super::MountPoint], settings: &Settings) -> Outcome {
    run_all(lowers, upper, (mounts, None), settings)
}

fn run_on_network(lowers: &[&Lower], network: Option<BorrowedFd<'_>>, settings: &Settings) -> Outcome {
    run_all(lowers, Upper::tmpfs(64 << 20).unwrap(), (&[], network), settings)
}

fn run_all(
    lowers: &[&Lower],
    upper: Upper,
    (mounts, network): (&[super::MountPoint], Option<BorrowedFd<'_>>),
    settings: &Settings,
) -> Outcome {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let reading = std::thread::spawn(move || {
        let mut output = Vec::new();
        reader.read_to_end(&mut output).unwrap();
        String::from_utf8_lossy(&output).into_owned()
    });
    let spec = Spec {
        lowers,
        upper: Some(&upper),
        mounts,
        network,
        cgroup: None,
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
