//! `RUN --mount`: what a step asked for, made into mounts of the sandbox. Spec: dockerfile.md §9.2.
//!
//! Two times matter: what lasts for the step ([`Wanted::hold`]: locks of caches) and what is good for one run of it
//! ([`Wanted::attach`]: everything else, made again when a step is run again). What a path of an image means is
//! decided by layer indexes, never by the kernel.
//!
//! | file | what is mounted |
//! |---|---|
//! | `bind` | trees of other inputs, and throw-away changes to them |
//! | `caches` | directories that outlive the build |
//!
//! `travel` moves the content of cache mounts from one machine to another.

mod bind;
mod caches;
mod subtree;
mod travel;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use cache::layer::{LayerFile, TreePath};
use cache::mounts::{Identity, Scope};
use cache::tree::View;
use solver::op::{Exec, FileOwner, Mount};
use solver::{Events, Job, Snapshot, Subject};

use super::lowers::Lowers;
use super::{OpError, Worker};
use crate::sandbox::{Access, MountPoint, Ownership, Tree};
use crate::secrets::Secrets;
use crate::ssh::{AGENT_VARIABLE, Forwarding};

pub(super) use bind::Parts;
pub(crate) use caches::about;
pub(crate) use travel::pack_mount;

/// The mounts that a step asked for, with what they are of.
pub(super) struct Wanted {
    mounts: Vec<Mount>,
    inputs: BTreeMap<usize, Input>,
    secrets: Arc<Secrets>,
    /// Whose caches are meant.
    scope: Scope,
    /// What caches begin with that aren't here yet.
    seeds: BTreeMap<Identity, Arc<LayerFile>>,
    /// Caches that begin as a copy of something begin anew.
    fresh: bool,
}

/// An input that something is mounted of.
struct Input {
    snapshot: Snapshot,
    tree: View,
}

/// The step that mounts are for.
pub(super) struct Step<'a> {
    pub(super) lowers: &'a Lowers,
    /// The merged view of the container's root.
    pub(super) view: &'a View,
    pub(super) subject: &'a Subject,
    pub(super) events: &'a Events,
    /// Hangs up when the step is cancelled.
    pub(super) kill: BorrowedFd<'a>,
}

/// What is held for as long as the step takes.
pub(super) struct Holding {
    caches: caches::Held,
}

/// What is mounted for one run. The agents' connections end with it.
#[derive(Default)]
pub(super) struct Attached {
    pub(super) points: Vec<MountPoint>,
    /// Variables that the process gets besides its own.
    pub(super) env: Vec<(String, String)>,
    _agents: Vec<Forwarding>,
}

impl Wanted {
    /// Collects what the step's mounts are of; layers that aren't here are fetched.
    pub(super) async fn of(worker: &Worker, op: &Exec, job: &Job) -> Result<Self, OpError> {
        let mut inputs = BTreeMap::new();
        for mount in &op.mounts {
            let number = match mount {
                Mount::Bind { input, .. } => *input,
                Mount::Cache(cache) => match cache.from {
                    Some((input, _)) => input,
                    None => continue,
                },
                Mount::Tmpfs { .. } | Mount::Secret { .. } | Mount::Ssh { .. } => continue,
            };
            let snapshot = job
                .inputs
                .get(number)
                .expect("because lowering numbers inputs")
                .snapshot
                .clone();
            let tree = worker.view(&snapshot).await?;
            inputs.insert(number, Input { snapshot, tree });
        }
        Ok(Self {
            mounts: op.mounts.clone(),
            seeds: travel::seeds(worker, op).await,
            inputs,
            secrets: Arc::clone(&worker.secrets),
            scope: worker.cache_scope.clone(),
            fresh: job.vertex().label.ignore_cache,
        })
    }

    /// Returns the secrets of the build.
    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    fn input(&self, number: usize) -> &Input {
        self.inputs
            .get(&number)
            .expect("because `of` collected all inputs")
    }

