//! `ashlar push` and `-o type=registry`, into real registries and ones that misbehave; how many requests that takes.

use super::faults::{Act, Faults, Seen};
use super::{Options, Registry};
use crate::scene::{Output, Scene};
use crate::validate;

/// Runs a test with a registry that holds `team/app:1`, and ends with the check of the store.
fn with_registry(name: &str, options: Options, test: impl FnOnce(&mut Scene, &mut Registry)) {
    let mut scene = Scene::new(name);
    let Some(mut registry) = Registry::start(name, &scene.aside("registry"), options) else {
        return;
    };
    registry.fill(&scene, "team/app:1");
    test(&mut scene, &mut registry);
    drop(registry);
    validate::finish(scene);
}

/// Builds an image of a large layer, of several requests, and a small one.
fn build(scene: &Scene, name: &str) {
    let noise: Vec<u8> = (0..700_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes())
        .collect();
    std::fs::write(scene.work().join("large"), noise).unwrap();
    std::fs::write(scene.work().join("small"), name).unwrap();
    std::fs::write(
        scene.work().join("Dockerfile"),
        "FROM scratch\nCOPY large /\nCOPY small /\nCMD [\"/small\"]\n",
    )
    .unwrap();
    scene.ashlar_ok(&["build", "-q", "-t", name, "."]);
}

fn digest_there(scene: &Scene, name: &str) -> String {
    let output = scene.must(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &format!("docker://{name}"),
        ],
    );
    output.stdout_text().trim().to_owned()
}

/// Copies everything, which reads and checks every blob.
fn read_by_skopeo(scene: &Scene, name: &str) {
    let to = format!("dir:{}", scene.aside("copy").display());
    let from = format!("docker://{name}");
    scene.must(
        "skopeo",
        &["copy", "-q", "--all", "--src-tls-verify=false", &from, &to],
    );
}

fn count(lines: &[String], method: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(method)).count()
}

fn push_through(
    scene: &Scene,
    registry: &Registry,
    decide: impl Fn(&Seen) -> Act + Send + Sync + 'static,
) -> (Faults, Output, String) {
    let faults = Faults::start(&registry.host, decide);
    let name = format!("{}/team/new:1", faults.host);
    build(scene, &name);
    let output = scene.run("ashlar", &["push", &name]);
    (faults, output, name)
}

#[test]
fn an_image_is_pushed_once_and_then_only_asked_about() {
    // hardening R16
    with_registry("push_requests", Options::default(), |scene, registry| {
        let (faults, first, name) = push_through(scene, registry, |_| Act::Pass);
        assert_eq!(first.code, Some(0), "{}", first.stderr_text());
        let lines = faults.take_lines();
        // Asked first, for each of two layers and a config; the tag last.
        assert_eq!(count(&lines, "HEAD /v2/team/new/blobs/"), 3, "{lines:#?}");
        assert_eq!(count(&lines, "POST"), 3, "{lines:#?}");
        assert_eq!(count(&lines, "PATCH"), 1, "{lines:#?}");
        assert_eq!(lines.last().unwrap(), "PUT /v2/team/new/manifests/1");
        let digest = digest_there(scene, &format!("{}/team/new:1", registry.host));
        let said = first.stdout_text();
        assert!(said.starts_with(&format!("1: digest: {digest} size: ")), "{said}");
        read_by_skopeo(scene, &format!("{}/team/new:1", registry.host));

        let again = scene.ashlar_ok(&["push", &name]);
        assert_eq!(again.stdout_text(), said);
        assert_eq!(faults.take_lines(), ["HEAD /v2/team/new/manifests/1"]);

        // A child sends its own layer and config only.
        let child = format!("{}/team/new:2", faults.host);
        std::fs::write(scene.work().join("own"), "own").unwrap();
        std::fs::write(scene.work().join("child"), format!("FROM {name}\nCOPY own /\n")).unwrap();
        scene.ashlar_ok(&["build", "-q", "--push", "-t", &child, "-f", "child", "."]);
        let lines = faults.take_lines();
        assert_eq!(count(&lines, "POST"), 2, "{lines:#?}");
        assert_eq!(count(&lines, "PATCH"), 0, "{lines:#?}");
    });
}

