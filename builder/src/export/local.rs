//! The files of an image in a directory of the user. What is there already stays, unless the image has the same path.
//!
//! The directory is reached through [`Root`]: no link in it, whoever put it there, leads a file elsewhere. A directory
//! is never removed to make room for a file. Owners and devices are kept where we are root.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use cache::Store;
use cache::layer::{Meta, Timestamp, TreePath};
use cache::root::{self, Root};
use cache::tree::{Node, NodeKind, View};

use super::target::Target;
use super::{ExportError, Tree, flat, statement, target};
use crate::sandbox::Namespace;

/// Writes the tree into `dest`, which is made when missing, and what is said of it beside, under names that begin with
/// `prefix`.
pub(super) fn directory(
    store: &Store,
    dest: &Path,
    tree: &Tree<'_>,
    prefix: &str,
    epoch: Option<i64>,
) -> Result<(), ExportError> {
    let dir: OwnedFd = target::make_dir(dest)?;
    let view = flat::view(store, tree.layers)?;
    let statements = statement::files(&view, tree.attestations, prefix)?;
    let mut writer = Writer {
        root: Root::from(dir),
        view: &view,
        first_names: HashMap::new(),
        // Not in a user namespace: what is exported belongs to the user, as when nothing had to be run.
        is_root: rustix::process::geteuid().is_root() && Namespace::current().is_initial(),
        epoch,
    };
    let mut dirs = Vec::new();
    for (path, node) in view.walk(&TreePath::root()) {
        writer.put(&path, &node)?;
        if node.is_dir() {
            dirs.push((path, node));
        }
    }
    // Deepest first: filling a directory changes its time, and its mode may forbid filling it.
    for (path, node) in dirs.iter().rev() {
        writer.dress(path, node.meta)?;
    }
    for (name, bytes) in statements {
        let mut target = Target::create_in(&writer.root, &name, dest)?;
        target.write(&bytes)?;
        target.commit()?;
    }
    Ok(())
}

struct Writer<'v> {
    root: Root,
    view: &'v View,
    /// Where each inode with several names was written first.
    first_names: HashMap<cache::tree::Inode, TreePath>,
    is_root: bool,
    epoch: Option<i64>,
}

impl Writer<'_> {
    fn put(&mut self, path: &TreePath, node: &Node<'_>) -> Result<(), ExportError> {
        if node.has_links && !node.is_dir() {
            if let Some(first) = self.first_names.get(&node.inode) {
                let first = first.clone();
                return self.replacing(path, |root| root.make_hardlink(path, root, &first));
            }
            self.first_names.insert(node.inode, path.clone());
        }
        match node.kind {
            NodeKind::Dir => return self.dir(path),
            NodeKind::File { .. } => return self.file(path, node),
            NodeKind::Symlink(to) => self.replacing(path, |root| root.make_symlink(path, to))?,
            NodeKind::Fifo => self.device(path, root::Node::Fifo)?,
            // Only root can make devices; a directory of files is complete without.
            NodeKind::CharDevice(..) | NodeKind::BlockDevice(..) if !self.is_root => return Ok(()),
            NodeKind::CharDevice(major, minor) => self.device(path, root::Node::CharDevice(major, minor))?,
            NodeKind::BlockDevice(major, minor) => {
                self.device(path, root::Node::BlockDevice(major, minor))?
            }
        }
        self.dress(path, node.meta)
    }

    /// Makes a directory that we can fill; its own mode comes last.
    fn dir(&self, path: &TreePath) -> Result<(), ExportError> {
        match self.root.make_dir(path, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return Ok(other?),
        }
        let stat = self.root.stat(path)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Ok(());
        }
        self.root.unlink(path)?;
        Ok(self.root.make_dir(path, 0o700)?)
    }

    /// Writes a file under another name and renames it, so that nobody sees half of it.
    fn file(&self, path: &TreePath, node: &Node<'_>) -> Result<(), ExportError> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| write_failed(path, error.into()))?;
        let name = format!(".ashlar-{}", cache::digest::hex(&random));
        let temporary = path.parent().unwrap_or_default().join(name.as_bytes());
        let result = self.fill(&temporary, path, node);
        if result.is_err() {
            // The first error is the one to tell.
            let _ = self.root.unlink(&temporary);
        }
        result
    }

    fn fill(&self, temporary: &TreePath, path: &TreePath, node: &Node<'_>) -> Result<(), ExportError> {
        let mut file = self.root.create_file(temporary, 0o600)?;
        let mut reader = self.view.read(node)?;
        io::copy(&mut reader, &mut file).map_err(|source| write_failed(path, source))?;
        self.dress(temporary, node.meta)?;
        Ok(self.root.rename(temporary, path)?)
    }

    fn device(&self, path: &TreePath, node: root::Node) -> Result<(), ExportError> {
        self.replacing(path, |root| root.make_node(path, node, 0o600))
    }

    /// Makes something in the place of what may be there, unless that is a directory.
    fn replacing(
        &self,
        path: &TreePath,
        make: impl Fn(&Root) -> Result<(), root::Error>,
    ) -> Result<(), ExportError> {
        match make(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.root.unlink(path)?;
                Ok(make(&self.root)?)
            }
            other => Ok(other?),
        }
    }

    /// Sets owner, mode, attributes and time, in the order in which one does not undo the other.
    fn dress(&self, path: &TreePath, meta: &Meta) -> Result<(), ExportError> {
        if self.is_root {
            self.root.set_owner(path, meta.uid, meta.gid)?;
        }
        self.root.set_mode(path, meta.mode)?;
        for (name, value) in &meta.xattrs {
            match self.root.set_xattr(path, name, value) {
                Err(error) if is_beyond_us(&error) => {}
                other => other?,
            }
        }
        let time = self
            .epoch
            .map_or(meta.mtime, |seconds| Timestamp { seconds, nanos: 0 });
        Ok(self.root.set_time(path, time)?)
    }
}

/// Says whether the file system or our rights don't allow an attribute, which only an image needs.
fn is_beyond_us(error: &root::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

fn write_failed(path: &TreePath, source: io::Error) -> ExportError {
    ExportError::Write {
        path: path.to_string().into(),
        source,
    }
}
