//! The rules about FROM lines that need the values of arguments.

use super::{Rule, image_name};
use crate::ast::Stage;
use crate::diagnostic::Diagnostic;
use crate::expand::{Quotes, Variables, expand, names};
use crate::platform::Platform;

/// Returns the warnings about a FROM line, and the work that they took. `defaults` are the global arguments as they are
/// when no build argument is given.
pub(crate) fn check(
    stage: &Stage,
    escape: char,
    target: &Platform,
    defaults: Option<&Variables>,
) -> (Vec<Diagnostic>, usize) {
    let mut warnings: Vec<Diagnostic> = platform(stage, escape, target).into_iter().collect();
    let (warning, steps) = default_base(stage, escape, defaults);
    warnings.extend(warning);
    (warnings, steps)
}

/// `--platform` that says nothing, or always the same.
fn platform(stage: &Stage, escape: char, target: &Platform) -> Option<Diagnostic> {
    let written = stage.platform.as_ref()?;
    let used = names(&written.value, escape);
    let (rule, message) = match used.as_slice() {
        [] => {
            let platform = Platform::parse(&written.value, target).ok()?;
            let name = stage.name.as_ref().map_or("", |name| &name.value);
            if name.contains(&platform.os) || name.contains(&platform.architecture) {
                return None;
            }
            let message = format!(
                "FROM --platform flag should not use constant value \"{}\"",
                written.value
            );
            (Rule::FromPlatformFlagConstDisallowed, message)
        }
        [name] if name == "TARGETPLATFORM" && is_only_a_variable(&written.value) => {
            let message = format!(
                "setting platform to predefined {} in FROM is redundant as this is the default behavior",
                written.value
            );
            (Rule::RedundantTargetPlatform, message)
        }
        _ => return None,
    };
    Some(Diagnostic::warning(rule, message).at(written.span))
}

/// Says whether a text with one variable is nothing but that.
fn is_only_a_variable(text: &str) -> bool {
    text == "$TARGETPLATFORM" || (text.starts_with("${TARGETPLATFORM") && text.ends_with('}'))
}

/// A base that is no image's name unless build arguments are given.
fn default_base(stage: &Stage, escape: char, defaults: Option<&Variables>) -> (Option<Diagnostic>, usize) {
    let Some(defaults) = defaults.filter(|_| stage.base.value.contains('$')) else {
        return (None, 0);
    };
    match expand(&stage.base.value, escape, Quotes::Remove, defaults) {
        Ok(done) if image_name::is_valid(&done.text) => (None, done.steps),
        Ok(done) => {
            let message = format!(
                "default value for ARG {} results in empty or invalid base image name",
                stage.base.value
            );
            let warning = Diagnostic::warning(Rule::InvalidDefaultArgInFrom, message).at(stage.base.span);
            (Some(warning), done.steps)
        }
        // A mistake here is an error of the build, or is meant: `${image:?give one}`.
        Err(error) => (None, error.steps()),
    }
}