#[test]
fn base_layers_are_mounted_from_where_they_came_and_stay_the_very_same() {
    // hardening R25
    with_registry("push_mounts", Options::default(), |scene, registry| {
        let faults = Faults::start(&registry.host, |_| Act::Pass);
        let (base, child) = (
            format!("{}/team/app:1", faults.host),
            format!("{}/own/child:1", faults.host),
        );
        std::fs::write(scene.work().join("own"), "own").unwrap();
        std::fs::write(
            scene.work().join("Dockerfile"),
            format!("FROM {base}\nCOPY own /\n"),
        )
        .unwrap();
        scene.ashlar_ok(&["build", "-q", "-t", &child, "-o", "type=registry", "."]);
        let lines = faults.take_lines();
        let mounted: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("&from=team/app"))
            .collect();
        assert_eq!(mounted.len(), 2, "{lines:#?}");
        // The own layer and the config.
        assert_eq!(count(&lines, "PUT /v2/own/child/blobs/uploads/"), 2, "{lines:#?}");
        let layers = |name: &str| -> Vec<String> {
            let raw = scene.must(
                "skopeo",
                &[
                    "inspect",
                    "--raw",
                    "--tls-verify=false",
                    &format!("docker://{name}"),
                ],
            );
            let manifest: serde_json::Value = serde_json::from_str(&raw.stdout_text()).unwrap();
            let layers = manifest["layers"].as_array().unwrap().iter();
            layers.map(|layer| layer["digest"].to_string()).collect()
        };
        let there = layers(&format!("{}/own/child:1", registry.host));
        assert_eq!(there[..2], layers(&format!("{}/team/app:1", registry.host)));

        // What was pulled goes on as it came.
        let copy = format!("{}/own/copy:1", faults.host);
        scene.ashlar_ok(&["pull", "-q", &base]);
        scene.ashlar_ok(&["tag", &base, &copy]);
        // Nobody could make the compressed layers again, so that an image keeps them.
        scene.ashlar_ok(&["prune", "--all", "--force"]);
        scene.ashlar_ok(&["push", &copy]);
        assert_eq!(
            digest_there(scene, &format!("{}/own/copy:1", registry.host)),
            digest_there(scene, &format!("{}/team/app:1", registry.host))
        );
    });
}

#[test]
fn what_breaks_is_sent_again() {
    // hardening R14, hardening R16
    with_registry("push_faults", Options::default(), |scene, registry| {
        let (faults, output, _) = push_through(scene, registry, |seen| {
            match (seen.method.as_str(), seen.n_before) {
                ("PATCH", 0) if seen.headers.contains_key("content-range") => Act::Pass,
                ("PATCH", 0) if !CUT.swap(true, std::sync::atomic::Ordering::Relaxed) => {
                    Act::CutUpload(100_000)
                }
                ("HEAD", 0) if seen.is_blob() => Act::status(429).header("Retry-After", "0"),
                ("PUT", 0) if seen.path.contains("/manifests/") => Act::status(503),
                _ => Act::Pass,
            }
        });
        assert_eq!(output.code, Some(0), "{}", output.stderr_text());
        let lines = faults.take_lines();
        assert!(count(&lines, "PATCH") >= 2, "{lines:#?}");
        assert_eq!(count(&lines, "PUT /v2/team/new/manifests/1"), 2, "{lines:#?}");
        read_by_skopeo(scene, &format!("{}/team/new:1", registry.host));
    });
}

static CUT: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

