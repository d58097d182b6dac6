//! Reads a tar from a stream, entry by entry: ustar, PAX, old and GNU formats.
//!
//! Where readers differ, this one does as Go's `archive/tar`, which is what image tools agree on: the size in a PAX
//! header wins, the last of equal keys wins, GNU long names win over PAX paths, entries that can't have data have
//! none whatever their size says, global headers are checked and otherwise ignored. What Go would let through
//! though it can't be stored (an owner above 32 bits, an unknown type) is an error. Spec: hardening.md T42–T46.

use std::io::{self, Read};

use super::number::{decimal, signed, unsigned, unsigned32};
use super::pax::{self, Records};
use super::sparse::{self, Extent, MapInData, PaxSparse};
use super::{BLOCK_BYTES, padding};
use crate::error::{Error, Problem, Result};
use crate::layer::whiteout::PREFIX;
use crate::layer::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES, Meta, Timestamp, TreePath};

/// The most bytes of one extended header or long name.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;
/// The longest target of a symbolic link: PATH_MAX with its NUL.
const MAX_TARGET_BYTES: usize = 4095;
const BUFFER_BYTES: usize = 256 * 1024;

/// One entry of an archive.
#[derive(Debug)]
pub(in crate::layer) struct Member {
    /// The cleaned name, whiteout names included.
    pub(in crate::layer) path: TreePath,
    /// Attributes still as they came.
    pub(in crate::layer) meta: Meta,
    /// Type and what belongs to it.
    pub(in crate::layer) kind: MemberKind,
}

/// The type of an archive's entry.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::layer) enum MemberKind {
    /// A file; its stored bytes are the next body.
    File {
        /// Logical size.
        size_bytes: u64,
        /// The ranges that the body holds, one after the other, when it doesn't hold all.
        sparse: Option<Vec<Extent>>,
    },
    Dir,
    Symlink(Vec<u8>),
    Hardlink(TreePath),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// A tar stream being read.
pub(in crate::layer) struct Reader<R> {
    source: R,
    /// Bytes taken from the source.
    position: u64,
    /// Bytes of the current body that were not read yet, and what fills its last block.
    body: u64,
    filler: u64,
    index: u64,
    name: Vec<u8>,
    buffer: Vec<u8>,
}

/// What extended headers said about the next entry.
#[derive(Default)]
struct Extended {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Records,
}

