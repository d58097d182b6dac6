//! What can be asked about a Dockerfile without building it (`--call`): its checks, its parameters, its targets.
//!
//! Each answer is data with two forms: text for people and JSON as `docker buildx build --call` writes it. Nothing
//! outside is asked: what depends on an image that isn't known is left out. Spec: dockerfile.md §18.

mod check;
mod json;
mod outline;
mod table;
mod targets;

use serde_json::{Value, json};

use crate::ast::Dockerfile;
use crate::lower::survey;
use crate::options::{Answers, Needed, Options};

pub use check::{CheckResult, check};
pub use outline::{Outline, outline};
pub use targets::{TargetList, targets};

/// Returns what isn't among `answers`, and would let more be said.
pub fn unknown(dockerfile: &Dockerfile, options: &Options, answers: &Answers) -> Vec<Needed> {
    let options = Options {
        every_stage: options.target.is_none(),
        ..options.clone()
    };
    survey(dockerfile, &options, answers).unknown
}

/// What can be asked: name, and what the answer is.
const REQUESTS: [(&str, &str); 4] = [
    ("outline", "List all parameters current build target supports"),
    ("targets", "List all targets current build supports"),
    ("lint", "Lint a Dockerfile"),
    ("subrequests.describe", "List available subrequest types"),
];

/// The form of the requests; it has been the same since there are any.
const VERSION: &str = "1.0.0";

/// Returns as text what can be asked.
pub fn describe_text() -> String {
    let rows =
        REQUESTS.map(|(name, description)| vec![name.to_owned(), VERSION.to_owned(), description.to_owned()]);
    table::aligned(&["NAME", "VERSION", "DESCRIPTION"], &rows, 1)
}

/// Returns as JSON what can be asked.
pub fn describe_json() -> String {
    let metadata = |name: &str| match name {
        "lint" => json!([{"name": "result.json"}, {"name": "result.txt"}, {"name": "result.statuscode"}]),
        _ => json!([{"name": "result.json"}, {"name": "result.txt"}]),
    };
    let requests = REQUESTS.map(|(name, description)| {
        let mut request = json!({
            "name": format!("frontend.{name}"),
            "version": VERSION,
            "type": "rpc",
            "description": description,
        });
        if name == "outline" {
            request["opts"] = json!([{"name": "target", "description": "Target build stage"}]);
        }
        request["metadata"] = metadata(name);
        request
    });
    json::pretty(&Value::from(requests.to_vec()))
}

#[cfg(test)]
mod tests;
