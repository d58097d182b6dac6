//! Progress for programs: BuildKit's `SolveStatus`, one JSON object per line.
//!
//! Log data is the sanitised text, in base64 as the format wants it. Steps are named by a digest made of their number and name:
//! unique within one build, of no other meaning.

use std::io::Write;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cache::Digest;
use frontend::{Diagnostic, Diagnostics, Severity, SourceText};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Display;
use super::steps::{State, Steps, Update};

/// The machine-readable format.
pub(crate) struct RawJson<W> {
    out: W,
    /// When the build began; everything else is told as time since then.
    epoch: SystemTime,
}

impl<W: Write> RawJson<W> {
    /// Returns a display that writes to `out` and counts from `epoch`.
    pub(crate) fn new(out: W, epoch: SystemTime) -> Self {
        Self { out, epoch }
    }

    fn stamp(&self, at: Duration) -> String {
        // Years beyond 9999 can't be written; no clock says so, and an empty text harms no one.
        OffsetDateTime::from(self.epoch + at)
            .format(&Rfc3339)
            .unwrap_or_default()
    }

    fn vertex(&self, place: usize, steps: &Steps, now: Duration) -> Value {
        let step = steps.get(place);
        let mut vertex = json!({
            "digest": digest(place, steps),
            "name": step.name,
            "started": self.stamp(step.started),
        });
        if step.state != State::Running {
            vertex["completed"] = self.stamp(now).into();
        }
        match &step.state {
            State::Cached => vertex["cached"] = true.into(),
            State::Failed(error) => vertex["error"] = error.as_str().into(),
            State::Cancelled => vertex["error"] = "context canceled".into(),
            State::Running | State::Done(_) => {}
        }
        vertex
    }

    fn status(&self, update: &Update, steps: &Steps, now: Duration) -> Value {
        match update {
            Update::Started(place) | Update::Explained(place) | Update::Ended(place) => {
                json!({ "vertexes": [self.vertex(*place, steps, now)] })
            }
            Update::Lines(place, lines) => {
                let data = lines
                    .iter()
                    .flat_map(|line| [line.as_bytes(), b"\n"])
                    .collect::<Vec<_>>()
                    .concat();
                json!({ "logs": [{
                    "vertex": digest(*place, steps),
                    "stream": 1,
                    "data": STANDARD.encode(&data),
                    "timestamp": self.stamp(now),
                }] })
            }
            Update::Part(place, part) => {
                let part = &steps.get(*place).parts[*part];
                let mut status = json!({
                    "id": part.name,
                    "vertex": digest(*place, steps),
                    "current": part.current_bytes,
                    "timestamp": self.stamp(now),
                    "started": self.stamp(part.since),
                });
                if let Some(total) = part.total_bytes {
                    status["total"] = total.into();
                }
                if part.done {
                    status["completed"] = self.stamp(now).into();
                }
                json!({ "statuses": [status] })
            }
            Update::Warning(text) => {
                json!({ "warnings": [{ "level": 1, "short": STANDARD.encode(text.as_bytes()) }] })
            }
        }
    }
}

impl<W: Write> Display for RawJson<W> {
    fn show(&mut self, update: &Update, steps: &Steps, now: Duration) {
        let line = format!("{}\n", self.status(update, steps, now));
        // A reader that went away must not fail the build.
        let _ = self
            .out
            .write_all(line.as_bytes())
            .and_then(|()| self.out.flush());
    }

    fn tick(&mut self, _: &Steps, _: Duration) {}

    fn finish(&mut self, _: &Steps, _: Duration) {}
}

/// Returns what could be better in a Dockerfile as BuildKit's warnings: an array.
pub(crate) fn warnings(diagnostics: &Diagnostics, source: &SourceText) -> Value {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Warning)
        .map(|diagnostic| warning(diagnostic, source))
        .collect()
}

/// Returns them as one line; empty when there are none.
pub(crate) fn warnings_line(diagnostics: &Diagnostics, source: &SourceText) -> String {
    let warnings = warnings(diagnostics, source);
    match warnings.as_array().is_none_or(Vec::is_empty) {
        true => String::new(),
        false => format!("{}\n", json!({ "warnings": warnings })),
    }
}

fn warning(diagnostic: &Diagnostic, source: &SourceText) -> Value {
    let name = diagnostic.rule.map_or("", |rule| rule.name());
    let mut short = format!("{name}: {}", diagnostic.detail());
    let mut value = json!({ "level": 1 });
    if let Some(span) = diagnostic.span {
        let (first, last) = source.line_range(span);
        short.push_str(&format!(" (line {first})"));
        value["range"] = json!([{"start": {"line": first}, "end": {"line": last}}]);
        value["sourceInfo"] = json!({"filename": source.name(), "language": "Dockerfile"});
    }
    value["short"] = STANDARD.encode(short.as_bytes()).into();
    if let Some(rule) = diagnostic.rule {
        value["detail"] = json!([STANDARD.encode(rule.description().as_bytes())]);
        value["url"] = rule.url().unwrap_or_default().into();
    }
    value
}

fn digest(place: usize, steps: &Steps) -> String {
    Digest::of(format!("{place} {}", steps.get(place).name).as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_one_line_with_rule_place_and_page() {
        let source = SourceText::new("Dockerfile", b"FROM scratch\nMAINTAINER me\n");
        let (_, found) = frontend::parse("Dockerfile", source.text().as_bytes());
        let line = warnings_line(&found, &source);
        let value: Value = serde_json::from_str(&line).unwrap();
        let warning = &value["warnings"][0];
        let short =
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)";
        assert_eq!(warning["short"], STANDARD.encode(short.as_bytes()));
        assert_eq!(warning["range"][0]["start"]["line"], 2);
        assert!(
            warning["url"]
                .as_str()
                .unwrap()
                .ends_with("/maintainer-deprecated/")
        );
        assert_eq!(warnings_line(&Diagnostics::default(), &source), "");
    }
}