impl<R: Read> Reader<R> {
    /// Starts at the beginning of a stream.
    pub(in crate::layer) fn new(source: R) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self {
            source,
            position: 0,
            body: 0,
            filler: 0,
            index: 0,
            name: Vec::new(),
            buffer,
        }
    }

    /// Returns the offset of the current body in the stream.
    pub(in crate::layer) fn position(&self) -> u64 {
        self.position
    }

    /// Gives the source back.
    pub(in crate::layer) fn into_source(self) -> R {
        self.source
    }

    /// Makes an error about the current entry.
    pub(in crate::layer) fn refuse(&self, problem: Problem) -> Error {
        problem.of(self.index, &self.name)
    }

    /// Goes to the next entry; `None` at the end of the archive.
    pub(in crate::layer) fn next(&mut self) -> Result<Option<Member>> {
        self.body(|_| {})?;
        let mut extended = Extended::default();
        self.index += 1;
        self.name.clear();
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let fields = header.as_old();
            let size = unsigned(&fields.size, "size").map_err(|problem| self.refuse(problem))?;
            match fields.linkflag[0] {
                b'x' => extended.pax = self.records(size)?,
                b'g' => drop(self.records(size)?),
                b'L' => extended.long_name = Some(self.extended_text(size)?),
                b'K' => extended.long_link = Some(self.extended_text(size)?),
                _ => return self.member(&header, size, extended).map(Some),
            }
        }
    }

    /// Hands out what is left of the current body, chunk by chunk, and leaves the stream at the next header.
    pub(in crate::layer) fn body(&mut self, mut use_chunk: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut outcome = Ok(());
        while self.body + self.filler > 0 {
            // Body and filler in one read where they fit: most files are small.
            let wanted = usize::try_from(self.body + self.filler)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let own = usize::try_from(self.body).unwrap_or(usize::MAX).min(wanted);
            let count = match self.fill_some(&mut buffer[..wanted]) {
                Ok(count) if count < own => Err(self.refuse(Problem::Truncated)),
                other => other,
            };
            let count = match count {
                Ok(count) => count,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            use_chunk(&buffer[..own]);
            self.body -= own as u64;
            self.filler = match count < wanted {
                // The archive ends without the last filler, as umoci and others write it and Go reads it.
                true => 0,
                false => self.filler - (wanted - own) as u64,
            };
        }
        self.buffer = buffer;
        outcome
    }

    /// Reads what follows the end marker, which counts for the digest though it means nothing.
    pub(in crate::layer) fn drain(&mut self) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        while self.read_some(&mut buffer)? > 0 {}
        self.buffer = buffer;
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.source.read(buffer) {
                Ok(count) => {
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Limits and write errors travel through the stream as errors of ours.
                Err(error) => return Err(error.downcast::<Error>().unwrap_or_else(Error::ReadArchive)),
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.fill_some(buffer)? < buffer.len() {
            true => Err(self.refuse(Problem::Truncated)),
            false => Ok(()),
        }
    }

    /// Fills a buffer as far as the stream goes; returns how far that is.
    fn fill_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut count = 0;
        while count < buffer.len() {
            match self.read_some(&mut buffer[count..])? {
                0 => break,
                more => count += more,
            }
        }
        Ok(count)
    }

    /// Reads one block; `None` when the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        let first = self.read_some(&mut block)?;
        if first == 0 {
            return Ok(None);
        }
        self.fill(&mut block[first..])?;
        Ok(Some(block))
    }

    /// Reads a header and checks its sum; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<tar::Header>> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block == [0; BLOCK_BYTES] {
            return match self.block()? {
                Some(second) if second != [0; BLOCK_BYTES] => Err(self.refuse(Problem::LoneZeroBlock)),
                _ => Ok(None),
            };
        }
        let mut header = tar::Header::new_old();
        *header.as_mut_bytes() = block;
        self.name = until_nul(&header.as_old().name).to_vec();
        if !has_valid_sum(&block) {
            return Err(self.refuse(Problem::Checksum));
        }
        // The magic alone tells the format; some writers leave the version empty.
        if header.as_bytes()[257..263] == *b"ustar\0" {
            header.as_mut_bytes()[263..265].copy_from_slice(b"00");
        }
        Ok(Some(header))
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENDED_BYTES {
            return Err(self.refuse(Problem::ExtendedHeader(size)));
        }
        (self.body, self.filler) = (size, padding(size));
        let mut data = Vec::new();
        self.body(|chunk| data.extend_from_slice(chunk))?;
        Ok(data)
    }

    fn extended_text(&mut self, size: u64) -> Result<Vec<u8>> {
        Ok(until_nul(&self.extended(size)?).to_vec())
    }

    fn records(&mut self, size: u64) -> Result<Records> {
        let data = self.extended(size)?;
        pax::parse(&data).map_err(|problem| self.refuse(problem))
    }

    fn member(&mut self, header: &tar::Header, size: u64, mut extended: Extended) -> Result<Member> {
        let names = Names::of(header, &mut extended);
        self.name.clone_from(&names.path);
        let parsed = Parsed::new(header, size, &names, &extended.pax);
        let parsed = parsed.map_err(|problem| self.refuse(problem))?;
        let mut kind = parsed.kind;
        (self.body, self.filler) = (parsed.stored_bytes, padding(parsed.stored_bytes));
        if let MemberKind::File { size_bytes, sparse } = &mut kind {
            match parsed.sparse {
                SparseSource::None => {}
                SparseSource::Header(map) => *sparse = Some(map),
                SparseSource::Continued(mut map) => {
                    self.continue_old_map(&mut map)?;
                    *sparse = Some(map);
                }
                SparseSource::InData => *sparse = Some(self.map_in_data()?),
            }
            if let Some(map) = sparse {
                let fits = sparse::check(map, *size_bytes, self.body);
                fits.map_err(|problem| self.refuse(problem))?;
            }
        }
        Ok(Member {
            path: parsed.path,
            meta: parsed.meta,
            kind,
        })
    }

    fn continue_old_map(&mut self, map: &mut Vec<Extent>) -> Result<()> {
        loop {
            let mut more = tar::GnuExtSparseHeader::new();
            *more.as_mut_bytes() = self.block()?.ok_or_else(|| self.refuse(Problem::Truncated))?;
            sparse::old_gnu(more.sparse(), map).map_err(|problem| self.refuse(problem))?;
            if more.isextended[0] == 0 {
                return Ok(());
            }
        }
    }

    /// Reads the map of format 1.0, which counts as part of the stored data.
    fn map_in_data(&mut self) -> Result<Vec<Extent>> {
        let mut map = MapInData::default();
        loop {
            let left = self.body.checked_sub(BLOCK_BYTES as u64);
            let block = self.block()?.ok_or_else(|| self.refuse(Problem::Truncated))?;
            self.body = left.ok_or_else(|| self.refuse(Problem::SparseMap))?;
            if let Some(map) = map.push(&block).map_err(|problem| self.refuse(problem))? {
                return Ok(map);
            }
        }
    }
}

