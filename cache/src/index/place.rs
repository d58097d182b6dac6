//! Where the index lies, and what it can be there: not every file system has memory that all who open a file share.

use std::path::Path;

use rustix::fs::FsWord;

/// File systems of other machines. Spec: linux/magic.h.
const REMOTE: [FsWord; 6] = [
    // NFS, 9p, CIFS, SMB2, Ceph, AFS
    0x6969,
    0x0102_1997,
    0xFF53_4D42,
    0xFE53_4D42,
    0x00C3_6400,
    0x5346_414F,
];

/// Returns the kind of journal that SQLite can have at `path`: the fast one needs shared memory, which the processes of
/// several machines don't have. Spec: sqlite.org/wal.html.
pub(super) fn journal(path: &Path) -> &'static str {
    // The file itself may not be there yet.
    let dir = path.parent().map(rustix::fs::statfs);
    match dir {
        Some(Ok(fs)) => journal_on(fs.f_type),
        _ => "wal",
    }
}

fn journal_on(kind: FsWord) -> &'static str {
    match REMOTE.contains(&kind) {
        true => "delete",
        false => "wal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_machines_of_their_own_share_memory() {
        // hardening R08: NFS, 9p and their like are found out; ext4, tmpfs, overlayfs and btrfs are not among them
        let check = |kind: FsWord, expected: &str| assert_eq!(journal_on(kind), expected, "{kind:x}");
        check(0x6969, "delete");
        check(0x0102_1997, "delete");
        check(0xFE53_4D42, "delete");
        check(0xEF53, "wal");
        check(0x0102_1994, "wal");
        check(0x794c_7630, "wal");
        check(0x9123_683E, "wal");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(journal(&dir.path().join("not there yet")), "wal");
    }
}
