//! Devices that the machine's administrator describes for containers. Spec: CNCF Container Device Interface, SPEC.md.
//!
//! Reads specifications and finds devices in them; opens no device. Only what a container can be given here is
//! understood: nodes, variables, mounts, groups. A device that wants more (hooks, network interfaces, cache allocation)
//! is refused when it is asked for, and so is a specification that says what this file doesn't know. YAML isn't read;
//! the tools that write specifications write JSON as well.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Where specifications are, unless the command line says otherwise.
pub(crate) const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// More is no description of devices.
const LIMIT_BYTES: u64 = 4 << 20;
const MAX_SPECS: usize = 1000;

/// Why a device can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CdiError {
    #[error("device {name} is not known: no specification in {} describes it{}", list(.dirs), yaml_hint(.yaml))]
    Unknown {
        name: String,
        dirs: Vec<PathBuf>,
        /// Specifications that weren't read.
        yaml: Vec<PathBuf>,
    },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no specification of devices: {problem}")]
    Malformed { path: PathBuf, problem: String },
    #[error("device {name} can't be given to a container here: {path} wants {what} for it")]
    Unsupported {
        name: String,
        path: PathBuf,
        what: &'static str,
    },
}

fn list(dirs: &[PathBuf]) -> String {
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    dirs.join(" or ")
}

fn yaml_hint(yaml: &[PathBuf]) -> String {
    match yaml.first() {
        None => String::new(),
        Some(path) => format!(" ({} is not read: YAML, not JSON)", path.display()),
    }
}

/// What a container gets for a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    /// Variables.
    pub(crate) env: Vec<(String, String)>,
    /// Nodes.
    pub(crate) nodes: Vec<Node>,
    /// Mounts of the machine's files.
    pub(crate) mounts: Vec<HostMount>,
    /// Groups that the process is a member of.
    pub(crate) groups: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// On the machine.
    pub(crate) host: PathBuf,
    /// In the container.
    pub(crate) path: String,
}

/// A mount of the machine's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostMount {
    /// On the machine.
    pub(crate) host: PathBuf,
    /// In the container.
    pub(crate) path: String,
    /// Whether the container may change it.
    pub(crate) is_writable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSpec {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "part of the format; nothing depends on it")]
    annotations: Value,
    #[serde(default)]
    devices: Vec<RawDevice>,
    #[serde(default)]
    container_edits: RawEdits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawDevice {
    name: String,
    #[serde(default)]
    #[expect(dead_code, reason = "part of the format; nothing depends on it")]
    annotations: Value,
    #[serde(default)]
    container_edits: RawEdits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct RawEdits {
    env: Vec<String>,
    device_nodes: Vec<RawNode>,
    mounts: Vec<RawMount>,
    hooks: Vec<Value>,
    intel_rdt: Option<Value>,
    net_devices: Vec<Value>,
    #[serde(rename = "additionalGids")]
    groups: Vec<u32>,
}

/// Nodes are the machine's own, so their type, numbers, mode and owner are what they are there.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawNode {
    path: String,
    host_path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMount {
    host_path: PathBuf,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

/// The devices that this machine has descriptions of.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    dirs: Vec<PathBuf>,
    yaml: Vec<PathBuf>,
    /// By qualified name: `vendor.com/class=name`. The last directory wins.
    known: BTreeMap<String, (PathBuf, Edits, Option<&'static str>)>,
}

impl Devices {
    /// Reads all specifications of these directories; one that isn't there has none.
    pub(crate) fn read(dirs: &[PathBuf]) -> Result<Self, CdiError> {
        let mut devices = Self {
            dirs: dirs.to_vec(),
            ..Self::default()
        };
        for dir in dirs {
            for path in specifications(dir)? {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("json") => devices.add(&path)?,
                    Some("yaml" | "yml") => devices.yaml.push(path),
                    _ => {}
                }
            }
        }
        Ok(devices)
    }

    fn add(&mut self, path: &Path) -> Result<(), CdiError> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(path)?.take(LIMIT_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| CdiError::Read {
            path: path.to_owned(),
            source,
        })?;
        let malformed = |problem: String| CdiError::Malformed {
            path: path.to_owned(),
            problem,
        };
        let spec: RawSpec = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let is_known = ["0.", "1."]
            .iter()
            .any(|major| spec.cdi_version.starts_with(major));
        if !is_known {
            return Err(malformed(format!(
                "its version {} is not known",
                spec.cdi_version
            )));
        }
        for device in spec.devices {
            let mut edits = Edits::default();
            let mut refused = None;
            for raw in [&spec.container_edits, &device.container_edits] {
                edits.extend(raw).map_err(&malformed)?;
                refused = refused.or(raw.unsupported());
            }
            let name = format!("{}={}", spec.kind, device.name);
            self.known.insert(name, (path.to_owned(), edits, refused));
        }
        Ok(())
    }

    /// Finds what is asked for: a device by its whole name, a class for its first device, `class=*` for all of it, `*`
    /// for all there are.
    pub(crate) fn find(&self, wanted: &str) -> Result<Edits, CdiError> {
        let matches = |name: &str| match wanted.split_once('=') {
            Some((class, "*")) => name.split_once('=').is_some_and(|(kind, _)| kind == class),
            Some(_) => name == wanted,
            None if wanted == "*" => true,
            None => name.split_once('=').is_some_and(|(kind, _)| kind == wanted),
        };
        let is_class = !wanted.contains('=') && wanted != "*";
        let mut found = Edits::default();
        let mut n_found = 0_usize;
        for (name, (path, edits, refused)) in self.known.iter().filter(|(name, _)| matches(name)) {
            if let Some(what) = refused {
                return Err(CdiError::Unsupported {
                    name: name.clone(),
                    path: path.clone(),
                    what,
                });
            }
            found.append(edits);
            n_found += 1;
            if is_class {
                break;
            }
        }
        match n_found {
            0 => Err(CdiError::Unknown {
                name: wanted.to_owned(),
                dirs: self.dirs.clone(),
                yaml: self.yaml.clone(),
            }),
            _ => Ok(found),
        }
    }
}

