//! The stages that a file can be built to.

use serde_json::{Map, json};

use super::{json as shapes, table};
use crate::ast::Dockerfile;

/// The targets of a file.
#[derive(Debug)]
pub struct TargetList<'a>(&'a Dockerfile);

/// Returns the targets: all stages, in order.
pub fn targets(dockerfile: &Dockerfile) -> TargetList<'_> {
    TargetList(dockerfile)
}

impl TargetList<'_> {
    /// Returns the list for people. A stage without a name can't be asked for, so only the default one of those is there.
    pub fn text(&self) -> String {
        let last = self.0.stages.len() - 1;
        let stages = self.0.stages.iter().enumerate();
        let rows: Vec<Vec<String>> = stages
            .filter_map(|(at, stage)| {
                let name = match (&stage.name, at == last) {
                    (Some(name), true) => format!("{} (default)", name.value),
                    (Some(name), false) => name.value.clone(),
                    (None, true) => "(default)".to_owned(),
                    (None, false) => return None,
                };
                Some(vec![name, stage.description.clone().unwrap_or_default()])
            })
            .collect();
        table::aligned(&["TARGET", "DESCRIPTION"], &rows, 3)
    }

    /// Returns the list for programs.
    pub fn json(&self) -> String {
        let source = &self.0.source;
        let last = self.0.stages.len() - 1;
        let targets: Vec<_> = self
            .0
            .stages
            .iter()
            .enumerate()
            .map(|(at, stage)| {
                let mut target = Map::new();
                let name = stage.name.as_ref().map_or("", |name| &name.value);
                shapes::insert_text(&mut target, "name", name);
                if at == last {
                    target.insert("default".to_owned(), true.into());
                }
                let description = stage.description.as_deref().unwrap_or_default();
                shapes::insert_text(&mut target, "description", description);
                shapes::insert_text(&mut target, "base", &stage.base.value);
                let platform = stage.platform.as_ref().map_or("", |platform| &platform.value);
                shapes::insert_text(&mut target, "platform", platform);
                target.insert("location".to_owned(), shapes::location(source, stage.span));
                target
            })
            .collect();
        shapes::pretty(&json!({"targets": targets, "sources": [shapes::data(source)]}))
    }
}
