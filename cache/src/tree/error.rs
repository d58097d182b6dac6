//! What can go wrong with trees.

use std::io;

use crate::layer::TreePath;
use crate::root;

/// Says why a tree can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path written without wildcards isn't there.
    #[error("`{pattern}` not found")]
    NotFound {
        /// As written.
        pattern: String,
        /// Names beside it, most similar first, at most five.
        candidates: Vec<String>,
    },
    /// A pattern is malformed: an open bracket or a trailing backslash.
    #[error("syntax error in pattern `{pattern}`")]
    BadPattern {
        /// As written.
        pattern: String,
    },
    /// A pattern of `--exclude` can't be one.
    #[error(transparent)]
    Exclude(#[from] super::ignore::IgnoreError),
    /// More symbolic links in a row than the kernel would follow, or a loop of them.
    #[error("too many levels of symbolic links at {path}")]
    TooManyLinks {
        /// The path that was to be resolved.
        path: TreePath,
    },
    /// A path leads through something that isn't a directory.
    #[error("{path} is not a directory")]
    NotDirectory {
        /// What isn't a directory.
        path: TreePath,
    },
    /// A file's content was asked of something else.
    #[error("{path} is not a regular file")]
    NotFile {
        /// What isn't a file.
        path: TreePath,
    },
    /// A file is larger than the reader allows.
    #[error("{path} has {size_bytes} bytes, more than the {limit_bytes} allowed here")]
    TooLarge {
        /// The file.
        path: TreePath,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A layer's hard link names nothing, in its own layer and below.
    #[error("hard link {path} leads to {target}, which is not there")]
    DanglingLink {
        /// The link.
        path: TreePath,
        /// Where it leads.
        target: TreePath,
    },
    /// A layer puts a file where another of its paths needs a directory, once links of lower layers are followed.
    #[error("layer has both {path} and paths below it, through a link of a lower layer")]
    Conflict {
        /// The path.
        path: TreePath,
    },
    /// A part of the context was asked for that the scan left out.
    #[error("{path} was not scanned")]
    NotScanned {
        /// The path.
        path: TreePath,
    },
    /// A file of the context isn't what it was when the context was scanned.
    #[error("{path} changed while reading")]
    Changed {
        /// The file.
        path: TreePath,
    },
    /// A directory or file of the context can't be opened or listed.
    #[error(transparent)]
    Root(#[from] root::Error),
    /// A file's bytes can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// A layer's index can't be had.
    #[error("cannot read the index of a layer: {source}")]
    Index {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
