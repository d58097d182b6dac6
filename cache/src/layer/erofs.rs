//! Writes EROFS metadata: inodes, directories and attributes in 512-byte blocks, regular files pointing straight
//! into tars. One layer's own, or many layers' as one multi-device image. Never reads any: what we mount, we wrote.
//!
//! Spec: Linux, `fs/erofs/erofs_fs.h`; layer-file.md, "On-disk facts". The superblock carries no checksum: with
//! 512-byte blocks `fsck.erofs` computes it over a negative length, and ours cover more.

use super::names::{Names, Node};
use super::{Kind, TreePath, xattr};
use crate::error::{Error, Result};

/// The block size; tars are made of nothing else.
pub(super) const BLOCK: u64 = 512;
const INODE_BYTES: u64 = 64;
const NID_BYTES: u64 = 32;
const DIRENT_BYTES: u64 = 12;
/// One slot of the device table.
pub(super) const SLOT_BYTES: u64 = 128;
/// Marks an inode that has no name in the image.
const NONE: u32 = u32::MAX;

/// What the image is made of.
pub(super) struct Source<'a> {
    pub(super) names: &'a Names,
    /// Where the metadata will be in the file; a multiple of the block size.
    pub(super) metadata_offset: u64,
    /// In which block of the image's address space each part begins.
    pub(super) first_blocks: &'a [u64],
    pub(super) uuid: [u8; 16],
    /// How many device slots there are, at byte 4096; none for a single layer.
    pub(super) n_devices: u16,
}

/// The image's own bytes.
pub(super) struct Image {
    pub(super) metadata: Vec<u8>,
    /// Lacks the number of blocks, which [`set_blocks`] fills in once the file's length is known.
    pub(super) superblock: [u8; 128],
}

/// Tells the superblock how long the file is.
pub(super) fn set_blocks(superblock: &mut [u8; 128], file_bytes: u64) -> Result<()> {
    let blocks = block_number(file_bytes / BLOCK)?;
    superblock[36..40].copy_from_slice(&blocks.to_le_bytes());
    Ok(())
}

/// Refuses a block that 32 bits can't number.
fn block_number(block: u64) -> Result<u32> {
    u32::try_from(block)
        .ok()
        .filter(|&block| block != u32::MAX)
        .ok_or(Error::ImageTooLarge)
}

/// One name of the image, in sorted order.
struct Name<'a> {
    path: &'a TreePath,
    /// Its inode among `Layout::inodes`.
    inode: u32,
    /// The directory that holds it, among `Layout::inodes`.
    parent: u32,
}

/// One inode and where its parts go.
struct Inode<'a> {
    node: &'a Node,
    /// From the beginning of the metadata.
    offset: u64,
    size_bytes: u64,
    n_links: u32,
    parent: u32,
    /// First block of the part that isn't inline.
    block: u32,
    n_blocks: u64,
    tail_bytes: u64,
    xattr_bytes: u64,
    /// Its names, for a directory: a range of `Layout::children`.
    children: std::ops::Range<usize>,
}

struct Layout<'a> {
    names: Vec<Name<'a>>,
    inodes: Vec<Inode<'a>>,
    /// Numbers of `names`, grouped by directory, sorted by name.
    children: Vec<u32>,
}

/// Makes the metadata and the superblock.
pub(super) fn build(source: &Source<'_>) -> Result<Image> {
    let mut layout = Layout::new(source.names)?;
    let length = layout.place(source.metadata_offset)?;
    let mut metadata = vec![0; usize::try_from(length).map_err(|_| Error::ImageTooLarge)?];
    let mut scratch = Vec::new();
    for number in 0..layout.inodes.len() {
        layout.write(number, source, &mut scratch, &mut metadata)?;
    }
    Ok(Image {
        superblock: superblock(source, layout.inodes.len())?,
        metadata,
    })
}

