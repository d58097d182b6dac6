//! The merged view of a stage: what the kernel's overlay would show for a stack of layers, answered from their
//! sorted indexes without merging, mounting or unpacking anything.
//!
//! A lookup asks the layers from the newest down by binary search, and stops where one of them has the path or
//! hides it. Deliberately knows no selections (`select.rs`) and no bytes (`read.rs`).

use std::fs::File;
use std::sync::Arc;

use super::context::ContextTree;
use super::error::Error;
use super::links::{self, Step};
use super::node::{Inode, Node, NodeKind, kind_of};
use super::settle;
use crate::layer::{Entry, Kind, LayerFile, Meta, Timestamp, TreePath};

/// A layer as a view needs it.
pub trait Part: Send + Sync + 'static {
    /// Returns the entries, sorted by path, one per path, every parent present (implied ones flagged). Decoded
    /// once: later calls are cheap and can't fail.
    fn index(&self) -> Result<&[Entry], Box<dyn std::error::Error + Send + Sync>>;

    /// Returns the file that the entries' offsets are about.
    fn file(&self) -> &File;
}

impl Part for LayerFile {
    fn index(&self) -> Result<&[Entry], Box<dyn std::error::Error + Send + Sync>> {
        Ok(LayerFile::index(self)?)
    }

    fn file(&self) -> &File {
        LayerFile::file(self)
    }
}

/// What stands behind one part of a view.
pub(super) enum Source {
    Layer(Arc<dyn Part>),
    /// A layer whose implied directories were links below: its entries stand where the links lead.
    Settled {
        entries: Vec<Entry>,
        layer: Arc<dyn Part>,
    },
    Context(Arc<ContextTree>),
}

impl Source {
    pub(super) fn entries(&self) -> &[Entry] {
        match self {
            Self::Layer(layer) => layer
                .index()
                .expect("because the index was decoded when the view was made"),
            Self::Settled { entries, .. } => entries,
            Self::Context(context) => context.entries(),
        }
    }
}

/// One part with its hard links resolved.
pub(super) struct Stacked {
    pub(super) source: Source,
    /// Entry of this part → the inode it is a name of. Sorted by entry.
    links: Vec<(u32, Inode)>,
    has_opaque: bool,
}

impl Stacked {
    pub(super) fn entries(&self) -> &[Entry] {
        self.source.entries()
    }

    /// Says whether an opaque directory above `path` hides what lower layers have there.
    fn covers(&self, path: &TreePath) -> bool {
        let is_opaque = |above: TreePath| {
            let number = position(self.entries(), above.as_bytes());
            number.is_some_and(|number| matches!(self.entries()[number].kind, Kind::Dir { opaque: true, .. }))
        };
        self.has_opaque && std::iter::successors(path.parent(), TreePath::parent).any(is_opaque)
    }
}

/// A merged view. Cheap to clone; grows by [`View::push`].
#[derive(Clone, Default)]
pub struct View {
    pub(super) parts: Vec<Arc<Stacked>>,
    /// Inodes with more than one name in some part. Sorted.
    linked: Arc<Vec<Inode>>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View of {} parts", self.parts.len())
    }
}

/// Where a path leads once every symbolic link is followed inside the tree.
#[derive(Debug, Clone)]
pub struct Resolved<'v> {
    /// The path without links. What is missing of it stays as written.
    pub path: TreePath,
    /// What is there; never a symbolic link.
    pub node: Option<Node<'v>>,
}

/// Metadata of directories that nobody described.
static UNDESCRIBED: Meta = Meta {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: Timestamp { seconds: 0, nanos: 0 },
    xattrs: Vec::new(),
};

/// The inode of a root that no part describes.
const NO_INODE: Inode = Inode {
    part: u32::MAX,
    entry: u32::MAX,
};

impl View {
    /// Makes the view of a stack of layers, base first.
    pub fn of_layers<L: Part>(layers: impl IntoIterator<Item = Arc<L>>) -> Result<Self, Error> {
        let mut view = Self::default();
        for layer in layers {
            view.push(layer)?;
        }
        Ok(view)
    }

