//! Progress for a terminal: a picture of the build that is redrawn in place.
//!
//! A frame is computed as lines of plain text that fit the window, then drawn over the last one in a single write.
//! Nothing of a step's output can act on the terminal: see `sanitize.rs`.

use std::io::Write;
use std::time::Duration;

use super::Display;
use super::plain::{age, part_text};
use super::steps::{Part, State, Step, Steps, Update};

/// Redrawing more often than this only flickers.
const FRAME: Duration = Duration::from_millis(100);

/// Size of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// How it is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) colour: bool,
    /// Height of a running step's log window.
    pub(crate) log_lines: usize,
    /// What is being done, for the headline.
    pub(crate) verb: &'static str,
}

/// What a line says, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Done,
    Error,
    Cancelled,
    Faint,
}

/// One line of a frame, as wide as the window at most.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    tone: Tone,
}

/// The live picture.
pub(crate) struct Tty<W, S> {
    out: W,
    size: S,
    look: Look,
    /// Widths of the lines on the screen.
    drawn: Vec<usize>,
    last_frame: Option<Duration>,
    last_text: String,
    warnings: Vec<String>,
    cursor_hidden: bool,
}

impl<W: Write, S: Fn() -> Size> Tty<W, S> {
    /// Returns a display that draws on `out`, whose size `size` tells at any time.
    pub(crate) fn new(out: W, size: S, look: Look) -> Self {
        Self {
            out,
            size,
            look,
            drawn: Vec::new(),
            last_frame: None,
            last_text: String::new(),
            warnings: Vec::new(),
            cursor_hidden: false,
        }
    }

    fn draw(&mut self, lines: &[Line], columns: usize, last: bool) {
        let mut body = String::new();
        for line in lines {
            body.push_str("\u{1b}[2K");
            body.push_str(&coloured(line, self.look.colour));
            body.push('\n');
        }
        if body == self.last_text && !last {
            return;
        }
        let mut out = String::new();
        if !std::mem::replace(&mut self.cursor_hidden, true) {
            out.push_str("\u{1b}[?25l");
        }
        // A window that became narrower has wrapped the lines that are on it.
        let up: usize = self
            .drawn
            .iter()
            .map(|width| width.div_ceil(columns).max(1))
            .sum();
        if up > 0 {
            out.push_str(&format!("\r\u{1b}[{up}A"));
        }
        if last {
            // Warnings are printed whole, and wrap: what is below must be gone before, not after.
            out.push_str("\u{1b}[J");
        }
        out.push_str(&body);
        out.push_str("\u{1b}[J");
        self.drawn = lines.iter().map(|line| width(&line.text)).collect();
        self.last_text = body;
        if last {
            self.drawn.clear();
            self.cursor_hidden = false;
            out.push_str("\u{1b}[?25h");
        }
        self.write(&out);
    }

    fn write(&mut self, text: &str) {
        // A terminal that went away must not fail the build.
        let _ = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
    }
}

impl<W: Write, S: Fn() -> Size> Display for Tty<W, S> {
    fn show(&mut self, update: &Update, _: &Steps, _: Duration) {
        if let Update::Warning(text) = update {
            self.warnings.push(text.clone());
        }
    }

    fn tick(&mut self, steps: &Steps, now: Duration) {
        if self
            .last_frame
            .is_some_and(|last| now.saturating_sub(last) < FRAME)
        {
            return;
        }
        self.last_frame = Some(now);
        let size = (self.size)();
        self.draw(&frame(steps, now, size, self.look), size.columns.max(1), false);
    }

    fn finish(&mut self, steps: &Steps, now: Duration) {
        let size = (self.size)();
        let mut lines = last_frame(steps, now, size.columns, self.look);
        for warning in &self.warnings {
            lines.push(Line {
                text: format!("warning: {warning}"),
                tone: Tone::Cancelled,
            });
        }
        self.draw(&lines, size.columns.max(1), true);
    }
}

/// Computes what fits the window: running steps first, then the newest of those that ended.
fn frame(steps: &Steps, now: Duration, size: Size, look: Look) -> Vec<Line> {
    let columns = size.columns.max(1);
    // The cursor's line stays free.
    let budget = size.rows.saturating_sub(2).max(1);
    let mut hidden = steps.all().len().saturating_sub(budget);
    let mut shown: Vec<&Step> = Vec::new();
    for step in steps.all() {
        if hidden > 0 && !matches!(step.state, State::Running | State::Failed(_)) {
            hidden -= 1;
        } else {
            shown.push(step);
        }
    }
    shown.truncate(budget);
    let n_running = shown.iter().filter(|step| step.state == State::Running).count();
    let window = ((budget - shown.len()) / n_running.max(1)).min(look.log_lines);
    let mut lines = vec![header(steps, now, columns, look, "")];
    for step in shown {
        lines.push(step_line(step, now, columns));
        if step.state == State::Running {
            lines.extend(step_window(step, now, columns, window));
        }
    }
    lines
}

