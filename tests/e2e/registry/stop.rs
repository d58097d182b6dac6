//! Builds and pulls that are stopped while a registry or a git server keeps them waiting.

use std::net::TcpListener;
use std::time::Duration;

use super::faults::{Act, Faults, Seen};
use super::{Options, Registry};
use crate::machine;
use crate::scene::Scene;
use crate::validate;

/// Starts what it is given, waits until the registry was asked for what it never answers, and sends a signal. Says with
/// which code it ended, and whether that was before the time after which a build is ended that doesn't look up.
const STOP: &str = r#"
signal=$1; shift; rm -f asked
"$@" > said 2>&1 & pid=$!
tries=0; until test -e asked; do tries=$((tries + 1)); [ $tries -lt 600 ] || { cat said; exit 1; }; sleep 0.05; done
before=$(date +%s%N); kill -$signal $pid; code=0; wait $pid || code=$?
[ $(( ($(date +%s%N) - before) / 1000000 )) -lt 2000 ] && quick=quick || quick=slow
echo $code $quick
"#;

#[test]
fn waiting_for_a_git_server_ends_with_the_signal() {
    // hardening R37, hardening R38: git, and the programs that it starts itself, end with the build
    if let Some(reason) = machine::missing(&["exec:git", "root"]) {
        machine::skip("stop_git", &reason);
        return;
    }
    let scene = Scene::new("stop_git").with_deadline(Duration::from_secs(40));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let asked = scene.work().join("asked");
    std::thread::spawn(move || {
        // Connections stay open, and nothing is ever said.
        let mut clients = Vec::new();
        for client in server.incoming() {
            clients.push(client);
            std::fs::write(&asked, "").unwrap();
        }
    });
    for scheme in ["git", "http"] {
        for (signal, code) in [("INT", 130), ("TERM", 143), ("KILL", 137)] {
            let dockerfile = format!("FROM scratch\nADD {scheme}://{address}/x.git /\n");
            std::fs::write(scene.work().join("Dockerfile"), dockerfile).unwrap();
            let said = scene.must("sh", &["-ec", STOP, "stop", signal, "ashlar", "build", "."]);
            assert_eq!(said.stdout_text(), format!("{code} quick\n"), "{scheme} {signal}");
        }
    }
    // What was half fetched goes with the next start.
    std::fs::write(
        scene.work().join("Dockerfile"),
        "FROM scratch\nCOPY Dockerfile /\n",
    )
    .unwrap();
    scene.ashlar_ok(&["build", "-q", "."]);
    validate::finish(scene);
}

#[test]
fn a_push_that_waits_ends_with_the_signal() {
    // hardening R37, hardening R38: while something is pushed, by itself and at the end of a build
    let scene = Scene::new("stop_pushing").with_deadline(Duration::from_secs(40));
    let Some(registry) = Registry::start("stop_pushing", &scene.aside("registry"), Options::default()) else {
        return;
    };
    std::fs::write(
        scene.work().join("Dockerfile"),
        "FROM scratch\nCOPY Dockerfile /\n",
    )
    .unwrap();
    scene.ashlar_ok(&["build", "-q", "-t", "app", "."]);
    type IsMeant = fn(&Seen) -> bool;
    let phases: [(&str, IsMeant); 3] = [
        ("session", |seen| seen.method == "POST"),
        ("blob", |seen| {
            seen.method == "PUT" && seen.path.contains("/uploads/")
        }),
        ("manifest", |seen| {
            seen.method == "PUT" && seen.path.contains("/manifests/")
        }),
    ];
    for (at, (phase, is_meant)) in phases.into_iter().enumerate() {
        for (signal, code) in [("TERM", 143), ("KILL", 137)] {
            for command in ["build", "push"] {
                let asked = scene.work().join("asked");
                let faults = Faults::start(&registry.host, move |seen| {
                    if is_meant(seen) {
                        std::fs::write(&asked, "").unwrap();
                        loop {
                            std::thread::park();
                        }
                    }
                    Act::Pass
                });
                let repository = format!("team/{phase}{at}-{command}-{}", signal.to_lowercase());
                let name = format!("{}/{repository}:1", faults.host);
                let words: &[&str] = match command {
                    "build" => &["ashlar", "build", "--push", "-t", &name, "."],
                    _ => {
                        scene.ashlar_ok(&["tag", "app", &name]);
                        &["ashlar", "push", &name]
                    }
                };
                let script = [&["-ec", STOP, "stop", signal], words].concat();
                let said = scene.must("sh", &script).stdout_text();
                assert_eq!(said, format!("{code} quick\n"), "{command} {phase} {signal}");
                // The name is there only when everything is.
                let asked_again =
                    scene.run("ashlar", &["pull", &format!("{}/{repository}:1", registry.host)]);
                assert_ne!(asked_again.code, Some(0), "{command} {phase} {signal}");
            }
        }
    }
    // What the registry has of it is no harm.
    let name = format!("{}/team/app:1", registry.host);
    scene.ashlar_ok(&["tag", "app", &name]);
    scene.ashlar_ok(&["push", "-q", &name]);
    drop(registry);
    validate::finish(scene);
}

