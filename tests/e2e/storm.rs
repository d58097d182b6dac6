//! An endless prune beside builds: nothing that runs loses anything, and when all is over the store is small.
//!
//! A few seconds by default; `ASHLAR_LONG=1` (`sh tests/run --long`) makes it two minutes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::machine;
use crate::rootfs;
use crate::scene::Scene;
use crate::validate;

const N_BUILDERS: usize = 8;
/// The store must come down to it, though the builds made many times as much.
const CEILING_BYTES: u64 = 6 << 20;

/// Three stages, of which builders share some: equal for all, for every other one, and each one's own.
const DOCKERFILE: &str = "
FROM busybox AS common
RUN head -c 300000 /dev/zero > /zero && date +%N > /when
FROM common AS shared
ARG PARITY
RUN head -c 400000 /dev/urandom > /random && echo $PARITY > /parity
FROM busybox
ARG ROUND
COPY --from=shared /parity /random /made/
COPY --from=common /zero /when /made/
RUN --mount=type=cache,target=/c echo $ROUND >> /c/rounds && cat /made/parity > /out && test -s /made/random
";

fn duration() -> Duration {
    match std::env::var_os("ASHLAR_LONG") {
        Some(_) => Duration::from_secs(120),
        None => Duration::from_secs(4),
    }
}

/// hardening R09: GC during builds
#[test]
fn an_endless_prune_beside_builds_takes_nothing_from_them() {
    storm(Scene::new("storm"));
}

/// As above where layers are unpacked, which can go by themselves.
#[test]
fn an_endless_prune_beside_builds_takes_nothing_that_was_unpacked() {
    let mut scene = Scene::new("storm-unpacked");
    scene.set("ASHLAR_LOWERS", "unpacked");
    storm(scene);
}

fn storm(scene: Scene) {
    if let Some(reason) = machine::missing(&["root"]) {
        return machine::skip("storm", &reason);
    }
    std::fs::write(scene.work().join("Dockerfile"), DOCKERFILE).unwrap();
    let end = Instant::now() + duration();
    let is_over = AtomicBool::new(false);
    let (n_pruned, n_killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let n_built: usize = std::thread::scope(|scope| {
        scope.spawn(|| {
            // All of it, and some of it; every third time it is killed somewhere.
            for round in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                let limits: &[&str] = match round % 2 {
                    0 => &["--all"],
                    _ => &["--max-used-space", "3m"],
                };
                let prune = [&["ashlar", "prune", "--force"], limits].concat();
                if round % 3 == 2 {
                    let patience = format!("0.{:03}", 2 + round * 7 % 40);
                    let args = [&["-s", "KILL", &patience], &prune[..]].concat();
                    let killed = scene.run("timeout", &args).code != Some(0);
                    n_killed.fetch_add(usize::from(killed), Ordering::SeqCst);
                } else {
                    let pruned = scene.must(prune[0], &prune[1..]).stdout_text();
                    let is_some = !pruned.ends_with("Total:\t0B\n");
                    n_pruned.fetch_add(usize::from(is_some), Ordering::SeqCst);
                }
            }
        });
        let builders: Vec<_> = (0..N_BUILDERS)
            .map(|builder| {
                let scene = &scene;
                scope.spawn(move || {
                    (0..)
                        .take_while(|round| build(scene, builder, *round, end))
                        .count()
                })
            })
            .collect();
        // One that fails must not keep the others from ending.
        let built: Vec<_> = builders.into_iter().map(|builder| builder.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        built.into_iter().map(Result::unwrap).sum()
    });
    assert!(n_built >= N_BUILDERS, "{n_built} builds");
    let (n_pruned, n_killed) = (n_pruned.into_inner(), n_killed.into_inner());
    assert!(
        n_pruned > 0 && n_killed > 0,
        "{n_pruned} removed something, {n_killed} were killed"
    );
    shrink(&scene);
    validate::finish(scene);
}

/// Builds once, in one of the ways that there are, and looks at the result; `false` when the time was over before.
fn build(scene: &Scene, builder: usize, round: usize, end: Instant) -> bool {
    if Instant::now() >= end {
        return false;
    }
    let busybox = format!("busybox={}", rootfs::busybox().display());
    let parity = format!("PARITY={}", builder % 2);
    // The same round twice, so that some builds find all they need.
    let own = format!("ROUND={builder}.{}", round / 2);
    let name = format!("app{builder}");
    let output = format!("type=tar,dest={builder}.tar");
    let mut args = vec![
        "build",
        "-q",
        "--gc-max-used-space",
        "4m",
        "--build-context",
        &busybox,
    ];
    args.extend(["--build-arg", &parity, "--build-arg", &own]);
    match (builder + round) % 4 {
        0 => args.extend(["-t", &name]),
        1 => args.extend(["-o", &output]),
        2 => args.extend(["-o", "type=cacheonly"]),
        _ => args.extend(["-t", &name, "--no-cache"]),
    }
    args.push(".");
    scene.ashlar_ok(&args);
    if args.contains(&"-t") {
        // Nobody else has this name, so the image is whole, whoever prunes.
        let said = scene.ashlar_ok(&["run", &name, "cat", "/out"]).stdout_text();
        assert_eq!(said.trim(), (builder % 2).to_string());
    }
    true
}

/// With the images all goes; and a ceiling holds as soon as nobody needs what is there.
fn shrink(scene: &Scene) {
    scene.ashlar_ok(&["prune", "--force", "--max-used-space", &CEILING_BYTES.to_string()]);
    let ids = scene.ashlar_ok(&["images", "-q"]).stdout_text();
    let mut rmi = vec!["rmi", "--force"];
    rmi.extend(ids.lines());
    scene.ashlar_ok(&rmi);
    scene.ashlar_ok(&["prune", "--force", "--max-used-space", &CEILING_BYTES.to_string()]);
    let used = scene.must(
        "du",
        &["-sk", "layers", "blobs", "mounts", "unpacked"].map(|part| match part {
            "-sk" => part.to_owned(),
            part => scene.store().join(part).display().to_string(),
        }),
    );
    let kib = used.stdout_text();
    let kib = kib
        .lines()
        .filter_map(|line| line.split('\t').next()?.parse::<u64>().ok());
    assert!(kib.sum::<u64>() * 1024 <= CEILING_BYTES + (1 << 20));
    scene.ashlar_ok(&["prune", "--force", "--all"]);
    for part in ["layers", "blobs/sha256", "unpacked", "locks", "leases"] {
        let left: Vec<_> = std::fs::read_dir(scene.store().join(part))
            .unwrap()
            .flatten()
            .collect();
        assert!(left.is_empty(), "{part}: {left:?}");
    }
}
