//! Through a registry to others, and from others to us: podman, buildah, skopeo, umoci. Digests stay what they are.

use serde_json::Value;

use super::{Options, Registry};
use crate::engines::podman;
use crate::machine;
use crate::scene::Scene;
use crate::validate;

/// Makes a scene with a podman and a buildah that have their images there, and a registry.
fn start(name: &str) -> Option<(Scene, Registry)> {
    if let Some(reason) = machine::missing(&["exec:buildah", "exec:umoci"]) {
        machine::skip(name, &reason);
        return None;
    }
    let scene = podman::scene(name)?;
    let registry = Registry::start(name, &scene.aside("registry"), Options::default())?;
    Some((scene, registry))
}

/// Runs buildah on images of its own.
fn buildah(scene: &Scene, words: &[&str]) -> String {
    let dir = |name: &str| scene.aside("buildah").join(name).display().to_string();
    let (root, run) = (dir("root"), dir("run"));
    let place = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
    let output = scene.must("buildah", &[&place[..], words].concat());
    output.stdout_text().trim().to_owned()
}

fn podman(scene: &Scene, words: &[&str]) -> String {
    scene.must("podman", words).stdout_text().trim().to_owned()
}

fn digest_there(scene: &Scene, name: &str) -> String {
    let reference = format!("docker://{name}");
    let words = [
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        &reference,
    ];
    scene.must("skopeo", &words).stdout_text().trim().to_owned()
}

/// Pulls an image with podman and with buildah, which must find this digest and this ID.
fn is_pulled_by_others(scene: &Scene, name: &str, expected: &str) {
    podman(scene, &["pull", "-q", "--tls-verify=false", name]);
    let format = "{{.Digest}} sha256:{{.Id}}";
    let there = podman(scene, &["image", "inspect", "--format", format, name]);
    assert_eq!(there, expected, "podman, {name}");
    buildah(scene, &["pull", "-q", "--tls-verify=false", name]);
    let format = "{{.FromImageDigest}} sha256:{{.FromImageID}}";
    let there = buildah(scene, &["inspect", "--type", "image", "--format", format, name]);
    assert_eq!(there, expected, "buildah, {name}");
}

#[test]
fn what_we_push_others_pull() {
    let Some((scene, registry)) = start("registry/peers-pull") else {
        return;
    };
    std::fs::write(
        scene.work().join("Dockerfile"),
        "FROM scratch\nCOPY said /a/said\nCMD [\"x\"]\n",
    )
    .unwrap();
    for compression in ["gzip", "zstd"] {
        std::fs::write(scene.work().join("said"), compression).unwrap();
        let name = format!("{}/ours:{compression}", registry.host);
        let output = format!("type=registry,compression={compression}");
        let facts = scene.aside("facts.json");
        let words = [
            "-t",
            &name,
            "-o",
            &output,
            "--metadata-file",
            &facts.display().to_string(),
            ".",
        ];
        let id = scene
            .ashlar_ok(&[&["build", "-q"][..], &words].concat())
            .stdout_text();
        let facts: Value = serde_json::from_slice(&std::fs::read(facts).unwrap()).unwrap();
        let digest = facts["containerimage.digest"].as_str().unwrap();
        assert_eq!(digest_there(&scene, &name), digest, "{compression}");

        is_pulled_by_others(&scene, &name, &format!("{digest} {}", id.trim()));
        let layout = scene
            .aside(&format!("{compression}-layout"))
            .display()
            .to_string();
        let (from, to) = (format!("docker://{name}"), format!("oci:{layout}:app"));
        scene.must(
            "skopeo",
            &[
                "copy",
                "-q",
                "--src-tls-verify=false",
                "--preserve-digests",
                &from,
                &to,
            ],
        );
        // umoci of Debian 12 knows no zstd.
        if compression == "gzip" {
            let bundle = scene.aside("bundle");
            let image = format!("{layout}:app");
            scene.must(
                "umoci",
                &["unpack", "--image", &image, &bundle.display().to_string()],
            );
            assert_eq!(std::fs::read(bundle.join("rootfs/a/said")).unwrap(), b"gzip");
        }
    }
    drop(registry);
    validate::finish(scene);
}