    /// Makes the view of a scanned directory.
    pub fn of_directory(context: Arc<ContextTree>) -> Result<Self, Error> {
        let mut view = Self::default();
        view.stack(Source::Context(context))?;
        Ok(view)
    }

    /// Puts a layer on top. Checks that its hard links lead somewhere.
    pub fn push(&mut self, layer: Arc<dyn Part>) -> Result<(), Error> {
        let entries = layer.index().map_err(|source| Error::Index { source })?;
        let source = match settle::settle(self, entries)? {
            Some(entries) => Source::Settled { entries, layer },
            None => Source::Layer(layer),
        };
        self.stack(source)
    }

    fn stack(&mut self, source: Source) -> Result<(), Error> {
        let part = u32::try_from(self.parts.len()).expect("because a view has fewer than 2^32 layers");
        let links = self.resolve_links(part, source.entries())?;
        if !links.is_empty() {
            let mut linked = Vec::clone(&self.linked);
            linked.extend(links.iter().map(|&(_, inode)| inode));
            linked.sort_unstable();
            linked.dedup();
            self.linked = Arc::new(linked);
        }
        let is_opaque = |entry: &Entry| matches!(entry.kind, Kind::Dir { opaque: true, .. });
        let has_opaque = source.entries().iter().any(is_opaque);
        self.parts.push(Arc::new(Stacked {
            source,
            links,
            has_opaque,
        }));
        Ok(())
    }

