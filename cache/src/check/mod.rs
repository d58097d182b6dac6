//! Looks whether what is stored is what it should be, and sets aside what isn't, so that it is made or fetched again.
//!
//! `files` looks at layers and blobs, `rest` at everything else. Runs beside builds: what goes away meanwhile was no fault,
//! and what is set aside is the very file that was found wrong. What images need is the caller's to say, who can read them.

mod files;
mod rest;
#[cfg(test)]
mod tests;

pub(crate) use files::ASIDE;

use std::collections::HashMap;
use std::path::PathBuf;

use crate::digest::{DiffId, Digest};
use crate::store::{Store, StoreError};

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Whether things are there, with the right size, and their own checksums right.
    Quick,
    /// Every byte.
    Deep,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The database as a whole.
    Index,
    /// Rows of one of its tables.
    Rows(&'static str),
    /// A layer file.
    Layer(DiffId),
    /// A blob.
    Blob(Digest),
    /// A file that nobody put there: relative to the store.
    Stray(PathBuf),
    /// A directory of `unpacked/`.
    Unpacked(String),
    /// A cache mount, by its directory.
    Mount(String),
    /// Scratch space that no process holds, and no sweep could remove.
    Scratch(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index => f.write_str("index"),
            Self::Rows(table) => write!(f, "index, table `{table}`"),
            Self::Layer(layer) => write!(f, "layer {layer}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Stray(path) => write!(f, "file {:?}", path.as_os_str()),
            Self::Unpacked(name) => write!(f, "unpacked layer {name}"),
            Self::Mount(name) => write!(f, "cache mount {name}"),
            Self::Scratch(name) => write!(f, "scratch space {name}"),
        }
    }
}

/// Something that isn't as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it is about.
    pub subject: Subject,
    /// What doesn't fit.
    pub what: String,
    /// Device and inode of the file that was found wrong.
    file: Option<(u64, u64)>,
}

impl Fault {
    fn new(subject: Subject, what: impl Into<String>) -> Self {
        let what = what.into();
        Self {
            subject,
            what,
            file: None,
        }
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is wrong, sorted.
    pub faults: Vec<Fault>,
    /// Layer files that were looked at.
    pub n_layers: usize,
    /// Blobs that were looked at.
    pub n_blobs: usize,
    /// Records of steps.
    pub n_records: usize,
    /// Records whose layers are gone: they only explain why a step runs.
    pub n_dead_records: usize,
    /// Cache mounts.
    pub n_mounts: usize,
}

impl Store {
    /// Looks at everything but images. `sizes` says what others, such as manifests, know of the sizes of blobs.
    pub fn check(&self, depth: Depth, sizes: &HashMap<Digest, u64>) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        // First: the rest asks it.
        let is_sound = self.check_index(depth, &mut checked)?;
        let mut known = sizes.clone();
        if is_sound {
            known.extend(self.index().sizes()?);
        }
        self.check_files(depth, &known, &mut checked)?;
        if is_sound {
            self.check_records(&mut checked)?;
        }
        self.check_unpacked(depth, &mut checked)?;
        self.check_mounts(&mut checked)?;
        self.check_scratch(&mut checked)?;
        checked.faults.sort_by(|a, b| a.subject.cmp(&b.subject));
        Ok(checked)
    }

    /// Looks closely at one layer or blob, and sets it aside if it is damaged, so that it is made or fetched again. `None`:
    /// it isn't, or somebody was faster.
    pub fn set_aside_damaged(&self, subject: &Subject) -> Result<Option<Fault>, StoreError> {
        let fault = match subject {
            Subject::Layer(layer) => self.check_layer(layer, Depth::Deep)?,
            Subject::Blob(digest) => self.check_blob(digest, Depth::Deep, None),
            _ => None,
        };
        match fault {
            Some(fault) if self.repair(&fault)? => Ok(Some(fault)),
            _ => Ok(None),
        }
    }

    /// Puts right what is wrong: by setting it aside, so that it is made or fetched again when it is needed, or by
    /// forgetting it. Says whether that was possible.
    pub fn repair(&self, fault: &Fault) -> Result<bool, StoreError> {
        match &fault.subject {
            Subject::Index => self.index().set_aside().map(|_| true).map_err(StoreError::from),
            Subject::Rows(_) => self
                .index()
                .forget_malformed()
                .map(|()| true)
                .map_err(StoreError::from),
            Subject::Layer(layer) => self.set_file_aside(&self.layers().path(layer), "layer", fault),
            Subject::Blob(digest) => {
                let path = self.root().join("blobs/sha256").join(digest.hex());
                let is_aside = self.set_file_aside(&path, "blob", fault)?;
                self.index().forget_blobs(&[*digest])?;
                Ok(is_aside)
            }
            Subject::Unpacked(name) => Ok(self.remove_unpacked(name)?),
            Subject::Stray(path) => self.set_stray_aside(path),
            Subject::Mount(name) => Ok(self.mounts().remove(name, self.incomplete())?),
            Subject::Scratch(_) => Ok(false),
        }
    }
}
