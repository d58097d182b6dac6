//! `--call` and `--check`: what is asked about a Dockerfile instead of building it.

use crate::report::Failure;

/// A question, and how its answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) question: Question,
    pub(crate) form: Form,
    /// The exit code says nothing about the answer.
    pub(crate) ignore_status: bool,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// What could be better in the file.
    Check,
    /// What the target takes.
    Outline,
    /// What can be built.
    Targets,
    /// What can be asked.
    Describe,
}

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Reads `check,format=json`; `None` is a build.
pub(super) fn parse(call: Option<&str>, check: bool) -> Result<Option<Call>, Failure> {
    let mut fields = call.unwrap_or_default().split(',');
    let name = fields.next().unwrap_or_default();
    let question = match (name, check) {
        ("", false) | ("build", false) => None,
        ("check" | "lint", _) | ("", true) => Some(Question::Check),
        (other, true) => {
            return Err(Failure::usage(format!(
                "--check and --call={other} exclude each other"
            )));
        }
        ("outline", _) => Some(Question::Outline),
        ("targets", _) => Some(Question::Targets),
        ("subrequests.describe", _) => Some(Question::Describe),
        (other, _) => {
            return Err(Failure::usage(format!("unknown call `{other}`"))
                .with_help("expected build, check, outline, targets or subrequests.describe"));
        }
    };
    let (mut form, mut ignore_status) = (Form::Text, false);
    for field in fields {
        match field.split_once('=') {
            Some(("format", "json")) => form = Form::Json,
            Some(("format", "text" | "")) => form = Form::Text,
            Some(("ignorestatus", "true" | "1")) => ignore_status = true,
            Some(("ignorestatus", "false" | "0")) => ignore_status = false,
            _ => {
                return Err(Failure::usage(format!("invalid option `{field}` of --call"))
                    .with_help("expected format=text, format=json or ignorestatus=true"));
            }
        }
    }
    Ok(question.map(|question| Call {
        question,
        form,
        ignore_status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart() {
        let call = |question, form, ignore_status| {
            Ok(Some(Call {
                question,
                form,
                ignore_status,
            }))
        };
        for (text, check, expected) in [
            (None, false, Ok(None)),
            (Some("build"), false, Ok(None)),
            (None, true, call(Question::Check, Form::Text, false)),
            (Some("lint"), true, call(Question::Check, Form::Text, false)),
            (
                Some("outline,format=json"),
                false,
                call(Question::Outline, Form::Json, false),
            ),
            (
                Some("targets,format=text"),
                false,
                call(Question::Targets, Form::Text, false),
            ),
            (
                Some("check,ignorestatus=true"),
                false,
                call(Question::Check, Form::Text, true),
            ),
            (
                Some("subrequests.describe"),
                false,
                call(Question::Describe, Form::Text, false),
            ),
            (Some("chekc"), false, Err("unknown call `chekc`")),
            (Some("outline"), true, Err("exclude each other")),
            (
                Some("check,format=yaml"),
                false,
                Err("invalid option `format=yaml`"),
            ),
        ] {
            match (parse(text, check), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text:?}"),
                (Err(found), Err(expected)) => {
                    assert!(found.render(false).contains(expected), "{text:?}: {found:?}");
                }
                (found, expected) => panic!("{text:?}: {found:?} is not {expected:?}"),
            }
        }
    }
}