    /// Checks that what is required is there, and takes the caches. Blocks while another step or process has one that
    /// isn't to be shared; says so in the step's output.
    pub(super) fn hold(&self, step: &Step<'_>) -> Result<Holding, OpError> {
        for mount in &self.mounts {
            match mount {
                Mount::Secret {
                    id, required: true, ..
                } if self.secrets.value(id).is_none() => {
                    return Err(OpError::MissingSecret { id: id.clone() });
                }
                Mount::Ssh {
                    id, required: true, ..
                } if self.secrets.agent(id).is_none() => {
                    return Err(OpError::MissingAgent { id: id.clone() });
                }
                _ => {}
            }
        }
        Ok(Holding {
            caches: caches::take(self, step)?,
        })
    }

    /// Makes the mounts for one run.
    pub(super) fn attach(&self, holding: &Holding, step: &Step<'_>) -> Result<Attached, OpError> {
        let mut attached = Attached::default();
        for mount in &self.mounts {
            self.attach_one(mount, holding, step, &mut attached)?;
        }
        Ok(attached)
    }

    fn attach_one(
        &self,
        mount: &Mount,
        holding: &Holding,
        step: &Step<'_>,
        attached: &mut Attached,
    ) -> Result<(), OpError> {
        let (target, tree) = match mount {
            Mount::Bind {
                target,
                input,
                source,
                readonly,
            } => {
                let tree = bind::tree(step.lowers, self.input(*input), source, access(*readonly))?;
                (target, tree)
            }
            Mount::Cache(cache) => {
                let identity = about(cache, &self.scope).identity();
                let tree = holding.caches.tree(&identity, access(cache.readonly))?;
                (&cache.target, tree)
            }
            Mount::Tmpfs {
                target,
                size_bytes,
                readonly,
            } => (target, Tree::tmpfs(*size_bytes, access(*readonly))?),
            Mount::Secret {
                id,
                target,
                env,
                owner,
                ..
            } => {
                let Some(secret) = self.secrets.value(id) else {
                    return Ok(());
                };
                if let Some(name) = env {
                    let value = String::from_utf8(secret.value().to_vec())
                        .ok()
                        .filter(|value| !value.contains('\0'));
                    let value = value.ok_or_else(|| OpError::SecretNotText { id: id.clone() })?;
                    attached.env.push((name.clone(), value));
                }
                let Some(target) = target else { return Ok(()) };
                (target, Tree::secret(secret.value(), ownership(owner))?)
            }
            Mount::Ssh {
                id, target, owner, ..
            } => {
                let Some(agent) = self.secrets.agent(id) else {
                    return Ok(());
                };
                let (tree, listener) = Tree::socket(ownership(owner))?;
                let forwarding = Forwarding::start(listener, agent);
                let forwarding = forwarding.map_err(|source| OpError::Scratch { source })?;
                attached._agents.push(forwarding);
                if !attached.env.iter().any(|(name, _)| name == AGENT_VARIABLE) {
                    attached.env.push((AGENT_VARIABLE.to_owned(), target.clone()));
                }
                (target, tree)
            }
        };
        attached.points.push(MountPoint {
            stub: stub(step.view, target),
            target: target.clone(),
            tree,
        });
        Ok(())
    }
}

/// Returns where the target is once the image's links are followed: a mountpoint that stands there beforehand needs no
/// change of the image's directories. Where links of other mounts lead, only the container knows.
fn stub(view: &View, target: &str) -> String {
    let resolved = view.resolve(&TreePath::clean(target.as_bytes()));
    let path = resolved.map(|resolved| String::from_utf8(resolved.path.as_bytes().to_vec()));
    match path {
        Ok(Ok(path)) => format!("/{path}"),
        _ => target.to_owned(),
    }
}

fn access(readonly: bool) -> Access {
    match readonly {
        true => Access::ReadOnly,
        false => Access::ReadWrite,
    }
}

fn ownership(owner: &FileOwner) -> Ownership {
    let FileOwner { mode, uid, gid } = *owner;
    Ownership { mode, uid, gid }
}