/// Pulls an image and compares its digest and ID with those that its maker knows.
fn is_pulled(scene: &Scene, name: &str, id: &str) {
    let elsewhere = scene.aside(&name.replace([':', '/'], "-")).display().to_string();
    scene.ashlar_ok(&["--root", &elsewhere, "pull", name]);
    let format = "{{index .RepoDigests 0}} {{.Id}}";
    let found = scene
        .ashlar_ok(&["--root", &elsewhere, "inspect", "-f", format, name])
        .stdout_text();
    let repository = name.rsplit_once(':').unwrap().0;
    let expected = format!("{repository}@{} {id}\n", digest_there(scene, name));
    assert_eq!(found, expected, "{name}");
}

#[test]
fn what_others_push_we_pull() {
    let Some((scene, registry)) = start("registry/peers-push") else {
        return;
    };
    let name = |who: &str| format!("{}/{who}:1", registry.host);
    std::fs::write(scene.work().join("said"), "hello").unwrap();

    let container = buildah(&scene, &["from", "scratch"]);
    buildah(&scene, &["copy", "-q", &container, "said", "/a/said"]);
    buildah(&scene, &["config", "--cmd", "x", &container]);
    let id = buildah(&scene, &["commit", "-q", &container, "made"]);
    let to = format!("docker://{}", name("buildah"));
    buildah(&scene, &["push", "-q", "--tls-verify=false", "made", &to]);
    buildah(&scene, &["rm", &container]);
    is_pulled(&scene, &name("buildah"), &format!("sha256:{id}"));
    let docker = ["push", "-q", "--tls-verify=false", "--format", "docker", "made"];
    let to = format!("docker://{}", name("schema2"));
    buildah(&scene, &[&docker[..], &[&to]].concat());
    let from = format!("docker://{}", name("schema2"));
    let raw = scene
        .must("skopeo", &["inspect", "--tls-verify=false", "--raw", &from])
        .stdout_text();
    let raw: Value = serde_json::from_str(&raw).unwrap();
    is_pulled(
        &scene,
        &name("schema2"),
        raw["config"]["digest"].as_str().unwrap(),
    );

    podman(&scene, &["pull", "-q", "--tls-verify=false", &name("buildah")]);
    podman(&scene, &["tag", &name("buildah"), &name("podman")]);
    podman(&scene, &["push", "-q", "--tls-verify=false", &name("podman")]);
    is_pulled(&scene, &name("podman"), &format!("sha256:{id}"));

    let layout = scene.aside("umoci").display().to_string();
    let image = format!("{layout}:1");
    scene.must("umoci", &["init", "--layout", &layout]);
    scene.must("umoci", &["new", "--image", &image]);
    // Not `umoci insert`: the tars of that end without padding.
    let bundle = scene.aside("umoci-bundle");
    let words = ["--image", &image, &bundle.display().to_string()];
    scene.must("umoci", &[&["unpack"][..], &words].concat());
    std::fs::write(bundle.join("rootfs/said"), "hello").unwrap();
    scene.must("umoci", &[&["repack"][..], &words].concat());
    registry.copy_in(&scene, &format!("oci:{layout}:1"), "umoci:1");
    let from = format!("docker://{}", name("umoci"));
    let raw = scene
        .must("skopeo", &["inspect", "--tls-verify=false", "--raw", &from])
        .stdout_text();
    let raw: Value = serde_json::from_str(&raw).unwrap();
    is_pulled(&scene, &name("umoci"), raw["config"]["digest"].as_str().unwrap());
    drop(registry);
    validate::finish(scene);
}
