//! Checks a layer file from its first byte to its last, against the only thing that can't lie: the digest of its tar.
//!
//! What the tar says is made once more and compared, so there is no second opinion of what a layer file should look like.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{LayerFile, Limits, TAR_OFFSET, import};
use crate::error::{Error, Result};

const CHUNK_BYTES: u64 = 1 << 20;

/// Checks that `layer` is, byte for byte, what its tar makes, and the tar the layer's. `scratch` is new and empty, open for
/// reading and writing; as large as the layer afterwards.
pub fn verify(layer: &LayerFile, scratch: File) -> Result<()> {
    layer.index()?;
    layer.check_metadata()?;
    let damaged = |what| Error::DamagedLayer {
        diff_id: layer.diff_id(),
        what,
    };
    let made = match import(layer.tar_reader(), scratch, Limits::default()) {
        // The scratch space's fault.
        Err(error @ Error::WriteLayer(_)) => return Err(error),
        Err(Error::ReadArchive(source)) => {
            let diff_id = layer.diff_id();
            return Err(Error::ReadLayer { diff_id, source });
        }
        Err(_) => return Err(damaged("its tar stream can't be read")),
        Ok(made) => made,
    };
    if made.diff_id != layer.diff_id() {
        return Err(damaged("its tar stream is another layer's"));
    }
    let tar_end = TAR_OFFSET + layer.tar_bytes();
    let is_same =
        same(layer, &made.file, 0, TAR_OFFSET)? && same(layer, &made.file, tar_end, layer.file_bytes())?;
    if is_same {
        Ok(())
    } else {
        Err(damaged("what stands around its tar stream doesn't belong to it"))
    }
}

/// Says whether both files have the same bytes from `at` to `end`.
fn same(layer: &LayerFile, made: &File, mut at: u64, end: u64) -> Result<bool> {
    if made.metadata().map_err(Error::WriteLayer)?.len() < end {
        return Ok(false);
    }
    while at < end {
        let count = usize::try_from((end - at).min(CHUNK_BYTES)).expect("because a chunk is small");
        let mut ours = vec![0; count];
        let mut theirs = vec![0; count];
        let read = layer.file().read_exact_at(&mut ours, at);
        read.map_err(|source| Error::ReadLayer {
            diff_id: layer.diff_id(),
            source,
        })?;
        made.read_exact_at(&mut theirs, at).map_err(Error::WriteLayer)?;
        if ours != theirs {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}