#[test]
fn a_push_that_fails_moves_no_tag() {
    with_registry("push_refused", Options::default(), |scene, registry| {
        let before = digest_there(scene, &format!("{}/team/app:1", registry.host));
        let refused = |what: fn(&Seen) -> bool| {
            let faults = Faults::start(&registry.host, move |seen| match what(seen) {
                true => Act::status(400).body(r#"{"errors":[{"message":"not today"}]}"#),
                false => Act::Pass,
            });
            let name = format!("{}/team/app:1", faults.host);
            build(scene, &name);
            let output = scene.run("ashlar", &["build", "-q", "--push", "-t", &name, "."]);
            assert_eq!(output.code, Some(3), "{}", output.stderr_text());
            assert!(
                output.stderr_text().contains("not today"),
                "{}",
                output.stderr_text()
            );
            assert_eq!(
                before,
                digest_there(scene, &format!("{}/team/app:1", registry.host))
            );
            faults
        };
        let faults = refused(|seen| seen.method == "PATCH");
        let lines = faults.take_lines();
        assert_eq!(count(&lines, "PUT /v2/team/app/manifests/"), 0, "{lines:#?}");
        refused(|seen| seen.method == "PUT" && seen.path.contains("/manifests/"));
    });
}

#[test]
fn a_registry_that_dies_in_the_middle_gets_only_what_is_missing_afterwards() {
    // hardening R16
    with_registry("push_killed", Options::default(), |scene, registry| {
        let process = registry.process().to_string();
        let (_, output, name) = push_through(scene, registry, move |seen| {
            // The large layer is the only one that is streamed; the others are there or nearly there by now.
            if seen.method == "PATCH" {
                let killed = std::process::Command::new("kill").args(["-9", &process]).status();
                assert!(killed.unwrap().success());
                return Act::CutUpload(100_000);
            }
            Act::Pass
        });
        assert_eq!(output.code, Some(3), "{}", output.stderr_text());
        registry.restart();
        let there = format!("docker://{}/team/new:1", registry.host);
        let absent = scene.run("skopeo", &["inspect", "--tls-verify=false", &there]);
        assert_ne!(absent.code, Some(0), "no tag before all is there");

        let n_there = registry.blobs("team/new").len();
        assert!(n_there < 3);
        let faults = Faults::start(&registry.host, |_| Act::Pass);
        let again = name.replace(name.split('/').next().unwrap(), &faults.host);
        scene.ashlar_ok(&["tag", &name, &again]);
        scene.ashlar_ok(&["push", "-q", &again]);
        let lines = faults.take_lines();
        assert_eq!(count(&lines, "POST"), 3 - n_there, "{lines:#?}");
        read_by_skopeo(scene, &format!("{}/team/new:1", registry.host));
    });
}

#[test]
fn two_pushes_of_the_same_do_no_harm() {
    // hardening R16
    with_registry("push_twice", Options::default(), |scene, registry| {
        let name = format!("{}/team/new:1", registry.host);
        build(scene, &name);
        let both = format!("ashlar push -q {name} & ashlar push -q {name} || exit 1; wait $!");
        scene.must("sh", &["-ec", &both]);
        read_by_skopeo(scene, &name);
    });
}

#[test]
fn an_index_follows_its_manifests_and_a_digest_needs_no_tag() {
    with_registry("push_index", Options::default(), |scene, registry| {
        let faults = Faults::start(&registry.host, |_| Act::Pass);
        std::fs::write(scene.work().join("f"), "f").unwrap();
        std::fs::write(scene.work().join("Dockerfile"), "FROM scratch\nCOPY f /\n").unwrap();
        let name = format!("{}/own/both", faults.host);
        let platforms = "linux/amd64,linux/arm64";
        scene.ashlar_ok(&[
            "build",
            "-q",
            "--platform",
            platforms,
            "--push",
            "-t",
            &format!("{name}:1"),
            "--metadata-file",
            "facts",
            ".",
        ]);
        let lines = faults.take_lines();
        let puts: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("PUT") && line.contains("/manifests/"))
            .collect();
        assert_eq!(puts.len(), 3, "{lines:#?}");
        assert!(
            puts[0].contains("sha256:") && puts[1].contains("sha256:"),
            "{puts:?}"
        );
        assert!(puts[2].ends_with("/manifests/1"), "{puts:?}");
        let facts = std::fs::read_to_string(scene.work().join("facts")).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
        let there = digest_there(scene, &format!("{}/own/both:1", registry.host));
        assert_eq!(facts["containerimage.digest"], there);
        read_by_skopeo(scene, &format!("{}/own/both:1", registry.host));

        // What is said of an image goes with it.
        scene.ashlar_ok(&[
            "build",
            "-q",
            "--provenance=true",
            "--push",
            "-t",
            &format!("{name}:2"),
            ".",
        ]);
        read_by_skopeo(scene, &format!("{}/own/both:2", registry.host));
        faults.take();

        let output = format!(
            "type=image,name={}/own/quiet,push-by-digest=true,name-canonical=true,push=true",
            faults.host
        );
        scene.ashlar_ok(&["build", "-q", "-o", &output, "--metadata-file", "facts", "."]);
        let lines = faults.take_lines();
        assert!(
            lines
                .last()
                .unwrap()
                .starts_with("PUT /v2/own/quiet/manifests/sha256:"),
            "{lines:#?}"
        );
        let facts = std::fs::read_to_string(scene.work().join("facts")).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
        let canonical = format!(
            "{}/own/quiet@{}",
            faults.host,
            facts["containerimage.digest"].as_str().unwrap()
        );
        scene.ashlar_ok(&["inspect", &canonical]);
    });
}

