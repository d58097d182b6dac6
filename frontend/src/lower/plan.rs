//! Which stages are built and what each starts from: names, targets, named contexts, triggers.
//! Spec: dockerfile.md §7, §12.
//!
//! A stage can only use stages before it, so the order of the file is an order to build in, and there are no cycles.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use super::reference::Reference;
use super::stage::MAX_SUGGESTIONS;
use super::{MAX_EXPANDED_BYTES, globals, too_much_text};
use crate::ast::{Dockerfile, Instruction, Kind, Stage};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::expand::{Quotes, Variables, expand};
use crate::lines::Text;
use crate::lint::{self, Rule};
use crate::options::{Answers, ImageKind, ImageRequest, NamedContext, Options, Request};
use crate::parse;
use crate::platform::Platform;
use crate::source::Span;

/// Most triggers of one build: each stage runs those of its base again.
const MAX_TRIGGERS: usize = 100_000;
/// Most text of theirs.
const MAX_TRIGGER_BYTES: usize = 64 << 20;

/// Where a tree comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Scratch,
    /// An earlier stage, by index.
    Stage(usize),
    Image(ImageRequest),
    /// A directory that is a named context.
    Directory(String),
}

/// A stage with its names settled.
#[derive(Debug)]
pub(super) struct PlannedStage {
    pub(super) base: Origin,
    pub(super) platform: Platform,
    /// A named context stands for the stage; its instructions don't count.
    pub(super) replaced: bool,
    pub(super) reached: bool,
    /// Its FROM is wrong, so that nobody knows what it starts from.
    pub(super) is_broken: bool,
    /// What the base wants to be run first.
    pub(super) triggers: Vec<Instruction>,
    /// The escape character of their text.
    pub(super) trigger_escape: char,
    /// Warnings about the FROM line, for when the stage is reached.
    warnings: Vec<Diagnostic>,
}

/// The settled stages.
pub(super) struct Plan {
    pub(super) stages: Vec<PlannedStage>,
    pub(super) target: usize,
    /// What has to be known before anything can be lowered.
    pub(super) needs: BTreeMap<Request, Span>,
    /// Indexes of the stages of each name, in order.
    pub(super) names: HashMap<String, Vec<usize>>,
    /// Work that went into the variables of FROM lines.
    steps: Cell<usize>,
}

