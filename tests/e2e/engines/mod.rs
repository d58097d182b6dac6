//! Container engines to test against: Debian's dockerd and podman, with places of their own. What `--load` puts into them,
//! what they make of our archives, and we of theirs.

mod docker;
mod dockerd;
pub(crate) mod podman;
mod tls;

use serde_json::Value;

use crate::archive;
use crate::scene::{Output, Scene};
use crate::tree::Times;

/// Writes a context whose image has a large layer that stays and a small one that says `text`.
fn context(scene: &Scene, text: &str) {
    let bin = scene.work().join("root/bin");
    if !bin.exists() {
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy("/bin/busybox", bin.join("cat")).unwrap();
    }
    std::fs::write(scene.work().join("said"), text).unwrap();
    std::fs::write(
        scene.work().join("Dockerfile"),
        "FROM scratch\nCOPY root /\nCOPY said /said\nLABEL who=mason\nCMD [\"/bin/cat\", \"/said\"]\n",
    )
    .unwrap();
}

/// Builds such an image with `--load`, and returns how many bytes the engine got each time that it was sent something.
fn load(scene: &Scene, text: &str, flags: &[&str]) -> (String, Vec<u64>) {
    context(scene, text);
    let build = [&["build", "--progress", "rawjson"], flags, &["."]].concat();
    let output = scene.ashlar_ok(&build);
    (output.stdout_text().trim().to_owned(), sent(&output))
}

/// Reads from raw progress what was sent.
fn sent(output: &Output) -> Vec<u64> {
    let lines = output.stderr_text();
    let lines = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let statuses = lines
        .filter_map(|line| line.get("statuses")?.as_array().cloned())
        .flatten();
    let whole =
        statuses.filter(|status| status["id"] == "sending tarball" && status["current"] == status["total"]);
    whole.filter_map(|status| status["total"].as_u64()).collect()
}

/// Returns the size that `ashlar save --dry-run` foretells.
fn foretold(scene: &Scene, words: &[&str]) -> u64 {
    let said = scene
        .ashlar_ok(&[&["save", "--dry-run"], words].concat())
        .stdout_text();
    let number = said
        .rsplit_once('(')
        .and_then(|(_, rest)| rest.split_once(" bytes)"));
    number.unwrap().0.parse().unwrap()
}

/// Fails unless an archive that somebody else wrote has the image that our store has under `name`.
fn same(scene: &Scene, what: &str, theirs: &std::path::Path, name: &str) {
    let ours = scene.aside("ours.tar");
    scene.ashlar_ok(&["save", "-o", &ours.display().to_string(), name]);
    let (ours, theirs) = (archive::read(&ours).unwrap(), archive::read(theirs).unwrap());
    assert_eq!(ours.id, theirs.id, "{what}");
    let lines = ours
        .tree
        .differences(&theirs.tree, ("the store", what), Times::Compare);
    assert!(lines.is_empty(), "{what}:\n  {}", lines.join("\n  "));
}
