//! Base root file systems made without a registry: busybox from its static package, Debian by mmdebstrap.
//!
//! Each is made once and shared by all tests; nobody writes to it afterwards.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::machine;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
app:x:1000:1000:app:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
wheel:x:10:root,app
www-data:x:33:
app:x:1000:
nogroup:x:65534:
";

/// Returns the busybox root: `/bin/busybox` with a symlink per applet, users, groups and `/tmp`.
/// There is no `/dev`, `/proc`, `/sys`: what a RUN leaves of these in an image would be seen.
pub(crate) fn busybox() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| once("busybox", make_busybox))
}

/// Returns a minimal Debian root with the host's certificates, or why it can't be made here.
pub(crate) fn debian() -> Result<&'static Path, String> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = ROOT.get_or_init(|| match machine::missing(&["root", "net", "exec:mmdebstrap"]) {
        Some(reason) => Err(reason),
        None => Ok(once("debian", make_debian)),
    });
    made.as_deref().map_err(Clone::clone)
}

/// Makes a directory aside and renames it, so that two test processes never see half of one.
/// The number in its name changes with what is in it.
pub(crate) fn once(name: &str, make: fn(&Path)) -> PathBuf {
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let finished = shared.join(format!("{name}-4"));
    if finished.is_dir() {
        return finished;
    }
    let aside = tempfile::Builder::new()
        .prefix("making-")
        .tempdir_in(shared)
        .unwrap();
    let root = aside.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o755)).unwrap();
    make(&root);
    let renamed = std::fs::rename(&root, &finished);
    assert!(
        renamed.is_ok() || finished.is_dir(),
        "cannot place {}: {renamed:?}",
        finished.display()
    );
    finished
}

fn make_busybox(root: &Path) {
    for dir in [
        "bin", "etc", "home", "home/app", "root", "tmp", "usr", "usr/bin", "var",
    ] {
        std::fs::create_dir(root.join(dir)).unwrap();
    }
    std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::set_permissions(root.join("root"), PermissionsExt::from_mode(0o700)).unwrap();
    let program =
        machine::find_program("busybox").expect("busybox-static is installed; `sh tests/run` does that");
    std::fs::copy(program, root.join("bin/busybox")).unwrap();
    let listed = Command::new(root.join("bin/busybox"))
        .arg("--list")
        .output()
        .unwrap();
    for applet in String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), PASSWD).unwrap();
    std::fs::write(root.join("etc/group"), GROUP).unwrap();
}

fn make_debian(root: &Path) {
    let (_, mirror) = machine::debian_mirror().expect("the mirror was reached a moment ago");
    let suite = suite();
    let mut command = Command::new(machine::find_program("mmdebstrap").unwrap());
    command.args([
        "--variant=minbase",
        "--include=ca-certificates",
        "--aptopt=Acquire::Check-Valid-Until \"false\"",
    ]);
    // Documentation and translations are most of the files and none of the point.
    command.args([
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ]);
    command
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg(suite)
        .arg(root)
        .arg(mirror);
    let made = command.output().unwrap();
    assert!(
        made.status.success(),
        "mmdebstrap failed:\n{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let certificates = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if certificates.exists() {
        std::fs::copy(certificates, root.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    }
}

fn suite() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let code = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    code.unwrap_or("stable").trim_matches('"').to_owned()
}

#[test]
fn the_busybox_root_runs() {
    let root = busybox();
    let output = Command::new(root.join("bin/sh"))
        .args(["-c", "echo works"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"works\n");
    assert!(root.join("etc/passwd").exists());
    assert!(!root.join("proc").exists());
}
