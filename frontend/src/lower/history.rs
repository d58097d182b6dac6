//! The texts of history entries, as BuildKit writes them. Spec: dockerfile.md §13.2.

use std::fmt::Write as _;

use crate::ast::Healthcheck;
use crate::duration;
use crate::expand::Variables;

/// `RUN |2 a=1 b=2 /bin/sh -c make # buildkit`
pub(super) fn run(args: &[String], declared: &Variables, env: &Variables) -> String {
    let mut text = String::from("RUN ");
    let declared = declared.list();
    if !declared.is_empty() {
        let _ = write!(text, "|{} ", declared.len());
        for (name, value) in declared {
            let _ = write!(text, "{name}={} ", env.get(name).unwrap_or(value));
        }
    }
    text.push_str(&args.join(" "));
    text.push_str(" # buildkit");
    text
}

/// `["a" "b"]`: Go's `%q` of a list.
pub(super) fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Go's `%q` of a string.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\0'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(char));
            }
            '\u{80}'..='\u{a0}' | '\u{feff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

/// `HEALTHCHECK {Test:[CMD a] Interval:1s …}`: Go's print of the struct.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        duration::format(check.interval_ns),
        duration::format(check.timeout_ns),
        duration::format(check.start_period_ns),
        duration::format(check.start_interval_ns),
        check.retries
    )
}
