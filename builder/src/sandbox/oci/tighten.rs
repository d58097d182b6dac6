//! What a runtime leaves too loose, or can't live with, set before the command is executed.
//!
//! crun mounts the root and read-only paths anew without their attributes: device nodes would work on that root, and there
//! is no device list. runc can't set a container up with ten open files. All of it happens in a process of its own,
//! because whoever enters a mount namespace or becomes a user doesn't come back.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use rustix::thread::LinkNameSpaceType;

use super::super::error::{Result, SandboxError, Step as _};
use super::super::mount::{NODEV, NOEXEC, NOSUID, RDONLY};
use super::super::profile::READ_ONLY;
use super::super::spec::{Privilege, Settings};
use super::super::sys;
use super::config;

/// Opens the mount namespace of a process.
pub(super) fn mounts_of(pid: Pid) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = format!("/proc/{}/ns/mnt", pid.as_raw_nonzero());
    rustix::fs::openat(CWD, path, flags, Mode::empty()).setup("open the container's mounts")
}

/// Protects the mounts of the container whose first process is `pid`, and limits that process.
pub(super) fn tighten(namespace: BorrowedFd<'_>, pid: Pid, settings: &Settings) -> Result<()> {
    match sys::clone3(0).setup("fork")? {
        sys::Side::Child => {
            let done = protect(namespace, settings.privilege).and_then(|()| limit(pid, settings));
            std::process::exit(i32::from(done.is_err()))
        }
        sys::Side::Parent(child) => {
            let ended = rustix::process::waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED);
            let code = ended
                .setup("wait for a fork")?
                .and_then(|status| status.exit_status());
            match code {
                Some(0) => Ok(()),
                _ => Err(SandboxError::Refused {
                    reason: "what the runtime made can't be protected and limited".to_owned(),
                }),
            }
        }
    }
}

fn protect(namespace: BorrowedFd<'_>, privilege: Privilege) -> Result<()> {
    let step = "protect the container's mounts";
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount)).setup(step)?;
    sys::mount_setattr(CWD, c"/", 0, NODEV, 0).setup(step)?;
    let protected = match privilege {
        Privilege::Sandbox => READ_ONLY,
        Privilege::Insecure => &[],
    };
    for path in protected {
        let path = CString::new(format!("/{path}"))
            .map_err(std::io::Error::from)
            .setup(step)?;
        match sys::mount_setattr(CWD, &path, 0, NOSUID | NOEXEC | NODEV | RDONLY, 0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // Also where the runtime left it as it is: then it is no mount.
            other => other.setup(step)?,
        }
    }
    Ok(())
}

/// Whoever may not limit others (root without CAP_SYS_RESOURCE) may limit their own.
fn limit(pid: Pid, settings: &Settings) -> Result<()> {
    for ulimit in settings.ulimits.iter().filter(|ulimit| config::is_tight(ulimit)) {
        if ulimit.apply_to(Some(pid)).is_err() {
            let (gid, uid) = (Gid::from_raw(settings.gid), Uid::from_raw(settings.uid));
            rustix::thread::set_thread_res_gid(gid, gid, gid).setup("become the user's group")?;
            rustix::thread::set_thread_res_uid(uid, uid, uid).setup("become the user")?;
            ulimit.apply_to(Some(pid))?;
        }
    }
    Ok(())
}
