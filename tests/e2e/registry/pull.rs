//! `ashlar pull` and `FROM`, from real registries and ones that misbehave; how many requests that takes.

use super::faults::{Act, Faults};
use super::{Options, Registry};
use crate::scene::Scene;
use crate::validate;

/// Runs a test with a registry that holds `team/app:1`, and ends with the check of the store.
fn with_registry(name: &str, options: Options, test: impl FnOnce(&mut Scene, &Registry)) {
    let mut scene = Scene::new(name);
    let Some(registry) = Registry::start(name, &scene.aside("registry"), options) else {
        return;
    };
    registry.fill(&scene, "team/app:1");
    test(&mut scene, &registry);
    drop(registry);
    validate::finish(scene);
}

/// Pulls through a proxy that does what `decide` says; returns it, and what the pull said.
fn pull_through(
    scene: &Scene,
    registry: &Registry,
    decide: impl Fn(&super::faults::Seen) -> Act + Send + Sync + 'static,
) -> (Faults, crate::scene::Output) {
    let faults = Faults::start(&registry.host, decide);
    let name = format!("{}/team/app:1", faults.host);
    let output = scene.run("ashlar", &["pull", &name]);
    (faults, output)
}

#[test]
fn an_image_is_pulled_once_and_then_only_asked_about() {
    with_registry("pull_requests", Options::default(), |scene, registry| {
        let (faults, first) = pull_through(scene, registry, |_| Act::Pass);
        let said = first.stdout_text();
        assert!(
            said.contains("Status: Downloaded newer image for"),
            "{said}{}",
            first.stderr_text()
        );
        assert!(said.ends_with(&format!("{}/team/app:1\n", faults.host)), "{said}");
        // The manifest, the config, two layers; nothing twice.
        let lines = faults.take_lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[0], "GET /v2/team/app/manifests/1");

        let name = format!("{}/team/app:1", faults.host);
        let again = scene.ashlar_ok(&["pull", &name]);
        assert!(
            again.stdout_text().contains("Image is up to date"),
            "{}",
            again.stdout_text()
        );
        assert_eq!(faults.take_lines(), ["HEAD /v2/team/app/manifests/1"]);

        // A build asks nobody, unless it is told to pull.
        std::fs::write(scene.work().join("Dockerfile"), format!("FROM {name}\nENV A=1\n")).unwrap();
        scene.ashlar_ok(&["build", "-q", "-t", "child", "."]);
        assert_eq!(faults.take_lines(), [""; 0]);
        scene.ashlar_ok(&["build", "-q", "--pull", "-t", "child", "."]);
        assert_eq!(faults.take_lines(), ["HEAD /v2/team/app/manifests/1"]);

        let quiet = scene.ashlar_ok(&["pull", "-q", &name]);
        assert_eq!(quiet.stdout_text(), format!("{name}\n"));
        assert_eq!(quiet.stderr_text(), "");
    });
}

#[test]
fn layers_that_no_step_needs_are_not_fetched() {
    with_registry("pull_lazily", Options::default(), |scene, registry| {
        let faults = Faults::start(&registry.host, |_| Act::Pass);
        let name = format!("{}/team/app:1", faults.host);
        let dockerfile =
            format!("FROM {name} AS base\nFROM scratch\nCOPY Dockerfile /\nFROM base\nENV A=1\n");
        std::fs::write(scene.work().join("Dockerfile"), dockerfile).unwrap();
        scene.ashlar_ok(&["build", "-q", "-o", "type=cacheonly", "."]);
        let lines = faults.take_lines();
        // The manifest and the config.
        assert_eq!(lines.len(), 2, "{lines:?}");
    });
}

#[test]
fn what_passes_is_waited_for_as_the_registry_says() {
    // hardening R14
    with_registry("pull_retries", Options::default(), |scene, registry| {
        let start = std::time::Instant::now();
        let (faults, output) = pull_through(scene, registry, |seen| match (seen.is_blob(), seen.n_before) {
            (false, 0) => Act::status(429).header("Retry-After", "1"),
            (false, 1) => Act::status(503),
            (true, 0) => Act::status(502),
            _ => Act::Pass,
        });
        assert_eq!(output.code, Some(0), "{}", output.stderr_text());
        assert!(start.elapsed() >= std::time::Duration::from_secs(1));
        let lines = faults.take_lines();
        // The manifest three times; config and layers twice each.
        assert_eq!(lines.len(), 3 + 3 * 2, "{lines:?}");
    });
}

#[test]
fn cut_downloads_go_on_where_they_stopped() {
    // hardening R15
    with_registry("pull_cuts", Options::default(), |scene, registry| {
        for cut in [0, 1, 200_000] {
            let (faults, output) = pull_through(scene, registry, move |seen| {
                match (seen.is_blob(), seen.n_before) {
                    (true, 0) => Act::Cut(cut),
                    _ => Act::Pass,
                }
            });
            assert_eq!(output.code, Some(0), "cut at {cut}: {}", output.stderr_text());
            let ranges: Vec<String> = faults
                .take()
                .into_iter()
                .filter_map(|seen| seen.headers.get("range").cloned())
                .collect();
            if cut > 0 {
                assert!(
                    ranges.contains(&format!("bytes={cut}-")),
                    "cut at {cut}: {ranges:?}"
                );
            }
            scene.ashlar_ok(&["rmi", &format!("{}/team/app:1", faults.host)]);
            std::fs::remove_dir_all(scene.store()).unwrap();
        }
    });
}

