//! Runs a script: one line after the other, in one scene, and tells of a failure with its phase only.
//!
//! What a line can say is in `commands`; how it is written is in `parse`.

mod commands;
mod parse;
pub(crate) mod progress;

use std::path::{Path, PathBuf};

use crate::canary::Canary;
use crate::scene::{Output, Scene};
use crate::{machine, rootfs, validate};

use parse::{Command, Piece, Script, Word};

/// The state of a script while it runs.
struct Run {
    scene: Scene,
    /// Current directory of commands.
    cwd: PathBuf,
    /// Input for the next `ashlar` or `build`.
    stdin: Option<Vec<u8>>,
    /// What the last program left.
    last: Output,
    /// What was run in this phase and what it said, for the report of a failure.
    log: String,
    n_archives: usize,
    /// What must be untouched at the end, where the script asked for it.
    canary: Option<Canary>,
}

/// How a command ended that didn't fail.
enum Flow {
    Next,
    Skip(String),
}

/// Runs `testdata/script/<name>.txt`; panics with the phase that failed.
pub(crate) fn run(name: &str) {
    run_with(name, &[]);
}

/// Runs a script with additional variables in its environment.
pub(crate) fn run_with(name: &str, env: &[(&str, &str)]) {
    let path = directory().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    match play(name, &text, env) {
        Ok(None) => {}
        Ok(Some(reason)) => machine::skip(name, &reason),
        Err(report) => panic!("{report}"),
    }
}

/// Parses a script without running it; the error names its line.
pub(crate) fn check_syntax(name: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(directory().join(format!("{name}.txt")));
    let text = text.map_err(|e| format!("{name}.txt: {e}"))?;
    parse::parse(&text)
        .map(|_| ())
        .map_err(|e| format!("{name}.txt: {e}"))
}

/// Returns the directory of the scripts.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/script")
}

/// Plays a script to its end; `Some` is the reason for which it skipped itself.
fn play(name: &str, text: &str, env: &[(&str, &str)]) -> Result<Option<String>, String> {
    let script = parse::parse(text).map_err(|e| format!("{name}.txt: {e}"))?;
    if let Some(reason) = machine::missing(&["root"]) {
        return Ok(Some(reason));
    }
    let mut run = Run::new(name, &script);
    for (key, value) in env {
        run.scene.set(key, value);
    }
    for phase in &script.phases {
        run.log.clear();
        for command in &phase.commands {
            match run.step(command) {
                Ok(Flow::Next) => {}
                Ok(Flow::Skip(reason)) => return Ok(Some(reason)),
                Err(error) => return Err(report(name, &phase.title, command, &error, &run.log)),
            }
        }
    }
    let mut problems = validate::problems(&run.scene);
    problems.extend(run.canary.iter().flat_map(|canary| canary.problems(&run.scene)));
    if problems.is_empty() {
        return Ok(None);
    }
    Err(format!("{name}.txt: validate:\n  {}", problems.join("\n  ")))
}

fn report(name: &str, title: &str, command: &Command, error: &str, log: &str) -> String {
    format!("{name}.txt:{}: {error}\n# {title}\n{log}", command.line)
}

impl Run {
    fn new(name: &str, script: &Script) -> Self {
        let mut scene = Scene::new(name);
        scene.set("BUSYBOX", &rootfs::busybox().display().to_string());
        if let Some(dir) = machine::arm64_busybox() {
            scene.set("ARM64_BUSYBOX", &dir.display().to_string());
        }
        let cwd = scene.work();
        for (name, content) in &script.files {
            let path = cwd.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Self {
            scene,
            cwd,
            stdin: None,
            last: Output::default(),
            log: String::new(),
            n_archives: 0,
            canary: None,
        }
    }

    fn step(&mut self, command: &Command) -> Result<Flow, String> {
        for condition in &command.conditions {
            let (wanted, name) = match condition.strip_prefix('!') {
                Some(name) => (false, name),
                None => (true, condition.as_str()),
            };
            if machine::has(name)? != wanted {
                return Ok(Flow::Next);
            }
        }
        let words = command
            .words
            .iter()
            .map(|word| self.expand(word))
            .collect::<Result<Vec<_>, _>>()?;
        let (name, args) = words
            .split_first()
            .expect("because the parser refuses empty commands");
        let mark = if command.fails { "! " } else { "" };
        self.log.push_str(&format!("> {mark}{}\n", words.join(" ")));
        if name == "skip" {
            return Ok(Flow::Skip(args.join(" ")));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.execute(name, &args, command.fails)?;
        Ok(Flow::Next)
    }

    fn expand(&self, word: &Word) -> Result<String, String> {
        let expand = |piece: &Piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Variable(name) => self
                .scene
                .var(name)
                .map(str::to_owned)
                .ok_or_else(|| format!("${name} is not set")),
        };
        word.iter().map(expand).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let result = match play("inline", text, &[]) {
            Ok(None) => "passed".to_owned(),
            Ok(Some(reason)) => format!("skipped: {reason}"),
            Err(report) => report,
        };
        let needs_root = result == "skipped: needs [root]";
        assert!(
            needs_root || result.contains(expected),
            "expected {expected:?} in:\n{result}"
        );
    }

    #[test]
    fn a_script_passes_fails_and_skips() {
        check(
            "sh 'echo a; echo b'\nstdout '^b$'\n! stdout c\nstderr '^$'",
            "passed",
        );
        check(
            "# phase\nsh 'echo a'\nstdout b",
            "inline.txt:3: stdout does not match /b/\n# phase\n> sh echo a\na\n> stdout b\n",
        );
        check("sh 'exit 3'", "inline.txt:1: exit code 3");
        check("! sh 'exit 3'\ncode 3", "passed");
        check("! sh true", "inline.txt:1: it succeeded, and was to fail");
        check(
            "[exec:no-such-program] skip x\nskip 'because so'\nsh false",
            "skipped: because so",
        );
        check("nonsense", "unknown command `nonsense`");
        check("exists $X", "inline.txt:1: $X is not set");
    }

    #[test]
    fn files_variables_and_directories() {
        check(
            "cmp a b\n! cmp a c\n-- a --\n1\n-- b --\n1\n-- c --\n2\n",
            "passed",
        );
        check("cmp a c\n-- a --\n1\n-- c --\n2\n", "a and c differ");
        check(
            "env X=1\nmkdir d\ncd d\nwrite f v$X\nexists f\ncd ..\nsh 'cat d/f'\nstdout '^v1$'",
            "passed",
        );
        check(
            "chmod 0600 a\nsh 'stat -c %a a'\nstdout 600\nrm a\n! exists a\n-- a --\n",
            "passed",
        );
        check(
            "sh 'echo id'\ncapture ID\nequal $ID id\n! equal $ID other\nstdin a\n-- a --\n",
            "passed",
        );
        check(
            "sh 'mkdir -p $STORE/incomplete; : > $STORE/incomplete/x'",
            "validate:",
        );
    }

    #[test]
    fn trees_are_compared() {
        let script = "sh 'mkdir -p a/d b; echo x > a/d/f; cp -a a/. b; tar -C a -cf a.tar .'\n\
                      same-tree a b\nsame-tree a a.tar\nimage-file a.tar /d/f x\n\
                      image-stat a.tar /d/f 'file 0644 0:0'\n! image-file a.tar /e\nimage-has a.tar /d\n";
        check(script, "passed");
        check("sh 'mkdir a b; : > a/f'\nsame-tree a b", "/f: only in a");
        check("sh 'mkdir a; echo y > a/f'\nimage-file a f z", "it is \"y\\n\"");
    }
}
