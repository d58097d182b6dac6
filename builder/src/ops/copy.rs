//! File ops: COPY, ADD, heredoc files and WORKDIR, worked out on indexes. Nothing is mounted and no tree is walked on
//! disk but the build context. Spec: dockerfile.md §10, §11.

use std::collections::HashMap;

use cache::layer::{Meta, Timestamp, TreePath};
use cache::tree::links::Step;
use cache::tree::{Inode, Node, NodeKind, Selected, View};
use solver::mode::ModeChange;
use solver::op::{Copy, FileAction, FileOp, MetaChange};

use super::draft::{Body, Draft, Pending};
use super::owner::{self, Owner};
use super::{OpError, extract};

/// What a file op reads: for each input above 0 the tree, and what of it was selected.
pub(super) struct CopySource<'v> {
    pub(super) tree: &'v View,
    pub(super) selected: Vec<Selected<'v>>,
}

/// Works out what the op changes. `sources[0]` is unused: it stands for the tree that is written to.
pub(super) fn apply(
    op: &FileOp,
    base: View,
    sources: &[Option<CopySource<'_>>],
    now: Timestamp,
    scratch: &cache::incomplete::Incomplete,
) -> Result<Draft, OpError> {
    let stamp = op.epoch.map_or(now, |seconds| Timestamp { seconds, nanos: 0 });
    let mut copier = Copier {
        draft: Draft::new(base),
        stamp,
        links: HashMap::new(),
        scratch,
    };
    for action in &op.actions {
        match action {
            FileAction::Copy(copy) => {
                let source = sources
                    .get(copy.input)
                    .and_then(Option::as_ref)
                    .expect("lowering numbers inputs");
                copier.copy(copy, source)?;
            }
            FileAction::Write {
                dest,
                name,
                data,
                change,
            } => copier.write(dest, name, data, change)?,
            FileAction::MakeDir { path, user } => copier.make_dir(path, user)?,
        }
    }
    Ok(copier.draft)
}

/// The state of one file op.
struct Copier<'a> {
    draft: Draft,
    /// Time of what the op itself makes.
    stamp: Timestamp,
    /// First place of each hard-linked file, per action: which tree, which file.
    links: HashMap<Inode, TreePath>,
    scratch: &'a cache::incomplete::Incomplete,
}

/// Owner and mode of a copy, with names looked up.
pub(super) struct Change {
    pub(super) owner: Option<Owner>,
    pub(super) mode: Option<ModeChange>,
}

impl Change {
    /// Applies the flags to what was copied.
    fn apply(&self, meta: &mut Meta, kind: NodeKind<'_>) {
        if let Some(owner) = self.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        if let (Some(mode), false) = (&self.mode, matches!(kind, NodeKind::Symlink(_))) {
            meta.mode = mode.apply(meta.mode, matches!(kind, NodeKind::Dir));
        }
    }

    /// Returns the metadata of directories that had to be made: symbolic modes don't count for them.
    fn made_dir(&self, stamp: Timestamp) -> Meta {
        let owner = self.owner.unwrap_or_default();
        let mode = match &self.mode {
            Some(ModeChange::Octal(mode)) => *mode,
            _ => 0o755,
        };
        Meta {
            mode,
            uid: owner.uid,
            gid: owner.gid,
            mtime: stamp,
            xattrs: Vec::new(),
        }
    }
}

