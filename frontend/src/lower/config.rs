//! The instructions that change the config only. Spec: dockerfile.md §8, §11.

use std::fmt::Write as _;

use super::history;
use super::parameters::Argument;
use super::ports;
use super::scan;
use super::signal;
use super::stage::Current;
use super::{MAX_VARIABLES, weight};
use crate::ast::{Arg, Command, Healthcheck, Instruction, Kind, Pairs};
use crate::config::{Empty, Health};
use crate::diagnostic::Diagnostic;
use crate::expand::Quotes;
use crate::lines::Text;
use crate::lint::Rule;
use crate::source::Span;

/// Applies one of them.
pub(super) fn lower(current: &mut Current<'_, '_>, instruction: &Instruction) -> Result<(), Diagnostic> {
    current.only_last_counts(instruction);
    let created_by = match &instruction.kind {
        Kind::Arg(args) => {
            let created_by = declare(current, args)?;
            current.limit_variables()?;
            created_by
        }
        Kind::Env(pairs) => {
            let created_by = environment(current, pairs)?;
            current.limit_variables()?;
            created_by
        }
        Kind::Label(pairs) => labels(current, pairs)?,
        Kind::Cmd(command) => {
            lint_json(current, instruction, command);
            let args = with_shell(current, command);
            current.state.has_cmd = true;
            let config = &mut current.state.config.config;
            config.args_escaped = true;
            config.cmd.clone_from(&args);
            format!("CMD {}", history::quoted(&args))
        }
        Kind::Entrypoint(command) => {
            lint_json(current, instruction, command);
            let args = with_shell(current, command);
            let has_cmd = current.state.has_cmd;
            let config = &mut current.state.config.config;
            config.args_escaped = true;
            config.entrypoint.clone_from(&args);
            if !has_cmd {
                config.cmd.clear();
            }
            format!("ENTRYPOINT {}", history::quoted(&args))
        }
        Kind::Shell(args) => {
            current.state.config.config.shell.clone_from(args);
            format!("SHELL [{}]", args.join(" "))
        }
        Kind::Expose(words) => expose(current, words)?,
        Kind::Volume(volumes) => volume(current, volumes)?,
        Kind::User(text) => {
            let user = current.expand(text)?;
            current.state.config.config.user.clone_from(&user);
            format!("USER {user}")
        }
        Kind::Stopsignal(text) => {
            let value = current.expand(text)?;
            if !signal::is_valid(&value) {
                return Err(Diagnostic::error(format!("Invalid signal: {value}")).at(text.span));
            }
            current.state.config.config.stop_signal.clone_from(&value);
            format!("STOPSIGNAL {value}")
        }
        Kind::Healthcheck(check) => healthcheck(current, check),
        Kind::Maintainer(name) => {
            current.state.config.author.clone_from(&name.value);
            format!("MAINTAINER {}", name.value)
        }
        Kind::Onbuild(trigger) => {
            current.state.config.config.on_build.push(trigger.clone());
            return Ok(());
        }
        Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_) => {
            unreachable!("steps have rooms of their own")
        }
    };
    current.history(created_by, true)
}

impl Current<'_, '_> {
    fn limit_variables(&mut self) -> Result<(), Diagnostic> {
        if self.state.env.list().len() > MAX_VARIABLES {
            let message = format!("the stage has more than {MAX_VARIABLES} variables");
            return Err(self.lowering.exhaust(message));
        }
        Ok(())
    }
}

fn with_shell(current: &Current<'_, '_>, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(args) => args.clone(),
        Command::Shell(text) => {
            let mut args = current.shell();
            args.push(text.clone());
            args
        }
    }
}

fn lint_json(current: &mut Current<'_, '_>, instruction: &Instruction, command: &Command) {
    if matches!(command, Command::Shell(_)) && current.state.config.config.shell.is_empty() {
        let (word, _) = crate::parse::keyword(&instruction.text);
        let message = format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            word.to_ascii_uppercase()
        );
        current.warn(Diagnostic::warning(Rule::JsonArgsRecommended, message).at(instruction.span));
    }
}

/// Arguments that speak to the builder only: no step sees them.
const UNEXPORTED: [&str; 2] = [scan::CONTEXT, scan::STAGE];

/// `ARG`: build argument, else own default, else global value.
fn declare(current: &mut Current<'_, '_>, args: &[Arg]) -> Result<String, Diagnostic> {
    let mut created_by = String::from("ARG");
    for arg in args {
        let name = current.expand(&arg.name)?;
        lint_secret(current, "ARG", &name, arg.name.span);
        let given = current.lowering.build_arg(&name).map(str::to_owned);
        let value = match (given, &arg.value) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(text)) => current.expand(text).map(Some),
            (None, None) => Ok(current.lowering.globals.get(&name).map(str::to_owned)),
        };
        if !current.is_trigger {
            current.lowering.parameters.add_arg(Argument {
                name: name.clone(),
                value: value.as_ref().ok().cloned().flatten(),
                description: arg.description.clone(),
                span: arg.name.span,
                has_default: arg.value.is_some(),
            });
        }
        let value = value?;
        created_by.push(' ');
        created_by.push_str(&name);
        if let Some(value) = &value {
            created_by.push('=');
            created_by.push_str(value);
            if !UNEXPORTED.contains(&name.as_str()) {
                current.state.env.set(&name, value);
            }
        }
        current
            .state
            .args
            .set(&name, value.as_deref().unwrap_or_default());
    }
    Ok(created_by)
}

