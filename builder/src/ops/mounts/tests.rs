//! Steps with mounts, built by hand: what they see, and what is left of it afterwards.

#![expect(clippy::disallowed_methods, reason = "directories that only these tests know")]

mod kept;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cache::Store;
use cache::layer::{Body, Meta};
use cache::root::Root;
use cache::tree::{ContextTree, IgnoreList, Memo, Selection};
use solver::op::{CacheMount, Network, Op, Security, Sharing, Source};
use solver::{Cancel, Event, Executor, Graph, Input as VertexInput, InputView, JobInput, Label, VertexId};

use super::*;
use crate::ops::Views;
use crate::secrets::{SecretOption, SecretSource};

/// The machine's stores and contexts of one test.
struct World {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    base: Snapshot,
    secrets: Arc<Secrets>,
    /// Runs steps as with `--no-cache`.
    no_cache: bool,
    /// Whose caches steps get.
    scope: Scope,
}

/// What a step came to.
struct Ran {
    /// What it wrote, or the error.
    said: String,
    /// The paths of its layer.
    changed: Vec<String>,
    layer: Option<Snapshot>,
}

const OWNER: FileOwner = FileOwner {
    mode: 0o755,
    uid: 0,
    gid: 0,
};

impl World {
    /// Returns `None`, visibly, where containers can't run.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            let thread = std::thread::current();
            eprintln!("SKIP {}: needs root", thread.name().unwrap_or("mounts"));
            return None;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let mut entries: Vec<(&str, Option<&[u8]>, &str)> =
            vec![("bin", None, ""), ("bin/busybox", Some(&busybox), "")];
        let names = ["bin/cat", "bin/ls", "bin/sh", "bin/stat", "bin/touch"];
        entries.extend(names.iter().map(|name| (*name, None, "busybox")));
        let base = layer(&store, &entries);
        Some(Self {
            base: Snapshot::Layers([base].into()),
            dir,
            store,
            secrets: Arc::default(),
            no_cache: false,
            scope: project("own"),
        })
    }

    /// Puts a layer on the base that holds directories (no content), files, and links (a target).
    fn tree(&self, entries: &[(&str, Option<&[u8]>, &str)]) -> Snapshot {
        Snapshot::Layers([layer(&self.store, entries)].into())
    }

    /// Makes a context with an ignore file.
    fn context(&self, files: &[(&str, &str)], ignored: &str) -> View {
        let path = self.dir.path().join("context");
        std::fs::create_dir_all(&path).unwrap();
        for (name, text) in files {
            let file = path.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let ignore = IgnoreList::new(ignored.lines()).unwrap();
        let memo = Arc::new(Memo::load(&Root::open_host(self.store.root()).unwrap()));
        let root = Root::open_host(&path).unwrap();
        let tree = ContextTree::scan(root, &ignore, &[Selection::everything()], memo).unwrap();
        View::of_directory(Arc::new(tree)).unwrap()
    }

    fn secret(&mut self, id: &str, value: &str) {
        let path = self.dir.path().join("secret");
        std::fs::write(&path, value).unwrap();
        let option = SecretOption {
            id: id.to_owned(),
            source: SecretSource::File(path),
        };
        self.secrets = Arc::new(Secrets::load(&[option], &[], &Default::default()).unwrap());
    }

    fn run(&self, script: &str, mounts: &[Mount], inputs: &[Snapshot]) -> Ran {
        self.start(script, mounts, inputs, None, &Cancel::new())
    }

    fn start(
        &self,
        script: &str,
        mounts: &[Mount],
        inputs: &[Snapshot],
        context: Option<View>,
        cancel: &Cancel,
    ) -> Ran {
        let (events, received) = Events::channel();
        // One stream, so that what comes first is told first.
        let script = format!("exec 2>&1; {script}");
        let result = self.execute(&exec(&script, mounts), inputs, context, cancel, events);
        let mut ran = Ran {
            said: said(received.try_iter()),
            changed: Vec::new(),
            layer: None,
        };
        match result {
            Ok(snapshot) => {
                let Snapshot::Layers(layers) = &snapshot else {
                    panic!("layers")
                };
                let made = self.store.layers().get(layers.last().unwrap()).unwrap();
                let entries = made.index().unwrap().iter();
                ran.changed = entries
                    .filter(|entry| !entry.path.is_root())
                    .map(|entry| entry.path.to_string())
                    .collect();
                ran.layer = Some(snapshot);
            }
            Err(error) => ran.said.push_str(&error.to_string()),
        }
        ran
    }

    fn execute(
        &self,
        op: &Exec,
        inputs: &[Snapshot],
        context: Option<View>,
        cancel: &Cancel,
        events: Events,
    ) -> Result<Snapshot, OpError> {
        let worker = self.worker(events.clone(), context);
        let mut graph = Graph::new();
        let scratch = graph.add(Op::Source(Source::Scratch), Vec::new(), Label::default());
        let vertices = vec![
            VertexInput {
                vertex: scratch,
                view: InputView::Whole,
            };
            inputs.len() + 1
        ];
        let label = Label {
            ignore_cache: self.no_cache,
            ..Label::default()
        };
        let id = graph.add(Op::Exec(op.clone()), vertices, label);
        let snapshots = [self.base.clone()].into_iter().chain(inputs.iter().cloned());
        let job = job(graph, id, snapshots, cancel, events);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(worker.execute(job))
    }

    /// Takes a cache as another process would.
    fn hold(&self, cache: &CacheMount, sharing: cache::mounts::Sharing) -> cache::mounts::Held {
        let fill = |root: &Root| {
            root.create_file(&TreePath::clean(b"of the holder"), 0o644)
                .map_err(cache::mounts::MountsError::from)?;
            Ok::<_, OpError>(())
        };
        let kind = (sharing, cache::mounts::Start::Kept);
        let mounts = self.store.mounts();
        let taken = mounts.take(
            &caches::about(cache, &self.scope),
            kind,
            "the test",
            self.store.incomplete(),
            &fill,
        );
        match taken.unwrap() {
            cache::mounts::Taken::Held(held) => held,
            cache::mounts::Taken::Busy(who) => panic!("{who} has it"),
        }
    }

    fn worker(&self, events: Events, context: Option<View>) -> Worker {
        Worker {
            store: Arc::clone(&self.store),
            contexts: context
                .map(|view| ("context".to_owned(), view))
                .into_iter()
                .collect(),
            images: Vec::new(),
            caches: Vec::new(),
            cache_scope: self.scope.clone(),
            seeds: BTreeMap::new(),
            lowers: Arc::new(Lowers::new(Arc::clone(&self.store))),
            networks: Arc::default(),
            expects: Default::default(),
            views: Views::default(),
            events,
            secrets: Arc::clone(&self.secrets),
            keeps_failed: false,
            step_timeout: None,
            devices: Arc::default(),
            bounds: Arc::default(),
            journal: None,
        }
    }
}

