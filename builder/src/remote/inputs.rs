//! What the command line names by address: the context, named contexts, the Dockerfile. Fetched before, or when the graph
//! turns out to use them.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use cache::Store;
use cache::tree::{Selection, View};
use frontend::{GitRequest, GitSource, HttpRequest, ResolvedGit, ResolvedHttp};

use super::git::GitError;
use super::{git, http};
use crate::attest::Origin;
use crate::context::{self, Fetched, NamedTree};
use crate::failure;
use crate::options::{BuildOptions, ContextSource, DockerfileSource, NamedSource};
use crate::report::{Failure, Kind};
use crate::runtime::blocking;
use crate::secrets::Secrets;

/// Fetches what the command line names by address: the context, the Dockerfile.
pub(crate) async fn fetch(
    options: &BuildOptions,
    store: &Arc<Store>,
    secrets: &Arc<Secrets>,
) -> Result<Fetched, Failure> {
    let mut fetched = Fetched::default();
    if let ContextSource::Http(url) = &options.context {
        let (file, found) = file(url, store, secrets).await?;
        fetched.main = Some(file);
        fetched.time = found.last_modified;
        fetched.origin = Some(Origin::Http {
            url: url.clone(),
            digest: found.digest,
        });
    }
    if let ContextSource::Git(source) = &options.context {
        let mut source = source.clone();
        if source.keep_git_dir.is_none() {
            source.keep_git_dir = Some(options.flag_arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR"));
        }
        // It takes another fetch.
        let mut args = options.build_args.iter();
        let wants_time = args.any(|(name, value)| name == "SOURCE_DATE_EPOCH" && value == "context");
        let (tree, found) = checkout(&source, wants_time, store, secrets).await?;
        fetched.tree = Some(tree);
        fetched.time = found.time;
        fetched.origin = Some(Origin::Git {
            url: source.to_string(),
            commit: found.commit,
        });
    }
    if let DockerfileSource::Http(url) = &options.dockerfile {
        let (file, _) = file(url, store, secrets).await?;
        fetched.dockerfile = Some((frontend::without_credentials(url), file));
    }
    Ok(fetched)
}

/// Fetches a file into the store and opens it.
async fn file(url: &str, store: &Store, secrets: &Secrets) -> Result<(File, ResolvedHttp), Failure> {
    let request = HttpRequest {
        url: url.to_owned(),
        checksum: None,
    };
    let found = http::resolve(store, &request, secrets).await;
    let found = found.map_err(|error| failure::of_http(&error))?;
    let file = store.blobs().open(&found.digest);
    let file = file.map_err(|error| Failure::of(Kind::Machine, &error))?;
    Ok((file, found))
}

/// Fetches the files of a commit.
async fn checkout(
    source: &GitSource,
    wants_time: bool,
    store: &Arc<Store>,
    secrets: &Arc<Secrets>,
) -> Result<(View, ResolvedGit), Failure> {
    let request = GitRequest {
        remote: source.remote.clone(),
        reference: source.reference.clone(),
        checksum: source.checksum.clone(),
        wants_time: wants_time || source.commit_time,
    };
    let found = resolve_git(&request, store, secrets).await;
    let found = found.map_err(|error| failure::of_git(&error))?;
    let git = frontend::git_commit(source, &found, None);
    let (work_store, work_secrets) = (Arc::clone(store), Arc::clone(secrets));
    let layer = blocking(move || git::layer(&work_store, &git, &work_secrets)).await;
    let layer = layer.map_err(|error| failure::of_git(&error))?;
    let layer = store
        .layers()
        .get(&layer)
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    let tree = View::of_layers([layer]).map_err(|error| Failure::of(Kind::Machine, &error))?;
    Ok((tree, found))
}

/// Finds out which commit a reference is.
pub(crate) async fn resolve_git(
    request: &GitRequest,
    store: &Arc<Store>,
    secrets: &Arc<Secrets>,
) -> Result<ResolvedGit, GitError> {
    let (request, store, secrets) = (request.clone(), Arc::clone(store), Arc::clone(secrets));
    blocking(move || git::resolve(&store, &request, &secrets)).await
}

/// Returns the named contexts that are used and are no images, fetching those that are elsewhere.
pub(crate) async fn named_trees(
    named: &[(String, NamedSource)],
    wanted: &BTreeMap<String, Vec<Selection>>,
    store: &Arc<Store>,
    secrets: &Arc<Secrets>,
) -> Result<BTreeMap<String, NamedTree>, Failure> {
    let mut trees = BTreeMap::new();
    let used = named.iter().filter(|(name, _)| wanted.contains_key(name));
    for (name, source) in used {
        let tree = match source {
            NamedSource::Directory(path) => NamedTree::Directory(path.clone()),
            NamedSource::Http(url) => NamedTree::Fetched(fetched_tree(url, store, secrets).await?),
            NamedSource::Git(source) => NamedTree::Fetched(checkout(source, false, store, secrets).await?.0),
            NamedSource::Image(_) | NamedSource::OciLayout { .. } => continue,
        };
        trees.insert(name.clone(), tree);
    }
    Ok(trees)
}

/// Returns the files of an archive, or a tree with the one file that it is.
async fn fetched_tree(url: &str, store: &Store, secrets: &Secrets) -> Result<View, Failure> {
    let (file, found) = file(url, store, secrets).await?;
    let tree = context::tree_of_archive(file, store).map_err(|error| failure::of_context(&error))?;
    if let Some(tree) = tree {
        return Ok(tree);
    }
    let file = frontend::http_file(url, &found);
    let layer = http::layer(store, &file).map_err(|error| failure::of_http(&error))?;
    let layer = store
        .layers()
        .get(&layer)
        .map_err(|error| Failure::of(Kind::Machine, &error))?;
    View::of_layers([layer]).map_err(|error| Failure::of(Kind::Machine, &error))
}
