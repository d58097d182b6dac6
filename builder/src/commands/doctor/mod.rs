//! `ashlar doctor`: what of this machine builds can use, what is missing, and how to get it.
//!
//! What can be tried is tried (`checks`), never concluded from version numbers or from what is installed. Nothing is left
//! behind, and no store is made; but where control groups of version 2 can hand controllers on, they do from then on.

mod checks;
mod extras;
mod platforms;
mod surroundings;

use std::path::Path;

use serde_json::json;

use crate::cli::DoctorArgs;
use crate::report::Failure;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Ok,
    /// Builds run, but without something.
    Limited,
    /// Builds that run something can't be made.
    Missing,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// How to get what is missing.
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn limited(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Limited,
            advice: Some(advice.into()),
            ..Self::ok(name, found)
        }
    }

    fn missing(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Missing,
            ..Self::limited(name, found, advice)
        }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

/// Looks at the machine; returns what to print, and the exit code: 0 if builds can run.
pub(crate) fn doctor(args: &DoctorArgs, store_root: &Path) -> Result<(String, u8), Failure> {
    let as_json = match args.format.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Failure::usage(format!("unknown format `{other}`")).with_help("one of text, json"));
        }
    };
    // First: it needs a process with one thread.
    let mut checks = checks::of_containers(store_root);
    checks.extend(surroundings::all(store_root));
    let is_usable = checks.iter().all(|check| check.verdict != Verdict::Missing);
    let text = match as_json {
        true => json_of(&checks),
        false => table_of(&checks),
    };
    Ok((text, u8::from(!is_usable)))
}

fn json_of(checks: &[Check]) -> String {
    let objects = checks.iter().map(|check| {
        json!({
            "check": check.name,
            "verdict": check.verdict.word(),
            "found": check.found,
            "advice": check.advice,
        })
    });
    format!("{:#}\n", serde_json::Value::Array(objects.collect()))
}

fn table_of(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        text.push_str(&format!(
            "{:<8} {:<10} {}\n",
            check.verdict.word(),
            check.name,
            check.found
        ));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("{:<19} to do: {advice}\n", ""));
        }
    }
    let missing: Vec<&str> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Missing)
        .map(|check| check.name)
        .collect();
    text.push_str(&match missing.as_slice() {
        [] => "Builds can run here.\n".to_owned(),
        names => format!("Builds can't run here: {}.\n", names.join(", ")),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_to_do() {
        let checks = [
            Check::ok("kernel", "Linux 6.18"),
            Check::limited("erofs", "not here", "load it"),
            Check::missing("overlay", "no", "get one"),
        ];
        insta::assert_snapshot!(table_of(&checks), @r"
        ok       kernel     Linux 6.18
        limited  erofs      not here
                            to do: load it
        missing  overlay    no
                            to do: get one
        Builds can't run here: overlay.
        ");
        assert!(table_of(&checks[..2]).ends_with("Builds can run here.\n"));
        let parsed: serde_json::Value = serde_json::from_str(&json_of(&checks)).unwrap();
        assert_eq!(parsed[1]["verdict"], "limited");
        assert_eq!(parsed[0]["advice"], serde_json::Value::Null);
    }
}
