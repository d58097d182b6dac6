//! What Ashlar writes, read by others: skopeo and umoci on OCI output, skopeo on docker output, GNU tar
//! on plain trees. Tree and config must be those that our own store has.

use std::path::Path;

use serde_json::Value;

use crate::archive::{self, Image};
use crate::scene::Scene;
use crate::tree::{Times, Tree};
use crate::{machine, oracle, validate};

/// Builds the case that has every kind of file, and returns what `ashlar save` gives for it.
fn build(scene: &Scene, outputs: &[&str]) -> Image {
    oracle::context("everything", &scene.work());
    let base = format!("busybox={}", crate::rootfs::busybox().display());
    let build = ["build", "-t", "app:1", "--build-context", &base];
    for output in outputs {
        scene.ashlar_ok(&[&build[..], &["-o", output, "."]].concat());
    }
    // An output of another type does not put the image into the store; the steps are cached.
    scene.ashlar_ok(&[&build[..], &["."]].concat());
    let saved = scene.aside("saved.tar");
    scene.ashlar_ok(&["save", "-o", &saved.display().to_string(), "app:1"]);
    archive::read(&saved).unwrap()
}

fn same(what: &str, ours: &Image, theirs: &Image) {
    let lines = ours
        .tree
        .differences(&theirs.tree, ("the store", what), Times::Compare);
    assert!(lines.is_empty(), "{what}:\n  {}", lines.join("\n  "));
    let config = |image: &Image| image.config.get("config").cloned().unwrap_or(Value::Null);
    assert_eq!(config(ours), config(theirs), "{what}");
    assert_eq!(ours.config["rootfs"], theirs.config["rootfs"], "{what}");
}

fn skips(name: &str, conditions: &[&str]) -> bool {
    let reason = machine::missing(conditions);
    if let Some(reason) = &reason {
        machine::skip(name, reason);
    }
    reason.is_some()
}

