//! The cases of the language that need no container, as data: `testdata/cases/*.txt`.
//!
//! A case is a line `# case P6: words`, then the Dockerfile, what else the build is given, and what must come of it:
//! the diagnostics as a user sees them, or the steps, the config and the warnings. `ASHLAR_BLESS=1` writes what came
//! into the files, for reading the difference. The format is described in `testdata/cases/README.md`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(
    clippy::disallowed_methods,
    reason = "the files read and written are the repository's own"
)]

#[path = "cases/build.rs"]
mod build;
#[path = "cases/format.rs"]
mod format;
#[path = "cases/show.rs"]
mod show;

use std::path::{Path, PathBuf};

use format::Case;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/cases")
}

/// Runs all cases of a file and compares what comes of each.
fn check_file(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut cases = format::read(&text).unwrap_or_else(|error| panic!("{name}.txt: {error}"));
    assert!(!cases.is_empty(), "{name}.txt has no cases");
    let mut wrong = Vec::new();
    for case in &mut cases {
        let came = came_of(case);
        if came != case.expected {
            wrong.push(format!(
                "{name}.txt:{}: # case {}\n-- expected --\n{}-- but it is --\n{came}",
                case.line, case.title, case.expected
            ));
            case.expected = came;
        }
    }
    if std::env::var_os("ASHLAR_BLESS").is_some() {
        std::fs::write(&path, format::write(&text, &cases)).unwrap();
        return;
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn came_of(case: &Case) -> String {
    let outcome = build::build(&case.dockerfile, &case.options);
    let mut out = show::outcome(&outcome, &case.options);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    format::visible(&out)
}

macro_rules! files {
    ($($name:ident),* $(,)?) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                check_file(stringify!($name));
            }
        )*
    };
}

files! {
    checks,
    forms,
    heredocs,
    history,
    instructions,
    parser,
    stages,
    variables,
}

#[test]
fn every_file_is_listed() {
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, FILES);
}
