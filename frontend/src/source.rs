//! The text that was read, with its lines, and ranges in it.
//!
//! Bytes that are not UTF-8 become U+FFFD here, so that offsets, lines and excerpts have one meaning; an
//! instruction that holds such bytes is refused by the parser.

use std::borrow::Cow;
use std::sync::Arc;

/// A range of bytes in a [`SourceText`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// Returns the smallest range that holds both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

/// A text with its name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceText(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    text: String,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    lossy: bool,
}

impl SourceText {
    /// Decodes `bytes`; `name` is what error messages call it.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let decoded = String::from_utf8_lossy(bytes);
        let lossy = matches!(decoded, Cow::Owned(_));
        let text = decoded.into_owned();
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self(Arc::new(Inner {
            name: name.to_owned(),
            text,
            lines,
            lossy,
        }))
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Says whether some bytes were not UTF-8.
    pub(crate) fn is_lossy(&self) -> bool {
        self.0.lossy
    }

    /// Returns the number of the line that holds byte `offset`, from 1.
    pub fn line_number(&self, offset: usize) -> usize {
        self.0.lines.partition_point(|&start| start <= offset)
    }

    /// Returns where line `number` starts and its text without terminator; empty beyond the last.
    pub(crate) fn line(&self, number: usize) -> (usize, &str) {
        let text = self.text();
        let start = number
            .checked_sub(1)
            .and_then(|index| self.0.lines.get(index))
            .copied();
        let start = start.unwrap_or(text.len());
        let end = self
            .0
            .lines
            .get(number)
            .map_or(text.len(), |next| next - 1)
            .max(start);
        (start, text[start..end].trim_end_matches('\r'))
    }

    /// Returns the first and last line of a range, from 1.
    pub fn line_range(&self, span: Span) -> (usize, usize) {
        let last = span.end.saturating_sub(1).max(span.start);
        (self.line_number(span.start), self.line_number(last))
    }
}