impl Copier<'_> {
    fn change(&self, change: &MetaChange) -> Result<Change, OpError> {
        let owner = change
            .owner
            .as_deref()
            .map(|owner| owner::of_chown(owner, self.draft.base()))
            .transpose()?;
        Ok(Change {
            owner,
            mode: change.mode.clone(),
        })
    }

    fn copy(&mut self, copy: &Copy, source: &CopySource<'_>) -> Result<(), OpError> {
        let change = self.change(&copy.change)?;
        self.links.clear();
        for selected in &source.selected {
            if selected.parents.is_some() {
                self.copy_below(&copy.dest, source.tree, selected, &change)?;
                continue;
            }
            if copy.unpack
                && matches!(selected.node.kind, NodeKind::File { .. })
                && let Some(archive) = extract::open(source.tree, &selected.node, self.scratch)?
            {
                let dest = self.dest_dir(&copy.dest, &change)?;
                extract::apply(&mut self.draft, &archive, &dest, &change, self.stamp)?;
                continue;
            }
            match selected.node.kind {
                NodeKind::Dir => self.copy_dir(&copy.dest, source.tree, selected, &change)?,
                _ => {
                    let target = self.file_target(&copy.dest, &selected.name, &change)?;
                    self.copy_node(target, source.tree, &selected.node, &change)?;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, dest: &str, name: &str, data: &[u8], change: &MetaChange) -> Result<(), OpError> {
        let change = self.change(change)?;
        let target = self.file_target(dest, name.as_bytes(), &change)?;
        if self.draft.find(&target) == Step::Dir {
            return Err(OpError::FileOverDirectory { path: target });
        }
        let owner = change.owner.unwrap_or_default();
        let mode = change
            .mode
            .as_ref()
            .map_or(0o644, |mode| mode.apply(0o644, false));
        let meta = Meta {
            mode,
            uid: owner.uid,
            gid: owner.gid,
            mtime: self.stamp,
            xattrs: Vec::new(),
        };
        self.draft.put(
            target,
            Pending {
                meta,
                body: Body::Inline(data.to_vec()),
            },
        );
        Ok(())
    }

    fn make_dir(&mut self, path: &str, user: &str) -> Result<(), OpError> {
        let target = self.draft.resolve(&TreePath::clean(path.as_bytes()))?;
        if self.draft.find(&target) == Step::Dir || target.is_root() {
            return Ok(());
        }
        let owner = owner::of_user(user, self.draft.base())?;
        let meta = Meta {
            mode: 0o755,
            uid: owner.uid,
            gid: owner.gid,
            mtime: self.stamp,
            xattrs: Vec::new(),
        };
        self.draft.make_dirs(&target, &meta)
    }

    /// Returns where a file called `name` goes, and makes what is missing above it.
    fn file_target(&mut self, dest: &str, name: &[u8], change: &Change) -> Result<TreePath, OpError> {
        let resolved = self.draft.resolve(&TreePath::clean(dest.as_bytes()))?;
        let into = dest.ends_with('/') || resolved.is_root() || self.draft.find(&resolved) == Step::Dir;
        let target = if into { resolved.join(name) } else { resolved };
        let parent = target.parent().unwrap_or_default();
        self.draft.make_dirs(&parent, &change.made_dir(self.stamp))?;
        Ok(target)
    }

    /// Returns the directory at `dest`, made when missing.
    fn dest_dir(&mut self, dest: &str, change: &Change) -> Result<TreePath, OpError> {
        let target = self.draft.resolve(&TreePath::clean(dest.as_bytes()))?;
        match self.draft.find(&target) {
            Step::Dir => {}
            _ if target.is_root() => {}
            Step::Missing => self.draft.make_dirs(&target, &change.made_dir(self.stamp))?,
            Step::Link(_) | Step::Other => return Err(OpError::DirectoryOverFile { path: target }),
        }
        Ok(target)
    }

    /// Copies the contents of a directory. Its own mode and owner are not transferred, its time is.
    fn copy_dir(
        &mut self,
        dest: &str,
        tree: &View,
        selected: &Selected<'_>,
        change: &Change,
    ) -> Result<(), OpError> {
        let top = self.dest_dir(dest, change)?;
        let mtime = selected.node.meta.mtime;
        // Layers of other builders have no entry for the root either.
        if !top.is_root() {
            self.draft.touch_dir(&top, |meta| meta.mtime = mtime);
        }
        for (path, node) in tree.entries_of(selected) {
            self.copy_node(top.concat(&path), tree, &node, change)?;
        }
        Ok(())
    }

    /// Copies a source of `--parents`, with the directories above it. When all of it is excluded, nothing is made.
    fn copy_below(
        &mut self,
        dest: &str,
        tree: &View,
        selected: &Selected<'_>,
        change: &Change,
    ) -> Result<(), OpError> {
        let entries = tree.entries_of(selected);
        if entries.is_empty() {
            return Ok(());
        }
        let top = self.dest_dir(dest, change)?;
        for (path, node) in entries {
            self.copy_node(top.concat(&path), tree, &node, change)?;
        }
        Ok(())
    }

    /// Copies one node, not what is below it, to exactly `target`.
    fn copy_node(
        &mut self,
        target: TreePath,
        tree: &View,
        node: &Node<'_>,
        change: &Change,
    ) -> Result<(), OpError> {
        let found = self.draft.find(&target);
        let mut meta = node.meta.clone();
        change.apply(&mut meta, node.kind);
        if matches!(node.kind, NodeKind::Dir) {
            return match found {
                Step::Dir => {
                    self.draft.touch_dir(&target, |old| *old = meta);
                    Ok(())
                }
                Step::Missing => {
                    self.draft.put(
                        target,
                        Pending {
                            meta,
                            body: Body::Dir { opaque: false },
                        },
                    );
                    Ok(())
                }
                Step::Link(_) | Step::Other => Err(OpError::DirectoryOverFile { path: target }),
            };
        }
        if found == Step::Dir {
            return Err(OpError::FileOverDirectory { path: target });
        }
        let mut body = body_of(tree, node);
        if node.has_links {
            // Another source may have put something else there since.
            match self.links.get(&node.inode) {
                Some(first) if self.draft.holds(first, &body) => body = Body::Hardlink(first.clone()),
                _ => {
                    self.links.insert(node.inode, target.clone());
                }
            }
        }
        self.draft.put(target, Pending { meta, body });
        Ok(())
    }
}

/// Returns what a copied node is made of.
pub(super) fn body_of(tree: &View, node: &Node<'_>) -> Body {
    match node.kind {
        NodeKind::Dir => Body::Dir { opaque: false },
        NodeKind::File { size_bytes } => Body::Content {
            tree: tree.clone(),
            inode: node.inode,
            size_bytes,
        },
        NodeKind::Symlink(target) => Body::Symlink(target.to_owned()),
        NodeKind::CharDevice(major, minor) => Body::CharDevice(major, minor),
        NodeKind::BlockDevice(major, minor) => Body::BlockDevice(major, minor),
        NodeKind::Fifo => Body::Fifo,
    }
}
