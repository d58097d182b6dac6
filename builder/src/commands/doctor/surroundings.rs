//! What builds use of the machine beside containers: the store's place, and git.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Check;
use crate::sandbox::userns::program_in_path;

/// Less free space than this is worth a word.
const LITTLE_SPACE_BYTES: u64 = 2 << 30;

/// Checks all of them.
pub(super) fn all(store_root: &Path) -> Vec<Check> {
    vec![store(store_root), git()]
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
        "nfs" | "9p" | "smb" | "ceph" | "fuse" => Check::limited(
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
        0x0102_1997 => "9p",
        0xFF53_4D42 | 0xFE53_4D42 => "smb",
        0x00C3_6400 => "ceph",
        0x6573_5546 => "fuse",
        0x2FC1_2FC1 => "zfs",
        0xF2F5_2010 => "f2fs",
        _ => "another file system",
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
