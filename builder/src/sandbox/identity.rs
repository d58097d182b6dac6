//! Who the process is: user, groups, capabilities, system-call filter. The order is the point. An insecure container has
//! all capabilities that the build has, and no filter; nothing is inheritable or ambient there either.
//!
//! The filter is loaded without no_new_privs (sudo and ping must work in RUN), which needs CAP_SYS_ADMIN; so that
//! capability goes last. Nothing after the filter makes a call that the profile refuses.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::error::{Result, Step as _};
use super::profile::CAPABILITIES;
use super::spec::{Privilege, Settings};
use super::sys::{self, Instruction};
use super::userns::Namespace;

/// Becomes the user, with the profile's rights.
pub(super) fn assume(settings: &Settings, filter: &[Instruction]) -> Result<()> {
    let is_sandboxed = match settings.privilege {
        Privilege::Sandbox => true,
        Privilege::Insecure => false,
    };
    let wanted = match is_sandboxed {
        true => CapabilitySet::from_bits_retain(CAPABILITIES),
        false => CapabilitySet::from_bits_retain(u64::MAX),
    };
    drop_bounding(wanted)?;
    rustix::thread::set_keep_capabilities(true).setup("keep capabilities")?;
    // Groups that don't exist in this namespace are left out: no file here can belong to them.
    let namespace = Namespace::current();
    let existing = settings.groups.iter().filter(|gid| namespace.has_group(**gid));
    let groups: Vec<Gid> = existing.map(|gid| Gid::from_raw(*gid)).collect();
    if namespace.has_groups() {
        rustix::thread::set_thread_groups(&groups).setup("set the groups")?;
    }
    let gid = Gid::from_raw(settings.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).setup(format!("become group {}", settings.gid))?;
    let uid = Uid::from_raw(settings.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).setup(format!("become user {}", settings.uid))?;
    rustix::thread::set_keep_capabilities(false).setup("stop keeping capabilities")?;
    let held = rustix::thread::capabilities(None)
        .setup("read capabilities")?
        .permitted;
    set(held & (wanted | CapabilitySet::SYS_ADMIN))?;
    rustix::thread::clear_ambient_capability_set().setup("clear ambient capabilities")?;
    if is_sandboxed {
        sys::seccomp_filter(filter).setup("load the system-call filter")?;
    }
    // Users other than root keep the bounding set only, for setuid programs.
    set(if settings.uid == 0 {
        held & wanted
    } else {
        CapabilitySet::empty()
    })
}

fn set(sets: CapabilitySet) -> Result<()> {
    let sets = CapabilitySets {
        effective: sets,
        permitted: sets,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).setup("set capabilities")
}

/// Drops every capability that the kernel knows and the profile doesn't have.
fn drop_bounding(wanted: CapabilitySet) -> Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if wanted.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Err(Errno::INVAL) => break,
            other => other.setup(format!("drop capability {number}"))?,
        }
    }
    Ok(())
}
