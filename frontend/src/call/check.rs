//! What could be better in a file, and what is wrong with it.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::json as shapes;
use crate::ast::Dockerfile;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::lower::survey;
use crate::options::{Answers, Options};
use crate::render::{render, render_place};
use crate::source::SourceText;

/// The result of a check.
#[derive(Debug)]
pub struct CheckResult {
    source: SourceText,
    diagnostics: Diagnostics,
}

/// Checks a file as far as `answers` allow; the target's stages, or all when none is named.
pub fn check(dockerfile: &Dockerfile, options: &Options, answers: &Answers) -> CheckResult {
    let every_stage = options.target.is_none();
    let options = Options {
        every_stage,
        ..options.clone()
    };
    CheckResult {
        source: dockerfile.source.clone(),
        diagnostics: survey(dockerfile, &options, answers).diagnostics,
    }
}

impl CheckResult {
    /// Returns the result for a file that could not be read: what parsing found.
    pub fn of_unread(source: &SourceText, diagnostics: Diagnostics) -> Self {
        Self {
            source: source.clone(),
            diagnostics,
        }
    }

    /// Returns all that was found, in the order of the file.
    pub fn diagnostics(&self) -> &Diagnostics {
        &self.diagnostics
    }

    /// Says whether nothing was found that BuildKit would fail for.
    pub fn is_clean(&self) -> bool {
        let advises = |diagnostic: &Diagnostic| diagnostic.rule.is_some_and(|rule| rule.is_own());
        self.diagnostics.iter().all(advises)
    }

    fn of(&self, severity: Severity) -> impl Iterator<Item = &Diagnostic> {
        let all = self.diagnostics.iter();
        all.filter(move |diagnostic| diagnostic.severity == severity)
    }

    /// Returns the errors as they are shown for a build.
    pub fn errors(&self, colour: bool) -> Vec<String> {
        self.of(Severity::Error)
            .map(|error| render(error, &self.source, colour))
            .collect()
    }

    /// Returns the warnings for people.
    pub fn text(&self) -> String {
        let mut out = match self.of(Severity::Warning).count() {
            0 if self.diagnostics.has_errors() => String::new(),
            0 => "Check complete, no warnings found.\n".to_owned(),
            1 => "Check complete, 1 warning has been found!\n".to_owned(),
            count => format!("Check complete, {count} warnings have been found!\n"),
        };
        for warning in self.of(Severity::Warning) {
            out.push_str("\nWARNING: ");
            if let Some(rule) = warning.rule {
                out.push_str(rule.name());
            }
            if let Some(url) = warning.rule.and_then(|rule| rule.url()) {
                let _ = write!(out, " - {url}");
            }
            let _ = writeln!(out, "\n{}", crate::render::visible(&warning.detail()));
            out.push_str(&render_place(warning, &self.source));
        }
        out
    }

    /// Returns everything for programs.
    pub fn json(&self) -> String {
        let warnings: Vec<Value> = self
            .of(Severity::Warning)
            .map(|warning| self.warning(warning))
            .collect();
        let mut out = json!({
            "warnings": warnings,
            "sources": [{
                "filename": self.source.name(),
                "data": shapes::data(&self.source),
                "language": "Dockerfile",
            }],
        });
        if let Some(error) = self.of(Severity::Error).next() {
            let mut location = error
                .span
                .map_or_else(|| json!({}), |span| shapes::location(&self.source, span));
            location["sourceIndex"] = 0.into();
            out["buildError"] = json!({"message": error.message, "location": location});
        }
        shapes::pretty(&out)
    }

    fn warning(&self, warning: &Diagnostic) -> Value {
        let mut out = Map::new();
        if let Some(rule) = warning.rule {
            out.insert("ruleName".to_owned(), rule.name().into());
            out.insert("description".to_owned(), rule.description().into());
            shapes::insert_text(&mut out, "url", &rule.url().unwrap_or_default());
        }
        out.insert("detail".to_owned(), warning.detail().into());
        // Without a place it belongs to no source: BuildKit's index is -1 then.
        let location = match warning.span {
            Some(span) => shapes::location(&self.source, span),
            None => json!({"sourceIndex": -1}),
        };
        out.insert("location".to_owned(), location);
        out.into()
    }
}
