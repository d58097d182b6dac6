//! What a build survives: kills, power cuts, full and failing disks, flipped bits, crowds.
//!
//! One small build that writes everything a store holds is injured in every way, each time beginning with an empty store. What
//! must be true afterwards is always the same: the next build gives the very bytes of a build that nothing happened to,
//! the store is sound, and nothing is left behind. `ASHLAR_FAULTS=long` (`sh tests/run --long`) injures it far more often.

mod crowd;
mod disk;
mod flips;
mod kill;
mod metadata;
mod places;
mod power;
mod pull;
mod repeat;

use std::time::{Duration, Instant};

use crate::scene::{Output, Scene};
use crate::script::progress;
use crate::{machine, rootfs, validate};

/// What may have to be tried again: others look for free loop devices at the same time, and may get one first;
/// and what a build had mounted goes a moment after it.
const PATIENT: &str = r#"
patient() { tries=0; until "$@" 2> busy; do tries=$((tries + 1)); [ $tries -lt 600 ] || { cat busy >&2; dmesg | grep -v erofs | tail >&2; exit 99; }; sleep 0.05; done; }
"#;

const DOCKERFILE: &str = "\
FROM busybox AS base
RUN for i in 1 2 3 4 5 6 7 8 9; do echo $i > /file$i || exit 1; done
FROM base AS a
RUN echo a > /a
FROM base AS b
RUN --mount=type=cache,target=/c echo c > /c/c && echo b > /b
FROM base
COPY --from=a /a /
COPY --from=b /b /
COPY data /data
RUN cat /a /b /data > /all
";

/// Says whether the long forms were asked for.
fn is_long() -> bool {
    std::env::var_os("ASHLAR_FAULTS").is_some_and(|value| value == "long")
}

/// Numbers that look random, and are the same every time.
struct Numbers(u64);

impl Numbers {
    /// Returns a number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

/// The build, and what it gives when nothing happens to it.
struct Trial {
    scene: Scene,
    clean: Vec<u8>,
    took: Duration,
}

impl Trial {
    /// Builds once, undisturbed; `None`, visibly, where this machine lacks one of `conditions`.
    fn new(name: &str, conditions: &[&str]) -> Option<Self> {
        if let Some(reason) = machine::missing(conditions) {
            machine::skip(name, &reason);
            return None;
        }
        let scene = Scene::new(name);
        std::fs::write(scene.work().join("Dockerfile"), DOCKERFILE).unwrap();
        std::fs::write(scene.work().join("data"), "data\n".repeat(20_000)).unwrap();
        let mut trial = Self {
            scene,
            clean: Vec::new(),
            took: Duration::ZERO,
        };
        let begun = Instant::now();
        trial.scene.must("ashlar", &trial.args());
        trial.took = begun.elapsed();
        trial.clean = trial.take_result().unwrap();
        trial.forget();
        Some(trial)
    }

    /// Returns the arguments of the build: the same bytes, whenever it runs.
    fn args(&self) -> Vec<String> {
        let context = format!("busybox={}", rootfs::busybox().display());
        let words = [
            "build",
            "--progress=plain",
            "--tag=app",
            "--build-context",
            &context,
            "--build-arg=SOURCE_DATE_EPOCH=1700000000",
            "--output=type=oci,dest=out.tar,rewrite-timestamp=true,compression=gzip",
            ".",
        ];
        words.map(str::to_owned).to_vec()
    }

    /// Runs the build below a program that does something to it.
    fn build_under(&self, program: &str, args: &[&str]) -> Output {
        let own = self.args();
        let mut all: Vec<&str> = args.to_vec();
        all.push("ashlar");
        all.extend(own.iter().map(String::as_str));
        self.scene.run(program, &all)
    }

