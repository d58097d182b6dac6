//! Physical lines to logical lines: comments, continuations, line limits, heredoc bodies.
//!
//! Knows nothing about instructions but which of them may have heredocs. Every logical line remembers where each of
//! its bytes came from. Spec: dockerfile.md §2.1, §3.

use nom::Offset as _;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lint::Rule;
use crate::parse::heredoc::{self, Heredoc, Opener};
use crate::source::{SourceText, Span};

/// Longest physical line; BuildKit's scanner has this limit.
const MAX_LINE_BYTES: usize = 65535;

/// A piece of an instruction's text, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// As written, continuations joined; nothing is expanded or dequoted.
    pub value: String,
    /// Where.
    pub span: Span,
}

/// One instruction's text: its physical lines joined.
#[derive(Debug)]
pub(crate) struct LogicalLine {
    /// Without leading whitespace, comments and escape characters at line ends.
    pub(crate) text: String,
    /// Offsets into `text` with the offsets in the source of what starts there.
    origins: Vec<(usize, usize)>,
    /// From the first byte to the end of the last line, heredoc bodies included.
    pub(crate) span: Span,
    /// Heredocs that `text` opens, with their bodies, in order.
    pub(crate) heredocs: Vec<(Opener, Heredoc)>,
    /// The block of comments right above, without their signs.
    pub(crate) comments: Vec<Text>,
}

/// Most comments above an instruction that are looked at: the last ones.
const MAX_COMMENTS: usize = 100;

impl LogicalLine {
    /// Says whether the text was joined from several lines.
    pub(crate) fn is_continued(&self) -> bool {
        self.origins.len() > 1
    }

    /// Returns where the text stands: all of its lines, without heredoc bodies.
    pub(crate) fn joined_span(&self) -> Span {
        self.span_of(0, self.text.len())
    }

    /// Returns what the comments above say of `name`: the rest of a line that begins with it.
    pub(crate) fn description_of(&self, name: &str) -> Option<String> {
        let mut texts = self.comments.iter();
        texts.find_map(|comment| {
            let rest = comment.value.strip_prefix(name)?.strip_prefix(' ')?;
            Some(rest.trim().to_owned())
        })
    }

    /// Returns `part`, which must be a slice of `self.text`, with its place.
    pub(crate) fn text_of(&self, part: &str) -> Text {
        let start = self.offset_of(part);
        Text {
            value: part.to_owned(),
            span: self.span_of(start, start + part.len()),
        }
    }

    /// Returns where in `self.text` its slice `part` starts.
    pub(crate) fn offset_of(&self, part: &str) -> usize {
        self.text.offset(part)
    }

    /// Returns where bytes `start..end` of `self.text` stand.
    pub(crate) fn span_of(&self, start: usize, end: usize) -> Span {
        let place = |at: usize| {
            let next = self.origins.partition_point(|(offset, _)| *offset <= at);
            let (offset, origin) = self.origins[next.saturating_sub(1)];
            origin + (at - offset)
        };
        let first = place(start);
        Span {
            start: first,
            end: if end > start { place(end - 1) + 1 } else { first },
        }
    }
}

/// Reads logical lines from a source.
pub(crate) struct Lines<'a> {
    source: &'a SourceText,
    /// Number of the next physical line, from 1.
    next: usize,
    escape: char,
}

/// One physical line, its terminator removed.
struct Physical<'a> {
    start: usize,
    text: &'a str,
}

impl<'a> Lines<'a> {
    /// Starts at line `first`.
    pub(crate) fn new(source: &'a SourceText, first: usize, escape: char) -> Self {
        Self {
            source,
            next: first,
            escape,
        }
    }