impl Plan {
    /// Settles all stages and finds what the target reaches; `None` when a limit ended the search.
    pub(super) fn new(
        dockerfile: &Dockerfile,
        options: &Options,
        globals: &Variables,
        answers: &Answers,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let mut plan = Self {
            stages: Vec::new(),
            target: 0,
            needs: BTreeMap::new(),
            names: HashMap::new(),
            steps: Cell::new(0),
        };
        let has_variables = dockerfile
            .stages
            .iter()
            .any(|stage| stage.base.value.contains('$'));
        let defaults = has_variables.then(|| globals::defaults(dockerfile, options));
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let mut planned = plan
                .settle(stage, dockerfile, options, globals)
                .unwrap_or_else(|error| {
                    diagnostics.push(error);
                    PlannedStage {
                        is_broken: true,
                        ..PlannedStage::new(Origin::Scratch, options.target_platform.clone())
                    }
                });
            let escape = dockerfile.directives.escape;
            let (warnings, steps) =
                lint::from::check(stage, escape, &options.target_platform, defaults.as_ref());
            if !planned.is_broken {
                planned.warnings.extend(warnings);
            }
            plan.steps.set(plan.steps.get().saturating_add(steps));
            plan.stages.push(planned);
            if plan.steps.get() > MAX_EXPANDED_BYTES {
                diagnostics.push(too_much_text().at(stage.span));
                return None;
            }
            if let Some(name) = &stage.name {
                plan.names.entry(name.value.clone()).or_default().push(index);
            }
        }
        plan.target = match plan.find_target(dockerfile, options) {
            Ok(target) => target,
            Err(error) => {
                diagnostics.push(error);
                // The other mistakes are told, too; which stages are built is a guess.
                dockerfile.stages.len() - 1
            }
        };
        plan.reach(dockerfile, options, answers, diagnostics)
            .then_some(plan)
    }

    fn find_target(&self, dockerfile: &Dockerfile, options: &Options) -> Result<usize, Diagnostic> {
        if let Some(until) = options.until.as_ref().filter(|until| !until.stage.is_empty()) {
            return self.find_stage(&until.stage, dockerfile);
        }
        let Some(target) = &options.target else {
            return Ok(dockerfile.stages.len() - 1);
        };
        let indexes = self.names.get(&target.to_lowercase());
        indexes
            .and_then(|indexes| indexes.last())
            .copied()
            .ok_or_else(|| {
                let error = Diagnostic::error(format!("target stage \"{target}\" could not be found"));
                suggest_stage(error, target, dockerfile)
            })
    }

    /// Finds the stage that step names show as `shown`.
    fn find_stage(&self, shown: &str, dockerfile: &Dockerfile) -> Result<usize, Diagnostic> {
        let by_name = self
            .names
            .get(&shown.to_lowercase())
            .and_then(|indexes| indexes.last());
        let by_index = || shown.strip_prefix("stage-").unwrap_or(shown).parse().ok();
        let found = by_name.copied().or_else(by_index);
        found
            .filter(|index| *index < dockerfile.stages.len())
            .ok_or_else(|| {
                let error = Diagnostic::error(format!("stage \"{shown}\" could not be found"));
                suggest_stage(error, shown, dockerfile)
            })
    }

    /// Settles what a stage starts from. Spec: dockerfile.md §7.1.
    fn settle(
        &self,
        stage: &Stage,
        dockerfile: &Dockerfile,
        options: &Options,
        globals: &Variables,
    ) -> Result<PlannedStage, Diagnostic> {
        let mut warnings = Vec::new();
        let spend = |steps: usize| self.steps.set(self.steps.get().saturating_add(steps));
        let mut expanded = |text: &Text| {
            let escape = dockerfile.directives.escape;
            let done = expand(&text.value, escape, Quotes::Remove, globals).map_err(|error| {
                spend(error.steps());
                Diagnostic::error(format!("failed to process \"{}\": {error}", text.value)).at(text.span)
            })?;
            spend(done.steps);
            let unset = done.unset.iter();
            warnings.extend(unset.map(|name| self.undeclared(name, text, globals)));
            Ok::<String, Diagnostic>(done.text)
        };
        let name = expanded(&stage.base)?;
        if name.trim().is_empty() {
            let message = format!("base name ({}) should not be blank", stage.base.value);
            return Err(Diagnostic::error(message).at(stage.base.span));
        }
        let platform = match &stage.platform {
            None => None,
            Some(text) => {
                let value = expanded(text)?;
                if value.is_empty() {
                    let message = format!("empty platform value from expression {}", text.value);
                    let name = text.value.trim_matches(['$', '{', '}']);
                    return Err(Diagnostic::error(message)
                        .at(text.span)
                        .suggest(name, globals.names()));
                }
                let parsed = Platform::parse(&value, &options.target_platform);
                Some(parsed.map_err(|error| Diagnostic::error(error.to_string()).at(text.span))?)
            }
        };
        let own = platform
            .clone()
            .unwrap_or_else(|| options.target_platform.clone());
        let replacement = stage
            .name
            .as_ref()
            .and_then(|name| named(&name.value, &own, options));
        let replaced = replacement.is_some();
        let base = match replacement.or_else(|| named(&name, &own, options)) {
            Some(origin) => origin,
            None => match self
                .names
                .get(&name.to_lowercase())
                .and_then(|indexes| indexes.last())
            {
                Some(&index) => {
                    if name != name.to_lowercase() {
                        let message = format!("stage name '{name}' should be lowercase");
                        warnings
                            .push(Diagnostic::warning(Rule::StageNameCasing, message).at(stage.base.span));
                    }
                    Origin::Stage(index)
                }
                None if name == "scratch" => Origin::Scratch,
                None => image(&name, &own),
            },
        };
        let platform = match (&base, platform) {
            (Origin::Stage(index), None) => self.stages[*index].platform.clone(),
            _ => own,
        };
        Ok(PlannedStage {
            replaced,
            warnings,
            ..PlannedStage::new(base, platform)
        })
    }

    /// A variable of a FROM line that is no global argument.
    fn undeclared(&self, name: &str, text: &Text, globals: &Variables) -> Diagnostic {
        let message = format!("FROM argument '{name}' is not declared");
        let warning = Diagnostic::warning(Rule::UndefinedArgInFrom, message).at(text.span);
        if self.stages.len() < MAX_SUGGESTIONS {
            warning.suggest(name, globals.names())
        } else {
            warning
        }
    }

    /// Walks from the target to everything that it needs; says whether it got to the end.
    fn reach(
        &mut self,
        dockerfile: &Dockerfile,
        options: &Options,
        answers: &Answers,
        diagnostics: &mut Diagnostics,
    ) -> bool {
        let mut work = vec![self.target];
        if options.every_stage {
            work.extend(0..self.stages.len());
        }
        let (mut n_triggers, mut n_trigger_bytes) = (0, 0);
        while let Some(index) = work.pop() {
            if std::mem::replace(&mut self.stages[index].reached, true) {
                continue;
            }
            self.stages[index]
                .warnings
                .drain(..)
                .for_each(|warning| diagnostics.push(warning));
            let from = dockerfile.stages[index].base.span;
            self.visit(&self.stages[index].base.clone(), from, &mut work, answers);
            if matches!(self.stages[index].base, Origin::Stage(_)) {
                self.stages[index].trigger_escape = dockerfile.directives.escape;
            }
            let texts = self.triggers_of_base(index, dockerfile, answers);
            n_triggers += texts.len();
            n_trigger_bytes += texts.iter().map(|text| text.len()).sum::<usize>();
            if n_triggers > MAX_TRIGGERS || n_trigger_bytes > MAX_TRIGGER_BYTES {
                let message = format!(
                    "more than {MAX_TRIGGERS} ONBUILD triggers, or {MAX_TRIGGER_BYTES} bytes of them, would run"
                );
                diagnostics.push(Diagnostic::error(message).at(dockerfile.stages[index].span));
                return false;
            }
            self.stages[index].triggers = self.parse_triggers(&texts, index, dockerfile, diagnostics);
            let mut origins = Vec::new();
            let mut errors = Vec::new();
            for (position, instruction) in self.instructions(index, dockerfile).enumerate() {
                for reference in Reference::of(instruction) {
                    match self.resolve(&reference, index, dockerfile, options) {
                        Ok(origin) => origins.push((origin, reference.name().span)),
                        Err(error) => errors.push((error, position)),
                    }
                }
            }
            let n_triggers_here = self.stages[index].triggers.len();
            for (error, position) in errors {
                // What stands in a trigger is reported at the FROM line.
                let is_trigger = position < n_triggers_here;
                diagnostics.push(if is_trigger {
                    error.at(dockerfile.stages[index].span)
                } else {
                    error
                });
            }
            origins
                .iter()
                .for_each(|(origin, span)| self.visit(origin, *span, &mut work, answers));
        }
        true
    }

    fn visit(&mut self, origin: &Origin, span: Span, work: &mut Vec<usize>, answers: &Answers) {
        match origin {
            Origin::Stage(index) => work.push(*index),
            Origin::Image(request) if !answers.images.contains_key(request) => {
                self.needs.entry(Request::Image(request.clone())).or_insert(span);
            }
            _ => {}
        }
    }

    /// Returns what a stage does, triggers of its base first.
    pub(super) fn instructions<'a>(
        &'a self,
        index: usize,
        dockerfile: &'a Dockerfile,
    ) -> impl Iterator<Item = &'a Instruction> {
        let own: &[Instruction] = if self.stages[index].replaced {
            &[]
        } else {
            &dockerfile.stages[index].instructions
        };
        self.stages[index].triggers.iter().chain(own)
    }

    /// Returns the text of the triggers of a stage's base.
    fn triggers_of_base<'a>(
        &self,
        index: usize,
        dockerfile: &'a Dockerfile,
        answers: &'a Answers,
    ) -> Vec<&'a str> {
        match &self.stages[index].base {
            Origin::Image(request) => {
                let image = answers.images.get(request);
                let texts =
                    image.map(|image| image.config.config.on_build.iter().map(String::as_str).collect());
                texts.unwrap_or_default()
            }
            Origin::Stage(base) if !self.stages[*base].replaced => {
                let texts = dockerfile.stages[*base]
                    .instructions
                    .iter()
                    .filter_map(|instruction| match &instruction.kind {
                        Kind::Onbuild(text) => Some(text.as_str()),
                        _ => None,
                    });
                texts.collect()
            }
            _ => Vec::new(),
        }
    }

    /// Parses triggers. What is wrong with them is reported at the FROM line.
    fn parse_triggers(
        &self,
        texts: &[&str],
        index: usize,
        dockerfile: &Dockerfile,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Instruction> {
        let span = dockerfile.stages[index].span;
        let mut triggers = Vec::new();
        for text in texts {
            match parse::parse_trigger(text, self.stages[index].trigger_escape, span) {
                Ok(instruction) => triggers.push(instruction),
                Err(errors) => diagnostics.append(errors),
            }
        }
        triggers
    }

    /// Finds what is wrong with the references to stages in the stages that aren't built: a mistake there is one all
    /// the same. In the others it is found when they are lowered.
    pub(super) fn check_unreached(
        &self,
        dockerfile: &Dockerfile,
        options: &Options,
        diagnostics: &mut Diagnostics,
    ) {
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            if self.stages[index].reached {
                continue;
            }
            let references = stage.instructions.iter().flat_map(Reference::of);
            references
                .filter_map(|reference| self.resolve(&reference, index, dockerfile, options).err())
                .for_each(|error| diagnostics.push(error));
        }
    }
}

