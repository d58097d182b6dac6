//! A real dockerd. One serves all that is asked here, in turn: starting one takes longer than the rest.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{context, foretold, load, same};
use crate::machine;
use crate::registry::{Options, Registry};
use crate::scene::Scene;
use crate::validate;

/// A running dockerd; ended with the test, and with it its mounts, which are in a namespace of their own.
struct Dockerd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Dockerd {
    /// Starts one. `None`, visibly, where the machine has none.
    fn start(test: &str) -> Option<Self> {
        if let Some(reason) = machine::missing(&["root", "exec:dockerd", "exec:docker", "exec:containerd"]) {
            machine::skip(test, &reason);
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("ashlar-dockerd-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let path = dir.path().display();
        std::fs::write(dir.path().join("none.json"), "{}").unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        // Without a bridge and rules of a firewall nothing of the machine changes; not every machine lets limits be raised.
        let script = format!(
            "ulimit -n 20000 2>/dev/null; PATH=$PATH:/usr/sbin:/sbin exec setpriv --pdeathsig TERM \
             unshare --mount --propagation private dockerd --data-root {path}/data --exec-root {path}/exec \
             -H unix://{path}/sock --pidfile {path}/pid --config-file {path}/none.json \
             --iptables=false --ip6tables=false --bridge=none"
        );
        let child = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut dockerd = Self { child, dir };
        dockerd.await_answer();
        Some(dockerd)
    }

    fn await_answer(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let answers = |host: &str| {
            let mut version = Command::new("docker");
            version
                .args(["-H", host, "version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            version.status().unwrap().success()
        };
        while !answers(&self.host()) {
            let has_ended = self.child.try_wait().unwrap().is_some();
            if has_ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("dockerd did not start:\n{log}");
            }
        }
    }

    fn host(&self) -> String {
        format!("unix://{}/sock", self.dir.path().display())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        // It ends its containerd too, unlike one that is killed.
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn docker_takes_what_we_have_and_we_what_it_has() {
    let name = "engines/docker";
    let Some(dockerd) = Dockerd::start(name) else {
        return;
    };
    let mut scene = Scene::new(name);
    scene.set("DOCKER_HOST", &dockerd.host());
    only_what_is_missing_is_sent(&scene);
    a_delta_archive_needs_its_older_image(&scene);
    what_docker_saves_is_loaded(&scene);
    contexts_are_followed(&mut scene, &dockerd.host());
    registries_carry_images_both_ways(&scene);
    drop(dockerd);
    an_engine_that_is_gone_is_told_before_the_build(&scene);
    validate::finish(scene);
}

fn runs(scene: &Scene, image: &str) -> String {
    scene
        .must("docker", &["run", "--rm", "--network=none", image])
        .stdout_text()
}

fn id(scene: &Scene, image: &str) -> String {
    let inspected = scene.must("docker", &["image", "inspect", "--format", "{{.Id}}", image]);
    inspected.stdout_text().trim().to_owned()
}

fn only_what_is_missing_is_sent(scene: &Scene) {
    let (first, bytes) = load(scene, "one", &["--load", "-t", "app:1", "-t", "team/app:first"]);
    assert_eq!(bytes, [foretold(scene, &["app:1", "team/app:first"])]);
    assert_eq!(
        (id(scene, "app:1"), id(scene, "team/app:first")),
        (first.clone(), first)
    );
    assert_eq!(runs(scene, "app:1"), "one");

    let (second, bytes) = load(scene, "two", &["--load=docker", "-t", "app:2"]);
    let expected = foretold(scene, &["--since", "app:1", "app:2"]);
    assert!(expected < 100_000, "{expected}");
    assert_eq!(bytes, [expected]);
    assert_eq!(id(scene, "app:2"), second);
    assert_eq!(runs(scene, "app:2"), "two");

    // All of it is there: only its description travels. The same by the output's name.
    let (again, bytes) = load(scene, "two", &["-o", "type=docker,name=named:2", "-t", "app:2"]);
    assert_eq!((again, id(scene, "named:2")), (second.clone(), second));
    assert!(bytes.len() == 1 && bytes[0] < expected + 1024, "{bytes:?}");
    // Our own store has it too.
    scene.ashlar_ok(&["inspect", "named:2"]);
}

fn a_delta_archive_needs_its_older_image(scene: &Scene) {
    context(scene, "three");
    let whole = scene.aside("whole.tar").display().to_string();
    let output = format!("type=docker,dest={whole}");
    scene.ashlar_ok(&["build", "-t", "app:3", "-o", &output, "."]);
    scene.ashlar_ok(&["build", "-t", "app:3", "."]);
    let delta = scene.aside("delta.tar").display().to_string();
    scene.ashlar_ok(&["save", "--since", "app:2", "-o", &delta, "app:3"]);
    scene.must(
        "docker",
        &["rmi", "-f", "app:1", "team/app:first", "app:2", "named:2"],
    );
    let refused = scene.run("docker", &["load", "-i", &delta]);
    assert_ne!(refused.code, Some(0), "{}", refused.stdout_text());

    let (_, bytes) = load(scene, "two", &["--load", "-t", "app:2"]);
    let is_whole = bytes.len() == 1 && bytes[0] > 1_000_000;
    assert!(is_whole, "what was removed is sent again: {bytes:?}");
    scene.must("docker", &["load", "-i", &delta]);
    assert_eq!(runs(scene, "app:3"), "three");
    scene.must("docker", &["rmi", "-f", "app:2", "app:3"]);
    scene.must("docker", &["load", "-i", &whole]);
    assert_eq!(runs(scene, "app:3"), "three");
}

fn what_docker_saves_is_loaded(scene: &Scene) {
    let saved = scene.aside("dockers.tar");
    let path = saved.display().to_string();
    scene.must("docker", &["save", "-o", &path, "app:3"]);
    same(scene, "docker save", &saved, "app:3");
    let elsewhere = scene.aside("elsewhere").display().to_string();
    let loaded = scene.ashlar_ok(&["--root", &elsewhere, "load", "-i", &path]);
    assert_eq!(loaded.stdout_text(), "Loaded image: app:3\n");
    let ours = scene.ashlar_ok(&["--root", &elsewhere, "inspect", "-f", "{{.Id}}", "app:3"]);
    assert_eq!(ours.stdout_text().trim(), id(scene, "app:3"));
}

/// What Docker's own client would speak to is spoken to, without a variable.
fn contexts_are_followed(scene: &mut Scene, host: &str) {
    let docker = format!("host={host}");
    scene.must("docker", &["context", "create", "quarry", "--docker", &docker]);
    scene.set("DOCKER_HOST", "");
    let (_, bytes) = load(
        scene,
        "four",
        &["-o", "type=docker,context=quarry", "-t", "app:4"],
    );
    assert_eq!(bytes.len(), 1);
    scene.set("DOCKER_CONTEXT", "quarry");
    let (five, _) = load(scene, "five", &["--load", "-t", "app:5"]);
    scene.set("DOCKER_CONTEXT", "");
    scene.set("DOCKER_HOST", host);
    assert_eq!(
        (runs(scene, "app:4"), id(scene, "app:5")),
        ("four".to_owned(), five)
    );
    let refused = scene.run("ashlar", &["build", "-o", "type=docker,context=pit", "."]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused
            .stderr_text()
            .contains("cannot use Docker's context `pit`")
    );
}

/// Pushed by us and pulled by Docker, pushed by Docker and pulled by us: the same image.
fn registries_carry_images_both_ways(scene: &Scene) {
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), Options::default()) else {
        return;
    };
    let (ours, theirs) = (
        format!("{}/ours:1", registry.host),
        format!("{}/theirs:1", registry.host),
    );
    context(scene, "six");
    let built = scene
        .ashlar_ok(&["build", "-q", "--push", "-t", &ours, "."])
        .stdout_text();
    scene.must("docker", &["pull", "-q", &ours]);
    assert_eq!(id(scene, &ours), built.trim());
    assert_eq!(runs(scene, &ours), "six");

    scene.must("docker", &["tag", "app:5", &theirs]);
    scene.must("docker", &["push", "-q", &theirs]);
    let format = [
        "image",
        "inspect",
        "--format",
        "{{index .RepoDigests 0}}",
        &theirs,
    ];
    let digest = scene.must("docker", &format).stdout_text();
    let elsewhere = scene.aside("puller").display().to_string();
    scene.ashlar_ok(&["--root", &elsewhere, "pull", &theirs]);
    let ask = |format: &str| {
        let words = ["--root", &elsewhere, "inspect", "-f", format, &theirs];
        scene.ashlar_ok(&words).stdout_text()
    };
    assert_eq!(ask("{{index .RepoDigests 0}}"), digest);
    assert_eq!(ask("{{.Id}}").trim(), id(scene, "app:5"));
}

fn an_engine_that_is_gone_is_told_before_the_build(scene: &Scene) {
    context(scene, "never");
    let output = scene.run("ashlar", &["build", "--load", "--progress", "plain", "."]);
    assert_ne!(output.code, Some(0));
    let said = output.stderr_text();
    assert!(
        said.contains("cannot reach Docker at ") && !said.contains("COPY"),
        "{said}"
    );
}
