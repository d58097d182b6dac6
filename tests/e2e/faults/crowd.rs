//! Sixteen builds at once on one store, some of them killed: all right, each step run once, nobody waits for ever.

use super::{Numbers, is_long};
use crate::scene::{Output, Scene};
use crate::{machine, rootfs, validate};

/// Steps that all builds have, and one that they have in four variants. Each says in a cache mount that it ran.
const DOCKERFILE: &str = "\
FROM busybox AS a
RUN --mount=type=cache,id=count,target=/count echo a >> /count/log && echo a > /a
FROM busybox AS b
RUN --mount=type=cache,id=count,target=/count echo b >> /count/log && echo b > /b
FROM busybox
COPY --from=a /a /
COPY --from=b /b /
ARG VARIANT
RUN --mount=type=cache,id=count,target=/count echo variant$VARIANT >> /count/log && echo $VARIANT > /variant
";
const N_BUILDS: u64 = 16;
const N_VARIANTS: u64 = 4;

fn args(number: u64) -> Vec<String> {
    let context = format!("busybox={}", rootfs::busybox().display());
    let variant = format!("--build-arg=VARIANT={}", number % N_VARIANTS);
    let output = format!("--output=type=oci,dest=out{number}.tar,rewrite-timestamp=true");
    let epoch = "--build-arg=SOURCE_DATE_EPOCH=1700000000";
    let words = [
        "build",
        "--progress=plain",
        "--build-context",
        &context,
        &variant,
        epoch,
        &output,
        ".",
    ];
    words.map(str::to_owned).to_vec()
}

fn take(scene: &Scene, number: u64) -> Vec<u8> {
    let path = scene.work().join(format!("out{number}.tar"));
    let bytes = std::fs::read(&path).unwrap_or_default();
    let _none = std::fs::remove_file(path);
    bytes
}

/// Runs all builds at once; `deadlines` says which are killed, and after how many milliseconds.
fn crowd(scene: &Scene, deadlines: &[(u64, u64)]) -> Vec<Output> {
    std::thread::scope(|scope| {
        let build = |number: u64| {
            let own = args(number);
            let deadline = deadlines.iter().find(|(victim, _)| *victim == number);
            let Some((_, millis)) = deadline else {
                return scene.run("ashlar", &own);
            };
            let after = format!("{}.{:03}", millis / 1000, millis % 1000);
            let mut all = vec!["--foreground", "-s", "KILL", &after, "ashlar"];
            all.extend(own.iter().map(String::as_str));
            scene.run("timeout", &all)
        };
        let threads: Vec<_> = (0..N_BUILDS)
            .map(|number| scope.spawn(move || build(number)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Returns what the steps said in their cache mount, sorted.
fn log(scene: &Scene) -> Vec<String> {
    let script = "cat \"$STORE\"/mounts/*/data/log | sort";
    let text = scene.must("sh", &["-c", script]).stdout_text();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn sixteen_builds_at_once() {
    // hardening R08: each unique step runs once, all images are right; with kills, who is left is right
    let name = "sixteen_builds_at_once";
    if let Some(reason) = machine::missing(&["root"]) {
        machine::skip(name, &reason);
        return;
    }
    let scene = Scene::new(name);
    std::fs::write(scene.work().join("Dockerfile"), DOCKERFILE).unwrap();
    let clean: Vec<Vec<u8>> = (0..N_VARIANTS)
        .map(|variant| {
            scene.must("ashlar", &args(variant));
            take(&scene, variant)
        })
        .collect();
    let unique = ["a", "b", "variant0", "variant1", "variant2", "variant3"];
    assert_eq!(log(&scene), unique);
    let mut numbers = Numbers(99);
    let n_rounds = if is_long() { 20 } else { 1 };
    for round in 0..2 * n_rounds {
        std::fs::remove_dir_all(scene.store()).unwrap();
        std::fs::create_dir(scene.store()).unwrap();
        // Every other round five are killed.
        let n_victims = if round % 2 == 0 { 0 } else { 5 };
        let victims: Vec<(u64, u64)> = (0..n_victims)
            .map(|victim| (victim * 3, 200 + numbers.below(3000)))
            .collect();
        let outputs = crowd(&scene, &victims);
        for (number, output) in (0..).zip(&outputs) {
            let is_victim = victims.iter().any(|(victim, _)| *victim == number);
            let result = take(&scene, number);
            if is_victim && output.code != Some(0) {
                continue;
            }
            assert_eq!(output.code, Some(0), "build {number}: {}", output.stderr_text());
            let expected = &clean[usize::try_from(number % N_VARIANTS).unwrap()];
            assert!(
                result == *expected,
                "build {number} made another image: {}",
                output.stderr_text()
            );
        }
        let mut ran = log(&scene);
        let n_ran = ran.len();
        ran.dedup();
        assert_eq!(ran, unique);
        // What ran when its build was killed runs again.
        assert!(n_ran <= unique.len() + 3 * victims.len(), "{n_ran} steps ran");
        assert!(n_victims > 0 || n_ran == unique.len(), "{n_ran} steps ran");
        // The next one clears what the dead left.
        scene.must("ashlar", &args(0));
        let checked = scene.run("ashlar", &["check", "--deep"]);
        assert_eq!(checked.code, Some(0), "{}", checked.stdout_text());
        assert_eq!(validate::problems(&scene), Vec::<String>::new());
    }
}