impl PlannedStage {
    fn new(base: Origin, platform: Platform) -> Self {
        Self {
            base,
            platform,
            replaced: false,
            reached: false,
            is_broken: false,
            triggers: Vec::new(),
            trigger_escape: '\\',
            warnings: Vec::new(),
        }
    }
}

/// Adds the stage that was probably meant, or the names of all where none is near.
fn suggest_stage(error: Diagnostic, written: &str, dockerfile: &Dockerfile) -> Diagnostic {
    const MAX_LISTED: usize = 20;
    let names = dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref());
    let names: Vec<&str> = names.map(|name| name.value.as_str()).collect();
    let error = error.suggest(written, names.iter().copied());
    if error.suggestion.is_some() {
        return error;
    }
    let more = names.len().saturating_sub(MAX_LISTED);
    let listed = names[..names.len() - more].join(", ");
    error.help(match (names.is_empty(), more) {
        (true, _) => "no stage of the file has a name".to_owned(),
        (_, 0) => format!("its stages are {listed}"),
        (_, more) => format!("its stages are {listed} and {more} more"),
    })
}

pub(super) fn image(reference: &str, platform: &Platform) -> Origin {
    let request = ImageRequest {
        reference: reference.to_owned(),
        kind: ImageKind::Registry,
        platform: platform.clone(),
    };
    Origin::Image(request)
}