/// Returns the files of a directory, in the order of their names.
fn specifications(dir: &Path) -> Result<Vec<PathBuf>, CdiError> {
    let failed = |source| CdiError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries.take(MAX_SPECS) {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

impl RawEdits {
    /// Names what a container can't be given.
    fn unsupported(&self) -> Option<&'static str> {
        if !self.hooks.is_empty() {
            Some("hooks")
        } else if self.intel_rdt.is_some() {
            Some("a share of the processor's cache")
        } else if !self.net_devices.is_empty() {
            Some("network interfaces")
        } else {
            None
        }
    }
}

impl Edits {
    fn extend(&mut self, raw: &RawEdits) -> Result<(), String> {
        for pair in &raw.env {
            let (name, value) = pair
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("`{pair}` is no variable"))?;
            self.env.push((name.to_owned(), value.to_owned()));
        }
        for node in &raw.device_nodes {
            self.nodes.push(Node {
                host: node
                    .host_path
                    .clone()
                    .unwrap_or_else(|| PathBuf::from(&node.path)),
                path: node.path.clone(),
            });
        }
        for mount in &raw.mounts {
            self.mounts.push(HostMount {
                host: mount.host_path.clone(),
                path: mount.container_path.clone(),
                is_writable: !mount.options.iter().any(|option| option == "ro"),
            });
        }
        self.groups.extend(&raw.groups);
        let targets = self.nodes.iter().map(|node| &node.path);
        let mut targets = targets.chain(self.mounts.iter().map(|mount| &mount.path));
        match targets.find(|path| !path.starts_with('/')) {
            Some(path) => Err(format!("`{path}` is not absolute")),
            None => Ok(()),
        }
    }

    /// Adds what isn't there yet: devices of one kind share parts.
    pub(crate) fn append(&mut self, other: &Self) {
        fn merge<T: Clone + PartialEq>(to: &mut Vec<T>, from: &[T]) {
            for item in from {
                if !to.contains(item) {
                    to.push(item.clone());
                }
            }
        }
        merge(&mut self.env, &other.env);
        merge(&mut self.nodes, &other.nodes);
        merge(&mut self.mounts, &other.mounts);
        merge(&mut self.groups, &other.groups);
    }
}

#[cfg(test)]
#[path = "cdi_tests.rs"]
mod tests;
