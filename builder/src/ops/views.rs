//! Merged views of results: each made once, from the view of what is below, so that a long chain of steps doesn't read
//! all its indexes at every step.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::tree::View;
use cache::{DiffId, Store};

use super::OpError;

/// Views that are kept: one for each stage that is being built, and some more. Each holds a pointer per layer.
const MAX_VIEWS: usize = 64;

/// The views of one build, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Views {
    made: Mutex<VecDeque<(Arc<[DiffId]>, View)>>,
}

impl Views {
    fn made(&self) -> MutexGuard<'_, VecDeque<(Arc<[DiffId]>, View)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the view of a stack of layers, base first, all of which are in the store.
    pub(super) fn of(&self, layers: &Arc<[DiffId]>, store: &Store) -> Result<View, OpError> {
        let (n_known, mut view) = self.longest_below(layers);
        if n_known == layers.len() {
            return Ok(view);
        }
        for layer in &layers[n_known..] {
            view.push(store.layers().get(layer)?)?;
        }
        let mut made = self.made();
        if made.len() >= MAX_VIEWS {
            made.pop_front();
        }
        made.push_back((Arc::clone(layers), view.clone()));
        Ok(view)
    }

    /// Returns the view of as much of the bottom of the stack as is known, and how many layers that is.
    fn longest_below(&self, layers: &[DiffId]) -> (usize, View) {
        let made = self.made();
        let fitting = made.iter().filter(|(known, _)| layers.starts_with(known));
        fitting
            .max_by_key(|(known, _)| known.len())
            .map_or_else(Default::default, |(known, view)| (known.len(), view.clone()))
    }
}

#[cfg(test)]
mod tests {
    use cache::layer::{Body, Meta, TreePath};

    use super::*;

    /// Puts a layer with one empty file into the store.
    fn layer(store: &Store, name: &str) -> DiffId {
        let written = store.layers().write(store.incomplete(), |mut writer| {
            let body = Body::File {
                size_bytes: 0,
                reader: &mut &b""[..],
                content: None,
            };
            writer.add(TreePath::clean(name.as_bytes()), Meta::default(), body)?;
            Ok::<_, OpError>(writer.finish()?)
        });
        written.unwrap().diff_id()
    }

    fn names(view: &View) -> String {
        let names = view.walk(&TreePath::root()).map(|(path, _)| path.to_string());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_view_grows_from_the_longest_below_and_leaves_that_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| layer(&store, name));
        let views = Views::default();
        let check = |stack: &[DiffId], n_known: usize, expected: &str| {
            assert_eq!(views.longest_below(stack).0, n_known);
            let stack: Arc<[DiffId]> = stack.into();
            for _ in 0..2 {
                assert_eq!(names(&views.of(&stack, &store).unwrap()), expected);
            }
        };
        check(&[], 0, "");
        check(&[a], 0, "/a");
        check(&[a, b], 1, "/a /b");
        check(&[a, b, c], 2, "/a /b /c");
        check(&[a, b, d], 2, "/a /b /d");
        check(&[a, b], 2, "/a /b");
        check(&[b, a], 0, "/a /b");
        let all = [a, b, c, d];
        for n in 0..2 * MAX_VIEWS {
            views.of(&vec![all[n % 4]; n].into(), &store).unwrap();
        }
        assert_eq!(views.made().len(), MAX_VIEWS, "what is kept stays bounded");
        check(&[a, b, c], 0, "/a /b /c");
    }
}