/// Finds the named context that stands for `name`. Spec: dockerfile.md §7.5.
pub(super) fn named(name: &str, platform: &Platform, options: &Options) -> Option<Origin> {
    let wanted = familiar(name);
    if options.named_contexts.is_empty() || wanted == "scratch" || wanted == "context" {
        return None;
    }
    let mut found = None;
    for (key, context) in &options.named_contexts {
        let (key_name, key_platform) = match key.split_once("::") {
            Some((name, platform)) => (name, platform.parse::<Platform>().ok()),
            None => (key.as_str(), None),
        };
        let for_any = !key.contains("::");
        if !familiar(key_name).eq_ignore_ascii_case(wanted) {
            continue;
        }
        if key_platform.as_ref() == Some(platform) {
            found = Some((key, context));
            break;
        }
        if for_any {
            found = Some((key, context));
        }
    }
    let (key, context) = found?;
    Some(match context {
        NamedContext::Directory | NamedContext::Http(_) | NamedContext::Git(_) => {
            Origin::Directory(key.clone())
        }
        NamedContext::Image(reference) if reference == "scratch" => Origin::Scratch,
        NamedContext::Image(reference) => image(reference, platform),
        NamedContext::OciLayout { path, reference } => Origin::Image(ImageRequest {
            reference: reference.clone(),
            kind: ImageKind::OciLayout { path: path.clone() },
            platform: platform.clone(),
        }),
    })
}

/// Shortens a reference to what people write: `docker.io/library/alpine:latest` is `alpine`.
fn familiar(name: &str) -> &str {
    let mut short = name;
    for prefix in ["docker.io/", "index.docker.io/"] {
        short = short.strip_prefix(prefix).unwrap_or(short);
    }
    short = short.strip_prefix("library/").unwrap_or(short);
    short.strip_suffix(":latest").unwrap_or(short)
}
