//! What is wrong with a Dockerfile, or could be better: collected, never printed here.
//!
//! Messages keep the key phrases of BuildKit's, so that what people search for finds an answer. How a diagnostic
//! looks on a screen is in `render.rs`.

use crate::lint::Rule;
use crate::source::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The build can go on.
    Warning,
    /// The build can't go on.
    Error,
}

/// Longest message: a variable can hold a megabyte.
const MAX_MESSAGE_CHARS: usize = 1000;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The lint rule; `None` for errors.
    pub rule: Option<Rule>,
    /// What happened: lower case, no period.
    pub message: String,
    /// Where; `None` when it isn't about a place, as with an unknown `--target`.
    pub span: Option<Span>,
    /// Stands next to the marked place, as in "did you mean `COPY`?".
    pub label: Option<String>,
    /// What was probably meant.
    pub suggestion: Option<Box<str>>,
    /// What to do about it, only where that is known.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Returns an error without a place. A message that quotes something huge is cut.
    pub fn error(message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(end);
            message.push('…');
        }
        Self {
            severity: Severity::Error,
            rule: None,
            message,
            span: None,
            label: None,
            suggestion: None,
            help: None,
        }
    }

    /// Returns a warning of a lint rule.
    pub fn warning(rule: Rule, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            rule: Some(rule),
            ..Self::error(message)
        }
    }

    /// Sets the place.
    #[must_use]
    pub fn at(self, span: Span) -> Self {
        Self {
            span: Some(span),
            ..self
        }
    }

    /// Sets the words next to the place.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self {
            label: Some(label.into()),
            ..self
        }
    }

    /// Sets the advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    /// Asks "did you mean …?" when one of `known` is close to `written`.
    #[must_use]
    pub(crate) fn suggest<'a>(self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(written, known) {
            Some(name) => Self {
                suggestion: Some(name.into()),
                ..self.label(format!("did you mean `{name}`?"))
            },
            None => self,
        }
    }

    /// Returns the message as BuildKit words it, for programs that know its words: a capital letter first, and what was
    /// meant behind.
    pub fn detail(&self) -> String {
        let mut chars = self.message.chars();
        let mut detail: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
        detail.push_str(chars.as_str());
        if let Some(name) = &self.suggestion {
            let sign = if self.rule == Some(Rule::UndefinedVar) {
                "$"
            } else {
                ""
            };
            detail.push_str(&format!(" (did you mean {sign}{name}?)"));
        }
        detail
    }
}

/// Returns the candidate with the smallest edit distance, if that is small for the word's length.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody misspells a word of this size.
    const MAX_BYTES: usize = 64;
    const MAX_CANDIDATES: usize = 1000;
    if written.len() > MAX_BYTES {
        return None;
    }
    let folded = written.to_lowercase();
    known
        .into_iter()
        .take(MAX_CANDIDATES)
        .filter(|name| name.len() <= MAX_BYTES && *name != written)
        .filter_map(|name| {
            let shorter = name.len().min(written.len());
            // Between words of one or two letters everything is near.
            let limit = if shorter < 3 {
                0
            } else {
                shorter.div_ceil(3).min(MAX_DISTANCE)
            };
            // A file can ask for many suggestions: names that can't be near must cost nothing.
            // An edit makes two bytes differ, or those of two characters.
            let is_ascii = folded.is_ascii() && name.is_ascii();
            let bytes_per_edit = if is_ascii { 2 } else { 8 };
            let possible = n_foreign(&folded, name) <= bytes_per_edit * limit;
            let distance = possible.then(|| strsim::osa_distance(&folded, &name.to_lowercase()))?;
            (distance <= limit).then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Largest distance of a suggestion.
const MAX_DISTANCE: usize = 3;

/// Returns how many bytes one of two words has and the other hasn't, whatever their order.
fn n_foreign(folded: &str, name: &str) -> usize {
    let mut counts = [0i32; 256];
    folded.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    for byte in name.bytes() {
        counts[usize::from(byte.to_ascii_lowercase())] -= 1;
    }
    let differences = counts.iter().map(|count| count.unsigned_abs() as usize);
    differences.sum()
}

/// Findings in the order they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    /// How many came after the list was full.
    omitted: usize,
    /// How many of the list stop the build.
    n_errors: usize,
}

/// A hostile file can hold millions of mistakes; nobody reads more than this.
const MAX_DIAGNOSTICS: usize = 1000;

impl Diagnostics {
    /// Adds one. Beyond a thousand they are only counted, but the first error is always kept.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let is_first_error = || diagnostic.severity == Severity::Error && !self.has_errors();
        if self.list.len() < MAX_DIAGNOSTICS || is_first_error() {
            self.n_errors += usize::from(diagnostic.severity == Severity::Error);
            self.list.push(diagnostic);
        } else {
            self.omitted += 1;
        }
    }

    /// Says whether one of them stops the build.
    pub fn has_errors(&self) -> bool {
        self.n_errors > 0
    }

    /// Iterates in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns how many more were found than are kept.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.list.retain(keep);
        let errors = self.list.iter().filter(|d| d.severity == Severity::Error);
        self.n_errors = errors.count();
    }

    /// Puts them in the order of the file; what has no place comes first.
    pub(crate) fn sort(&mut self) {
        self.list
            .sort_by_key(|diagnostic| diagnostic.span.map(|span| span.start));
    }

    /// Says whether the very same was found before.
    pub(crate) fn contains(&self, diagnostic: &Diagnostic) -> bool {
        self.list.contains(diagnostic)
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: Self) {
        self.omitted += other.omitted;
        other
            .list
            .into_iter()
            .for_each(|diagnostic| self.push(diagnostic));
    }

    /// Moves everything to one place: for text that isn't in the file, such as an image's triggers.
    pub(crate) fn relocate(&mut self, span: Span) {
        self.list
            .iter_mut()
            .for_each(|diagnostic| diagnostic.span = Some(span));
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        let mut diagnostics = Self::default();
        diagnostics.push(diagnostic);
        diagnostics
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
