//! Scans a context directory in parallel: only what selections need, never what is ignored.

use std::collections::{HashMap, HashSet};
use std::io;

use rayon::prelude::*;
use rustix::fs::{FileType, Stat};

use super::context::Notice;
use super::error::Error;
use super::ignore::{IgnoreList, Matched};
use super::links::MAX_LINKS;
use super::memo::{Identity, Memo};
use super::parents::{Pivoted, is_deep};
use super::pattern::{Pattern, has_wildcards};
use super::selection::Selection;
use crate::digest::ContentHash;
use crate::layer::{Entry, FileData, Kind, Meta, TreePath};
use crate::root::{self, Root, mtime_of};

/// One scanned path.
pub(super) struct Scanned {
    pub(super) entry: Entry,
    pub(super) identity: Identity,
    /// What the memo says.
    pub(super) content: Option<ContentHash>,
    n_links: u64,
    /// An ignored directory: there only for what is re-included below.
    ignored: bool,
}

/// Everything that a scan found.
#[derive(Default)]
pub(super) struct Found {
    /// Sorted by path, with all parents; hard links are `Kind::Hardlink` to the first name.
    pub(super) files: Vec<Scanned>,
    pub(super) complete: Vec<TreePath>,
    pub(super) notices: Vec<Notice>,
}

struct Scan<'s> {
    root: &'s Root,
    ignore: &'s IgnoreList,
    memo: &'s Memo,
    found: Found,
}

/// A path on its way to being scanned.
struct Wanted {
    /// What is reached, free of links.
    at: TreePath,
    /// What is still to be followed, last component first.
    rest: Vec<Vec<u8>>,
    /// How many of these, from the start of `rest`, were written in the selection; others come from links.
    n_written: usize,
    /// How many of these lie behind a pivot: no link is followed there, and `**` crosses slashes.
    n_verbatim: usize,
    n_links: usize,
}

/// A directory's entries, and those of them that are to be entered.
struct Listing {
    files: Vec<Scanned>,
    dirs: Vec<(TreePath, Matched)>,
    notices: Vec<Notice>,
}

/// Below this many names a directory isn't worth more than one thread.
const PARALLEL_NAMES: usize = 128;

pub(super) fn scan(
    root: &Root,
    ignore: &IgnoreList,
    wanted: &[Selection],
    memo: &Memo,
) -> Result<Found, Error> {
    let mut scan = Scan {
        root,
        ignore,
        memo,
        found: Found::default(),
    };
    let here = TreePath::root();
    let top = scan.look(root, &here, &here, false)?;
    scan.found.files.extend(top.and_then(Result::ok));
    let mut queue: Vec<Wanted> = Vec::new();
    for selection in wanted {
        for pattern in &selection.patterns {
            queue.push(Wanted::start(pattern, selection.parents));
        }
    }
    while let Some(wanted) = queue.pop() {
        scan.advance(wanted, &mut queue)?;
    }
    Ok(finish(scan.found))
}

impl Wanted {
    fn start(pattern: &str, parents: bool) -> Self {
        let (path, n_verbatim) = if parents {
            let pivoted = Pivoted::split(pattern);
            let n_verbatim = pivoted.rest.components().count();
            (
                TreePath::clean(pivoted.base.as_bytes()).concat(&pivoted.rest),
                n_verbatim,
            )
        } else {
            (TreePath::clean(pattern.as_bytes()), 0)
        };
        let rest: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        Self {
            at: TreePath::root(),
            n_written: rest.len(),
            rest,
            n_verbatim,
            n_links: 0,
        }
    }
}

