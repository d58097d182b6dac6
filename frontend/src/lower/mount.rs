//! `RUN --mount` to the mounts of an exec op and the inputs that they read. Spec: dockerfile.md §9.2.

use cache::tree::Selection;
use solver::graph::{Input, InputView};
use solver::op::{self, CacheMount};

use super::copy::{absolute, clean};
use super::plan::Origin;
use super::reference::Reference;
use super::stage::Current;
use crate::ast::{Mount, MountKey};
use crate::diagnostic::Diagnostic;
use crate::parse::mount::{Cache, Settled, settle};

/// Lowers the mounts of one RUN, in order; what they read is added to `inputs`, which lacks the stage itself yet.
/// Mistakes are reported here, all of them.
pub(super) fn lower(
    current: &mut Current<'_, '_>,
    mounts: &[Mount],
    inputs: &mut Vec<Input>,
) -> Vec<op::Mount> {
    let mut out = Vec::with_capacity(mounts.len());
    let mut n_sockets = 0;
    for mount in mounts {
        match one(current, mount, &mut n_sockets, inputs) {
            Ok(lowered) => out.push(lowered),
            Err(error) => {
                let span = error.span.or(Some(mount.span));
                current.report(Diagnostic { span, ..error });
            }
        }
    }
    out
}

fn one(
    current: &mut Current<'_, '_>,
    mount: &Mount,
    n_sockets: &mut usize,
    inputs: &mut Vec<Input>,
) -> Result<op::Mount, Diagnostic> {
    let settled = settle(mount, |text| current.expand(text))?;
    note(current, mount, &settled);
    Ok(match settled {
        Settled::Bind {
            target,
            source,
            readonly,
        } => op::Mount::Bind {
            target: place(current, mount, &target)?,
            input: input(current, mount, &source, inputs)?,
            source: clean(&source),
            readonly,
        },
        Settled::Cache(settled) => op::Mount::Cache(cache(current, mount, settled, inputs)?),
        Settled::Tmpfs {
            target,
            size_bytes,
            readonly,
        } => op::Mount::Tmpfs {
            target: place(current, mount, &target)?,
            size_bytes,
            readonly,
        },
        Settled::Secret {
            id,
            target,
            env,
            required,
            owner,
        } => op::Mount::Secret {
            id,
            target: target.map(|target| rooted(mount, &target)).transpose()?,
            env,
            required,
            owner,
        },
        Settled::Ssh {
            id,
            target,
            required,
            owner,
        } => {
            let number = *n_sockets;
            *n_sockets += 1;
            op::Mount::Ssh {
                id,
                target: if target.is_empty() {
                    format!("/run/buildkit/ssh_agent.{number}")
                } else {
                    rooted(mount, &target)?
                },
                required,
                owner,
            }
        }
    })
}

/// Notes what a caller has to give, or can keep.
fn note(current: &mut Current<'_, '_>, mount: &Mount, settled: &Settled) {
    if current.is_trigger {
        return;
    }
    let parameters = &mut current.lowering.parameters;
    match settled {
        Settled::Secret { id, required, .. } => parameters.secrets.add(id, *required, mount.span),
        Settled::Ssh { id, required, .. } => parameters.agents.add(id, *required, mount.span),
        Settled::Cache(cache) if cache.id.is_empty() => {
            parameters
                .caches
                .add(&default_id(&cache.target), false, mount.span);
        }
        Settled::Cache(cache) => parameters.caches.add(&cache.id, false, mount.span),
        Settled::Bind { .. } | Settled::Tmpfs { .. } => {}
    }
}

fn cache(
    current: &mut Current<'_, '_>,
    mount: &Mount,
    settled: Cache,
    inputs: &mut Vec<Input>,
) -> Result<CacheMount, Diagnostic> {
    let Cache {
        target,
        source,
        id,
        sharing,
        readonly,
        owner,
    } = settled;
    let from = match mount.from() {
        Some(_) => Some((input(current, mount, &source, inputs)?, clean(&source))),
        None => None,
    };
    let namespace = current.lowering.options.build_arg("BUILDKIT_CACHE_MOUNT_NS");
    Ok(CacheMount {
        namespace: namespace.unwrap_or_default().to_owned(),
        id: if id.is_empty() { default_id(&target) } else { id },
        target: place(current, mount, &target)?,
        sharing,
        readonly,
        from,
        owner,
    })
}

/// Returns the absolute target of a directory: relative ones, and none at all, are meant from WORKDIR.
fn place(current: &Current<'_, '_>, mount: &Mount, target: &str) -> Result<String, Diagnostic> {
    let path = absolute(&current.state.config.config.working_dir, target);
    not_root(mount, path)
}

/// Returns the absolute target of a file; WORKDIR means nothing to those.
fn rooted(mount: &Mount, target: &str) -> Result<String, Diagnostic> {
    not_root(mount, clean(target))
}

fn not_root(mount: &Mount, path: String) -> Result<String, Diagnostic> {
    if path != "/" {
        return Ok(path);
    }
    let field = mount.field(MountKey::Target);
    let error = Diagnostic::error("invalid mount target \"/\"");
    Err(match field.and_then(|field| field.value.as_ref()) {
        Some(target) => error.at(target.span),
        None => error
            .at(mount.span)
            .help("without a target it is WORKDIR, which is the root here; give one with target="),
    })
}

/// Returns the id of a cache that has none: its target as written, cleaned.
fn default_id(target: &str) -> String {
    let cleaned = clean(target);
    if target.starts_with('/') {
        return cleaned;
    }
    match cleaned.trim_start_matches('/') {
        "" => ".".to_owned(),
        relative => relative.to_owned(),
    }
}

/// Adds the tree that a mount takes files from; returns its number among the inputs of the vertex.
fn input(
    current: &mut Current<'_, '_>,
    mount: &Mount,
    source: &str,
    inputs: &mut Vec<Input>,
) -> Result<usize, Diagnostic> {
    let vertex = match mount.from() {
        Some(from) => current.origin(&Reference::Mount(from, mount))?,
        None => current.source(&Origin::Directory("context".to_owned())),
    };
    inputs.push(Input {
        vertex,
        view: InputView::Paths(Selection::of(vec![literal(&clean(source))])),
    });
    // Input 0 will be the stage.
    Ok(inputs.len())
}

/// Returns a pattern that matches exactly this path.
pub(super) fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for char in path.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}
