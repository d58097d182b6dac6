//! The overlay of a container's root, in the three ways that kernels take its layers.
//!
//! Which way works is found out by trying, once per [`Helper`](super::Helper), never by a version number. Names come
//! from [`place`] and from here only, so nothing in them ever needs escaping.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::error::{Result, SandboxError, Step as _};
use super::lower::Lower;
use super::mount::{self, NODEV, NOEXEC, NOSUID, Param, RDONLY};
use super::place::{self, Attached, OWN};
use super::userns::Namespace;

/// mount(2) takes one page of options and silently cuts what is longer, layers and all: a wrong image, and no error.
/// Pages are larger on some machines, never smaller. The last byte is the kernel's NUL.
const MAX_OPTIONS_BYTES: usize = 4095;

/// Distributions change the defaults; redirects and metadata-only copies would make the upper unreadable alone.
const OPTIONS: [(&str, &str); 4] = [
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
    ("index", "off"),
    ("xino", "on"),
];
/// The same in a user namespace, where marks are `user.*` attributes; with them the kernel refuses to hear of the rest.
const OPTIONS_INSIDE: [(&str, &str); 3] = [("userxattr", ""), ("index", "off"), ("xino", "on")];
/// An upper is used once and packed by this process, so what a crash leaves is never trusted.
const VOLATILE: &str = "volatile";

/// How the kernel takes layers. In order of preference; each is there for kernels that refuse the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// As mounts that are attached nowhere, by descriptor. Linux 6.15.
    Detached,
    /// Attached in the namespace of the process that mounts the overlay, by one `lowerdir+` each. Linux 6.8.
    Added,
    /// Attached as before, all in one option of mount(2).
    Listed,
}

impl Way {
    /// Returns the first way that works on this kernel, by mounting an overlay of two empty layers.
    pub(super) fn find() -> Result<Self> {
        let tmpfs = mount::tmpfs(1 << 20, "0700", NOSUID | NODEV | NOEXEC).map_err(unusable)?;
        for name in ["a", "b", "root"] {
            rustix::fs::mkdirat(&tmpfs, name, Mode::RWXU).step(format!("make the directory {name}"))?;
        }
        if worked(detached(tmpfs.as_fd()))? {
            return Ok(Self::Detached);
        }
        let attached = Attached::new(tmpfs.as_fd())?;
        let below = |name: &str| place::path(&format!("{}/{name}", place::name(attached.number())));
        let layers = [below("a"), below("b")];
        if worked(mount::create("overlay", &params(&added(&layers), None), RDONLY))? {
            return Ok(Self::Added);
        }
        let root = below("root");
        mount_listed(&listed(&layers, None)?, &root)
            .and_then(|()| Ok(rustix::mount::unmount(&root, UnmountFlags::DETACH)?))
            .map_err(unusable)?;
        Ok(Self::Listed)
    }
}

/// Tries what [`Way::Detached`] needs: layers, and clones of what is on them, from a mount that is attached nowhere.
fn detached(tmpfs: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let open = |name| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(tmpfs, name, flags, Mode::empty())
    };
    let (a, b) = (open("a")?, open("b")?);
    mount::bind(tmpfs, "root", RDONLY)?;
    overlay(&[a.as_fd(), b.as_fd()], None)
}

/// Says whether a try worked; an error is one that says nothing about the kernel.
fn worked(tried: io::Result<OwnedFd>) -> Result<bool> {
    match tried {
        Ok(_) => Ok(true),
        Err(error) => match Errno::from_raw_os_error(mount::errno_of(&error)) {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Err(error).step("mount an overlay"),
            Errno::NODEV => Err(unusable(error)),
            _ => Ok(false),
        },
    }
}

/// Names what this machine lacks for containers.
fn unusable(error: io::Error) -> SandboxError {
    let missing = match Errno::from_raw_os_error(mount::errno_of(&error)) {
        Errno::NODEV => "overlayfs (the kernel has no such file system, and no module of it)",
        Errno::NOSYS => "fsopen(2) and mount_setattr(2) (Linux 5.12)",
        _ => {
            return SandboxError::System {
                step: "mount an overlay".to_owned(),
                source: error,
            };
        }
    };
    SandboxError::Missing { missing }
}

