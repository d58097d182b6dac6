//! What a line of a script can say. `testdata/script/README.md` is the list for those who write one.
//!
//! Each command checks one thing and answers with one sentence when it doesn't hold.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use regex::Regex;
use serde_json::Value;

use super::{Run, progress};
use crate::archive::{self, Image};
use crate::canary::Canary;
use crate::tree::{Kind, Times, text};

type Checked = Result<(), String>;

impl Run {
    /// Executes one command; `fails` says that it must not succeed.
    pub(super) fn execute(&mut self, name: &str, args: &[&str], fails: bool) -> Checked {
        match (name, args) {
            ("ashlar", _) => self.program("ashlar", args, fails),
            ("build", _) => {
                let base = format!(
                    "busybox={}",
                    self.scene.var("BUSYBOX").expect("because every script has it")
                );
                self.program(
                    "ashlar",
                    &[&["build", "--build-context", &base], args].concat(),
                    fails,
                )
            }
            ("sh", [script]) => self.program("sh", &["-ec", script], fails),
            ("canary", []) => {
                let canary = Canary::plant(&self.scene);
                self.scene.set("CANARY", &canary.dir().display().to_string());
                self.canary = Some(canary);
                Ok(())
            }
            ("cd" | "mkdir" | "rm" | "chmod" | "touch" | "cp" | "write" | "env" | "stdin" | "capture", _) => {
                if fails {
                    return Err(format!("`! {name}` means nothing"));
                }
                self.prepare(name, args)
            }
            _ => {
                let checked = self.check(name, args)?;
                match (checked, fails) {
                    (Ok(()), true) => Err("it holds, and was not to".to_owned()),
                    (Err(problem), false) => Err(problem),
                    _ => Ok(()),
                }
            }
        }
    }

    fn program(&mut self, program: &str, args: &[&str], fails: bool) -> Checked {
        let stdin = self.stdin.take();
        self.last = self.scene.run_in(&self.cwd, program, args, stdin.as_deref());
        let said = self.last.stdout_text() + &self.last.stderr_text();
        self.log.push_str(&said);
        let told = |canary: &Canary| canary.is_told(said.as_bytes());
        if self.canary.as_ref().is_some_and(told) {
            return Err("it tells the canary's token".to_owned());
        }
        match self.last.code {
            Some(0) if fails => Err("it succeeded, and was to fail".to_owned()),
            Some(0) => Ok(()),
            // A panic is never the failure that a test asks for.
            Some(101) => Err("exit code 101: it panicked".to_owned()),
            Some(_) if fails => Ok(()),
            Some(code) => Err(format!("exit code {code}")),
            None => Err("a signal ended it".to_owned()),
        }
    }

    /// Commands that set the scene and check nothing.
    fn prepare(&mut self, name: &str, args: &[&str]) -> Checked {
        let fault = |e: std::io::Error| e.to_string();
        match (name, args) {
            ("cd", [dir]) => {
                self.cwd = self.path(dir).canonicalize().map_err(fault)?;
                Ok(())
            }
            ("mkdir", [dir]) => std::fs::create_dir_all(self.path(dir)).map_err(fault),
            ("rm", [path]) => {
                let path = self.path(path);
                if path.is_dir() {
                    std::fs::remove_dir_all(path)
                } else {
                    std::fs::remove_file(path)
                }
                .map_err(fault)
            }
            ("chmod", [mode, path]) => {
                let mode = u32::from_str_radix(mode, 8).map_err(|e| e.to_string())?;
                std::fs::set_permissions(self.path(path), PermissionsExt::from_mode(mode)).map_err(fault)
            }
            ("touch", [path]) => {
                // Not "now": a test must not depend on how fast the machine is.
                let file = std::fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(self.path(path))
                    .map_err(fault)?;
                let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
                file.set_modified(later).map_err(fault)
            }
            ("cp", [from, to]) => {
                let content = self.content(from)?;
                std::fs::write(self.path(to), content).map_err(fault)
            }
            ("write", [path, content]) => std::fs::write(self.path(path), content).map_err(fault),
            ("env", [pair]) => {
                let (key, value) = pair.split_once('=').ok_or("env wants KEY=VALUE")?;
                self.scene.set(key, value);
                Ok(())
            }
            ("stdin", [file]) => {
                self.stdin = Some(self.content(file)?);
                Ok(())
            }
            ("capture", [variable]) => {
                let value = self.last.stdout_text();
                self.scene.set(variable, value.trim());
                Ok(())
            }
            _ => Err(format!("`{name}` does not take {} arguments", args.len())),
        }
    }

