//! Which steps a build ran, read from its plain progress.
//!
//! Only steps that do work are counted (RUN, COPY, ADD, WORKDIR): FROM and the builder's own steps
//! appear or not as they like.

use std::collections::BTreeMap;

/// What became of the steps of one build.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Names of the steps that were executed, failed ones too, in order of appearance.
    pub(crate) ran: Vec<String>,
    /// Names of the steps that were answered from the cache.
    pub(crate) cached: Vec<String>,
}

/// Reads BuildKit's plain format: `#5 [build 2/3] RUN make`, then `#5 CACHED` or `#5 DONE 1.3s`.
pub(crate) fn steps(stderr: &str) -> Steps {
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    let mut steps = Steps::default();
    for line in stderr.lines() {
        let Some((number, said)) = line.strip_prefix('#').and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else {
            continue;
        };
        if let Some(name) = step_name(said) {
            names.insert(number, name.to_owned());
        } else if let Some(name) = names.get(&number) {
            let word = said.split(' ').next().unwrap_or_default();
            match word {
                "CACHED" => steps.cached.push(name.clone()),
                "DONE" | "ERROR:" => steps.ran.push(name.clone()),
                _ => {}
            }
        }
    }
    steps
}

/// Returns `RUN make` for `[build 2/3] RUN make`, and `None` for what is no step of a stage.
fn step_name(said: &str) -> Option<&str> {
    let (place, name) = said.strip_prefix('[')?.split_once("] ")?;
    if place.starts_with("internal") {
        return None;
    }
    let bare = name.strip_prefix("ONBUILD ").unwrap_or(name);
    let bare = bare.strip_prefix("LINK ").unwrap_or(bare);
    let word = bare.split(' ').next()?;
    ["RUN", "COPY", "ADD", "WORKDIR"].contains(&word).then_some(name)
}

#[test]
fn plain_progress_is_read() {
    let steps = steps(
        "#1 [internal] load build definition\n#1 DONE 0.0s\n#2 [1/5] FROM busybox\n#2 CACHED\n\
         #3 [2/5] COPY a /\n#3 CACHED\n#4 [b 3/5] RUN echo [x] DONE\n#4 0.01 #3 DONE\n#4 why: new\n#4 DONE 0.1s\n\
         #5 [4/5] ONBUILD LINK COPY b /\n#5 DONE 0.0s\n#6 [5/5] RUN false\n#6 ERROR: exit code: 1\n#7 exporting\n#7 DONE 0s\n",
    );
    assert_eq!(steps.cached, ["COPY a /"]);
    assert_eq!(
        steps.ran,
        ["RUN echo [x] DONE", "ONBUILD LINK COPY b /", "RUN false"]
    );
}