impl Scan<'_> {
    /// Follows one component of a wanted path; what that leads to goes back into the queue.
    fn advance(&mut self, mut wanted: Wanted, queue: &mut Vec<Wanted>) -> Result<(), Error> {
        let is_written = wanted.rest.len() <= wanted.n_written;
        let is_verbatim = wanted.rest.len() <= wanted.n_verbatim;
        let Some(name) = wanted.rest.pop() else {
            return self.scan_below(&wanted.at);
        };
        if is_verbatim && is_deep(&name) {
            return self.scan_below(&wanted.at);
        }
        wanted.n_written = wanted.n_written.min(wanted.rest.len());
        if name == b".." {
            wanted.at = wanted.at.parent().unwrap_or_default();
            queue.push(wanted);
            return Ok(());
        }
        // Targets of links are never patterns.
        if is_written && has_wildcards(&name) {
            let Some(pattern) = Pattern::component(&name) else {
                // The selection will say so.
                return Ok(());
            };
            let listing = self.list_at(&wanted.at)?;
            for file in listing.files {
                if file.entry.path.name().is_some_and(|name| pattern.matches(name)) {
                    self.follow(file, &wanted, is_verbatim, queue);
                }
            }
            return Ok(());
        }
        let child = wanted.at.join(&name);
        match self.look_from_root(&child)? {
            Some(file) => self.follow(file, &wanted, is_verbatim, queue),
            // What is beside a missing path makes the error message useful.
            None => {
                let listing = self.list_at(&wanted.at)?;
                self.found.files.extend(listing.files);
            }
        }
        Ok(())
    }

    /// Records a path and goes on from there, through the link if it is one that is followed.
    fn follow(&mut self, file: Scanned, wanted: &Wanted, is_verbatim: bool, queue: &mut Vec<Wanted>) {
        let mut next = Wanted {
            at: file.entry.path.clone(),
            rest: wanted.rest.clone(),
            ..*wanted
        };
        let mut goes_on = matches!(file.entry.kind, Kind::Dir { .. });
        if let Kind::Symlink(target) = &file.entry.kind
            && !is_verbatim
        {
            let above = next.at.parent().unwrap_or_default();
            next.at = if target.first() == Some(&b'/') {
                TreePath::root()
            } else {
                above
            };
            let parts = target
                .split(|&byte| byte == b'/')
                .filter(|part| !part.is_empty() && *part != b".");
            next.rest.extend(parts.rev().map(<[u8]>::to_vec));
            next.n_links += 1;
            // A loop ends here; resolving it will report it.
            goes_on = next.n_links <= MAX_LINKS;
        }
        self.found.files.push(file);
        if goes_on {
            queue.push(next);
        }
    }

    /// Lists one directory without going deeper; empty when there is none.
    fn list_at(&mut self, dir: &TreePath) -> Result<Listing, Error> {
        let (_, matched) = self.state_of(dir);
        match self.list(dir, &matched) {
            Err(Error::Root(error)) if error.is_missing() => Ok(Listing {
                files: Vec::new(),
                dirs: Vec::new(),
                notices: Vec::new(),
            }),
            other => other,
        }
    }

    /// Scans everything below `top`, level by level.
    fn scan_below(&mut self, top: &TreePath) -> Result<(), Error> {
        if self.found.complete.iter().any(|done| top.below(done).is_some()) {
            return Ok(());
        }
        let mut level = vec![(top.clone(), self.state_of(top).1)];
        while !level.is_empty() {
            let list = |(dir, matched): &(TreePath, Matched)| self.list(dir, matched);
            let listings: Vec<Listing> = if level.len() < 4 {
                level.iter().map(list).collect::<Result<_, _>>()?
            } else {
                level.par_iter().map(list).collect::<Result<_, _>>()?
            };
            level.clear();
            for listing in listings {
                self.found.files.extend(listing.files);
                self.found.notices.extend(listing.notices);
                level.extend(listing.dirs);
            }
        }
        self.found.complete.push(top.clone());
        Ok(())
    }

    /// Returns what the ignore list says about a path.
    fn state_of(&self, path: &TreePath) -> (bool, Matched) {
        let mut at = TreePath::root();
        path.components()
            .fold((false, self.ignore.at_root()), |(_, matched), name| {
                at.push(name);
                self.ignore.enter(&matched, &at)
            })
    }

    fn list(&self, dir: &TreePath, matched: &Matched) -> Result<Listing, Error> {
        let here = self.root.sub(dir)?;
        let names = here.list().map_err(|error| error.below(dir))?;
        let look = |name: &[u8], file_type: FileType| {
            let path = dir.join(name);
            let ignored = self.ignore.ignores(matched, &path);
            // Where listings tell no types, a directory is assumed, and the look at it decides.
            let may_be_dir = matches!(file_type, FileType::Directory | FileType::Unknown);
            if ignored && !(may_be_dir && self.ignore.could_contain(&path)) {
                return Ok(None);
            }
            let local = TreePath::root().join(name);
            self.look(&here, &local, &path, ignored)
        };
        let looked: Vec<_> = if names.len() < PARALLEL_NAMES {
            names
                .iter()
                .map(|listed| look(&listed.name, listed.file_type))
                .collect::<Result<_, Error>>()?
        } else {
            names
                .par_iter()
                .map(|listed| look(&listed.name, listed.file_type))
                .collect::<Result<_, Error>>()?
        };
        let mut listing = Listing {
            files: Vec::with_capacity(names.len()),
            dirs: Vec::new(),
            notices: Vec::new(),
        };
        for looked in looked.into_iter().flatten() {
            match looked {
                Err(notice) => listing.notices.push(notice),
                Ok(file) if file.ignored && !matches!(file.entry.kind, Kind::Dir { .. }) => {}
                Ok(file) => {
                    if matches!(file.entry.kind, Kind::Dir { .. }) {
                        let path = file.entry.path.clone();
                        let below = self.ignore.enter(matched, &path).1;
                        listing.dirs.push((path, below));
                    }
                    listing.files.push(file);
                }
            }
        }
        Ok(listing)
    }

    /// Looks at a single path; `None` when it isn't there, is ignored, or was left out.
    fn look_from_root(&mut self, path: &TreePath) -> Result<Option<Scanned>, Error> {
        let (ignored, _) = self.state_of(path);
        if ignored && !self.ignore.could_contain(path) {
            return Ok(None);
        }
        match self.look(self.root, path, path, ignored)? {
            Some(Ok(file)) if ignored && !matches!(file.entry.kind, Kind::Dir { .. }) => Ok(None),
            Some(Ok(file)) => Ok(Some(file)),
            Some(Err(notice)) => {
                self.found.notices.push(notice);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Looks at `local` under `dir`, which is `path` in the context. `None` when it isn't there any more.
    fn look(
        &self,
        dir: &Root,
        local: &TreePath,
        path: &TreePath,
        ignored: bool,
    ) -> Result<Option<Result<Scanned, Notice>>, Error> {
        // Seen from `dir`, the error names only the last component.
        let full = |error: root::Error| match local == path {
            true => error,
            false => error.below(&path.parent().unwrap_or_default()),
        };
        let stat = match dir.stat(local) {
            // On the way may stand a link: components were looked at one by one, so it is new.
            Err(error) if error.is_missing() => return Ok(None),
            other => other.map_err(full)?,
        };
        let identity = Identity::of(&stat);
        let mut content = None;
        let mut meta = Meta {
            mode: stat.st_mode & 0o7777,
            uid: 0,
            gid: 0,
            mtime: mtime_of(&stat),
            xattrs: Vec::new(),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                content = self.memo.lookup(&identity);
                if content.is_none() {
                    let value = dir.xattr(local, b"security.capability").map_err(full)?;
                    meta.xattrs
                        .extend(value.map(|value| (b"security.capability".to_vec(), value)));
                }
                let content = ContentHash::from_bytes([0; 32]);
                Kind::File(FileData {
                    size_bytes: identity.size_bytes,
                    offset: 0,
                    content,
                })
            }
            FileType::Directory => Kind::Dir {
                opaque: false,
                implied: false,
            },
            FileType::Symlink => match dir.read_link(local) {
                // EINVAL: it was a link a moment ago.
                Err(error) if error.is_missing() || error.kind() == io::ErrorKind::InvalidInput => {
                    return Err(Error::Changed { path: path.clone() });
                }
                other => Kind::Symlink(other.map_err(full)?),
            },
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                return Ok(Some(Err(Notice::Whiteout(path.clone()))));
            }
            FileType::CharacterDevice => Kind::CharDevice(major(&stat), minor(&stat)),
            FileType::BlockDevice => Kind::BlockDevice(major(&stat), minor(&stat)),
            FileType::Socket | FileType::Unknown => return Ok(Some(Err(Notice::Socket(path.clone())))),
        };
        let entry = Entry {
            path: path.clone(),
            meta,
            kind,
        };
        // Differs in type between architectures.
        #[expect(
            clippy::unnecessary_cast,
            clippy::useless_conversion,
            reason = "nlink_t is 32 bits wide on some"
        )]
        let n_links = u64::from(stat.st_nlink as u64);
        Ok(Some(Ok(Scanned {
            entry,
            identity,
            content,
            n_links,
            ignored,
        })))
    }
}