    /// Commands that check something: the outer error is a script's fault, the inner one the answer.
    fn check(&mut self, name: &str, args: &[&str]) -> Result<Checked, String> {
        match (name, args) {
            ("stdout", [pattern]) => matches("stdout", pattern, &self.last.stdout_text()),
            ("stderr", [pattern]) => matches("stderr", pattern, &self.last.stderr_text()),
            ("code", [code]) => {
                let expected = code.parse::<i32>().map_err(|e| format!("code {code}: {e}"))?;
                let found = self.last.code;
                Ok(holds(found == Some(expected), || {
                    format!("the exit code was {found:?}, not {expected}")
                }))
            }
            ("cmp", [a, b]) => {
                let same = self.content(a)? == self.content(b)?;
                Ok(holds(same, || format!("{a} and {b} differ")))
            }
            ("equal", [a, b]) => Ok(holds(a == b, || format!("`{a}` is not `{b}`"))),
            ("exists", [_, ..]) => {
                let absent = args
                    .iter()
                    .find(|path| self.path(path).symlink_metadata().is_err());
                Ok(absent.map_or(Ok(()), |path| Err(format!("{path} does not exist"))))
            }
            ("ran" | "cached", [what]) => self.check_steps(name, what),
            ("same-tree", [a, b]) => {
                let (ours, theirs) = (self.image(a)?, self.image(b)?);
                let lines = ours.tree.differences(&theirs.tree, (a, b), Times::Ignore);
                Ok(holds(lines.is_empty(), || {
                    format!("the trees differ:\n  {}", lines.join("\n  "))
                }))
            }
            (_, [image, rest @ ..]) if name.starts_with("image-") => {
                let image = self.image(image)?;
                check_image(&image, name, rest)
            }
            _ => Err(format!("unknown command `{name}` with {} arguments", args.len())),
        }
    }

    fn check_steps(&self, name: &str, what: &str) -> Result<Checked, String> {
        let steps = progress::steps(&self.last.stderr_text());
        let listed = if name == "ran" { steps.ran } else { steps.cached };
        if let Ok(n) = what.parse::<usize>() {
            return Ok(holds(listed.len() == n, || {
                format!("{name} {}, not {n}: {listed:?}", listed.len())
            }));
        }
        let pattern = regex(what)?;
        let found = listed.iter().any(|step| pattern.is_match(step));
        Ok(holds(found, || {
            format!("no step matching /{what}/ among {name}: {listed:?}")
        }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cwd.join(name)
    }

    /// Returns a file's bytes; `stdout` and `stderr` are those of the last program.
    fn content(&self, name: &str) -> Result<Vec<u8>, String> {
        match name {
            "stdout" => Ok(self.last.stdout.clone()),
            "stderr" => Ok(self.last.stderr.clone()),
            _ => std::fs::read(self.path(name)).map_err(|e| format!("{name}: {e}")),
        }
    }

    /// Reads an image: a file or directory of that name, else the store's image through `ashlar save`.
    fn image(&mut self, name: &str) -> Result<Image, String> {
        if name == "stdout" {
            return archive::read_tar(&self.last.stdout);
        }
        let path = self.path(name);
        if path.exists() {
            return archive::read(&path);
        }
        self.n_archives += 1;
        let saved = self.scene.aside(&format!("image-{}.tar", self.n_archives));
        let target = saved.display().to_string();
        let output = self
            .scene
            .run_in(&self.cwd, "ashlar", &["save", "-o", &target, name], None);
        if output.code != Some(0) {
            return Err(format!("cannot save {name}: {}", output.stderr_text()));
        }
        archive::read(&saved)
    }
}

fn holds(truth: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if truth { Ok(()) } else { Err(otherwise()) }
}

/// `^` and `$` match at lines, as in testscript.
fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("(?m){pattern}")).map_err(|e| e.to_string())
}

fn matches(stream: &str, pattern: &str, said: &str) -> Result<Checked, String> {
    let found = regex(pattern)?.is_match(said);
    Ok(holds(found, || format!("{stream} does not match /{pattern}/")))
}

