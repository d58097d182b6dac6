//! What builds did and said: a directory for each in the store's `logs/`, for `ashlar logs` and `ashlar explain`.
//!
//! ```text
//! logs/<build>/build.json    what was built, how it ended, each step with its reasons; written when the build ends
//! logs/<build>/<vertex>.zst  what a step's process wrote, secrets masked
//! ```
//!
//! A build's name is its time, so that names sort. Nothing here decides anything: a journal that can't be written costs a
//! warning, one that can't be read an error of the command that asked. It is not synced: a power cut may take the last.

mod output;
mod steps;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

pub(crate) use output::{Output, read};
pub(crate) use steps::{How, StepFacts, explain};

/// The most builds that are kept; beyond, the oldest go.
const MAX_BUILDS: usize = 100;
/// When some go, as many as this do, so that it isn't done at every build.
const REMOVED_AT_ONCE: usize = 20;
/// The most bytes that are kept, as long as there is more than one build.
const MAX_BYTES: u64 = 256 << 20;

/// What is known of a build when it begins.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct About {
    /// The Dockerfile's name.
    pub(crate) dockerfile: String,
    /// What was asked for; empty: the last stage.
    pub(crate) target: String,
    /// Names of the image.
    pub(crate) tags: Vec<String>,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    /// Well.
    Done,
    /// With an error.
    Failed(String),
    /// On request.
    Cancelled,
}

/// A build that ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// What it was to build.
    #[serde(flatten)]
    pub(crate) about: About,
    /// When it began, in milliseconds since the epoch.
    pub(crate) begun_unix_ms: u64,
    /// How long it took.
    pub(crate) took_ms: u64,
    /// How it ended.
    pub(crate) ending: Ending,
    /// Its steps, in the order in which progress numbers them.
    pub(crate) steps: Vec<StepFacts>,
}

/// The journal of a build under way.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    begun_unix_ms: u64,
    about: About,
}

impl Journal {
    /// Begins one in the store at `root`.
    pub(crate) fn begin(root: &Path, about: About) -> io::Result<Self> {
        let logs = root.join("logs");
        let mut begun_unix_ms = now_unix_ms();
        loop {
            let dir = logs.join(name(begun_unix_ms));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    return Ok(Self {
                        dir,
                        begun_unix_ms,
                        about,
                    });
                }
                // Another build began in the same millisecond.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => begun_unix_ms += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !logs.exists() => {
                    match DirBuilder::new().mode(0o700).create(&logs) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                        _ => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns where a step's output goes; nothing is made before there is any.
    pub(crate) fn output(&self, vertex: usize) -> Output {
        Output::new(output_path(&self.dir, vertex))
    }

    /// Writes down how the build ended, and removes builds of long ago.
    pub(crate) fn end(&self, ending: Ending, steps: Vec<StepFacts>) -> io::Result<()> {
        let facts = Facts {
            about: self.about.clone(),
            begun_unix_ms: self.begun_unix_ms,
            took_ms: now_unix_ms().saturating_sub(self.begun_unix_ms),
            ending,
            steps,
        };
        let (half, whole) = (self.dir.join("build.json.half"), self.dir.join("build.json"));
        serde_json::to_writer(io::BufWriter::new(File::create(&half)?), &facts)?;
        fs::rename(half, whole)?;
        self.dir.parent().map_or(Ok(()), remove_old)
    }
}

/// A build of the journal.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    dir: PathBuf,
}

impl Listed {
    /// Returns what is known of it; `None` while it isn't over, or when it was killed.
    pub(crate) fn facts(&self) -> io::Result<Option<Facts>> {
        match File::open(self.dir.join("build.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(file) => Ok(Some(serde_json::from_reader(io::BufReader::new(file))?)),
        }
    }

    /// Returns what the process of a step wrote; `None` when it wrote nothing.
    pub(crate) fn output(&self, vertex: usize) -> io::Result<Option<impl io::Read + use<>>> {
        read(&output_path(&self.dir, vertex))
    }
}

/// Returns the builds of the store at `root`, the newest first.
pub(crate) fn list(root: &Path) -> io::Result<Vec<Listed>> {
    let mut names = names(&root.join("logs"))?;
    names.reverse();
    Ok(names
        .into_iter()
        .map(|name| Listed {
            dir: root.join("logs").join(&name),
            name,
        })
        .collect())
}

/// Returns the names of builds, the oldest first.
fn names(logs: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(logs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes the oldest builds where there are too many, or they say too much; never the newest.
fn remove_old(logs: &Path) -> io::Result<()> {
    let names = names(logs)?;
    let n_surplus = match names.len() > MAX_BUILDS {
        true => names.len() - MAX_BUILDS + REMOVED_AT_ONCE,
        false => 0,
    };
    let mut bytes = 0_u64;
    for (place, name) in names.iter().enumerate().rev().skip(1) {
        let dir = logs.join(name);
        bytes = bytes.saturating_add(size_bytes(&dir));
        if place < n_surplus || bytes > MAX_BYTES {
            remove(&dir)?;
        }
    }
    Ok(())
}

fn size_bytes(dir: &Path) -> u64 {
    // What another process is removing has no size.
    let sizes = fs::read_dir(dir).into_iter().flatten().flatten();
    sizes
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

/// Removes a build's files, which lie in no further directories.
fn remove(dir: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    for entry in fs::read_dir(dir)?.flatten() {
        gone(fs::remove_file(entry.path()))?;
    }
    gone(fs::remove_dir(dir))
}

fn output_path(dir: &Path, vertex: usize) -> PathBuf {
    dir.join(format!("{vertex}.zst"))
}

fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a build's name: its time in UTC.
fn name(unix_ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let format = format_description!("[year][month][day]-[hour][minute][second]-[subsecond digits:3]");
    // Only a time that can't be said fails, and these can.
    time.format(format).unwrap_or_else(|_| unix_ms.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_was_said_and_done_comes_back() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(list(root.path()).unwrap().len(), 0);
        let journal = Journal::begin(root.path(), About::default()).unwrap();
        let mut output = journal.output(3);
        output.write(b"one\n");
        output.write(b"two\n");
        output.finish().unwrap();
        journal.output(4).finish().unwrap();
        let listed = list(root.path()).unwrap().remove(0);
        assert!(listed.facts().unwrap().is_none());
        journal.end(Ending::Cancelled, Vec::new()).unwrap();
        assert_eq!(listed.facts().unwrap().unwrap().ending, Ending::Cancelled);
        let mut said = String::new();
        listed
            .output(3)
            .unwrap()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(said, "one\ntwo\n");
        assert!(listed.output(4).unwrap().is_none());
    }

    #[test]
    fn names_are_times_and_never_the_same() {
        assert_eq!(name(1_000_000_000_123), "20010909-014640-123");
        let root = tempfile::tempdir().unwrap();
        let begin = || Journal::begin(root.path(), About::default()).unwrap();
        let all: Vec<Journal> = (0..20).map(|_| begin()).collect();
        assert_eq!(names(&root.path().join("logs")).unwrap().len(), all.len());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("logs");
        for place in 0..=MAX_BUILDS as u64 {
            DirBuilder::new()
                .recursive(true)
                .create(logs.join(name(place)))
                .unwrap();
        }
        let journal = Journal::begin(root.path(), About::default()).unwrap();
        journal.end(Ending::Cancelled, Vec::new()).unwrap();
        let kept = names(&logs).unwrap();
        assert_eq!(kept.len(), MAX_BUILDS - REMOVED_AT_ONCE);
        assert_eq!(
            kept.last().map(String::as_str),
            journal.dir.file_name().and_then(|name| name.to_str())
        );
    }
}
