//! ashlar: builds container images from Dockerfiles. See ARCHITECTURE.md for the map.
//!
//! This file decides the order of the first microseconds and the exit code, and hands over to a command.

mod archive;
mod argfile;
mod attest;
mod build;
mod caches;
mod cdi;
mod cli;
mod clock;
mod commands;
mod context;
mod csv;
mod dockerfile;
mod engine;
mod export;
mod failure;
mod image;
mod journal;
mod lockfile;
mod metadata;
mod objects;
mod ops;
mod options;
mod progress;
mod records;
mod registry;
mod remedy;
mod remote;
mod report;
mod runtime;
mod sandbox;
mod secrets;
mod ssh;
mod upkeep;
mod wildcards;

use std::path::Path;
use std::process::ExitCode;

use cache::Purpose;
use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};
use image::open_store_for as open_for;
use options::Environment;
use remedy::Remedy;
use report::Failure;

fn main() -> ExitCode {
    // First of all: inside the sandbox this same binary is the helper, which must not do any of the below.
    if let Some(code) = sandbox::helper_entry() {
        std::process::exit(code);
    }
    sandbox::keep_children();
    sandbox::outlive_file_limit();
    std::panic::set_hook(Box::new(|panic| {
        report::error(&Failure::bug(panic.to_string().replace('\n', ": ")));
        // Without this a panic of a thread would end that thread only, and whoever waits for it would wait on.
        std::process::exit(101);
    }));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let root = options::store_root(cli.root.as_deref(), &Environment::of_process());
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(mut failure) => {
            let remedy = failure.take_remedy();
            report::error(&failure);
            // So that it is made or fetched again. A full disk is no reason to remove what nobody asked to remove.
            if let (Some(remedy @ Remedy::SetAside(_)), Ok(root)) = (remedy, root)
                && let Some(text) = remedy.apply(&root)
            {
                report::note(&text);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Shows clap's answer: help and version are results, the rest are errors.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    let result = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => report::data(&text),
        _ => {
            report::usage(&text);
            return ExitCode::from(2);
        }
    };
    result.map_or_else(
        |failure| ExitCode::from(failure.exit_code()),
        |()| ExitCode::SUCCESS,
    )
}

fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let environment = Environment::of_process();
    let root = || options::store_root(cli.root.as_deref(), &environment);
    let open = || image::open_store(&root()?);
    let now_unix = clock::now_unix();
    let command = match cli.command {
        Command::Image(command) => command.flatten(),
        command => command,
    };
    match command {
        Command::Images(args) => report::data(&commands::images::images(
            &args,
            &open_for(&root()?, Purpose::Look)?,
            now_unix,
        )?)?,
        Command::History(args) => report::data(&commands::history::history(&args, &open()?, now_unix)?)?,
        Command::Diff(args) => {
            let outcome = commands::diff::diff(&args, &open()?)?;
            report::data(&outcome.text)?;
            return Ok(u8::from(outcome.differs && args.exit_code));
        }
        Command::Inspect(args) => report::data(&commands::inspect::inspect(&args, &open()?)?)?,
        Command::Tag(args) => commands::tag::tag(&args, &open()?, now_unix)?,
        command @ (Command::Prune(_) | Command::Df(_) | Command::Check(_) | Command::Rmi(_)) => {
            return tidy(command, &root()?, now_unix);
        }
        Command::Version => report::data(&commands::version::version())?,
        Command::Doctor(args) => {
            let (text, code) = commands::doctor::doctor(&args, &root()?)?;
            report::data(&text)?;
            return Ok(code);
        }
        Command::Image(_) => return Err(Failure::bug("`image` was flattened above")),
        Command::Build(args) => return commands::build::run(&args, cli.root.as_deref(), &environment),
        Command::Load(args) => report::data(&commands::load::load(&args, &open()?, &environment)?)?,
        Command::Import(args) => report::data(&commands::import::import(
            &args,
            &open()?,
            &environment,
            now_unix,
        )?)?,
        Command::Export(args) => commands::export::export(&args, &open()?)?,
        Command::Pull(args) => report::data(&commands::pull::pull(&args, open()?, &environment)?)?,
        Command::Push(args) => {
            report::data(&commands::push::push(&args, open()?, &environment)?)?;
        }
        Command::Login(args) => report::data(&commands::login::login(&args)?)?,
        Command::Logout(args) => report::data(&commands::login::logout(&args)?)?,
        Command::Save(args) => report::data(&commands::save::save(&args, &open()?, &environment)?)?,
        Command::Logs(args) => commands::logs::logs(&args, &root()?, now_unix)?,
        Command::Explain(args) => report::data(&commands::logs::explain(&args, &root()?)?)?,
        Command::Run(args) => {
            // While there is one thread only. Inside, what an earlier run left can be removed as well.
            commands::rights::for_container()?;
            return commands::container::run(&args, open()?, &environment);
        }
    }
    Ok(0)
}

/// Runs what says what is in the store and what makes room: also where hardly any is left on the disk.
fn tidy(command: Command, root: &Path, now_unix: i64) -> Result<u8, Failure> {
    match command {
        Command::Prune(args) => {
            commands::rights::for_removal();
            let store = open_for(root, Purpose::MakeRoom)?;
            let answer = &mut std::io::stdin().lock();
            report::data(&commands::prune::prune(&args, &store, now_unix, answer)?)?;
        }
        Command::Df(args) => {
            let store = open_for(root, Purpose::Look)?;
            report::data(&commands::df::df(&args, &store, now_unix)?)?;
        }
        Command::Check(args) => {
            let mut purpose = Purpose::Look;
            if args.repair {
                commands::rights::for_removal();
                purpose = Purpose::MakeRoom;
            }
            let (text, code) = commands::check::check(&args, &open_for(root, purpose)?)?;
            report::data(&text)?;
            return Ok(code);
        }
        Command::Rmi(args) => {
            let store = open_for(root, Purpose::MakeRoom)?;
            return finish_rmi(commands::rmi::rmi(&args, &store));
        }
        _ => return Err(Failure::bug("only commands that tidy up get here")),
    }
    Ok(0)
}

/// Prints what was removed, then what could not be; the last failure decides the exit code.
fn finish_rmi(mut outcome: commands::rmi::Outcome) -> Result<u8, Failure> {
    report::data(&outcome.text)?;
    let last = outcome.failures.pop();
    outcome.failures.iter().for_each(report::error);
    last.map_or(Ok(0), Err)
}
