//! What is known of every step so far: the state that all ways of showing progress share.
//!
//! Turns events into updates with safe text; prints nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use solver::{Event, Miss, Subject};

use super::sanitize::{Sanitizer, one_line};
use crate::journal::{How, StepFacts};

/// Lines kept of each step for the error report.
const TAIL_LINES: usize = 20;

/// Bytes kept of each such line.
const TAIL_LINE_BYTES: usize = 512;

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Cached,
    Done(Duration),
    Failed(String),
    Cancelled,
}

/// Part of a step's work, such as one layer of a pull.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) current_bytes: u64,
    pub(crate) total_bytes: Option<u64>,
    pub(crate) done: bool,
    pub(crate) since: Duration,
}

/// One step that has been heard of.
#[derive(Debug)]
pub(crate) struct Step {
    /// Safe to print.
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    /// Worth a line only when it is news.
    pub(crate) why: Option<String>,
    /// All of the reason.
    reason: Vec<String>,
    pub(crate) parts: Vec<Part>,
    pub(crate) tail: VecDeque<String>,
    sanitizer: Sanitizer,
}

impl Step {
    /// Returns the line that the step has begun but not ended.
    pub(crate) fn current_line(&self) -> &str {
        self.sanitizer.current()
    }

    fn explain(&mut self, why: Miss) {
        self.reason = why.lines().iter().map(|line| one_line(line)).collect();
        self.why = news(why);
    }

    fn into_facts(self, vertex: Option<usize>) -> StepFacts {
        let (how, took) = match self.state {
            State::Done(took) => (How::Ran, took),
            State::Cached => (How::Cached, Duration::ZERO),
            State::Failed(_) => (How::Failed, self.ended.saturating_sub(self.started)),
            State::Cancelled | State::Running => (How::Cancelled, self.ended.saturating_sub(self.started)),
        };
        StepFacts {
            name: self.name,
            vertex,
            how,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            why: self.reason,
        }
    }

    fn keep(&mut self, line: &str) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        let mut line = line.to_owned();
        if line.len() > TAIL_LINE_BYTES {
            line.truncate(line.floor_char_boundary(TAIL_LINE_BYTES));
            // A colour that began before the cut ends here.
            line.push_str(if line.contains('\u{1b}') {
                "\u{1b}[0m…"
            } else {
                "…"
            });
        }
        self.tail.push_back(line);
    }
}

/// What is known when all is over.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Every step, in the order in which they were first heard of.
    pub(crate) steps: Vec<StepFacts>,
    tails: HashMap<Subject, Vec<String>>,
}

impl Told {
    /// Returns the last lines of a step's output, oldest first, safe to print.
    pub(crate) fn tail(&self, subject: &Subject) -> &[String] {
        self.tails.get(subject).map_or(&[], |lines| lines)
    }
}

/// What there is to show. Steps are named by their place in [`Steps::all`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Update {
    Started(usize),
    /// Why it runs is known now.
    Explained(usize),
    Lines(usize, Vec<String>),
    /// Its parts moved: the place of the part.
    Part(usize, usize),
    /// Cached, done, failed or cancelled: see its state.
    Ended(usize),
    Warning(String),
}

/// Every step, in the order in which they were first heard of.
#[derive(Debug)]
pub(crate) struct Steps {
    all: Vec<Step>,
    places: HashMap<Subject, usize>,
    names: Arc<OnceLock<Vec<String>>>,
    keep_colours: bool,
}

impl Steps {
    /// Returns an empty list. `names` are the vertices' names by their index, as soon as there are any.
    pub(crate) fn new(names: Arc<OnceLock<Vec<String>>>, keep_colours: bool) -> Self {
        Self {
            all: Vec::new(),
            places: HashMap::new(),
            names,
            keep_colours,
        }
    }

    pub(crate) fn all(&self) -> &[Step] {
        &self.all
    }

    pub(crate) fn get(&self, place: usize) -> &Step {
        &self.all[place]
    }

    /// Returns how many have ended, and how many there are or will be as far as is known.
    pub(crate) fn count(&self) -> (usize, usize) {
        let n_ended = self
            .all
            .iter()
            .filter(|step| step.state != State::Running)
            .count();
        let vertices = self.names.get().map_or(&[][..], |names| names);
        let n_named = vertices.iter().filter(|name| !name.is_empty()).count();
        let n_internal = self
            .places
            .keys()
            .filter(|subject| matches!(subject, Subject::Internal(_)))
            .count();
        (n_ended, (n_named + n_internal).max(n_ended))
    }

