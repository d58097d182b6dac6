//! Follows symbolic links inside a tree, whatever the tree is: the merged view of layers, or one with changes on top.
//!
//! There is no outside: `..` at the root stays there, and absolute targets start there again.

use super::error::Error;
use crate::layer::TreePath;

/// As the kernel does (path_resolution(7)).
pub(super) const MAX_LINKS: usize = 40;

/// What is at one path, as far as following links goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Missing,
    /// A directory.
    Dir,
    /// A symbolic link, with its target.
    Link(Vec<u8>),
    /// Anything else.
    Other,
}

/// Follows every symbolic link in `path`, the last one too; `look` says what is at a path without links.
///
/// Fails at more than 40 links, and where the path leads through something that isn't a directory. A missing rest is
/// no failure: it stays as written.
pub fn follow(path: &TreePath, look: impl Fn(&TreePath) -> Step) -> Result<TreePath, Error> {
    let mut pending: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
    let mut at = TreePath::root();
    let mut is_blocked = false;
    let mut n_links = 0;
    while let Some(name) = pending.pop() {
        if is_blocked {
            return Err(Error::NotDirectory { path: at });
        }
        if name == b".." {
            at = at.parent().unwrap_or_default();
            continue;
        }
        let next = at.join(&name);
        let target = match look(&next) {
            Step::Link(target) => target,
            step => {
                is_blocked = step == Step::Other;
                at = next;
                continue;
            }
        };
        n_links += 1;
        if n_links > MAX_LINKS {
            return Err(Error::TooManyLinks { path: path.clone() });
        }
        if target.first() == Some(&b'/') {
            at = TreePath::root();
        }
        let parts = target
            .split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".");
        pending.extend(parts.rev().map(<[u8]>::to_vec));
    }
    Ok(at)
}
