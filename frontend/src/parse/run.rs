//! `RUN`. Spec: dockerfile.md §3.4, §9.

use crate::ast::{Run, RunNetwork};
use crate::diagnostic::Diagnostic;
use crate::lines::Text;
use crate::parse::{Context, command};

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
    let mut unsupported = context.flags.given(&["mount", "device"]);
    if let Some(text) = context.flags.value("security") {
        match text.value.as_str() {
            "sandbox" => {}
            "insecure" => {
                unsupported.push(Text {
                    value: "--security=insecure".to_owned(),
                    span: text.span,
                });
            }
            other => {
                let message = format!("security \"{other}\" is not valid");
                return Err(Diagnostic::error(message)
                    .at(text.span)
                    .suggest(other, ["sandbox", "insecure"]));
            }
        }
    }
    let start = context.line.offset_of(context.rest);
    let is_script = match &context.line.heredocs[..] {
        [(opener, _)] => opener.start == start && opener.end == start + context.rest.len(),
        _ => false,
    };
    Ok(Run {
        network,
        unsupported,
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
