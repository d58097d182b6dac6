//! The text of a file of cases, read and written. Nothing is built here.

use std::fmt::Write as _;

/// One case.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// 1-based line of its first line.
    pub(crate) line: usize,
    /// Ids and words.
    pub(crate) title: String,
    pub(crate) dockerfile: String,
    /// Lines of what else the build is given.
    pub(crate) options: Vec<String>,
    pub(crate) expected: String,
}

const PARTS: [&str; 3] = ["Dockerfile", "options", "expected"];

/// Characters that an editor would not keep, and how a file writes them.
const PICTURES: [(&str, &str); 7] = [
    ("␠", " "),
    ("␉", "\t"),
    ("␋", "\u{b}"),
    ("␌", "\u{c}"),
    ("␍", "\r"),
    ("⟨BOM⟩", "\u{feff}"),
    ("⟨end⟩\n", ""),
];

/// Reads a file; the error names the line.
pub(crate) fn read(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut part = None;
    for (at, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("# case ") {
            cases.push(Case {
                line: at + 1,
                title: title.to_owned(),
                ..Case::default()
            });
            part = None;
            continue;
        }
        if let Some(name) = section(line) {
            part = Some(name);
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        match part {
            Some("Dockerfile") => case.dockerfile += &format!("{line}\n"),
            Some("options") => case.options.push(line.to_owned()),
            Some("expected") if !line.is_empty() => case.expected += &format!("{line}\n"),
            Some(_) => {}
            None if line.is_empty() || line.starts_with("# ") => {}
            None => return Err(format!("line {}: `{line}` is in no part", at + 1)),
        }
    }
    for case in &mut cases {
        for (picture, character) in PICTURES {
            case.dockerfile = case.dockerfile.replace(picture, character);
        }
    }
    Ok(cases)
}

fn section(line: &str) -> Option<&'static str> {
    let name = line.strip_prefix("-- ")?.strip_suffix(" --")?;
    PARTS.into_iter().find(|part| *part == name)
}

/// Makes what came of a case fit a file: the inverse of reading, and without empty lines.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let trimmed = line.trim_end_matches(' ');
        let _ = writeln!(out, "{trimmed}{}", "␠".repeat(line.len() - trimmed.len()));
    }
    out
}

/// Returns the file with the cases' expectations replaced.
pub(crate) fn write(text: &str, cases: &[Case]) -> String {
    let mut out = String::new();
    let mut cases = cases.iter();
    let mut case = None;
    let mut skipping = false;
    for line in text.lines() {
        if line.starts_with("# case ") {
            if case.is_some() {
                out.push('\n');
            }
            case = cases.next();
            skipping = false;
        } else if let Some(part) = section(line) {
            skipping = part == "expected";
            if let (true, Some(case)) = (skipping, case) {
                let _ = write!(out, "{line}\n{}", case.expected);
            }
        }
        if !skipping {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}
