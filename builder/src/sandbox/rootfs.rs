//! The container's file tree: mountpoints, `/proc`, `/sys`, `/dev`, masks, and the files that are there during the run.
//!
//! The tree is the image's, so it is hostile: every path is resolved below the root's descriptor, component by component
//! where something is made, and mounts go onto descriptors. `/proc`, `/sys` and `/dev` must be real directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::error::{Result, SandboxError, Step as _};
use super::mount::{self, NODEV, NOEXEC, NOSUID, Param, RDONLY};
use super::overlay::{Parts, Way};
use super::profile::{DEVICE_LINKS, DEVICES, MASKED, READ_ONLY};
use super::spec::Settings;

/// A path of more components than this can't be opened anyway (PATH_MAX).
const MAX_COMPONENTS: usize = 2048;

/// The directory with the mountpoints.
const STUBS: &str = "stubs";

/// What a mount goes onto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
}

/// A small tmpfs with everything that is put into containers: the mountpoints as a lower layer of its own (so that they
/// never enter the upper), device nodes, generated files, and an empty directory for masks.
pub(super) struct Provision {
    mount: OwnedFd,
    stubs: OwnedFd,
}

impl Provision {
    /// Makes the tmpfs. The umask must be 0.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let content = settings.scripts.values().map(String::len).sum::<usize>();
        let content = content
            .saturating_add(settings.hosts.len())
            .saturating_add(settings.resolv_conf.len());
        let size = (content as u64).saturating_mul(2).saturating_add(4 << 20);
        let mount =
            mount::tmpfs(size, "0755", NOSUID).setup("mount a tmpfs for the container's own files")?;
        for directory in [STUBS, "empty"] {
            mkdir(mount.as_fd(), directory)?;
        }
        for &(name, major, minor) in DEVICES {
            let mode = Mode::from_raw_mode(0o666);
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(&mount, name, FileType::CharacterDevice, mode, device)
                .setup(format!("make the device {name}"))?;
        }
        write(mount.as_fd(), "hosts", &settings.hosts, 0o644)?;
        write(mount.as_fd(), "resolv.conf", &settings.resolv_conf, 0o644)?;
        for (number, text) in settings.scripts.values().enumerate() {
            write(mount.as_fd(), &format!("script-{number}"), text, 0o755)?;
        }
        let stubs = open_path(mount.as_fd(), STUBS).setup("open the mountpoints")?;
        for name in ["proc", "sys", "dev"] {
            mkdir(stubs.as_fd(), name)?;
        }
        for path in ["etc/hosts", "etc/resolv.conf"] {
            place(stubs.as_fd(), path, Kind::File)?;
        }
        for path in settings.scripts.keys().filter(|path| !path.starts_with("/dev/")) {
            place(stubs.as_fd(), path, Kind::File)?;
        }
        Ok(Self { mount, stubs })
    }

    /// The mountpoints, to be the bottom-most lower.
    pub(super) fn stubs(&self) -> BorrowedFd<'_> {
        self.stubs.as_fd()
    }

    /// Returns what the root is assembled from, in the ways that need the tmpfs attached for it.
    pub(super) fn parts<'a>(
        &'a self,
        way: Way,
        lowers: &'a [u32],
        base: Option<BorrowedFd<'a>>,
    ) -> Parts<'a> {
        Parts {
            way,
            lowers,
            base,
            provision: self.mount.as_fd(),
            stubs: STUBS,
        }
    }

    fn bind(&self, name: &str, attr: rustix::mount::MountAttrFlags) -> Result<OwnedFd> {
        mount::bind(self.mount.as_fd(), name, attr).setup(format!("clone the container's {name}"))
    }
}

/// Mounts everything of the profile into `root`, which is attached already.
pub(super) fn furnish(root: BorrowedFd<'_>, provision: &Provision, settings: &Settings) -> Result<()> {
    let kernel = NOSUID | NOEXEC | NODEV;
    mount_at(root, "proc", "proc", &[Param::Text("source", "proc")], kernel)?;
    mount_at(
        root,
        "sys",
        "sysfs",
        &[Param::Text("source", "sysfs")],
        kernel | RDONLY,
    )?;
    devices(root, provision, settings)?;
    for name in ["hosts", "resolv.conf"] {
        put(
            root,
            &format!("etc/{name}"),
            &provision.bind(name, kernel | RDONLY)?,
        )?;
    }
    for (number, path) in settings.scripts.keys().enumerate() {
        let script = provision.bind(&format!("script-{number}"), NOSUID | NODEV | RDONLY)?;
        put(root, path, &script)?;
    }
    protect(root, provision)
}