/// Says whether a block can be a header: its sum fits.
fn has_valid_sum(block: &[u8; BLOCK_BYTES]) -> bool {
    let Ok(expected) = signed(&block[148..156], "checksum") else {
        return false;
    };
    let outside = |range: &usize| !(148..156).contains(range);
    let bytes = || (0..BLOCK_BYTES).filter(outside).map(|at| block[at]);
    let plain: i64 = bytes().map(i64::from).sum::<i64>() + 8 * 32;
    // Some old writers summed signed bytes.
    let signed_sum: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
    expected == plain || expected == signed_sum
}

/// Says whether a file that begins with `head` (its first 512 bytes) is taken for a tar archive: by content, never by
/// name. An archive without any entry is not told from other files that begin with zeros.
pub fn is_tar_header(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(has_valid_sum)
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
}

/// The two names of an entry, from wherever they come.
struct Names {
    path: Vec<u8>,
    link: Vec<u8>,
}

impl Names {
    fn of(header: &tar::Header, extended: &mut Extended) -> Self {
        let fields = header.as_old();
        let mut path = until_nul(&fields.name).to_vec();
        if let Some(ustar) = header.as_ustar() {
            let prefix = until_nul(&ustar.prefix);
            if !prefix.is_empty() {
                path = [prefix, b"/", &path].concat();
            }
        }
        let mut link = until_nul(&fields.linkname).to_vec();
        for (key, value) in &extended.pax {
            match &key[..] {
                b"path" if !value.is_empty() => path.clone_from(value),
                b"linkpath" if !value.is_empty() => link.clone_from(value),
                _ => {}
            }
        }
        let sparse_name = extended
            .pax
            .iter()
            .rev()
            .find(|(key, _)| key == b"GNU.sparse.name");
        if let Some((_, name)) = sparse_name.filter(|(_, name)| !name.is_empty()) {
            path.clone_from(name);
        }
        Self {
            path: extended.long_name.take().unwrap_or(path),
            link: extended.long_link.take().unwrap_or(link),
        }
    }
}

/// Where the map of a sparse file comes from.
enum SparseSource {
    None,
    Header(Vec<Extent>),
    Continued(Vec<Extent>),
    InData,
}

/// A header with its extensions, as far as they go without reading on.
struct Parsed {
    path: TreePath,
    meta: Meta,
    kind: MemberKind,
    sparse: SparseSource,
    stored_bytes: u64,
}

impl Parsed {
    fn new(header: &tar::Header, size: u64, names: &Names, pax: &Records) -> Result<Self, Problem> {
        let path = clean(&names.path)?;
        let (meta, pax_size) = meta(header, pax)?;
        let size = pax_size.unwrap_or(size);
        let mut parsed = Self {
            path,
            meta,
            kind: MemberKind::Dir,
            sparse: SparseSource::None,
            stored_bytes: 0,
        };
        parsed.kind = match header.as_old().linkflag[0] {
            // Only the oldest format says by a slash what is a directory.
            0 if names.path.ends_with(b"/") => MemberKind::Dir,
            0 | b'0' | b'7' | b'S' => {
                parsed.stored_bytes = size;
                parsed.file(header, pax)?
            }
            b'1' => MemberKind::Hardlink(clean(&names.link)?),
            b'2' => MemberKind::Symlink(link_target(&names.link)?),
            b'3' => match device(header)? {
                (0, 0) => return Err(Problem::WhiteoutDevice),
                (major, minor) => MemberKind::CharDevice(major, minor),
            },
            b'4' => device(header).map(|(major, minor)| MemberKind::BlockDevice(major, minor))?,
            b'5' => MemberKind::Dir,
            b'6' => MemberKind::Fifo,
            other => return Err(Problem::Type(other)),
        };
        Ok(parsed)
    }

