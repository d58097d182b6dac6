//! Writes the headers of one entry: ustar, and a PAX header before it only where ustar can't say it.
//!
//! The same entry gives the same bytes, always: no names of owners, no clocks, sorted keys. Data and padding are
//! written by the caller.

use super::number::write_octal;
use super::{BLOCK_BYTES, padding, pax};
use crate::layer::{Kind, Meta, TreePath};

/// The largest time that eleven octal digits hold.
const MAX_USTAR_SECONDS: i64 = (1 << 33) - 1;

/// Appends all header blocks of an entry. Whiteouts are written by their own names, as empty files.
pub(in crate::layer) fn header(path: &TreePath, meta: &Meta, kind: &Kind, out: &mut Vec<u8>) {
    let mut header = tar::Header::new_ustar();
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut record = |key: &[u8], value: Vec<u8>| records.push((key.to_vec(), value));
    let fields = header
        .as_ustar_mut()
        .expect("because the header was made as ustar");

    let mut name = path.as_bytes().to_vec();
    if let Kind::Dir { .. } = kind {
        name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
    }
    if !set_name(fields, &name) {
        record(b"path", name);
    }
    let link: &[u8] = match kind {
        Kind::Symlink(target) => target,
        Kind::Hardlink(target) => target.as_bytes(),
        _ => b"",
    };
    if link.len() <= fields.linkname.len() && link.is_ascii() {
        fields.linkname[..link.len()].copy_from_slice(link);
    } else {
        record(b"linkpath", link.to_vec());
    }
    write_octal(&mut fields.mode, u64::from(meta.mode & 0o7777));
    for (field, key, value) in [
        (&mut fields.uid[..], &b"uid"[..], u64::from(meta.uid)),
        (&mut fields.gid[..], b"gid", u64::from(meta.gid)),
        (
            &mut fields.size[..],
            b"size",
            if let Kind::File(data) = kind {
                data.size_bytes
            } else {
                0
            },
        ),
    ] {
        if !write_octal(field, value) {
            record(key, value.to_string().into_bytes());
        }
    }
    let whole = meta.mtime.nanos == 0 && (0..=MAX_USTAR_SECONDS).contains(&meta.mtime.seconds);
    write_octal(
        &mut fields.mtime,
        meta.mtime.seconds.clamp(0, MAX_USTAR_SECONDS).cast_unsigned(),
    );
    if !whole {
        record(b"mtime", pax::format_time(meta.mtime).into_bytes());
    }
    for (key, value) in &meta.xattrs {
        record(&[b"SCHILY.xattr.", &key[..]].concat(), value.clone());
    }
    if let Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) = kind {
        write_octal(&mut fields.dev_major, u64::from(*major));
        write_octal(&mut fields.dev_minor, u64::from(*minor));
    }
    fields.typeflag[0] = type_flag(kind);
    header.set_cksum();

    if !records.is_empty() {
        records.sort();
        pax_header(&records, out);
    }
    out.extend_from_slice(header.as_bytes());
}

fn type_flag(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) | Kind::Whiteout => b'0',
        Kind::Hardlink(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::CharDevice(..) => b'3',
        Kind::BlockDevice(..) => b'4',
        Kind::Dir { .. } => b'5',
        Kind::Fifo => b'6',
    }
}

/// Puts `name` into the header, split at a slash when it is long; `false`, and a readable stand-in, when it needs PAX.
fn set_name(fields: &mut tar::UstarHeader, name: &[u8]) -> bool {
    let (name_bytes, prefix_bytes) = (fields.name.len(), fields.prefix.len());
    if name.is_ascii() && name.len() <= name_bytes {
        fields.name[..name.len()].copy_from_slice(name);
        return true;
    }
    let earliest = name.len().saturating_sub(name_bytes + 1);
    let slash = (earliest..name.len().saturating_sub(1)).find(|&at| name[at] == b'/' && at > 0);
    match slash {
        Some(slash) if name.is_ascii() && slash <= prefix_bytes => {
            fields.prefix[..slash].copy_from_slice(&name[..slash]);
            let rest = &name[slash + 1..];
            fields.name[..rest.len()].copy_from_slice(rest);
            true
        }
        _ => {
            for (to, from) in fields.name.iter_mut().zip(name) {
                *to = if from.is_ascii() { *from } else { b'_' };
            }
            false
        }
    }
}

fn pax_header(records: &[(Vec<u8>, Vec<u8>)], out: &mut Vec<u8>) {
    let mut data = Vec::new();
    for (key, value) in records {
        pax::write(&mut data, key, value);
    }
    let mut header = tar::Header::new_ustar();
    let fields = header
        .as_ustar_mut()
        .expect("because the header was made as ustar");
    let name = b"PaxHeaders/entry";
    fields.name[..name.len()].copy_from_slice(name);
    write_octal(&mut fields.mode, 0o644);
    write_octal(&mut fields.uid, 0);
    write_octal(&mut fields.gid, 0);
    write_octal(&mut fields.mtime, 0);
    let fits = write_octal(&mut fields.size, data.len() as u64);
    debug_assert!(fits, "attributes are limited to 256 KiB, names to 16");
    fields.typeflag[0] = b'x';
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&data);
    let filler = usize::try_from(padding(data.len() as u64)).expect("because it is below a block");
    debug_assert!(filler < BLOCK_BYTES);
    out.resize(out.len() + filler, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::FileData;

    #[test]
    fn a_size_beyond_eleven_octal_digits_is_said_in_a_pax_header() {
        // case C64, hardening R22
        for (size_bytes, expected) in [
            ((4 << 30) - 1, 1),
            (4 << 30, 1),
            ((8 << 30) - 1, 1),
            (8 << 30, 3),
            (20 << 30, 3),
            (9 << 40, 3),
        ] {
            let data = FileData {
                size_bytes,
                offset: 0,
                content: crate::ContentHash::from_bytes([0; 32]),
            };
            let mut out = Vec::new();
            header(
                &TreePath::clean(b"big"),
                &Meta::default(),
                &Kind::File(data),
                &mut out,
            );
            assert_eq!(out.len() / BLOCK_BYTES, expected, "{size_bytes}");
            let record = format!(" size={size_bytes}\n").into_bytes();
            let is_there = out.windows(record.len()).any(|window| window == record);
            assert_eq!(is_there, expected > 1, "{size_bytes}");
            let field = &out[out.len() - BLOCK_BYTES..][124..136];
            let octal = format!("{size_bytes:011o}\0");
            assert_eq!(field == octal.as_bytes(), expected == 1, "{size_bytes}");
        }
    }
}
