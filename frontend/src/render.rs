//! How a diagnostic looks: message, place, excerpt with the place marked, advice.
//!
//! Returns text; printing is the caller's. Whatever comes from the file is made harmless for terminals: control
//! characters become visible, tabs become blanks, long lines are cut around the marked place.

use std::fmt::Write as _;

use crate::diagnostic::{Diagnostic, Severity};
use crate::lint::Rule;
use crate::source::{SourceText, Span};

/// Widest excerpt, in columns.
const MAX_COLUMNS: usize = 160;
/// Most lines of one excerpt.
const MAX_LINES: usize = 8;
const TAB: usize = 4;

/// Returns the diagnostic for people, with a newline at the end. `colour` adds ANSI colours, and nothing else.
pub fn render(diagnostic: &Diagnostic, source: &SourceText, colour: bool) -> String {
    let paint = Paint { colour };
    let (word, code) = match diagnostic.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let head = match diagnostic.rule {
        Some(rule) => format!("{word}[{rule}]"),
        None => word.to_owned(),
    };
    let mut message = visible(&diagnostic.message);
    if let (Some(label), None) = (&diagnostic.label, diagnostic.span) {
        message = format!("{message} ({})", visible(label));
    }
    let mut out = format!("{}: {}\n", paint.with(code, &head), paint.with("1", &message));
    if let Some(span) = diagnostic.span {
        excerpt(&mut out, diagnostic, source, span, &paint, code);
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "{}: {}", paint.with("1;36", "help"), visible(help));
    }
    if let Some(url) = diagnostic.rule.and_then(Rule::url) {
        let _ = writeln!(out, "{}: {url}", paint.with("1;36", "see"));
    }
    out
}

/// Returns only where a diagnostic is and what was meant, without colours; empty when it has no place.
pub(crate) fn render_place(diagnostic: &Diagnostic, source: &SourceText) -> String {
    let mut out = String::new();
    let paint = Paint { colour: false };
    if let Some(span) = diagnostic.span {
        excerpt(&mut out, diagnostic, source, span, &paint, "");
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "help: {}", visible(help));
    }
    out
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn excerpt(
    out: &mut String,
    diagnostic: &Diagnostic,
    source: &SourceText,
    span: Span,
    paint: &Paint,
    code: &str,
) {
    let (first, last) = source.line_range(span);
    let shown_last = last.min(first + MAX_LINES - 1);
    let gutter = shown_last.to_string().len();
    let (line_start, line) = source.line(first);
    let before = &line[..floor(line, span.start.saturating_sub(line_start))];
    let column = before.trim_start_matches('\u{feff}').chars().count() + 1;
    let place = format!("{}:{first}:{column}", visible(source.name()));
    let _ = writeln!(out, "{:gutter$}{} {place}", "", paint.with("1;34", "-->"));
    for number in first..=shown_last {
        let (start, line) = source.line(number);
        let from = span.start.saturating_sub(start).min(line.len());
        let to = span.end.saturating_sub(start).min(line.len());
        // Marks of the second and further lines start at their first word.
        let indent = line.len() - line.trim_start().len();
        let from = if number > first { from.max(indent) } else { from };
        let window = Window::around(line, floor(line, from), floor(line, to.max(from)));
        let bar = paint.with("1;34", &format!("{number:gutter$} |"));
        let _ = writeln!(out, "{bar} {}", window.text);
        let mark = "^".repeat(window.marked.max(1));
        let label = match &diagnostic.label {
            Some(label) if number == shown_last => format!(" {}", visible(label)),
            _ => String::new(),
        };
        if window.marked > 0 || number == first || !label.is_empty() {
            let bar = paint.with("1;34", &format!("{:gutter$} |", ""));
            let marks = paint.with(code, &format!("{mark}{label}"));
            let _ = writeln!(out, "{bar} {:1$}{marks}", "", window.before);
        }
    }
    if shown_last < last {
        let _ = writeln!(out, "{:gutter$} | … and {} more lines", "", last - shown_last);
    }
}

/// The part of a line that is shown, and which columns of it are marked.
struct Window {
    text: String,
    before: usize,
    marked: usize,
}

impl Window {
    fn around(line: &str, from: usize, to: usize) -> Self {
        let mut start = 0;
        if width(&line[..to]) > MAX_COLUMNS {
            // Keep some of what stands before the mark.
            start = floor(line, from.saturating_sub(MAX_COLUMNS / 4));
        }
        let mut end = line.len();
        let mut columns = 0;
        for (at, char) in line[start..].char_indices() {
            columns += char_width(char);
            if columns > MAX_COLUMNS {
                end = start + at;
                break;
            }
        }
        let left = if start > 0 { "…" } else { "" };
        let right = if end < line.len() { "…" } else { "" };
        Self {
            text: format!("{left}{}{right}", visible(&line[start..end])),
            before: left.chars().count() + width(&line[start..from.max(start)]),
            marked: width(&line[from.max(start).min(end)..to.max(start).min(end)]),
        }
    }
}

/// Returns the largest character boundary that isn't behind `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

/// Replaces what a terminal would act on.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\t' => out.push_str("    "),
            '\u{feff}' => {}
            _ if is_hidden(char) => out.push('\u{fffd}'),
            _ => out.push(char),
        }
    }
    out
}

/// Control characters, and the ones that reorder or hide text.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Returns how many columns a character takes; an estimate that is right for what Dockerfiles hold.
fn char_width(char: char) -> usize {
    match char {
        '\t' => TAB,
        '\u{feff}' | '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, marked: &str, expected: &str) {
        let source = SourceText::new("Dockerfile", text.as_bytes());
        let start = text.find(marked).unwrap();
        let diagnostic = Diagnostic::error("it is wrong")
            .at(Span {
                start,
                end: start + marked.len(),
            })
            .label("here")
            .help("do it right");
        assert_eq!(render(&diagnostic, &source, false).trim_end(), expected.trim());
    }

    #[test]
    fn excerpts_mark_the_place() {
        check(
            "FROM x\nCOPPY . /app\n",
            "COPPY",
            "error: it is wrong\n --> Dockerfile:2:1\n2 | COPPY . /app\n  | ^^^^^ here\nhelp: do it right",
        );
        check(
            "RUN\ta\u{1b}[31m 한국 b",
            "한국",
            "error: it is wrong\n --> Dockerfile:1:12\n1 | RUN    a\u{fffd}[31m 한국 b\n  |               ^^^^ here\nhelp: do it right",
        );
        check(
            "RUN a \\\n    b\n",
            "RUN a \\\n    b",
            "error: it is wrong\n --> Dockerfile:1:1\n1 | RUN a \\\n  | ^^^^^^^\n2 |     b\n  |     ^ here\nhelp: do it right",
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("RUN {} mark {}", "a".repeat(500), "b".repeat(500));
        let source = SourceText::new("Dockerfile", text.as_bytes());
        let start = text.find("mark").unwrap();
        let rendered = render(
            &Diagnostic::error("x").at(Span {
                start,
                end: start + 4,
            }),
            &source,
            false,
        );
        let lines: Vec<&str> = rendered.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 180), "{rendered}");
        let column = lines[3].find('^').unwrap();
        let shown: String = lines[2].chars().skip(column).take(4).collect();
        assert_eq!(shown, "mark");
    }
}