    fn file(&mut self, header: &tar::Header, pax: &Records) -> Result<MemberKind, Problem> {
        let mut size_bytes = self.stored_bytes;
        if header.as_old().linkflag[0] == b'S' {
            let gnu = header.as_gnu().ok_or(Problem::SparseFormat)?;
            let mut map = Vec::new();
            sparse::old_gnu(&gnu.sparse, &mut map)?;
            size_bytes = unsigned(&gnu.realsize, "real size")?;
            self.sparse = match gnu.isextended[0] {
                0 => SparseSource::Header(map),
                _ => SparseSource::Continued(map),
            };
        } else if let Some(found) = sparse::from_pax(pax)? {
            (self.sparse, size_bytes) = match found {
                PaxSparse::Map { map, size_bytes } => (SparseSource::Header(map), size_bytes),
                PaxSparse::InData { size_bytes } => (SparseSource::InData, size_bytes),
            };
        }
        Ok(MemberKind::File {
            size_bytes,
            sparse: None,
        })
    }
}

/// Cleans a name and checks its lengths.
fn clean(name: &[u8]) -> Result<TreePath, Problem> {
    if name.len() > MAX_PATH_BYTES {
        return Err(Problem::PathTooLong);
    }
    let path = TreePath::strict(name).ok_or(Problem::Name)?;
    // A whiteout is no file: what counts is the name that it removes.
    let n_bytes = |part: &[u8]| part.strip_prefix(PREFIX).unwrap_or(part).len();
    if path.components().any(|part| n_bytes(part) > MAX_COMPONENT_BYTES) {
        return Err(Problem::ComponentTooLong);
    }
    Ok(path)
}

fn link_target(target: &[u8]) -> Result<Vec<u8>, Problem> {
    let bad = target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0);
    if bad {
        Err(Problem::LinkTarget)
    } else {
        Ok(target.to_vec())
    }
}

/// Reads a device number; the kernel has 12 bits for the major and 20 for the minor.
fn device(header: &tar::Header) -> Result<(u32, u32), Problem> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        (None, None) => return Err(Problem::Number("device")),
    };
    let major = unsigned32(major, "device major")?;
    let minor = unsigned32(minor, "device minor")?;
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Problem::Number("device"));
    }
    Ok((major, minor))
}

/// Reads mode, owner, time and attributes, and the size that a PAX header gives.
fn meta(header: &tar::Header, pax: &Records) -> Result<(Meta, Option<u64>), Problem> {
    let fields = header.as_old();
    let mut meta = Meta {
        // Upper bits repeat the type in some archives.
        mode: unsigned32(&fields.mode, "mode")? & 0o7777,
        uid: unsigned32(&fields.uid, "uid")?,
        gid: unsigned32(&fields.gid, "gid")?,
        mtime: Timestamp {
            seconds: signed(&fields.mtime, "mtime")?,
            nanos: 0,
        },
        xattrs: Vec::new(),
    };
    let mut size = None;
    let number32 = |value: &[u8], name| {
        decimal(value, name).and_then(|value| u32::try_from(value).map_err(|_| Problem::Number(name)))
    };
    for (key, value) in pax {
        match &key[..] {
            b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
            b"size" => size = Some(decimal(value, "size")?),
            b"uid" => meta.uid = number32(value, "uid")?,
            b"gid" => meta.gid = number32(value, "gid")?,
            b"mtime" => meta.mtime = pax::parse_time(value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    meta.xattrs.retain(|(known, _)| known != name);
                    meta.xattrs.push((name.to_vec(), value.clone()));
                }
            }
        }
    }
    Ok((meta, size))
}
