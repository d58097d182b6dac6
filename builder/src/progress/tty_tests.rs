//! A window in memory, to see what a terminal would show.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use solver::Miss;

use super::super::tests::Script;
use super::*;

/// A terminal that knows what we use of it. Panics on any other sequence.
struct Window {
    columns: usize,
    rows: usize,
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    cursor_hidden: bool,
}

impl Window {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns,
            rows,
            cells: vec![Vec::new()],
            row: 0,
            column: 0,
            cursor_hidden: false,
        }
    }

    /// Wraps what is there again, as terminals do.
    fn narrow(&mut self, columns: usize) {
        let wrapped = |row: &Vec<char>| row.chunks(columns).map(<[char]>::to_vec).collect::<Vec<_>>();
        let lines = self.cells.iter().map(|row| {
            if row.is_empty() {
                vec![vec![]]
            } else {
                wrapped(row)
            }
        });
        self.cells = lines.flatten().collect();
        (self.columns, self.row, self.column) = (columns, self.cells.len() - 1, 0);
    }

    fn feed(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\u{1b}' => {
                    assert_eq!(rest.next(), Some('['));
                    let mut parameters = String::new();
                    let end = loop {
                        match rest.next().unwrap() {
                            end if end.is_ascii_alphabetic() => break end,
                            parameter => parameters.push(parameter),
                        }
                    };
                    self.sequence(&parameters, end);
                }
                '\r' => self.column = 0,
                '\n' => {
                    (self.row, self.column) = (self.row + 1, 0);
                    if self.row == self.cells.len() {
                        self.cells.push(Vec::new());
                    }
                }
                _ => {
                    assert!(
                        !character.is_control() && self.column < self.columns,
                        "no line is too long"
                    );
                    let row = &mut self.cells[self.row];
                    row.resize(row.len().max(self.column + 1), ' ');
                    row[self.column] = character;
                    self.column += 1;
                }
            }
        }
    }

    fn sequence(&mut self, parameters: &str, end: char) {
        match (parameters, end) {
            (up, 'A') => {
                let up: usize = up.parse().unwrap();
                assert!(up < self.rows, "what scrolled away can't be reached");
                self.row -= up;
            }
            ("2", 'K') => self.cells[self.row].clear(),
            ("", 'J') => {
                self.cells.truncate(self.row + 1);
                self.cells[self.row].truncate(self.column);
            }
            ("?25", 'l') => self.cursor_hidden = true,
            ("?25", 'h') => self.cursor_hidden = false,
            (_, 'm') => {}
            other => panic!("unexpected sequence {other:?}"),
        }
    }

    fn text(&self) -> String {
        let rows = self
            .cells
            .iter()
            .map(|row| row.iter().collect::<String>().trim_end().to_owned());
        rows.collect::<Vec<_>>().join("\n")
    }
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Window>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().feed(std::str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const LOOK: Look = Look {
    verb: "Building",
    colour: true,
    log_lines: 6,
};

const WIDE: Size = Size {
    columns: 64,
    rows: 14,
};

const NARROW: Size = Size {
    columns: 24,
    rows: 14,
};

fn names() -> Vec<String> {
    (1..=9)
        .map(|n| format!("[{n}/9] RUN step number {n} with a rather long command line"))
        .collect()
}

#[test]
fn the_picture_is_redrawn_in_place_and_survives_a_narrower_window() {
    let names = names();
    let mut s = Script::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let window = Rc::new(RefCell::new(Window::new(64, 14)));
    let size = Rc::new(Cell::new(WIDE));
    let asked = Rc::clone(&size);
    let tty = &mut Tty::new(Shared(Rc::clone(&window)), move || asked.get(), LOOK);
    for place in 0..3 {
        s.cached(1, tty, place);
    }
    s.start(10, tty, 3, Some(Miss::Changed(vec!["command changed".into()])));
    s.start(20, tty, 4, None);
    for line in 0..10 {
        s.log(30, tty, 3, format!("\x1b[31mline\t{line}\x1b[2J\n").as_bytes());
    }
    s.log(40, tty, 4, "50% of 日本\rdone 90%".as_bytes());
    tty.tick(&s.steps, Duration::from_millis(1240));
    assert!(window.borrow().cursor_hidden);
    insta::assert_snapshot!(window.borrow().text(), @r##"
    [+] Building 1.2s (3/9)
     => CACHED [1/9] RUN step number 1 with a rather long comma 0.0s
     => CACHED [2/9] RUN step number 2 with a rather long comma 0.0s
     => CACHED [3/9] RUN step number 3 with a rather long comma 0.0s
     => [4/9] RUN step number 4 with a rather long command line 1.2s
     => => # line    7
     => => # line    8
     => => # line    9
     => [5/9] RUN step number 5 with a rather long command line 1.2s
     => => # done 90%
    "##);

    size.set(NARROW);
    window.borrow_mut().narrow(24);
    window.borrow_mut().rows = 100;
    s.done(1400, tty, 3, 1390);
    insta::assert_snapshot!(window.borrow().text(), @r##"
    [+] Building 1.4s (4/9)
     => CACHED [1/9] RU 0.0s
     => CACHED [2/9] RU 0.0s
     => CACHED [3/9] RU 0.0s
     => [4/9] RUN step  1.4s
     => [5/9] RUN step  1.4s
     => => # done 90%
    "##);

    s.fail(1500, tty, 4, "exit code 1");
    s.warn(1500, tty, "careful");
    size.set(WIDE);
    window.borrow_mut().columns = 64;
    tty.finish(&s.steps, Duration::from_millis(1600));
    assert!(!window.borrow().cursor_hidden);
    insta::assert_snapshot!(window.borrow().text(), @r##"
    [+] Building 1.6s (5/9) FINISHED
     => CACHED [1/9] RUN step number 1 with a rather long comma 0.0s
     => CACHED [2/9] RUN step number 2 with a rather long comma 0.0s
     => CACHED [3/9] RUN step number 3 with a rather long comma 0.0s
     => [4/9] RUN step number 4 with a rather long command line 1.4s
     => ERROR [5/9] RUN step number 5 with a rather long comman 1.5s
    warning: careful
    "##);
}

#[test]
fn any_window_is_wide_enough() {
    let names = names();
    let mut s = Script::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for place in 0..9 {
        s.start(0, &mut super::super::Silent, place, None);
        s.log(0, &mut super::super::Silent, place, "日本\ta\nb\nc".as_bytes());
    }
    for columns in 0..100 {
        for rows in 0..20 {
            let lines = frame(&s.steps, Duration::ZERO, Size { columns, rows }, LOOK);
            assert!(lines.len() <= rows.saturating_sub(1).max(2), "{columns}x{rows}");
            assert!(
                lines.iter().all(|line| width(&line.text) <= columns.max(1)),
                "{columns}x{rows}"
            );
        }
    }
}

#[test]
fn parts_have_bars_that_fit() {
    let part = |name: &str, current_bytes, total_bytes| {
        let part = Part {
            name: name.to_owned(),
            current_bytes,
            total_bytes,
            done: false,
            since: Duration::ZERO,
        };
        live_part(&part, Duration::from_secs(2))
    };
    let digest = format!("sha256:{}", "0f".repeat(32));
    for (shown, expected) in [
        (
            part(&digest, 0, Some(1000)),
            "0f0f0f0f0f0f [....................] 0B / 1.00kB 2.0s",
        ),
        (
            part(&digest, 499, Some(1000)),
            "0f0f0f0f0f0f [#########...........] 499B / 1.00kB 2.0s",
        ),
        (
            part(&digest, 2000, Some(1000)),
            "0f0f0f0f0f0f [####################] 2.00kB / 1.00kB 2.0s",
        ),
        (part(&digest, 7, None), "0f0f0f0f0f0f 7B 2.0s"),
        (part("a file", 0, Some(0)), "a file 0B / 0B 2.0s"),
    ] {
        assert_eq!(shown, expected);
    }
}
