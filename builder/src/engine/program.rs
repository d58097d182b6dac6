//! Podman without a service: its program, which reads an archive on its standard input.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cache::{DiffId, Digest};

use super::stream::Sending;
use super::{EngineError, Known, Tell, Told};
use crate::export::Shipment;
use crate::registry::Reference;
use crate::runtime::blocking;

/// Most images that are looked into for layers in common.
const MAX_IMAGES: usize = 256;

/// Podman's program.
pub(super) struct Program {
    pub(super) path: PathBuf,
}

impl Program {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Returns how many of the image's layers, from the base on, Podman has, for each platform. An answer that can't be had
    /// is none.
    pub(super) async fn known(&self, shipment: &Shipment) -> Result<Vec<usize>, EngineError> {
        let mut known = Known::new(shipment);
        let listed = self.run(&["image", "ls", "--quiet", "--no-trunc"], None).await?;
        let mut ids: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
        ids.dedup();
        ids.truncate(MAX_IMAGES);
        if ids.is_empty() {
            return Ok(known.0);
        }
        let mut words = vec!["image", "inspect", "--format", "{{json .RootFS.Layers}}"];
        words.extend(ids.iter().map(String::as_str));
        let told = match self.run(&words, None).await {
            // One of them may be gone meanwhile.
            Err(EngineError::Refused { .. }) => String::new(),
            told => told?,
        };
        let of_line = |line: &str| serde_json::from_str::<Vec<DiffId>>(line).unwrap_or_default();
        told.lines()
            .for_each(|line| known.learn(&of_line(line), shipment, |part| part.layers().to_vec()));
        Ok(known.0)
    }

    /// Sends an archive.
    pub(super) async fn send(&self, sending: Sending, tell: &Tell) -> Result<(), EngineError> {
        let said = self.run(&["load", "--quiet"], Some(sending.outlet)).await?;
        sending.writer.finish().await?;
        tell(Told::Sent {
            bytes: sending.total_bytes,
            total_bytes: sending.total_bytes,
        });
        let said = said.lines().filter(|line| !line.trim().is_empty());
        said.for_each(|line| tell(Told::Said(crate::report::one_line(line))));
        Ok(())
    }

    /// Gives an image one more name.
    pub(super) async fn tag(&self, id: &Digest, name: &Reference) -> Result<(), EngineError> {
        self.run(&["tag", &id.hex(), &name.familiar()], None)
            .await
            .map(drop)
    }

    /// Runs the program to its end; returns what it wrote.
    async fn run(&self, words: &[&str], input: Option<OwnedFd>) -> Result<String, EngineError> {
        let mut command = Command::new(&self.path);
        command
            .args(words)
            .stdin(input.map_or_else(Stdio::null, Stdio::from));
        let output = blocking(move || command.output()).await;
        let output = output.map_err(|source| EngineError::Program {
            program: self.path.clone(),
            source,
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // What it copied before it failed is told first.
        let said = said
            .lines()
            .map(str::trim)
            .skip_while(|line| !line.starts_with("Error"));
        Err(EngineError::Refused {
            engine: self.path.display().to_string(),
            said: match crate::report::one_line(&said.collect::<Vec<_>>().join(" ")) {
                said if said.is_empty() => output.status.to_string(),
                said => said,
            },
        })
    }
}
