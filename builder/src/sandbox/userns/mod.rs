//! The user namespace that this process is in: which ids it has, and how an ordinary user's process gets into one.
//!
//! A build enters once, before any thread starts (`enter`); every container then is made as root makes it, and what
//! differs asks [`Namespace::current`]. Ids are those of the inside everywhere: 0 is the user who runs the build. Nothing
//! here mounts anything or knows of containers.

mod enter;
mod map;

use std::sync::OnceLock;

pub(super) use enter::refusal;
pub(crate) use enter::{Entered, enter, has_rights, program_in_path};
pub(crate) use map::IdMap;

use super::error::{Result, SandboxError};

/// The inode number of the machine's own user namespace. Spec: linux/nsfs.h, PROC_USER_INIT_INO.
const INITIAL: u64 = 0xEFFF_FFFD;

/// The user namespace of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    is_initial: bool,
    uids: IdMap,
    gids: IdMap,
    /// Whether processes may choose their supplementary groups.
    has_groups: bool,
}

impl Namespace {
    /// Returns the namespace that this process is in. To be asked only after [`enter`]: the answer is kept.
    pub(crate) fn current() -> &'static Self {
        static CURRENT: OnceLock<Namespace> = OnceLock::new();
        CURRENT.get_or_init(Self::read)
    }

    /// Reads what the kernel says. Where it says nothing (no `/proc`) this is the machine's own namespace.
    pub(crate) fn read() -> Self {
        let map = |path| {
            std::fs::read_to_string(path).map_or_else(|_| IdMap::initial(), |text| IdMap::parse(&text))
        };
        let setgroups = std::fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
        // A map alone doesn't tell: root's own ids may have been passed on whole.
        let number = rustix::fs::stat("/proc/self/ns/user").map_or(INITIAL, |stat| stat.st_ino);
        Self {
            is_initial: number == INITIAL,
            uids: map("/proc/self/uid_map"),
            gids: map("/proc/self/gid_map"),
            has_groups: setgroups.trim() != "deny",
        }
    }

    /// Says whether this is the machine's own namespace, where root is root.
    pub(crate) fn is_initial(&self) -> bool {
        self.is_initial
    }

    /// Says whether there is one user only.
    pub(crate) fn is_single(&self) -> bool {
        self.uids.n_ids() <= 1
    }

    /// Says whether the group exists.
    pub(super) fn has_group(&self, gid: u32) -> bool {
        self.gids.contains(gid)
    }

    /// Says whether supplementary groups can be set.
    pub(super) fn has_groups(&self) -> bool {
        self.has_groups
    }

    /// Returns an error that says what to do, unless user and group exist here. `what` is what belongs to them.
    pub(crate) fn require(&self, what: impl FnOnce() -> String, uid: u32, gid: u32) -> Result<()> {
        if self.uids.contains(uid) && self.gids.contains(gid) {
            return Ok(());
        }
        Err(SandboxError::UnknownId {
            what: what(),
            uid,
            gid,
            n_uids: self.uids.n_ids(),
        })
    }

    /// Returns a name for what is on disk with the owners of this namespace; `None` where ids are the machine's.
    pub(crate) fn tag(&self) -> Option<String> {
        let maps = format!("{}/{}", self.uids, self.gids);
        (!self.is_initial()).then(|| {
            cache::Digest::of(maps.as_bytes())
                .hex()
                .chars()
                .take(12)
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(uids: &str, gids: &str) -> Namespace {
        Namespace {
            is_initial: uids == "0 0 4294967295",
            uids: IdMap::parse(uids),
            gids: IdMap::parse(gids),
            has_groups: true,
        }
    }

    #[test]
    fn what_exists_and_what_does_not() {
        let check = |found: &Namespace, uid: u32, gid: u32, expected: bool| {
            let required = found.require(|| "/x".to_owned(), uid, gid);
            assert_eq!(required.is_ok(), expected, "{uid}:{gid} in {found:?}");
        };
        let initial = namespace("0 0 4294967295", "0 0 4294967295");
        check(&initial, 4_000_000_000, 7, true);
        assert!(initial.is_initial() && !initial.is_single() && initial.tag().is_none());
        let single = namespace("0 1000 1", "0 1000 1");
        check(&single, 0, 0, true);
        check(&single, 1, 0, false);
        check(&single, 0, 5, false);
        assert!(single.is_single() && !single.is_initial());
        let full = namespace("0 1000 1\n1 100000 65536", "0 1000 1\n1 200000 65536");
        check(&full, 65536, 65536, true);
        check(&full, 65537, 0, false);
        assert_ne!(full.tag(), single.tag(), "owners on disk differ");
    }

    #[test]
    fn an_id_that_is_missing_is_explained() {
        let single = namespace("0 1000 1", "0 1000 1");
        let error = single.require(|| "/home/app".to_owned(), 1000, 1000).unwrap_err();
        let text = error.to_string();
        for word in ["/home/app", "1000:1000", "/etc/subuid", "/etc/subgid", "uidmap"] {
            assert!(text.contains(word), "{text}");
        }
    }
}