fn layer(store: &Store, entries: &[(&str, Option<&[u8]>, &str)]) -> cache::DiffId {
    let written = store.layers().write(store.incomplete(), |mut writer| {
        for (path, content, link) in entries {
            let meta = Meta {
                mode: 0o755,
                ..Meta::default()
            };
            let mut bytes = content.unwrap_or_default();
            let body = match content {
                Some(content) => Body::File {
                    size_bytes: content.len() as u64,
                    reader: &mut bytes,
                    content: None,
                },
                None if !link.is_empty() => Body::Symlink(link.as_bytes().to_vec()),
                None => Body::Dir { opaque: false },
            };
            writer.add(TreePath::clean(path.as_bytes()), meta, body)?;
        }
        Ok::<_, OpError>(writer.finish()?)
    });
    written.unwrap().diff_id()
}

fn exec(script: &str, mounts: &[Mount]) -> Exec {
    Exec {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        env_unkeyed: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        platform: String::new(),
        network: Network::None,
        hostname: "h".to_owned(),
        extra_hosts: Vec::new(),
        scripts: BTreeMap::new(),
        mounts: mounts.to_vec(),
        security: Security::Sandbox,
        devices: Vec::new(),
    }
}

fn job(
    graph: Graph,
    id: VertexId,
    snapshots: impl Iterator<Item = Snapshot>,
    cancel: &Cancel,
    events: Events,
) -> Job {
    let view = InputView::Whole;
    Job {
        graph: Arc::new(graph),
        id,
        key: blake3::hash(b"of no interest").into(),
        inputs: snapshots
            .map(|snapshot| JobInput {
                snapshot,
                view: view.clone(),
            })
            .collect(),
        cancel: cancel.clone(),
        events,
    }
}

