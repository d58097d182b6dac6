//! The memory of former builds, as the solver needs it. The builder keeps it in a database, tests in a map.

use std::any::Any;

use cache::tree::Selection;
use cache::{Key, Record, TreeHash};

use crate::error::IndexError;

/// Remembers results and tree hashes. All calls but [`lock`](Self::lock) are cheap and don't block.
pub trait Index: Send + Sync + 'static {
    /// Returns what is recorded for a key. `Some` means that every layer of it is here and usable.
    fn record(&self, key: &Key) -> Result<Option<Record>, IndexError>;

    /// Records a result; it replaces an older one of the same key. The tree hashes memoised for that key were those of the
    /// older result and are forgotten.
    fn put(&self, record: &Record) -> Result<(), IndexError>;

    /// Returns the memoised hash of what `selection` selects in the result of the key `of`.
    fn tree_hash(&self, of: &Key, selection: &Selection) -> Result<Option<TreeHash>, IndexError>;

    /// Memoises a tree hash.
    fn put_tree_hash(&self, of: &Key, selection: &Selection, hash: &TreeHash) -> Result<(), IndexError>;

    /// Returns the newest record of a step, whatever its key, and whether or not its layers are still here: for explaining.
    fn latest(&self, step: &str) -> Result<Option<Record>, IndexError>;

    /// Says when and why the recorded result of a key was removed, in a short line; `None` where none was, or nobody knows.
    fn removed(&self, key: &Key) -> Result<Option<String>, IndexError>;

    /// Waits until no one else, in this process or another, works on the key. The work is the caller's until the
    /// answer is dropped. Where it has to be waited for, `told` hears who has it. Blocks; called from a thread that may.
    fn lock(&self, key: &Key, told: &mut dyn FnMut(&str)) -> Result<Box<dyn Any + Send>, IndexError>;
}
