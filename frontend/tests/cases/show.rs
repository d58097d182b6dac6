//! What came of a case, as text: short enough to be read for every case.

use std::fmt::Write as _;

use frontend::{Diagnostics, Severity, render};
use serde_json::Value;
use solver::graph::{InputView, Vertex, VertexId};
use solver::op::{Copy, Exec, FileAction, Op, Source};

use crate::build::{Built, Outcome};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns everything that a case can be about; `show` lines of its options ask for more.
pub(crate) fn outcome(outcome: &Outcome, options: &[String]) -> String {
    let mut out = String::new();
    let wanted = |what: &str| options.iter().any(|line| line == &format!("show {what}"));
    if wanted("nothing") {
        out.push_str("accepted\n");
        assert!(matches!(outcome.lowered, Some(Ok(_))), "it is refused");
        return out;
    }
    let warnings = wanted("warnings");
    // What lowering returns has the warnings of parsing.
    let is_final = outcome.lowered.is_none();
    diagnostics(&mut out, outcome, &outcome.parsed, warnings && is_final);
    if let (true, Some((value, reference))) = (wanted("syntax"), &outcome.syntax) {
        let _ = writeln!(out, "syntax {reference} of {value:?}");
    }
    for asked in &outcome.asked {
        let _ = writeln!(out, "asks {asked}");
    }
    match &outcome.lowered {
        None => {}
        Some(Err(found)) => diagnostics(&mut out, outcome, found, warnings),
        Some(Ok(build)) => {
            diagnostics(&mut out, outcome, &build.warnings, warnings);
            steps(&mut out, build, wanted("names"));
            if wanted("config") {
                config(&mut out, build);
            }
            if wanted("history") {
                history(&mut out, build);
            }
        }
    }
    if out.is_empty() {
        out.push_str("accepted\n");
    }
    out
}

/// Errors as they are shown; of warnings, where a case is about them, the rule and the line.
fn diagnostics(out: &mut String, outcome: &Outcome, found: &Diagnostics, warnings: bool) {
    for finding in found {
        if finding.severity == Severity::Error {
            out.push_str(&render(finding, &outcome.source, false));
            continue;
        }
        if !warnings {
            continue;
        }
        let line = finding
            .span
            .map_or(0, |span| outcome.source.line_number(span.start));
        let label = finding.label.as_deref().map(|label| format!(" ({label})"));
        let rule = finding.rule.map_or("?", frontend::Rule::name);
        let _ = writeln!(
            out,
            "warning line {line}: {rule}: {}{}",
            finding.message,
            label.unwrap_or_default()
        );
    }
}

/// The vertices that the target needs, inputs first.
fn steps(out: &mut String, build: &Built, names: bool) {
    let mut seen = std::collections::BTreeSet::new();
    let mut work = vec![build.target];
    while let Some(id) = work.pop() {
        if seen.insert(id) {
            work.extend(build.graph.vertex(id).inputs.iter().map(|input| input.vertex));
        }
    }
    for id in seen {
        let vertex = build.graph.vertex(id);
        if names && !matches!(vertex.op, Op::Source(Source::Scratch)) {
            let _ = writeln!(out, "{}", vertex.label.name);
            continue;
        }
        match &vertex.op {
            Op::Source(_) => {}
            Op::Exec(exec) => run(out, exec),
            Op::File(file) => {
                for action in &file.actions {
                    change(out, build, vertex, action);
                }
            }
            other => {
                let _ = writeln!(out, "{other:?}");
            }
        }
    }
}

