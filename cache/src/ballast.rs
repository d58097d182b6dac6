//! A file that stands for nothing but the room it takes: whoever has to make room on a full disk throws it off first, and
//! has some to work with. Without it nothing fails that wouldn't fail otherwise.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Names the file.
const NAME: &str = "ballast";
/// Enough for what the index writes when names are forgotten, and for a few directories.
const BYTES: usize = 256 << 10;
/// A file system may have room for no further file, too; a few are needed to remove others.
const FILES: u64 = 4;
/// So many times as much must be free: on a disk that is nearly full it would be in the way.
const PLENTY: u64 = 32;

/// Takes in ballast, if there is none and the disk has plenty of room. To fail at that is no harm.
pub(crate) fn take_in(root: &Path) {
    let path = root.join(NAME);
    let has_plenty = |free: Free| {
        free.bytes > PLENTY * BYTES as u64 && free.files.is_none_or(|files| files > PLENTY * FILES)
    };
    if path.exists() || !Free::on_disk_of(root).is_some_and(has_plenty) {
        return;
    }
    if write(&path).is_err() {
        let _ = std::fs::remove_file(&path);
    }
}

fn write(path: &Path) -> io::Result<()> {
    // File systems that compress would make nothing of zeros.
    let mut bytes = vec![0; BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&bytes)
}

/// Throws the ballast off if hardly anything is free.
pub(crate) fn throw_off(root: &Path) {
    let has_hardly_any =
        |free: Free| free.bytes < BYTES as u64 || free.files.is_some_and(|files| files < FILES);
    if Free::on_disk_of(root).is_some_and(has_hardly_any) {
        let _ = std::fs::remove_file(root.join(NAME));
    }
}

/// What there is room for.
struct Free {
    bytes: u64,
    /// `None` where the file system doesn't count them.
    files: Option<u64>,
}

impl Free {
    fn on_disk_of(root: &Path) -> Option<Self> {
        let disk = rustix::fs::statvfs(root).ok()?;
        Some(Self {
            bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            files: (disk.f_files > 0).then_some(disk.f_favail),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn ballast_takes_room_and_stays_while_there_is_some() {
        let dir = tempfile::tempdir().unwrap();
        let occupied = || std::fs::metadata(dir.path().join(NAME)).map_or(0, |meta| meta.blocks() * 512);
        throw_off(dir.path());
        take_in(dir.path());
        take_in(dir.path());
        throw_off(dir.path());
        assert!(occupied() >= BYTES as u64);
    }
}