/// Mounts the overlay, detached, in the first way. `lowers` top first, `base` as in [`Upper`](super::Upper).
pub(super) fn overlay(lowers: &[BorrowedFd<'_>], base: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let opened = |name: &str| -> std::result::Result<Option<OwnedFd>, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        base.map(|base| rustix::fs::openat(base, name, flags, Mode::empty()))
            .transpose()
    };
    let (upper, work) = (opened("upper")?, opened("work")?);
    let lowers: Vec<_> = lowers.iter().map(|fd| Param::Fd("lowerdir+", *fd)).collect();
    let changes = upper.as_ref().zip(work.as_ref()).map(|(upper, work)| {
        [
            Param::Fd("upperdir", upper.as_fd()),
            Param::Fd("workdir", work.as_fd()),
        ]
    });
    // No device node of an image or of a RUN can be opened: CAP_MKNOD is part of the profile.
    mount::create("overlay", &params(&lowers, changes), NODEV)
}

/// Mounts an overlay in this process, attached nowhere, whichever the way. `lowers` top first; `base` as in
/// [`overlay`], good for one overlay.
pub(super) fn mount_here(way: Way, lowers: &[&Lower], base: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let step = "mount the layers of a mount";
    if way == Way::Detached {
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.mounted()).collect();
        return overlay(&lowers, base).step(step);
    }
    let attached = base.map(Attached::new).transpose()?;
    let changes = attached.as_ref().map(|base| {
        let base = place::path(&place::name(base.number()));
        [format!("{base}/upper"), format!("{base}/work")]
    });
    let names: Vec<String> = lowers
        .iter()
        .map(|lower| Ok(place::path(&place::name(lower.attach()?))))
        .collect::<Result<_>>()?;
    if way == Way::Added {
        let changes = changes
            .as_ref()
            .map(|[upper, work]| [Param::Text("upperdir", upper), Param::Text("workdir", work)]);
        return mount::create("overlay", &params(&added(&names), changes), NODEV).step(step);
    }
    // mount(2) mounts on a directory only; the clone of what it mounted there is attached nowhere.
    let tmpfs = mount::tmpfs(1 << 16, "0700", NOSUID | NODEV | NOEXEC).step(step)?;
    rustix::fs::mkdirat(&tmpfs, "root", Mode::RWXU).step(step)?;
    let beside = Attached::new(tmpfs.as_fd())?;
    let root = place::path(&format!("{}/root", place::name(beside.number())));
    mount_listed(&listed(&names, changes.as_ref())?, &root).step(step)?;
    let cloned = place::open_below(&root).and_then(|root| mount::bind(root.as_fd(), "", NODEV));
    rustix::mount::unmount(&root, UnmountFlags::DETACH).step(step)?;
    cloned.step(step)
}

/// What a root is assembled from in the ways other than [`Way::Detached`].
pub(super) struct Parts<'a> {
    /// [`Way::Added`] or [`Way::Listed`].
    pub(super) way: Way,
    /// Top first, as [`Attached::number`] says.
    pub(super) lowers: &'a [u32],
    /// The detached mount with the upper and work directory.
    pub(super) base: Option<BorrowedFd<'a>>,
    /// The detached tmpfs with the mountpoints, the bottom-most lower.
    pub(super) provision: BorrowedFd<'a>,
    /// What of it is that lower.
    pub(super) stubs: &'a str,
}

