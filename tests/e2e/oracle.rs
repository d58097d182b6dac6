//! The same Dockerfiles through buildah and through Ashlar: equal file trees, equal configs.
//!
//! `ALLOWED` is the complete list of what may differ, each with the rule that explains it; an entry that
//! no longer explains anything fails the test. Modification times and history are not compared: the
//! builders run at different times, and buildah writes its own words into history.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::archive::{self, Image};
use crate::scene::Scene;
use crate::tree::Times;
use crate::{machine, rootfs, validate};

/// What may differ: the case (`*` for all), how the line of the difference begins, and the rule of the
/// Dockerfile specification that explains it (§) together with what buildah does.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "*",
        "/proc: only in buildah",
        "§9.1: mount points that were not there before are removed again",
    ),
    ("*", "/sys: only in buildah", "§9.1, as /proc"),
    ("*", "/dev: only in buildah", "§9.1, as /proc"),
    ("*", "/run: only in buildah", "§9.1, as /proc"),
    (
        "*",
        "/etc/hosts: only in buildah",
        "§9.1: mounted for a RUN, not part of its layer",
    ),
    ("*", "/etc/resolv.conf: only in buildah", "§9.1, as /etc/hosts"),
    ("*", "/etc/hostname: only in buildah", "§9.1, as /etc/hosts"),
    (
        "add_archives",
        "/owned/",
        "§10.6: --chown is for all that an archive holds; buildah keeps its owners",
    ),
    (
        "config",
        "config ExposedPorts: ",
        "§11 EXPOSE: a range becomes ports; buildah keeps 8000-8002 as it is",
    ),
    (
        "config",
        "config Entrypoint: ",
        "§11 SHELL: it is for ENTRYPOINT too; buildah writes /bin/sh -c",
    ),
    (
        "copy_rules",
        "/mode: dir ",
        "§10.3: --chmod is for created parents too; buildah's are 0755",
    ),
    ("copy_rules", "/mode/2: dir ", "§10.3, as /mode"),
    ("everything", "/etc/app: dir ", "§10.3, as /mode"),
];

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        const LISTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                compare(stringify!($name));
            }
        )*
    };
}

cases! {
    add_archives,
    config,
    copy_rules,
    everything,
    multi_stage,
    run_layers,
    users,
    variables,
}

fn compare(case: &str) {
    let name = format!("oracle/{case}");
    if let Some(reason) = machine::missing(&["root", "exec:buildah"]) {
        return machine::skip(&name, &reason);
    }
    let scene = Scene::new(&name);
    context(case, &scene.work());
    let theirs = by_buildah(&scene);
    let ours = by_ashlar(&scene);
    let mut lines = ours
        .tree
        .differences(&theirs.tree, ("ashlar", "buildah"), Times::Ignore);
    lines.extend(config_differences(&ours.config, &theirs.config));
    let explained: Vec<_> = ALLOWED
        .iter()
        .filter(|(of, ..)| *of == "*" || *of == case)
        .collect();
    for (of, start, why) in &explained {
        let used = lines.iter().any(|line| line.starts_with(start));
        assert!(
            used || *of == "*",
            "{name}: nothing begins with `{start}` any more ({why})"
        );
    }
    lines.retain(|line| !explained.iter().any(|(_, start, _)| line.starts_with(start)));
    assert!(
        lines.is_empty(),
        "{name}: not as buildah builds it:\n  {}",
        lines.join("\n  ")
    );
    validate::finish(scene);
}

/// Returns the directory of the Dockerfiles that several tests build.
pub(crate) fn dockerfiles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/dockerfiles")
}

/// Lays the context of `case` into `work`, and runs its `prepare` (what git can't hold is made there).
pub(crate) fn context(case: &str, work: &Path) {
    let source = dockerfiles().join(case).join(".");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(source)
        .arg(work)
        .status()
        .unwrap();
    assert!(copied.success(), "cannot copy the context of {case}");
    // What the checkout's umask made of the modes must not matter.
    let settled = Command::new("chmod")
        .args(["-R", "u=rwX,go=rX"])
        .arg(work)
        .status()
        .unwrap();
    assert!(settled.success(), "cannot set the modes of {case}");
    let prepare = work.join("prepare");
    if prepare.exists() {
        let output = Command::new("sh")
            .arg("-e")
            .arg(&prepare)
            .current_dir(work)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{case}/prepare: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::remove_file(prepare).unwrap();
    }
}

/// Returns an OCI layout with the busybox root as `base`, so that both builders start from the same bytes.
pub(crate) fn base_layout() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| rootfs::once("busybox-oci", make_base_layout))
}

fn make_base_layout(layout: &Path) {
    let scene = Scene::new("oracle/base");
    let container = buildah(&scene, &["from", "scratch"]);
    buildah(
        &scene,
        &[
            "add",
            "-q",
            &container,
            &rootfs::busybox().display().to_string(),
            "/",
        ],
    );
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    buildah(
        &scene,
        &[
            "config",
            "--env",
            path,
            "--cmd",
            "sh",
            "--label",
            "base=busybox",
            &container,
        ],
    );
    buildah(
        &scene,
        &["commit", "-q", "--format", "docker", &container, "base"],
    );
    buildah(
        &scene,
        &["push", "-q", "base", &format!("oci:{}:base", layout.display())],
    );
}