/// Makes `/dev`. It is `nodev`, and its nodes are mounts: CAP_MKNOD would open every device of the machine otherwise.
fn devices(root: BorrowedFd<'_>, provision: &Provision, settings: &Settings) -> Result<()> {
    let tmpfs = [
        Param::Text("source", "tmpfs"),
        Param::Text("mode", "755"),
        Param::Text("size", "65536k"),
    ];
    let strictatime = rustix::mount::MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = mount_at(root, "dev", "tmpfs", &tmpfs, NOSUID | NODEV | strictatime)?;
    for &(name, major, minor) in DEVICES {
        write(dev.as_fd(), name, "", 0o666)?;
        let node = provision.bind(name, NOSUID | NOEXEC)?;
        verify_device(node.as_fd(), name, major, minor)?;
        let target = open_path(dev.as_fd(), name).setup(format!("open /dev/{name}"))?;
        mount::attach(node.as_fd(), target.as_fd()).setup(format!("mount /dev/{name}"))?;
    }
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(*target, &dev, *name).setup(format!("make the link /dev/{name}"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        mkdir(dev.as_fd(), name)?;
    }
    let pts = [
        Param::Text("source", "devpts"),
        Param::Flag("newinstance"),
        Param::Text("ptmxmode", "0666"),
        Param::Text("mode", "0620"),
        Param::Text("gid", "5"),
    ];
    mount_at(dev.as_fd(), "pts", "devpts", &pts, NOSUID | NOEXEC)?;
    let size = settings.shm_size_bytes.to_string();
    let shm = [
        Param::Text("source", "shm"),
        Param::Text("mode", "1777"),
        Param::Text("size", &size),
    ];
    mount_at(dev.as_fd(), "shm", "tmpfs", &shm, NOSUID | NOEXEC | NODEV)?;
    let mqueue = [Param::Text("source", "mqueue")];
    mount_at(dev.as_fd(), "mqueue", "mqueue", &mqueue, NOSUID | NOEXEC | NODEV)?;
    Ok(())
}

/// Opens the container's own terminal multiplexer.
pub(super) fn open_terminal(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat2(
        root,
        "dev/pts/ptmx",
        flags,
        Mode::empty(),
        inside() | ResolveFlags::NO_SYMLINKS,
    )
    .setup("open the container's terminal")
}

/// Masks what tells about the machine and makes read-only what would change it.
fn protect(root: BorrowedFd<'_>, provision: &Provision) -> Result<()> {
    for path in READ_ONLY {
        let Some(target) = find(root, path)? else { continue };
        let tree = mount::bind_tree(target.as_fd(), "", RDONLY | NOSUID | NODEV | NOEXEC);
        let tree = tree.setup(format!("clone /{path}"))?;
        mount::attach(tree.as_fd(), target.as_fd()).setup(format!("make /{path} read-only"))?;
    }
    let throttles =
        (0..possible_cpus(root)).map(|cpu| format!("sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    for path in MASKED.iter().map(|path| (*path).to_owned()).chain(throttles) {
        let Some(target) = find(root, &path)? else {
            continue;
        };
        let kind = FileType::from_raw_mode(
            rustix::fs::fstat(&target)
                .setup(format!("look at /{path}"))?
                .st_mode,
        );
        let mask = if kind == FileType::Directory {
            provision.bind("empty", RDONLY | NOSUID | NODEV | NOEXEC)?
        } else {
            let null = provision.bind("null", NOSUID | NOEXEC)?;
            verify_device(null.as_fd(), "null", 1, 3)?;
            null
        };
        mount::attach(mask.as_fd(), target.as_fd()).setup(format!("mask /{path}"))?;
    }
    Ok(())
}

/// Returns how many CPUs the kernel may number; 0 where it doesn't say.
fn possible_cpus(root: BorrowedFd<'_>) -> u32 {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = "sys/devices/system/cpu/possible";
    let resolve = inside() | ResolveFlags::NO_SYMLINKS;
    let Ok(file) = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) else {
        return 0;
    };
    let mut text = [0; 64];
    let n = rustix::io::read(&file, &mut text).unwrap_or(0);
    let text = String::from_utf8_lossy(text.get(..n).unwrap_or_default()).into_owned();
    let last = text
        .trim()
        .rsplit(['-', ','])
        .next()
        .and_then(|last| last.parse::<u32>().ok());
    last.map_or(0, |last| last.saturating_add(1).min(8192))
}

fn verify_device(node: BorrowedFd<'_>, name: &str, major: u32, minor: u32) -> Result<()> {
    let stat = rustix::fs::fstat(node).setup(format!("look at /dev/{name}"))?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(major, minor);
    if is_device {
        Ok(())
    } else {
        refused(format!("/dev/{name} is not the device {major}:{minor}"))
    }
}

/// Mounts a new file system onto a real directory directly below `dir`, and returns its root.
fn mount_at(
    dir: BorrowedFd<'_>,
    name: &str,
    kind: &str,
    params: &[Param<'_>],
    attr: rustix::mount::MountAttrFlags,
) -> Result<OwnedFd> {
    let target = open_path(dir, name).setup(format!("open the mountpoint {name}"))?;
    let found = FileType::from_raw_mode(
        rustix::fs::fstat(&target)
            .setup(format!("look at {name}"))?
            .st_mode,
    );
    if found != FileType::Directory {
        return refused(format!("the image's /{name} is not a directory"));
    }
    let mounted = mount::create(kind, params, attr).setup(format!("create a {kind}"))?;
    mount::attach(mounted.as_fd(), target.as_fd()).setup(format!("mount {kind} on {name}"))?;
    Ok(mounted)
}

/// Mounts a file onto `path`, over a symlink if the last component is one: its target is none of our business.
fn put(root: BorrowedFd<'_>, path: &str, file: &OwnedFd) -> Result<()> {
    let target = place(root, path, Kind::File)?;
    mount::attach(file.as_fd(), target.as_fd()).setup(format!("mount {path}"))
}

/// Opens the mountpoint `path`, and makes what is missing. The last component is never followed.
fn place(root: BorrowedFd<'_>, path: &str, kind: Kind) -> Result<OwnedFd> {
    let step = || format!("make the mountpoint {path}");
    let Some((parents, name)) = components(path)?
        .split_last()
        .map(|(name, parents)| (parents.to_vec(), *name))
    else {
        return refused("nothing can be mounted on /");
    };
    let parent = make_dirs(root, &parents, None)?;
    match open_path(parent.as_fd(), name) {
        Err(Errno::NOENT) => {
            match kind {
                Kind::File => write(parent.as_fd(), name, "", 0o644)?,
                Kind::Directory => mkdir(parent.as_fd(), name)?,
            }
            open_path(parent.as_fd(), name).setup(step())
        }
        found => {
            let found = found.setup(step())?;
            let mode = rustix::fs::fstat(&found).setup(step())?.st_mode;
            let is_directory = FileType::from_raw_mode(mode) == FileType::Directory;
            if is_directory == (kind == Kind::Directory) {
                Ok(found)
            } else {
                refused(format!("{path} is of the wrong type to mount on"))
            }
        }
    }
}

/// Opens the working directory; what is missing of it is made, 0755 and owned by the user.
pub(super) fn working_directory(root: BorrowedFd<'_>, path: &str, uid: u32, gid: u32) -> Result<OwnedFd> {
    let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
    make_dirs(root, &components(path)?, Some(owner))
}

/// Opens a directory inside the root, links resolved inside the root, and makes what is missing.
fn make_dirs(root: BorrowedFd<'_>, names: &[&str], owner: Option<(Uid, Gid)>) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |names: &[&str]| {
        let path = if names.is_empty() {
            ".".to_owned()
        } else {
            names.join("/")
        };
        rustix::fs::openat2(root, path, flags, Mode::empty(), inside())
    };
    let refuse = |errno: Errno, names: &[&str]| match errno {
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR => SandboxError::Refused {
            reason: format!(
                "/{} does not lead to a directory of the container",
                names.join("/")
            ),
        },
        errno => SandboxError::Setup {
            step: format!("open /{}", names.join("/")),
            source: errno.into(),
        },
    };
    match open(names) {
        Err(Errno::NOENT) => {}
        other => return other.map_err(|errno| refuse(errno, names)),
    }
    let mut parent = open(&[]).setup("open the root")?;
    for depth in 1..=names.len() {
        let prefix = names.get(..depth).unwrap_or(names);
        parent = match (open(prefix), prefix.last()) {
            (Err(Errno::NOENT), Some(name)) => {
                match rustix::fs::mkdirat(&parent, *name, Mode::from_raw_mode(0o755)) {
                    // There, and yet not found: a link that leads nowhere.
                    Err(Errno::EXIST) => return Err(refuse(Errno::LOOP, prefix)),
                    other => other.setup(format!("make the directory /{}", prefix.join("/")))?,
                }
                let made = open(prefix).map_err(|errno| refuse(errno, prefix))?;
                if let Some((uid, gid)) = owner {
                    rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                        .setup(format!("give the directory /{} to its user", prefix.join("/")))?;
                }
                made
            }
            (opened, _) => opened.map_err(|errno| refuse(errno, prefix))?,
        };
    }
    Ok(parent)
}

/// Splits a path; `..` is refused, because what it means depends on links.
fn components(path: &str) -> Result<Vec<&str>> {
    let names: Vec<&str> = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    if names.len() > MAX_COMPONENTS || names.contains(&"..") || path.contains('\0') {
        return refused(format!(
            "the path `{}` is not clean",
            path.chars().take(200).collect::<String>()
        ));
    }
    Ok(names)
}

/// Opens a file of `/proc` or `/sys`, which are ours; `None` if the kernel doesn't have it.
fn find(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = inside() | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.setup(format!("open /{path}")).map(Some),
    }
}

fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

fn open_path(dir: BorrowedFd<'_>, name: &str) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::openat(
        dir,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn mkdir(dir: BorrowedFd<'_>, name: &str) -> Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)).setup(format!("make the directory {name}"))
}

fn write(dir: BorrowedFd<'_>, name: &str, content: &str, mode: u32) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode)).setup(format!("make {name}"))?;
    let mut rest = content.as_bytes();
    while !rest.is_empty() {
        let n = rustix::io::write(&file, rest).setup(format!("write {name}"))?;
        rest = rest.get(n..).unwrap_or_default();
    }
    Ok(())
}

fn refused<T>(reason: impl Into<String>) -> Result<T> {
    Err(SandboxError::Refused {
        reason: reason.into(),
    })
}
