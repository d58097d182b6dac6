//! What containers need: tried for real, with the rights that a build would have.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::{Check, extras, platforms};
use crate::sandbox::{self, Connected, Entered, Namespace};

/// Checks the kernel, the rights, and everything that a container is made of.
pub(super) fn of_containers(store_root: &Path) -> Vec<Check> {
    let entered = sandbox::enter();
    let mut checks = vec![kernel(), rights(&entered)];
    if entered.is_ok() {
        checks.extend(containers());
        checks.push(erofs(store_root));
    }
    checks.push(seccomp());
    checks
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    let found = format!("Linux {release}");
    match version {
        (5, 12..) | (6.., _) => Check::ok("kernel", found),
        _ => Check::missing("kernel", found, "Linux 5.12 or newer"),
    }
}

fn rights(entered: &Result<Entered, sandbox::SandboxError>) -> Check {
    const NAME: &str = "user";
    match entered {
        Ok(Entered::Already) if Namespace::current().is_initial() => Check::ok(NAME, "root"),
        Ok(Entered::Already) => match Namespace::current().is_single() {
            false => Check::ok(NAME, "root in a user namespace"),
            true => Check::limited(
                NAME,
                "root in a user namespace that has no other users",
                "start it with more ids (unshare --map-auto, or the container's own user mapping); until then images \
                 and steps with files of other users fail",
            ),
        },
        Ok(Entered::Full) => Check::ok(NAME, "not root; a user namespace with subordinate ids"),
        Ok(Entered::Single(because)) => Check::limited(
            NAME,
            format!("not root; a user namespace with user 0 only, because {because}"),
            "lines for this user in /etc/subuid and /etc/subgid (usermod --add-subuids 100000-165535 --add-subgids \
             100000-165535 NAME), and newuidmap (Debian's package uidmap); until then images and steps with files of \
             other users fail",
        ),
        Err(error) => Check::missing(
            NAME,
            error.to_string(),
            "let this user make user namespaces, or build as root; in a container: start it with --privileged, or with a \
             seccomp profile and AppArmor profile that let unshare and mount through",
        ),
    }
}

fn containers() -> Vec<Check> {
    let trial = match sandbox::trial() {
        Ok(trial) => trial,
        Err(error) => {
            return vec![Check::missing(
                "overlay",
                error.to_string(),
                "a kernel with overlayfs (modprobe overlay); in user namespaces it works since Linux 5.11",
            )];
        }
    };
    let overlay = Check::ok("overlay", trial.layers());
    if let Err(problem) = trial.container() {
        let advice = "what the message names; no protection is left out instead";
        return vec![overlay, Check::missing("container", problem.to_string(), advice)];
    }
    let container = Check::ok("container", "made one, with every protection of the profile");
    let network = trial.network().unwrap_or_else(|error| Connected {
        program: None,
        problems: vec![error.to_string()],
    });
    let mut checks = vec![overlay, container, extras::network(&network)];
    checks.extend(extras::limits(&trial));
    checks.push(platforms::check(&trial));
    checks.push(extras::runtimes());
    checks
}

/// Mounts a tiny image that lies where layers would.
fn erofs(store_root: &Path) -> Check {
    const ADVICE: &str = "root, and Linux 6.12 with EROFS (modprobe erofs), or loop devices since 6.4; without, layers take \
                          their space twice and the first use of an image takes longer";
    let tried = || -> Result<bool, String> {
        let near = super::surroundings::existing(store_root);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, near, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| format!("cannot write in {}: {error}", near.display()))?;
        let mut file = File::from(fd);
        file.write_all(&sandbox::tiny_image())
            .map_err(|error| format!("cannot write in {}: {error}", near.display()))?;
        // What is mounted is read through another open file.
        rustix::fs::syncfs(file.as_fd()).map_err(|error| error.to_string())?;
        sandbox::can_mount(&file).map_err(|error| error.to_string())
    };
    match tried() {
        Ok(true) => Check::ok("erofs", "layers are mounted as they are"),
        Ok(false) => Check::limited("erofs", "can't be mounted here: layers are unpacked", ADVICE),
        Err(problem) => Check::limited("erofs", format!("not tried: {problem}"), ADVICE),
    }
}

fn seccomp() -> Check {
    match std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Check::ok("seccomp", "system calls can be filtered"),
        _ => Check::missing(
            "seccomp",
            "the kernel filters no system calls",
            "a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}
