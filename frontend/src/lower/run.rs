//! `RUN` to an exec op. Spec: dockerfile.md §3.4, §9.

use std::collections::BTreeMap;

use solver::op::{Device, Exec, Network, Op, Security};

use super::PROXIES;
use super::history;
use super::mount;
use super::stage::Current;
use super::weight;
use crate::ast::{Command, Instruction, Run, RunNetwork};
use crate::diagnostic::Diagnostic;

/// Where scripts of `#!` heredocs are during the run.
const SCRIPTS: &str = "/dev/pipes";

/// What a RUN executes.
struct Process {
    args: Vec<String>,
    scripts: BTreeMap<String, String>,
    /// The step's name.
    name: String,
}

/// Adds the step to the stage.
pub(super) fn lower(
    current: &mut Current<'_, '_>,
    instruction: &Instruction,
    run: &Run,
) -> Result<(), Diagnostic> {
    let network = network(current, run)?;
    let security = security(current, run)?;
    let devices = devices(current, run)?;
    let mut inputs = Vec::new();
    let mounts = mount::lower(current, &run.mounts, &mut inputs);
    let Process { args, scripts, name } = process(current, instruction, run);
    let options = current.lowering.options;
    let env = current.state.env.list().to_vec();
    let config = &current.state.config.config;
    let size = weight(env.iter().map(|(name, value)| name.len() + value.len()))
        + config.working_dir.len()
        + config.user.len();
    current.lowering.spend(size)?;
    let proxies = options
        .build_args
        .iter()
        .filter(|(name, _)| PROXIES.contains(&name.as_str()));
    let mut env_unkeyed: Vec<(String, String)> = Vec::new();
    for (name, _) in proxies {
        let value = options.build_arg(name).unwrap_or_default();
        let seen = current.state.env.get(name).is_some() || env_unkeyed.iter().any(|(seen, _)| seen == name);
        if !seen {
            env_unkeyed.push((name.clone(), value.to_owned()));
        }
    }
    let created_by = history::run(&args, &current.state.args, &current.state.env);
    let config = &current.state.config.config;
    let exec = Exec {
        args,
        env,
        env_unkeyed,
        cwd: if config.working_dir.is_empty() {
            "/".to_owned()
        } else {
            config.working_dir.clone()
        },
        user: config.user.clone(),
        platform: current.plan.stages[current.index].platform.to_string(),
        network,
        hostname: options
            .build_arg("BUILDKIT_SANDBOX_HOSTNAME")
            .unwrap_or("buildkitsandbox")
            .to_owned(),
        extra_hosts: options.extra_hosts.clone(),
        scripts,
        mounts,
        security,
        devices,
    };
    let label = current.label(instruction, &name)?;
    current.step(Op::Exec(exec), inputs, label);
    current.history(created_by, false)
}

fn network(current: &Current<'_, '_>, run: &Run) -> Result<Network, Diagnostic> {
    let options = current.lowering.options;
    let (network, span) = match run.network {
        Some(RunNetwork::None) => (Network::None, None),
        Some(RunNetwork::Host(span)) => (Network::Host, Some(span)),
        Some(RunNetwork::Default) | None => (options.network, None),
    };
    if network == Network::Host && !options.allow_network_host {
        let error = Diagnostic::error("entitlement network.host is not allowed")
            .help("allow it with --allow network.host");
        return Err(Diagnostic { span, ..error });
    }
    Ok(network)
}

fn security(current: &Current<'_, '_>, run: &Run) -> Result<Security, Diagnostic> {
    match run.insecure {
        None => Ok(Security::Sandbox),
        Some(_) if current.lowering.options.allow_security_insecure => Ok(Security::Insecure),
        Some(span) => Err(Diagnostic::error("entitlement security.insecure is not allowed")
            .at(span)
            .help("allow it with --allow security.insecure")),
    }
}

fn devices(current: &Current<'_, '_>, run: &Run) -> Result<Vec<Device>, Diagnostic> {
    let allowed = &current.lowering.options.allow_device;
    let devices = run.devices.iter().map(|device| {
        let name = device.name.value.clone();
        if !allowed.allows(&name) {
            return Err(Diagnostic::error("entitlement device is not allowed")
                .at(device.name.span)
                .help(format!(
                    "allow it with --allow device={name}, or all with --allow device"
                )));
        }
        Ok(Device {
            name,
            required: device.required,
        })
    });
    devices.collect()
}

fn process(current: &Current<'_, '_>, instruction: &Instruction, run: &Run) -> Process {
    let mut scripts = BTreeMap::new();
    let mut name = instruction.text.clone();
    let command = match (&run.command, &run.heredocs[..]) {
        (Command::Exec(args), _) => {
            return Process {
                args: args.clone(),
                scripts,
                name,
            };
        }
        (Command::Shell(_), [script]) if run.is_script => {
            let body = script.chomped();
            name = format!("{name} ({})", summary(&body));
            if body.starts_with("#!") {
                let path = format!("{SCRIPTS}/{}", script.name);
                scripts.insert(path.clone(), body);
                path
            } else {
                body
            }
        }
        // The shell does the rest: it gets the line with all bodies below it.
        (Command::Shell(text), heredocs) => {
            let mut text = text.clone();
            for heredoc in heredocs {
                text.push('\n');
                text.push_str(&heredoc.content);
                text.push_str(&heredoc.name);
            }
            text
        }
    };
    let mut args = current.shell();
    args.push(command);
    Process { args, scripts, name }
}

/// Returns the first line of a script.
fn summary(body: &str) -> String {
    let mut lines = body.trim().lines();
    let first = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { "..." } else { "" };
    format!("{first}{more}")
}

impl Current<'_, '_> {
    /// Returns what stands before shell-form commands.
    pub(super) fn shell(&self) -> Vec<String> {
        let shell = &self.state.config.config.shell;
        if shell.is_empty() {
            vec!["/bin/sh".to_owned(), "-c".to_owned()]
        } else {
            shell.clone()
        }
    }
}
