//! A real dockerd. One serves all that is asked here, in turn: starting one takes longer than the rest.

use super::dockerd::Dockerd;
use super::{context, foretold, load, same, tls};
use crate::registry::{Options, Registry};
use crate::scene::Scene;
use crate::validate;

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
    the_machines_own_of_several_platforms_is_taken(&scene);
    tls::engines_at_addresses_are_trusted_as_docker_does(&mut scene, &dockerd);
    drop(dockerd);
    an_engine_that_is_gone_is_told_before_the_build(&scene);
    validate::finish(scene);
}

fn runs(scene: &Scene, image: &str) -> String {
    scene
        .must("docker", &["run", "--rm", "--network=none", image])
        .stdout_text()
}

pub(super) fn id(scene: &Scene, image: &str) -> String {
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

/// Its classic store holds one; the archive, which has all, goes through it as well.
fn the_machines_own_of_several_platforms_is_taken(scene: &Scene) {
    context(scene, "several");
    let flags = [
        "build",
        "--platform",
        "linux/386,linux/amd64,linux/arm64",
        "-t",
        "several:1",
    ];
    let output = scene.ashlar_ok(&[&flags[..], &["--load", "."]].concat());
    let said = output.stderr_text();
    assert!(
        said.contains("holds an image for one platform only: of the 3 it gets linux/amd64;"),
        "{said}"
    );
    assert_eq!(id(scene, "several:1"), output.stdout_text().trim());
    assert_eq!(runs(scene, "several:1"), "several");
    scene.must("docker", &["rmi", "-f", "several:1"]);
    let archive = scene.aside("several.tar").display().to_string();
    scene.ashlar_ok(&["save", "-o", &archive, "several:1"]);
    scene.must("docker", &["load", "-i", &archive]);
    assert_eq!(id(scene, "several:1"), output.stdout_text().trim());
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
