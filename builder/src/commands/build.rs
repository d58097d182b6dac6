//! `ashlar build` around the build itself: the private mount namespace, the runtime, signals, and the files and the
//! line that tell the image's ID. What a build does is told in `crate::build`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use cache::Digest;
use serde_json::json;
use solver::Cancel;
use tokio::signal::unix::{SignalKind, signal};

use crate::argfile;
use crate::build;
use crate::options::{self, BuildOptions, Environment};
use crate::report::{self, Failure, Kind};
use crate::{cli::BuildArgs, runtime, sandbox};

/// Builds, and tells the image's ID.
pub(crate) fn run(args: &BuildArgs, root: Option<&Path>, environment: &Environment) -> Result<(), Failure> {
    let with_files;
    let args = if args.build_arg_file.is_empty() {
        args
    } else {
        with_files = read_arg_files(args)?;
        &with_files
    };
    let (options, notes) = options::build(args, root, environment)?;
    notes.iter().for_each(|note| report::note(note));
    if environment.root {
        // While there is one thread only, and before anything is mounted: then nothing is ever left behind.
        sandbox::enter_private_mounts().map_err(|error| Failure::of(Kind::Machine, &error))?;
    }
    if let Some(path) = &options.iidfile {
        remove_stale(path)?;
    }
    let id = runtime::run(until_signal(&options))?;
    tell(&options, &id)
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

/// Builds, and stops when a signal asks to; a second one doesn't wait for the first to be obeyed.
async fn until_signal(options: &BuildOptions) -> Result<Digest, Failure> {
    let cancel = Cancel::new();
    let received = Arc::new(AtomicI32::new(0));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals =
            signal(kind).map_err(|error| Failure::machine(format!("cannot watch for signals: {error}")))?;
        let (cancel, received) = (cancel.clone(), Arc::clone(&received));
        let number = kind.as_raw_value();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if received.swap(number, Ordering::Relaxed) != 0 {
                    std::process::exit(128 + number);
                }
                cancel.cancel();
            }
        });
    }
    let result = build::build(options, &cancel).await;
    match (result, received.load(Ordering::Relaxed)) {
        // What fails after the signal fails because of it, whatever it looks like.
        (Err(_), number @ 1..) => Err(Failure::cancelled(number)),
        (result, _) => result,
    }
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
fn tell(options: &BuildOptions, id: &Digest) -> Result<(), Failure> {
    if let Some(path) = &options.iidfile {
        write(path, id.to_string().as_bytes())?;
    }
    if let Some(path) = &options.metadata_file {
        let facts = json!({
            "containerimage.config.digest": id,
            "image.name": options.tags.join(","),
        });
        write(path, format!("{facts:#}\n").as_bytes())?;
    }
    match options.writes_to_stdout() {
        true => Ok(()),
        false => report::data(&format!("{id}\n")),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Failure::machine(format!("cannot write {}: {error}", path.display())))
}
