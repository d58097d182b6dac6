//! Somebody exchanges a directory for a link that leads out, over and over, while containers get their mounts below it,
//! and while a context is read. Whatever comes of it comes of what is inside.
//!
//! Every container here gets three mounts below what is exchanged, each of which would be lost by whoever looks at a path
//! and then uses it again. A few dozen by default; `ASHLAR_LONG=1` (`sh tests/run --long`) makes it thousands. What one
//! container does against mountpoints that have to be made is `builder/src/sandbox/tests/attached.rs`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::canary::Canary;
use crate::machine;
use crate::rootfs;
use crate::scene::{Output, Scene};
use crate::validate;

/// Exchanges `/c/sel` and `/c/evil` until `/c/done` is there, and says how often.
const SWAP: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    long n = 0;
    close(open("/c/started", O_CREAT | O_WRONLY, 0644));
    for (; n % 64 != 0 || access("/c/done", F_OK) != 0; n++) {
        if (syscall(SYS_renameat2, AT_FDCWD, "/c/sel", AT_FDCWD, "/c/evil", 2 /* RENAME_EXCHANGE */) != 0) {
            perror("exchange");
            return 1;
        }
        sched_yield();
    }
    printf("exchanged %ld times\n", n);
    return 0;
}
"#;
/// Says where its three mounts are; all must be inside, or they wouldn't be in its table.
const LOOK: &str = "\
#!/bin/sh
for name in e f g; do
    awk -v name=$name '$2 ~ \"^/c/(sel|evil)/\" name \"$\" { print name, \"in the cache\" } \
        $2 == ENVIRON[\"CANARY\"] \"/\" name { print name, \"in the image\" }' /proc/self/mounts
done > /looked
cat /looked
[ $(wc -l < /looked) = 3 ] && grep -qx inside /c/sel/victim && rm /looked
";
/// Steps of a stage, one after the other, and stages beside each other. A chain of layers grows with each.
const N_STEPS: usize = 12;
const N_CHAINS: usize = 3;
const N_PER_BUILD: usize = N_STEPS * N_CHAINS;
/// Mounts that each container gets below what is exchanged.
const N_MOUNTS: usize = 3;
/// As often a build is done again when all its containers met the same.
const MAX_BUILDS: usize = 100;

fn is_long() -> bool {
    std::env::var_os("ASHLAR_LONG").is_some()
}

/// What came of the containers of one race.
#[derive(Default)]
struct Tally {
    in_cache: usize,
    in_image: usize,
    n_exchanges: usize,
}

impl Tally {
    fn count(&mut self, said: &str) {
        self.in_cache += said.matches(" in the cache\n").count();
        self.in_image += said.matches(" in the image\n").count();
        let exchanged = said.lines().filter_map(|line| line.split_once("exchanged "));
        let numbers = exchanged.filter_map(|(_, rest)| rest.strip_suffix(" times")?.parse::<usize>().ok());
        self.n_exchanges += numbers.sum::<usize>();
    }

    fn n_mounts(&self) -> usize {
        self.in_cache + self.in_image
    }
}

