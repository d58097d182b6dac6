//! Extended attributes: which of them a layer keeps, and how EROFS stores them.
//!
//! Attributes of overlayfs must never come from outside (they would redirect names or forge whiteouts); those of
//! the host's integrity and labelling modules mean nothing in an image. Both stay in the tar, which is kept byte
//! for byte, and are left out of index and metadata.

use super::{Meta, Xattrs};
use crate::error::Problem;

/// Prefixes that EROFS knows, with their numbers. On-disk format of EROFS: `erofs_fs.h`, EROFS_XATTR_INDEX_*.
const NAMESPACES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
];
/// The count of 4-byte units after the header must fit in 16 bits.
const MAX_BODY_BYTES: usize = 12 + 4 * 65_534;
const HEADER_BYTES: usize = 12;

/// Says whether a layer keeps the attribute of this name.
pub(super) fn is_kept(name: &[u8]) -> bool {
    let ours = [&b"trusted.overlay."[..], b"user.overlay."];
    let host = [&b"security.ima"[..], b"security.evm", b"security.selinux"];
    !ours.iter().any(|prefix| name.starts_with(prefix)) && !host.contains(&name) && namespace(name).is_some()
}

fn namespace(name: &[u8]) -> Option<(&[u8], u8)> {
    NAMESPACES.iter().find_map(|&(prefix, number)| {
        let rest = name.strip_prefix(prefix)?;
        // The ACLs are whole names, the others must go on.
        (rest.is_empty() == prefix.starts_with(b"system.")).then_some((rest, number))
    })
}

/// Leaves out what a layer doesn't keep, sorts the rest, and checks that it can be stored.
pub(super) fn settle(meta: &mut Meta) -> Result<(), Problem> {
    meta.xattrs.retain(|(name, _)| is_kept(name));
    meta.xattrs.sort();
    if meta.xattrs.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(Problem::Xattr);
    }
    let fits = meta
        .xattrs
        .iter()
        .all(|(name, value)| name.len() <= 255 && value.len() <= 65_535);
    // The markers of an opaque directory must fit as well.
    let marks: usize = OPAQUE_MARKS
        .iter()
        .map(|(name, value)| entry_bytes(name, value))
        .sum();
    let body: usize = meta
        .xattrs
        .iter()
        .map(|(name, value)| entry_bytes(name, value))
        .sum();
    if fits && HEADER_BYTES + body + marks <= MAX_BODY_BYTES {
        Ok(())
    } else {
        Err(Problem::Xattr)
    }
}

/// Both names: the kernel reads the second kind when overlay is mounted with `userxattr`.
const OPAQUE_MARKS: [(&[u8], &[u8]); 2] = [(b"trusted.overlay.opaque", b"y"), (b"user.overlay.opaque", b"y")];

fn entry_bytes(name: &[u8], value: &[u8]) -> usize {
    namespace(name).map_or(0, |(rest, _)| (4 + rest.len() + value.len()).next_multiple_of(4))
}

/// Returns the length of what [`encode`] makes.
pub(super) fn encoded_bytes(xattrs: &Xattrs, opaque: bool) -> usize {
    let marks = if opaque { &OPAQUE_MARKS[..] } else { &[] };
    let body: usize = xattrs
        .iter()
        .map(|(name, value)| entry_bytes(name, value))
        .sum::<usize>()
        + marks
            .iter()
            .map(|(name, value)| entry_bytes(name, value))
            .sum::<usize>();
    if body == 0 { 0 } else { HEADER_BYTES + body }
}

/// Appends the inline attribute body of an EROFS inode; nothing when there are no attributes.
pub(super) fn encode(xattrs: &Xattrs, opaque: bool, out: &mut Vec<u8>) {
    if encoded_bytes(xattrs, opaque) == 0 {
        return;
    }
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let marks = if opaque { &OPAQUE_MARKS[..] } else { &[] };
    let own = xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
    for (name, value) in own.chain(marks.iter().copied()) {
        let Some((rest, number)) = namespace(name) else {
            continue;
        };
        let start = out.len();
        let name_len = u8::try_from(rest.len()).expect("because settle() refused longer names");
        let value_len = u16::try_from(value.len()).expect("because settle() refused longer values");
        out.extend_from_slice(&[name_len, number]);
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        let padded = (out.len() - start).next_multiple_of(4);
        out.resize(start + padded, 0);
    }
}
