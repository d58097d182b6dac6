//! What builds use of the machine beside containers: the store's place, networks, limits, emulators, programs.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Check;
use crate::sandbox::userns::program_in_path;

/// Less free space than this is worth a word.
const LITTLE_SPACE_BYTES: u64 = 2 << 30;

/// Checks all of them.
pub(super) fn all(store_root: &Path) -> Vec<Check> {
    vec![store(store_root), cgroup(), network(), emulators(), git()]
}

/// Returns the directory, or the nearest above it that is there.
pub(super) fn existing(path: &Path) -> &Path {
    let mut above = path.ancestors();
    above.find(|dir| dir.is_dir()).unwrap_or(Path::new("/"))
}

fn store(root: &Path) -> Check {
    const NAME: &str = "store";
    let place = root.display();
    match std::fs::symlink_metadata(root) {
        // What `Store::open` refuses, and in the same cases.
        Ok(meta)
            if !meta.is_dir()
                || meta.uid() != rustix::process::geteuid().as_raw()
                || meta.mode() & 0o022 != 0 =>
        {
            return Check::missing(
                NAME,
                format!("{place} belongs to another user, is writable by others, or is no directory"),
                "a directory of your own, mode 0700: --root DIR or ASHLAR_ROOT",
            );
        }
        Ok(_) => {}
        Err(_) if rustix::fs::access(existing(root), rustix::fs::Access::WRITE_OK).is_err() => {
            return Check::missing(
                NAME,
                format!("{place} can't be made"),
                "a directory that you may write: --root DIR or ASHLAR_ROOT",
            );
        }
        Err(_) => {}
    }
    let near = existing(root);
    let (Ok(fs), Ok(space)) = (rustix::fs::statfs(near), rustix::fs::statvfs(near)) else {
        return Check::limited(
            NAME,
            format!("{place}: its file system doesn't answer"),
            "another directory",
        );
    };
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let kind = file_system(fs.f_type);
    let found = format!("{place} on {kind}, {} MiB free", free_bytes >> 20);
    match kind {
        "overlayfs" => Check::limited(
            NAME,
            found,
            "a volume that isn't overlayfs: here what a step changes must fit in memory, and layers can't be unpacked",
        ),
        "nfs" | "fuse" => Check::limited(
            NAME,
            found,
            "a local file system: locks and attributes are needed",
        ),
        _ if free_bytes < LITTLE_SPACE_BYTES => Check::limited(NAME, found, "more free space"),
        _ => Check::ok(NAME, found),
    }
}

/// Names a file system. Spec: linux/magic.h.
fn file_system(magic: rustix::fs::FsWord) -> &'static str {
    match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x2FC1_2FC1 => "zfs",
        0xF2F5_2010 => "f2fs",
        _ => "another file system",
    }
}

/// Looks for a cgroup that this user may make others in: with it limits can be set.
fn cgroup() -> Check {
    const NAME: &str = "cgroup";
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let writable = |dir: &PathBuf| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
    let below = |mount: &str, path: &str| PathBuf::from(format!("{mount}{path}"));
    if let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) {
        let dir = below("/sys/fs/cgroup", path.trim_end_matches('/'));
        if let Ok(controllers) = std::fs::read_to_string(dir.join("cgroup.controllers")) {
            return match writable(&dir) {
                true => Check::ok(NAME, format!("v2, delegated, with {}", controllers.trim())),
                false => Check::limited(
                    NAME,
                    "v2, not delegated to this user",
                    "systemd-run --user --scope -p Delegate=yes ashlar …; without, there are no limits",
                ),
            };
        }
    }
    let memory = own
        .lines()
        .find_map(|line| line.split_once(":memory:").map(|(_, path)| path));
    match memory.map(|path| below("/sys/fs/cgroup/memory", path.trim_end_matches('/'))) {
        Some(dir) if writable(&dir) => Check::ok(NAME, "v1, writable"),
        Some(_) => Check::limited(
            NAME,
            "v1, not writable by this user",
            "root, or cgroup v2 with delegation",
        ),
        None => Check::limited(
            NAME,
            "none",
            "mount cgroup2 on /sys/fs/cgroup; without, there are no limits",
        ),
    }
}

fn network() -> Check {
    const NAME: &str = "network";
    let program = ["pasta", "slirp4netns"]
        .into_iter()
        .find(|program| program_in_path(program).is_some());
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    match (program, tun) {
        (Some(program), Ok(_)) => Check::ok(NAME, format!("{program} and /dev/net/tun")),
        (None, _) => Check::limited(
            NAME,
            "neither pasta nor slirp4netns is installed",
            "install passt or slirp4netns; without, RUN uses the host's network unless it is told --network=none",
        ),
        (Some(program), Err(error)) => Check::limited(
            NAME,
            format!("{program}, but /dev/net/tun: {error}"),
            "make /dev/net/tun usable (modprobe tun, mode 0666); without, RUN uses the host's network",
        ),
    }
}

/// Looks at what executes programs of other machines; flag F makes it work in containers.
fn emulators() -> Check {
    let listed = std::fs::read_dir("/proc/sys/fs/binfmt_misc")
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = listed
        .filter(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            text.starts_with("enabled")
                && text
                    .lines()
                    .any(|line| line.starts_with("flags:") && line.contains('F'))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    match names.is_empty() {
        false => Check::ok("emulators", names.join(", ")),
        true => Check::limited(
            "emulators",
            "none that containers can use",
            "qemu-user-static with binfmt-support (Debian), for RUN of other platforms only",
        ),
    }
}

fn git() -> Check {
    match program_in_path("git") {
        Some(path) => Check::ok("git", path.display().to_string()),
        None => Check::limited(
            "git",
            "not installed",
            "install git, for contexts and ADD from repositories only",
        ),
    }
}
