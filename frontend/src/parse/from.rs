//! `FROM`. Spec: dockerfile.md §7.1.

use crate::ast::Stage;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lines::{LogicalLine, Text};
use crate::lint::Rule;
use crate::parse::{flags, keyword, words};

/// Reads a `FROM` line.
pub(crate) fn parse(
    line: &LogicalLine,
    escape: char,
    diagnostics: &mut Diagnostics,
) -> Result<Stage, Diagnostic> {
    let (word, rest) = keyword(&line.text);
    let (flags, rest) = flags::parse(line, "FROM", rest, escape)?;
    let words = words::blank_separated(rest);
    let (base, name) = match words[..] {
        [base] => (base, None),
        [base, r#as, name] if r#as.eq_ignore_ascii_case("AS") => {
            lint_casing(line, word, r#as, diagnostics);
            (base, Some(stage_name(line.text_of(name), diagnostics)?))
        }
        _ => {
            return Err(Diagnostic::error("FROM requires either one or three arguments")
                .at(line.span_of(0, line.text.len()))
                .help("write FROM image or FROM image AS name"));
        }
    };
    Ok(Stage {
        span: line.span,
        text: line.text.trim().to_owned(),
        base: line.text_of(base),
        platform: flags.value("platform").cloned(),
        description: name.as_ref().and_then(|name| line.description_of(&name.value)),
        name,
        instructions: Vec::new(),
    })
}

/// Returns a stage that stands for one that couldn't be read. The file is refused, so it is never built.
pub(crate) fn placeholder(line: &LogicalLine) -> Stage {
    Stage {
        span: line.span,
        text: String::new(),
        base: line.text_of(&line.text[..0]),
        platform: None,
        name: None,
        description: None,
        instructions: Vec::new(),
    }
}

fn lint_casing(line: &LogicalLine, from: &str, r#as: &str, diagnostics: &mut Diagnostics) {
    let is_upper = |word: &str| word.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_lower = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    if is_upper(from) != is_upper(r#as) || is_lower(from) != is_lower(r#as) {
        let message = format!("'{as}' and '{from}' keywords' casing do not match", r#as = r#as);
        diagnostics.push(Diagnostic::warning(Rule::FromAsCasing, message).at(line.text_of(r#as).span));
    }
}

fn stage_name(written: Text, diagnostics: &mut Diagnostics) -> Result<Text, Diagnostic> {
    let name = written.value.to_lowercase();
    let valid = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|char| {
            char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '-' | '_' | '.')
        });
    if !valid {
        let shown: String = written.value.chars().take(128).collect();
        return Err(Diagnostic::error(format!(
            "invalid name for build stage: \"{shown}\", name can't start with a number or contain symbols"
        ))
        .at(written.span));
    }
    if name != written.value {
        let message = format!("stage name '{}' should be lowercase", written.value);
        diagnostics.push(Diagnostic::warning(Rule::StageNameCasing, message).at(written.span));
    }
    Ok(Text {
        value: name,
        span: written.span,
    })
}
