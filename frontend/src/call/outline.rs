//! What a target takes: arguments, secrets, agents, caches.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::{json as shapes, table};
use crate::ast::{Arg, Dockerfile, Kind};
use crate::diagnostic::Diagnostics;
use crate::expand::{Variables, names};
use crate::lower::parameters::{Argument, Mounted};
use crate::lower::{Survey, survey};
use crate::options::{Answers, Options};
use crate::source::{SourceText, Span};

/// The parameters of a target.
#[derive(Debug)]
pub struct Outline {
    source: SourceText,
    name: String,
    description: String,
    args: Vec<OutlineArg>,
    secrets: Vec<Item>,
    agents: Vec<Item>,
    caches: Vec<Item>,
}

#[derive(Debug)]
struct OutlineArg {
    name: String,
    value: String,
    description: String,
    span: Span,
}

#[derive(Debug)]
struct Item {
    id: String,
    required: bool,
    span: Span,
}

/// Returns what the target and the stages that it needs take. What is wrong with the file is the error.
pub fn outline(
    dockerfile: &Dockerfile,
    options: &Options,
    answers: &Answers,
) -> Result<Outline, Diagnostics> {
    let survey = survey(dockerfile, options, answers);
    if survey.diagnostics.has_errors() {
        return Err(survey.diagnostics);
    }
    let stage = &dockerfile.stages[survey.target];
    let items = |noted: std::slice::Iter<'_, Mounted>| {
        let item = |mounted: &Mounted| Item {
            id: mounted.id.clone(),
            required: mounted.required,
            span: mounted.span,
        };
        noted.map(item).collect()
    };
    Ok(Outline {
        source: dockerfile.source.clone(),
        name: stage
            .name
            .as_ref()
            .map(|name| name.value.clone())
            .unwrap_or_default(),
        description: stage.description.clone().unwrap_or_default(),
        args: arguments(dockerfile, &survey),
        secrets: items(survey.parameters.secrets.iter()),
        agents: items(survey.parameters.agents.iter()),
        caches: items(survey.parameters.caches.iter()),
    })
}

/// Returns the arguments of the stages, and the global ones that those and their FROM lines use, in the order of the
/// file.
fn arguments(dockerfile: &Dockerfile, survey: &Survey) -> Vec<OutlineArg> {
    let escape = dockerfile.directives.escape;
    let globals: BTreeMap<&str, &Arg> = globals(dockerfile)
        .map(|arg| (arg.name.value.as_str(), arg))
        .collect();
    let mut args = Vec::new();
    let mut seen = HashSet::new();
    let mut used: Vec<String> = Vec::new();
    for arg in &survey.parameters.args {
        let global = globals.get(arg.name.as_str()).filter(|_| !arg.has_default);
        if let Some(global) = global {
            used.push(global.name.value.clone());
        } else if is_meant(arg, &survey.globals) && seen.insert(arg.name.clone()) {
            args.push(OutlineArg {
                name: arg.name.clone(),
                value: arg.value.clone().unwrap_or_default(),
                description: arg.description.clone().unwrap_or_default(),
                span: arg.span,
            });
        }
    }
    let reached = dockerfile.stages.iter().zip(&survey.reached);
    for (stage, _) in reached.filter(|(_, reached)| **reached) {
        let texts = std::iter::once(&stage.base).chain(&stage.platform);
        used.extend(texts.flat_map(|text| names(&text.value, escape)));
    }
    while let Some(name) = used.pop() {
        let Some(global) = globals.get(name.as_str()) else {
            continue;
        };
        if !seen.insert(name.clone()) {
            continue;
        }
        let default = global.value.iter();
        used.extend(default.flat_map(|text| names(&text.value, escape)));
        args.push(OutlineArg {
            value: survey.globals.get(&name).unwrap_or_default().to_owned(),
            name,
            description: global.description.clone().unwrap_or_default(),
            span: global.name.span,
        });
    }
    args.sort_by_key(|arg| arg.span.start);
    args
}

/// An argument of a stage that only asks for what is there by itself, such as TARGETARCH, is nothing to be given.
fn is_meant(arg: &Argument, globals: &Variables) -> bool {
    arg.has_default || globals.get(&arg.name).is_none()
}

fn globals(dockerfile: &Dockerfile) -> impl Iterator<Item = &Arg> {
    let args = dockerfile.globals.iter();
    args.filter_map(|instruction| match &instruction.kind {
        Kind::Arg(args) => Some(args),
        _ => None,
    })
    .flatten()
}

impl Outline {
    /// Returns the outline for people.
    pub fn text(&self) -> String {
        let mut blocks = Vec::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() {
                "(default)"
            } else {
                &self.name
            };
            let mut rows = Vec::new();
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:".to_owned(), self.description.clone()]);
            }
            blocks.push(table::aligned(&["TARGET:", name], &rows, 1));
        }
        if !self.args.is_empty() {
            let row = |arg: &OutlineArg| vec![arg.name.clone(), arg.value.clone(), arg.description.clone()];
            let rows: Vec<_> = self.args.iter().map(row).collect();
            blocks.push(table::aligned(&["BUILD ARG", "VALUE", "DESCRIPTION"], &rows, 3));
        }
        for (title, items) in [("SECRET", &self.secrets), ("SSH", &self.agents)] {
            let required = |item: &Item| if item.required { "true" } else { "" }.to_owned();
            let rows: Vec<_> = items
                .iter()
                .map(|item| vec![item.id.clone(), required(item)])
                .collect();
            if !rows.is_empty() {
                blocks.push(table::aligned(&[title, "REQUIRED"], &rows, 3));
            }
        }
        if !self.caches.is_empty() {
            let rows: Vec<_> = self.caches.iter().map(|item| vec![item.id.clone()]).collect();
            blocks.push(table::aligned(&["CACHE MOUNT"], &rows, 3));
        }
        blocks.join("\n")
    }

    /// Returns the outline for programs.
    pub fn json(&self) -> String {
        let mut out = Map::new();
        shapes::insert_text(&mut out, "name", &self.name);
        shapes::insert_text(&mut out, "description", &self.description);
        let args: Vec<Value> = self.args.iter().map(|arg| self.argument(arg)).collect();
        let secrets = self.secrets.iter().map(|item| self.item("name", item));
        let agents = self.agents.iter().map(|item| self.item("name", item));
        let caches = self.caches.iter().map(|item| self.item("ID", item));
        for (name, list) in [
            ("args", args),
            ("secrets", secrets.collect()),
            ("ssh", agents.collect()),
            ("cache", caches.collect()),
        ] {
            if !list.is_empty() {
                out.insert(name.to_owned(), list.into());
            }
        }
        out.insert("sources".to_owned(), json!([shapes::data(&self.source)]));
        shapes::pretty(&out.into())
    }

    fn argument(&self, arg: &OutlineArg) -> Value {
        let mut out = Map::new();
        out.insert("name".to_owned(), arg.name.as_str().into());
        shapes::insert_text(&mut out, "description", &arg.description);
        shapes::insert_text(&mut out, "value", &arg.value);
        out.insert("location".to_owned(), shapes::location(&self.source, arg.span));
        out.into()
    }

    fn item(&self, key: &str, item: &Item) -> Value {
        let mut out = Map::new();
        out.insert(key.to_owned(), item.id.as_str().into());
        if item.required {
            out.insert("required".to_owned(), true.into());
        }
        out.insert("location".to_owned(), shapes::location(&self.source, item.span));
        out.into()
    }
}
