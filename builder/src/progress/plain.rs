//! Progress for logs: one line per thing that happened, in BuildKit's format.
//!
//! Steps that run at the same time take turns: one speaks until it ends or pauses, the others' lines are held for a
//! moment, so that the log reads in paragraphs. Every line from a step has its number before it: a step can't forge a line
//! that means something to a CI system.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use super::Display;
use super::steps::{Part, State, Step, Steps, Update};

/// A step that is silent for so long lets another speak.
const PAUSE: Duration = Duration::from_millis(500);

/// Held output beyond this is printed at once.
const HELD_BYTES: usize = 64 << 10;

/// A moving part is told at most so often.
const PART_EVERY: Duration = Duration::from_secs(2);

/// The log format.
pub(crate) struct Plain<W> {
    out: W,
    /// Whose paragraph is open.
    current: Option<usize>,
    last_line: Duration,
    /// Lines of steps that wait for their turn, oldest first.
    held: Vec<(usize, String)>,
    anything: bool,
    /// Told at the end: in the middle they would interrupt a step, and be overlooked.
    warnings: Vec<String>,
    part_told: Duration,
}

impl<W: Write> Plain<W> {
    /// Returns a display that writes to `out`, each change in one piece.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            current: None,
            last_line: Duration::ZERO,
            held: Vec::new(),
            anything: false,
            warnings: Vec::new(),
            part_told: Duration::ZERO,
        }
    }

    /// Prints lines of a step now, or holds them while another speaks.
    fn say(&mut self, place: usize, text: String, steps: &Steps, now: Duration) {
        if self.current.is_none_or(|current| current == place) {
            self.print(place, &text, steps, now);
            return;
        }
        let slot = match self.held.iter().position(|(held, _)| *held == place) {
            Some(slot) => slot,
            None => {
                self.held.push((place, String::new()));
                self.held.len() - 1
            }
        };
        self.held[slot].1.push_str(&text);
        if self.held[slot].1.len() > HELD_BYTES {
            let (_, text) = self.held.remove(slot);
            self.print(place, &text, steps, now);
        }
    }

    /// Prints lines of a step, after its heading when another spoke last.
    fn print(&mut self, place: usize, text: &str, steps: &Steps, now: Duration) {
        let mut out = String::new();
        // Writing to a string can't fail.
        if self.current != Some(place) {
            if let Some(current) = self.current {
                let _ = writeln!(out, "#{} ...", current + 1);
            }
            if self.anything {
                out.push('\n');
            }
            let _ = writeln!(out, "#{} {}", place + 1, steps.get(place).name);
        }
        out.push_str(text);
        (self.current, self.anything, self.last_line) = (Some(place), true, now);
        self.write(&out);
    }

    fn end(&mut self, place: usize, steps: &Steps, now: Duration) {
        let mut text = match self.held.iter().position(|(held, _)| *held == place) {
            Some(slot) => self.held.remove(slot).1,
            None => String::new(),
        };
        let number = place + 1;
        let _ = match &steps.get(place).state {
            State::Running => Ok(()),
            State::Cached => writeln!(text, "#{number} CACHED"),
            State::Done(took) => writeln!(text, "#{number} DONE {:.1}s", took.as_secs_f64()),
            State::Failed(error) => writeln!(text, "#{number} ERROR: {error}"),
            State::Cancelled => writeln!(text, "#{number} CANCELED"),
        };
        self.print(place, &text, steps, now);
        self.current = None;
        self.next_turn(steps, now);
    }

    fn next_turn(&mut self, steps: &Steps, now: Duration) {
        if !self.held.is_empty() {
            let (place, text) = self.held.remove(0);
            self.print(place, &text, steps, now);
        }
    }

    fn write(&mut self, text: &str) {
        // Nobody can be told that nothing can be told; what a reader who goes away means is the stream's to know.
        let _ = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
    }
}

impl<W: Write> Display for Plain<W> {
    fn show(&mut self, update: &Update, steps: &Steps, now: Duration) {
        match update {
            Update::Started(place) | Update::Explained(place) => {
                let why = steps.get(*place).why.as_ref();
                let text = why
                    .map(|why| format!("#{} why: {why}\n", place + 1))
                    .unwrap_or_default();
                self.say(*place, text, steps, now);
            }
            Update::Lines(place, lines) => {
                let elapsed = now.saturating_sub(steps.get(*place).started).as_secs_f64();
                let mut text = String::new();
                for line in lines {
                    let _ = writeln!(text, "#{} {elapsed:.3} {line}", place + 1);
                }
                self.say(*place, text, steps, now);
            }
            Update::Part(place, part) => {
                let part = &steps.get(*place).parts[*part];
                if part.done || now.saturating_sub(self.part_told) >= PART_EVERY {
                    self.part_told = now;
                    self.say(
                        *place,
                        format!("#{} {}\n", place + 1, part_text(part, now)),
                        steps,
                        now,
                    );
                }
            }
            Update::Ended(place) => self.end(*place, steps, now),
            Update::Warning(text) => self.warnings.push(format!("warning: {text}\n")),
        }
    }

    fn tick(&mut self, steps: &Steps, now: Duration) {
        if now.saturating_sub(self.last_line) >= PAUSE {
            self.next_turn(steps, now);
        }
    }

    fn finish(&mut self, steps: &Steps, now: Duration) {
        while !self.held.is_empty() {
            self.next_turn(steps, now);
        }
        let has_failed = |step: &Step| matches!(step.state, State::Failed(_) | State::Cancelled);
        let more_follows = !self.warnings.is_empty() || steps.all().iter().any(has_failed);
        if self.anything && more_follows {
            self.warnings.insert(0, "\n".to_owned());
        }
        let warnings = std::mem::take(&mut self.warnings).concat();
        self.write(&warnings);
    }
}

/// Words the state of a part: `sha256:ab12 1.05MB / 3.10MB 0.4s`.
pub(super) fn part_text(part: &Part, now: Duration) -> String {
    let Part {
        name,
        current_bytes,
        total_bytes,
        done,
        since,
    } = part;
    let mut text = format!("{name} {}", bytes(*current_bytes));
    if let Some(total) = total_bytes {
        let _ = write!(text, " / {}", bytes(*total));
    }
    let _ = write!(text, " {:.1}s", now.saturating_sub(*since).as_secs_f64());
    if *done {
        text.push_str(" done");
    }
    text
}

/// Words a size in decimal units, as docker does.
fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(unit, _)| n >= *unit) {
        Some((unit, name)) => {
            let hundredths = u128::from(n) * 100 / u128::from(*unit);
            format!("{}.{:02}{name}", hundredths / 100, hundredths % 100)
        }
        None => format!("{n}B"),
    }
}

/// Returns how long a step has run, or took.
pub(super) fn age(step: &Step, now: Duration) -> Duration {
    match step.state {
        State::Done(took) => took,
        State::Running => now.saturating_sub(step.started),
        State::Failed(_) | State::Cancelled => step.ended.saturating_sub(step.started),
        State::Cached => Duration::ZERO,
    }
}
