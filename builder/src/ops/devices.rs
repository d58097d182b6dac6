//! Devices of a step: those it asked for by name, and those that come with `--security=insecure`.
//!
//! Whether a step may ask is decided when it is lowered, for cached steps too; here it is only found out what it gets.

use std::path::{Path, PathBuf};

use solver::Graph;
use solver::op::{Device, Exec, Op, Security};

use super::OpError;
use super::mounts::Attached;
use crate::cdi::{CdiError, Devices, Edits};
use crate::sandbox::{Access, MountPoint, Settings, Tree};

/// What a privileged container has besides the usual devices, where the machine has it. Spec: hardening.md §D.7.
const PRIVILEGED: [&str; 14] = [
    "/dev/kmsg",
    "/dev/cuse",
    "/dev/fuse",
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/loop-control",
    "/dev/loop0",
    "/dev/loop1",
    "/dev/loop2",
    "/dev/loop3",
    "/dev/loop4",
    "/dev/loop5",
    "/dev/loop6",
    "/dev/loop7",
];

/// Reads which devices there are, if a step asks for one.
pub(crate) fn known(graph: &Graph, dirs: &[PathBuf]) -> Result<Devices, CdiError> {
    let asks = |id| matches!(&graph.vertex(id).op, Op::Exec(exec) if !exec.devices.is_empty());
    match graph.ids().any(asks) {
        true => Devices::read(dirs),
        false => Ok(Devices::default()),
    }
}

/// Adds the devices of a step to what is mounted for it, and to its settings.
pub(super) fn attach(
    op: &Exec,
    known: &Devices,
    attached: &mut Attached,
    settings: &mut Settings,
    warn: impl Fn(&str),
) -> Result<(), OpError> {
    if op.security == Security::Insecure {
        for path in PRIVILEGED {
            // A device that the machine lacks, or this user namespace may not have, isn't there either.
            if let Ok(tree) = Tree::device(Path::new(path)) {
                attached.points.push(point(path, tree));
            }
        }
    }
    let edits = wanted(&op.devices, known, warn)?;
    for node in &edits.nodes {
        let tree = Tree::device(&node.host)?;
        attached.points.push(point(&node.path, tree));
    }
    for mount in &edits.mounts {
        let access = match mount.is_writable {
            true => Access::ReadWrite,
            false => Access::ReadOnly,
        };
        let tree = Tree::of_machine(&mount.host, access)?;
        attached.points.push(point(&mount.path, tree));
    }
    attached.env.extend(edits.env);
    for group in edits.groups {
        if !settings.groups.contains(&group) {
            settings.groups.push(group);
        }
    }
    Ok(())
}

fn point(target: &str, tree: Tree) -> MountPoint {
    MountPoint {
        target: target.to_owned(),
        stub: target.to_owned(),
        tree,
    }
}

/// Looks all devices up. One that isn't known is told, and is an error where the step requires it.
fn wanted(asked: &[Device], known: &Devices, warn: impl Fn(&str)) -> Result<Edits, OpError> {
    let mut edits = Edits::default();
    for device in asked {
        match known.find(&device.name) {
            Ok(found) => edits.append(&found),
            Err(error @ CdiError::Unknown { .. }) if !device.required => {
                warn(&format!("a RUN goes on without a device: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(edits)
}