fn superblock(source: &Source<'_>, n_inodes: usize) -> Result<[u8; 128]> {
    /// Compatible feature: inodes carry modification times.
    const MTIME: u32 = 2;
    /// Incompatible feature: there is a device table.
    const DEVICE_TABLE: u32 = 8;
    let mut out = Fields([0; 128]);
    out.u32(0, 0xE0F5_E1E2);
    out.u32(8, MTIME);
    out.0[12] = 9; // log2 of the block size
    // The root is the first inode, so its number at 14 is 0.
    out.u64(16, n_inodes as u64);
    out.u32(40, block_number(source.metadata_offset / BLOCK)?);
    out.0[48..64].copy_from_slice(&source.uuid);
    if source.n_devices > 0 {
        out.u32(80, DEVICE_TABLE);
        out.u16(86, source.n_devices);
        out.u16(88, (super::TAR_OFFSET / SLOT_BYTES) as u16);
    }
    Ok(out.0)
}

/// Little-endian fields of a fixed-size structure.
struct Fields<const N: usize>([u8; N]);

impl<const N: usize> Fields<N> {
    fn u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    fn u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

impl<'a> Layout<'a> {
    /// Numbers the inodes in the order of their first names and groups the names by directory.
    fn new(source: &'a Names) -> Result<Self> {
        let nodes = source.nodes();
        let mut inode_of_node = vec![NONE; nodes.len()];
        let mut names: Vec<Name<'a>> = Vec::new();
        let mut inodes: Vec<Inode<'a>> = Vec::new();
        // Names of one directory mostly follow each other.
        let mut last_parent: (&[u8], u32) = (b"", 0);
        for (path, node_number) in source.iter() {
            let node = &nodes[node_number];
            // The target is in a lower layer; only a merged image can have it.
            if matches!(node.kind, Kind::Hardlink(_)) {
                continue;
            }
            let parent_path = parent_bytes(path);
            if last_parent.0 != parent_path {
                let at = names.binary_search_by(|name| name.path.as_bytes().cmp(parent_path));
                let at = at.expect("because the parent of every name is in the tree, and sorts before it");
                last_parent = (parent_path, names[at].inode);
            }
            let parent = last_parent.1;
            if inode_of_node[node_number] == NONE {
                let number = u32::try_from(inodes.len())
                    .ok()
                    .filter(|&number| number < NONE - 1);
                inode_of_node[node_number] = number.ok_or(Error::ImageTooLarge)?;
                inodes.push(Inode::new(node, parent));
            }
            let inode = inode_of_node[node_number];
            if path.is_root() {
                inodes[0].n_links = 2;
            } else if node.is_dir() {
                inodes[inode as usize].n_links = 2;
                inodes[parent as usize].n_links += 1;
            } else {
                inodes[inode as usize].n_links += 1;
            }
            names.push(Name { path, inode, parent });
        }
        let children = group(&names, &mut inodes);
        Ok(Self {
            names,
            inodes,
            children,
        })
    }

    /// Decides where everything goes; returns how long the metadata is. Inodes first, whole blocks after them.
    fn place(&mut self, metadata_offset: u64) -> Result<u64> {
        let mut at = 0_u64;
        for number in 0..self.inodes.len() {
            let size = self.data_bytes(number);
            let inode = &mut self.inodes[number];
            let opaque = is_opaque(&inode.node.kind);
            inode.xattr_bytes = xattr::encoded_bytes(&inode.node.meta.xattrs, opaque) as u64;
            let head = INODE_BYTES + inode.xattr_bytes;
            inode.size_bytes = size.logical;
            let tail = size.stored % BLOCK;
            // An inline tail follows the inode and must not cross a block; at a block's start it is as far from
            // the end as it can be. Targets of links are inline as a whole or not at all.
            let whole = matches!(inode.node.kind, Kind::Dir { .. }) || size.stored < BLOCK;
            if tail > 0 && head % BLOCK + tail <= BLOCK && whole {
                inode.tail_bytes = tail;
                inode.n_blocks = size.stored / BLOCK;
                if (at + head) % BLOCK + tail > BLOCK {
                    at = at.next_multiple_of(BLOCK);
                }
            } else {
                inode.n_blocks = size.stored.div_ceil(BLOCK);
            }
            inode.offset = at;
            at = (at + head + inode.tail_bytes).next_multiple_of(NID_BYTES);
        }
        at = at.next_multiple_of(BLOCK);
        for inode in self.inodes.iter_mut().filter(|inode| inode.n_blocks > 0) {
            inode.block = block_number((metadata_offset + at) / BLOCK)?;
            at += inode.n_blocks * BLOCK;
        }
        Ok(at)
    }