fn check_image(image: &Image, name: &str, args: &[&str]) -> Result<Checked, String> {
    match (name, args) {
        ("image-has", [path]) | ("image-file", [path]) => Ok(holds(image.tree.get(path).is_some(), || {
            format!("{path} is not in the image")
        })),
        ("image-file", [path, content]) => Ok(check_file(image, path, content)),
        ("image-stat", [path, expected]) => {
            let found = image.tree.get(path).map(crate::tree::Node::describe);
            let found = found.unwrap_or_else(|| "nothing".to_owned());
            Ok(holds(found == *expected, || {
                format!("{path} is `{found}`, not `{expected}`")
            }))
        }
        ("image-mtime", [path, seconds]) => {
            let found = image.tree.get(path).map(|node| node.mtime.to_string());
            Ok(holds(found.as_deref() == Some(seconds), || {
                format!("{path} is of {found:?}, not {seconds}")
            }))
        }
        ("image-config", [path, expected]) => {
            let found = lookup(&image.config, path);
            let literal = Value::String((*expected).to_owned());
            let parsed = serde_json::from_str::<Value>(expected);
            let same = found == literal || parsed.is_ok_and(|wanted| wanted == found);
            Ok(holds(same, || format!("{path} is {found}, not {expected}")))
        }
        ("image-env", [pair]) => {
            let listed = lookup(&image.config, ".config.Env");
            let found = listed.as_array().is_some_and(|env| env.iter().any(|e| e == pair));
            Ok(holds(found, || format!("{pair} is not in {listed}")))
        }
        ("image-history", [pattern]) => {
            let entries = lookup(&image.config, ".history");
            let entries = entries.as_array().cloned().unwrap_or_default();
            let texts: Vec<&str> = entries.iter().filter_map(|e| e["created_by"].as_str()).collect();
            let pattern = regex(pattern)?;
            Ok(holds(texts.iter().any(|t| pattern.is_match(t)), || {
                format!("no such entry in {texts:#?}")
            }))
        }
        ("image-layers", [n]) => {
            let layers = lookup(&image.config, ".rootfs.diff_ids");
            let found = layers.as_array().map_or(0, Vec::len);
            Ok(holds(found.to_string() == *n, || {
                format!("{found} layers, not {n}")
            }))
        }
        ("image-media-type", [expected]) => {
            let all = !image.media_types.is_empty() && image.media_types.iter().all(|t| t == expected);
            Ok(holds(all, || format!("the layers are {:?}", image.media_types)))
        }
        ("image-name", [expected]) => {
            let found = image.names.iter().any(|n| n == expected);
            Ok(holds(found, || format!("the names are {:?}", image.names)))
        }
        _ => Err(format!(
            "unknown command `{name}` with {} arguments",
            args.len() + 1
        )),
    }
}

/// Compares a file's content; one newline at its end may be left out in the script.
fn check_file(image: &Image, path: &str, expected: &str) -> Checked {
    let node = image
        .tree
        .get(path)
        .ok_or_else(|| format!("{path} is not in the image"))?;
    let Kind::File {
        content: Some(content),
        ..
    } = &node.kind
    else {
        return Err(format!("{path} is {}, not a small file", node.describe()));
    };
    let same = content == expected.as_bytes() || content.strip_suffix(b"\n") == Some(expected.as_bytes());
    holds(same, || {
        format!("{path}: it is \"{}\", not {expected:?}", text(content))
    })
}

/// Follows `.config.Env[0]` into JSON; `Null` where nothing is. A key with dots is written `["a.b"]`.
fn lookup(value: &Value, path: &str) -> Value {
    let mut at = value;
    let mut rest = path;
    while !rest.is_empty() {
        let step = if let Some(after) = rest.strip_prefix("[\"") {
            let (key, more) = after.split_once("\"]").unwrap_or((after, ""));
            rest = more;
            at.get(key)
        } else if let Some(after) = rest.strip_prefix('[') {
            let (index, more) = after.split_once(']').unwrap_or((after, ""));
            rest = more;
            index.parse::<usize>().ok().and_then(|i| at.get(i))
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let end = after.find(['.', '[']).unwrap_or(after.len());
            rest = &after[end..];
            at.get(&after[..end])
        };
        match step {
            Some(found) => at = found,
            None => return Value::Null,
        }
    }
    at.clone()
}

#[test]
fn json_is_looked_up() {
    let value = serde_json::json!({"config": {"Env": ["A=1"], "Labels": {"a.b/c": "x"}}});
    let check = |path: &str, expected: Value| assert_eq!(lookup(&value, path), expected, "{path}");
    check(".config.Env[0]", Value::from("A=1"));
    check(".config.Env", serde_json::json!(["A=1"]));
    check(".config.Labels[\"a.b/c\"]", Value::from("x"));
    check(".config.Env[7]", Value::Null);
    check(".nothing.at.all", Value::Null);
}
