//! Arguments before the first FROM, and the ones that are there by themselves. Spec: dockerfile.md §8, §14.

use super::{MAX_EXPANDED_BYTES, too_much_text};
use crate::ast::{Dockerfile, Kind};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::expand::{Quotes, Variables, expand};
use crate::options::Options;

/// Names of the automatic arguments.
pub(super) const AUTOMATIC: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// Says whether an argument is there without being declared.
pub(super) fn is_automatic(name: &str) -> bool {
    AUTOMATIC.contains(&name)
}

/// Returns the global arguments with their values; declared ones without a value are not there.
pub(super) fn evaluate(
    dockerfile: &Dockerfile,
    options: &Options,
    diagnostics: &mut Diagnostics,
) -> Variables {
    let mut globals = automatic(dockerfile, options);
    let args = dockerfile
        .globals
        .iter()
        .filter_map(|instruction| match &instruction.kind {
            Kind::Arg(args) => Some(args),
            _ => None,
        });
    let mut steps = 0;
    for arg in args.flatten() {
        if steps > MAX_EXPANDED_BYTES {
            diagnostics.push(too_much_text().at(arg.name.span));
            break;
        }
        let name = arg.name.value.as_str();
        match (options.build_arg(name), &arg.value) {
            (Some(value), _) => globals.set(name, value),
            (None, Some(text)) => match expand(
                &text.value,
                dockerfile.directives.escape,
                Quotes::Remove,
                &globals,
            ) {
                Ok(value) => {
                    steps += value.steps;
                    globals.set(name, &value.text);
                }
                Err(error) => {
                    steps += error.steps();
                    let message = format!("failed to process \"{}\": {error}", text.value);
                    diagnostics.push(Diagnostic::error(message).at(text.span));
                }
            },
            (None, None) => {}
        }
    }
    globals
}

/// Returns the global arguments as they are when no build argument is given.
pub(super) fn defaults(dockerfile: &Dockerfile, options: &Options) -> Variables {
    let options = Options {
        build_args: Vec::new(),
        ..options.clone()
    };
    // What is wrong is told by `evaluate`, where it matters.
    evaluate(dockerfile, &options, &mut Diagnostics::default())
}

fn automatic(dockerfile: &Dockerfile, options: &Options) -> Variables {
    let last = dockerfile.stages.last().and_then(|stage| stage.name.as_ref());
    let target = options
        .target
        .as_deref()
        .or(last.map(|name| name.value.as_str()))
        .unwrap_or("default");
    let mut out = Variables::default();
    for (prefix, platform) in [
        ("BUILD", &options.build_platform),
        ("TARGET", &options.target_platform),
    ] {
        out.set(&format!("{prefix}PLATFORM"), &platform.to_string());
        out.set(&format!("{prefix}OS"), &platform.os);
        out.set(&format!("{prefix}OSVERSION"), "");
        out.set(&format!("{prefix}ARCH"), &platform.architecture);
        out.set(
            &format!("{prefix}VARIANT"),
            platform.variant.as_deref().unwrap_or_default(),
        );
    }
    out.set("TARGETSTAGE", target);
    for name in AUTOMATIC {
        if let Some(value) = options.build_arg(name) {
            out.set(name, value);
        }
    }
    out
}
