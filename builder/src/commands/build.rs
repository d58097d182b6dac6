//! `ashlar build` around the build itself: the private mount namespace, the runtime, signals, and the files and the
//! line that tell the image's ID. What a build does is told in `crate::build`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use solver::Cancel;

use super::call;
use super::foreground::Foreground;
use super::rights;
use super::signals;
use super::terminal::Terminal;
use crate::argfile;
use crate::build::{self, Failed};
use crate::metadata::Facts;
use crate::ops::{FailedContainer, OpError};
use crate::options::{self, BuildOptions, Environment};
use crate::report::{self, Failure, Kind};
use crate::sandbox::Stdio;
use crate::{cli::BuildArgs, runtime, sandbox};

/// A build isn't begun more often, whatever else is found wrong with the store.
const MAX_BEGINNINGS: usize = 5;

/// What follows when something was put right.
const AGAIN: &str = "beginning once more";

/// Builds, and tells the image's ID; or answers what is asked instead. Returns the exit code.
///
/// That the store is damaged, or its disk full, may show only when it is used. Then it all begins once more, with a store
/// that was put right: the steps that were finished are found. An archive on stdout can't be begun again.
pub(crate) fn run(args: &BuildArgs, root: Option<&Path>, environment: &Environment) -> Result<u8, Failure> {
    let with_files;
    let args = if args.build_arg_file.is_empty() {
        args
    } else {
        with_files = read_arg_files(args)?;
        &with_files
    };
    let (options, notes) = options::build(args, root, environment)?;
    notes.iter().for_each(|note| report::note(note));
    let mut done = Vec::new();
    loop {
        let mut failure = match run_once(&options) {
            Err(failure) => failure,
            ended => return ended,
        };
        if options.writes_to_stdout() || done.len() + 1 == MAX_BEGINNINGS {
            return Err(failure);
        }
        let remedy = failure.take_remedy();
        let is_suspect = cache::index::is_suspect(&options.store_root.join("index"));
        if done.contains(&remedy) {
            return Err(failure);
        }
        match &remedy {
            // What opens the index next puts it right, and says so.
            None if is_suspect => report::note(&format!("{}; {AGAIN}", failure.message())),
            None => return Err(failure),
            Some(possible) => match possible.apply(&options.store_root) {
                Some(text) => report::warn(&format!("{text}; {AGAIN}")),
                None => return Err(failure),
            },
        }
        done.push(remedy);
    }
}

fn run_once(options: &BuildOptions) -> Result<u8, Failure> {
    if let Some(call) = options.call {
        return call::run(options, call);
    }
    if options.dry_run {
        let plan = until_asked(None, options.timeout, async |cancel| {
            build::preview(options, cancel).await
        });
        report::data(&runtime::run(plan)?)?;
        return Ok(0);
    }
    // While there is one thread only, and before anything is mounted: then nothing is ever left behind.
    rights::for_build(options)?;
    if let Some(path) = &options.iidfile {
        remove_stale(path)?;
    }
    let terminal = options
        .shell_on_error
        .then(|| Terminal::of_stdin(true))
        .transpose()?;
    let work = async |cancel: &Cancel| build::build(options, cancel).await;
    let facts = runtime::run(until_asked(terminal, options.timeout, work))?;
    tell(options, &facts)?;
    Ok(0)
}

/// Puts the arguments of files before those that were typed, which win.
fn read_arg_files(args: &BuildArgs) -> Result<BuildArgs, Failure> {
    let mut words = Vec::new();
    for path in &args.build_arg_file {
        words.extend(argfile::read(path)?);
    }
    let mut args = args.clone();
    words.append(&mut args.build_arg);
    args.build_arg = words;
    Ok(args)
}

/// Works, and stops when a signal asks to, or the time is over.
async fn until_asked<T>(
    terminal: Option<Terminal>,
    timeout: Option<Duration>,
    work: impl AsyncFnOnce(&Cancel) -> Result<T, Failed>,
) -> Result<T, Failure> {
    let cancel = Cancel::new();
    let asked = Arc::new(OnceLock::new());
    let watching = (cancel.clone(), Arc::clone(&asked));
    signals::watch(timeout, move |reason| {
        let (cancel, asked) = watching;
        asked.get_or_init(|| reason);
        cancel.cancel();
    })?;
    let result = work(&cancel).await;
    match (result, asked.get()) {
        // What fails after that fails because of it, whatever it looks like.
        (Err(_), Some(reason)) => Err(reason.failure()),
        (Ok(done), _) => Ok(done),
        (Err(Failed { failure, container }), _) => {
            if let Some((container, terminal)) = container.zip(terminal) {
                report::error(&failure);
                open_shell(container, terminal).await?;
            }
            Err(failure)
        }
    }
}

/// Opens a shell in the container of a failed step, on the user's terminal, until it ends.
async fn open_shell(container: Box<FailedContainer>, terminal: Terminal) -> Result<(), Failure> {
    report::note("a shell in the container of the failed step, as that left it; the build ends when it does");
    let size = terminal.size();
    let foreground = Foreground {
        terminal: Some(terminal),
        interactive: false,
    };
    let shell =
        move |stdio: Stdio<'_>, cancel: sandbox::Cancel<'_>| match container.shell(stdio, size, cancel) {
            Err(OpError::Cancelled) => Err(Failure::cancelled(libc::SIGINT)),
            other => other.map_err(|error| Failure::of(Kind::Machine, &error)),
        };
    let exit = foreground.run(shell).await?;
    exit.why.iter().for_each(|why| report::note(why));
    Ok(())
}

/// A file of an earlier build must not be taken for this one's, should it fail.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::machine(format!(
            "cannot replace {}: {error}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Writes the files that were asked for, then the ID on stdout, unless an output is there.
fn tell(options: &BuildOptions, facts: &Facts) -> Result<(), Failure> {
    if let Some(path) = &options.iidfile {
        write(path, facts.id.to_string().as_bytes())?;
    }
    if let Some(path) = &options.metadata_file {
        let facts = facts.to_json(options);
        write(path, format!("{facts:#}\n").as_bytes())?;
    }
    match options.writes_to_stdout() {
        true => Ok(()),
        false => report::data(&format!("{}\n", facts.id)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Failure::machine(format!("cannot write {}: {error}", path.display())))
}
