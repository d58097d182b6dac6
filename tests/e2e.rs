//! End-to-end tests: the real binary on real input, one test binary for all of them.
//!
//! `script` runs `testdata/script/*.txt`, each in its own directory and store; `oracle` compares with
//! buildah, `readers` with skopeo and umoci, `tutorials` builds what tutorials teach. What a machine
//! can't do is skipped visibly (`SKIP name: reason` on stderr); `CI=true sh tests/run` forbids skips.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails, and the trees touched here are made by the test itself"
)]

#[path = "e2e/archive.rs"]
mod archive;
#[path = "e2e/bombs.rs"]
mod bombs;
#[path = "e2e/canary.rs"]
mod canary;
#[path = "e2e/engines/mod.rs"]
mod engines;
#[path = "e2e/faults/mod.rs"]
mod faults;
#[path = "e2e/huge.rs"]
mod huge;
#[path = "e2e/machine.rs"]
mod machine;
#[path = "e2e/oracle.rs"]
mod oracle;
#[path = "e2e/probe.rs"]
mod probe;
#[path = "e2e/probe_table.rs"]
mod probe_table;
#[path = "e2e/races.rs"]
mod races;
#[path = "e2e/readers.rs"]
mod readers;
#[path = "e2e/registry/mod.rs"]
mod registry;
#[path = "e2e/rootfs.rs"]
mod rootfs;
#[path = "e2e/rootless.rs"]
mod rootless;
#[path = "e2e/scene.rs"]
mod scene;
#[path = "e2e/script/mod.rs"]
mod script;
#[path = "e2e/scripts.rs"]
mod scripts;
#[path = "e2e/storm.rs"]
mod storm;
#[path = "e2e/tree.rs"]
mod tree;
#[path = "e2e/tutorials.rs"]
mod tutorials;
#[path = "e2e/validate.rs"]
mod validate;
