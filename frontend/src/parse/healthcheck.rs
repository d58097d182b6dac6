//! `HEALTHCHECK`. Spec: dockerfile.md §11.

use crate::ast::{Command, Healthcheck};
use crate::diagnostic::Diagnostic;
use crate::duration;
use crate::parse::{Context, command, keyword};

/// Reads what follows `HEALTHCHECK`.
pub(crate) fn parse(context: &Context<'_>) -> Result<Healthcheck, Diagnostic> {
    context.at_least_one()?;
    let (word, rest) = keyword(context.rest);
    let place = context.line.text_of(word).span;
    match word.to_ascii_uppercase().as_str() {
        "NONE" => {
            if !rest.is_empty() {
                return Err(context.error("HEALTHCHECK NONE takes no arguments"));
            }
            if let Some(flag) = context.flags.first() {
                return Err(Diagnostic::error("HEALTHCHECK NONE takes no flags").at(flag.span));
            }
            return Ok(Healthcheck {
                test: vec!["NONE".to_owned()],
                ..Healthcheck::default()
            });
        }
        "CMD" => {}
        _ => {
            let shown: String = word.chars().take(64).collect();
            return Err(
                Diagnostic::error(format!("Unknown type \"{shown}\" in HEALTHCHECK (try CMD)")).at(place),
            );
        }
    }
    let test = match command::json_array(rest) {
        Some(Err(message)) => return Err(Diagnostic::error(message).at(context.line.text_of(rest).span)),
        Some(Ok(args)) => Command::Exec(args),
        None => Command::Shell(rest.to_owned()),
    };
    let test = match test {
        Command::Exec(args) if !args.is_empty() => [vec!["CMD".to_owned()], args].concat(),
        Command::Shell(text) if !text.is_empty() => vec!["CMD-SHELL".to_owned(), text],
        _ => return Err(context.error("Missing command after HEALTHCHECK CMD")),
    };
    Ok(Healthcheck {
        test,
        interval_ns: interval(context, "interval")?,
        timeout_ns: interval(context, "timeout")?,
        start_period_ns: interval(context, "start-period")?,
        start_interval_ns: interval(context, "start-interval")?,
        retries: retries(context)?,
    })
}

fn interval(context: &Context<'_>, name: &str) -> Result<i64, Diagnostic> {
    const MILLISECOND: i64 = 1_000_000;
    let Some(text) = context.flags.value(name) else {
        return Ok(0);
    };
    let error = |message: String| Err(Diagnostic::error(message).at(text.span));
    match duration::parse(&text.value) {
        None => error(format!(
            "invalid duration \"{}\" for --{name}, expected one such as 1m30s",
            text.value
        )),
        Some(0) => Ok(0),
        Some(ns) if ns < MILLISECOND => error(format!("Interval \"{name}\" cannot be less than 1ms")),
        Some(ns) => Ok(ns),
    }
}

fn retries(context: &Context<'_>) -> Result<i64, Diagnostic> {
    let Some(text) = context.flags.value("retries") else {
        return Ok(0);
    };
    match text.value.parse::<i32>() {
        Ok(count) if count < 0 => {
            Err(Diagnostic::error(format!("--retries cannot be negative ({count})")).at(text.span))
        }
        Ok(count) => Ok(i64::from(count)),
        Err(_) => {
            Err(Diagnostic::error(format!("invalid number \"{}\" for --retries", text.value)).at(text.span))
        }
    }
}
