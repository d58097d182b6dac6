//! Makes a layer file from a tar that someone else wrote: kept byte for byte, read as hostile.
//!
//! Decompression comes before, comparing the digest after. A tar is either taken whole or refused; nothing of it is
//! skipped silently but what other readers skip as well.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::fold::Fold;
use super::sink::Sink;
use super::tar::{Extent, Member, MemberKind, Reader};
use super::whiteout::{Marker, classify};
use super::writer::{Written, seal_file};
use super::{FileData, Kind, Limits, TAR_OFFSET};
use crate::digest::ContentHash;
use crate::error::{Error, Problem, Result};

const PAGE: u64 = 4096;
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads `tar` to its end into `file`, which is new, empty, open for reading and writing, and on the store's file
/// system. The digest covers everything, also what follows the end of the archive.
pub fn import(tar: impl Read, file: File, limits: Limits) -> Result<Written> {
    let sink = Sink::new(file, limits.max_bytes);
    let mut reader = Reader::new(Tee {
        source: io::BufReader::with_capacity(CHUNK_BYTES, tar),
        sink,
    });
    let mut fold = Fold::new(limits);
    let mut sparse_files = Vec::new();
    let mut sparse_left = limits.max_sparse_bytes;
    while let Some(member) = reader.next()? {
        let Member { path, meta, kind } = member;
        let marker = classify(path).map_err(|problem| reader.refuse(problem))?;
        let mut sparse = None;
        let kind = match kind {
            MemberKind::File {
                size_bytes,
                sparse: map,
            } => {
                sparse = map;
                if sparse.is_some() {
                    let left = sparse_left.checked_sub(size_bytes);
                    let problem = Problem::SparseTooLarge(limits.max_sparse_bytes);
                    sparse_left = left.ok_or_else(|| reader.refuse(problem))?;
                }
                Kind::File(file_data(&mut reader, size_bytes)?)
            }
            MemberKind::Dir => Kind::Dir {
                opaque: false,
                implied: false,
            },
            MemberKind::Symlink(target) => Kind::Symlink(target),
            MemberKind::Hardlink(target) => Kind::Hardlink(target),
            MemberKind::CharDevice(major, minor) => Kind::CharDevice(major, minor),
            MemberKind::BlockDevice(major, minor) => Kind::BlockDevice(major, minor),
            MemberKind::Fifo => Kind::Fifo,
        };
        let data = if let Kind::File(data) = &kind {
            Some(*data)
        } else {
            None
        };
        let added = match marker {
            Marker::Plain(path) => fold.add(&path, meta, kind),
            Marker::Whiteout(path) => fold.add(&path, meta, Kind::Whiteout),
            Marker::Opaque(path) => fold.add_opaque(&path).map(|()| None),
            Marker::Leftover => Ok(None),
        };
        let number = added.map_err(|problem| reader.refuse(problem))?;
        if let (Some(number), Some(map), Some(data)) = (number, sparse, data) {
            sparse_files.push(SparseFile { number, map, data });
        }
    }
    reader.drain()?;
    let (file, diff_id, tar_bytes) = reader.into_source().sink.finish()?;
    let mut folded = fold.finish().map_err(|problem| problem.of(0, b""))?;
    let mut end = TAR_OFFSET + tar_bytes;
    if !sparse_files.is_empty() {
        let live = folded.live();
        for sparse in sparse_files.iter().filter(|sparse| live.contains(&sparse.number)) {
            let data = expand(&file, sparse, end.next_multiple_of(PAGE))?;
            end = end.next_multiple_of(PAGE) + data.size_bytes;
            folded.set_data(sparse.number, data);
        }
    }
    seal_file(file, diff_id, tar_bytes, end, &folded)
}

/// Passes on what it reads, and writes it to the layer file.
struct Tee<R> {
    source: R,
    sink: Sink,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        // The reader takes the error out again.
        self.sink.put(&buffer[..count]).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// Hashes the body that comes next. For a sparse file the result only says where the stored ranges are.
fn file_data<R: Read>(reader: &mut Reader<R>, size_bytes: u64) -> Result<FileData> {
    let offset = if size_bytes > 0 {
        TAR_OFFSET + reader.position()
    } else {
        0
    };
    let mut hasher = blake3::Hasher::new();
    reader.body(|chunk| {
        hasher.update(chunk);
    })?;
    Ok(FileData {
        size_bytes,
        offset,
        content: hasher.finalize().into(),
    })
}

/// A file of which the tar holds ranges only.
struct SparseFile {
    number: usize,
    map: Vec<Extent>,
    data: FileData,
}

/// Copies the ranges to where the file begins in the area behind the tar, leaving holes between them.
fn expand(file: &File, sparse: &SparseFile, start: u64) -> Result<FileData> {
    let size_bytes = sparse.data.size_bytes;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut from = sparse.data.offset;
    let mut at = 0;
    for extent in &sparse.map {
        hash_zeros(&mut hasher, extent.offset - at);
        let mut left = extent.length;
        at = extent.offset;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let chunk = &mut buffer[..count];
            file.read_exact_at(chunk, from).map_err(Error::WriteLayer)?;
            file.write_all_at(chunk, start + at).map_err(Error::WriteLayer)?;
            hasher.update(chunk);
            (from, at, left) = (from + count as u64, at + count as u64, left - count as u64);
        }
    }
    hash_zeros(&mut hasher, size_bytes - at);
    let offset = if size_bytes > 0 { start } else { 0 };
    Ok(FileData {
        size_bytes,
        offset,
        content: ContentHash::from(hasher.finalize()),
    })
}

fn hash_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..now as usize]);
        count -= now;
    }
}
