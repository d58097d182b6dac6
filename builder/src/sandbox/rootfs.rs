//! The container's file tree: mountpoints, `/proc`, `/sys`, `/dev`, masks, and the files that are there during the run.
//!
//! The tree is the image's, so it is hostile: every path is resolved below the root's descriptor, component by component
//! where something is made, and mounts go onto descriptors. `/proc`, `/sys` and `/dev` must be real directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::attach::{Kind, Point};
use super::error::{Result, SandboxError, Step as _};
use super::init::Init;
use super::mount::{self, NODEV, NOEXEC, NOSUID, Param, RDONLY};
use super::overlay::{Parts, Way};
use super::profile::{DEVICE_LINKS, DEVICES, MASKED, READ_ONLY};
use super::spec::{Privilege, Settings};
use super::targets::{self, Made, times_of};
use super::userns::Namespace;

/// A path of more components than this can't be opened anyway (PATH_MAX).
const MAX_COMPONENTS: usize = 2048;

/// The directory with the mountpoints.
const STUBS: &str = "stubs";

/// What the tmpfs with a container's own files may hold; mountpoints take a page each.
const ROOM_BYTES: u64 = 4 << 20;
/// As much more is there for the content of files before anybody knows how much there is.
const SPARE_BYTES: u64 = 1 << 20;

/// A small tmpfs with everything that is put into containers: the mountpoints as a lower layer of its own (so that they
/// never enter the upper), device nodes, generated files, and an empty directory for masks.
pub(super) struct Provision {
    mount: OwnedFd,
    stubs: OwnedFd,
}

impl Provision {
    /// Makes the tmpfs, with what is the same for every container. The umask must be 0.
    pub(super) fn new() -> Result<Self> {
        Self::sized(ROOM_BYTES + SPARE_BYTES)
    }

    fn sized(size_bytes: u64) -> Result<Self> {
        let mount =
            mount::tmpfs(size_bytes, "0755", NOSUID).setup("mount a tmpfs for the container's own files")?;
        for directory in [STUBS, "empty"] {
            mkdir(mount.as_fd(), directory)?;
        }
        // In a user namespace nobody can make them; there the machine's own are used.
        for &(name, major, minor) in DEVICES.iter().filter(|_| Namespace::current().is_initial()) {
            let mode = Mode::from_raw_mode(0o666);
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(&mount, name, FileType::CharacterDevice, mode, device)
                .setup(format!("make the device {name}"))?;
        }
        let stubs = open_path(mount.as_fd(), STUBS).setup("open the mountpoints")?;
        for name in ["proc", "sys", "dev"] {
            mkdir(stubs.as_fd(), name)?;
        }
        for path in ["etc/hosts", "etc/resolv.conf"] {
            place(stubs.as_fd(), path, Kind::File, None)?;
        }
        Ok(Self { mount, stubs })
    }