/// The stages: `ready` makes what is exchanged, `swapper` exchanges it, the chains get mounts below it meanwhile, and
/// `finish` ends it. Of the image is a directory where the link leads to, so that each container starts, and must see its
/// mounts in itself.
fn dockerfile(canary: &str) -> String {
    const CACHE: &str = "--mount=type=cache,id=met,target=/c";
    let mut text = format!(
        "FROM busybox AS base\n\
         ENV CANARY={canary}\n\
         COPY --chmod=755 swap look /\n\
         RUN mkdir -p $CANARY/e $CANARY/f $CANARY/g && echo inside > $CANARY/victim\n\
         FROM base AS ready\n\
         ARG ROUND\n\
         RUN {CACHE} rm -rf /c/* && mkdir -p /c/sel/e /c/sel/f /c/sel/g && echo inside > /c/sel/victim && \
             ln -s $CANARY /c/evil && echo $ROUND > /ready\n\
         FROM base AS swapper\n\
         ARG ROUND\n\
         COPY --from=ready /ready /\n\
         RUN {CACHE} /swap\n\
         FROM base AS gate\n\
         ARG ROUND\n\
         COPY --from=ready /ready /\n\
         RUN {CACHE} until [ -e /c/started ]; do sleep 0.01; done\n"
    );
    let below = "--mount=type=tmpfs,target=/c/sel/e --mount=type=cache,id=other,target=/c/sel/f \
                 --mount=from=base,source=/etc,target=/c/sel/g";
    for chain in 0..N_CHAINS {
        writeln!(text, "FROM gate AS chain{chain}").unwrap();
        for step in 0..N_STEPS {
            writeln!(text, "RUN {CACHE} {below} : {chain} {step}; /look").unwrap();
        }
    }
    text.push_str("FROM base AS chains\n");
    for chain in 0..N_CHAINS {
        writeln!(text, "COPY --from=chain{chain} /ready /ready{chain}").unwrap();
    }
    write!(
        text,
        "FROM base AS finish\nARG ROUND\nRUN {CACHE} touch /c/done\n\
         FROM chains AS all\nARG ROUND\nRUN {CACHE} touch /c/done\nCOPY --from=swapper /ready /swapped\n"
    )
    .unwrap();
    text
}

fn build(scene: &Scene, target: &str, round: usize) -> Output {
    let busybox = format!("busybox={}", rootfs::busybox().display());
    let round = format!("ROUND={round}");
    let args = ["build", "--progress", "plain", "--build-context", &busybox];
    let more = [
        "--build-arg",
        &round,
        "--target",
        target,
        "-o",
        "type=cacheonly",
        ".",
    ];
    scene.run("ashlar", &[&args[..], &more[..]].concat())
}

/// One build in which a stage exchanges and others mount.
fn in_one_build(scene: &Scene, round: usize) -> String {
    let built = build(scene, "all", round);
    let said = built.stderr_text();
    assert_eq!(built.code, Some(0), "{said}");
    said
}

/// One process exchanges, another one mounts.
fn in_two_processes(scene: &Scene, round: usize) -> String {
    let ready = build(scene, "ready", round);
    assert_eq!(ready.code, Some(0), "{}", ready.stderr_text());
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| build(scene, "swapper", round));
        let mounting = build(scene, "chains", round);
        // Also where that failed: the other one would never end.
        let finish = build(scene, "finish", round);
        let ended = [mounting, finish, swapper.join().unwrap()];
        let said: String = ended.iter().map(Output::stderr_text).collect();
        assert!(ended.iter().all(|output| output.code == Some(0)), "{said}");
        said
    })
}

fn race(name: &str, round: fn(&Scene, usize) -> String) {
    if let Some(reason) = machine::missing(&["root", "exec:cc"]) {
        return machine::skip(name, &reason);
    }
    let scene = Scene::new(name);
    let canary = Canary::plant(&scene);
    std::fs::write(scene.work().join("swap.c"), SWAP).unwrap();
    scene.must("cc", &["-static", "-o", "swap", "swap.c"]);
    std::fs::write(scene.work().join("look"), LOOK).unwrap();
    let text = dockerfile(&canary.dir().display().to_string());
    std::fs::write(scene.work().join("Dockerfile"), text).unwrap();
    let wanted = if is_long() { 2_000 } else { N_PER_BUILD } * N_MOUNTS;
    let mut tally = Tally::default();
    for number in 0..MAX_BUILDS {
        let said = round(&scene, number);
        assert!(!canary.is_told(said.as_bytes()), "{said}");
        tally.count(&said);
        if tally.n_mounts() >= wanted && tally.in_cache > 0 && tally.in_image > 0 {
            break;
        }
    }
    let Tally {
        in_cache,
        in_image,
        n_exchanges,
    } = tally;
    assert!(in_cache + in_image >= wanted && in_cache > 0 && in_image > 0);
    assert!(n_exchanges >= in_cache + in_image);
    assert_eq!(canary.problems(&scene), [""; 0]);
    validate::finish(scene);
}

