//! The invariants of ARCHITECTURE.md that sources and `cargo metadata` can show.
//!
//! The checks look at text, not at syntax: cheap, and strict where they err.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "invariants/cases.rs"]
mod cases;
#[path = "invariants/hardening.rs"]
mod hardening;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The crates in their line; each may use only what stands before it.
const LINE: [&str; 4] = ["cache", "solver", "frontend", "builder"];
/// Longer files are split.
const MAX_LINES: usize = 600;

struct Source {
    /// Relative to the workspace, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Returns the lines of code that are not comments, with their 1-based number.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self
            .text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.trim()));
        numbered.filter(|(_, line)| !line.starts_with("//"))
    }

    /// Returns the code before the module of tests, which always stands at the end of a file.
    fn product_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code: Vec<(usize, &str)> = self.code().collect();
        let is_tests = |pair: &&[(usize, &str)]| {
            pair[0].1 == "#[cfg(test)]" && pair[1].1.starts_with("mod ") && pair[1].1.ends_with('{')
        };
        let tests = code.windows(2).find(is_tests).map(|pair| pair[0].0);
        let inside = self.path.ends_with("tests.rs") || self.path.contains("/tests/");
        let end = if inside { 0 } else { tests.unwrap_or(usize::MAX) };
        code.into_iter().take_while(move |(at, _)| *at < end)
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("because the crate is a folder of the workspace")
        .to_owned()
}

/// Returns every Rust source below the given folders of the workspace.
fn sources(folders: &[&str]) -> Vec<Source> {
    let root = workspace();
    let mut pending: Vec<PathBuf> = folders.iter().map(|f| root.join(f)).collect();
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push(Source {
                    path: name,
                    text: std::fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources in {folders:?}");
    found
}

fn all() -> Vec<Source> {
    sources(&["cache/src", "solver/src", "frontend/src", "builder/src", "tests"])
}

/// Fails with every line of product code that contains one of `words`, in the files that `applies` picks.
fn forbid(folders: &[&str], words: &[&str], applies: fn(&Source) -> bool) {
    let mut found = Vec::new();
    for source in sources(folders).into_iter().filter(applies) {
        for (at, line) in source.product_code() {
            found.extend(
                words
                    .iter()
                    .filter(|w| contains_word(line, w))
                    .map(|w| format!("{}:{at}: {w}", source.path)),
            );
        }
    }
    assert!(found.is_empty(), "not allowed there:\n  {}", found.join("\n  "));
}

/// `print!` is not in `eprint!`: what stands before the word must not be part of a name.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

#[test]
fn crates_stand_in_one_line() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let place = |name: &str| LINE.iter().position(|c| name == format!("ashlar-{c}"));
    assert_eq!(packages.len(), LINE.len(), "a crate is not in the line");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let own = place(name).unwrap_or_else(|| panic!("{name} has no place in {LINE:?}"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let used_place = place(used);
            assert!(used_place.is_none_or(|p| p < own), "{name} must not use {used}");
        }
    }
}

#[test]
fn frontend_does_no_input_or_output() {
    let words = [
        "std::fs",
        "std::net",
        "std::env",
        "std::time",
        "std::process",
        "std::io::stdin",
        "tokio",
        "rustix",
        "libc::",
    ];
    forbid(&["frontend/src"], &words, |_| true);
}

#[test]
fn solver_and_cache_touch_no_network_and_no_environment() {
    forbid(
        &["cache/src", "solver/src"],
        &["std::net", "std::env", "reqwest", "std::process::Command"],
        |_| true,
    );
    forbid(&["cache/src"], &["tokio", "fsopen", "fsmount", "mount("], |_| {
        true
    });
}

#[test]
fn unsafe_lives_in_one_file() {
    let own =
        |source: &Source| source.path != "builder/src/sandbox/sys.rs" && source.path != "tests/invariants.rs";
    let mut found = Vec::new();
    for source in all().into_iter().filter(own) {
        let code = source
            .code()
            .filter(|(_, line)| contains_word(line, "unsafe ") || contains_word(line, "unsafe_code"));
        found.extend(code.map(|(at, _)| format!("{}:{at}", source.path)));
    }
    assert!(
        found.is_empty(),
        "unsafe outside builder/src/sandbox/sys.rs: {found:?}"
    );
}

#[test]
fn printing_lives_in_progress_and_report() {
    let words = [
        "println!",
        "print!",
        "eprintln!",
        "eprint!",
        "io::stdout()",
        "io::stderr()",
        "stdout().lock",
        "dbg!",
    ];
    let elsewhere = |source: &Source| {
        let may = ["builder/src/progress", "builder/src/report"];
        !may.iter().any(|p| source.path.starts_with(p))
    };
    forbid(
        &["cache/src", "solver/src", "frontend/src", "builder/src"],
        &words,
        elsewhere,
    );
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    let mut found = Vec::new();
    for source in all() {
        if !source.text.starts_with("//!") {
            found.push(format!("{} does not open with //!", source.path));
        }
        let n_lines = source.text.lines().count();
        if n_lines > MAX_LINES {
            found.push(format!(
                "{} has {n_lines} lines, more than {MAX_LINES}",
                source.path
            ));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn architecture_names_files_that_exist() {
    let root = workspace();
    let Ok(text) = std::fs::read_to_string(root.join("ARCHITECTURE.md")) else {
        // Past libtest's capture; CI makes a failure of it.
        let _ = writeln!(
            std::io::stderr(),
            "SKIP invariants/architecture: ARCHITECTURE.md is not there"
        );
        return;
    };
    let named = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| is_path(word))
        .collect::<Vec<_>>();
    assert!(!named.is_empty(), "ARCHITECTURE.md names no file");
    let missing: Vec<_> = named
        .into_iter()
        .filter(|path| !root.join(path).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what does not exist: {missing:?}"
    );
}

/// A word in backticks that is a path into one of the workspace's folders, without wildcards.
fn is_path(word: &str) -> bool {
    let folder = word.split('/').next().unwrap_or_default();
    let known = LINE.contains(&folder) || ["tests", "testdata"].contains(&folder);
    known && word.contains('/') && !word.contains(['*', '{', '<', ' ', '…'])
}

#[test]
fn words_are_found_only_where_they_begin() {
    assert!(contains_word("std::print!(x)", "print!"));
    assert!(!contains_word("eprint!(x)", "print!"));
    assert!(!contains_word("my_unsafe x", "unsafe "));
    assert!(is_path("builder/src/main.rs"));
    assert!(!is_path("builder/src/{a,b}.rs") && !is_path("main") && !is_path("std/fs"));
}
