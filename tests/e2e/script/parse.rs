//! The text of a script: phases, commands, files. Nothing is run here.
//!
//! The format is that of Go's testscript. A line is a command; a comment at the start of a line opens a
//! phase and names it; words are split at blanks, `'…'` quotes (`''` is a quote inside), `$VAR` and
//! `${VAR}` are replaced outside quotes; `!` before a command expects it to fail; `[cond]` and `[!cond]`
//! run it only where that holds; `-- name --` lines begin the files that follow the commands.

/// A script, parsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// The commands, in the phases that comments divide them into.
    pub(crate) phases: Vec<Phase>,
    /// The files that are there when the first command runs: name, content.
    pub(crate) files: Vec<(String, String)>,
}

/// Commands that belong together, under the comment above them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) title: String,
    pub(crate) commands: Vec<Command>,
}

/// One command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// 1-based line in the script's file.
    pub(crate) line: usize,
    /// The conditions in front of the command; `!cond` is negated.
    pub(crate) conditions: Vec<String>,
    /// Whether the command must fail (`!`).
    pub(crate) fails: bool,
    /// The words, the command's name first; never empty.
    pub(crate) words: Vec<Word>,
}

/// A word in pieces, because variables are known only when the command runs.
pub(crate) type Word = Vec<Piece>;

/// A piece of a word.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Variable(String),
}

/// Parses a script; the error names the line.
pub(crate) fn parse(text: &str) -> Result<Script, String> {
    let (commands, files) = match text.lines().position(|line| file_name(line).is_some()) {
        Some(at) => (at, parse_files(text, at)),
        None => (text.lines().count(), Vec::new()),
    };
    let mut script = Script {
        phases: Vec::new(),
        files,
    };
    for (at, line) in text.lines().take(commands).enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            open_phase(&mut script.phases, comment.trim());
        } else if !line.is_empty() {
            let command = parse_command(at + 1, line).map_err(|e| format!("line {}: {e}", at + 1))?;
            if script.phases.is_empty() {
                script.phases.push(Phase::default());
            }
            script
                .phases
                .last_mut()
                .expect("because one was pushed")
                .commands
                .push(command);
        }
    }
    Ok(script)
}

/// Comment lines in a row are one title.
fn open_phase(phases: &mut Vec<Phase>, comment: &str) {
    match phases.last_mut() {
        Some(phase) if phase.commands.is_empty() => {
            phase.title.push(' ');
            phase.title.push_str(comment);
        }
        _ => phases.push(Phase {
            title: comment.to_owned(),
            commands: Vec::new(),
        }),
    }
}

fn file_name(line: &str) -> Option<&str> {
    let name = line.strip_prefix("-- ")?.strip_suffix(" --")?.trim();
    (!name.is_empty()).then_some(name)
}

fn parse_files(text: &str, first: usize) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    // Line ends stay in the content: a file's last newline and its CRs are part of a test.
    for line in text.split_inclusive('\n').skip(first) {
        match file_name(line.trim_end_matches('\n')) {
            Some(name) => files.push((name.to_owned(), String::new())),
            None => {
                let (_, content) = files.last_mut().expect("because the first line is a file's name");
                content.push_str(line);
            }
        }
    }
    files
}

fn parse_command(line: usize, text: &str) -> Result<Command, String> {
    let mut rest = text;
    let mut conditions = Vec::new();
    while let Some(after) = rest.strip_prefix('[') {
        let (condition, more) = after.split_once(']').ok_or("a condition without ]")?;
        conditions.push(condition.to_owned());
        rest = more.trim_start();
    }
    let negated = rest
        .strip_prefix('!')
        .filter(|after| after.starts_with([' ', '\t']));
    let words = split_words(negated.unwrap_or(rest))?;
    if words.is_empty() {
        return Err("no command".to_owned());
    }
    Ok(Command {
        line,
        conditions,
        fails: negated.is_some(),
        words,
    })
}

fn split_words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '#' if word.is_none() => break,
            '\'' => {
                let into = word.get_or_insert_default();
                quoted(&mut chars, into)?;
            }
            '$' => {
                let piece = variable(&mut chars)?;
                word.get_or_insert_default().push(piece);
            }
            _ => push_char(word.get_or_insert_default(), c),
        }
    }
    words.extend(word);
    Ok(words)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn quoted(chars: &mut Chars<'_>, into: &mut Word) -> Result<(), String> {
    // Even `''` alone makes a word: the empty one.
    into.push(Piece::Text(String::new()));
    while let Some(c) = chars.next() {
        if c != '\'' {
            push_char(into, c);
        } else if chars.next_if_eq(&'\'').is_some() {
            push_char(into, '\'');
        } else {
            return Ok(());
        }
    }
    Err("a quote is not closed".to_owned())
}

fn variable(chars: &mut Chars<'_>) -> Result<Piece, String> {
    let mut name = String::new();
    if chars.next_if_eq(&'{').is_some() {
        loop {
            match chars.next() {
                Some('}') => break,
                Some(c) => name.push(c),
                None => return Err("${ is not closed".to_owned()),
            }
        }
    } else {
        while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
    }
    if name.is_empty() {
        return Ok(Piece::Text("$".to_owned()));
    }
    Ok(Piece::Variable(name))
}

fn push_char(word: &mut Word, c: char) {
    if let Some(Piece::Text(text)) = word.last_mut() {
        text.push(c);
    } else {
        word.push(Piece::Text(c.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(script: &Script) -> String {
        let mut out = String::new();
        for phase in &script.phases {
            out += &format!("[{}]\n", phase.title);
            for command in &phase.commands {
                let words: Vec<String> = command.words.iter().map(show_word).collect();
                let fails = if command.fails { "! " } else { "" };
                out += &format!(
                    "{} {:?} {fails}{}\n",
                    command.line,
                    command.conditions,
                    words.join("|")
                );
            }
        }
        for (name, content) in &script.files {
            out += &format!("{name}: {content:?}\n");
        }
        out
    }

    fn show_word(word: &Word) -> String {
        let show = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Variable(name) => format!("<{name}>"),
        };
        word.iter().map(show).collect()
    }

    fn check(text: &str, expected: &str) {
        match parse(text) {
            Ok(script) => assert_eq!(shown(&script), expected),
            Err(error) => assert_eq!(error, expected),
        }
    }

    #[test]
    fn phases_commands_and_files() {
        check(
            "# one\n# more\nbuild -t app .\n! build x\n\n# two\nstdout 'a b'\n-- a/b --\nx\r\n-- c --\nlast",
            "[one more]\n3 [] build|-t|app|.\n4 [] ! build|x\n[two]\n7 [] stdout|a b\n\
             a/b: \"x\\r\\n\"\nc: \"last\"\n",
        );
    }

    #[test]
    fn words() {
        check("a 'it''s' '' b'c d'e # no", "[]\n1 [] a|it's||bc de\n");
        check("a $X/${Y}z '$X' $ a#b", "[]\n1 [] a|<X>/<Y>z|$X|$|a#b\n");
        check("a 'open", "line 1: a quote is not closed");
        check("a ${X", "line 1: ${ is not closed");
    }

    #[test]
    fn conditions() {
        check("[root] [!exec:x] ! a", "[]\n1 [\"root\", \"!exec:x\"] ! a\n");
        check("[!net] skip 'no net'", "[]\n1 [\"!net\"] skip|no net\n");
        check("[root a", "line 1: a condition without ]");
        check("[root]", "line 1: no command");
    }
}
