//! What a vertex does. Ops carry the meaning of BuildKit's LLB ops (source, exec, file, merge), so that LLB can be
//! lowered to them; they know no Dockerfile, no tar, no mount.
//!
//! Plain data: what enters the cache key, and how, is `key.rs`'s business.

use std::collections::BTreeMap;

use cache::{DiffId, Digest};

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
    /// The files of a git commit that was resolved before the graph was made.
    Git(Git),
    /// One file that was fetched over HTTP before the graph was made: a tree with that file alone.
    Http(Http),
}

/// The files of a git commit. Spec: dockerfile.md §10.8.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Git {
    /// The repository's address, without credentials. Not part of the key: the commit says what the files are.
    pub remote: String,
    /// The reference that led to the commit, in full (`refs/heads/main`), for servers that give no bare commits; empty
    /// for a commit that was asked for by its id. Not part of the key.
    pub reference: String,
    /// The whole commit id, in lower-case hex.
    pub commit: String,
    /// Directory of the repository that becomes the root, cleaned, without leading slash; empty for all of it.
    pub subdir: String,
    /// Keeps `.git`.
    pub keep_git_dir: bool,
    /// Fetches submodules, recursively.
    pub submodules: bool,
    /// Modification time of all files, in seconds since the epoch; `None` is the time of the checkout.
    pub mtime: Option<i64>,
}

/// One file that was fetched over HTTP: mode 0600, owner 0:0. Spec: dockerfile.md §10.7.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Http {
    /// The address, without credentials. Not part of the key: the digest says what the content is.
    pub url: String,
    /// Digest of the content, which is a blob of the store.
    pub digest: Digest,
    /// The file's name in the tree: one component.
    pub name: String,
    /// Modification time in seconds since the epoch: `Last-Modified`, or 0.
    pub mtime: i64,
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
    /// What the programs of the tree are made for: `linux/arm64`.
    pub platform: String,
    /// Network mode.
    pub network: Network,
    /// Host name.
    pub hostname: String,
    /// Lines for `/etc/hosts`: name to address, or to `host-gateway`, which is the machine as the container reaches it.
    pub extra_hosts: Vec<(String, String)>,
    /// Files that are there during the run only, read-only, mode 0755: absolute path to content.
    pub scripts: BTreeMap<String, String>,
    /// What is mounted for the run, in order: a later one may lie in an earlier one.
    pub mounts: Vec<Mount>,
    /// How much the process may.
    pub security: Security,
    /// Devices of the machine, by CDI name. Spec: dockerfile.md §9.5.
    pub devices: Vec<Device>,
}

/// How much a process in a container may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// The default profile.
    Sandbox,
    /// All capabilities, no seccomp filter, all devices: by request, with the entitlement.
    Insecure,
}

/// A device that a process asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// `vendor.com/class=name`, a class, or `*`.
    pub name: String,
    /// Fails when it isn't there.
    pub required: bool,
}

/// Something mounted for one run. Targets are absolute and cleaned, never `/`; links in them are resolved inside the
/// container's root. Spec: dockerfile.md §9.2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mount {
    /// A directory or file of another input. Writes to one that isn't read-only are thrown away.
    Bind {
        /// Where.
        target: String,
        /// Which input of the vertex; the view of that input selects `source`.
        input: usize,
        /// Path in the input.
        source: String,
        /// Refuses writes.
        readonly: bool,
    },
    /// A directory that outlives the build; its content is no part of any key.
    Cache(CacheMount),
    /// An empty directory in memory.
    Tmpfs {
        /// Where.
        target: String,
        /// Most that it holds; `None`: no limit.
        size_bytes: Option<u64>,
        /// Refuses writes.
        readonly: bool,
    },
    /// A secret of the build as a file, an environment variable, or both. Its value is no part of any key.
    Secret {
        /// Which secret.
        id: String,
        /// The file; `None`: no file.
        target: Option<String>,
        /// The variable; `None`: no variable.
        env: Option<String>,
        /// Fails when the build has no such secret; otherwise nothing is mounted then.
        required: bool,
        /// Permissions and owner of the file.
        owner: FileOwner,
    },
    /// The socket of an ssh agent; `SSH_AUTH_SOCK` names the first.
    Ssh {
        /// Which agent of the build.
        id: String,
        /// The socket.
        target: String,
        /// Fails when the build has no such agent; otherwise nothing is mounted then.
        required: bool,
        /// Permissions and owner of the socket.
        owner: FileOwner,
    },
}

/// A directory that outlives the build.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheMount {
    /// Where.
    pub target: String,
    /// Which: caches of a project are equal when namespace, id and (without `from`) `owner` are.
    pub id: String,
    /// Set by the build argument BUILDKIT_CACHE_MOUNT_NS; empty otherwise: then whoever executes the step knows whose caches
    /// are meant.
    pub namespace: String,
    /// What happens when two runs want it at once.
    pub sharing: Sharing,
    /// Refuses writes.
    pub readonly: bool,
    /// What a new cache begins with: an input and a path in it. The view of that input selects the path.
    pub from: Option<(usize, String)>,
    /// Permissions and owner of the directory of a new cache without `from`.
    pub owner: FileOwner,
}

/// What happens when two runs want a cache at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Both use it.
    Shared,
    /// The second gets another one.
    Private,
    /// The second waits.
    Locked,
}

/// Permissions and owner of something that is made for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileOwner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
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