/// Unpacks an OCI archive beside the work directory, because umoci reads directories only.
fn unpacked(scene: &Scene, archive: &str) -> (String, String) {
    let dir = scene.aside("layout").display().to_string();
    std::fs::create_dir(&dir).unwrap();
    scene.must("tar", &["-C", &dir, "-xf", archive]);
    let index = std::fs::read(Path::new(&dir).join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str();
    let tag = name.expect("an OCI output names its image").to_owned();
    (dir, tag)
}

#[test]
fn skopeo_reads_oci_output() {
    for compression in ["gzip", "zstd", "uncompressed"] {
        let name = format!("readers/skopeo-oci-{compression}");
        if skips(&name, &["root", "exec:skopeo"]) {
            return;
        }
        let scene = Scene::new(&name);
        let output = scene.aside("out.tar").display().to_string();
        let ours = build(
            &scene,
            &[&format!("type=oci,dest={output},compression={compression}")],
        );
        let written = archive::read(Path::new(&output)).unwrap();
        same("our OCI archive", &ours, &written);
        assert_eq!(ours.id, written.id, "the image ID does not depend on the output");
        let expected = match compression {
            "gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
            "zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar",
        };
        assert!(
            written.media_types.iter().all(|t| t == expected),
            "{:?}",
            written.media_types
        );
        let (layout, tag) = unpacked(&scene, &output);
        let source = format!("oci:{layout}:{tag}");
        let inspected: Value =
            serde_json::from_slice(&scene.must("skopeo", &["inspect", &source]).stdout).unwrap();
        assert_eq!(
            inspected["Layers"].as_array().map(Vec::len),
            ours.config["rootfs"]["diff_ids"].as_array().map(Vec::len)
        );
        assert_eq!(inspected["Env"], ours.config["config"]["Env"]);
        let copied = scene.aside("copied.tar");
        let target = format!("docker-archive:{}:app:1", copied.display());
        let copy = ["--insecure-policy", "copy", "-q"];
        let mut source = source;
        if compression == "zstd" {
            // Docker's archives know no zstd; skopeo reads it all the same when it recompresses.
            let gzip = format!("oci:{}:{tag}", scene.aside("gzip").display());
            let recompress = ["--dest-compress-format", "gzip", &source, &gzip];
            scene.must("skopeo", &[&copy[..], &recompress].concat());
            source = gzip;
        }
        scene.must("skopeo", &[&copy[..], &[&source, &target]].concat());
        same("skopeo's copy", &ours, &archive::read(&copied).unwrap());
        validate::finish(scene);
    }
}

#[test]
fn umoci_unpacks_oci_output() {
    let name = "readers/umoci";
    if skips(name, &["root", "exec:umoci"]) {
        return;
    }
    let scene = Scene::new(name);
    let output = scene.aside("out.tar").display().to_string();
    let ours = build(&scene, &[&format!("type=oci,dest={output}")]);
    let (layout, tag) = unpacked(&scene, &output);
    let bundle = scene.aside("bundle");
    scene.must(
        "umoci",
        &[
            "unpack",
            "--image",
            &format!("{layout}:{tag}"),
            &bundle.display().to_string(),
        ],
    );
    let tree = Tree::from_dir(&bundle.join("rootfs"));
    let lines = ours
        .tree
        .differences(&tree, ("the store", "umoci"), Times::Compare);
    assert!(lines.is_empty(), "umoci:\n  {}", lines.join("\n  "));
    let spec = std::fs::read(bundle.join("config.json")).unwrap();
    let spec: Value = serde_json::from_slice(&spec).unwrap();
    assert_eq!(spec["process"]["args"], serde_json::json!(["/bin/app", "serve"]));
    assert_eq!(spec["process"]["cwd"], "/srv/app");
    validate::finish(scene);
}

#[test]
fn an_oci_layout_can_be_a_directory() {
    let name = "readers/oci-directory";
    if skips(name, &["root", "exec:skopeo"]) {
        return;
    }
    let scene = Scene::new(name);
    let output = scene.aside("layout").display().to_string();
    let ours = build(&scene, &[&format!("type=oci,dest={output},tar=false")]);
    same("the layout", &ours, &archive::read(Path::new(&output)).unwrap());
    scene.must("skopeo", &["inspect", &format!("oci:{output}")]);
    validate::finish(scene);
}

#[test]
fn skopeo_reads_docker_output_and_saved_images() {
    let name = "readers/skopeo-docker";
    if skips(name, &["root", "exec:skopeo"]) {
        return;
    }
    let scene = Scene::new(name);
    let output = scene.aside("out.tar").display().to_string();
    let ours = build(&scene, &[&format!("type=docker,dest={output}")]);
    for (what, archive) in [
        ("out", output),
        ("saved", scene.aside("saved.tar").display().to_string()),
    ] {
        let written = archive::read(Path::new(&archive)).unwrap();
        assert_eq!(written.id, ours.id, "{what}");
        assert!(
            written.names.iter().any(|n| n.ends_with("app:1")),
            "{what}: {:?}",
            written.names
        );
        let target = scene.aside(&format!("from-{what}")).display().to_string();
        let source = format!("docker-archive:{archive}");
        scene.must(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "-q",
                &source,
                &format!("oci:{target}:app"),
            ],
        );
        same(what, &ours, &archive::read(Path::new(&target)).unwrap());
    }
    validate::finish(scene);
}

#[test]
fn tar_and_local_outputs_are_the_tree() {
    let name = "readers/plain-trees";
    if skips(name, &["root"]) {
        return;
    }
    let scene = Scene::new(name);
    let (tar, dir) = (scene.aside("out.tar"), scene.aside("out"));
    let outputs = [
        format!("type=tar,dest={}", tar.display()),
        format!("type=local,dest={}", dir.display()),
    ];
    let ours = build(&scene, &[&outputs[0], &outputs[1]]);
    let extracted = scene.aside("extracted").display().to_string();
    std::fs::create_dir(&extracted).unwrap();
    scene.must(
        "tar",
        &[
            "-C",
            &extracted,
            "--xattrs",
            "--xattrs-include=*",
            "-xpf",
            &tar.display().to_string(),
        ],
    );
    for (what, path) in [("type=local", dir.as_path()), ("type=tar", Path::new(&extracted))] {
        let lines = ours
            .tree
            .differences(&Tree::from_dir(path), ("the store", what), Times::Compare);
        assert!(lines.is_empty(), "{what}:\n  {}", lines.join("\n  "));
    }
    validate::finish(scene);
}
