//! Owners by name: looked up in the `/etc/passwd` and `/etc/group` of the tree that is written to, never the host's.
//!
//! The files are hostile input: they are read through the merged view, must be regular, and are capped.

use cache::layer::TreePath;
use cache::tree::{Error as TreeError, View};

use super::OpError;
use crate::sandbox::user::{self, Credentials, MAX_FILE_BYTES};

/// A numeric owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Returns who a `USER` is in `tree`. Without one it is root, whatever stands where the two files should be.
pub(crate) fn credentials(user: &str, tree: &View) -> Result<Credentials, OpError> {
    let read = |path: &[u8]| match tree.read_small(&TreePath::clean(path), MAX_FILE_BYTES) {
        Err(TreeError::NotFile { .. } | TreeError::TooLarge { .. } | TreeError::TooManyLinks { .. })
            if user.is_empty() =>
        {
            Ok(None)
        }
        other => other,
    };
    let (passwd, group) = (read(b"etc/passwd")?, read(b"etc/group")?);
    user::resolve(passwd.as_deref(), group.as_deref(), user).map_err(|source| OpError::User {
        user: user.to_owned(),
        source,
    })
}

/// Returns the owner of what `USER` makes.
pub(super) fn of_user(user: &str, tree: &View) -> Result<Owner, OpError> {
    if matches!(user, "" | "0" | "root" | "0:0") {
        return Ok(Owner::default());
    }
    let Credentials { uid, gid, .. } = credentials(user, tree)?;
    Ok(Owner { uid, gid })
}

/// Returns the owner that `--chown` names. A number without a group stands for the group too; unlike BuildKit, which
/// falls back to root, an unknown name is an error, as its reference manual promises (dockerfile.md §21.1), and so is the
/// number that means "leave it" to the kernel.
pub(super) fn of_chown(owner: &str, tree: &View) -> Result<Owner, OpError> {
    if let Ok(id) = owner.parse::<u32>()
        && id != u32::MAX
        && !owner.starts_with('+')
    {
        return Ok(Owner { uid: id, gid: id });
    }
    match of_user(owner, tree) {
        Err(OpError::User { user, .. }) if tree.children(&TreePath::root()).next().is_none() => {
            Err(OpError::OwnerOfNothing { user })
        }
        other => other,
    }
}
