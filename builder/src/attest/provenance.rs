//! How an image was built: what was asked for, what it was made of, and by which steps, as SLSA provenance in the form
//! that BuildKit gives it.
//!
//! With SOURCE_DATE_EPOCH neither times nor an id of the run are told: an image that is the same every time has
//! attestations that are. Proxies and secrets are never told, build arguments and labels in mode max only.
//! Spec: cli-and-outputs.md §8; SLSA v1.1 and v0.2, provenance.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use frontend::Platform;
use serde_json::{Map, Value, json};
use solver::op::{Exec, Mount, Network, Op};
use solver::{Graph, VertexId};

use super::materials::Materials;
use super::steps::{self, Steps};
use super::wanted::{Detail, Provenance, Version};
use super::{Attestation, LayersAt};
use crate::options::{BuildOptions, DockerfileSource, NamedSource, host_platform};
use crate::registry::Resolved;

const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";
/// How v0.2 names what isn't its own.
const EXTENSION: &str = "https://mobyproject.org/buildkit@v1";

/// Where a context or a Dockerfile came from, when that wasn't a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file of a web server.
    Http {
        /// The address.
        url: String,
        /// Of the file.
        digest: cache::Digest,
    },
    /// A commit.
    Git {
        /// Address and reference.
        url: String,
        /// The commit's id.
        commit: String,
    },
}

impl Origin {
    fn uri(&self, hide: &dyn Fn(&str) -> String) -> Value {
        let (Self::Http { url, .. } | Self::Git { url, .. }) = self;
        json!(hide(&frontend::without_credentials(url)))
    }

    fn digest(&self) -> Value {
        match self {
            Self::Http { digest, .. } => super::materials::sha256(digest),
            Self::Git { commit, .. } => super::materials::commit(commit),
        }
    }
}

/// When a build ran, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its name, which no other has.
    pub(crate) id: String,
    /// RFC 3339.
    pub(crate) started: String,
    /// RFC 3339.
    pub(crate) finished: String,
}

/// What is known of how one platform's image is made, before it is.
#[derive(Debug)]
pub(crate) struct Recipe {
    materials: Materials,
    steps: Steps,
    config_source: Map<String, Value>,
    args: BTreeMap<String, String>,
    /// Ids, and whether the build can do without.
    secrets: BTreeMap<String, bool>,
    ssh: BTreeMap<String, bool>,
    /// All arguments are told.
    is_whole_request: bool,
    uses_network: bool,
    dockerfile: Value,
    /// It is a file of this machine, or its stdin.
    is_local_dockerfile: bool,
}

/// What of a build a recipe is made of.
pub(crate) struct Sources<'a> {
    pub(crate) options: &'a BuildOptions,
    pub(crate) graph: &'a Graph,
    pub(crate) images: &'a [Arc<Resolved>],
    /// Name and text of the Dockerfile.
    pub(crate) dockerfile: (&'a str, &'a [u8]),
    /// Where the main context came from.
    pub(crate) origin: Option<&'a Origin>,
    /// Takes secrets out of a text.
    pub(crate) hide: &'a dyn Fn(&str) -> String,
}

impl Recipe {
    /// Notes how `target` is made for `platform`, and that `scan` looks at it.
    pub(crate) fn of(
        sources: &Sources<'_>,
        target: VertexId,
        scan: Option<VertexId>,
        platform: &Platform,
    ) -> Self {
        let Sources {
            graph, images, hide, ..
        } = *sources;
        let needed = steps::needed(graph, target);
        let taken = scan.map_or_else(|| needed.clone(), |scan| steps::needed(graph, scan));
        let mut materials = Materials::of(graph, &taken, images, platform, hide);
        let (name, text) = sources.dockerfile;
        let name = match (sources.origin, Path::new(name).file_name()) {
            (None, Some(file)) => file.to_string_lossy().into_owned(),
            _ => name.to_owned(),
        };
        let mut config_source = Map::new();
        if let Some(origin) = sources.origin {
            let material = json!({"uri": origin.uri(hide), "digest": origin.digest()});
            config_source.insert("uri".to_owned(), material["uri"].clone());
            config_source.insert("digest".to_owned(), material["digest"].clone());
            // What came from there isn't local.
            materials.locals.remove("context");
            if !materials.list.contains(&material) {
                materials.list.push(material);
            }
        }
        let mut recipe = Self {
            steps: Steps::of(graph, &needed, images, hide),
            materials,
            config_source,
            args: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            is_whole_request: true,
            uses_network: false,
            is_local_dockerfile: sources.origin.is_none()
                || sources.options.dockerfile == DockerfileSource::Stdin,
            dockerfile: json!({
                "filename": name,
                "language": "Dockerfile",
                "data": STANDARD.encode(text),
            }),
        };
        recipe.note_request(sources.options, hide);
        for id in &needed {
            if let Op::Exec(exec) = &graph.vertex(*id).op {
                recipe.note_exec(exec);
            }
        }
        recipe
    }

