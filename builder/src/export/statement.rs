//! Attestations on their way out: in-toto statements about an image or about files, and the manifest that carries them
//! in an index. Spec: BuildKit's attestation-storage.md, in-toto attestation framework.
//!
//! What is said is made by `attest`; here it gets its subject, which only an output knows.

use std::io;

use cache::Digest;
use cache::layer::TreePath;
use cache::tree::{NodeKind, View};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::document::{self, PackedManifest};
use super::{ExportError, ImageOptions};
use crate::attest::{self, Attestation};
use crate::registry::{Descriptor, Reference};

const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// Whom a statement is about when nobody gave it a name.
const UNNAMED: &str = "_";

/// The attestations of one manifest, packed as a manifest of their own.
#[derive(Debug)]
pub(super) struct Attached {
    /// What the manifest names: statements and config, by digest.
    pub(super) blobs: Vec<(Digest, Vec<u8>)>,
    pub(super) manifest: Descriptor,
    pub(super) manifest_bytes: Vec<u8>,
    /// Its entry in the index.
    pub(super) entry: Value,
}

impl Attached {
    /// Returns all documents by digest, the one that names the others last.
    pub(super) fn documents(&self) -> impl Iterator<Item = (&Digest, &Vec<u8>)> {
        let named = self.blobs.iter().map(|(digest, bytes)| (digest, bytes));
        named.chain([(&self.manifest.digest, &self.manifest_bytes)])
    }
}

/// Packs what is said of a manifest.
pub(super) fn attach(
    of: &PackedManifest,
    attestations: &[Attestation],
    names: &[Reference],
    options: &ImageOptions,
) -> Attached {
    let subject = subjects(of, names);
    let mut blobs = Vec::new();
    let mut layers = Vec::new();
    for attestation in attestations {
        let predicate = attestation.with_layers(&of.layer_entries);
        let bytes = document::bytes(&statement(attestation, &subject, predicate));
        let digest = Digest::of(&bytes);
        layers.push(json!({
            "mediaType": IN_TOTO,
            "digest": digest.to_string(),
            "size": bytes.len(),
            "annotations": {"in-toto.io/predicate-type": attestation.predicate_type},
        }));
        blobs.push((digest, bytes));
    }
    let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST});
    let (config_type, config) = if options.oci_artifact {
        manifest["artifactType"] = json!(ARTIFACT);
        ("application/vnd.oci.empty.v1+json", b"{}".to_vec())
    } else {
        let diff_ids: Vec<String> = blobs.iter().map(|(digest, _)| digest.to_string()).collect();
        let config = json!({
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        (
            "application/vnd.oci.image.config.v1+json",
            document::bytes(&config),
        )
    };
    let config_digest = Digest::of(&config);
    manifest["config"] =
        json!({"mediaType": config_type, "digest": config_digest.to_string(), "size": config.len()});
    manifest["layers"] = Value::Array(layers);
    if options.oci_artifact {
        manifest["subject"] = document::descriptor(&of.manifest);
    }
    let bytes = document::bytes(&manifest);
    let manifest = Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: Digest::of(&bytes),
        size_bytes: bytes.len() as u64,
    };
    blobs.push((config_digest, config));
    let mut entry = document::descriptor(&manifest);
    entry["annotations"] = json!({
        "vnd.docker.reference.digest": of.manifest.digest.to_string(),
        "vnd.docker.reference.type": "attestation-manifest",
    });
    // So that nobody runs it.
    entry["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    Attached {
        blobs,
        manifest,
        manifest_bytes: bytes,
        entry,
    }
}

fn subjects(of: &PackedManifest, names: &[Reference]) -> Value {
    let digest = json!({"sha256": of.manifest.digest.hex()});
    let platform = document::platform_of(&of.config);
    let name = |name: &Reference| match &platform {
        Some(platform) => attest::image_url(&name.to_string(), platform),
        None => name.familiar(),
    };
    let mut names: Vec<String> = names.iter().map(name).collect();
    if names.is_empty() {
        names.push(UNNAMED.to_owned());
    }
    names
        .into_iter()
        .map(|name| json!({"name": name, "digest": digest}))
        .collect()
}

fn statement(attestation: &Attestation, subject: &Value, predicate: Value) -> Value {
    json!({
        "_type": STATEMENT,
        "predicateType": attestation.predicate_type,
        "subject": subject,
        "predicate": predicate,
    })
}

/// Returns what is said of plain files, as files beside them. A name that the tree or another statement has is an error.
pub(super) fn files(
    view: &View,
    attestations: &[Attestation],
    prefix: &str,
) -> Result<Vec<(String, Vec<u8>)>, ExportError> {
    let told: Vec<&Attestation> = attestations.iter().filter(|one| !one.inline_only).collect();
    if told.is_empty() {
        return Ok(Vec::new());
    }
    let subject = files_of(view)?;
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for attestation in told {
        let name = format!("{prefix}{}", attestation.file_name);
        let is_taken = files.iter().any(|(known, _)| *known == name);
        if is_taken || view.lookup(&TreePath::clean(name.as_bytes())).is_some() {
            return Err(ExportError::AttestationName { name });
        }
        let statement = statement(attestation, &subject, attestation.predicate.clone());
        let bytes =
            serde_json::to_vec_pretty(&statement).expect("because a JSON value has only strings as keys");
        files.push((name, bytes));
    }
    Ok(files)
}

/// Returns the regular files of a tree as subjects.
fn files_of(view: &View) -> Result<Value, ExportError> {
    let mut subjects = Vec::new();
    for (path, node) in view.walk(&TreePath::root()) {
        if !matches!(node.kind, NodeKind::File { .. }) {
            continue;
        }
        let mut hash = Hash(Sha256::new());
        io::copy(&mut view.read(&node)?, &mut hash).map_err(|source| ExportError::Write {
            path: path.to_string().into(),
            source,
        })?;
        let name = path.to_string();
        subjects.push(json!({
            "name": name.trim_start_matches('/'),
            "digest": {"sha256": cache::digest::hex(&hash.0.finalize())},
        }));
    }
    Ok(Value::Array(subjects))
}

struct Hash(Sha256);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