fn said(events: impl Iterator<Item = Event>) -> String {
    let mut text = Vec::new();
    for event in events {
        if let Event::Log { chunk, .. } = event {
            text.extend_from_slice(chunk.bytes());
        }
    }
    String::from_utf8(text).unwrap()
}

fn bind(target: &str, input: usize, source: &str, readonly: bool) -> Mount {
    Mount::Bind {
        target: target.to_owned(),
        input,
        source: source.to_owned(),
        readonly,
    }
}

fn cache_mount(target: &str, id: &str) -> CacheMount {
    CacheMount {
        target: target.to_owned(),
        id: id.to_owned(),
        namespace: String::new(),
        sharing: Sharing::Shared,
        readonly: false,
        from: None,
        owner: OWNER,
    }
}

fn project(name: &str) -> Scope {
    Scope::Project(name.to_owned())
}

fn secret(id: &str, target: Option<&str>, env: Option<&str>, required: bool) -> Mount {
    Mount::Secret {
        id: id.to_owned(),
        target: target.map(str::to_owned),
        env: env.map(str::to_owned),
        required,
        owner: FileOwner { mode: 0o400, ..OWNER },
    }
}

#[test]
fn a_context_is_seen_without_what_it_ignores_and_is_never_changed() {
    let Some(world) = World::new() else { return };
    let files = [("src/a", "one"), ("src/secret", "hidden"), ("top", "two")];
    let local = [Snapshot::Local("context".to_owned())];
    let check = |mount: Mount, script: &str, expected: &str| {
        let context = world.context(&files, "src/secret");
        let ran = world.start(script, &[mount], &local, Some(context), &Cancel::new());
        assert_eq!(ran.said, expected, "{script}");
        assert_eq!(ran.changed, [""; 0]);
    };
    // case R15
    check(
        bind("/m", 1, "/", true),
        "ls /m /m/src; cat /m/src/a; touch /m/x || true",
        "/m:\nsrc\ntop\n\n/m/src:\na\nonetouch: /m/x: Read-only file system\n",
    );
    // case R16, hardening T29b
    check(
        bind("/m", 1, "/", false),
        "echo x > /m/new; rm /m/top; chmod 777 /m/src/a; echo y > /m/src/a; ls /m; cat /m/src/a",
        "new\nsrc\ny\n",
    );
    check(bind("/m", 1, "top", true), "cat /m", "two");
    check(bind("/m", 1, "src", true), "ls /m", "a\n");
    // case R45
    check(bind("/m", 1, "/none", true), "true", "`/none` not found");
    check(
        bind("/m", 1, "src/secret", true),
        "true",
        "`src/secret` not found",
    );
    let context = world.dir.path().join("context");
    for (name, text) in files {
        assert_eq!(std::fs::read_to_string(context.join(name)).unwrap(), text);
        let mode = std::fs::metadata(context.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
    }
    assert!(!context.join("new").exists());
}

/// hardening T22, T24: links of a source lead nowhere but into the source.
#[test]
fn other_results_are_seen_and_their_links_stay_inside() {
    let Some(world) = World::new() else { return };
    let stage = world.tree(&[
        ("dir", None, ""),
        ("dir/file", Some(b"of the stage"), ""),
        ("etc", None, ""),
        ("etc/passwd", Some(b"the image's own"), ""),
        ("root", None, "/"),
        ("sel", None, "/etc"),
        ("up", None, "../../../../etc"),
    ]);
    let check = |source: &str, readonly: bool, script: &str, expected: &str| {
        let ran = world.run(
            script,
            &[bind("/m", 1, source, readonly)],
            std::slice::from_ref(&stage),
        );
        assert_eq!(ran.said, expected, "{source}");
        assert_eq!(ran.changed, [""; 0], "{source}");
    };
    // case R17
    check("/dir/file", true, "cat /m", "of the stage");
    // case R18
    check("/", true, "ls /m", "dir\netc\nroot\nsel\nup\n");
    for source in ["sel", "up", "root/etc", "/root/root/sel", "../../etc"] {
        check(source, true, "cat /m/passwd", "the image's own");
    }
    check(
        "/",
        true,
        "cat /m/sel/passwd",
        "cat: can't open '/m/sel/passwd': No such file or directory\nprocess \"/bin/sh -c exec 2>&1; cat /m/sel/passwd\" did not complete successfully: exit code: 1",
    );
    check(
        "/dir",
        false,
        "echo x > /m/file; touch /m/y; ls /m; cat /m/file",
        "file\ny\nx\n",
    );
    check("/dir", true, "cat /m/file", "of the stage");
    check("/no/such", true, "true", "`/no/such` not found");
    check("/dir/file/x", true, "true", "/dir/file is not a directory");
}

/// hardening T81: a value is nowhere but in the container.
#[test]
fn secrets_are_seen_by_their_step_and_by_nobody_else() {
    const TOKEN: &str = "tok3n-of-this-test-only";
    let Some(mut world) = World::new() else { return };
    world.secret("k", TOKEN);
    let check = |mounts: &[Mount], script: &str, expected: &str| {
        let ran = world.run(script, mounts, &[]);
        assert_eq!(ran.said, expected, "{script}");
        assert_eq!(ran.changed, [""; 0], "{script}");
    };
    let file = || secret("k", Some("/run/secrets/k"), None, true);
    // case R34, U6: what is printed of it is masked.
    check(
        &[file()],
        "cat /run/secrets/k; echo; stat -c '%a %u %g %s' /run/secrets/k",
        &format!("****\n400 0 0 {}\n", TOKEN.len()),
    );
    // case R36, R37
    let missing = |required| secret("none", Some("/run/secrets/none"), Some("NONE"), required);
    check(
        &[missing(false)],
        "ls /run 2>&1; echo ${NONE-unset}",
        "ls: /run: No such file or directory\nunset\n",
    );
    check(&[missing(true)], "true", "secret none: not found");
    // case R38
    check(
        &[secret("k", None, Some("KEY"), true)],
        "echo ${#KEY}; ls /run || true",
        &format!("{}\nls: /run: No such file or directory\n", TOKEN.len()),
    );
    check(
        &[secret("k", Some("/k"), Some("KEY"), true)],
        "test \"$KEY\" = \"$(cat /k)\" && echo same",
        "same\n",
    );
    assert_eq!(grep(world.dir.path(), TOKEN.as_bytes()), ["secret"]);
}

/// Returns the files below `dir` that hold `text`.
fn grep(dir: &Path, text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                left.push(path);
            } else if path.is_file()
                && std::fs::read(&path)
                    .unwrap()
                    .windows(text.len())
                    .any(|window| window == text)
            {
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// Targets through links of the image are found there, and no directory of the image enters the layer.
#[test]
fn targets_below_links_of_the_image_leave_nothing_behind() {
    let Some(mut world) = World::new() else { return };
    let links = layer(
        &world.store,
        &[
            ("run", None, ""),
            ("run/kept", None, ""),
            ("var", None, ""),
            ("var/run", None, "/run"),
        ],
    );
    let Snapshot::Layers(below) = &world.base else {
        panic!("layers")
    };
    world.base = Snapshot::Layers(below.iter().copied().chain([links]).collect());
    let mount = Mount::Cache(cache_mount("/var/run/new/cache", "x"));
    let ran = world.run("touch /run/new/cache/x; ls /run", &[mount], &[]);
    assert_eq!(
        (ran.said.as_str(), ran.changed.len()),
        ("kept\nnew\n", 0),
        "{:?}",
        ran.changed
    );
}
