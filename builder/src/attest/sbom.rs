//! What is in an image, as a generator image finds it out: a step more, which sees the image's files and writes SPDX
//! documents. Spec: BuildKit's sbom-protocol.md.
//!
//! The step is one like any other: isolated, and not run again for the same files. What it writes is not believed to be
//! more than an in-toto statement of the right type; its subject is replaced by the image.

use std::collections::BTreeSet;
use std::io::Read;

use cache::layer::TreePath;
use cache::tree::{NodeKind, Selection, View};
use cache::{DiffId, Store};
use frontend::{ImageConfig, Scans};
use serde_json::Value;
use solver::op::{Exec, FileAction, FileOp, Mount, Op, Security, Source};
use solver::{Graph, Input, InputView, Label, VertexId};

use super::Attestation;
use crate::options::{BuildOptions, host_platform};

const SPDX: &str = "https://spdx.dev/Document";
/// Where the generator finds the image, further trees, and the place for what it writes.
const SOURCE: &str = "/run/src/core/sbom";
const EXTRAS: &str = "/run/src/extras";
const DESTINATION: &str = "/run/out";
/// Most that one document may hold; a list of a large distribution has some 50 MB.
const MAX_DOCUMENT_BYTES: u64 = 256 << 20;
const MAX_DOCUMENTS: usize = 1000;

