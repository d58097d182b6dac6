//! What is written down of a step, and how it is told.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// It ran, and ended well.
    Ran,
    /// It was answered from the cache.
    Cached,
    /// It failed.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// One step of a build that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepFacts {
    /// As progress shows it.
    pub(crate) name: String,
    /// Its place in the graph; `None` for work that is no step of the Dockerfile.
    pub(crate) vertex: Option<usize>,
    /// How it ended.
    pub(crate) how: How,
    /// How long it took.
    pub(crate) took_ms: u64,
    /// Why it wasn't answered from the cache, all of it.
    pub(crate) why: Vec<String>,
}

/// Tells why the steps of the Dockerfile ran, or didn't.
pub(crate) fn explain(steps: &[StepFacts]) -> String {
    let mut out = String::new();
    for step in steps.iter().filter(|step| step.vertex.is_some()) {
        let how = match step.how {
            How::Ran => "ran",
            How::Cached => "cached",
            How::Failed => "failed",
            How::Cancelled => "cancelled",
        };
        // Writing to a string can't fail.
        let _ = match step.how {
            How::Ran | How::Failed => {
                writeln!(out, "{}: {how}, {:.1} s", step.name, step.took_ms as f64 / 1000.0)
            }
            How::Cached | How::Cancelled => writeln!(out, "{}: {how}", step.name),
        };
        for line in &step.why {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_below_their_steps() {
        let step = |name: &str, vertex, how, why: &[&str]| StepFacts {
            name: name.to_owned(),
            vertex,
            how,
            took_ms: 1234,
            why: why.iter().map(|line| (*line).to_owned()).collect(),
        };
        let steps = [
            step("[internal] pull x", None, How::Ran, &[]),
            step("[1/3] FROM x", Some(0), How::Cached, &[]),
            step(
                "[2/3] COPY . .",
                Some(2),
                How::Ran,
                &["/a changed (mode)", "owner 1 → 2"],
            ),
            step(
                "[3/3] RUN make",
                Some(3),
                How::Failed,
                &["a step before it changed"],
            ),
        ];
        insta::assert_snapshot!(explain(&steps), @r"
        [1/3] FROM x: cached
        [2/3] COPY . .: ran, 1.2 s
            /a changed (mode)
            owner 1 → 2
        [3/3] RUN make: failed, 1.2 s
            a step before it changed
        ");
    }
}
