//! The bytes of a view's files: read from the layer file by offset, or from the context with proof that they are
//! the bytes whose hash was recorded.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::context::ContextTree;
use super::error::Error;
use super::node::{Inode, Node, NodeKind};
use super::view::{Source, View};
use crate::digest::ContentHash;
use crate::layer::{FileData, Kind, TreePath};

/// Reads one file of a view, once.
///
/// For a file of the context the read that reaches the recorded size fails when the bytes aren't those that were
/// hashed; the error's source is [`Error::Changed`]. A small file's bytes may be the hashed ones themselves.
pub struct Reader<'v> {
    from: From<'v>,
    left_bytes: u64,
}

enum From<'v> {
    Layer {
        file: &'v File,
        offset: u64,
    },
    /// What was hashed.
    Kept {
        bytes: Box<[u8]>,
        done: usize,
    },
    Context {
        context: &'v ContextTree,
        number: usize,
        file: File,
        hasher: Box<blake3::Hasher>,
    },
}

impl Reader<'_> {
    /// Returns how many bytes are still to come.
    pub fn left_bytes(&self) -> u64 {
        self.left_bytes
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left_bytes)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let n = match &mut self.from {
            From::Layer { file, offset } => {
                let n = file.read_at(&mut buffer[..wanted], *offset)?;
                if n == 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "layer file is shorter than its index says",
                    ));
                }
                *offset += n as u64;
                n
            }
            From::Kept { bytes, done } => {
                // As many as were recorded, or hashing had failed.
                let next = bytes
                    .get(*done..*done + wanted)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer[..wanted].copy_from_slice(next);
                *done += wanted;
                wanted
            }
            From::Context {
                context,
                number,
                file,
                hasher,
            } => {
                let n = file.read(&mut buffer[..wanted])?;
                hasher.update(&buffer[..n]);
                if n as u64 == self.left_bytes || n == 0 {
                    check_end(context, *number, file, hasher).map_err(io::Error::other)?;
                }
                n
            }
        };
        self.left_bytes -= n as u64;
        Ok(n)
    }
}

/// Checks a file of the context that was read to its recorded end.
fn check_end(
    context: &ContextTree,
    number: usize,
    file: &File,
    hasher: &blake3::Hasher,
) -> Result<(), Error> {
    context.check_unchanged(number, file)?;
    if ContentHash::from(hasher.finalize()) != context.content(number)? {
        return Err(Error::Changed {
            path: context.entries()[number].path.clone(),
        });
    }
    Ok(())
}

impl View {
    /// Opens a file for reading. Not meant for anything but files: those are errors.
    pub fn read(&self, file: impl Into<Inode>) -> Result<Reader<'_>, Error> {
        let (source, number, data) = self.file(file.into())?;
        let from = match source {
            Source::Layer(layer) | Source::Settled { layer, .. } => From::Layer {
                file: layer.file(),
                offset: data.offset,
            },
            Source::Context(context) => {
                // The hash must stand before the bytes are read, or there would be nothing to compare with.
                context.content(number)?;
                match context.take_kept(number) {
                    Some(bytes) => From::Kept { bytes, done: 0 },
                    None => From::Context {
                        context,
                        number,
                        file: context.open(number)?,
                        hasher: Box::default(),
                    },
                }
            }
        };
        Ok(Reader {
            from,
            left_bytes: data.size_bytes,
        })
    }

    /// Returns the hash of a file's content. For a context, that may mean reading it.
    pub fn content(&self, file: impl Into<Inode>) -> Result<ContentHash, Error> {
        let (source, number, data) = self.file(file.into())?;
        match source {
            Source::Layer(_) | Source::Settled { .. } => Ok(data.content),
            Source::Context(context) => context.content(number),
        }
    }

    /// Returns where a file's bytes stand, for copying them without reading: the layer file and the data's place
    /// in it. `None` for files of a context.
    pub fn extent(&self, file: impl Into<Inode>) -> Result<Option<(&File, FileData)>, Error> {
        let (source, _, data) = self.file(file.into())?;
        Ok(match source {
            Source::Layer(layer) | Source::Settled { layer, .. } => Some((layer.file(), data)),
            Source::Context(_) => None,
        })
    }

    /// Makes the contents of many nodes known, in parallel; after it, [`View::content`] answers at once for them.
    pub fn hash_contents(&self, nodes: &[Node<'_>]) -> Result<(), Error> {
        let Some(Source::Context(context)) = self.parts.first().map(|part| &part.source) else {
            return Ok(());
        };
        let numbers: Vec<usize> = nodes
            .iter()
            .filter(|node| matches!(node.kind, NodeKind::File { .. }) && node.inode.part == 0)
            .map(|node| node.inode.entry as usize)
            .collect();
        context.hash_all(&numbers)
    }

    /// Reads a small file such as `/etc/passwd`, links followed inside the tree; `None` when it isn't there.
    ///
    /// Fails when it isn't a regular file or has more than `limit_bytes`.
    pub fn read_small(&self, path: &TreePath, limit_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        let resolved = match self.resolve(path) {
            Err(Error::NotDirectory { .. }) => return Ok(None),
            other => other?,
        };
        let Some(node) = resolved.node else {
            return Ok(None);
        };
        let path = resolved.path;
        let NodeKind::File { size_bytes } = node.kind else {
            return Err(Error::NotFile { path });
        };
        if size_bytes > limit_bytes {
            return Err(Error::TooLarge {
                path,
                size_bytes,
                limit_bytes,
            });
        }
        let mut out = Vec::new();
        self.read(&node)?
            .read_to_end(&mut out)
            .map_err(|source| Error::Read { path, source })?;
        Ok(Some(out))
    }

    fn file(&self, inode: Inode) -> Result<(&Source, usize, FileData), Error> {
        let Some(part) = self.parts.get(inode.part as usize) else {
            return Err(Error::NotFile {
                path: TreePath::root(),
            });
        };
        let number = inode.entry as usize;
        let entry = &part.entries()[number];
        match entry.kind {
            Kind::File(data) => Ok((&part.source, number, data)),
            _ => Err(Error::NotFile {
                path: entry.path.clone(),
            }),
        }
    }
}
