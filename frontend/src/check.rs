//! Which lint rules are off, and whether warnings stop the build: the `check` directive. Spec: dockerfile.md §2.2.
//!
//! The rules themselves live where what they look at is read: in `parse` and `lower`.

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};

/// A parsed `check` value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Rules that are off, in lower case.
    skip: Vec<String>,
    skip_all: bool,
    /// Makes warnings stop the build.
    pub error: bool,
}

impl Check {
    /// Reads `skip=A,B;error=true`. The error is a message for a diagnostic.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut check = Self::default();
        let fields: Vec<&str> = text
            .split(';')
            .map(str::trim)
            .filter(|field| !field.is_empty())
            .collect();
        if fields.len() > 3 {
            return Err(format!(
                "invalid check option \"{text}\": at most three fields are allowed"
            ));
        }
        for field in fields {
            let (key, value) = field
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .unwrap_or((field, ""));
            match (key, value.to_ascii_lowercase().as_str()) {
                ("skip", "all") => check.skip_all = true,
                ("skip", rules) => check.skip = rules.split(',').map(|rule| rule.trim().to_owned()).collect(),
                ("error", "true" | "1") => check.error = true,
                ("error", "false" | "0") => check.error = false,
                // No experimental rule exists yet, so there is nothing to turn on.
                ("experimental", _) => {}
                _ => return Err(format!("invalid check option \"{field}\"")),
            }
        }
        Ok(check)
    }

    /// Drops the warnings of rules that are off.
    pub fn filter(&self, diagnostics: &mut Diagnostics) {
        diagnostics.retain(|diagnostic| match diagnostic.rule {
            Some(rule) => {
                !self.skip_all && !self.skip.iter().any(|skipped| rule.eq_ignore_ascii_case(skipped))
            }
            None => true,
        });
    }

    /// Returns the error for `error=true` when there are warnings.
    pub(crate) fn violation(&self, rules: impl IntoIterator<Item = &'static str>) -> Option<Diagnostic> {
        let mut rules: Vec<&str> = rules.into_iter().collect();
        rules.sort_unstable();
        rules.dedup();
        (self.error && !rules.is_empty())
            .then(|| Diagnostic::error(format!("lint violation found for rules: {}", rules.join(", "))))
    }
}

/// Returns the rules of the warnings in `diagnostics`.
pub(crate) fn fired(diagnostics: &Diagnostics) -> impl Iterator<Item = &'static str> {
    diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Warning)
        .filter_map(|diagnostic| diagnostic.rule)
}
