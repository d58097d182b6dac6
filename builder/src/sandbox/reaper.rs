//! The small process 1 of `--init`: it waits for whatever ends in the container, so that orphans don't stay as zombies,
//! and ends when the command does. It has the command's rights, no descriptor but the three streams, and nobody in the
//! container may look into it. Signals are the terminal's and the kernel's to deliver: it passes none on. Where a runtime
//! makes the container it is made otherwise, and the command isn't its child (`oci::reaper`).

use std::convert::Infallible;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, WaitOptions};

use super::error::{Result, Step as _};
use super::sys;

/// Returns in a new process, the command's; the calling one stays behind as process 1, and ends with the command's exit
/// code, or 128 plus the number of the signal that killed it.
pub(super) fn fork_below() -> Result<()> {
    hide()?;
    match sys::fork().setup("fork below process 1")? {
        None => Ok(()),
        Some(command) => std::process::exit(wait_for(command)),
    }
}

/// Keeps this process's memory and descriptors from being looked at.
pub(super) fn hide() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).setup("hide process 1")
}

/// Has whatever ends below this process vanish, until it is killed; the command is another's child.
pub(super) fn reap_for_ever() -> Result<Infallible> {
    sys::close_from(3).setup("close what leads outside")?;
    sys::reap_children();
    loop {
        rustix::event::pause();
    }
}

/// What it ends with when it can't do its work.
const FAILED: i32 = 125;

fn wait_for(command: Pid) -> i32 {
    // They lead outside of the container.
    if sys::close_from(3).is_err() {
        return FAILED;
    }
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                let signal = status.terminating_signal();
                return status
                    .exit_status()
                    .or(signal.map(|signal| 128 + signal))
                    .unwrap_or(FAILED);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return FAILED,
        }
    }
}
