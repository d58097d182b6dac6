//! Trees of files as steps see them: the merged view of layers, the build context, selections and their hashes.

mod compare;
mod context;
mod error;
mod hash;
mod ignore;
pub mod links;
mod memo;
mod node;
mod parents;
mod pattern;
mod read;
mod scan;
mod select;
mod selected;
mod selection;
mod settle;
mod view;

#[cfg(test)]
mod tests;

pub use compare::{Aspect, Change, Changes, Times};
pub use context::{ContextTree, Notice};
pub use error::Error;
pub use ignore::{IgnoreError, IgnoreList};
pub use memo::Memo;
pub use node::{Inode, Node, NodeKind};
pub use read::Reader;
pub use selected::{Parents, Selected};
pub use selection::Selection;
pub use view::{Children, Part, Resolved, View, Walk};