    /// Finds the inode of every hard link of a new top layer: in the layer itself, else in what is below.
    fn resolve_links(&self, part: u32, entries: &[Entry]) -> Result<Vec<(u32, Inode)>, Error> {
        let mut links = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            if let Kind::Hardlink(target) = &entry.kind {
                let inode = self
                    .link_target(part, entries, target)
                    .ok_or_else(|| Error::DanglingLink {
                        path: entry.path.clone(),
                        target: target.clone(),
                    })?;
                links.push((entry_number(number), inode));
            }
        }
        Ok(links)
    }

    fn link_target(&self, part: u32, entries: &[Entry], target: &TreePath) -> Option<Inode> {
        let mut target = target;
        // A link to a link is legal in tars; a chain longer than this is a loop.
        for _ in 0..links::MAX_LINKS {
            match position(entries, target.as_bytes()) {
                Some(number) => match &entries[number].kind {
                    Kind::Hardlink(next) if next != target => target = next,
                    // Removed or replaced by a directory after the link was made: it means the lower one.
                    Kind::Hardlink(_) | Kind::Whiteout | Kind::Dir { .. } => break,
                    _ => {
                        return Some(Inode {
                            part,
                            entry: entry_number(number),
                        });
                    }
                },
                None => break,
            }
        }
        let below = self.lookup(target).or_else(|| {
            // The tar may have named it through a link of a lower layer.
            let parent = self.resolve(&target.parent()?).ok()?.path;
            self.lookup(&parent.join(target.name()?))
        });
        below.filter(|node| !node.is_dir()).map(|node| node.inode)
    }

    /// Returns what is at `path`. Symbolic links are not followed, neither on the way nor at the end.
    pub fn lookup(&self, path: &TreePath) -> Option<Node<'_>> {
        let mut choice = Choice::default();
        for part in (0..self.parts.len()).rev() {
            let entries = self.parts[part].entries();
            let done = match probe(entries, path.as_bytes()) {
                Probe::Hit(number) => {
                    choice.offer(part, number, &entries[number]) || self.parts[part].covers(path)
                }
                Probe::Hidden => true,
                Probe::Absent => false,
            };
            if done {
                break;
            }
        }
        match choice.settled() {
            None if path.is_root() => Some(Node {
                meta: &UNDESCRIBED,
                kind: NodeKind::Dir,
                inode: NO_INODE,
                has_links: false,
            }),
            None => None,
            Some(place) => Some(self.node(place)),
        }
    }

    /// Follows every symbolic link in `path`, inside the tree.
    ///
    /// Fails at more than 40 links, and where the path leads through something that isn't a directory. A missing
    /// rest is no failure: it stays as written.
    pub fn resolve(&self, path: &TreePath) -> Result<Resolved<'_>, Error> {
        let look = |path: &TreePath| match self.lookup(path).map(|node| node.kind) {
            None => Step::Missing,
            Some(NodeKind::Dir) => Step::Dir,
            Some(NodeKind::Symlink(target)) => Step::Link(target.to_owned()),
            Some(_) => Step::Other,
        };
        let path = links::follow(path, look)?;
        Ok(Resolved {
            node: self.lookup(&path),
            path,
        })
    }

    /// Returns the names in a directory with what they stand for, sorted; empty when there is no such directory.
    pub fn children(&self, dir: &TreePath) -> Children<'_> {
        let mut found: Vec<(&[u8], usize, usize)> = Vec::new();
        for part in (0..self.parts.len()).rev() {
            let entries = self.parts[part].entries();
            match probe(entries, dir.as_bytes()) {
                Probe::Hidden => break,
                Probe::Absent if !dir.is_root() => {}
                Probe::Absent => collect_children(entries, dir, part, &mut found),
                Probe::Hit(number) => match entries[number].kind {
                    Kind::Dir { opaque, .. } => {
                        collect_children(entries, dir, part, &mut found);
                        if opaque || self.parts[part].covers(dir) {
                            break;
                        }
                    }
                    _ => break,
                },
            }
        }
        // Stable: of equal names, the newest layer's stays first.
        found.sort_by_key(|&(name, ..)| name);
        let mut out = Vec::with_capacity(found.len());
        for group in found.chunk_by(|a, b| a.0 == b.0) {
            let mut choice = Choice::default();
            for &(_, part, number) in group {
                if choice.offer(part, number, &self.parts[part].entries()[number]) {
                    break;
                }
            }
            out.extend(choice.settled().map(|place| (group[0].0, self.node(place))));
        }
        out.into_iter()
    }

    /// Walks everything below a directory, parents first, names sorted; the directory itself isn't part of it.
    pub fn walk(&self, dir: &TreePath) -> Walk<'_> {
        Walk {
            view: self,
            stack: vec![(dir.clone(), self.children(dir))],
        }
    }

    /// Returns the entries of the layer at `index`, base first, as they stand in this view: where lower layers'
    /// links lead them. `None` beyond the last, and for a context.
    pub fn layer_entries(&self, index: usize) -> Option<(&[Entry], &File)> {
        let source = &self.parts.get(index)?.source;
        match source {
            Source::Layer(layer) | Source::Settled { layer, .. } => Some((source.entries(), layer.file())),
            Source::Context(_) => None,
        }
    }

    fn node(&self, place: Place) -> Node<'_> {
        let mut inode = place.shape;
        let part = &self.parts[inode.part as usize];
        if let Ok(found) = part.links.binary_search_by_key(&inode.entry, |&(entry, _)| entry) {
            inode = part.links[found].1;
        }
        let entry = self.entry(inode);
        let kind = kind_of(entry).expect("because whiteouts are never chosen and links were resolved");
        let meta = match place.meta {
            Some(meta) if meta == place.shape => &entry.meta,
            Some(meta) => &self.entry(meta).meta,
            None => &UNDESCRIBED,
        };
        let has_links = !self.linked.is_empty() && self.linked.binary_search(&inode).is_ok();
        Node {
            meta,
            kind,
            inode,
            has_links,
        }
    }

    pub(super) fn entry(&self, inode: Inode) -> &Entry {
        &self.parts[inode.part as usize].entries()[inode.entry as usize]
    }
}

/// The names in a directory with what they stand for, sorted.
pub type Children<'v> = std::vec::IntoIter<(&'v [u8], Node<'v>)>;

/// Depth-first walk; see [`View::walk`].
pub struct Walk<'v> {
    view: &'v View,
    /// Directories on the way down, each with the children that are still to come.
    stack: Vec<(TreePath, Children<'v>)>,
}

impl<'v> Iterator for Walk<'v> {
    type Item = (TreePath, Node<'v>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (dir, children) = self.stack.last_mut()?;
            let Some((name, node)) = children.next() else {
                self.stack.pop();
                continue;
            };
            let path = dir.join(name);
            if node.is_dir() {
                self.stack.push((path.clone(), self.view.children(&path)));
            }
            return Some((path, node));
        }
    }
}

