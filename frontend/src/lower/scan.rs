//! What a list of contents is to look at besides the result: the arguments BUILDKIT_SBOM_SCAN_CONTEXT and
//! BUILDKIT_SBOM_SCAN_STAGE. Spec: cli-and-outputs.md §8.

use super::base::{State, stage_name};
use super::{Lowering, plan::Plan};

pub(super) const CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
pub(super) const STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// Notes what the arguments of a finished stage, or else those before the first FROM, ask for.
pub(super) fn note(lowering: &mut Lowering<'_>, plan: &Plan, index: usize, state: &State) {
    let name = stage_name(lowering, index);
    let is_asked = |argument: &str| {
        let value = state
            .args
            .get(argument)
            .or_else(|| lowering.globals.get(argument));
        value.is_some_and(|value| names(value, &name))
    };
    let (context, stage) = (is_asked(CONTEXT), is_asked(STAGE));
    lowering.scans.context |= context;
    // The result is looked at anyway.
    if stage && index != plan.target {
        lowering.scans.stages.push((name, state.vertex));
    }
}

/// Says whether a value, which is a switch or a list of stages, is about a stage.
fn names(value: &str, stage: &str) -> bool {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        value => value
            .split(',')
            .any(|name| name.trim().eq_ignore_ascii_case(stage)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_switch_or_a_list() {
        for (value, expected) in [
            ("true", true),
            ("1", true),
            ("false", false),
            ("", false),
            ("base, Build", true),
            ("builder", false),
        ] {
            assert_eq!(names(value, "build"), expected, "{value}");
        }
    }
}
