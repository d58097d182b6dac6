//! What a vertex does. Ops carry the meaning of BuildKit's LLB ops (source, exec, file, merge), so that LLB can be
//! lowered to them; they know no Dockerfile, no tar, no mount.
//!
//! Plain data: what enters the cache key, and how, is `key.rs`'s business.

use std::collections::BTreeMap;

use cache::DiffId;

use crate::mode::ModeChange;

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// Brings a tree in from outside. No inputs.
    Source(Source),
    /// Runs a process in a container whose root is input 0.
    Exec(Exec),
    /// Changes files of input 0; further inputs are what copies read from.
    File(FileOp),
    /// Stacks the layers of its inputs, input 0 at the bottom.
    Merge,
}

/// Where a tree comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The empty tree.
    Scratch,
    /// An image that was resolved before the graph was made. Its layers may not be here yet.
    Image {
        /// Layers, base first: the identity of the tree.
        layers: Vec<DiffId>,
        /// For people: the reference as written. Not part of the key.
        reference: String,
    },
    /// A directory of the machine: the build context (`context`) or a named one.
    Local {
        /// Name of the context.
        name: String,
    },
}

/// Which network a container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// What the machine offers: an own namespace with outside access, or the host's with a warning.
    Default,
    /// Loopback only.
    None,
    /// The host's, by request.
    Host,
}

/// A process in a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Exec {
    /// The program and its arguments; the program is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// The environment, in order; names are unique.
    pub env: Vec<(String, String)>,
    /// Variables that the process sees but the key doesn't: the predefined proxy arguments.
    pub env_unkeyed: Vec<(String, String)>,
    /// Absolute working directory; made when missing.
    pub cwd: String,
    /// `USER` as written: empty, or name or number, optionally with `:group`.
    pub user: String,
    /// Network mode.
    pub network: Network,
    /// Host name.
    pub hostname: String,
    /// Lines for `/etc/hosts`: name to address.
    pub extra_hosts: Vec<(String, String)>,
    /// Files that are there during the run only, read-only, mode 0755: absolute path to content.
    pub scripts: BTreeMap<String, String>,
}

/// Changes of files, applied in order, together one layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileOp {
    /// What to do.
    pub actions: Vec<FileAction>,
    /// Modification time of what the op itself makes (directories, inline files), in seconds since the epoch:
    /// SOURCE_DATE_EPOCH. `None`: the time of the run.
    pub epoch: Option<i64>,
}

/// One change of files. Destination paths are absolute; symbolic links in them are followed inside the tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileAction {
    /// Copies from another input. Spec: dockerfile.md §10.
    Copy(Copy),
    /// Writes a regular file with the given content (a heredoc). `dest` follows the rules of [`Copy::dest`], with
    /// `name` as the source's name.
    Write {
        /// Destination.
        dest: String,
        /// Name below `dest` when that is a directory.
        name: String,
        /// Content.
        data: Vec<u8>,
        /// Owner and mode.
        change: MetaChange,
    },
    /// Makes a directory and its missing parents, 0755, owned by `user` (`USER` syntax); leaves an existing one alone.
    MakeDir {
        /// The directory.
        path: String,
        /// Owner of what is made.
        user: String,
    },
}

/// Owner and mode given by flags.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MetaChange {
    /// `--chown`: `user[:group]`, names looked up in the tree that is written to.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<ModeChange>,
}

/// A copy from another tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Copy {
    /// Which input of the vertex is read; what of it is chosen stands in that input's `InputView::Paths`.
    pub input: usize,
    /// Destination; a trailing slash means "into this directory".
    pub dest: String,
    /// Owner and mode given by flags.
    pub change: MetaChange,
    /// Unpacks sources that are tar archives, plain or compressed (`ADD`).
    pub unpack: bool,
}
