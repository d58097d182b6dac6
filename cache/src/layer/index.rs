//! The index's bytes: entries sorted by path, each path as what differs from the one before.
//!
//! Checked while reading although it is our own and has a checksum: nothing in a damaged store may panic.

use super::{Entry, FileData, Kind, MAX_PATH_BYTES, Meta, Timestamp, TreePath};
use crate::digest::ContentHash;

/// The fewest bytes that an entry takes: bounds what is allocated for a claimed count.
const MIN_ENTRY_BYTES: usize = 9;
const OPAQUE: u8 = 0x80;
const IMPLIED: u8 = 0x40;

/// Writes entries, which come sorted.
pub(super) fn encode(entries: impl Iterator<Item = Entry>) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut n_entries = 0;
    let mut before = TreePath::root();
    for entry in entries {
        put_entry(&mut out, before.as_bytes(), &entry);
        before = entry.path;
        n_entries += 1;
    }
    // The count goes last, where it is known; the reader knows where the end is.
    out.extend_from_slice(&(n_entries as u64).to_le_bytes());
    (out, n_entries)
}

fn put_entry(out: &mut Vec<u8>, before: &[u8], entry: &Entry) {
    let path = entry.path.as_bytes();
    let common = before.iter().zip(path).take_while(|(a, b)| a == b).count();
    put(out, common as u64);
    put_bytes(out, &path[common..]);
    out.push(match &entry.kind {
        Kind::File(_) => 0,
        Kind::Dir { opaque, implied } => {
            1 | if *opaque { OPAQUE } else { 0 } | if *implied { IMPLIED } else { 0 }
        }
        Kind::Symlink(_) => 2,
        Kind::Hardlink(_) => 3,
        Kind::CharDevice(..) => 4,
        Kind::BlockDevice(..) => 5,
        Kind::Fifo => 6,
        Kind::Whiteout => 7,
    });
    let meta = &entry.meta;
    let seconds = meta.mtime.seconds;
    // Zigzag, so that small negative times stay short.
    let zigzag = (seconds << 1 ^ seconds >> 63).cast_unsigned();
    for number in [
        meta.mode.into(),
        meta.uid.into(),
        meta.gid.into(),
        zigzag,
        meta.mtime.nanos.into(),
    ] {
        put(out, number);
    }
    put(out, meta.xattrs.len() as u64);
    for (name, value) in &meta.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
    match &entry.kind {
        Kind::File(data) => {
            put(out, data.size_bytes);
            put(out, data.offset / 512);
            out.extend_from_slice(data.content.as_bytes());
        }
        Kind::Symlink(target) => put_bytes(out, target),
        Kind::Hardlink(target) => put_bytes(out, target.as_bytes()),
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            put(out, (*major).into());
            put(out, (*minor).into());
        }
        Kind::Dir { .. } | Kind::Fifo | Kind::Whiteout => {}
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what [`encode`] wrote; `None` when it can't have written this.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (body, count) = bytes.split_last_chunk()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    if count > body.len() / MIN_ENTRY_BYTES {
        return None;
    }
    let mut input = Input(body);
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let before = entries.last().map(|entry| &entry.path);
        let entry = input.entry(before)?;
        entries.push(entry);
    }
    input.0.is_empty().then_some(entries)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn number32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn entry(&mut self, before: Option<&TreePath>) -> Option<Entry> {
        let common = usize::try_from(self.number()?).ok()?;
        let shared = before.map_or(&b""[..], TreePath::as_bytes).get(..common)?;
        let path = [shared, self.bytes()?].concat();
        let path = TreePath::checked(path).filter(|path| path.as_bytes().len() <= MAX_PATH_BYTES)?;
        if before.is_some_and(|before| *before >= path) {
            return None;
        }
        let tag = self.byte()?;
        let meta = self.meta()?;
        let kind = self.kind(tag)?;
        Some(Entry { path, meta, kind })
    }

    fn meta(&mut self) -> Option<Meta> {
        let (mode, uid, gid) = (self.number32()?, self.number32()?, self.number32()?);
        let zigzag = self.number()?;
        let seconds = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        let nanos = self.number32().filter(|&nanos| nanos < 1_000_000_000)?;
        let n_xattrs = self.number()?;
        let mut xattrs = Vec::new();
        for _ in 0..n_xattrs {
            xattrs.push((self.bytes()?.to_vec(), self.bytes()?.to_vec()));
        }
        Some(Meta {
            mode,
            uid,
            gid,
            mtime: Timestamp { seconds, nanos },
            xattrs,
        })
    }

    fn kind(&mut self, tag: u8) -> Option<Kind> {
        Some(match tag {
            0 => {
                let size_bytes = self.number()?;
                let offset = self.number()?.checked_mul(512)?;
                let content = self.take(32)?.try_into().ok().map(ContentHash::from_bytes)?;
                Kind::File(FileData {
                    size_bytes,
                    offset,
                    content,
                })
            }
            2 => Kind::Symlink(self.bytes()?.to_vec()),
            3 => Kind::Hardlink(TreePath::checked(self.bytes()?.to_vec())?),
            4 => Kind::CharDevice(self.number32()?, self.number32()?),
            5 => Kind::BlockDevice(self.number32()?, self.number32()?),
            6 => Kind::Fifo,
            7 => Kind::Whiteout,
            tag if tag & !(OPAQUE | IMPLIED) == 1 => Kind::Dir {
                opaque: tag & OPAQUE != 0,
                implied: tag & IMPLIED != 0,
            },
            _ => return None,
        })
    }
}
