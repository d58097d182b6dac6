//! Which part of a tree a step uses: the sources of a COPY, the source of a bind mount.

use serde::{Deserialize, Serialize};

/// Paths of a tree, in the order they were written.
///
/// Each is cleaned as if rooted, may hold wildcards of Go's `filepath.Match` within components, and follows
/// symbolic links inside the tree. A path without wildcards must exist; a pattern may match nothing.
/// Spec: dockerfile.md §10.2.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selection {
    /// The paths or patterns, as written after variable expansion.
    pub patterns: Vec<String>,
}
