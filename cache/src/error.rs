//! What can go wrong in the store and its layers: one enum for the crate, each variant with the path or digest
//! that it is about. Wording for users, with source lines and help, is made elsewhere.

use std::fmt;
use std::io;

use crate::digest::DiffId;
use crate::layer::TreePath;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that this crate's operations fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive that is being imported can't be read; not a statement about its content.
    #[error("cannot read the archive")]
    ReadArchive(#[source] io::Error),
    /// An archive, or a list of entries to be packed, holds something that no layer may hold.
    #[error("entry {index} (`{name}`): {problem}")]
    Entry {
        /// Ordinal of the entry, counted from one; 0 when the archive as a whole is meant.
        index: u64,
        /// The name as far as it is known.
        name: EntryName,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The layer file that is being made can't be written.
    #[error("cannot write the layer file")]
    WriteLayer(#[source] io::Error),
    /// A layer file can't be read.
    #[error("cannot read the layer file of {diff_id}")]
    ReadLayer {
        /// The layer.
        diff_id: DiffId,
        /// Why.
        source: io::Error,
    },
    /// A layer file isn't what was once written: cut short, overwritten, or another layer's.
    #[error("the layer file of {diff_id} is damaged: {what}")]
    DamagedLayer {
        /// The layer that was asked for.
        diff_id: DiffId,
        /// What doesn't fit.
        what: &'static str,
    },
    /// A layer needs more than 2 TiB, or a merged image more address space than EROFS has.
    #[error("the layers are too large for one file-system image: more than 2 TiB")]
    ImageTooLarge,
    /// More layers than one image can name.
    #[error("too many layers for one file-system image: {0}")]
    TooManyLayers(usize),
    /// An entry doesn't fit on the layers below it.
    #[error("`{path}` of layer {diff_id} does not fit on the layers below: {problem}")]
    Merge {
        /// The layer that holds the entry.
        diff_id: DiffId,
        /// The entry.
        path: TreePath,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A file or directory that is to be packed can't be read.
    #[error("cannot read `{path}`")]
    ReadSource {
        /// Where it is, inside the tree that is packed.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
}

/// The name of an archive's entry for messages: escaped, so that it can't talk to a terminal, and cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryName(Vec<u8>);

impl EntryName {
    /// Keeps the beginning of `name`.
    pub fn new(name: &[u8]) -> Self {
        Self(name.iter().take(200).copied().collect())
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The stream ends inside a header or a file.
    #[error("the archive ends in the middle of it")]
    Truncated,
    /// The header's checksum is wrong: damaged, or no tar at all.
    #[error("wrong header checksum")]
    Checksum,
    /// A zero block is followed by something else.
    #[error("a single zero block, then data")]
    LoneZeroBlock,
    /// A numeric field that isn't a number, is negative, or is out of range.
    #[error("invalid number in the field {0}")]
    Number(&'static str),
    /// A PAX record without its parts.
    #[error("malformed PAX record")]
    Pax,
    /// An extended header, long name or sparse map above its limit.
    #[error("an extended header of {0} bytes is too large")]
    ExtendedHeader(u64),
    /// A type of entry that no layer can hold.
    #[error("unsupported type {:?}", char::from(*.0))]
    Type(u8),
    /// A sparse map that overlaps, points outside, or doesn't fit the stored data.
    #[error("malformed sparse map")]
    SparseMap,
    /// A sparse format that isn't known.
    #[error("unsupported sparse format")]
    SparseFormat,
    /// More logical bytes in sparse files than allowed.
    #[error("sparse files of more than {0} bytes")]
    SparseTooLarge(u64),
    /// A `..` in a name or in the target of a hard link, or a NUL.
    #[error("the name leaves the root or holds a NUL")]
    Name,
    /// A component of more than 255 bytes.
    #[error("a component of more than 255 bytes")]
    ComponentTooLong,
    /// A path above the limit.
    #[error("a path of more than {} bytes", crate::layer::MAX_PATH_BYTES)]
    PathTooLong,
    /// A symbolic link that no file system could hold: empty, with a NUL, or above 4,095 bytes.
    #[error("invalid target of a symbolic link")]
    LinkTarget,
    /// Something that isn't a directory where the root is.
    #[error("the root must be a directory")]
    RootType,
    /// An entry below something that isn't a directory.
    #[error("its parent is not a directory")]
    ParentNotDirectory,
    /// Symbolic links in the way, too many or in a circle.
    #[error("too many symbolic links on the way to it")]
    LinkLoop,
    /// A hard link to a directory.
    #[error("a hard link to a directory")]
    LinkToDirectory,
    /// A hard link to something that is nowhere.
    #[error("a hard link to a missing entry")]
    DanglingLink,
    /// A name that is reserved for whiteouts.
    #[error("names that start with .wh. are reserved for whiteouts")]
    ReservedName,
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("malformed whiteout")]
    Whiteout,
    /// A character device 0:0, which would become a whiteout when mounted.
    #[error("a character device 0:0")]
    WhiteoutDevice,
    /// An attribute name or value that can't be stored.
    #[error("an extended attribute that cannot be stored")]
    Xattr,
    /// An upper directory with a feature of overlay that layers don't have.
    #[error("unsupported overlay attribute {0}")]
    Overlay(String),
    /// More entries than allowed.
    #[error("more than {0} entries")]
    TooManyEntries(usize),
    /// All paths together are too long.
    #[error("more than {0} bytes of paths")]
    TooManyNames(usize),
    /// The stream is longer than allowed.
    #[error("more than {0} bytes")]
    TooLarge(u64),
    /// A file ended before its size.
    #[error("the file shrank while it was read")]
    Shrank,
    /// A file went on after its size.
    #[error("the file grew while it was read")]
    Grew,
    /// A file whose content was known had another.
    #[error(
        "its content isn't what it was: it changed while it was read, or what it is copied from is damaged (`ashlar check --deep` tells)"
    )]
    OtherContent,
}

impl Problem {
    /// Says which entry this is about.
    pub(crate) fn of(self, index: u64, name: &[u8]) -> Error {
        Error::Entry {
            index,
            name: EntryName::new(name),
            problem: self,
        }
    }
}
