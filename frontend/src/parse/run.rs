//! `RUN`. Spec: dockerfile.md §3.4, §9.

use crate::ast::{Device, Run, RunNetwork};
use crate::diagnostic::Diagnostic;
use crate::lines::Text;
use crate::parse::traced::Traced;
use crate::parse::{Context, command, mount};
use crate::source::Span;

/// Reads what follows `RUN`.
pub(crate) fn parse(context: &Context<'_>) -> Result<Run, Diagnostic> {
    let network = match context.flags.value("network") {
        None => None,
        Some(text) => Some(match text.value.as_str() {
            "default" => RunNetwork::Default,
            "none" => RunNetwork::None,
            "host" => RunNetwork::Host(text.span),
            other => {
                let message = format!("invalid network mode \"{other}\"");
                return Err(Diagnostic::error(message)
                    .at(text.span)
                    .suggest(other, ["default", "none", "host"]));
            }
        }),
    };
    let insecure = match context.flags.value("security") {
        None => None,
        Some(text) => match text.value.as_str() {
            "sandbox" => None,
            "insecure" => Some(text.span),
            other => {
                let message = format!("security \"{other}\" is not valid");
                return Err(Diagnostic::error(message)
                    .at(text.span)
                    .suggest(other, ["sandbox", "insecure"]));
            }
        },
    };
    let mounts = context.flags.traced("mount");
    let mounts = mounts.map(|(value, span)| mount::parse(context, value, span));
    let devices = context.flags.traced("device");
    let devices = devices.map(|(value, span)| device(context, value, span));
    let start = context.line.offset_of(context.rest);
    let is_script = match &context.line.heredocs[..] {
        [(opener, _)] => opener.start == start && opener.end == start + context.rest.len(),
        _ => false,
    };
    Ok(Run {
        network,
        insecure,
        devices: devices.collect::<Result<_, _>>()?,
        mounts: mounts.collect::<Result<_, _>>()?,
        command: command::parse(context)?,
        heredocs: context
            .line
            .heredocs
            .iter()
            .map(|(_, heredoc)| heredoc.clone())
            .collect(),
        is_script,
    })
}

/// Reads `name[,required]`.
fn device(context: &Context<'_>, value: &Traced, span: Span) -> Result<Device, Diagnostic> {
    let mut name = None;
    let mut required = false;
    for field in value.fields(context.line)? {
        let (key, value) = match field.text.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.text.to_lowercase(), None),
        };
        let error = |message: String| Diagnostic::error(message).at(field.span(context.line));
        let named = match (key.as_str(), value) {
            ("required", None) => {
                required = true;
                continue;
            }
            ("required", Some(value)) => {
                required = mount::boolean(value)
                    .ok_or_else(|| error(format!("invalid value for required: {value}")))?;
                continue;
            }
            ("name", Some(value)) => {
                if let Some(name) = &name {
                    let Text { value, .. } = name;
                    return Err(error(format!("device name already set to {value}")));
                }
                let start = field.text.len() - value.len();
                field.part(start..field.text.len())
            }
            // CDI names hold an equals sign themselves.
            _ if name.is_none() => field.clone(),
            (_, None) => {
                let message = format!("invalid field '{}' must be a key=value pair", field.text);
                return Err(error(message));
            }
            (key, Some(_)) => {
                let message = format!("unexpected key '{key}' in '{}'", field.text);
                return Err(error(message).suggest(key, ["name", "required"]));
            }
        };
        name = Some(named.to_text(context.line));
    }
    match name.filter(|name| !name.value.is_empty()) {
        Some(name) => Ok(Device { name, required }),
        None => Err(Diagnostic::error("--device needs the name of a device")
            .at(span)
            .help("write --device=vendor.com/class=name")),
    }
}