    /// Runs the build under strace, which tampers with a system call.
    fn build_traced(&self, call: &str, inject: &str) -> Output {
        let trace = format!("trace={call}");
        let options = [
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
        self.build_under("strace", &options)
    }

    /// Takes the result away, so that the next one can't be mistaken for it.
    fn take_result(&self) -> Option<Vec<u8>> {
        let path = self.scene.work().join("out.tar");
        let bytes = std::fs::read(&path).ok()?;
        std::fs::remove_file(path).unwrap();
        Some(bytes)
    }

    /// Builds, and puts a copy of the store aside, to be begun with by [`again`](Self::again). Returns what the build said.
    fn keep(&self) -> Output {
        let output = self.scene.must("ashlar", &self.args());
        let _result = self.take_result();
        let (store, kept) = (self.scene.store(), self.scene.aside("kept"));
        self.scene
            .must("cp", &["-a", store.to_str().unwrap(), kept.to_str().unwrap()]);
        output
    }

    /// Puts the store back to what it was when it was kept.
    fn again(&self) {
        let (store, kept) = (self.scene.store(), self.scene.aside("kept"));
        std::fs::remove_dir_all(&store).unwrap();
        self.scene
            .must("cp", &["-a", kept.to_str().unwrap(), store.to_str().unwrap()]);
    }

    /// Works while a file system is mounted on the store by a shell script, whose `$1` is a path beside the store.
    fn on(&self, mount: &str, work: impl FnOnce()) {
        let aside = self.scene.aside("mounted").display().to_string();
        let mount = [PATIENT, mount].concat();
        self.scene.must("sh", &["-ec", &mount, "mount", &aside]);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let umount = [PATIENT, "patient umount \"$STORE\""].concat();
        self.scene.must("sh", &["-ec", &umount]);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    /// Empties the store.
    fn forget(&self) {
        std::fs::remove_dir_all(self.scene.store()).unwrap();
        std::fs::create_dir(self.scene.store()).unwrap();
    }

    /// Checks what a build may have become that something was done to: right, or failed with words.
    fn failed_or_right(&self, what: &str, output: &Output) {
        let said = output.stderr_text();
        match output.code {
            Some(0) => assert!(
                self.take_result().is_some_and(|bytes| bytes == self.clean),
                "{what}: a wrong image, and exit code 0\n{said}"
            ),
            // What wakes a sleeping thread is a write, too; no disk makes it fail.
            Some(101) if said.contains("failed to wake I/O driver") => {}
            Some(1..=3) => assert!(said.contains("error"), "{what}: it failed without a word\n{said}"),
            other => panic!("{what}: exit code {other:?}\n{said}"),
        }
        let _partial = self.take_result();
    }

    /// Checks that the next build is right and everything in order; `before` is what the build said that was injured.
    fn recovers(&self, what: &str, before: &Output) {
        let said = self.builds_right(what);
        // What was finished is used.
        let now = progress::steps(&said);
        for step in progress::steps(&before.stderr_text()).ran {
            let is_reused = before.code != Some(0) && !before.stderr_text().contains("ERROR:");
            assert!(
                !is_reused || now.cached.contains(&step),
                "{what}: `{step}` was finished and ran again\n{}\n----\n{said}",
                before.stderr_text()
            );
        }
        self.is_sound(what);
    }

    /// Builds once more, and checks that it is the same image. Returns what the build said.
    fn builds_right(&self, what: &str) -> String {
        let _partial = self.take_result();
        let output = self.scene.run("ashlar", &self.args());
        let said = output.stderr_text();
        assert_eq!(output.code, Some(0), "{what}: {said}");
        let is_same = self.take_result().is_some_and(|bytes| bytes == self.clean);
        assert!(is_same, "{what}: not the same image\n{said}");
        said
    }

    /// Checks that a deep look finds nothing wrong, and that nothing is left behind.
    fn is_sound(&self, what: &str) {
        let checked = self.scene.run("ashlar", &["check", "--deep"]);
        assert_eq!(checked.code, Some(0), "{what}: {}", checked.stdout_text());
        let problems = validate::problems(&self.scene);
        assert_eq!(problems, Vec::<String>::new(), "{what}");
    }
}