    fn note_request(&mut self, options: &BuildOptions, hide: &dyn Fn(&str) -> String) {
        for (name, value) in &options.build_args {
            // They often have a password, and have no part in what is built.
            if frontend::is_proxy(name) {
                self.is_whole_request = false;
                continue;
            }
            self.args.insert(format!("build-arg:{name}"), hide(value));
        }
        for (name, value) in &options.labels {
            self.args.insert(format!("label:{name}"), hide(value));
        }
        for (name, source) in &options.named_contexts {
            // Where a directory is on this machine is nobody's business.
            let source = match source {
                NamedSource::Directory(_) => format!("local:{name}"),
                NamedSource::OciLayout { .. } => format!("oci-layout:{name}"),
                source => hide(&source.to_string()),
            };
            self.args.insert(format!("context:{name}"), source);
        }
        let mut put = |key: &str, value: String| self.args.insert(key.to_owned(), value);
        if let Some(target) = &options.target {
            put("target", target.clone());
        }
        if options.no_cache || !options.no_cache_filter.is_empty() {
            put("no-cache", options.no_cache_filter.join(","));
        }
        if !options.extra_hosts.is_empty() {
            let hosts = options.extra_hosts.iter();
            let hosts: Vec<String> = hosts.map(|(host, ip)| format!("{host}={ip}")).collect();
            put("add-hosts", hosts.join(","));
        }
        match options.network {
            Network::Default => {}
            Network::None => drop(put("force-network-mode", "none".to_owned())),
            Network::Host => drop(put("force-network-mode", "host".to_owned())),
        }
    }

    fn note_exec(&mut self, exec: &Exec) {
        self.uses_network |= exec.network != Network::None;
        let note = |all: &mut BTreeMap<String, bool>, id: &str, required: bool| {
            // Whoever can't do without decides.
            let optional = all.entry(id.to_owned()).or_insert(true);
            *optional &= !required;
        };
        for mount in &exec.mounts {
            match mount {
                Mount::Secret { id, required, .. } => note(&mut self.secrets, id, *required),
                Mount::Ssh { id, required, .. } => note(&mut self.ssh, id, *required),
                Mount::Bind { .. } | Mount::Cache(_) | Mount::Tmpfs { .. } => {}
            }
        }
    }

    /// Tells how the image was made. `run` is left out of what has to be the same every time.
    pub(crate) fn tell(&self, wanted: &Provenance, run: Option<&Run>) -> Attestation {
        let (predicate, pointer) = match wanted.version {
            Version::V1 => (
                self.v1(wanted, run),
                "/runDetails/metadata/buildkit_metadata".to_owned(),
            ),
            Version::V02 => (
                self.v02(wanted, run),
                format!(
                    "/metadata/{}#metadata",
                    EXTENSION.replace('~', "~0").replace('/', "~1")
                ),
            ),
        };
        let version = match wanted.version {
            Version::V1 => "v1",
            Version::V02 => "v0.2",
        };
        Attestation {
            predicate_type: format!("https://slsa.dev/provenance/{version}"),
            predicate,
            file_name: wanted.file_name.clone(),
            inline_only: wanted.inline_only,
            layers_at: (wanted.mode == Detail::Max).then(|| LayersAt {
                pointer,
                step: self.steps.last.clone(),
            }),
        }
    }

