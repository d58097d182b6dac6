//! Commits of git servers: a name becomes a commit id, a commit becomes a layer. Spec: dockerfile.md §10.8.
//!
//! git itself does the talking, as a child process with nothing of the user's but the agent: no configuration, no hooks, no
//! prompts, no file or helper protocols, and no secret on its command line. What a server names is checked before it is
//! used as an argument. Files come out of the checkout through `Root`, and what they become is decided here: 0644 or
//! 0755, owner 0:0.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cache::layer::{Body, LayerWriter, Meta, Timestamp, TreePath, Written, Xattrs};
use cache::layers::LayersError;
use cache::root::Root;
use cache::tree::{ContextTree, IgnoreList, Memo, NodeKind, Selection, View};
use cache::{DiffId, Store};
use frontend::{GitRequest, ResolvedGit, check_reference, without_credentials};
use solver::op::Git;

use crate::secrets::Secrets;
use crate::ssh::{AGENT_VARIABLE, Agent, Forwarding};

/// Runs git in place of the shell, with no input. Beside it somebody waits for the end of the shell's own input, and then
/// ends the whole process group: git starts programs that would wait for their server on and on, and a signal that asks
/// the kernel to end children with their parent (prctl(2), `PR_SET_PDEATHSIG`) doesn't reach those.
const WATCHED_GIT: &str =
    r#"exec 3<&0 </dev/null; { read -r _ <&3; kill -9 0; } >/dev/null 2>&1 & exec 3<&-; exec git "$@""#;