#[test]
fn waiting_for_a_registry_ends_with_the_signal() {
    // hardening R37, hardening R38: while something is pulled
    let scene = Scene::new("stop_pulling").with_deadline(Duration::from_secs(40));
    let Some(registry) = Registry::start("stop_pulling", &scene.aside("registry"), Options::default()) else {
        return;
    };
    registry.fill(&scene, "team/app:1");
    type IsMeant = fn(&Seen) -> bool;
    let phases: [(&str, IsMeant); 2] = [
        ("manifest", |seen| seen.path.contains("/manifests/")),
        // Everything else was answered before, and is half stored.
        ("last blob", |seen| seen.is_blob() && seen.method == "GET"),
    ];
    for (phase, is_meant) in phases {
        for (signal, code) in [("INT", 130), ("TERM", 143), ("KILL", 137)] {
            for command in ["build", "pull"] {
                if (command, signal) == ("pull", "INT") {
                    // It leaves the signal to the kernel, and what a shell starts in the background ignores this one.
                    continue;
                }
                let asked = scene.work().join("asked");
                let faults = Faults::start(&registry.host, move |seen| {
                    if is_meant(seen) {
                        std::fs::write(&asked, "").unwrap();
                        loop {
                            std::thread::park();
                        }
                    }
                    Act::Pass
                });
                let name = format!("{}/team/app:1", faults.host);
                let dockerfile = format!("FROM {name}\nCOPY Dockerfile /\n");
                std::fs::write(scene.work().join("Dockerfile"), dockerfile).unwrap();
                let words: &[&str] = match command {
                    "build" => &["ashlar", "build", "-o", "type=tar,dest=out.tar", "."],
                    _ => &["ashlar", "pull", &name],
                };
                let script = [&["-ec", STOP, "stop", signal], words].concat();
                let said = scene.must("sh", &script).stdout_text();
                assert_eq!(said, format!("{code} quick\n"), "{command} {phase} {signal}");
                assert!(
                    !scene.work().join("out.tar").exists(),
                    "{command} {phase} {signal}"
                );
            }
        }
    }
    // What was half stored goes with the next start, and is no harm.
    let name = format!("{}/team/app:1", registry.host);
    scene.ashlar_ok(&["pull", "-q", &name]);
    drop(registry);
    validate::finish(scene);
}

/// Like [`STOP`], but says how many milliseconds the end took.
const STOP_TIMED: &str = r#"
signal=$1; shift; rm -f asked
"$@" > said 2>&1 & pid=$!
tries=0; until test -e asked; do tries=$((tries + 1)); [ $tries -lt 600 ] || { cat said; exit 1; }; sleep 0.05; done
sleep 0.2
before=$(date +%s%N); kill -$signal $pid; code=0; wait $pid || code=$?
echo $code $(( ($(date +%s%N) - before) / 1000000 ))
"#;

#[test]
fn waiting_for_a_busy_registry_ends_at_once_with_the_signal() {
    // hardening R14
    let scene = Scene::new("stop_busy").with_deadline(Duration::from_secs(40));
    let Some(registry) = Registry::start("stop_busy", &scene.aside("registry"), Options::default()) else {
        return;
    };
    let asked = scene.work().join("asked");
    let busy = Faults::start(&registry.host, move |_| {
        std::fs::write(&asked, "").unwrap();
        Act::status(429).header("Retry-After", "30")
    });
    let name = format!("{}/team/app:1", busy.host);
    std::fs::write(
        scene.work().join("Dockerfile"),
        format!("FROM {name}\nCOPY Dockerfile /\n"),
    )
    .unwrap();
    let build = ["ashlar", "build", "-o", "type=tar,dest=out.tar", "."];
    let pull = ["ashlar", "pull", &name];
    for (signal, code, words) in [
        ("INT", 130, &build[..]),
        ("TERM", 143, &build),
        ("TERM", 143, &pull),
    ] {
        // On a machine that is busy itself, once in three is proof enough that nothing waits.
        let mut took = Vec::new();
        while took.len() < 3 && took.last().is_none_or(|ms| *ms >= 200) {
            let script = [&["-ec", STOP_TIMED, "stop", signal], words].concat();
            let said = scene.must("sh", &script).stdout_text();
            let (ended, ms) = said.trim().split_once(' ').unwrap();
            assert_eq!(ended, code.to_string(), "{words:?} {signal}: {said}");
            took.push(ms.parse::<u32>().unwrap());
        }
        assert!(
            took.last().is_some_and(|ms| *ms < 200),
            "{words:?} {signal}: {took:?} ms"
        );
    }
    drop(registry);
    validate::finish(scene);
}
