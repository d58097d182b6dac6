//! `ashlar run`: a command in a throw-away container of an image, in the foreground.
//!
//! This file settles what runs: flags over the image's config over defaults. Nothing of the container is kept.

use serde_json::Value;
use solver::op::Network;

use crate::cli::RunArgs;
use crate::image::StoredImage;
use crate::options::Environment;
use crate::report::Failure;

/// Docker's default for images that don't set it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What runs in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Program and arguments.
    pub(crate) args: Vec<String>,
    /// Environment, in order; names are unique.
    pub(crate) env: Vec<(String, String)>,
    /// Working directory.
    pub(crate) cwd: String,
    /// `USER` syntax.
    pub(crate) user: String,
    /// Network.
    pub(crate) network: Network,
    /// Host name.
    pub(crate) hostname: String,
}

/// Settles what runs.
pub(crate) fn process(
    args: &RunArgs,
    image: &StoredImage,
    environment: &Environment,
) -> Result<Process, Failure> {
    let config = |field: &str| image.config.get("config").and_then(|config| config.get(field));
    let text = |field: &str| config(field).and_then(Value::as_str).unwrap_or_default();
    let cwd = match args.workdir.as_deref().unwrap_or(text("WorkingDir")) {
        "" => "/",
        absolute if absolute.starts_with('/') => absolute,
        other => {
            return Err(Failure::usage(format!(
                "the working directory `{other}` is not absolute"
            )));
        }
    };
    Ok(Process {
        args: command(args, &list(config("Entrypoint")), &list(config("Cmd")))?,
        env: env(args, &list(config("Env")), environment)?,
        cwd: cwd.to_owned(),
        user: args.user.as_deref().unwrap_or(text("User")).to_owned(),
        network: network(&args.network)?,
        hostname: args.hostname.clone().unwrap_or_else(|| image.short_id()),
    })
}

fn list(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// ENTRYPOINT and CMD: a command replaces CMD, `--entrypoint` replaces both.
fn command(args: &RunArgs, entrypoint: &[String], cmd: &[String]) -> Result<Vec<String>, Failure> {
    let (mut settled, rest) = match args.entrypoint.as_deref() {
        None if args.command().is_empty() => (entrypoint.to_vec(), cmd),
        None => (entrypoint.to_vec(), args.command()),
        Some("") => (Vec::new(), args.command()),
        Some(program) => (vec![program.to_owned()], args.command()),
    };
    settled.extend_from_slice(rest);
    match settled.is_empty() {
        true => Err(
            Failure::usage("nothing to run: the image has neither ENTRYPOINT nor CMD")
                .with_help(format!("name a command: ashlar run {} COMMAND", args.image())),
        ),
        false => Ok(settled),
    }
}

fn env(
    args: &RunArgs,
    image: &[String],
    environment: &Environment,
) -> Result<Vec<(String, String)>, Failure> {
    let mut settled: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match settled.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => value.clone_into(known),
        None => settled.push((name.to_owned(), value.to_owned())),
    };
    set("PATH", DEFAULT_PATH);
    if args.tty {
        set("TERM", "xterm");
    }
    for text in image {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        set(name, value);
    }
    for text in &args.env {
        match text.split_once('=') {
            Some(("", _)) => {
                return Err(Failure::usage(format!(
                    "invalid variable `{text}`: the name is empty"
                )));
            }
            Some((name, value)) => set(name, value),
            // As docker: taken from the environment, not set where that doesn't have it.
            None => {
                if let Some(value) = environment.vars.get(text) {
                    set(text, value);
                }
            }
        }
    }
    Ok(settled)
}

fn network(mode: &str) -> Result<Network, Failure> {
    match mode {
        "default" | "bridge" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => {
            Err(Failure::usage(format!("unknown network mode `{other}`"))
                .with_help("one of default, none, host"))
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