fn by_buildah(scene: &Scene) -> Image {
    let id = buildah(
        scene,
        &["pull", "-q", &format!("oci:{}:base", base_layout().display())],
    );
    buildah(scene, &["tag", &id, "localhost/busybox"]);
    let build = [
        "bud",
        "--isolation",
        "chroot",
        "--format",
        "docker",
        "--identity-label=false",
        "--network=host",
    ];
    buildah(
        scene,
        &[
            &build[..],
            &[
                "--build-context",
                "busybox=docker-image://localhost/busybox",
                "-t",
                "case",
                ".",
            ],
        ]
        .concat(),
    );
    let target = scene.aside("buildah.tar");
    buildah(
        scene,
        &[
            "push",
            "-q",
            "case",
            &format!("docker-archive:{}", target.display()),
        ],
    );
    archive::read(&target).unwrap()
}

fn by_ashlar(scene: &Scene) -> Image {
    let base = format!("busybox=oci-layout://{}:base", base_layout().display());
    let target = scene.aside("ashlar.tar").display().to_string();
    scene.ashlar_ok(&["build", "-t", "case", "--build-context", &base, "."]);
    scene.ashlar_ok(&["save", "-o", &target, "case"]);
    archive::read(Path::new(&target)).unwrap()
}

/// Runs buildah with a storage of the scene's own, and returns what it prints.
fn buildah(scene: &Scene, args: &[&str]) -> String {
    let (root, runroot) = (
        scene.aside("buildah").display().to_string(),
        scene.aside("buildah-run").display().to_string(),
    );
    let global = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let output = scene.must("buildah", &[&global[..], args].concat());
    output.stdout_text().trim().to_owned()
}

fn config_differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let (ours, theirs) = (normalised(ours), normalised(theirs));
    let keys = ours
        .keys()
        .chain(theirs.keys().filter(|key| !ours.contains_key(*key)));
    let differing = keys.filter(|key| ours.get(*key) != theirs.get(*key));
    let show = |side: &Map<String, Value>, key: &String| {
        side.get(key).map_or("nothing".to_owned(), Value::to_string)
    };
    differing
        .map(|key| format!("config {key}: {} ≠ {}", show(&ours, key), show(&theirs, key)))
        .collect()
}

/// Returns what a container runtime sees of a config, without the words for "nothing".
fn normalised(config: &Value) -> Map<String, Value> {
    let mut seen = Map::new();
    for key in ["architecture", "os", "author"] {
        seen.insert(key.to_owned(), config[key].clone());
    }
    let runtime = config["config"].as_object().cloned().unwrap_or_default();
    for (key, value) in runtime {
        let written_by_docker_only = [
            // §11: matters on Windows only; buildah never writes it.
            "ArgsEscaped",
            // What `docker commit` copies from a container; no Dockerfile sets it.
            "Hostname",
            "Domainname",
            "AttachStdin",
            "AttachStdout",
            "AttachStderr",
            "Tty",
            "OpenStdin",
            "StdinOnce",
            "Image",
        ];
        if !written_by_docker_only.contains(&key.as_str()) {
            seen.insert(key, value);
        }
    }
    if let Some(env) = seen.get_mut("Env").and_then(Value::as_array_mut) {
        // The order of Env means nothing to a container.
        env.sort_by_key(ToString::to_string);
    }
    // §13: a config without WorkingDir starts in `/`.
    if seen.get("WorkingDir").is_none_or(|dir| dir == "") {
        seen.insert("WorkingDir".to_owned(), Value::from("/"));
    }
    seen.retain(|_, value| !is_nothing(value));
    seen
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[test]
fn every_case_is_listed() {
    let entries = std::fs::read_dir(dockerfiles()).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|name| !name.starts_with("tutorial_")).collect();
    found.sort();
    assert_eq!(
        found, LISTED,
        "tests/e2e/oracle.rs lists the directories of testdata/dockerfiles"
    );
}

#[test]
fn configs_are_compared_without_the_words_for_nothing() {
    let check = |ours: Value, theirs: Value, expected: &[&str]| {
        assert_eq!(config_differences(&ours, &theirs), expected);
    };
    let of = |runtime: Value| serde_json::json!({ "os": "linux", "config": runtime });
    let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    check(
        of(json(r#"{"Env":["A=1","B=2"],"Cmd":null}"#)),
        of(json(r#"{"Env":["B=2","A=1"],"WorkingDir":""}"#)),
        &[],
    );
    check(
        of(json(r#"{"ArgsEscaped":true,"User":""}"#)),
        of(json(r#"{"Hostname":"h","WorkingDir":"/"}"#)),
        &[],
    );
    check(
        of(json(r#"{"Cmd":["a"]}"#)),
        of(json(r#"{"Cmd":["b"]}"#)),
        &[r#"config Cmd: ["a"] ≠ ["b"]"#],
    );
    check(
        of(json(r#"{"User":"u"}"#)),
        of(json("{}")),
        &[r#"config User: "u" ≠ nothing"#],
    );
}
