//! What this machine offers: root, programs, a package registry. And how a test says that it can't run.
//!
//! Nothing is installed here; `tests/run` does that before the tests start.

use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Says on the real stderr, past libtest's capture, that the test `name` did not run.
pub(crate) fn skip(name: &str, reason: &str) {
    // Nothing is left to be done where stderr is gone.
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {reason}");
}

/// Answers a condition of a script: `root`, `net`, `erofs`, `cgroup`, `loop`, `long`, `qemu-arm64`, `exec:PROGRAM`.
pub(crate) fn has(condition: &str) -> Result<bool, String> {
    if let Some(program) = condition.strip_prefix("exec:") {
        return Ok(find_program(program).is_some());
    }
    match condition {
        "root" => Ok(rustix::process::geteuid().is_root()),
        "net" => Ok(registry_reachable()),
        "erofs" => Ok(mounts_erofs()),
        "cgroup" => Ok(makes_cgroups()),
        "loop" => Ok(Path::new("/dev/loop-control").exists()),
        "long" => Ok(std::env::var_os("ASHLAR_LONG").is_some()),
        "qemu-arm64" => {
            Ok(missing(&["root", "exec:qemu-aarch64-static"]).is_none() && arm64_busybox().is_some())
        }
        _ => Err(format!("unknown condition [{condition}]")),
    }
}

/// Says whether root can limit memory here: in a hierarchy of version 1 for it, or in one of version 2 that hands it on.
fn makes_cgroups() -> bool {
    let handed_on = std::fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control").unwrap_or_default();
    let v1 = rustix::fs::access("/sys/fs/cgroup/memory", rustix::fs::Access::WRITE_OK).is_ok();
    v1 || handed_on.contains("memory")
}

/// Returns the directory with an arm64 `/bin/busybox` that `tests/run` fetched.
pub(crate) fn arm64_busybox() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("arm64-busybox/root");
    dir.join("bin/sh").is_file().then_some(dir)
}

/// Returns the first of `names` that can't be used here, as a reason to skip.
pub(crate) fn missing(conditions: &[&str]) -> Option<String> {
    let absent = |c: &&&str| !has(c).unwrap();
    conditions.iter().find(absent).map(|c| format!("needs [{c}]"))
}

/// Finds `program` in PATH and in the places where root's programs live.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin:/usr/local/sbin";
    path.split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|file| file.is_file())
}

/// Returns the host and URL of the distribution's package mirror as apt knows it.
pub(crate) fn debian_mirror() -> Option<(String, String)> {
    let listed = std::fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default()
        + "\n"
        + &std::fs::read_to_string("/etc/apt/sources.list.d/ubuntu.sources").unwrap_or_default()
        + "\n"
        + &std::fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let line = listed
        .lines()
        .map(str::trim)
        .find(|l| l.starts_with("URIs:") || l.starts_with("deb "))?;
    let url = line.split_whitespace().find(|word| word.starts_with("http"))?;
    let host = url.split("://").nth(1)?.split('/').next()?;
    Some((host.to_owned(), url.to_owned()))
}

fn registry_reachable() -> bool {
    static REACHABLE: OnceLock<bool> = OnceLock::new();
    *REACHABLE.get_or_init(|| {
        let Some((host, _)) = debian_mirror() else {
            return false;
        };
        let address = if host.contains(':') {
            host
        } else {
            format!("{host}:80")
        };
        let Ok(addresses) = address.to_socket_addrs() else {
            return false;
        };
        addresses
            .into_iter()
            .any(|a| TcpStream::connect_timeout(&a, Duration::from_secs(5)).is_ok())
    })
}

fn mounts_erofs() -> bool {
    static EROFS: OnceLock<bool> = OnceLock::new();
    *EROFS.get_or_init(|| {
        let known = std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("erofs"));
        // A module that is not loaded yet is not listed.
        let loaded = || {
            Command::new("modprobe")
                .arg("erofs")
                .stderr(Stdio::null())
                .status()
        };
        known || loaded().is_ok_and(|status| status.success())
    })
}

#[test]
fn conditions_are_answered_or_refused() {
    assert_eq!(has("exec:sh"), Ok(true));
    assert_eq!(has("exec:no-such-program"), Ok(false));
    assert!(has("moon").unwrap_err().contains("[moon]"));
    assert_eq!(
        missing(&["exec:sh", "exec:no-such-program"]).unwrap(),
        "needs [exec:no-such-program]"
    );
}