/// Expands all pairs against the environment before the instruction.
fn expand_pairs(current: &mut Current<'_, '_>, pairs: &Pairs) -> Result<Vec<(String, String)>, Diagnostic> {
    let pairs = pairs.pairs.iter();
    pairs
        .map(|(name, value)| Ok((current.expand(name)?, current.expand(value)?)))
        .collect()
}

fn describe(instruction: &str, pairs: &[(String, String)], legacy: bool) -> String {
    let mut text = instruction.to_owned();
    for (name, value) in pairs {
        let separator = if legacy { ' ' } else { '=' };
        let _ = write!(text, " {name}{separator}{value}");
    }
    text
}

fn environment(current: &mut Current<'_, '_>, written: &Pairs) -> Result<String, Diagnostic> {
    let pairs = expand_pairs(current, written)?;
    for ((name, value), (text, _)) in pairs.iter().zip(&written.pairs) {
        if name.is_empty() {
            return Err(Diagnostic::error("ENV names can not be blank").at(text.span));
        }
        lint_secret(current, "ENV", name, text.span);
        current.state.env.set(name, value);
        current.state.image_env.set(name, value);
    }
    Ok(describe("ENV", &pairs, written.legacy))
}

fn labels(current: &mut Current<'_, '_>, written: &Pairs) -> Result<String, Diagnostic> {
    let pairs = expand_pairs(current, written)?;
    for ((name, value), (text, _)) in pairs.iter().zip(&written.pairs) {
        if name.is_empty() {
            return Err(Diagnostic::error("LABEL names can not be blank").at(text.span));
        }
        current
            .state
            .config
            .config
            .labels
            .insert(name.clone(), value.clone());
    }
    Ok(describe("LABEL", &pairs, written.legacy))
}

fn expose(current: &mut Current<'_, '_>, words: &[Text]) -> Result<String, Diagnostic> {
    let mut words: Vec<&Text> = words.iter().collect();
    words.sort_by(|a, b| a.value.cmp(&b.value));
    let mut all = Vec::new();
    for text in words {
        for word in current.expand_to(text, Quotes::Remove)?.words {
            let parsed = ports::parse(&word).map_err(|message| Diagnostic::error(message).at(text.span))?;
            lint_port(current, &word, text.span);
            all.extend(parsed);
        }
    }
    current.lowering.spend(weight(all.iter().map(String::len)))?;
    for port in &all {
        current
            .state
            .config
            .config
            .exposed_ports
            .insert(port.clone(), Empty {});
    }
    Ok(format!("EXPOSE [{}]", all.join(" ")))
}

/// Warns of what an image can't say about a port that is well-formed.
fn lint_port(current: &mut Current<'_, '_>, word: &str, span: Span) {
    let shown: String = word.chars().take(128).collect();
    let (ports, protocol) = word.split_once('/').unwrap_or((word, ""));
    if protocol.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let message = format!("defined protocol '{shown}' in EXPOSE instruction should be lowercase");
        current.warn(Diagnostic::warning(Rule::ExposeProtoCasing, message).at(span));
    }
    if ports.contains(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{shown}'"
        );
        current.warn(Diagnostic::warning(Rule::ExposeInvalidFormat, message).at(span));
    }
}

/// Words of names that hold secrets, and those that say that it isn't one after all.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
const NO_SECRET: [&str; 3] = ["public", "file", "version"];

/// Warns of variables whose names say that they hold a secret: whoever has the image can read them.
fn lint_secret(current: &mut Current<'_, '_>, instruction: &str, name: &str, span: Span) {
    let has = |words: &[&str]| {
        name.split('_')
            .any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    };
    if has(&SECRET) && !has(&NO_SECRET) {
        let message = format!(
            "do not use ARG or ENV instructions for sensitive data ({instruction} \"{}\")",
            name.chars().take(128).collect::<String>()
        );
        let help = "give it to the steps that need it with RUN --mount=type=secret";
        current.warn(
            Diagnostic::warning(Rule::SecretsUsedInArgOrEnv, message)
                .at(span)
                .help(help),
        );
    }
}

fn volume(current: &mut Current<'_, '_>, volumes: &[Text]) -> Result<String, Diagnostic> {
    let mut all = Vec::new();
    for text in volumes {
        let path = current.expand(text)?.trim().to_owned();
        if path.is_empty() {
            return Err(Diagnostic::error("VOLUME specified can not be an empty string").at(text.span));
        }
        current.state.config.config.volumes.insert(path.clone(), Empty {});
        all.push(path);
    }
    Ok(format!("VOLUME [{}]", all.join(" ")))
}

fn healthcheck(current: &mut Current<'_, '_>, check: &Healthcheck) -> String {
    current.state.config.config.healthcheck = Some(Health {
        test: check.test.clone(),
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    });
    history::healthcheck(check)
}