/// Returns what `inspect` says that registries call an image.
fn repo_digests(scene: &Scene, name: &str) -> Vec<String> {
    let told = scene.ashlar_ok(&["inspect", "-f", "{{json .RepoDigests}}", name]);
    serde_json::from_str(&told.stdout_text()).unwrap()
}

#[test]
fn an_image_knows_by_which_digest_it_was_pushed() {
    with_registry("push_digests", Options::default(), |scene, registry| {
        let repository = format!("{}/own/app", registry.host);
        let name = format!("{repository}:1");
        build(scene, &name);
        assert_eq!(repo_digests(scene, &name), [""; 0]);
        scene.ashlar_ok(&["push", "-q", &name]);
        let known = [format!("{repository}@{}", digest_there(scene, &name))];
        assert_eq!(repo_digests(scene, &name), known);
        let by_digest = scene.ashlar_ok(&["inspect", "-f", "{{.Id}}", &known[0]]);
        assert_eq!(
            by_digest.stdout,
            scene.ashlar_ok(&["inspect", "-f", "{{.Id}}", &name]).stdout
        );
        // Building it again changes nothing; building another does.
        build(scene, &name);
        assert_eq!(repo_digests(scene, &name), known);
        scene.ashlar_ok(&["push", "-q", &name]);
        assert_eq!(repo_digests(scene, &name), known);
        std::fs::write(scene.work().join("small"), "another").unwrap();
        scene.ashlar_ok(&["build", "-q", "-t", &name, "."]);
        assert_eq!(repo_digests(scene, &name), [""; 0]);
        scene.ashlar_ok(&["build", "-q", "--push", "-t", &name, "."]);
        let newer = [format!("{repository}@{}", digest_there(scene, &name))];
        assert_ne!(newer, known);
        assert_eq!(repo_digests(scene, &name), newer);
    });
}

#[test]
fn an_index_is_the_same_whoever_pushes_it() {
    with_registry("push_same_index", Options::default(), |scene, registry| {
        // The store is given up in between, and with it the time at which the layers were made.
        scene.set("SOURCE_DATE_EPOCH", "1000000000");
        std::fs::write(scene.work().join("f"), "f").unwrap();
        std::fs::write(scene.work().join("Dockerfile"), "FROM scratch\nCOPY f /\n").unwrap();
        let mut digests = std::collections::BTreeSet::new();
        for (number, platforms) in [
            "linux/arm64,linux/amd64,linux/s390x",
            "linux/s390x,linux/amd64,linux/arm64",
        ]
        .into_iter()
        .enumerate()
        {
            let at_once = format!("{}/own/both:{number}a", registry.host);
            let later = format!("{}/own/both:{number}b", registry.host);
            scene.ashlar_ok(&[
                "build",
                "-q",
                "--platform",
                platforms,
                "--push",
                "-t",
                &at_once,
                ".",
            ]);
            std::fs::remove_dir_all(scene.store()).unwrap();
            scene.ashlar_ok(&["build", "-q", "--platform", platforms, "-t", &later, "."]);
            let said = scene.ashlar_ok(&["push", &later]).stdout_text();
            let digest = digest_there(scene, &later);
            assert!(said.contains(&digest), "{said}");
            assert_eq!(
                repo_digests(scene, &later),
                [format!("{}/own/both@{digest}", registry.host)]
            );
            digests.extend([digest, digest_there(scene, &at_once)]);
            read_by_skopeo(scene, &later);
        }
        assert_eq!(digests.len(), 1, "{digests:?}");
    });
}

#[test]
fn whoever_may_not_push_is_told() {
    let options = Options {
        has_logins: true,
        ..Options::default()
    };
    with_registry("push_denied", options, |scene, registry| {
        let name = format!("{}/team/new:1", registry.host);
        build(scene, &name);
        let output = scene.run("ashlar", &["push", &name]);
        assert_eq!(output.code, Some(3));
        assert!(
            output.stderr_text().contains("push access denied"),
            "{}",
            output.stderr_text()
        );
        super::login::log_in(scene, &registry.host);
        scene.ashlar_ok(&["push", &name]);

        // What isn't there, and what has no name.
        let output = scene.run("ashlar", &["push", &format!("{}/team/none", registry.host)]);
        assert_eq!(output.code, Some(1));
        assert!(
            output.stderr_text().contains("does not exist locally"),
            "{}",
            output.stderr_text()
        );
        let output = scene.run("ashlar", &["build", "--push", "."]);
        assert_eq!(output.code, Some(2));
        assert!(
            output.stderr_text().contains("tag is needed"),
            "{}",
            output.stderr_text()
        );
    });
}
