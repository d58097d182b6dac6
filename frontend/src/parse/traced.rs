//! Text whose quotes were removed, with the place of each byte; and its fields as comma-separated values.
//!
//! Only what flags need of RFC 4180: one record, no line ends. Spec: dockerfile.md §5, §9.2.

use std::ops::Range;

use crate::diagnostic::Diagnostic;
use crate::lines::{LogicalLine, Text};
use crate::source::Span;

/// A piece of a logical line that isn't contiguous there any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traced {
    pub(crate) text: String,
    /// Offset in the line of each byte of `text`.
    places: Vec<usize>,
    /// Offset in the line where the next byte would stand.
    end: usize,
}

impl Traced {
    /// Adds a character that stands at offset `at` of the line.
    pub(crate) fn push(&mut self, char: char, at: usize) {
        self.text.push(char);
        self.places.extend((0..char.len_utf8()).map(|byte| at + byte));
        self.end = at + char.len_utf8();
    }

    /// Moves it: all places are `by` bytes further on.
    pub(crate) fn shift(&mut self, by: usize) {
        self.places.iter_mut().for_each(|place| *place += by);
        self.end += by;
    }

    /// Returns a part of it.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        Self {
            text: self.text[range.clone()].to_owned(),
            end: self.places.get(range.end).copied().unwrap_or(self.end),
            places: self.places[range].to_vec(),
        }
    }

    /// Returns where it stands: from its first to its last byte, with what was removed between them.
    pub(crate) fn span(&self, line: &LogicalLine) -> Span {
        match (self.places.first(), self.places.last()) {
            (Some(&first), Some(&last)) => line.span_of(first, last + 1),
            _ => line.span_of(self.end, self.end),
        }
    }

    /// Returns it as a text of its own.
    pub(crate) fn to_text(&self, line: &LogicalLine) -> Text {
        Text {
            value: self.text.clone(),
            span: self.span(line),
        }
    }

    /// Splits it at commas; a field in double quotes may hold commas, and double quotes that are doubled.
    pub(crate) fn fields(&self, line: &LogicalLine) -> Result<Vec<Self>, Diagnostic> {
        let mut fields = Vec::new();
        let mut chars = self.text.char_indices().peekable();
        loop {
            let mut field = Self {
                end: chars.peek().map_or(self.end, |(at, _)| self.places[*at]),
                ..Self::default()
            };
            let is_quoted = chars.next_if(|(_, char)| *char == '"').is_some();
            while let Some((at, char)) = chars.next_if(|(_, char)| is_quoted || *char != ',') {
                if char != '"' {
                    field.push(char, self.places[at]);
                    continue;
                }
                let message = match (is_quoted, chars.peek()) {
                    (true, Some((_, '"'))) => {
                        chars.next();
                        field.push('"', self.places[at]);
                        continue;
                    }
                    (true, Some((_, ','))) => break,
                    (true, None) => {
                        fields.push(field);
                        return Ok(fields);
                    }
                    (true, Some(_)) => "extraneous or missing \" in quoted field",
                    (false, _) => "bare \" in non-quoted field",
                };
                return Err(Diagnostic::error(message).at(self.part(at..at + 1).span(line)));
            }
            fields.push(field);
            match chars.next() {
                Some(_) => {}
                None if is_quoted => {
                    let message = "extraneous or missing \" in quoted field";
                    return Err(Diagnostic::error(message).at(self.span(line)));
                }
                None => return Ok(fields),
            }
        }
    }
}
