//! The lint rules: one table with what people and programs are told of each.
//!
//! A rule fires where what it looks at is read: in `parse` for single lines, in [`file`] for what needs the whole text,
//! in `lower` for what needs values. Which of them are heard is decided by `check.rs`. Spec: dockerfile.md §17.

pub(crate) mod file;
pub(crate) mod from;
pub(crate) mod image_name;

use std::fmt;

/// A lint rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table below describes each")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    UndefinedVar,
    WorkdirRelativePath,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
    CopyWildcardNoMatch,
    UnusedBuildArg,
    UnknownRule,
}

/// Who made a rule, and when it is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// BuildKit's; heard unless it is skipped. The last part of its address.
    Standard(&'static str),
    /// BuildKit's; heard only when asked for.
    Experimental(&'static str),
    /// Ashlar's own.
    Own,
}

struct Facts {
    rule: Rule,
    name: &'static str,
    kind: Kind,
    description: &'static str,
}

const fn facts(rule: Rule, name: &'static str, kind: Kind, description: &'static str) -> Facts {
    Facts {
        rule,
        name,
        kind,
        description,
    }
}

use Kind::{Experimental, Own, Standard};

/// In the order of [`Rule`].
#[rustfmt::skip]
const TABLE: [Facts; 25] = [
    facts(Rule::StageNameCasing, "StageNameCasing", Standard("stage-name-casing"),
        "Stage names should be lowercase"),
    facts(Rule::FromAsCasing, "FromAsCasing", Standard("from-as-casing"),
        "The 'as' keyword should match the case of the 'from' keyword"),
    facts(Rule::NoEmptyContinuation, "NoEmptyContinuation", Standard("no-empty-continuation"),
        "Empty continuation lines will become errors in a future release"),
    facts(Rule::ConsistentInstructionCasing, "ConsistentInstructionCasing", Standard("consistent-instruction-casing"),
        "All commands within the Dockerfile should use the same casing (either upper or lower)"),
    facts(Rule::DuplicateStageName, "DuplicateStageName", Standard("duplicate-stage-name"),
        "Stage names should be unique"),
    facts(Rule::ReservedStageName, "ReservedStageName", Standard("reserved-stage-name"),
        "Reserved words should not be used as stage names"),
    facts(Rule::JsonArgsRecommended, "JSONArgsRecommended", Standard("json-args-recommended"),
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"),
    facts(Rule::MaintainerDeprecated, "MaintainerDeprecated", Standard("maintainer-deprecated"),
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author"),
    facts(Rule::UndefinedArgInFrom, "UndefinedArgInFrom", Standard("undefined-arg-in-from"),
        "FROM command must use declared ARGs"),
    facts(Rule::UndefinedVar, "UndefinedVar", Standard("undefined-var"),
        "Variables should be defined before their use"),
    facts(Rule::WorkdirRelativePath, "WorkdirRelativePath", Standard("workdir-relative-path"),
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the \
         base image changes"),
    facts(Rule::MultipleInstructionsDisallowed, "MultipleInstructionsDisallowed",
        Standard("multiple-instructions-disallowed"),
        "Multiple instructions of the same type should not be used in the same stage"),
    facts(Rule::LegacyKeyValueFormat, "LegacyKeyValueFormat", Standard("legacy-key-value-format"),
        "Legacy key/value format with whitespace separator should not be used"),
    facts(Rule::InvalidBaseImagePlatform, "InvalidBaseImagePlatform", Standard("invalid-base-image-platform"),
        "Base image platform does not match expected target platform"),
    facts(Rule::RedundantTargetPlatform, "RedundantTargetPlatform", Standard("redundant-target-platform"),
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"),
    facts(Rule::SecretsUsedInArgOrEnv, "SecretsUsedInArgOrEnv", Standard("secrets-used-in-arg-or-env"),
        "Sensitive data should not be used in the ARG or ENV commands"),
    facts(Rule::InvalidDefaultArgInFrom, "InvalidDefaultArgInFrom", Standard("invalid-default-arg-in-from"),
        "Default value for global ARG results in an empty or invalid base image name"),
    facts(Rule::FromPlatformFlagConstDisallowed, "FromPlatformFlagConstDisallowed",
        Standard("from-platform-flag-const-disallowed"),
        "FROM --platform flag should not use a constant value"),
    facts(Rule::CopyIgnoredFile, "CopyIgnoredFile", Standard("copy-ignored-file"),
        "Attempting to Copy file that is excluded by .dockerignore"),
    facts(Rule::InvalidDefinitionDescription, "InvalidDefinitionDescription",
        Experimental("invalid-definition-description"),
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is \
         not intended to be a description comment, add an empty line or comment between the instruction and the comment."),
    facts(Rule::ExposeProtoCasing, "ExposeProtoCasing", Standard("expose-proto-casing"),
        "Protocol in EXPOSE instruction should be lowercase"),
    facts(Rule::ExposeInvalidFormat, "ExposeInvalidFormat", Standard("expose-invalid-format"),
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a \
         future release"),
    facts(Rule::CopyWildcardNoMatch, "CopyWildcardNoMatch", Own,
        "Wildcards of COPY and ADD should match something in the build context"),
    facts(Rule::UnusedBuildArg, "UnusedBuildArg", Own,
        "Build arguments should be declared by an ARG"),
    facts(Rule::UnknownRule, "UnknownRule", Own,
        "Rules that a check directive names should exist"),
];

impl Rule {
    /// Returns all rules: BuildKit's in its order, then Ashlar's own.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|facts| facts.rule)
    }

    fn facts(self) -> &'static Facts {
        &TABLE[self as usize]
    }

    /// Returns the name, as in `# check=skip=StageNameCasing`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Returns what the rule asks for, one sentence.
    pub fn description(self) -> &'static str {
        self.facts().description
    }

    /// Returns the address of the page about it; Ashlar's own rules have none.
    pub fn url(self) -> Option<String> {
        match self.facts().kind {
            Standard(page) | Experimental(page) => {
                Some(format!("https://docs.docker.com/go/dockerfile/rule/{page}/"))
            }
            Own => None,
        }
    }

    /// Says whether it is heard only when a check directive asks for it.
    pub fn is_experimental(self) -> bool {
        matches!(self.facts().kind, Experimental(_))
    }

    /// Says whether BuildKit doesn't have it. Such a rule only advises: it never makes a build or a check fail, so that
    /// what passes with BuildKit passes here.
    pub fn is_own(self) -> bool {
        self.facts().kind == Own
    }

    /// Finds a rule by its name, in any case.
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|rule| rule.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod rules;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (at, rule) in Rule::all().enumerate() {
            assert_eq!(rule as usize, at, "{rule}");
            assert_eq!(Rule::find(&rule.name().to_lowercase()), Some(rule));
        }
        assert_eq!(Rule::all().filter(|rule| !rule.is_own()).count(), 22);
    }

    #[test]
    fn addresses_are_the_names_in_kebab_case() {
        for rule in Rule::all() {
            let Some(url) = rule.url() else { continue };
            let page = url.trim_end_matches('/').rsplit('/').next().unwrap();
            assert_eq!(page.replace('-', ""), rule.name().to_lowercase());
        }
    }
}
