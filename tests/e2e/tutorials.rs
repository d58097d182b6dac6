//! Dockerfiles of the kinds that tutorials teach, on a Debian root file system: packages from apt, pip and
//! npm, a compiler, a server with ENTRYPOINT and CMD.
//!
//! They reach the package registries of the machine, and skip visibly where there are none.

use std::time::Duration;

use crate::scene::Scene;
use crate::script::progress;
use crate::{machine, oracle, rootfs, validate};

/// Downloads take their time; a hang is still found.
const DEADLINE: Duration = Duration::from_secs(420);

/// Builds `testdata/dockerfiles/tutorial_<name>` as `app`, and hands the scene on; `None` when skipped.
fn build(name: &str) -> Option<Scene> {
    let name = format!("tutorial_{name}");
    let root = match rootfs::debian() {
        Ok(root) => root,
        Err(reason) => {
            machine::skip(&name, &reason);
            return None;
        }
    };
    let scene = Scene::new(&name).with_deadline(DEADLINE);
    oracle::context(&name, &scene.work());
    let base = format!("debian={}", root.display());
    let mut args = vec![
        "build".to_owned(),
        "-t".to_owned(),
        "app".to_owned(),
        "--build-context".to_owned(),
        base,
    ];
    // Proxies are build arguments that need no ARG and enter no key.
    for proxy in [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
    ] {
        if let Ok(value) = std::env::var(proxy) {
            args.extend(["--build-arg".to_owned(), format!("{proxy}={value}")]);
        }
    }
    args.push(".".to_owned());
    scene.ashlar_ok(&args);
    // What was built a moment ago is answered from the cache, whatever it downloaded.
    let again = scene.ashlar_ok(&args);
    assert_eq!(
        progress::steps(&again.stderr_text()).ran,
        Vec::<String>::new(),
        "{name} built again"
    );
    Some(scene)
}

/// Runs the image and expects a piece of text on its standard output.
fn check(scene: &Scene, args: &[&str], expected: &str) {
    let output = scene.ashlar_ok(&[&["run", "--rm", "app"], args].concat());
    let said = output.stdout_text();
    assert!(
        said.contains(expected),
        "expected {expected:?} in:\n{said}{}",
        output.stderr_text()
    );
}

#[test]
fn python_web_app() {
    let Some(scene) = build("python") else { return };
    check(&scene, &[], "Hello from Bottle");
    let user = scene.ashlar_ok(&["run", "--rm", "--entrypoint", "id", "app", "-un"]);
    assert_eq!(user.stdout_text().trim(), "web");
    validate::finish(scene);
}

#[test]
fn node_app() {
    let Some(scene) = build("node") else { return };
    check(&scene, &[], "7 is a number");
    validate::finish(scene);
}

#[test]
fn c_program_into_scratch() {
    let Some(scene) = build("c") else { return };
    check(&scene, &["world"], "hello, world");
    let saved = scene.aside("saved.tar");
    scene.ashlar_ok(&["save", "-o", &saved.display().to_string(), "app"]);
    let image = crate::archive::read(&saved).unwrap();
    let names: Vec<String> = image.tree.0.keys().map(|n| crate::tree::text(n)).collect();
    assert_eq!(names, ["hello"], "nothing of the compiler is in the image");
    validate::finish(scene);
}

#[test]
fn redis_with_entrypoint_and_cmd() {
    let Some(scene) = build("redis") else { return };
    // CMD is the entrypoint's default argument, and what is typed replaces it.
    check(&scene, &[], "PONG");
    check(&scene, &["redis-server", "--version"], "Redis server v=");
    validate::finish(scene);
}