fn run(out: &mut String, exec: &Exec) {
    let _ = write!(out, "run {}", serde_json::to_string(&exec.args).unwrap());
    for (name, value) in exec.env.iter().filter(|(name, _)| name != "PATH") {
        let _ = write!(out, " {name}={value:?}");
    }
    for (name, value) in &exec.env_unkeyed {
        let _ = write!(out, " ({name}={value:?})");
    }
    if exec.cwd != "/" {
        let _ = write!(out, " in {}", exec.cwd);
    }
    if !exec.user.is_empty() {
        let _ = write!(out, " as {}", exec.user);
    }
    if exec.hostname != "buildkitsandbox" {
        let _ = write!(out, " on {}", exec.hostname);
    }
    if exec.network != solver::op::Network::Default {
        let _ = write!(out, " network {:?}", exec.network);
    }
    for (path, text) in &exec.scripts {
        let _ = write!(out, " with {path} {text:?}");
    }
    out.push('\n');
}

fn change(out: &mut String, build: &Built, vertex: &Vertex, action: &FileAction) {
    match action {
        FileAction::Copy(copy) => copies(out, build, vertex, copy),
        FileAction::Write {
            dest,
            name,
            data,
            change,
        } => {
            let text = String::from_utf8_lossy(data);
            let _ = write!(out, "write {dest} {name} {text:?}");
            metadata(out, change);
        }
        FileAction::MakeDir { path, user } if user.is_empty() => {
            let _ = writeln!(out, "mkdir {path}");
        }
        FileAction::MakeDir { path, user } => {
            let _ = writeln!(out, "mkdir {path} as {user}");
        }
    }
}

fn copies(out: &mut String, build: &Built, vertex: &Vertex, copy: &Copy) {
    let input = &vertex.inputs[copy.input];
    let InputView::Paths(selection) = &input.view else {
        panic!("a copy of a whole input")
    };
    let _ = write!(
        out,
        "copy {:?} of {} to {}",
        selection.patterns,
        origin(build, input.vertex),
        copy.dest
    );
    if copy.unpack {
        out.push_str(" unpacked");
    }
    metadata(out, &copy.change);
}

fn metadata(out: &mut String, change: &solver::op::MetaChange) {
    if let Some(owner) = &change.owner {
        let _ = write!(out, " owner {owner}");
    }
    if let Some(mode) = &change.mode {
        let _ = write!(out, " mode {mode:?}");
    }
    out.push('\n');
}

/// What stands at the bottom of a tree.
fn origin(build: &Built, mut id: VertexId) -> String {
    loop {
        let vertex = build.graph.vertex(id);
        match (&vertex.op, vertex.inputs.first()) {
            (Op::Source(Source::Image { reference, .. }), _) => return reference.clone(),
            (Op::Source(Source::Local { name }), _) => return name.clone(),
            (Op::Source(Source::Scratch), _) => return "scratch".to_owned(),
            (_, Some(input)) => {
                if !vertex.label.name.is_empty() && matches!(vertex.op, Op::Exec(_)) {
                    return vertex.label.step.clone();
                }
                id = input.vertex;
            }
            (op, None) => return format!("{op:?}"),
        }
    }
}

/// What is set in the config, one line each; what every image has is left out.
fn config(out: &mut String, build: &Built) {
    let document: Value = serde_json::from_slice(&build.config.to_json()).unwrap();
    for (name, value) in document.as_object().unwrap() {
        match (name.as_str(), value) {
            ("history" | "rootfs" | "created", _) => {}
            ("os", Value::String(text)) if text == "linux" => {}
            ("architecture", Value::String(text)) if text == "amd64" => {}
            ("config", Value::Object(settings)) => {
                for (name, value) in settings {
                    let _ = writeln!(out, "{name} {}", value.to_string().replace(PATH, "PATH=…"));
                }
            }
            _ => {
                let _ = writeln!(out, "{name} {value}");
            }
        }
    }
}

/// `+` has a layer, `-` has none.
fn history(out: &mut String, build: &Built) {
    for (at, entry) in build.config.history.iter().enumerate() {
        let sign = if entry.empty_layer { '-' } else { '+' };
        let own = at >= build.n_base_history;
        assert_eq!(own, entry.comment == "buildkit.dockerfile.v0", "{entry:?}");
        let base = if own { "" } else { " (of the base)" };
        let _ = writeln!(out, "{sign} {:?}{base}", entry.created_by);
    }
}