    fn data_bytes(&self, number: usize) -> Size {
        match &self.inodes[number].node.kind {
            Kind::Dir { .. } => {
                let mut size = DirSize::default();
                self.dirents(number, |name, _| size.add(name.len() as u64));
                Size {
                    logical: size.total(),
                    stored: size.total(),
                }
            }
            Kind::Symlink(target) => Size {
                logical: target.len() as u64,
                stored: target.len() as u64,
            },
            // The data are in the tar.
            Kind::File(data) => Size {
                logical: data.size_bytes,
                stored: 0,
            },
            _ => Size {
                logical: 0,
                stored: 0,
            },
        }
    }

    /// Hands out the names in a directory in the order in which EROFS wants them: `.` and `..` are names like
    /// others, and a few characters sort before them.
    fn dirents(&self, number: usize, mut use_entry: impl FnMut(&[u8], u32)) {
        let inode = &self.inodes[number];
        let own = u32::try_from(number).expect("because inodes are numbered in 32 bits");
        let mut dots = [(&b"."[..], own), (b"..", inode.parent)].into_iter().peekable();
        for &child in &self.children[inode.children.clone()] {
            let name = &self.names[child as usize];
            let text = name.path.name().expect("because only the root has no name");
            while let Some((dot, at)) = dots.next_if(|(dot, _)| *dot < text) {
                use_entry(dot, at);
            }
            use_entry(text, name.inode);
        }
        dots.for_each(|(dot, at)| use_entry(dot, at));
    }

    fn write(&self, number: usize, source: &Source<'_>, data: &mut Vec<u8>, out: &mut [u8]) -> Result<()> {
        let inode = &self.inodes[number];
        let meta = &inode.node.meta;
        let mut fields = Fields([0; INODE_BYTES as usize]);
        /// Extended inode, and the layout with an inline tail.
        const EXTENDED: u16 = 1;
        const FLAT_INLINE: u16 = 2 << 1;
        fields.u16(0, EXTENDED | if inode.tail_bytes > 0 { FLAT_INLINE } else { 0 });
        if inode.xattr_bytes > 0 {
            let units = (inode.xattr_bytes - 12) / 4 + 1;
            fields.u16(
                2,
                u16::try_from(units).expect("because attributes are limited to what fits"),
            );
        }
        fields.u16(4, file_type(&inode.node.kind).mode | (meta.mode & 0o7777) as u16);
        fields.u64(8, inode.size_bytes);
        fields.u32(16, self.address(inode, source)?);
        fields.u32(20, number as u32 + 1);
        fields.u32(24, meta.uid);
        fields.u32(28, meta.gid);
        fields.u64(32, meta.mtime.seconds.cast_unsigned());
        fields.u32(40, meta.mtime.nanos);
        fields.u32(44, inode.n_links);

        data.clear();
        data.extend_from_slice(&fields.0);
        xattr::encode(&meta.xattrs, is_opaque(&inode.node.kind), data);
        let head = data.len();
        match &inode.node.kind {
            Kind::Dir { .. } => self.write_dir(number, data),
            Kind::Symlink(target) => data.extend_from_slice(target),
            _ => {}
        }
        let tail = usize::try_from(inode.tail_bytes).expect("because it is below a block");
        let full = data.len() - tail;
        let at = usize::try_from(inode.offset).expect("because the metadata is in memory");
        out[at..at + head].copy_from_slice(&data[..head]);
        out[at + head..at + head + tail].copy_from_slice(&data[full..]);
        if inode.n_blocks > 0 {
            let at = u64::from(inode.block) * BLOCK - source.metadata_offset;
            let at = usize::try_from(at).expect("because the metadata is in memory");
            out[at..at + full - head].copy_from_slice(&data[head..full]);
        }
        Ok(())
    }

    /// Returns the field that is a block address or a device number.
    fn address(&self, inode: &Inode<'_>, source: &Source<'_>) -> Result<u32> {
        Ok(match &inode.node.kind {
            Kind::File(data) if data.size_bytes > 0 => {
                let first = source.first_blocks[inode.node.part] + data.offset / BLOCK;
                block_number(first + data.size_bytes.div_ceil(BLOCK))?;
                block_number(first)?
            }
            // The kernel's new_encode_dev().
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                minor & 0xff | major << 8 | (minor & !0xff) << 12
            }
            _ => inode.block,
        })
    }