/// What a shell ends with when there is no such program.
const NOT_FOUND: i32 = 127;
/// More references than any server has.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Says why a commit could not be had. Addresses are without credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// git is not there.
    #[error("git sources need the program git, which is not in PATH")]
    Missing,
    /// git failed.
    #[error("git failed for {remote}: {words}")]
    Failed {
        /// The repository.
        remote: String,
        /// Its last words.
        words: String,
    },
    /// No such name.
    #[error("repository {remote} does not contain ref {reference}")]
    NoReference {
        /// The repository.
        remote: String,
        /// What was looked for.
        reference: String,
    },
    /// Another commit than was promised.
    #[error("expected checksum to match {expected}, got {found} from {remote}")]
    Checksum {
        /// The repository.
        remote: String,
        /// What was promised.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The directory isn't in the commit, or is none.
    #[error("{remote} has no directory {subdir} in commit {commit}")]
    NoSubdir {
        /// The repository.
        remote: String,
        /// Which directory.
        subdir: String,
        /// Where.
        commit: String,
    },
    /// What the server said makes no sense.
    #[error("{remote} answered with something odd: {what}")]
    Answer {
        /// The repository.
        remote: String,
        /// What.
        what: String,
    },
    /// Scratch space.
    #[error("cannot write scratch space: {0}")]
    Scratch(#[from] io::Error),
    /// The checkout.
    #[error(transparent)]
    Root(#[from] cache::root::Error),
    /// Its tree.
    #[error(transparent)]
    Tree(#[from] cache::tree::Error),
    /// The layer.
    #[error(transparent)]
    Layers(#[from] LayersError),
}

/// Finds out which commit a reference is. Blocks.
pub(crate) fn resolve(
    store: &Store,
    request: &GitRequest,
    secrets: &Secrets,
) -> Result<ResolvedGit, GitError> {
    let repository = Repository::new(store, &request.remote, secrets)?;
    let is_id =
        |text: &str| matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (commit, reference) = if is_id(&request.reference) {
        (request.reference.to_ascii_lowercase(), String::new())
    } else {
        repository.look_up(&request.reference)?
    };
    if let Some(expected) = request
        .checksum
        .as_ref()
        .filter(|expected| !commit.starts_with(*expected))
    {
        return Err(GitError::Checksum {
            remote: repository.shown.clone(),
            expected: expected.clone(),
            found: commit,
        });
    }
    let time = match request.wants_time {
        true => Some(repository.time(&commit, &reference)?),
        false => None,
    };
    Ok(ResolvedGit {
        commit,
        reference,
        time,
    })
}

/// Makes the layer of a commit. Blocks.
pub(crate) fn layer(store: &Store, git: &Git, secrets: &Secrets) -> Result<DiffId, GitError> {
    let repository = Repository::new(store, &git.remote, secrets)?;
    repository.fetch(&git.commit, &git.reference)?;
    repository.run(&["checkout", "-q", "--detach", &git.commit])?;
    if git.submodules {
        repository.run(&[
            "submodule",
            "--quiet",
            "update",
            "--init",
            "--recursive",
            "--depth=1",
        ])?;
    }
    let root = Root::open_host(&repository.dir)?;
    let memo = Arc::new(Memo::load(&root));
    let tree = ContextTree::scan(root, &IgnoreList::default(), &[Selection::everything()], memo)?;
    let view = View::of_directory(Arc::new(tree))?;
    let below = TreePath::clean(git.subdir.as_bytes());
    if !view.lookup(&below).is_some_and(|node| node.is_dir()) {
        return Err(GitError::NoSubdir {
            remote: repository.shown.clone(),
            subdir: git.subdir.clone(),
            commit: git.commit.clone(),
        });
    }
    let layer = store
        .layers()
        .write(store.incomplete(), |writer| write(writer, &view, &below, git))?;
    Ok(layer.diff_id())
}

/// Writes the files below a directory of the checkout, as a server of theirs would have them.
fn write(mut writer: LayerWriter, view: &View, below: &TreePath, git: &Git) -> Result<Written, GitError> {
    for (path, node) in view.walk(below) {
        let inside = path.below(below).expect("because the walk stays below it");
        if !git.keep_git_dir && inside.components().any(|name| name == b".git") {
            continue;
        }
        let mut reader;
        let (mode, body) = match node.kind {
            NodeKind::File { size_bytes } => {
                reader = view.read(&node)?;
                let body = Body::File {
                    size_bytes,
                    reader: &mut reader,
                    content: None,
                };
                (if node.meta.mode & 0o100 == 0 { 0o644 } else { 0o755 }, body)
            }
            NodeKind::Dir => (0o755, Body::Dir { opaque: false }),
            NodeKind::Symlink(target) => (0o777, Body::Symlink(target.to_vec())),
            // git checks nothing else out.
            NodeKind::CharDevice(..) | NodeKind::BlockDevice(..) | NodeKind::Fifo => continue,
        };
        let meta = Meta {
            mode,
            uid: 0,
            gid: 0,
            mtime: git
                .mtime
                .map_or(node.meta.mtime, |seconds| Timestamp { seconds, nanos: 0 }),
            xattrs: Xattrs::default(),
        };
        writer.add(inside, meta, body).map_err(LayersError::from)?;
    }
    Ok(writer.finish().map_err(LayersError::from)?)
}

/// An empty repository in scratch space, and the one that it is fetched from. Removed with this value.
struct Repository {
    dir: PathBuf,
    home: PathBuf,
    /// For git, without credentials: those go another way.
    remote: String,
    /// For people.
    shown: String,
    env: Vec<(String, String)>,
    /// Serves git as long as it works here.
    _agent: Option<Forwarding>,
}

impl Repository {
    fn new(store: &Store, remote: &str, secrets: &Secrets) -> Result<Self, GitError> {
        let make = || -> io::Result<PathBuf> {
            let path = store.incomplete().path()?;
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            Ok(path)
        };
        let shown = without_credentials(remote);
        let (dir, home) = (make()?, make()?);
        let mut env = credentials(remote, secrets);
        let mut forwarding = None;
        if let Some(agent) = secrets.agent("default") {
            let (socket, serving) = listen(agent, &home)?;
            env.push((AGENT_VARIABLE.to_owned(), socket.display().to_string()));
            forwarding = serving;
        }
        let repository = Self {
            dir,
            home,
            env,
            _agent: forwarding,
            // The user of ssh is no secret, and needed.
            remote: match remote.starts_with("http") {
                true => shown.clone(),
                false => remote.to_owned(),
            },
            shown,
        };
        repository.run(&["init", "-q"])?;
        // What relative addresses of submodules are relative to.
        repository.run(&["config", "remote.origin.url", &repository.remote])?;
        Ok(repository)
    }

    /// Returns the commit that a name stands for, and the name in full. Branches come before tags, as with git.
    fn look_up(&self, name: &str) -> Result<(String, String), GitError> {
        let name = if name.is_empty() { "HEAD" } else { name };
        let peeled = format!("refs/tags/{name}^{{}}");
        let whole = format!("{name}^{{}}");
        let answer = self.run(&["ls-remote", "--symref", "--", &self.remote, name, &peeled, &whole])?;
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        let of = |wanted: &str| {
            let mut lines = answer.lines().filter(|line| !line.starts_with("ref: "));
            let found = lines.find_map(|line| line.split_once('\t').filter(|(_, found)| *found == wanted));
            found.map(|(id, _)| id.to_owned())
        };
        let symbolic = answer.lines().find_map(|line| {
            let target = line.strip_prefix("ref: ")?.strip_suffix("\tHEAD")?;
            Some(target.trim().to_owned())
        });
        let candidates = match name {
            "HEAD" => vec!["HEAD".to_owned()],
            name if name.starts_with("refs/") => vec![format!("{name}^{{}}"), name.to_owned()],
            name => vec![
                format!("refs/heads/{name}"),
                format!("refs/tags/{name}^{{}}"),
                format!("refs/tags/{name}"),
                format!("refs/{name}"),
            ],
        };
        for candidate in candidates {
            let Some(commit) = of(&candidate) else { continue };
            if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(self.odd(&commit));
            }
            let mut reference = candidate.trim_end_matches("^{}").to_owned();
            if let ("HEAD", Some(target)) = (reference.as_str(), symbolic) {
                reference = target;
            }
            // It becomes an argument, and comes from elsewhere.
            check_reference(&reference).map_err(|_| self.odd(&reference))?;
            return Ok((commit.to_ascii_lowercase(), reference));
        }
        Err(GitError::NoReference {
            remote: self.shown.clone(),
            reference: name.to_owned(),
        })
    }

    /// Brings a commit here: alone where the server gives commits by their id, else through the reference that leads to it,
    /// and through all of its history if it has moved on.
    fn fetch(&self, commit: &str, reference: &str) -> Result<(), GitError> {
        let attempt = |what: &[&str]| {
            let mut args = vec!["fetch", "-q", "--no-tags", "--no-recurse-submodules"];
            args.extend(what);
            self.run(&args)
        };
        let is_here = || {
            self.run(&["cat-file", "-e", &format!("{commit}^{{commit}}")])
                .is_ok()
        };
        let first = attempt(&["--depth=1", "--", &self.remote, commit]);
        if first.is_ok() && is_here() {
            return Ok(());
        }
        let spec = if reference.is_empty() {
            "+refs/*:refs/remotes/origin/*"
        } else {
            reference
        };
        if !reference.is_empty() && attempt(&["--depth=1", "--", &self.remote, spec]).is_ok() && is_here() {
            return Ok(());
        }
        attempt(&["--", &self.remote, spec])?;
        match is_here() {
            true => Ok(()),
            // The first answer says why the short way failed.
            false => Err(first.err().unwrap_or_else(|| GitError::NoReference {
                remote: self.shown.clone(),
                reference: commit.to_owned(),
            })),
        }
    }

    /// Returns when a commit was made, in seconds since the epoch.
    fn time(&self, commit: &str, reference: &str) -> Result<i64, GitError> {
        self.fetch(commit, reference)?;
        let shown = self.run(&["show", "-s", "--format=%ct", commit])?;
        let text = String::from_utf8_lossy(&shown.stdout);
        text.trim().parse().map_err(|_| self.odd(text.trim()))
    }

    fn odd(&self, what: &str) -> GitError {
        GitError::Answer {
            remote: self.shown.clone(),
            what: what.chars().filter(|char| !char.is_control()).take(200).collect(),
        }
    }

    fn run(&self, args: &[&str]) -> Result<Output, GitError> {
        // However this process ends, the other end of the pipe is closed then, which is heard by who watches over git.
        let (watched, watching) = io::pipe()?;
        let output = self.command(args).stdin(watched).process_group(0).output()?;
        drop(watching);
        if output.status.code() == Some(NOT_FOUND) {
            return Err(GitError::Missing);
        }
        if output.status.success() && output.stdout.len() <= MAX_ANSWER_BYTES {
            return Ok(output);
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(3)).copied();
        let words = last.collect::<Vec<_>>().join("; ");
        Err(GitError::Failed {
            remote: self.shown.clone(),
            words: words
                .chars()
                .filter(|char| !char.is_control())
                .take(1000)
                .collect(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHED_GIT, "git"]);
        command.env_clear().current_dir(&self.dir);
        for name in [
            "PATH",
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            "NO_PROXY",
            "no_proxy",
        ] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", &self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", Path::new("/dev/null"))
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes")
            .envs(self.env.iter().cloned());
        for setting in [
            "core.hooksPath=/dev/null",
            "core.symlinks=true",
            "core.fsmonitor=false",
            "init.defaultBranch=main",
            "advice.detachedHead=false",
            "protocol.allow=never",
            "protocol.http.allow=always",
            "protocol.https.allow=always",
            "protocol.git.allow=always",
            "protocol.ssh.allow=always",
        ] {
            command.args(["-c", setting]);
        }
        command.args(args);
        command
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // What can't be removed goes with the rest of the scratch space.
        for dir in [&self.dir, &self.home] {
            let Ok(root) = Root::open_host(dir.parent().unwrap_or(Path::new("/"))) else {
                continue;
            };
            let name = TreePath::clean(dir.file_name().unwrap_or_default().as_encoded_bytes());
            let _ = root.remove_tree(&name);
        }
    }
}

/// Returns where the agent listens: where it always does, or, for keys of this process, in a directory that nobody else
/// can enter, for as long as they are served there.
fn listen(agent: &Agent, home: &Path) -> io::Result<(PathBuf, Option<Forwarding>)> {
    if let Agent::Socket(path) = agent {
        return Ok((path.clone(), None));
    }
    let socket = home.join("agent");
    let forwarding = Forwarding::start(UnixListener::bind(&socket)?, agent)?;
    Ok((socket, Some(forwarding)))
}

/// Returns what tells git who is asking: headers for the one server. In the environment, where no other user of the
/// machine can read it.
fn credentials(remote: &str, secrets: &Secrets) -> Vec<(String, String)> {
    let mut env = Vec::new();
    let Some((scheme, rest)) = remote
        .split_once("://")
        .filter(|(scheme, _)| scheme.starts_with("http"))
    else {
        return env;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let secret = |name: &str| {
        let value = secrets
            .value(&format!("{name}.{host}"))
            .or_else(|| secrets.value(name))?
            .value();
        Some(std::str::from_utf8(value).ok()?.trim().to_owned())
    };
    let basic = |pair: &str| format!("basic {}", STANDARD.encode(pair));
    let header = secret("GIT_AUTH_HEADER")
        .or_else(|| secret("GIT_AUTH_TOKEN").map(|token| basic(&format!("x-access-token:{token}"))))
        .or_else(|| (!user.is_empty()).then(|| basic(user)));
    if let Some(header) = header {
        for (name, value) in [
            ("GIT_CONFIG_COUNT", "1".to_owned()),
            ("GIT_CONFIG_KEY_0", format!("http.{scheme}://{host}/.extraHeader")),
            ("GIT_CONFIG_VALUE_0", format!("Authorization: {header}")),
        ] {
            env.push((name.to_owned(), value));
        }
    }
    env
}