/// hardening T07, T21, T22: the targets of mounts, in two stages of one build that share a cache.
#[test]
fn mounts_stay_inside_while_another_stage_exchanges_their_parent() {
    race("races", in_one_build);
}

/// hardening T07, T21, T22: as above, where the other one is another process.
#[test]
fn mounts_stay_inside_while_another_process_exchanges_their_parent() {
    race("races-apart", in_two_processes);
}

/// hardening T22, T72: a source in a context that somebody exchanges for a link while it is read: it is what lies in the
/// context, or an error.
#[test]
fn sources_stay_inside_while_somebody_exchanges_them() {
    if let Some(reason) = machine::missing(&["root"]) {
        return machine::skip("races-context", &reason);
    }
    let scene = Scene::new("races-context");
    let canary = Canary::plant(&scene);
    let ctx = scene.work().join("ctx");
    std::fs::create_dir_all(ctx.join("sel")).unwrap();
    // As long as what it is exchanged for: a size that changes gives nothing away.
    let size_bytes = canary.dir().join("victim").metadata().unwrap().len();
    let text = format!(
        "{:<width$}",
        "inside",
        width = usize::try_from(size_bytes).unwrap()
    );
    std::fs::write(ctx.join("sel/victim"), text).unwrap();
    std::os::unix::fs::symlink(canary.dir(), ctx.join("evil")).unwrap();
    let text = "FROM busybox\nRUN --mount=source=sel/victim,target=/m cat /m\nCOPY sel/victim /file\n\
                COPY sel/victim* /more/\nRUN cat /file /more/*\n";
    std::fs::write(scene.work().join("Dockerfile"), text).unwrap();
    let wanted = if is_long() { 5_000 } else { 24 };
    let is_over = AtomicBool::new(false);
    let (n_inside, n_refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Both are to be met, and as many in all as are wanted.
    let is_enough = || {
        let (inside, refused) = (
            n_inside.load(Ordering::Relaxed),
            n_refused.load(Ordering::Relaxed),
        );
        inside + refused >= wanted && (inside > 0 && refused > 0 || inside + refused > 50 * wanted)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dir = std::fs::File::open(&ctx).unwrap();
            for n in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let swap = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&dir, "sel", &dir, "evil", swap).unwrap();
                // As fast as can be, and slow enough for all of it to be found in its place.
                std::thread::park_timeout(Duration::from_micros(n % 5 * 500));
            }
        });
        let build = || {
            while !is_enough() {
                let n = match read_exchanged(&scene, &canary) {
                    true => &n_inside,
                    false => &n_refused,
                };
                n.fetch_add(1, Ordering::Relaxed);
            }
        };
        // One that fails must not keep the others from ending.
        let ended = [scope.spawn(build), scope.spawn(build)].map(|builder| builder.join());
        is_over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(Result::unwrap);
    });
    let counts = (n_inside.into_inner(), n_refused.into_inner());
    assert!(counts.0 > 0 && counts.1 > 0, "{counts:?}");
    assert_eq!(canary.problems(&scene), [""; 0]);
    validate::finish(scene);
}

/// Builds of the context once, anew; says whether there was something to be built of.
fn read_exchanged(scene: &Scene, canary: &Canary) -> bool {
    let busybox = format!("busybox={}", rootfs::busybox().display());
    let args = [
        "build",
        "--no-cache",
        "--progress",
        "plain",
        "--build-context",
        &busybox,
    ];
    let more = ["-f", "Dockerfile", "-o", "type=cacheonly", "ctx"];
    let built = scene.run("ashlar", &[&args[..], &more[..]].concat());
    let said = built.stderr_text();
    assert!(!canary.is_told(said.as_bytes()), "{said}");
    match built.code {
        Some(0) => assert!(said.contains("inside"), "{said}"),
        code => assert!(code == Some(1) && said.contains("error: "), "{code:?} {said}"),
    }
    built.code == Some(0)
}