    fn v1(&self, wanted: &Provenance, run: Option<&Run>) -> Value {
        let (request, is_complete) = self.request(wanted.mode);
        let mut source = self.config_source.clone();
        source.insert("path".to_owned(), self.dockerfile["filename"].clone());
        let mut internal = json!({"builderPlatform": host_platform().to_string()});
        let mut metadata = Map::new();
        if let Some(run) = run {
            metadata.insert("invocationID".to_owned(), json!(run.id));
            metadata.insert("startedOn".to_owned(), json!(run.started));
            metadata.insert("finishedOn".to_owned(), json!(run.finished));
        }
        let metadata_of_ours = match wanted.mode {
            Detail::Min => json!({}),
            Detail::Max => {
                internal["buildConfig"] = json!({"llbDefinition": self.steps.list});
                self.source_map()
            }
        };
        metadata.insert("buildkit_metadata".to_owned(), metadata_of_ours);
        metadata.insert("buildkit_hermetic".to_owned(), json!(self.is_hermetic()));
        metadata.insert(
            "buildkit_completeness".to_owned(),
            json!({"request": is_complete, "resolvedDependencies": self.has_all_materials()}),
        );
        metadata.insert("buildkit_reproducible".to_owned(), json!(wanted.is_reproducible));
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE_V1,
                "externalParameters": {"configSource": source, "request": request},
                "internalParameters": internal,
                "resolvedDependencies": self.materials.list,
            },
            "runDetails": {"builder": {"id": wanted.builder_id}, "metadata": metadata},
        })
    }

    fn v02(&self, wanted: &Provenance, run: Option<&Run>) -> Value {
        let (parameters, is_complete) = self.request(wanted.mode);
        let mut source = self.config_source.clone();
        source.insert("entryPoint".to_owned(), self.dockerfile["filename"].clone());
        let mut metadata = Map::new();
        if let Some(run) = run {
            metadata.insert("buildInvocationID".to_owned(), json!(run.id));
            metadata.insert("buildStartedOn".to_owned(), json!(run.started));
            metadata.insert("buildFinishedOn".to_owned(), json!(run.finished));
        }
        metadata.insert(
            "completeness".to_owned(),
            json!({"parameters": is_complete, "environment": true, "materials": self.has_all_materials()}),
        );
        metadata.insert("reproducible".to_owned(), json!(wanted.is_reproducible));
        metadata.insert(format!("{EXTENSION}#hermetic"), json!(self.is_hermetic()));
        let metadata_of_ours = match wanted.mode {
            Detail::Min => json!({}),
            Detail::Max => self.source_map(),
        };
        metadata.insert(format!("{EXTENSION}#metadata"), metadata_of_ours);
        let mut predicate = json!({
            "builder": {"id": wanted.builder_id},
            "buildType": BUILD_TYPE_V02,
            "materials": self.materials.list,
            "invocation": {
                "configSource": source,
                "parameters": parameters,
                "environment": {"platform": host_platform().to_string()},
            },
        });
        if wanted.mode == Detail::Max {
            predicate["buildConfig"] = json!({"llbDefinition": self.steps.list});
        }
        predicate["metadata"] = Value::Object(metadata);
        predicate
    }

    /// Returns what was asked for, and whether that is all of it.
    fn request(&self, mode: Detail) -> (Value, bool) {
        let is_told = |name: &str| {
            mode == Detail::Max || !(name.starts_with("build-arg:") || name.starts_with("label:"))
        };
        let args: BTreeMap<&String, &String> = self.args.iter().filter(|(name, _)| is_told(name)).collect();
        let is_complete = self.is_whole_request && args.len() == self.args.len();
        let locals = self.materials.locals.iter().map(|name| json!({"name": name}));
        let dockerfile = self.is_local_dockerfile.then(|| json!({"name": "dockerfile"}));
        let mut request = json!({"frontend": "dockerfile.v0", "args": args});
        if mode == Detail::Max {
            let told = |ids: &BTreeMap<String, bool>| -> Value {
                let tell = |(id, optional): (&String, &bool)| match optional {
                    true => json!({"id": id, "optional": true}),
                    false => json!({"id": id}),
                };
                ids.iter().map(tell).collect()
            };
            for (key, ids) in [("secrets", &self.secrets), ("ssh", &self.ssh)] {
                if !ids.is_empty() {
                    request[key] = told(ids);
                }
            }
        }
        request["locals"] = locals.chain(dockerfile).collect();
        (request, is_complete)
    }

    /// Returns the Dockerfile, and which step stands where in it.
    fn source_map(&self) -> Value {
        json!({"source": {"locations": self.steps.locations, "infos": [self.dockerfile]}})
    }

    fn has_all_materials(&self) -> bool {
        self.materials.locals.is_empty() && !self.is_local_dockerfile
    }

    fn is_hermetic(&self) -> bool {
        self.has_all_materials() && !self.uses_network
    }
}