    fn physical(&mut self) -> Result<Option<Physical<'a>>, Diagnostic> {
        let (mut start, mut text) = self.source.line(self.next);
        let at_end = start >= self.source.text().len();
        if at_end {
            return Ok(None);
        }
        if text.len() > MAX_LINE_BYTES {
            return Err(Diagnostic::error(format!(
                "dockerfile line greater than max allowed size of {MAX_LINE_BYTES}"
            ))
            .at(Span {
                start,
                end: start + text.len(),
            }));
        }
        if let Some(rest) = text.strip_prefix('\u{feff}').filter(|_| start == 0) {
            start += '\u{feff}'.len_utf8();
            text = rest;
        }
        self.next += 1;
        Ok(Some(Physical { start, text }))
    }

    /// Returns the next instruction's text; `None` at the end of the file. An error ends the reading.
    pub(crate) fn next(&mut self, diagnostics: &mut Diagnostics) -> Result<Option<LogicalLine>, Diagnostic> {
        let mut comments = Vec::new();
        let first = loop {
            match self.physical()? {
                None => return Ok(None),
                Some(line) if is_blank(line.text) => comments.clear(),
                Some(line) if is_comment(line.text) => note(&mut comments, &line),
                Some(line) => break line,
            }
        };
        let mut logical = self.join(first, diagnostics)?;
        logical.comments = comments;
        for opener in heredoc::openers(&logical, self.escape)? {
            let body = self.body(&opener, &logical)?;
            logical.span.end = logical.span.end.max(body.span.end);
            logical.heredocs.push((opener, body));
        }
        if self.source.is_lossy()
            && self.source.text()[logical.span.start..logical.span.end].contains('\u{fffd}')
        {
            return Err(Diagnostic::error("instruction is not valid UTF-8").at(logical.span));
        }
        Ok(Some(logical))
    }

    /// Appends continuation lines to `first`.
    fn join(
        &mut self,
        first: Physical<'a>,
        diagnostics: &mut Diagnostics,
    ) -> Result<LogicalLine, Diagnostic> {
        let indent = first.text.len() - first.text.trim_start().len();
        let start = first.start + indent;
        let mut logical = LogicalLine {
            text: String::new(),
            origins: Vec::new(),
            span: Span {
                start,
                end: first.start + first.text.len(),
            },
            heredocs: Vec::new(),
            comments: Vec::new(),
        };
        let mut line = Physical {
            start,
            text: &first.text[indent..],
        };
        let mut n_empty = 0;
        loop {
            logical.origins.push((logical.text.len(), line.start));
            let Some(part) = continued(line.text, self.escape) else {
                logical.text.push_str(line.text);
                break;
            };
            logical.text.push_str(part);
            let following = loop {
                match self.physical()? {
                    Some(next) if is_comment(next.text) => {}
                    Some(next) if is_blank(next.text) => n_empty += 1,
                    other => break other,
                }
            };
            let Some(following) = following else { break };
            logical.span.end = following.start + following.text.len();
            line = following;
        }
        if n_empty > 0 {
            let (_, last) = self.source.line_range(logical.span);
            let (start, text) = self.source.line(last);
            diagnostics.push(
                Diagnostic::warning(Rule::NoEmptyContinuation, "empty continuation line").at(Span {
                    start,
                    end: start + text.len(),
                }),
            );
        }
        Ok(logical)
    }

    /// Reads lines up to the terminator of a heredoc.
    fn body(&mut self, opener: &Opener, logical: &LogicalLine) -> Result<Heredoc, Diagnostic> {
        let mut content = String::new();
        let mut span: Option<Span> = None;
        while let Some(line) = self.physical()? {
            let here = Span {
                start: line.start,
                end: line.start + line.text.len(),
            };
            span = Some(span.map_or(here, |span| span.to(here)));
            let candidate = if opener.chomp {
                line.text.trim_start_matches('\t')
            } else {
                line.text
            };
            if candidate == opener.name {
                return Ok(Heredoc {
                    name: opener.name.clone(),
                    expand: opener.expand,
                    chomp: opener.chomp,
                    content,
                    span: here.to(span.unwrap_or(here)),
                });
            }
            content.push_str(line.text);
            content.push('\n');
        }
        Err(Diagnostic::error("unterminated heredoc")
            .at(logical.span_of(opener.start, opener.end))
            .label(format!("no line `{}` follows", opener.name)))
    }
}

/// Adds a comment to the block; one without words ends the block. Spec: dockerfile.md §2.3.
fn note(comments: &mut Vec<Text>, line: &Physical<'_>) {
    let text = line.text.trim_start().trim_start_matches('#').trim();
    if text.is_empty() {
        comments.clear();
        return;
    }
    if comments.len() == MAX_COMMENTS {
        comments.remove(0);
    }
    let start = line.start + line.text.offset(text);
    comments.push(Text {
        value: text.to_owned(),
        span: Span {
            start,
            end: start + text.len(),
        },
    });
}

pub(crate) fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

pub(crate) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Returns the line without its continuation; `None` if it has none. Only the last two significant bytes count:
/// a doubled escape at the end is no continuation, and neither is a tripled one.
fn continued(line: &str, escape: char) -> Option<&str> {
    let line = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!line.ends_with(escape)).then_some(line)
}