    /// Adds what this container needs.
    pub(super) fn fill(self, settings: &Settings, points: &[Point]) -> Result<Self> {
        let content = settings.scripts.values().map(String::len).sum::<usize>();
        let content = content
            .saturating_add(settings.hosts.len())
            .saturating_add(settings.resolv_conf.len());
        let size = (content as u64).saturating_mul(2).saturating_add(ROOM_BYTES);
        let Self { mount, stubs } = match size <= ROOM_BYTES + SPARE_BYTES {
            true => self,
            false => Self::sized(size)?,
        };
        write(mount.as_fd(), "hosts", &settings.hosts, 0o644)?;
        write(mount.as_fd(), "resolv.conf", &settings.resolv_conf, 0o644)?;
        for (number, text) in settings.scripts.values().enumerate() {
            write(mount.as_fd(), &format!("script-{number}"), text, 0o755)?;
        }
        for path in settings.scripts.keys().filter(|path| !is_furnished(path)) {
            place(stubs.as_fd(), path, Kind::File, None)?;
        }
        for point in points.iter().filter(|point| !is_furnished(&point.stub)) {
            place(stubs.as_fd(), &point.stub, point.kind, None)?;
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

    /// Clones a device node, and makes sure that it is one.
    fn device(&self, name: &str, major: u32, minor: u32) -> Result<OwnedFd> {
        let attr = NOSUID | NOEXEC;
        let node = match Namespace::current().is_initial() {
            true => self.bind(name, attr)?,
            // Read-only is about the node, not what is behind it: root of this namespace may own the machine's.
            false => mount::bind(CWD, &format!("/dev/{name}"), attr | RDONLY)
                .setup(format!("clone the machine's /dev/{name}"))?,
        };
        verify_device(node.as_fd(), name, major, minor)?;
        Ok(node)
    }

    fn bind(&self, name: &str, attr: rustix::mount::MountAttrFlags) -> Result<OwnedFd> {
        mount::bind(self.mount.as_fd(), name, attr).setup(format!("clone the container's {name}"))
    }
}

/// Mounts everything of the profile into `root`, which is attached already.
pub(super) fn furnish(root: BorrowedFd<'_>, init: &Init<'_>, settings: &Settings) -> Result<Made> {
    let provision = init.provision;
    let mut made = Made::default();
    let kernel = NOSUID | NOEXEC | NODEV;
    mount_at(root, "proc", "proc", &[Param::Text("source", "proc")], kernel).map_err(explain_proc)?;
    let is_sandboxed = settings.privilege == Privilege::Sandbox;
    system(
        root,
        provision,
        if is_sandboxed { kernel | RDONLY } else { kernel },
    )?;
    devices(root, provision, settings)?;
    for name in ["hosts", "resolv.conf"] {
        let file = provision.bind(name, kernel | RDONLY)?;
        put(root, &format!("etc/{name}"), &file, &mut made)?;
    }
    targets::attach_all(root, init.points, init.mounts, &mut made)?;
    if is_target(init.points, "etc") {
        for name in ["hosts", "resolv.conf"] {
            let path = format!("etc/{name}");
            let file = provision.bind(name, kernel | RDONLY)?;
            if !is_target(init.points, &path) {
                targets::cover(root, &path, file.as_fd())?;
            }
        }
    }
    for (number, path) in settings.scripts.keys().enumerate() {
        let script = provision.bind(&format!("script-{number}"), NOSUID | NODEV | RDONLY)?;
        put(root, path, &script, &mut made)?;
    }
    if is_sandboxed {
        protect(root, provision)?;
    }
    Ok(made)
}

/// The kernel lets a user namespace mount a procfs only where a whole one is visible already: what somebody masked in it
/// would come to light. That is so inside of most containers.
pub(super) fn explain_proc(error: SandboxError) -> SandboxError {
    match error {
        SandboxError::Setup { source, .. }
            if mount::errno_of(&source) == Errno::PERM.raw_os_error()
                && !Namespace::current().is_initial() =>
        {
            SandboxError::Refused {
                reason: "the kernel doesn't let this user namespace mount a /proc, because parts of the one here are \
                         masked, as in a container: start that container without masks (docker: --security-opt \
                         systempaths=unconfined)"
                    .to_owned(),
            }
        }
        other => other,
    }
}

/// Makes `/sys`. It shows the network namespace that its mounter owns, so in a user namespace with the host's network
/// the machine's is used, all of it read-only, and without cgroups.
fn system(root: BorrowedFd<'_>, provision: &Provision, attr: rustix::mount::MountAttrFlags) -> Result<()> {
    let source = [Param::Text("source", "sysfs")];
    let mounted = match mount::create("sysfs", &source, attr) {
        Err(error)
            if mount::errno_of(&error) == Errno::PERM.raw_os_error()
                && !Namespace::current().is_initial() =>
        {
            mount::bind_tree(CWD, "/sys", attr).setup("clone the machine's /sys")?
        }
        other => {
            other.setup("create a sysfs")?;
            mount_at(root, "sys", "sysfs", &source, attr)?;
            return Ok(());
        }
    };
    let target = open_directory(root, "sys")?;
    mount::attach(mounted.as_fd(), target.as_fd()).setup("mount the machine's /sys")?;
    if let Some(cgroups) = find(root, "sys/fs/cgroup")? {
        let empty = provision.bind("empty", attr)?;
        mount::attach(empty.as_fd(), cgroups.as_fd()).setup("hide the machine's cgroups")?;
    }
    Ok(())
}

/// Says whether a path lies in what is mounted in every container.
fn is_furnished(path: &str) -> bool {
    let first = path.split('/').find(|name| !name.is_empty() && *name != ".");
    matches!(first, Some("dev" | "proc" | "sys"))
}

fn is_target(points: &[Point], path: &str) -> bool {
    points.iter().any(|point| point.target.trim_matches('/') == path)
}

/// Makes `/dev`. In the sandbox it is `nodev`, and its nodes are mounts: CAP_MKNOD would open every device of the machine otherwise.
fn devices(root: BorrowedFd<'_>, provision: &Provision, settings: &Settings) -> Result<()> {
    let tmpfs = [
        Param::Text("source", "tmpfs"),
        Param::Text("mode", "755"),
        Param::Text("size", "65536k"),
    ];
    let strictatime = rustix::mount::MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let attr = match settings.privilege {
        Privilege::Sandbox => NOSUID | NODEV | strictatime,
        // Here, and nowhere else, nodes that it makes itself are devices.
        Privilege::Insecure => NOSUID | strictatime,
    };
    let dev = mount_at(root, "dev", "tmpfs", &tmpfs, attr)?;
    for &(name, major, minor) in DEVICES {
        write(dev.as_fd(), name, "", 0o666)?;
        let node = provision.device(name, major, minor)?;
        let target = open_path(dev.as_fd(), name).setup(format!("open /dev/{name}"))?;
        mount::attach(node.as_fd(), target.as_fd()).setup(format!("mount /dev/{name}"))?;
    }
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(*target, &dev, *name).setup(format!("make the link /dev/{name}"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        mkdir(dev.as_fd(), name)?;
    }
    let mut pts = vec![
        Param::Text("source", "devpts"),
        Param::Flag("newinstance"),
        Param::Text("ptmxmode", "0666"),
        Param::Text("mode", "0620"),
    ];
    // Debian's and everybody's group of terminals; a user namespace may lack it.
    if Namespace::current().has_group(5) {
        pts.push(Param::Text("gid", "5"));
    }
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
    open_inside(root, "dev/pts/ptmx", flags, ResolveFlags::NO_SYMLINKS).setup("open the container's terminal")
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
            provision.device("null", 1, 3)?
        };
        mount::attach(mask.as_fd(), target.as_fd()).setup(format!("mask /{path}"))?;
    }
    Ok(())
}

/// Returns how many CPUs the kernel may number; 0 where it doesn't say.
fn possible_cpus(root: BorrowedFd<'_>) -> u32 {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = "sys/devices/system/cpu/possible";
    let Ok(file) = open_inside(root, path, flags, ResolveFlags::NO_SYMLINKS) else {
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
    let target = open_directory(dir, name)?;
    let mounted = mount::create(kind, params, attr).setup(format!("create a {kind}"))?;
    mount::attach(mounted.as_fd(), target.as_fd()).setup(format!("mount {kind} on {name}"))?;
    Ok(mounted)
}

/// Opens a mountpoint directly below `dir`, which must be a real directory.
fn open_directory(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let target = open_path(dir, name).setup(format!("open the mountpoint {name}"))?;
    let mode = rustix::fs::fstat(&target)
        .setup(format!("look at {name}"))?
        .st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Directory => Ok(target),
        _ => refused(format!("the image's /{name} is not a directory")),
    }
}

/// Mounts a file onto `path`, over a symlink if the last component is one: its target is none of our business.
fn put(root: BorrowedFd<'_>, path: &str, file: &OwnedFd, made: &mut Made) -> Result<()> {
    let target = place(root, path, Kind::File, Some(made))?;
    mount::attach(file.as_fd(), target.as_fd()).setup(format!("mount {path}"))
}

/// Opens the mountpoint `path`, and makes what is missing. The last component is never followed.
fn place(root: BorrowedFd<'_>, path: &str, kind: Kind, mut made: Option<&mut Made>) -> Result<OwnedFd> {
    let step = || format!("make the mountpoint {path}");
    let Some((parents, name)) = components(path)?
        .split_last()
        .map(|(name, parents)| (parents.to_vec(), *name))
    else {
        return refused("nothing can be mounted on /");
    };
    let parent = make_dirs(root, &parents, None, made.as_deref_mut())?;
    match open_path(parent.as_fd(), name) {
        Err(Errno::NOENT) => {
            let before = times_of(parent.as_fd()).setup(step())?;
            match kind {
                Kind::File => write(parent.as_fd(), name, "", 0o644)?,
                Kind::Directory => mkdir(parent.as_fd(), name)?,
            }
            if let Some(made) = made {
                let new = open_path(parent.as_fd(), name).setup(step())?;
                made.note(new, parent.as_fd(), &before);
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
    make_dirs(root, &components(path)?, Some(owner), None)
}

/// Opens a directory inside the root, links resolved inside the root, and makes what is missing.
pub(super) fn make_dirs(
    root: BorrowedFd<'_>,
    names: &[&str],
    owner: Option<(Uid, Gid)>,
    mut made: Option<&mut Made>,
) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |names: &[&str]| {
        let path = if names.is_empty() {
            ".".to_owned()
        } else {
            names.join("/")
        };
        open_inside(root, &path, flags, ResolveFlags::empty())
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
                let before = times_of(parent.as_fd()).setup("look at a directory")?;
                match rustix::fs::mkdirat(&parent, *name, Mode::from_raw_mode(0o755)) {
                    // There, and yet not found: a link that leads nowhere.
                    Err(Errno::EXIST) => return Err(refuse(Errno::LOOP, prefix)),
                    other => other.setup(format!("make the directory /{}", prefix.join("/")))?,
                }
                let new = open(prefix).map_err(|errno| refuse(errno, prefix))?;
                if let Some(made) = made.as_deref_mut() {
                    let again = open(prefix).map_err(|errno| refuse(errno, prefix))?;
                    made.note(again, parent.as_fd(), &before);
                }
                if let Some((uid, gid)) = owner {
                    rustix::fs::chownat(&new, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                        .setup(format!("give the directory /{} to its user", prefix.join("/")))?;
                }
                new
            }
            (opened, _) => opened.map_err(|errno| refuse(errno, prefix))?,
        };
    }
    Ok(parent)
}

/// Splits a path; `..` is refused, because what it means depends on links.
pub(super) fn components(path: &str) -> Result<Vec<&str>> {
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
    match open_inside(root, path, flags, ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.setup(format!("open /{path}")).map(Some),
    }
}

/// Opens a path with every link resolved inside the root. The kernel refuses a `..` with EAGAIN when anything was renamed
/// or mounted on the whole machine meanwhile; by openat2(2) the answer is to try again.
pub(super) fn open_inside(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
    resolve: ResolveFlags,
) -> std::result::Result<OwnedFd, Errno> {
    /// Each is lost only against another mount or rename within microseconds.
    const ATTEMPTS: usize = 1000;
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 1..ATTEMPTS {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

pub(super) fn open_path(dir: BorrowedFd<'_>, name: &str) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::openat(
        dir,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

pub(super) fn mkdir(dir: BorrowedFd<'_>, name: &str) -> Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)).setup(format!("make the directory {name}"))
}

pub(super) fn write(dir: BorrowedFd<'_>, name: &str, content: &str, mode: u32) -> Result<()> {
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

pub(super) fn refused<T>(reason: impl Into<String>) -> Result<T> {
    Err(SandboxError::Refused {
        reason: reason.into(),
    })
}
