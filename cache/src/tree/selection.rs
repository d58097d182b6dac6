//! Which part of a tree a step uses: the sources of a COPY, the source of a bind mount.

use serde::{Deserialize, Serialize};

/// Paths of a tree, in the order they were written.
///
/// Each is cleaned as if rooted, may hold wildcards of Go's `filepath.Match` within components, and follows
/// symbolic links inside the tree. A path without wildcards must exist; a pattern may match nothing.
/// Spec: dockerfile.md §10.2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selection {
    /// The paths or patterns, as written after variable expansion.
    pub patterns: Vec<String>,
    /// `--exclude`: what is left out of what the patterns select, in the syntax of ignore files, relative to each
    /// source that is copied. Spec: dockerfile.md §10.5.
    pub excludes: Vec<String>,
    /// `--parents`: the names of the directories above a source are part of what is selected, from the `/./` in its
    /// pattern on, `**` matches any number of levels, and links in a path are taken as links.
    pub parents: bool,
}

impl Selection {
    /// Returns the selection of these paths or patterns, with nothing left out.
    pub fn of(patterns: Vec<String>) -> Self {
        Self {
            patterns,
            ..Self::default()
        }
    }

    /// Returns the selection of the whole tree.
    pub fn everything() -> Self {
        Self::of(vec!["/".to_owned()])
    }
}
