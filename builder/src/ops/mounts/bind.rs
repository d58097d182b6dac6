//! Bind mounts: a directory or file of another input. Of layers, the layers themselves are mounted; of a build context,
//! the selected part is written as a layer file first, in scratch space: it is what the key says, whatever happens to
//! the context meanwhile, and holds nothing that `.dockerignore` excludes. Nothing of the machine is ever mounted.
//!
//! Writes go to memory and are thrown away with the run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cache::layer::TreePath;
use cache::tree::Error as TreeError;
use solver::Snapshot;

use super::{Input, subtree};
use crate::ops::OpError;
use crate::ops::exec::memory_budget_bytes;
use crate::ops::lowers::Lowers;
use crate::sandbox::{Access, Lower, Tree, Upper};

/// Parts of contexts that were written as layers, by context and path. They go with the build.
#[derive(Default)]
pub(in crate::ops) struct Parts(Mutex<HashMap<(String, TreePath), Arc<Lower>>>);

/// Returns what is at `source` in the input. Links are followed inside the input.
pub(super) fn tree(lowers: &Lowers, input: &Input, source: &str, access: Access) -> Result<Tree, OpError> {
    let found = input.tree.resolve(&TreePath::clean(source.as_bytes()))?;
    let node = found.node.ok_or_else(|| TreeError::NotFound {
        pattern: source.to_owned(),
        candidates: Vec::new(),
    })?;
    let upper = match access {
        Access::ReadOnly => None,
        Access::ReadWrite => Some(Upper::tmpfs(memory_budget_bytes())?),
    };
    let helper = lowers.helper()?;
    match &input.snapshot {
        Snapshot::Layers(layers) => {
            if let (Some(upper), Some(root)) = (&upper, input.tree.lookup(&TreePath::root())) {
                upper.describe_root(root.meta)?;
            }
            let stack = lowers.stack(layers)?;
            let stack: Vec<&Lower> = stack.iter().map(AsRef::as_ref).collect();
            Ok(Tree::of_stack(
                &helper,
                &stack,
                found.path.as_bytes(),
                upper.as_ref(),
            )?)
        }
        Snapshot::Local(name) => {
            let part = lowers.parts().of(name, &found.path, || {
                subtree::mounted(lowers, &input.tree, &found.path, &node)
            })?;
            Ok(Tree::of_stack(&helper, &[&part], subtree::TOP, upper.as_ref())?)
        }
    }
}

impl Parts {
    /// Returns a part of a context, made when it isn't there.
    fn of(
        &self,
        context: &str,
        path: &TreePath,
        make: impl FnOnce() -> Result<Lower, OpError>,
    ) -> Result<Arc<Lower>, OpError> {
        let key = (context.to_owned(), path.clone());
        let parts = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts().get(&key) {
            return Ok(Arc::clone(part));
        }
        // Two steps may do the same at once; that costs less than to have all others wait.
        let part = Arc::new(make()?);
        Ok(Arc::clone(parts().entry(key).or_insert(part)))
    }
}
