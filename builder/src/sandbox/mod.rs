//! Containers: one process in its own namespaces, on an overlay of layers, with Docker's default profile.
//!
//! A run has three processes. The *builder* sends settings and descriptors over a socket (`launch`). The *helper* mounts
//! the overlay, makes the namespaces and waits (`helper`); it is forked ahead of time (`standby`) from one process per
//! build, which is this same binary again, seen through a read-only mount: only a process with one thread may go on after
//! a fork. *Init*, process 1
//! of the container, mounts the rest, drops its rights and becomes the command (`init`, `rootfs`, `identity`, `command`); or
//! it has an OCI runtime make a container inside of what it made, and waits for that (`oci`). Whichever
//! of the first two dies takes the rest along: the helper sees its socket close, init has a death signal, and process 1's
//! end ends its pid namespace.
//! Nothing is mounted where another process could see it, so nothing has to be cleaned up. What a step wants mounted besides
//! its root is made in the builder (`attach`) and put in place by init (`targets`), by descriptor on both sides.
//!
//! Needs Linux 5.12 (mount_setattr; everything else is older), overlayfs, and root or a user namespace (`userns`). What
//! newer kernels do better is found out by trying, and there is another way for those that can't:
//!
//! | wanted | since | else |
//! |---|---|---|
//! | overlay layers as detached mounts | 6.15 | attached in private namespaces: `overlay`, `place` |
//! | `lowerdir+` | 6.8 | one mount(2) option, refused where it would be cut |
//! | EROFS from files | 6.12 | loop devices: `lower` |
//! | EROFS with 512-byte blocks, loop devices | 6.4 | layers are unpacked, by `ops::unpacked` |
//! | `user.*` attributes on tmpfs | 6.6 | changes go to a directory: `ops::exec` |
//! | memfds that say whether they are programs | 6.3 | plain ones |
//!
//! Not here: finding out what to run, packing what changed. What connects a container to the outside is another program,
//! held by a process of its own (`network`).
//!
//! Known holes and deviations from Docker:
//! - As root there is no user namespace: root in the container is root, less capabilities. Ordinary users' containers have
//!   the user namespace of the build (`userns`), all containers of a build the same one: its root is the user.
//! - With one id (no /etc/subuid) the kernel lets nobody set groups: processes keep those of the user, which show as 65534.
//!   In a user namespace with the host's network `/sys` is the machine's, read-only; `/dev/null` and the like are the
//!   machine's nodes. A secret may go to swap there: the kernel keeps only root's tmpfs from it.
//! - Where the kernel refuses a fresh `/proc` (inside of a container with a masked one) there is no container. A mode that
//!   shares the outer `/proc` and pid namespace isn't here.
//! - Control groups are made for limits only (`cgroup`), so there is no device allow-list. Instead every mount that the
//!   container can make device nodes on is `nodev`, and the nodes of `/dev` are bind mounts. `mknod` succeeds, opening what it made fails (EACCES, not EPERM).
//! - An insecure container sees no cgroups, its file systems other than `/dev` stay `nodev`, and nothing is ambient.
//! - A mountpoint that an image's whiteout or opaque directory hides is made in the upper and removed after the run. If the
//!   process moved the directory that it is in, or its name isn't UTF-8, it stays.

mod attach;
mod cgroup;
mod command;
mod error;
mod helper;
mod identity;
mod init;
mod launch;
mod limits;
mod lower;
mod mount;
mod network;
mod oci;
mod overlay;
mod place;
mod profile;
mod reaper;
mod rootfs;
mod seccomp;
mod spec;
mod standby;
mod sys;
mod targets;
mod trial;
mod upper;
pub(crate) mod user;
pub(crate) mod userns;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use attach::{Access, MountPoint, Ownership, Tree};
pub(crate) use cgroup::Cgroup;
pub(crate) use error::SandboxError;
pub(crate) use launch::{Cancel, Helper, has_tried, keep_children, outlive_file_limit, run};
pub(crate) use limits::{Limits, Swap, Ulimit};
pub(crate) use lower::{Lower, can_mount, tiny_image};
pub(crate) use network::{Networks, Taken, Wants as NetworkWants};
pub(crate) use oci::Runtime;
pub(crate) use spec::{DEFAULT_SHM_BYTES, Exit, Net, Privilege, Settings, Spec, Stdio, TerminalSize};
pub(crate) use standby::helper_entry;
pub(crate) use trial::{Connected, Limited, Trial, trial, trial_by};
pub(crate) use upper::Upper;
pub(crate) use userns::{Entered, Namespace, enter, has_rights};
