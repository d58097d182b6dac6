//! Adds up what a tree occupies on disk.

use rustix::fs::FileType;

use super::{Error, Root};
use crate::layer::TreePath;

impl Root {
    /// Returns what everything below occupies, in bytes of the disk. What goes away meanwhile, and what may not be
    /// looked into, doesn't count; a file with several names counts for each.
    pub fn size_bytes(&self) -> Result<u64, Error> {
        let is_left_out = |error: &Error| error.is_missing() || error.is_denied();
        let mut total = 0_u64;
        let mut left = vec![TreePath::root()];
        while let Some(path) = left.pop() {
            let dir = match path.is_root() {
                true => Ok(self.clone()),
                false => self.sub(&path),
            };
            let listed = match dir.and_then(|dir| Ok((dir.list()?, dir))) {
                Err(error) if is_left_out(&error) => continue,
                other => other?,
            };
            let (names, dir) = listed;
            for listed in names {
                let name = TreePath::root().join(&listed.name);
                let Ok(stat) = dir.stat(&name) else { continue };
                let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                total = total.saturating_add(blocks.saturating_mul(512));
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    left.push(path.join(&listed.name));
                }
            }
        }
        Ok(total)
    }
}
