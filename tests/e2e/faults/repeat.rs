//! The same build again and again: nothing adds up.

use super::{Trial, is_long};

/// Inodes and bytes of a store. The last builds' logs are kept, up to a hundred; what is known of context files is
/// written once they are old enough; SQLite's journal comes and goes.
const MEASURE: &str = "cd \"$STORE\" && find . -not -path './logs/*' -not -name files.memo -not -name 'index-*' -printf '%p %s\\n' | \
    grep -v -x '\\./*[a-z]* 4096' | sort";

#[test]
fn the_same_build_again_and_again() {
    // hardening R10: inodes and bytes of the store are the same after each; failed builds leave nothing either
    let Some(trial) = Trial::new("the_same_build_again_and_again", &["root"]) else {
        return;
    };
    let scene = &trial.scene;
    let measure = || scene.must("sh", &["-c", MEASURE]).stdout_text();
    let fails = "printf 'FROM busybox\\nRUN echo before > /before && false\\n' > failing";
    scene.must("sh", &["-c", fails]);
    let context = format!("busybox={}", crate::rootfs::busybox().display());
    let failing = ["build", "-q", "-f", "failing", "--build-context", &context, "."];
    trial.builds_right("first");
    assert_eq!(scene.run("ashlar", &failing).code, Some(1));
    trial.builds_right("second");
    let before = measure();
    let n_builds = if is_long() { 500 } else { 20 };
    for number in 0..n_builds {
        trial.builds_right("again");
        if number % 10 == 0 {
            assert_eq!(scene.run("ashlar", &failing).code, Some(1));
            trial.builds_right("after one that failed");
        }
        assert_eq!(measure(), before, "the store is another after {number} builds");
    }
    let logs = std::fs::read_dir(scene.store().join("logs")).unwrap().count();
    assert!(logs <= 101, "{logs} builds are remembered");
    trial.is_sound("again and again");
}

#[test]
fn a_long_build_with_few_files() {
    // hardening R10: what a step opens it closes again: far more steps than the builder may have files open
    let Some(trial) = Trial::new("a_long_build_with_few_files", &["root"]) else {
        return;
    };
    // What steps that run at the same time need, and what is kept open.
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let n_files = (n_cores * 4).max(16) * 14 + 150;
    let n_steps = if is_long() { n_files } else { 60 };
    let mut dockerfile = String::new();
    for step in 0..n_steps {
        dockerfile.push_str(&format!("FROM busybox AS s{step}\nRUN echo {step} > /s{step}\n"));
    }
    // What is copied into has all its layers open, so it is given few.
    let groups = n_steps.div_ceil(20);
    for group in 0..groups {
        dockerfile.push_str(&format!("FROM scratch AS g{group}\n"));
        for step in (group * 20..n_steps).take(20) {
            dockerfile.push_str(&format!("COPY --from=s{step} /s{step} /\n"));
        }
    }
    dockerfile.push_str("FROM scratch\n");
    for group in 0..groups {
        dockerfile.push_str(&format!("COPY --from=g{group} / /\n"));
    }
    std::fs::write(trial.scene.work().join("long"), dockerfile).unwrap();
    let context = format!("busybox={}", crate::rootfs::busybox().display());
    let script = format!(
        "ulimit -n {n_files}; ashlar build -q --build-context \"$1\" -o made -f long .; ls made | wc -l"
    );
    let output = trial.scene.must("sh", &["-ec", &script, "build", &context]);
    let told = output.stdout_text();
    assert_eq!(told.lines().last(), Some(&*n_steps.to_string()));
    trial.is_sound("few files");
}
