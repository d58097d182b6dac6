//! The instructions without flags: ARG, CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, MAINTAINER, SHELL, STOPSIGNAL, USER,
//! VOLUME, WORKDIR. Spec: dockerfile.md §8, §11.

use crate::ast::{Arg, Command, Kind, Pairs};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lines::Text;
use crate::lint::Rule;
use crate::parse::{Context, command, words};

/// Reads one of them.
pub(crate) fn parse(context: &Context<'_>, diagnostics: &mut Diagnostics) -> Result<Kind, Diagnostic> {
    Ok(match context.name {
        "ARG" => Kind::Arg(args(context)?),
        "CMD" => Kind::Cmd(command::parse(context)?),
        "ENTRYPOINT" => Kind::Entrypoint(command::parse(context)?),
        "ENV" => Kind::Env(pairs(context, diagnostics)?),
        "LABEL" => Kind::Label(pairs(context, diagnostics)?),
        "EXPOSE" => {
            context.at_least_one()?;
            Kind::Expose(
                words::blank_separated(context.rest)
                    .into_iter()
                    .map(|word| context.line.text_of(word))
                    .collect(),
            )
        }
        "VOLUME" => Kind::Volume(volumes(context)?),
        "SHELL" => Kind::Shell(shell(context)?),
        "MAINTAINER" => {
            let name = context.exactly_one()?;
            let message = "Maintainer instruction is deprecated in favor of using label";
            let help = "use LABEL org.opencontainers.image.authors=… instead";
            diagnostics.push(
                Diagnostic::warning(Rule::MaintainerDeprecated, message)
                    .at(context.keyword.span)
                    .help(help),
            );
            Kind::Maintainer(name)
        }
        "STOPSIGNAL" => Kind::Stopsignal(context.exactly_one()?),
        "USER" => Kind::User(context.exactly_one()?),
        "WORKDIR" => Kind::Workdir(context.exactly_one()?),
        other => unreachable!("instruction {other} has a room of its own"),
    })
}

fn args(context: &Context<'_>) -> Result<Vec<Arg>, Diagnostic> {
    context.at_least_one()?;
    words::quote_aware(context.rest, context.escape)
        .into_iter()
        .map(|word| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(context.line.text_of(value))),
                None => (word, None),
            };
            if name.is_empty() {
                return Err(
                    Diagnostic::error("ARG names can not be blank").at(context.line.text_of(word).span)
                );
            }
            Ok(Arg {
                name: context.line.text_of(name),
                value,
                description: context.line.description_of(name),
            })
        })
        .collect()
}

fn pairs(context: &Context<'_>, diagnostics: &mut Diagnostics) -> Result<Pairs, Diagnostic> {
    context.at_least_one()?;
    let name = context.name;
    let words = words::quote_aware(context.rest, context.escape);
    let first = words.first().copied().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = crate::parse::keyword(context.rest);
        if value.is_empty() {
            return Err(context.error(format!("{name} must have two arguments")));
        }
        let message =
            format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        diagnostics.push(
            Diagnostic::warning(Rule::LegacyKeyValueFormat, message)
                .at(context.line.text_of(context.rest).span),
        );
        let pair = (context.line.text_of(key), context.line.text_of(value));
        return Ok(Pairs {
            pairs: vec![pair],
            legacy: true,
        });
    }
    let pairs = words.into_iter().map(|word| {
        let span = context.line.text_of(word).span;
        let Some((key, value)) = word.split_once('=') else {
            let shown: String = word.chars().take(128).collect();
            let message =
                format!("Syntax error - can't find = in \"{shown}\". Must be of the form: name=value");
            return Err(Diagnostic::error(message)
                .at(span)
                .help("values with blanks need quotes"));
        };
        if key.is_empty() {
            return Err(Diagnostic::error(format!("{name} names can not be blank")).at(span));
        }
        Ok((context.line.text_of(key), context.line.text_of(value)))
    });
    Ok(Pairs {
        pairs: pairs.collect::<Result<_, _>>()?,
        legacy: false,
    })
}

fn volumes(context: &Context<'_>) -> Result<Vec<Text>, Diagnostic> {
    context.at_least_one()?;
    let whole = context.line.text_of(context.rest).span;
    let volumes: Vec<Text> = match command::json_array(context.rest) {
        Some(Ok(values)) => values
            .into_iter()
            .map(|value| Text { value, span: whole })
            .collect(),
        Some(Err(message)) => return Err(Diagnostic::error(message).at(whole)),
        None => words::blank_separated(context.rest)
            .into_iter()
            .map(|word| context.line.text_of(word))
            .collect(),
    };
    if volumes.is_empty() {
        return Err(context.error("VOLUME requires at least one argument"));
    }
    match volumes.iter().find(|volume| volume.value.trim().is_empty()) {
        Some(volume) => Err(Diagnostic::error("VOLUME specified can not be an empty string").at(volume.span)),
        None => Ok(volumes),
    }
}

fn shell(context: &Context<'_>) -> Result<Vec<String>, Diagnostic> {
    match command::parse(context)? {
        Command::Exec(args) if args.is_empty() => Err(context.error("SHELL requires at least one argument")),
        Command::Exec(args) => Ok(args),
        Command::Shell(_) => Err(context
            .error("SHELL requires the arguments to be in JSON form")
            .help("write SHELL [\"/bin/bash\", \"-c\"]")),
    }
}
