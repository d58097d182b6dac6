//! The image config: Docker's schema, with what a base image has beyond it kept. Spec: OCI image-spec, config.md.
//!
//! `rootfs.diff_ids` and the times of new history entries are filled in by whoever makes the layers.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use cache::DiffId;

use crate::platform::Platform;

/// Largest config that is read.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;

/// Says why bytes are not an image config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Too large to be one.
    #[error("image config is larger than {MAX_CONFIG_BYTES} bytes: {0}")]
    TooLarge(usize),
    /// Not JSON, or not of this shape.
    #[error("image config is malformed")]
    Json(#[from] serde_json::Error),
}

/// A whole config document. Equal values have equal JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `amd64`
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// The process settings.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ContainerConfig,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// What was done, base first.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
    /// `linux`
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// Version of the operating system.
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features of the operating system.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The layers.
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// `v7`
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
    /// What the base has beyond this.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Base layer first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// What a container of the image starts with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user[:group]`
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`, in order.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Program and arguments.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments, or program and arguments.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Whether the container is alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Health>,
    /// Means something on Windows only; written because Docker does.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Absolute paths.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Absolute.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Instructions for images built from this one.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Metadata.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Prefix of shell-form commands.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// What the base has beyond this.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `{}`: the values of the maps that are sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// A health check. Durations are in nanoseconds; zero means the runtime's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `NONE`, `CMD` or `CMD-SHELL` and the command.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time that a check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time to start up in.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks while starting.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that count.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// One line of `history`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339; `None` until the layer is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// From MAINTAINER.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// Who wrote the entry.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// The instruction made no layer.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub empty_layer: bool,
}

/// Go writes `null` for empty lists and maps.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl ImageConfig {
    /// Reads a config document.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLarge(bytes.len()));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Writes the document; the same value gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a config holds only strings, numbers and maps with string keys")
    }

    /// Returns the config that a stage without a base starts with.
    pub fn scratch(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone().unwrap_or_default(),
            config: ContainerConfig {
                working_dir: "/".to_owned(),
                ..ContainerConfig::default()
            },
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_and_nulls_are_empty() {
        let text = r#"{"architecture":"amd64","config":{"Env":["PATH=/bin"],"Cmd":null,"Volumes":null,
            "ExposedPorts":{"80/tcp":{}},"Hostname":"x","Healthcheck":{"Test":["NONE"]}},
            "docker_version":"20.10","history":[{"created_by":"x","empty_layer":true}],"os":"linux",
            "rootfs":{"type":"layers","diff_ids":null},"container_config":{"a":[1]}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        let written = concat!(
            r#"{"architecture":"amd64","config":{"ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin"],"#,
            r#""Healthcheck":{"Test":["NONE"]},"Hostname":"x"},"history":[{"created_by":"x","empty_layer":true}],"#,
            r#""os":"linux","rootfs":{"type":"layers","diff_ids":[]},"docker_version":"20.10","#,
            r#""container_config":{"a":[1]}}"#
        );
        assert_eq!(String::from_utf8(config.to_json()).unwrap(), written);
        let again = ImageConfig::parse(&config.to_json()).unwrap();
        assert_eq!((again.to_json(), &again), (config.to_json(), &config));
    }
}
