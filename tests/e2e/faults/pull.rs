//! A pull that is killed wherever something becomes visible or durable.

use std::time::Instant;

use super::{Numbers, is_long};
use crate::registry::{Options, Registry};
use crate::scene::{Output, Scene};
use crate::{machine, validate};

/// What makes bytes durable, or gives them their name.
const CALLS: [&str; 7] = [
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
];

#[test]
fn kill_while_pulling() {
    // hardening R01: at every fsync, rename and link; what has a name is what its name says, before anything is repaired
    let name = "kill_while_pulling";
    if let Some(reason) = machine::missing(&["exec:strace"]) {
        return machine::skip(name, &reason);
    }
    let scene = Scene::new(name);
    let Some(registry) = Registry::start(name, &scene.aside("registry"), Options::default()) else {
        return;
    };
    registry.fill(&scene, "app:1");
    let image = format!("{}/app:1", registry.host);
    let begun = Instant::now();
    let recovers = |what: &str, output: &Output| {
        is_sound(&scene, what);
        let again = scene.run("ashlar", &["pull", "-q", &image]);
        assert_eq!(again.code, Some(0), "{what}: {}", again.stderr_text());
        is_sound(&scene, what);
        let problems = validate::problems(&scene);
        assert_eq!(problems, Vec::<String>::new(), "{what}");
        std::fs::remove_dir_all(scene.store()).unwrap();
        std::fs::create_dir(scene.store()).unwrap();
        output.code != Some(0)
    };
    recovers("nothing", &scene.must("ashlar", &["pull", "-q", &image]));
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let mut n_killed = 0;
    for call in CALLS {
        let (mut when, mut n_survived) = (1, 0);
        // Counted for each thread, and layers are fetched by several: until none makes so many calls.
        while n_survived < if is_long() { 3 } else { 1 } {
            let inject = format!("inject={call}:signal=KILL:when={when}");
            match recovers(&inject, &pull_traced(&scene, call, &inject, &image)) {
                true => (n_killed, n_survived) = (n_killed + 1, 0),
                false => n_survived += 1,
            }
            when += 1;
        }
    }
    assert!(n_killed >= 2, "only {n_killed} pulls were killed");
    let mut numbers = Numbers(0xab0b_a111);
    for _ in 0..if is_long() { 100 } else { 3 } {
        let micros = numbers.below(took / 2);
        let instant = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000 + 1);
        let words = [
            "--foreground",
            "-s",
            "KILL",
            &instant,
            "ashlar",
            "pull",
            "-q",
            &image,
        ];
        recovers(
            &format!("killed after {instant} s"),
            &scene.run("timeout", &words),
        );
    }
}

fn pull_traced(scene: &Scene, call: &str, inject: &str, image: &str) -> Output {
    let trace = format!("trace={call}");
    let words = [
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        inject,
    ];
    scene.run("strace", &[&words[..], &["ashlar", "pull", "-q", image]].concat())
}

fn is_sound(scene: &Scene, what: &str) {
    let checked = scene.run("ashlar", &["check", "--deep"]);
    let said = checked.stdout_text() + &checked.stderr_text();
    assert_eq!(checked.code, Some(0), "{what}: {said}");
}
