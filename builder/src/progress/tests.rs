//! Scripted builds, and what the displays make of them.

use std::sync::mpsc;

use solver::event::Stream;
use solver::op::{Op, Source};
use solver::{Label, Miss, Subject, VertexId};

use super::plain::Plain;
use super::rawjson::RawJson;
use super::*;

/// A graph with these names, its vertices, and the steps that know them.
pub(super) struct Script {
    pub(super) ids: Vec<VertexId>,
    pub(super) steps: Steps,
    events: Events,
    receiver: mpsc::Receiver<Event>,
}

impl Script {
    pub(super) fn new(names: &[&str]) -> Self {
        let mut graph = Graph::new();
        let ids = names
            .iter()
            .enumerate()
            .map(|(place, name)| {
                let op = Op::Source(Source::Local {
                    name: place.to_string(),
                });
                graph.add(
                    op,
                    vec![],
                    Label {
                        name: (*name).to_owned(),
                        ..Label::default()
                    },
                )
            })
            .collect();
        let named = OnceLock::from(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let (events, receiver) = Events::channel();
        Self {
            ids,
            steps: Steps::new(Arc::new(named), false),
            events,
            receiver,
        }
    }

    pub(super) fn subject(&self, place: usize) -> Subject {
        Subject::Vertex(self.ids[place])
    }

    pub(super) fn at(&mut self, ms: u64, display: &mut dyn Display, event: Event) {
        let now = Duration::from_millis(ms);
        for update in self.steps.apply(event, now) {
            display.show(&update, &self.steps, now);
        }
        display.tick(&self.steps, now);
    }

    pub(super) fn start(&mut self, ms: u64, display: &mut dyn Display, place: usize, why: Option<Miss>) {
        let subject = self.subject(place);
        self.at(ms, display, Event::Started { subject, why });
    }

    pub(super) fn log(&mut self, ms: u64, display: &mut dyn Display, place: usize, bytes: &[u8]) {
        self.events.log(&self.subject(place), Stream::Stdout, bytes);
        let event = self.receiver.try_recv().expect("because it was just sent");
        self.at(ms, display, event);
    }

    pub(super) fn cached(&mut self, ms: u64, display: &mut dyn Display, place: usize) {
        let subject = self.subject(place);
        self.at(ms, display, Event::Cached { subject });
    }

    pub(super) fn fail(&mut self, ms: u64, display: &mut dyn Display, place: usize, error: &str) {
        let (subject, error) = (self.subject(place), error.to_owned());
        self.at(ms, display, Event::Failed { subject, error });
    }

    pub(super) fn warn(&mut self, ms: u64, display: &mut dyn Display, text: &str) {
        self.at(
            ms,
            display,
            Event::Warning {
                text: text.to_owned(),
            },
        );
    }

    pub(super) fn done(&mut self, ms: u64, display: &mut dyn Display, place: usize, took_ms: u64) {
        let (subject, took) = (self.subject(place), Duration::from_millis(took_ms));
        self.at(ms, display, Event::Finished { subject, took });
    }
}

fn written(display: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    display(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_log_format_is_buildkits() {
    let text = written(|out| {
        let mut s = Script::new(&[
            "[1/3] FROM alpine",
            "[2/3] RUN make",
            "[3/3] COPY . .",
            "RUN later",
            "",
        ]);
        let plain = &mut Plain::new(out);
        let context = Subject::internal("[internal] load build context");
        s.at(
            0,
            plain,
            Event::Started {
                subject: context.clone(),
                why: None,
            },
        );
        s.at(
            10,
            plain,
            Event::Finished {
                subject: context,
                took: Duration::from_millis(10),
            },
        );
        s.cached(12, plain, 0);
        s.cached(12, plain, 4);
        s.start(
            20,
            plain,
            1,
            Some(Miss::Changed(vec!["ENV VERSION 1 → 2".into()])),
        );
        s.start(20, plain, 2, Some(Miss::NeverBuilt));
        s.log(432, plain, 1, b"cc main.c\ncc ut");
        s.log(450, plain, 2, b"a file\n");
        s.log(460, plain, 1, b"il.c\nno line feed");
        s.done(470, plain, 1, 450);
        s.warn(480, plain, "careful\x1b[2J\nnow");
        let stopped = s.subject(3);
        s.start(490, plain, 3, Some(Miss::Removed(None)));
        s.fail(500, plain, 2, "exit code 2");
        s.at(510, plain, Event::Cancelled { subject: stopped });
        plain.finish(&s.steps, Duration::from_millis(520));
    });
    insta::assert_snapshot!(text, @r##"
    #1 [internal] load build context
    #1 DONE 0.0s

    #2 [1/3] FROM alpine
    #2 CACHED

    #3 [2/3] RUN make
    #3 why: ENV VERSION 1 → 2
    #3 0.412 cc main.c
    #3 0.440 cc util.c
    #3 0.450 no line feed
    #3 DONE 0.5s

    #4 [3/3] COPY . .
    #4 0.430 a file
    #4 ERROR: exit code 2

    #5 RUN later
    #5 why: its cached result was removed
    #5 CANCELED

    warning: careful now
    "##);
}

#[test]
fn a_quiet_step_lets_another_speak() {
    let text = written(|out| {
        let mut s = Script::new(&["RUN a", "RUN b"]);
        let plain = &mut Plain::new(out);
        s.start(0, plain, 0, None);
        s.start(0, plain, 1, None);
        s.log(100, plain, 1, b"held\n");
        s.log(400, plain, 0, b"goes on\n");
        s.log(800, plain, 1, b"still held\n");
        plain.tick(&s.steps, Duration::from_millis(901));
        s.log(950, plain, 0, b"held in turn\n");
        s.done(1000, plain, 1, 1000);
        s.done(1100, plain, 0, 1100);
        plain.finish(&s.steps, Duration::from_millis(1200));
    });
    insta::assert_snapshot!(text, @r##"
    #1 RUN a
    #1 0.400 goes on
    #1 ...

    #2 RUN b
    #2 0.100 held
    #2 0.800 still held
    #2 DONE 1.0s

    #1 RUN a
    #1 0.950 held in turn
    #1 DONE 1.1s
    "##);
}

#[test]
fn parts_show_bytes() {
    let text = written(|out| {
        let mut s = Script::new(&["[1/1] FROM x"]);
        let plain = &mut Plain::new(out);
        s.start(0, plain, 0, None);
        let part = |current_bytes, done| Event::Progress {
            subject: Subject::internal("pull"),
            part: "sha256:ab12".into(),
            current_bytes,
            total_bytes: Some(3_100_000),
            done,
        };
        s.at(100, plain, part(999, false));
        s.at(2100, plain, part(1_050_000, false));
        s.at(2200, plain, part(1_060_000, false));
        s.at(3000, plain, part(3_100_000, true));
        plain.finish(&s.steps, Duration::from_millis(3100));
    });
    insta::assert_snapshot!(text, @r##"
    #1 [1/1] FROM x
    #1 ...

    #2 pull
    #2 sha256:ab12 1.05MB / 3.10MB 2.0s
    #2 sha256:ab12 3.10MB / 3.10MB 2.9s done
    "##);
}

#[test]
fn json_lines_hold_what_buildkit_tells() {
    let text = written(|out| {
        let mut s = Script::new(&["RUN a"]);
        let json = &mut RawJson::new(out, SystemTime::UNIX_EPOCH);
        s.start(0, json, 0, None);
        s.log(100, json, 0, b"hi \xff\x1b]0;x\x07\n");
        s.fail(1500, json, 0, "exit code 1");
        s.warn(1500, json, "w");
    });
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    insta::with_settings!({filters => vec![("sha256:[0-9a-f]{64}", "DIGEST")]}, {
        insta::assert_snapshot!(text, @r##"
    {"vertexes":[{"digest":"DIGEST","name":"RUN a","started":"1970-01-01T00:00:00Z"}]}
    {"logs":[{"vertex":"DIGEST","stream":1,"data":"aGkg77+9Cg==","timestamp":"1970-01-01T00:00:00.1Z"}]}
    {"vertexes":[{"digest":"DIGEST","name":"RUN a","started":"1970-01-01T00:00:00Z","completed":"1970-01-01T00:00:01.5Z","error":"exit code 1"}]}
    {"warnings":[{"level":1,"short":"dw=="}]}
    "##);
    });
}

#[test]
fn tails_are_the_last_lines_and_bounded() {
    let mut s = Script::new(&["RUN a"]);
    s.start(0, &mut Silent, 0, None);
    for line in 0..100 {
        s.log(1, &mut Silent, 0, format!("{line}\n").as_bytes());
    }
    s.log(1, &mut Silent, 0, &[b'x'; 100_000]);
    s.done(2, &mut Silent, 0, 2);
    let subject = s.subject(0);
    let tails = s.steps.into_told();
    let tail = tails.tail(&subject);
    assert_eq!(tail.len(), 20);
    assert!(tail.iter().all(|line| line.len() <= 520));
    assert!(tails.tail(&Subject::internal("none")).is_empty());
}

#[test]
fn finishing_shows_all_and_returns_the_tails_even_while_senders_live() {
    let settings = Settings {
        verb: "Building",
        mode: Mode::Quiet,
        colour: false,
        log_lines: 6,
        dumb: true,
    };
    let progress = Progress::start(settings);
    let (kept_alive, subject) = (progress.events(), Subject::internal("x"));
    kept_alive.log(&subject, Stream::Stderr, b"one\ntwo\n");
    let tails = progress.finish();
    assert_eq!(tails.tail(&subject), ["one", "two"]);
}

#[test]
fn modes_parse() {
    assert_eq!("rawjson".parse(), Ok(Mode::RawJson));
    assert_eq!("fancy".parse::<Mode>(), Err(UnknownMode("fancy".into())));
}
