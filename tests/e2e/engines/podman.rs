//! A real podman with a place of its own: by its program, which needs no service, and by the service's socket.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{context, foretold, load, same};
use crate::machine;
use crate::scene::Scene;
use crate::validate;

/// Makes a scene in which `podman` is one that has its images there; `None`, visibly, where there is no podman.
pub(crate) fn scene(name: &str) -> Option<Scene> {
    if let Some(reason) = machine::missing(&["root", "exec:podman"]) {
        machine::skip(name, &reason);
        return None;
    }
    let mut scene = Scene::new(name);
    let (real, dir) = (machine::find_program("podman").unwrap(), scene.aside("podman"));
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    let script = format!(
        "#!/bin/sh\nunset CONTAINER_HOST\nexec {} --root {1}/root --runroot {1}/run --storage-driver vfs --events-backend file \"$@\"\n",
        real.display(),
        dir.display()
    );
    let program = dir.join("bin/podman");
    std::fs::write(&program, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    let path = format!("{}:{}", dir.join("bin").display(), scene.var("PATH").unwrap());
    scene.set("PATH", &path);
    Some(scene)
}

fn id(scene: &Scene, image: &str) -> String {
    let inspected = scene.must("podman", &["image", "inspect", "--format", "{{.Id}}", image]);
    format!("sha256:{}", inspected.stdout_text().trim())
}

/// Loads three images, and expects of the later ones only what is new.
fn only_what_is_missing_is_sent(scene: &Scene) {
    let flags = ["--load=podman", "-t", "app:1"];
    let (first, bytes) = load(scene, "one", &flags);
    let whole = foretold(scene, &["app:1"]);
    assert_eq!((bytes, id(scene, "app:1")), (vec![whole], first));
    let (second, bytes) = load(scene, "two", &flags);
    assert!(bytes.len() == 1 && bytes[0] < 100_000, "{bytes:?}");
    assert_eq!(
        id(scene, "app:1"),
        second,
        "the short name is that of the last image"
    );
    let names = [
        "--load=podman",
        "-t",
        "app:1",
        "-t",
        "team/app:2",
        "-t",
        "127.0.0.1:5000/app:3",
    ];
    let (third, bytes) = load(scene, "three", &names);
    assert!(bytes.len() == 1 && bytes[0] < 100_000, "{bytes:?}");
    for name in [
        "app:1",
        "localhost/app:1",
        "localhost/team/app:2",
        "127.0.0.1:5000/app:3",
    ] {
        assert_eq!(id(scene, name), third, "{name}");
    }
}

#[test]
fn podmans_program_takes_only_what_it_lacks() {
    let Some(scene) = scene("engines/podman-program") else {
        return;
    };
    only_what_is_missing_is_sent(&scene);
    validate::finish(scene);
}

/// A running service; ended with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn podmans_service_takes_only_what_it_lacks() {
    let Some(mut scene) = scene("engines/podman-service") else {
        return;
    };
    let socket = scene.aside("podman/sock");
    let address = format!("unix://{}", socket.display());
    let service = Command::new(scene.aside("podman/bin/podman"))
        .args(["system", "service", "--time=0", &address])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let service = Service(service);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "podman's service did not start");
        std::thread::yield_now();
    }
    scene.set("CONTAINER_HOST", &address);
    only_what_is_missing_is_sent(&scene);
    drop(service);
    validate::finish(scene);
}

#[test]
fn archives_go_both_ways() {
    let Some(scene) = scene("engines/podman-archives") else {
        return;
    };
    context(&scene, "one");
    let ours = scene.aside("docker.tar").display().to_string();
    let output = format!("type=docker,dest={ours}");
    scene.ashlar_ok(&["build", "-t", "localhost/app:1", "-o", &output, "."]);
    scene.must("podman", &["load", "-q", "-i", &ours]);
    scene.ashlar_ok(&["build", "-t", "localhost/app:1", "."]);
    for format in ["docker-archive", "oci-archive"] {
        let saved = scene.aside(format);
        let path = saved.display().to_string();
        scene.must(
            "podman",
            &["save", "-q", "--format", format, "-o", &path, "app:1"],
        );
        let elsewhere = scene.aside(&format!("{format}-store")).display().to_string();
        let loaded = scene
            .ashlar_ok(&["--root", &elsewhere, "load", "-i", &path])
            .stdout_text();
        assert_eq!(loaded, "Loaded image: localhost/app:1\n", "{format}");
        same(&scene, format, &saved, "localhost/app:1");
    }
    the_machines_own_of_several_platforms_is_taken(&scene);
    validate::finish(scene);
}

/// By a load and by an archive: it holds one of them.
fn the_machines_own_of_several_platforms_is_taken(scene: &Scene) {
    let flags = ["build", "--platform", "linux/386,linux/amd64,linux/arm64"];
    let build = [&flags[..], &["-t", "several:1", "--load=podman", "."]].concat();
    let output = scene.ashlar_ok(&build);
    let said = output.stderr_text();
    assert!(
        said.contains("holds an image for one platform only: of the 3 it gets linux/amd64;"),
        "{said}"
    );
    assert_eq!(id(scene, "localhost/several:1"), output.stdout_text().trim());
    scene.must("podman", &["rmi", "-f", "localhost/several:1"]);
    let archive = scene.aside("several.tar").display().to_string();
    scene.ashlar_ok(&["save", "-o", &archive, "several:1"]);
    scene.must("podman", &["load", "-q", "-i", &archive]);
    assert_eq!(id(scene, "several:1"), output.stdout_text().trim());
}
