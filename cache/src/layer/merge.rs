//! One image over many layers: their names merged here, their files still in their tars. One mount for any number
//! of layers, and the only way to mount those that don't stand alone.
//!
//! Whiteouts, opaque directories, missing parents and links into lower layers are resolved by applying the
//! indexes, base layer first; the image holds what is left. It is made anew whenever it is wanted.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::names::{Names, Node};
use super::{Entry, Kind, LayerFile, Limits, TAR_OFFSET, TreePath, erofs};
use crate::error::{Error, Problem, Result};

/// Where the layers begin in the image's address space, in blocks; the image's own come before: 128 GiB.
const FIRST_LAYER_BLOCK: u64 = 1 << 28;
const PAGE: u64 = 4096;

/// Writes the image of `layers`, base layer first, to `out`, which is new and empty. It is mounted with the layer
/// files as its devices, in this order. Blocking; doesn't sync.
pub fn write_merged(layers: &[&LayerFile], out: &File) -> Result<()> {
    let n_devices = u16::try_from(layers.len()).map_err(|_| Error::TooManyLayers(layers.len()))?;
    let mut names = Names::new(Limits::default());
    for (part, layer) in layers.iter().enumerate() {
        apply(&mut names, part, layer.index()?).map_err(|(path, problem)| Error::Merge {
            diff_id: layer.diff_id(),
            path,
            problem,
        })?;
    }
    let mut first_blocks = Vec::new();
    let mut table = Vec::new();
    let mut next = FIRST_LAYER_BLOCK;
    let mut identity = blake3::Hasher::new();
    for layer in layers {
        let blocks = layer.file_bytes() / erofs::BLOCK;
        table.extend_from_slice(&slot(layer, first_blocks.len(), next, blocks)?);
        first_blocks.push(next);
        next = next.checked_add(blocks).ok_or(Error::ImageTooLarge)?;
        identity.update(layer.diff_id().as_bytes());
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&identity.finalize().as_bytes()[..16]);
    let metadata_offset = (TAR_OFFSET + table.len() as u64).next_multiple_of(PAGE);
    let first_blocks = &first_blocks[..];
    let mut image = erofs::build(&erofs::Source {
        names: &names,
        metadata_offset,
        first_blocks,
        uuid,
        n_devices,
    })?;
    let file_bytes = (metadata_offset + image.metadata.len() as u64).next_multiple_of(PAGE);
    if file_bytes / erofs::BLOCK > FIRST_LAYER_BLOCK {
        return Err(Error::ImageTooLarge);
    }
    erofs::set_blocks(&mut image.superblock, file_bytes)?;
    let write = |bytes: &[u8], offset| out.write_all_at(bytes, offset).map_err(Error::WriteLayer);
    write(&table, TAR_OFFSET)?;
    write(&image.metadata, metadata_offset)?;
    out.set_len(file_bytes).map_err(Error::WriteLayer)?;
    write(&image.superblock, super::head::SUPERBLOCK_AT as u64)
}

/// Makes a layer's slot in the device table. Tags must differ, also when a layer is there twice.
fn slot(
    layer: &LayerFile,
    number: usize,
    first: u64,
    blocks: u64,
) -> Result<[u8; erofs::SLOT_BYTES as usize]> {
    let narrow = |value: u64| u32::try_from(value).map_err(|_| Error::ImageTooLarge);
    let end = narrow(first + blocks)?;
    let mut out = [0; erofs::SLOT_BYTES as usize];
    out[..32].copy_from_slice(layer.diff_id().as_bytes());
    out[32..40].copy_from_slice(&(number as u64 + 1).to_le_bytes());
    out[64..68].copy_from_slice(&(end - narrow(first)?).to_le_bytes());
    out[68..72].copy_from_slice(&narrow(first)?.to_le_bytes());
    Ok(out)
}

/// Applies one layer's sorted entries to what lies below.
fn apply(names: &mut Names, part: usize, entries: &[Entry]) -> Result<(), (TreePath, Problem)> {
    // What a link into lower layers means is settled before this layer's whiteouts can remove it there.
    let mut links = Vec::new();
    for entry in entries {
        let Kind::Hardlink(target) = &entry.kind else {
            continue;
        };
        let own = entries.binary_search_by(|other| other.path.cmp(target));
        let own = own.is_ok_and(|at| !matches!(entries[at].kind, Kind::Whiteout | Kind::Hardlink(_)));
        let node = if own {
            None
        } else {
            Some(target_node(names, target).map_err(|p| (entry.path.clone(), p))?)
        };
        links.push((entry, target, node));
    }
    for entry in entries {
        apply_entry(names, part, entry).map_err(|problem| (entry.path.clone(), problem))?;
    }
    for (entry, target, node) in links {
        let mut set = || {
            let number = node.map_or_else(|| target_node(names, target), Ok)?;
            let path = names.locate_or_make(&entry.path, part)?;
            if names.find(&path) != Some(number) {
                names.remove(&path);
                names.set(path, number)?;
            }
            Ok(())
        };
        set().map_err(|problem| (entry.path.clone(), problem))?;
    }
    Ok(())
}

fn target_node(names: &mut Names, target: &TreePath) -> Result<usize, Problem> {
    let target = names.locate(target)?;
    let number = names.find(&target).ok_or(Problem::DanglingLink)?;
    if names.nodes()[number].is_dir() {
        Err(Problem::LinkToDirectory)
    } else {
        Ok(number)
    }
}

fn apply_entry(names: &mut Names, part: usize, entry: &Entry) -> Result<(), Problem> {
    let is_lower = |node: &Node| node.part < part;
    match &entry.kind {
        Kind::Hardlink(_) => {}
        Kind::Whiteout => {
            let path = names.locate(&entry.path)?;
            if names.any_below(&path, |node| !is_lower(node)) {
                // Reached under another name by an entry of this layer, which a whiteout doesn't mean.
                names.remove_below(&path, |node| is_lower(node) && !node.is_dir());
            } else if names.find_node(&path).is_some_and(is_lower) {
                names.remove(&path);
            }
        }
        Kind::Dir { opaque, implied } => {
            let mut path = names.locate_or_make(&entry.path, part)?;
            if *implied
                && names
                    .find_node(&path)
                    .is_some_and(|node| matches!(node.kind, Kind::Symlink(_)))
            {
                // What lies below goes where the lower layers' link points; so does the opaque marker.
                let inside = names.locate_or_make(&path.join(super::whiteout::OPAQUE), part)?;
                path = inside.parent().unwrap_or_default();
            }
            if *opaque {
                names.remove_below(&path, is_lower);
            }
            let new = Node {
                kind: Kind::Dir {
                    opaque: false,
                    implied: *implied,
                },
                ..node(entry, part)
            };
            match names.find(&path).filter(|&number| names.nodes()[number].is_dir()) {
                Some(_) if *implied => {}
                Some(number) => *names.node_mut(number) = new,
                None => replace(names, path, new)?,
            }
        }
        _ => {
            let path = names.locate_or_make(&entry.path, part)?;
            replace(names, path, node(entry, part))?;
        }
    }
    Ok(())
}

fn node(entry: &Entry, part: usize) -> Node {
    Node {
        meta: entry.meta.clone(),
        kind: entry.kind.clone(),
        part,
    }
}

fn replace(names: &mut Names, path: TreePath, node: Node) -> Result<(), Problem> {
    names.remove(&path);
    let number = names.add_node(node)?;
    names.set(path, number)
}
