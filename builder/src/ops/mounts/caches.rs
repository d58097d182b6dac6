//! Cache mounts: which directory of the store a step gets, and what a new one begins with.
//!
//! A cache is named by whose it is and its id, and either by its owner and mode or by what it began as a copy of. It is the
//! project's unless something else was asked for: what one project leaves in a cache is executed by whoever finds it there.
//!
//! A step takes all its caches in the order of their names, so that no two steps wait for each other.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use cache::layer::TreePath;
use cache::mounts::{self, About, Identity, Scope, Sharing, Start, Taken};
use cache::root::Root;
use cache::tree::Error as TreeError;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Gid, Mode, Uid};
use solver::Stream;
use solver::op::{self, CacheMount, FileOwner, Mount};

use super::{Step, Wanted, subtree};
use crate::ops::OpError;
use crate::sandbox::{Access, Tree};

/// How long a step sleeps before it looks again whether a cache is free: the first time, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// The caches of a step, for as long as it takes.
pub(super) struct Held(BTreeMap<Identity, mounts::Held>);

impl Held {
    /// Returns the directory of one of the step's caches.
    pub(super) fn tree(&self, cache: &Identity, access: Access) -> Result<Tree, OpError> {
        let held = self
            .0
            .get(cache)
            .expect("because all caches of the step were taken");
        let dir = File::open(held.data()).map_err(|source| OpError::Read {
            path: held.data().to_owned(),
            source,
        })?;
        Ok(Tree::directory(dir.as_fd(), access)?)
    }
}

/// One cache, as all mounts of a step together want it.
struct Want<'a> {
    about: About,
    sharing: Sharing,
    cache: &'a CacheMount,
}

/// Takes the caches of a step, waiting for those that others have for themselves.
pub(super) fn take(wanted: &Wanted, step: &Step<'_>) -> Result<Held, OpError> {
    let mut wants: BTreeMap<Identity, Want<'_>> = BTreeMap::new();
    for mount in &wanted.mounts {
        let Mount::Cache(cache) = mount else { continue };
        let about = about(cache, &wanted.scope);
        let sharing = sharing(cache.sharing);
        let identity = about.identity();
        // The same cache at two places is one cache; whoever wants the most of it decides.
        let want = wants.entry(identity).or_insert(Want {
            about,
            sharing,
            cache,
        });
        want.sharing = want.sharing.max(sharing);
    }
    let mut held = BTreeMap::new();
    for (identity, want) in wants {
        tell_of_another(&want, wanted, step);
        held.insert(identity, wait_for(&want, wanted, step)?);
    }
    Ok(Held(held))
}

/// Tells of a cache that all projects share where that of this one is about to begin: stores from before there were projects
/// have such, and nobody is to wonder where their content is.
fn tell_of_another(want: &Want<'_>, wanted: &Wanted, step: &Step<'_>) {
    let (about, mounts) = (&want.about, step.lowers.store().mounts());
    if matches!(about.scope(), Scope::Project(_))
        && !mounts.contains(about)
        && !wanted.seeds.contains_key(&about.identity())
        && mounts.contains(&about.anywhere())
    {
        step.events.warn(format!(
            "the cache mount `{}` begins anew for this project; the one that all projects share is left alone, and used with \
             --cache-ns global",
            about.id
        ));
    }
}

fn wait_for(want: &Want<'_>, wanted: &Wanted, step: &Step<'_>) -> Result<mounts::Held, OpError> {
    let start = match want.cache.from {
        Some(_) if wanted.fresh => Start::Fresh,
        _ => Start::Kept,
    };
    let store = step.lowers.store();
    let fill = |root: &Root| fill(root, want.cache, wanted, step);
    let mut has_told = false;
    let mut n_tries = 0;
    let mut pause = PATIENCE.0;
    loop {
        let kind = (want.sharing, start);
        match store
            .mounts()
            .take(&want.about, kind, store.user(), store.incomplete(), &fill)?
        {
            Taken::Held(held) => return Ok(held),
            Taken::Busy(who) => {
                n_tries += 1;
                // Whoever took it just now may not have said yet who it is.
                if (!who.is_empty() || n_tries > 3) && !std::mem::replace(&mut has_told, true) {
                    let who = if who.is_empty() { "somebody" } else { &who };
                    let id = &want.about.id;
                    let text = format!("waiting for the cache mount `{id}`, last taken by {who}\n");
                    step.events.log(step.subject, Stream::Stderr, text.as_bytes());
                }
                if is_cancelled(step.kill, pause)? {
                    return Err(OpError::Cancelled);
                }
                pause = (pause * 2).min(PATIENCE.1);
            }
        }
    }
}

/// Sleeps, unless the step is cancelled. Waiting in flock(2) could not be cancelled.
fn is_cancelled(kill: BorrowedFd<'_>, pause: Duration) -> Result<bool, OpError> {
    let mut fds = [PollFd::from_borrowed_fd(kill, PollFlags::IN)];
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: pause.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut fds, Some(&pause)) {
        Ok(n_ready) => Ok(n_ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(OpError::Scratch { source: errno.into() }),
    }
}

/// Gives a new cache what it begins with.
fn fill(root: &Root, cache: &CacheMount, wanted: &Wanted, step: &Step<'_>) -> Result<(), OpError> {
    let failed = |errno: rustix::io::Errno| OpError::Scratch { source: errno.into() };
    let seed = wanted.seeds.get(&about(cache, &wanted.scope).identity());
    if let Some(layer) = seed {
        subtree::unpacked(layer, root)?;
    }
    let owner = match &cache.from {
        None => cache.owner,
        Some((input, source)) => {
            let tree = &wanted.input(*input).tree;
            let found = tree.resolve(&TreePath::clean(source.as_bytes()))?;
            let node = found.node.ok_or_else(|| TreeError::NotFound {
                pattern: source.clone(),
                candidates: Vec::new(),
            })?;
            if !node.is_dir() {
                return Err(TreeError::NotDirectory { path: found.path }.into());
            }
            if seed.is_none() {
                subtree::copied(step.lowers, tree, &found.path, &node, root)?;
            }
            FileOwner {
                mode: node.meta.mode,
                uid: node.meta.uid,
                gid: node.meta.gid,
            }
        }
    };
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::fchown(root, Some(uid), Some(gid)).map_err(failed)?;
    rustix::fs::fchmod(root, Mode::from_raw_mode(owner.mode)).map_err(failed)
}

/// Returns what a cache mount is called by, whoever mounts it in builds of this scope. A namespace of its own, as of
/// BUILDKIT_CACHE_MOUNT_NS, wins.
pub(crate) fn about(cache: &CacheMount, scope: &Scope) -> About {
    let FileOwner { mode, uid, gid } = cache.owner;
    let (namespace, project) = match (cache.namespace.as_str(), scope) {
        ("", Scope::Project(project)) => ("", project.as_str()),
        ("", Scope::Named(name)) => (name.as_str(), ""),
        (namespace, _) => (namespace, ""),
    };
    About {
        id: cache.id.clone(),
        namespace: namespace.to_owned(),
        project: project.to_owned(),
        owner: cache.from.is_none().then_some((mode, uid, gid)),
        source: cache.from.as_ref().map(|(_, source)| source.clone()),
    }
}

fn sharing(sharing: op::Sharing) -> Sharing {
    match sharing {
        op::Sharing::Shared => Sharing::Shared,
        op::Sharing::Private => Sharing::Private,
        op::Sharing::Locked => Sharing::Locked,
    }
}
