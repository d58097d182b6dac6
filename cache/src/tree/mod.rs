//! Trees of files as steps see them: the merged view of layers, the build context, selections and their hashes.

mod selection;

pub use selection::Selection;
