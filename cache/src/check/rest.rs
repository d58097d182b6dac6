//! Everything that isn't a layer file or a blob: the index, what was unpacked, cache mounts, scratch space.

use std::collections::HashMap;
use std::io::Read as _;

use super::{Checked, Depth, Fault, Subject};
use crate::digest::DiffId;
use crate::layer::{Kind, TreePath};
use crate::lock::FileLock;
use crate::root::Root;
use crate::store::{Store, StoreError};

impl Store {
    /// Looks at the database; says whether it can be asked further.
    pub(super) fn check_index(&self, depth: Depth, checked: &mut Checked) -> Result<bool, StoreError> {
        if let Some(what) = self.index().fault(depth == Depth::Deep)? {
            checked.faults.push(Fault::new(Subject::Index, what));
            return Ok(false);
        }
        let malformed = self.index().malformed()?;
        for (table, n_rows) in &malformed {
            let what = format!("{n_rows} rows are malformed");
            checked.faults.push(Fault::new(Subject::Rows(table), what));
        }
        Ok(malformed.is_empty())
    }

    pub(super) fn check_records(&self, checked: &mut Checked) -> Result<(), StoreError> {
        let mut here: HashMap<DiffId, bool> = HashMap::new();
        for record in self.index().records()? {
            checked.n_records += 1;
            let is_here = |layer: &DiffId| {
                *here
                    .entry(*layer)
                    .or_insert_with(|| self.layers().path(layer).is_file())
            };
            // Not a fault: what was pruned, or set aside, is made again.
            checked.n_dead_records += usize::from(!record.layers.iter().all(is_here));
        }
        Ok(())
    }

    /// Looks at directories that layers were unpacked into.
    pub(super) fn check_unpacked(&self, depth: Depth, checked: &mut Checked) -> Result<(), StoreError> {
        for name in self.names("unpacked")? {
            let name = name.to_string_lossy().into_owned();
            let dir = self.root().join("unpacked").join(&name);
            let root = match Root::open_host(&dir) {
                Err(error) if error.is_missing() => continue,
                Err(error) => {
                    let fault = Fault::new(Subject::Unpacked(name), error.to_string());
                    checked.faults.push(fault);
                    continue;
                }
                Ok(root) => root,
            };
            if depth == Depth::Deep
                && let Some(what) = self.compare_unpacked(&name, &root)
            {
                checked.faults.push(Fault::new(Subject::Unpacked(name), what));
            }
        }
        Ok(())
    }

    /// Compares the files of an unpacked layer with what its index says. What was unpacked onto other layers isn't
    /// named by its layer, and what belongs to users of a namespace can't be read outside: nothing is said of those.
    fn compare_unpacked(&self, name: &str, root: &Root) -> Option<String> {
        let hex = name.rsplit('-').next()?;
        if name.contains("chain-") {
            return None;
        }
        let layer: DiffId = format!("sha256:{hex}").parse().ok()?;
        let layer = self.layers().get(&layer).ok()?;
        for entry in layer.index().ok()? {
            let Kind::File(data) = &entry.kind else {
                continue;
            };
            match content(root, &entry.path) {
                Ok(found) if found == *data.content.as_bytes() => {}
                Err(error) if error.is_denied() => return None,
                _ => return Some(format!("`{}` isn't what the layer has there", entry.path)),
            }
        }
        None
    }

    /// Removes what was unpacked: it is unpacked again when it is needed.
    pub(super) fn remove_unpacked(&self, name: &str) -> Result<bool, StoreError> {
        let root = Root::open_host(&self.root().join("unpacked"))?;
        match root.remove_tree(&TreePath::clean(name.as_bytes())) {
            Err(error) if error.is_denied() => Ok(false),
            Err(error) if error.is_missing() => Ok(true),
            other => Ok(other.map(|()| true)?),
        }
    }

    pub(super) fn check_mounts(&self, checked: &mut Checked) -> Result<(), StoreError> {
        for listed in self.mounts().list()? {
            checked.n_mounts += 1;
            let data = self.root().join("mounts").join(&listed.name).join("data");
            let what = match std::fs::symlink_metadata(&data) {
                Ok(meta) if !meta.is_dir() => "its data is no directory",
                Err(_) => "it has no data",
                Ok(_) if listed.about.is_none() => "what it is isn't known",
                Ok(_) => continue,
            };
            let whose = listed.about.map_or_else(String::new, |about| {
                format!(" (`{}`, {})", about.id, about.scope())
            });
            checked
                .faults
                .push(Fault::new(Subject::Mount(listed.name), format!("{what}{whose}")));
        }
        Ok(())
    }

    /// Looks for scratch space of dead processes: opening the store removed what could be removed.
    pub(super) fn check_scratch(&self, checked: &mut Checked) -> Result<(), StoreError> {
        let base = self.root().join("incomplete");
        for name in self.names("incomplete")? {
            let path = base.join(&name);
            let dir = path.with_extension("");
            // A process may end just now, and take both with it.
            let is_dead = FileLock::try_now(dir.with_extension("lock")).is_ok_and(|lock| lock.is_some());
            if is_dead && path.extension().is_none() && dir.exists() {
                let name = name.to_string_lossy().into_owned();
                let what = "its process has ended, and it can't be removed";
                checked.faults.push(Fault::new(Subject::Scratch(name), what));
            }
        }
        Ok(())
    }
}

/// Returns the BLAKE3 of a file.
fn content(root: &Root, path: &TreePath) -> Result<[u8; 32], crate::root::Error> {
    let mut file = root.open_file(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = file.read(&mut buffer).map_err(|source| crate::root::Error::Os {
            action: "read",
            path: path.clone(),
            source,
        })?;
        if count == 0 {
            return Ok(*hasher.finalize().as_bytes());
        }
        hasher.update(&buffer[..count]);
    }
}