/// The entry that decides about a path, and the one whose metadata counts.
#[derive(Clone, Copy)]
struct Place {
    shape: Inode,
    /// `None`: only implied directories.
    meta: Option<Inode>,
}

/// Decides between the layers' opinions about one path, offered from the newest down.
#[derive(Default)]
struct Choice {
    place: Option<Place>,
}

impl Choice {
    /// Takes the next opinion; says whether it was the last that counts.
    fn offer(&mut self, part: usize, number: usize, entry: &Entry) -> bool {
        let part = u32::try_from(part).expect("because a view has fewer than 2^32 layers");
        let here = Inode {
            part,
            entry: entry_number(number),
        };
        match (&mut self.place, &entry.kind) {
            // An implied directory says that there is one, and leaves its metadata to the layers below.
            (None, Kind::Dir { implied: true, .. }) => {
                self.place = Some(Place {
                    shape: here,
                    meta: None,
                });
                false
            }
            (None, Kind::Whiteout) => true,
            (None, _) => {
                self.place = Some(Place {
                    shape: here,
                    meta: Some(here),
                });
                true
            }
            (Some(_), Kind::Dir { implied: true, .. }) => false,
            (Some(place), Kind::Dir { .. }) => {
                place.meta = Some(here);
                true
            }
            // What isn't a directory is replaced by the implied one.
            (Some(_), _) => true,
        }
    }

    fn settled(self) -> Option<Place> {
        self.place
    }
}

/// What one layer says about a path.
pub(super) enum Probe {
    /// It has an entry for it.
    Hit(usize),
    /// It hides what lower layers have there.
    Hidden,
    /// Nothing.
    Absent,
}

pub(super) fn probe(entries: &[Entry], path: &[u8]) -> Probe {
    if let Some(number) = position(entries, path) {
        return Probe::Hit(number);
    }
    if path.is_empty() {
        return Probe::Absent;
    }
    let slashes = path
        .iter()
        .enumerate()
        .filter(|&(_, &byte)| byte == b'/')
        .map(|(slash, _)| slash);
    for end in std::iter::once(0).chain(slashes) {
        match position(entries, &path[..end]).map(|number| &entries[number].kind) {
            Some(Kind::Dir { opaque: false, .. }) => {}
            Some(_) => return Probe::Hidden,
            // The root may lack an entry; any other missing parent means that nothing below is there.
            None if end == 0 => {}
            None => return Probe::Absent,
        }
    }
    Probe::Absent
}

/// Finds the entry of exactly `path`.
pub(super) fn position(entries: &[Entry], path: &[u8]) -> Option<usize> {
    entries
        .binary_search_by(|entry| entry.path.as_bytes().cmp(path))
        .ok()
}

pub(super) fn entry_number(number: usize) -> u32 {
    u32::try_from(number).expect("because a layer has fewer than 2^32 entries")
}

/// Appends the direct children that one index has in `dir`.
fn collect_children<'e>(
    entries: &'e [Entry],
    dir: &TreePath,
    part: usize,
    out: &mut Vec<(&'e [u8], usize, usize)>,
) {
    let mut prefix = dir.as_bytes().to_vec();
    if !dir.is_root() {
        prefix.push(b'/');
    }
    let mut number = entries.partition_point(|entry| entry.path.as_bytes() < &prefix[..]);
    while let Some(rest) = entries
        .get(number)
        .and_then(|entry| entry.path.as_bytes().strip_prefix(&prefix[..]))
    {
        match rest.iter().position(|&byte| byte == b'/') {
            // The root's own entry, when `dir` is the root.
            None if rest.is_empty() => number += 1,
            None => {
                out.push((rest, part, number));
                number += 1;
            }
            // Something deeper: jump behind all of that child's subtree. `0` is the byte after the slash.
            Some(slash) => {
                let mut end = [&prefix[..], &rest[..slash]].concat();
                end.push(b'0');
                number += entries[number..].partition_point(|entry| entry.path.as_bytes() < &end[..]);
            }
        }
    }
}
