//! Stores on file systems of all kinds: in memory, on an overlay that no overlay can stand on, on a disk of its own.

use super::Trial;
use crate::script::progress;
use crate::{machine, validate};

const PLACES: [(&str, &str); 3] = [
    ("tmpfs", "mount -t tmpfs -o mode=700 tmpfs \"$STORE\""),
    (
        "overlay",
        "mkdir -p \"$1/l\" \"$1/u\" \"$1/w\"; mount -t overlay -o \"lowerdir=$1/l,upperdir=$1/u,workdir=$1/w\" overlay \"$STORE\"; \
         chmod 700 \"$STORE\"",
    ),
    (
        "ext4",
        "truncate -s 96M \"$1\"; mkfs.ext4 -q -F \"$1\"; patient mount -o loop \"$1\" \"$STORE\"; chmod 700 \"$STORE\"; \
         rmdir \"$STORE/lost+found\"",
    ),
];

/// What changes, removes and replaces what lower layers have, and what only some file systems keep.
const DOCKERFILE: &str = "\
FROM busybox
RUN mkdir /d && echo 1 > /d/one && echo 2 > /d/two && ln /d/one /d/link && ln -s one /d/soft && mkfifo /d/pipe
RUN rm /d/two && rm -r /d/pipe && echo 3 > /d/one && chmod 4711 /d/one && mv /d /e
RUN rm -r /e && mkdir /e && echo opaque > /e/new
COPY --chown=1:2 data /e/data
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t ls /e > /listing && cp /listing /c/ && cat /e/new > /t/x
";

#[test]
fn stores_on_other_file_systems() {
    // hardening R12: the same image everywhere, and all that is done with images
    let Some(trial) = Trial::new("stores_on_other_file_systems", &["root", "exec:mkfs.ext4"]) else {
        return;
    };
    let scene = &trial.scene;
    let clean = {
        std::fs::write(scene.work().join("Dockerfile"), DOCKERFILE).unwrap();
        scene.must("ashlar", &trial.args());
        let clean = trial.take_result().unwrap();
        trial.forget();
        clean
    };
    for (name, mount) in PLACES {
        if name == "ext4" && machine::missing(&["loop"]).is_some() {
            machine::skip("stores_on_other_file_systems/ext4", "needs loop devices");
            continue;
        }
        let _gone = std::fs::remove_file(scene.aside("mounted"));
        trial.on(mount, || {
            for round in ["anew", "again"] {
                let built = scene.run("ashlar", &trial.args());
                let said = built.stderr_text();
                assert_eq!(built.code, Some(0), "{name}, {round}: {said}");
                let is_same = trial.take_result().is_some_and(|bytes| bytes == clean);
                assert!(is_same, "{name}, {round}: another image\n{said}");
                let is_cached = progress::steps(&said).ran.is_empty();
                assert_eq!(is_cached, round == "again", "{name}: {said}");
            }
            let script = "ashlar save -o app.tar app; ashlar rmi app > removed; ashlar prune --all --force > pruned; \
                ls \"$STORE/layers\"; ashlar load -q -i app.tar > loaded; ashlar diff app app";
            let said = scene.must("sh", &["-ec", script]).stdout_text();
            assert_eq!(said, "", "{name}");
            // A container's changes can't lie on an overlay; a step's are in memory.
            let run = scene.run("ashlar", &["run", "--rm", "app", "cat", "/e/new"]);
            let expected = if name == "overlay" { "" } else { "opaque\n" };
            assert_eq!(run.stdout_text(), expected, "{name}: {}", run.stderr_text());
            let checked = scene.run("ashlar", &["check", "--deep"]);
            assert_eq!(checked.code, Some(0), "{name}: {}", checked.stdout_text());
            assert_eq!(validate::store_problems(&scene.store()), Vec::<String>::new(), "{name}");
        });
        // An overlay's directories, or a disk's file, are made anew by the next.
        let aside = scene.aside("mounted").display().to_string();
        scene.must("rm", &["-rf", &aside]);
    }
}
