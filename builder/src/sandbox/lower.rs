//! The layers below: layer files mounted as EROFS, or directories where that can't be done.
//!
//! Metadata inside the images is trusted because this program wrote it; images from elsewhere are never mounted.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::error::{Result, Step as _};
use super::mount::{self, NODEV, Param, RDONLY};
use super::place::Attached;
use super::sys;

/// One layer below a container: a read-only mount, gone with this value.
#[derive(Debug)]
pub(crate) struct Lower {
    /// Where it is attached, once a container needed that; before `mount`, so that it is detached first.
    attached: Mutex<Option<Attached>>,
    mount: OwnedFd,
}

impl Lower {
    /// Mounts a layer file as EROFS. A merged image names its data by `extra_devices`, in slot order.
    pub(crate) fn mount(file: &File, extra_devices: &[&File]) -> Result<Self> {
        mount_erofs(file, extra_devices).map(Self::of)
    }

    /// Takes a directory with an unpacked layer. The clone makes it usable from every mount namespace.
    pub(crate) fn unpacked(dir: BorrowedFd<'_>) -> Result<Self> {
        mount::bind(dir, "", RDONLY | NODEV)
            .step("bind an unpacked layer")
            .map(Self::of)
    }

    /// Returns a layer with nothing in it.
    pub(super) fn empty() -> Result<Self> {
        mount::tmpfs(1 << 16, "0755", RDONLY | NODEV)
            .step("mount an empty layer")
            .map(Self::of)
    }

    fn of(mount: OwnedFd) -> Self {
        Self {
            attached: Mutex::new(None),
            mount,
        }
    }

    /// The mount, attached or not.
    pub(super) fn mounted(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Attaches the mount if it isn't yet, and returns its name. It stays where it is while this value lives.
    pub(super) fn attach(&self) -> Result<u32> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attached) = attached.as_ref() {
            return Ok(attached.number());
        }
        let new = Attached::new(self.mount.as_fd())?;
        Ok(attached.insert(new).number())
    }
}

/// Mounts a layer file as a detached, read-only EROFS. Loop devices are used where the kernel or the file's file system can't serve the file itself (ENOTBLK).
pub(super) fn mount_erofs(file: &File, extra_devices: &[&File]) -> Result<OwnedFd> {
    let step = "mount a layer file";
    match erofs(
        file.as_fd(),
        &extra_devices.iter().map(|file| file.as_fd()).collect::<Vec<_>>(),
    ) {
        Err(error) if mount::errno_of(&error) == libc::ENOTBLK => {
            let primary = loop_device(file)?;
            let extra = extra_devices
                .iter()
                .map(|file| loop_device(file))
                .collect::<Result<Vec<_>>>()?;
            erofs(
                primary.as_fd(),
                &extra.iter().map(AsFd::as_fd).collect::<Vec<_>>(),
            )
            .step(step)
        }
        other => other.step(step),
    }
}

fn erofs(source: BorrowedFd<'_>, devices: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let source = mount::fd_path(source);
    let devices: Vec<String> = devices.iter().map(|fd| mount::fd_path(*fd)).collect();
    let mut params = vec![Param::Text("source", &source)];
    params.extend(devices.iter().map(|path| Param::Text("device", path)));
    params.push(Param::Flag("ro"));
    mount::create("erofs", &params, RDONLY | NODEV)
}

/// Binds a file to a free loop device, which is released when its last user is gone.
fn loop_device(file: &File) -> Result<OwnedFd> {
    /// Other processes take free devices too.
    const ATTEMPTS: usize = 64;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control =
        rustix::fs::openat(CWD, "/dev/loop-control", flags, Mode::empty()).step("open /dev/loop-control")?;
    for _ in 0..ATTEMPTS {
        let number = sys::loop_free(control.as_fd()).step("find a free loop device")?;
        let path = format!("/dev/loop{number}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let device = rustix::fs::openat(CWD, &path, flags, Mode::empty()).step(format!("open {path}"))?;
        match sys::loop_configure(device.as_fd(), file.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            other => {
                other.step(format!("bind a layer file to {path}"))?;
                return Ok(device);
            }
        }
    }
    Err(io::Error::from(Errno::BUSY)).step("find a free loop device")
}

/// Says whether layer files can be mounted, by mounting a tiny image that lies beside them: file systems differ in what
/// they can serve. `Ok(false)` means that layers must be unpacked.
pub(crate) fn can_mount(tiny_image: &File) -> Result<bool> {
    match mount_erofs(tiny_image, &[]) {
        Ok(_) => Ok(true),
        Err(super::SandboxError::System { source, .. }) => match Errno::from_io_error(&source) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Err(source).step("mount a tiny layer file"),
            _ => Ok(false),
        },
        Err(other) => Err(other),
    }
}

/// Returns a valid EROFS image with an empty root directory, for [`can_mount`]: one page, 512-byte blocks as in layer
/// files. Spec: layer-file.md, "On-disk facts".
pub(crate) fn tiny_image() -> Vec<u8> {
    const SUPER: usize = 1024;
    const ROOT: usize = 2048;
    let mut image = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in image.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(SUPER, &0xE0F5_E1E2_u32.to_le_bytes());
    put(SUPER + 12, &[9]);
    put(SUPER + 16, &1_u64.to_le_bytes());
    put(SUPER + 36, &8_u32.to_le_bytes());
    // meta_blkaddr: the block of the root inode, whose number is then 0.
    put(SUPER + 40, &4_u32.to_le_bytes());
    put(SUPER + 48, b"ashlar probe \0\0\x01");
    // Extended inode, data inline: `.` and `..` as 12-byte entries, then the names.
    put(ROOT, &5_u16.to_le_bytes());
    put(ROOT + 4, &0o040_755_u16.to_le_bytes());
    put(ROOT + 8, &27_u64.to_le_bytes());
    put(ROOT + 20, &1_u32.to_le_bytes());
    put(ROOT + 44, &2_u32.to_le_bytes());
    put(ROOT + 64 + 8, &24_u16.to_le_bytes());
    put(ROOT + 64 + 10, &[2]);
    put(ROOT + 76 + 8, &25_u16.to_le_bytes());
    put(ROOT + 76 + 10, &[2]);
    put(ROOT + 88, b"...");
    image
}