    /// Returns what is worth knowing afterwards: the last lines of every step, and what became of it.
    pub(crate) fn into_told(self) -> Told {
        let Self { mut all, places, .. } = self;
        let mut vertices = vec![None; all.len()];
        let mut tails = HashMap::new();
        for (subject, place) in places {
            if let Subject::Vertex(id) = &subject {
                vertices[place] = Some(id.index());
            }
            tails.insert(subject, std::mem::take(&mut all[place].tail).into());
        }
        let steps = all
            .into_iter()
            .zip(vertices)
            .map(|(step, vertex)| step.into_facts(vertex));
        Told {
            steps: steps.collect(),
            tails,
        }
    }

    /// Takes in an event; returns what to show of it, in order.
    pub(crate) fn apply(&mut self, event: Event, now: Duration) -> Vec<Update> {
        let (subject, state) = match event {
            Event::Started { subject, why } => {
                let Some(place) = self.place(subject, now) else {
                    return Vec::new();
                };
                let step = &mut self.all[place];
                (step.started, step.state) = (now, State::Running);
                why.into_iter().for_each(|why| step.explain(why));
                return vec![Update::Started(place)];
            }
            Event::Explained { subject, why } => {
                let Some(place) = self.place(subject, now) else {
                    return Vec::new();
                };
                self.all[place].explain(why);
                return vec![Update::Explained(place)];
            }
            Event::Cached { subject } => (subject, State::Cached),
            Event::Finished { subject, took } => (subject, State::Done(took)),
            Event::Failed { subject, error } => (subject, State::Failed(one_line(&error))),
            Event::Cancelled { subject } => (subject, State::Cancelled),
            Event::Log {
                subject,
                stream: _,
                chunk,
            } => return self.log(subject, &chunk, now),
            Event::Progress {
                subject,
                part,
                current_bytes,
                total_bytes,
                done,
            } => {
                let part = Part {
                    name: one_line(&part),
                    current_bytes,
                    total_bytes,
                    done,
                    since: now,
                };
                return self.part(subject, part, now);
            }
            Event::Warning { text } => return vec![Update::Warning(one_line(&text))],
            Event::End => return Vec::new(),
        };
        let Some(place) = self.place(subject, now) else {
            return Vec::new();
        };
        let mut updates = Vec::new();
        let step = &mut self.all[place];
        if let Some(line) = step.sanitizer.finish() {
            step.keep(&line);
            updates.push(Update::Lines(place, vec![line]));
        }
        (step.state, step.ended) = (state, now);
        updates.push(Update::Ended(place));
        updates
    }

    fn log(&mut self, subject: Subject, chunk: &solver::event::LogChunk, now: Duration) -> Vec<Update> {
        let Some(place) = self.place(subject, now) else {
            return Vec::new();
        };
        let step = &mut self.all[place];
        let mut lines = Vec::new();
        if chunk.skipped_bytes() > 0 {
            lines.push(format!(
                "[{} bytes of output not shown; `ashlar logs` has them]",
                chunk.skipped_bytes()
            ));
        }
        step.sanitizer.push(chunk.bytes(), &mut |line| lines.push(line));
        for line in &lines {
            step.keep(line);
        }
        if lines.is_empty() {
            Vec::new()
        } else {
            vec![Update::Lines(place, lines)]
        }
    }

    fn part(&mut self, subject: Subject, part: Part, now: Duration) -> Vec<Update> {
        let Some(place) = self.place(subject, now) else {
            return Vec::new();
        };
        let parts = &mut self.all[place].parts;
        match parts.iter().position(|known| known.name == part.name) {
            Some(known) => {
                parts[known] = Part {
                    since: parts[known].since,
                    ..part
                };
                vec![Update::Part(place, known)]
            }
            None => {
                parts.push(part);
                vec![Update::Part(place, parts.len() - 1)]
            }
        }
    }

    /// Finds a step or makes it; `None` for vertices that have no name: those aren't for people.
    fn place(&mut self, subject: Subject, now: Duration) -> Option<usize> {
        if let Some(place) = self.places.get(&subject) {
            return Some(*place);
        }
        let name = match &subject {
            Subject::Vertex(id) => self.names.get()?.get(id.index())?.as_str(),
            Subject::Internal(name) => name,
        };
        if name.is_empty() {
            return None;
        }
        self.all.push(Step {
            name: one_line(name),
            state: State::Running,
            started: now,
            ended: now,
            why: None,
            reason: Vec::new(),
            parts: Vec::new(),
            tail: VecDeque::new(),
            sanitizer: Sanitizer::new(self.keep_colours),
        });
        self.places.insert(subject, self.all.len() - 1);
        Some(self.all.len() - 1)
    }
}

/// A first build, or one that was told to ignore the cache, knows why its steps run.
fn news(why: Miss) -> Option<String> {
    match why {
        Miss::NeverBuilt | Miss::Ignored => None,
        why => Some(one_line(&why.to_string())),
    }
}