/// Computes what stays on the screen: every step, no windows.
fn last_frame(steps: &Steps, now: Duration, columns: usize, look: Look) -> Vec<Line> {
    let columns = columns.max(1);
    let mut lines = vec![header(steps, now, columns, look, " FINISHED")];
    lines.extend(steps.all().iter().map(|step| step_line(step, now, columns)));
    lines
}

fn header(steps: &Steps, now: Duration, columns: usize, look: Look, end: &str) -> Line {
    let (n_ended, n_all) = steps.count();
    let (verb, time) = (look.verb, now.as_secs_f64());
    let text = format!("[+] {verb} {time:.1}s ({n_ended}/{n_all}){end}");
    Line {
        text: fit(&text, columns),
        tone: Tone::Plain,
    }
}

fn step_line(step: &Step, now: Duration, columns: usize) -> Line {
    let (word, tone) = match step.state {
        State::Running => ("", Tone::Plain),
        State::Cached => ("CACHED ", Tone::Done),
        State::Done(_) => ("", Tone::Done),
        State::Failed(_) => ("ERROR ", Tone::Error),
        State::Cancelled => ("CANCELED ", Tone::Cancelled),
    };
    let time = format!(" {:.1}s", age(step, now).as_secs_f64());
    let why = match (&step.why, &step.state) {
        (Some(why), State::Running | State::Done(_)) => format!("  ({why})"),
        _ => String::new(),
    };
    let room = columns.saturating_sub(time.len());
    let mut text = fit(&format!(" => {word}{}{why}", step.name), room);
    let gap = room.saturating_sub(width(&text));
    text.extend(std::iter::repeat_n(' ', gap));
    text.push_str(&time);
    Line {
        text: fit(&text, columns),
        tone,
    }
}

fn step_window(step: &Step, now: Duration, columns: usize, height: usize) -> Vec<Line> {
    let parts = step
        .parts
        .iter()
        .filter(|part| !part.done)
        .map(|part| format!(" => => {}", live_part(part, now)));
    let unfinished = Some(step.current_line()).filter(|line| !line.is_empty());
    let logs = step
        .tail
        .iter()
        .map(String::as_str)
        .chain(unfinished)
        .map(|line| format!(" => => # {line}"));
    let mut lines: Vec<String> = parts.chain(logs).collect();
    lines.drain(..lines.len().saturating_sub(height));
    lines
        .iter()
        .map(|text| Line {
            text: fit(text, columns),
            tone: Tone::Faint,
        })
        .collect()
}

/// Words how far a part is, short enough for an ordinary window, with a bar where its size is known.
fn live_part(part: &Part, now: Duration) -> String {
    const BAR: usize = 20;
    let short = match part.name.strip_prefix("sha256:") {
        Some(digest) if digest.len() > 12 => &digest[..digest.floor_char_boundary(12)],
        _ => &part.name,
    };
    let text = part_text(part, now);
    let far = text.strip_prefix(&part.name).unwrap_or(&text);
    match part.total_bytes {
        Some(total @ 1..) => {
            let part = part.current_bytes.min(total) as f64 / total as f64;
            let n_done = (part * BAR as f64) as usize;
            format!("{short} [{:.<BAR$}]{far}", "#".repeat(n_done))
        }
        _ => format!("{short}{far}"),
    }
}

/// Cuts a text to a number of columns; tabs become spaces.
fn fit(text: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for character in text.chars() {
        let (character, times) = if character == '\t' {
            (' ', 4)
        } else {
            (character, 1)
        };
        for _ in 0..times {
            used += character_width(character);
            if used > columns {
                return out;
            }
            out.push(character);
        }
    }
    out
}

fn width(text: &str) -> usize {
    text.chars().map(character_width).sum()
}

/// Returns how many columns a character takes, never fewer than it does: East Asian wide ones and emoji take two.
fn character_width(character: char) -> usize {
    match u32::from(character) {
        0x1100..=0x115f
        | 0x231a..=0x231b
        | 0x23e9..=0x23f3
        | 0x25fd..=0x27bf
        | 0x2b1b..=0x2b55
        | 0x2e80..=0xa4cf
        | 0xa960..=0xa97f
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1_6fe0..=0x1_b2ff
        | 0x1_f000..=0x3_fffd => 2,
        _ => 1,
    }
}

fn coloured(line: &Line, colour: bool) -> String {
    let code = match line.tone {
        Tone::Plain => return line.text.clone(),
        Tone::Done => "34",
        Tone::Error => "31",
        Tone::Cancelled => "33",
        Tone::Faint => "2",
    };
    if colour {
        format!("\u{1b}[{code}m{}\u{1b}[0m", line.text)
    } else {
        line.text.clone()
    }
}

#[cfg(test)]
#[path = "tty_tests.rs"]
mod tests;
