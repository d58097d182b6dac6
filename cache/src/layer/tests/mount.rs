//! Mounts images for a comparison: detached, so that nothing is left behind whatever happens.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::{fd_path, layer, skip};

/// Mounts an EROFS image with its devices.
pub(super) fn erofs(image: &File, devices: &[&File]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", fd_path(image))?;
    for device in devices {
        fsconfig_set_string(&context, "device", fd_path(device))?;
    }
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}

/// Stacks mounts, base layer first.
pub(super) fn overlay(lowers: &[OwnedFd]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers.iter().rev() {
        fsconfig_set_fd(&context, "lowerdir+", lower)?;
    }
    for (key, value) in [("xino", "on"), ("redirect_dir", "off"), ("metacopy", "off")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}

/// Names a mount.
pub(super) fn place(mount: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", mount.as_raw_fd())
}

/// Says whether mounting works here; says why not, once for each test that asks.
pub(super) fn works() -> bool {
    static WHY_NOT: OnceLock<Option<rustix::io::Errno>> = OnceLock::new();
    let why_not = WHY_NOT.get_or_init(|| erofs(layer(&["d a"]).unwrap().file(), &[]).err());
    if let Some(error) = why_not {
        skip(&format!("EROFS files can't be mounted here: {error}"));
    }
    why_not.is_none()
}
