//! What a build takes from outside, noted while its stages are lowered: arguments, secrets, agents, caches.

use std::collections::HashSet;

use crate::source::Span;

/// Most that is noted of each kind: nobody reads more.
const MAX_NOTED: usize = 10_000;

/// What the stages that were lowered take, in their order.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    /// `ARG` in stages.
    pub(crate) args: Vec<Argument>,
    /// `RUN --mount=type=secret`
    pub(crate) secrets: Noted,
    /// `RUN --mount=type=ssh`
    pub(crate) agents: Noted,
    /// `RUN --mount=type=cache`
    pub(crate) caches: Noted,
}

/// An argument that a stage declares.
#[derive(Debug)]
pub(crate) struct Argument {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) span: Span,
    /// Its line gives it a default, so that a global one of the same name isn't meant.
    pub(crate) has_default: bool,
}

/// Things with an id, each once.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    list: Vec<Mounted>,
    seen: HashSet<String>,
}

/// Something that a mount names.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) id: String,
    pub(crate) required: bool,
    pub(crate) span: Span,
}

impl Parameters {
    pub(super) fn add_arg(&mut self, argument: Argument) {
        if self.args.len() < MAX_NOTED {
            self.args.push(argument);
        }
    }
}

impl Noted {
    pub(super) fn add(&mut self, id: &str, required: bool, span: Span) {
        if self.list.len() < MAX_NOTED && self.seen.insert(id.to_owned()) {
            self.list.push(Mounted {
                id: id.to_owned(),
                required,
                span,
            });
        }
    }

    /// Iterates in order.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Mounted> {
        self.list.iter()
    }
}
