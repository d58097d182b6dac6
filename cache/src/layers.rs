//! The layer files of a store, by diff ID. Each is written once, by rename, and never changed.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::blobs::commit_file;
use crate::digest::DiffId;
use crate::incomplete::Incomplete;
use crate::layer::{LayerFile, LayerWriter, Limits, Written};
use crate::leases::{Item, Leases};

/// How many layers that nobody uses right now are kept open: a long build has more than a process may have files.
const MAX_OPEN: usize = 128;

/// Says why a layer can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// The file system's word.
    #[error("cannot {action} layer {layer}: {source}")]
    Io {
        /// `open`, `write`, `commit`.
        action: &'static str,
        /// Which, when known.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// The file's content is at fault.
    #[error(transparent)]
    Layer(#[from] crate::Error),
    /// The bytes are not the layer that was expected.
    #[error("layer {expected} is not what was sent: the tar stream hashes to {actual}")]
    Mismatch {
        /// What a config promised.
        expected: DiffId,
        /// What the stream is.
        actual: DiffId,
    },
}

/// The layers of a store.
#[derive(Debug)]
pub struct Layers {
    dir: PathBuf,
    leases: Arc<Leases>,
    open: Mutex<HashMap<DiffId, Arc<LayerFile>>>,
    /// Whose heads were found right; not kept open, because a build asks for more layers than it opens.
    whole: Mutex<HashSet<DiffId>>,
}

/// A layer that is being written, in the process's scratch space.
#[derive(Debug)]
pub struct Draft {
    /// Empty, open for reading and writing: what [`LayerWriter::create`] and [`crate::layer::import`] want.
    file: File,
    path: PathBuf,
}

impl Layers {
    pub(crate) fn new(dir: PathBuf, leases: Arc<Leases>) -> Self {
        Self {
            dir,
            leases,
            open: Mutex::default(),
            whole: Mutex::default(),
        }
    }

    /// Returns where the layer's file is, or would be.
    pub fn path(&self, layer: &DiffId) -> PathBuf {
        self.dir.join(layer.hex())
    }

    /// Returns when the layer was made here, in seconds since the Unix epoch; `None` when it isn't here.
    pub fn made_unix(&self, layer: &DiffId) -> Option<i64> {
        std::fs::metadata(self.path(layer))
            .ok()
            .map(|meta| std::os::unix::fs::MetadataExt::mtime(&meta))
    }

    /// Says when a layer that came from elsewhere was made.
    pub fn set_made_unix(&self, layer: &DiffId, made_unix: i64) -> Result<(), LayersError> {
        let set = || {
            let file = File::open(self.path(layer))?;
            let time = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
            let times = rustix::fs::Timestamps {
                // When it was used here is another matter.
                last_access: time(0, rustix::fs::UTIME_OMIT),
                last_modification: time(made_unix, 0),
            };
            rustix::fs::futimens(file, &times).map_err(io::Error::from)
        };
        set().map_err(|source| LayersError::Io {
            action: "set the time of",
            layer: layer.to_string(),
            source,
        })
    }

    /// Says whether the layer's file is here, and was finished. If it is, it stays as long as this process lives. One whose
    /// head or length is wrong doesn't count: so it is made, or fetched, once more.
    pub fn contains(&self, layer: &DiffId) -> bool {
        let path = self.path(layer);
        // What isn't here needs no lease; what is here might be gone before there is one.
        if !path.is_file() {
            return false;
        }
        if !self.leases.take(Item::Layer(*layer), &path) && self.is_known_whole(layer) {
            return path.is_file();
        }
        let is_whole = self
            .open_file(layer)
            .is_ok_and(|file| LayerFile::open(file, *layer).is_ok());
        if is_whole {
            self.whole
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(*layer);
        }
        is_whole
    }

    fn is_known_whole(&self, layer: &DiffId) -> bool {
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.contains(layer)
    }

    fn open_file(&self, layer: &DiffId) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.path(layer))
    }

    /// Opens a layer; one that is in use isn't opened twice. It stays as long as this process lives.
    pub fn get(&self, layer: &DiffId) -> Result<Arc<LayerFile>, LayersError> {
        if let Some(open) = self.opened().get(layer) {
            return Ok(Arc::clone(open));
        }
        self.leases.take(Item::Layer(*layer), &self.path(layer));
        let opened = Arc::new(self.open(layer)?);
        let mut open = self.opened();
        if open.len() >= MAX_OPEN {
            open.retain(|_, file| Arc::strong_count(file) > 1);
        }
        Ok(Arc::clone(open.entry(*layer).or_insert(opened)))
    }

    /// Returns the size of a layer's tar, relying on nothing and using nothing: only to be told. `None` when it isn't here.
    pub fn tar_bytes(&self, layer: &DiffId) -> Option<u64> {
        self.open(layer).ok().map(|file| file.tar_bytes())
    }

    fn open(&self, layer: &DiffId) -> Result<LayerFile, LayersError> {
        let file = self.open_file(layer).map_err(|source| LayersError::Io {
            action: "open",
            layer: layer.to_string(),
            source,
        })?;
        Ok(LayerFile::open(file, *layer)?)
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<DiffId, Arc<LayerFile>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a layer.
    pub fn draft(&self, scratch: &Incomplete) -> Result<Draft, LayersError> {
        let (file, path) = scratch.file().map_err(|source| LayersError::Io {
            action: "write",
            layer: "(new)".to_owned(),
            source,
        })?;
        Ok(Draft { file, path })
    }

    /// Makes a finished layer durable. Ok means that it is here, not that this call put it here; and it stays as long as
    /// this process lives.
    pub fn commit(&self, written: Written, path: &Path) -> Result<Arc<LayerFile>, LayersError> {
        let layer = written.diff_id;
        self.leases.take(Item::Layer(layer), &self.path(&layer));
        if self.contains(&layer) && self.get(&layer).is_ok() {
            // The same bytes are here already; the draft goes with the scratch space.
            let _ = std::fs::remove_file(path);
        } else {
            commit_file(&written.file, path, &self.path(&layer)).map_err(|source| LayersError::Io {
                action: "commit",
                layer: layer.to_string(),
                source,
            })?;
            self.opened().remove(&layer);
        }
        self.get(&layer)
    }

    /// Writes a layer with `write` and makes it durable.
    pub fn write<E: From<LayersError>>(
        &self,
        scratch: &Incomplete,
        write: impl FnOnce(LayerWriter) -> Result<Written, E>,
    ) -> Result<Arc<LayerFile>, E> {
        let Draft { file, path } = self.draft(scratch)?;
        let result = LayerWriter::create(file)
            .map_err(LayersError::from)
            .map_err(E::from)
            .and_then(write);
        match result {
            Ok(written) => Ok(self.commit(written, &path)?),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Takes in a foreign tar stream, uncompressed, byte for byte; it must hash to `expected` where that is given.
    pub fn import(
        &self,
        tar: impl io::Read,
        expected: Option<DiffId>,
        limits: Limits,
        scratch: &Incomplete,
    ) -> Result<Arc<LayerFile>, LayersError> {
        let Draft { file, path } = self.draft(scratch)?;
        let result = crate::layer::import(tar, file, limits)
            .map_err(LayersError::from)
            .and_then(
                |written| match expected.filter(|expected| *expected != written.diff_id) {
                    Some(expected) => Err(LayersError::Mismatch {
                        expected,
                        actual: written.diff_id,
                    }),
                    None => self.commit(written, &path),
                },
            );
        if result.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Body, Meta, TreePath};

    #[test]
    fn no_more_layers_are_kept_open_than_a_process_may_have_files() {
        // hardening R10: however many layers a build has
        let dir = tempfile::tempdir().unwrap();
        for name in ["layers", "incomplete", "leases"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let leases = Arc::new(Leases::new(dir.path()));
        let layers = Layers::new(dir.path().join("layers"), leases);
        let scratch = Incomplete::new(dir.path().join("incomplete"));
        let mut first = None;
        for number in 0..2 * MAX_OPEN {
            let written = layers.write(&scratch, |mut writer| {
                let path = TreePath::clean(format!("d{number}").as_bytes());
                let body = Body::Dir { opaque: false };
                writer
                    .add(path, Meta::default(), body)
                    .map_err(LayersError::from)?;
                writer.finish().map_err(LayersError::from)
            });
            let opened = written.unwrap();
            assert!(layers.opened().len() <= MAX_OPEN);
            first.get_or_insert(opened);
        }
        // What is in use is not opened once more.
        let first = first.unwrap();
        assert!(Arc::ptr_eq(&layers.get(&first.diff_id()).unwrap(), &first));
    }
}