fn major(stat: &Stat) -> u32 {
    rustix::fs::major(stat.st_rdev)
}

fn minor(stat: &Stat) -> u32 {
    rustix::fs::minor(stat.st_rdev)
}

/// Sorts, drops what was seen twice and ignored directories with nothing in them, and names hard links.
fn finish(mut found: Found) -> Found {
    // Of two looks at one path either will do: a file that changed in between is found out when it is read.
    found
        .files
        .sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
    found
        .files
        .dedup_by(|later, first| later.entry.path == first.entry.path);
    if found.files.iter().any(|file| file.ignored) {
        let mut needed: HashSet<TreePath> = HashSet::new();
        for file in found.files.iter().filter(|file| !file.ignored) {
            let mut above = file.entry.path.parent();
            while let Some(path) = above {
                above = path.parent();
                if !needed.insert(path) {
                    break;
                }
            }
        }
        found
            .files
            .retain(|file| !file.ignored || needed.contains(&file.entry.path));
    }
    let mut first_names: HashMap<(u64, u64), TreePath> = HashMap::new();
    for file in &mut found.files {
        if file.n_links < 2 || matches!(file.entry.kind, Kind::Dir { .. }) {
            continue;
        }
        match first_names.entry(file.identity.inode_key()) {
            std::collections::hash_map::Entry::Occupied(first) => {
                file.entry.kind = Kind::Hardlink(first.get().clone());
            }
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(file.entry.path.clone());
            }
        }
    }
    found.notices.sort_by(|a, b| a.path().cmp(b.path()));
    found.notices.dedup();
    found
}