/// Says why a list of contents can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SbomError {
    /// Nothing to run.
    #[error("the image {0} has neither ENTRYPOINT nor CMD, and can't be a generator")]
    NoCommand(String),
    /// Nothing came out.
    #[error("the generator {0} wrote no file *.json to $BUILDKIT_SCAN_DESTINATION")]
    Nothing(String),
    /// Not what the protocol says.
    #[error("the generator {generator} wrote {file}, which is no in-toto statement of type {SPDX}: {why}")]
    Document {
        generator: String,
        file: String,
        why: String,
    },
    #[error("the generator {generator} wrote more than {MAX_DOCUMENTS} documents")]
    TooMany { generator: String },
    #[error(transparent)]
    Layers(#[from] cache::layers::LayersError),
    #[error(transparent)]
    Tree(#[from] cache::tree::Error),
}

/// A generator image.
#[derive(Debug, Clone)]
pub(crate) struct Generator {
    /// Complete.
    pub(crate) reference: String,
    /// Base layer first.
    pub(crate) layers: Vec<DiffId>,
    /// Its config.
    pub(crate) config: ImageConfig,
}

impl Generator {
    /// Adds the step that looks at `target` and at what the Dockerfile asks for besides; `title` stands before its name.
    pub(crate) fn add(
        &self,
        graph: &mut Graph,
        target: VertexId,
        scans: &Scans,
        options: &BuildOptions,
        title: &str,
    ) -> Result<VertexId, SbomError> {
        let config = &self.config.config;
        let args: Vec<String> = config.entrypoint.iter().chain(&config.cmd).cloned().collect();
        if args.is_empty() {
            return Err(SbomError::NoCommand(self.reference.clone()));
        }
        let label = |name: String| Label {
            step: name.clone(),
            name,
            ..Label::default()
        };
        let whole = |vertex| Input {
            vertex,
            view: InputView::Whole,
        };
        let image = Op::Source(Source::Image {
            layers: self.layers.clone(),
            reference: self.reference.clone(),
        });
        let image = graph.add(
            image,
            Vec::new(),
            label(format!("{title}FROM {}", self.reference)),
        );
        let out = Op::File(FileOp {
            actions: vec![FileAction::MakeDir {
                path: DESTINATION.to_owned(),
                user: String::new(),
            }],
            epoch: None,
        });
        let root = graph.add(out, vec![whole(image)], label(format!("{title}sbom: prepare")));
        let mut trees = vec![(SOURCE.to_owned(), target)];
        let mut taken = BTreeSet::new();
        let mut extra = |name: &str, vertex| {
            if taken.insert(name.to_owned()) {
                trees.push((format!("{EXTRAS}/sbom-{name}"), vertex));
            }
        };
        scans
            .stages
            .iter()
            .for_each(|(name, vertex)| extra(name, *vertex));
        if scans.context {
            let name = "context".to_owned();
            let context = graph.add(
                Op::Source(Source::Local { name: name.clone() }),
                Vec::new(),
                label("[internal] load build context".to_owned()),
            );
            extra(&name, context);
        }
        let exec = Op::Exec(self.exec(args, &trees, options));
        let looked_at = trees.iter().map(|(_, vertex)| Input {
            vertex: *vertex,
            view: InputView::Paths(Selection::everything()),
        });
        let inputs = std::iter::once(whole(root)).chain(looked_at).collect();
        let mut label = label(format!("{title}generating sbom using {}", self.reference));
        label.ignore_cache = options.no_cache;
        Ok(graph.add(exec, inputs, label))
    }

    fn exec(&self, args: Vec<String>, trees: &[(String, VertexId)], options: &BuildOptions) -> Exec {
        let config = &self.config.config;
        let variable = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        let mut env: Vec<(String, String)> = config.env.iter().map(variable).collect();
        let mut told = vec![
            ("BUILDKIT_SCAN_DESTINATION", DESTINATION),
            ("BUILDKIT_SCAN_SOURCE", SOURCE),
        ];
        if trees.len() > 1 {
            told.push(("BUILDKIT_SCAN_SOURCE_EXTRAS", EXTRAS));
        }
        env.retain(|(known, _)| !told.iter().any(|(name, _)| name == known));
        env.extend(
            told.into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        // Input 0 is the generator itself.
        let mounts = trees.iter().zip(1..).map(|((place, _), input)| Mount::Bind {
            target: place.clone(),
            input,
            source: "/".to_owned(),
            readonly: true,
        });
        Exec {
            args,
            env,
            env_unkeyed: Vec::new(),
            cwd: match config.working_dir.as_str() {
                "" => "/".to_owned(),
                dir => dir.to_owned(),
            },
            user: String::new(),
            platform: host_platform().to_string(),
            network: options.network,
            hostname: "buildkitsandbox".to_owned(),
            extra_hosts: Vec::new(),
            scripts: Default::default(),
            mounts: mounts.collect(),
            security: Security::Sandbox,
            devices: Vec::new(),
        }
    }

    /// Reads what the step wrote, given the layers that it became.
    pub(crate) fn read(&self, store: &Store, layers: &[DiffId]) -> Result<Vec<Attestation>, SbomError> {
        // Its own is the last; those of the generator may be anywhere, if the step was not run again.
        let own = layers.last().map(|layer| store.layers().get(layer)).transpose()?;
        let view = View::of_layers(own)?;
        let out = TreePath::clean(DESTINATION.as_bytes());
        let mut found = Vec::new();
        for (path, node) in view.walk(&out) {
            let name = path.to_string();
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            let NodeKind::File { size_bytes } = node.kind else {
                continue;
            };
            if path.parent().as_ref() != Some(&out) || !name.ends_with(".json") {
                continue;
            }
            let bad = |why: String| SbomError::Document {
                generator: self.reference.clone(),
                file: name.clone(),
                why,
            };
            if size_bytes > MAX_DOCUMENT_BYTES {
                return Err(bad(format!("it is larger than {} MiB", MAX_DOCUMENT_BYTES >> 20)));
            }
            if found.len() == MAX_DOCUMENTS {
                let generator = self.reference.clone();
                return Err(SbomError::TooMany { generator });
            }
            let mut bytes = Vec::new();
            let read = view.read(&node)?.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes);
            read.map_err(|error| bad(error.to_string()))?;
            found.push(Attestation {
                predicate_type: SPDX.to_owned(),
                predicate: predicate(&bytes).map_err(bad)?,
                file_name: name.clone(),
                inline_only: false,
                layers_at: None,
            });
        }
        match found.is_empty() {
            true => Err(SbomError::Nothing(self.reference.clone())),
            false => Ok(found),
        }
    }
}

/// Takes the predicate out of a statement.
fn predicate(bytes: &[u8]) -> Result<Value, String> {
    let mut statement: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match statement.get("predicateType").and_then(Value::as_str) {
        Some(SPDX) => {}
        Some(other) => return Err(format!("its type is {other}")),
        None => return Err("it has no predicateType".to_owned()),
    }
    match statement.get_mut("predicate").map(Value::take) {
        Some(predicate @ Value::Object(_)) => Ok(predicate),
        _ => Err("it has no predicate".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_of_spdx_documents_are_taken() {
        let check = |text: &str, expected: Result<&str, &str>| match (predicate(text.as_bytes()), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.to_string(), expected),
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{text}: {why}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check(
            r#"{"predicateType":"https://spdx.dev/Document","subject":[{"name":"x"}],"predicate":{"a":1}}"#,
            Ok(r#"{"a":1}"#),
        );
        check(
            r#"{"predicateType":"https://spdx.dev/Document"}"#,
            Err("no predicate"),
        );
        check(
            r#"{"predicateType":"other","predicate":{}}"#,
            Err("its type is other"),
        );
        check(r#"{"spdxVersion":"SPDX-2.3"}"#, Err("no predicateType"));
        check("nothing", Err("expected"));
    }
}