impl Parts<'_> {
    /// Mounts the overlay in the container's mount namespace, where `provision` and `base` are attached from then on.
    /// Changes the working directory.
    pub(super) fn assemble(&self) -> Result<OwnedFd> {
        let step = "mount the root's layers";
        place::enter().setup("enter the directory of the layers")?;
        mount::attach_at(self.provision, OWN).setup("attach the container's own files")?;
        let own = |name: &str| format!("{OWN}/{name}");
        let mountpoint = |name: &str| {
            rustix::fs::mkdirat(self.provision, name, Mode::RWXU)
                .setup(format!("make the mountpoint {name}"))
                .map(|()| own(name))
        };
        let changes = match self.base {
            Some(base) => {
                let changes = mountpoint("changes")?;
                mount::attach_at(base, &changes).setup("attach the directory for changes")?;
                Some([format!("{changes}/upper"), format!("{changes}/work")])
            }
            None => None,
        };
        let mut lowers: Vec<String> = self.lowers.iter().map(|number| place::name(*number)).collect();
        lowers.push(own(self.stubs));
        if self.way == Way::Added {
            let changes = changes
                .as_ref()
                .map(|[upper, work]| [Param::Text("upperdir", upper), Param::Text("workdir", work)]);
            return mount::create("overlay", &params(&added(&lowers), changes), NODEV).setup(step);
        }
        let root = mountpoint("root")?;
        mount_listed(&listed(&lowers, changes.as_ref())?, &root).setup(step)?;
        place::open_below(&root).setup(step)
    }
}

/// Returns the options that every overlay of this process has; a flag has no value.
fn options() -> &'static [(&'static str, &'static str)] {
    match Namespace::current().is_initial() {
        true => &OPTIONS,
        false => &OPTIONS_INSIDE,
    }
}

fn added(lowers: &[String]) -> Vec<Param<'_>> {
    lowers.iter().map(|name| Param::Text("lowerdir+", name)).collect()
}

/// Returns an overlay's parameters. `changes` are the two for its upper, if it has one.
fn params<'a>(lowers: &[Param<'a>], changes: Option<[Param<'a>; 2]>) -> Vec<Param<'a>> {
    let mut params = vec![Param::Text("source", "overlay")];
    params.extend_from_slice(lowers);
    if let Some(changes) = changes {
        params.extend(changes);
        params.push(Param::Flag(VOLATILE));
    }
    params.extend(options().iter().map(|&(key, value)| match value {
        "" => Param::Flag(key),
        value => Param::Text(key, value),
    }));
    params
}

/// Returns the same parameters as mount(2) takes them, or an error where it would cut them.
fn listed(lowers: &[String], changes: Option<&[String; 2]>) -> Result<CString> {
    let mut options = format!("lowerdir={}", lowers.join(":"));
    if let Some([upper, work]) = changes {
        options.push_str(&format!(",upperdir={upper},workdir={work},{VOLATILE}"));
    }
    for (key, value) in self::options() {
        options.push_str(&format!(",{key}"));
        if !value.is_empty() {
            options.push_str(&format!("={value}"));
        }
    }
    if options.len() > MAX_OPTIONS_BYTES {
        return Err(SandboxError::Refused {
            reason: format!(
                "{} layers are more than this kernel takes: their names fill {} bytes of {MAX_OPTIONS_BYTES}; \
                 Linux 6.8 has no such limit",
                lowers.len(),
                options.len(),
            ),
        });
    }
    Ok(CString::new(options).expect("because the names have no NUL"))
}

fn mount_listed(options: &CString, target: &str) -> io::Result<()> {
    let options = options.as_c_str();
    Ok(rustix::mount::mount(
        "overlay",
        target,
        "overlay",
        MountFlags::NODEV,
        options,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_never_longer_than_what_mount_takes() {
        let check = |number: u32, n_lowers: usize, expected: std::result::Result<usize, usize>| {
            let lowers = vec![place::name(number); n_lowers];
            let changes = ["own/changes/upper", "own/changes/work"].map(str::to_owned);
            match (listed(&lowers, Some(&changes)), expected) {
                (Ok(options), Ok(length)) => assert_eq!(options.as_bytes().len(), length),
                (Err(SandboxError::Refused { reason }), Err(length)) => {
                    let needed = format!("their names fill {length} bytes of 4095");
                    assert!(reason.contains(&needed), "{reason}");
                }
                (found, _) => panic!("{n_lowers} times {number}: {found:?}"),
            }
        };
        check(1, 1, Ok(124));
        check(1, 500, Ok(1122));
        check(99_999, 500, Ok(3122));
        check(9_999_999, 496, Ok(4090));
        check(9_999_999, 497, Err(4098));
        check(9_999_999, 500, Err(4122));
    }
}