#[test]
fn wrong_bytes_are_refused_and_not_kept() {
    // hardening T52, hardening R19
    with_registry("pull_lies", Options::default(), |scene, registry| {
        // Only the large layer is touched: the manifest and the config have tests of their own.
        type Change = fn(&mut Vec<u8>);
        let cases: [(Change, &str); 3] = [
            (
                |body| body.resize(body.len() + (body.len() / 100_000).min(1) * 7, 0),
                "bytes but there are",
            ),
            (
                |body| body.truncate(body.len() - (body.len() / 100_000).min(1) * 7),
                "bytes but there are",
            ),
            (
                |body| {
                    let middle = body.len() / 2;
                    body[middle] ^= u8::try_from((body.len() / 100_000).min(1)).unwrap();
                },
                "layer sha256:",
            ),
        ];
        for (change, expected) in cases {
            let (_, output) = pull_through(scene, registry, move |seen| match seen.is_blob() {
                true => Act::Change(change),
                false => Act::Pass,
            });
            assert_ne!(output.code, Some(0));
            let said = output.stderr_text();
            assert!(said.contains(expected), "{said}");
            for layer in std::fs::read_dir(scene.store().join("layers")).unwrap() {
                let size = layer.unwrap().metadata().unwrap().len();
                assert!(size < 100_000, "the large layer is not kept: {said}");
            }
        }
        let (_, html) = pull_through(scene, registry, |_| Act::status(200).body("<html>"));
        assert!(
            html.stderr_text().contains("is malformed"),
            "{}",
            html.stderr_text()
        );
        let (faults, absent) = pull_through(scene, registry, |_| Act::status(404));
        assert!(
            absent.stderr_text().contains("not found"),
            "{}",
            absent.stderr_text()
        );
        assert_eq!(faults.take().len(), 1);
    });
}

#[test]
fn credentials_stay_with_the_registry_when_it_sends_us_elsewhere() {
    // hardening T74
    with_registry(
        "pull_redirects",
        Options {
            has_logins: true,
            ..Options::default()
        },
        |scene, registry| {
            // Where the blobs are: gives them to nobody who shows credentials, and would like to see some.
            let elsewhere = Faults::start(&registry.host, |seen| {
                match seen.headers.contains_key("authorization") {
                    true => Act::status(400),
                    false => Act::status(401).header("WWW-Authenticate", "Basic realm=\"elsewhere\""),
                }
            });
            let target = elsewhere.host.clone();
            let faults = Faults::start(&registry.host, move |seen| match seen.is_blob() {
                true => Act::status(307).header("Location", format!("http://{target}{}", seen.path)),
                false => Act::Pass,
            });
            super::login::log_in(scene, &faults.host);
            let output = scene.run("ashlar", &["pull", &format!("{}/team/app:1", faults.host)]);
            assert_eq!(output.code, Some(3), "{}", output.stderr_text());
            assert!(
                output.stderr_text().contains("pull access denied"),
                "{}",
                output.stderr_text()
            );
            let seen = elsewhere.take();
            assert!(!seen.is_empty());
            assert!(seen.iter().all(|one| !one.headers.contains_key("authorization")));
            assert!(
                faults
                    .take()
                    .iter()
                    .any(|one| one.headers.contains_key("authorization"))
            );
        },
    );
}

#[test]
fn what_is_pulled_makes_room_for_itself() {
    with_registry("pull_ceiling", Options::default(), |scene, registry| {
        let name = format!("{}/team/app:1", registry.host);
        let cache = "export ASHLAR_GC_MIN_FREE_SPACE=0 ASHLAR_GC_MAX_USED_SPACE=0
            mkdir -p other && head -c 3000000 /dev/urandom > other/data
            printf 'FROM scratch\\nCOPY data /\\n' > other/Dockerfile
            ashlar build -q -o type=cacheonly other";
        for (quietly, is_told) in [("-q", false), ("", true)] {
            scene.must("sh", &["-ec", cache]);
            let pull = format!("ASHLAR_GC_MAX_USED_SPACE=2m ashlar pull {quietly} {name}");
            let told = scene.must("sh", &["-ec", &pull]).stderr_text();
            assert_eq!(told.contains("had outgrown its ceiling: 3"), is_told, "{told}");
            // The image is there, the cache is not.
            let left = scene.must("sh", &["-ec", "du -sk \"$STORE\"/layers | cut -f1"]);
            let left_kib: u64 = left.stdout_text().trim().parse().unwrap();
            assert!((400..2048).contains(&left_kib), "{left_kib} KiB");
            scene.ashlar_ok(&["check"]);
            // Only what comes is followed by a look at the ceiling.
            scene.ashlar_ok(&["rmi", &name]);
            scene.ashlar_ok(&["prune", "--all", "--force"]);
        }
    });
}
