//! `ashlar logs` and `ashlar explain`: what builds of the past said, and why their steps ran.

use std::io::{self, IsTerminal as _, Read, Write};
use std::path::Path;

use super::{human, table};
use crate::cli::{ExplainArgs, LogsArgs};
use crate::journal::{self, Ending, Facts, How, Listed, StepFacts};
use crate::progress::Sanitizer;
use crate::report::{self, Failure};

/// Columns have room for names of this length.
const MAX_NAME_CHARS: usize = 40;

/// Prints what the steps of a build wrote, or the list of builds.
pub(crate) fn logs(args: &LogsArgs, root: &Path, now_unix: i64) -> Result<(), Failure> {
    if args.list {
        return report::data(&list(root, now_unix)?);
    }
    let (listed, facts) = ended(root, args.build.as_deref())?;
    let steps: Vec<(usize, &StepFacts)> = (1..).zip(&facts.steps).collect();
    let chosen = match &args.step {
        None => steps,
        Some(wanted) => vec![choose(&steps, wanted)?],
    };
    let mut out = report::stdout();
    for (number, step) in chosen {
        let output = match step.vertex {
            Some(vertex) => listed
                .output(vertex)
                .map_err(|error| unreadable(&listed, &error))?,
            None => None,
        };
        let Some(mut output) = output else { continue };
        let told = match args.step {
            None => writeln!(out, "#{number} {}", step.name),
            Some(_) => Ok(()),
        };
        told.and_then(|()| pass_on(&mut output, &mut out))
            .map_err(|error| report::stdout_failure(&error))?;
    }
    Ok(())
}

/// Tells why the steps of a build ran.
pub(crate) fn explain(args: &ExplainArgs, root: &Path) -> Result<String, Failure> {
    let (_, facts) = ended(root, args.build.as_deref())?;
    Ok(journal::explain(&facts.steps))
}

/// Finds a build by its name or the beginning of it; the newest if none is named.
fn ended(root: &Path, wanted: Option<&str>) -> Result<(Listed, Facts), Failure> {
    let builds = journal::list(root).map_err(|error| no_list(&error))?;
    let wanted = wanted.unwrap_or_default();
    let mut found = builds
        .into_iter()
        .filter(|listed| listed.name.starts_with(wanted));
    let Some(listed) = found.next() else {
        return Err(match wanted {
            "" => Failure::usage("no build has been written down yet"),
            _ => Failure::usage(format!("there is no build `{wanted}`"))
                .with_help("`ashlar logs --list` names those that are known"),
        });
    };
    match listed.facts().map_err(|error| unreadable(&listed, &error))? {
        Some(facts) => Ok((listed, facts)),
        None => Err(Failure::usage(format!(
            "the build {} isn't over, or was killed",
            listed.name
        ))),
    }
}

/// Finds a step by the number that progress gave it, or by a part of its name.
fn choose<'a>(steps: &[(usize, &'a StepFacts)], wanted: &str) -> Result<(usize, &'a StepFacts), Failure> {
    let number = wanted.strip_prefix('#').unwrap_or(wanted).parse::<usize>();
    let is_wanted = |(place, step): &&(usize, &StepFacts)| match &number {
        Ok(number) => place == number,
        Err(_) => step.name.contains(wanted),
    };
    let mut found = steps.iter().filter(is_wanted);
    match (found.next(), found.next()) {
        (Some(step), None) => Ok(*step),
        (None, _) => Err(Failure::usage(format!("no step is or has `{wanted}`"))),
        (Some(_), Some(_)) => Err(
            Failure::usage(format!("several steps have `{wanted}` in their names"))
                .with_help("give the number that progress shows: --step 3"),
        ),
    }
}

/// Copies output; on a terminal only what is safe there.
fn pass_on(output: &mut impl Read, out: &mut io::Stdout) -> io::Result<()> {
    if !out.is_terminal() {
        return io::copy(output, out).map(drop);
    }
    let mut sanitizer = Sanitizer::new(true);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n_read = output.read(&mut buffer)?;
        let mut lines = Vec::new();
        match n_read {
            0 => lines.extend(sanitizer.finish()),
            _ => sanitizer.push(&buffer[..n_read], &mut |line| lines.push(line)),
        }
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        if n_read == 0 {
            return Ok(());
        }
    }
}

fn list(root: &Path, now_unix: i64) -> Result<String, Failure> {
    let heading = ["BUILD", "BEGUN", "TOOK", "RESULT", "RAN", "CACHED", "NAME"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for listed in journal::list(root).map_err(|error| no_list(&error))? {
        let facts = listed.facts().map_err(|error| unreadable(&listed, &error))?;
        rows.push(row(&listed.name, facts.as_ref(), now_unix));
    }
    Ok(table::render(&rows))
}

fn row(name: &str, facts: Option<&Facts>, now_unix: i64) -> Vec<String> {
    let Some(facts) = facts else {
        return vec![
            name.to_owned(),
            String::new(),
            String::new(),
            "not ended".to_owned(),
        ];
    };
    let result = match &facts.ending {
        Ending::Done => "done",
        Ending::Failed(_) => "failed",
        Ending::Cancelled => "cancelled",
    };
    let count = |how| {
        let steps = facts
            .steps
            .iter()
            .filter(|step| step.vertex.is_some() && step.how == how);
        steps.count().to_string()
    };
    let begun_unix = i64::try_from(facts.begun_unix_ms / 1000).unwrap_or(i64::MAX);
    let about = &facts.about;
    let what = match (about.tags.is_empty(), about.target.is_empty()) {
        (false, _) => about.tags.join(","),
        (true, false) => format!("{} ({})", about.dockerfile, about.target),
        (true, true) => about.dockerfile.clone(),
    };
    vec![
        name.to_owned(),
        human::ago(begun_unix, now_unix),
        format!("{:.1}s", facts.took_ms as f64 / 1000.0),
        result.to_owned(),
        count(How::Ran),
        count(How::Cached),
        table::ellipsis(&what, MAX_NAME_CHARS),
    ]
}

fn no_list(error: &io::Error) -> Failure {
    Failure::machine(format!("cannot list the builds of the store: {error}"))
}

fn unreadable(listed: &Listed, error: &io::Error) -> Failure {
    Failure::machine(format!(
        "cannot read what the build {} left: {error}",
        listed.name
    ))
}