    /// Appends a directory's blocks; the last one ends with its last name.
    fn write_dir(&self, number: usize, out: &mut Vec<u8>) {
        let mut block: Vec<(&[u8], u32)> = Vec::new();
        let mut collected = Vec::new();
        self.dirents(number, |name, inode| collected.push((name.to_vec(), inode)));
        let mut used = 0;
        let start = out.len();
        for (name, inode) in &collected {
            let need = DIRENT_BYTES + name.len() as u64;
            if used + need > BLOCK {
                self.write_dir_block(&block, out);
                let whole = (out.len() - start).next_multiple_of(BLOCK as usize);
                out.resize(start + whole, 0);
                block.clear();
                used = 0;
            }
            used += need;
            block.push((name, *inode));
        }
        self.write_dir_block(&block, out);
    }

    fn write_dir_block(&self, entries: &[(&[u8], u32)], out: &mut Vec<u8>) {
        let mut name_offset = entries.len() * DIRENT_BYTES as usize;
        for (name, inode) in entries {
            let target = &self.inodes[*inode as usize];
            out.extend_from_slice(&(target.offset / NID_BYTES).to_le_bytes());
            out.extend_from_slice(&(name_offset as u16).to_le_bytes());
            out.extend_from_slice(&[file_type(&target.node.kind).dirent, 0]);
            name_offset += name.len();
        }
        entries.iter().for_each(|(name, _)| out.extend_from_slice(name));
    }
}

impl<'a> Inode<'a> {
    fn new(node: &'a Node, parent: u32) -> Self {
        Self {
            node,
            parent,
            offset: 0,
            size_bytes: 0,
            n_links: 0,
            block: 0,
            n_blocks: 0,
            tail_bytes: 0,
            xattr_bytes: 0,
            children: 0..0,
        }
    }
}

struct Size {
    logical: u64,
    stored: u64,
}

/// Adds up a directory: a name and its entry never cross a block.
#[derive(Default)]
struct DirSize {
    full_blocks: u64,
    used: u64,
}

impl DirSize {
    fn add(&mut self, name_bytes: u64) {
        let need = DIRENT_BYTES + name_bytes;
        if self.used + need > BLOCK {
            self.full_blocks += 1;
            self.used = 0;
        }
        self.used += need;
    }

    fn total(&self) -> u64 {
        self.full_blocks * BLOCK + self.used
    }
}

/// Groups names by their directory, keeping their order; gives each directory its range.
fn group(names: &[Name<'_>], inodes: &mut [Inode<'_>]) -> Vec<u32> {
    let mut counts = vec![0_usize; inodes.len()];
    names
        .iter()
        .skip(1)
        .for_each(|name| counts[name.parent as usize] += 1);
    let mut next = 0;
    for (inode, count) in inodes.iter_mut().zip(&counts) {
        // Filled from the start below, so the end grows with it.
        inode.children = next..next;
        next += count;
    }
    let mut children = vec![0; next];
    for (number, name) in names.iter().enumerate().skip(1) {
        let range = &mut inodes[name.parent as usize].children;
        children[range.end] = u32::try_from(number).expect("because names are fewer than 2^32");
        range.end += 1;
    }
    children
}

fn parent_bytes(path: &TreePath) -> &[u8] {
    let bytes = path.as_bytes();
    bytes
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(b"", |slash| &bytes[..slash])
}

fn is_opaque(kind: &Kind) -> bool {
    matches!(kind, Kind::Dir { opaque: true, .. })
}

struct FileType {
    mode: u16,
    dirent: u8,
}

fn file_type(kind: &Kind) -> FileType {
    let (mode, dirent) = match kind {
        Kind::File(_) => (0o100_000, 1),
        Kind::Dir { .. } => (0o040_000, 2),
        // A whiteout is a character device 0:0. Spec: Linux, overlayfs.rst, "whiteouts and opaque directories".
        Kind::CharDevice(..) | Kind::Whiteout => (0o020_000, 3),
        Kind::BlockDevice(..) => (0o060_000, 4),
        Kind::Fifo => (0o010_000, 5),
        Kind::Symlink(_) => (0o120_000, 7),
        Kind::Hardlink(_) => unreachable!("because links to lower layers are left out"),
    };
    FileType { mode, dirent }
}
