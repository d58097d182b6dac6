//! Which lint rules are heard, and whether they stop the build: the `check` directive at the top of a file, comments
//! of the same form above single instructions, and the build argument that replaces the directive.
//! Spec: dockerfile.md §2.2.

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::lint::Rule;
use crate::source::Span;

/// A parsed `check` value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    skip: Rules,
    experimental: Rules,
    /// Makes warnings stop the build.
    pub error: bool,
    /// Names that no rule has.
    unknown: Vec<String>,
}

/// Most names without a rule that are told of.
const MAX_UNKNOWN: usize = 100;

/// Rules that were named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    named: Vec<Rule>,
    all: bool,
}

impl Rules {
    fn add(&mut self, names: &str, unknown: &mut Vec<String>) {
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match Rule::find(name) {
                _ if name.eq_ignore_ascii_case("all") => self.all = true,
                Some(rule) if !self.named.contains(&rule) => self.named.push(rule),
                Some(_) => {}
                None if unknown.len() < MAX_UNKNOWN => unknown.push(name.to_owned()),
                None => {}
            }
        }
    }
}

impl Check {
    /// Reads `skip=A,B;error=true;experimental=C`. The error is a message for a diagnostic.
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
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            let (key, value) = (key.trim(), value.trim());
            match (key, value.to_ascii_lowercase().as_str()) {
                ("skip", _) if field.contains('=') => check.skip.add(value, &mut check.unknown),
                ("experimental", _) if field.contains('=') => {
                    check.experimental.add(value, &mut check.unknown)
                }
                ("error", "true" | "t" | "1") => check.error = true,
                ("error", "false" | "f" | "0") => check.error = false,
                _ => return Err(format!("invalid check option \"{field}\"")),
            }
        }
        Ok(check)
    }

    /// Reads the comment above an instruction, after its `check=`; `None` when it is a comment like any other.
    fn parse_local(text: &str) -> Option<Result<Self, String>> {
        let keys: Vec<&str> = text
            .split(';')
            .map(|field| field.split('=').next().unwrap_or_default().trim())
            .collect();
        if keys.contains(&"error") {
            let message = "check option \"error\" is for the whole file, not for one instruction";
            return Some(Err(message.to_owned()));
        }
        // People wrote such comments before they meant anything.
        keys.iter()
            .all(|key| ["skip", "experimental", ""].contains(key))
            .then(|| Self::parse(text))
    }

    fn skips(&self, rule: Rule) -> bool {
        self.skip.named.contains(&rule) || (self.skip.all && !rule.is_experimental())
    }

    fn asks_for(&self, rule: Rule) -> bool {
        self.experimental.all || self.experimental.named.contains(&rule)
    }

    /// Returns a warning for each name that no rule has: BuildKit passes over them, and over a misspelling as well.
    pub(crate) fn warn_of_unknown(&self, span: Option<Span>, diagnostics: &mut Diagnostics) {
        for name in &self.unknown {
            let shown: String = name.chars().take(64).collect();
            let warning =
                Diagnostic::warning(Rule::UnknownRule, format!("there is no rule called `{shown}`"))
                    .suggest(name, Rule::all().map(Rule::name));
            diagnostics.push(Diagnostic { span, ..warning });
        }
    }
}

/// What a whole file says about rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// For all of it.
    file: Check,
    /// For single instructions, in the order of the file.
    local: Vec<(Span, Check)>,
}

impl Checks {
    /// Begins with what the directive says.
    pub(crate) fn of_file(file: Check) -> Self {
        Self {
            file,
            local: Vec::new(),
        }
    }

    /// Says the same of single instructions, and `file` of the file.
    pub(crate) fn replaced(&self, file: Check) -> Self {
        Self {
            file,
            local: self.local.clone(),
        }
    }

    /// Reads a comment above the instruction at `instruction`; says whether it is one about rules.
    pub(crate) fn read_comment(
        &mut self,
        comment: &str,
        place: Span,
        instruction: Span,
        diagnostics: &mut Diagnostics,
    ) -> bool {
        let Some((key, value)) = comment.split_once('=') else {
            return false;
        };
        if !key.trim().eq_ignore_ascii_case("check") {
            return false;
        }
        match Check::parse_local(value) {
            None => return false,
            Some(Ok(check)) => {
                check.warn_of_unknown(Some(place), diagnostics);
                self.local.push((instruction, check));
            }
            Some(Err(message)) => diagnostics.push(Diagnostic::error(message).at(place)),
        }
        true
    }

    /// Returns what is said of the instruction that holds `span`.
    fn local(&self, span: Span) -> impl Iterator<Item = &Check> {
        let next = self.local.partition_point(|(place, _)| place.start <= span.start);
        let before = self.local[..next].iter().rev();
        before
            .take_while(move |(place, _)| span.start <= place.end)
            .map(|(_, check)| check)
    }

    /// Says whether a finding is to be told.
    fn allows(&self, diagnostic: &Diagnostic) -> bool {
        let Some(rule) = diagnostic.rule else {
            return true;
        };
        let mut all = vec![&self.file];
        all.extend(diagnostic.span.into_iter().flat_map(|span| self.local(span)));
        let is_asked_for = !rule.is_experimental() || all.iter().any(|check| check.asks_for(rule));
        is_asked_for && !all.iter().any(|check| check.skips(rule))
    }

    /// Drops the warnings of rules that are off.
    pub fn filter(&self, diagnostics: &mut Diagnostics) {
        diagnostics.retain(|diagnostic| self.allows(diagnostic));
    }

    /// Returns the error for `error=true` when there are warnings among `diagnostics`, which were filtered.
    pub(crate) fn violation(&self, diagnostics: &Diagnostics) -> Option<Diagnostic> {
        let mut rules: Vec<&str> = diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Warning)
            .filter_map(|diagnostic| diagnostic.rule)
            .filter(|rule| !rule.is_own())
            .map(Rule::name)
            .collect();
        rules.sort_unstable();
        rules.dedup();
        (self.file.error && !rules.is_empty())
            .then(|| Diagnostic::error(format!("lint violation found for rules: {}", rules.join(", "))))
    }
}
