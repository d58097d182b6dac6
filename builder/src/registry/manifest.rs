//! Manifests, indexes and configs: which blobs an image is made of. Text in, checked facts out; no I/O.
//!
//! OCI and Docker schema 2 alike. Spec: OCI image-spec, manifest.md, image-index.md, config.md.

use cache::{DiffId, Digest};
use frontend::Platform;
use oci_spec::image::{ImageIndex, ImageManifest};

use super::error::ImageError;
use super::json;

/// Largest manifest or index that is read; containers/image has the same limit.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Largest config that is read.
pub(crate) const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// How deep an index may lie in indexes.
pub(crate) const MAX_INDEX_DEPTH: usize = 4;

/// What a registry is told that we understand.
pub(crate) const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

pub(crate) const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Names a blob: what it is, its digest, its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Media type as declared.
    pub(crate) media_type: String,
    /// SHA-256 of its bytes.
    pub(crate) digest: Digest,
    /// Their number.
    pub(crate) size_bytes: u64,
}

/// A parsed manifest or index.
#[derive(Debug)]
pub(crate) enum Document {
    /// Points to manifests, or further indexes; each with its platform where declared.
    Index(Vec<(Descriptor, Option<Platform>)>),
    /// One image.
    Manifest(Manifest),
}

/// The blobs of one image; base layer first.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Parses a manifest or index. `content_type` is what it was served or described as. The error says which rule it
/// breaks.
pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, String> {
    let value = json::strict(bytes)?;
    let declared = value.get("mediaType").and_then(|text| text.as_str());
    let served = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
    let is_known = |text: &&str| INDEX_TYPES.contains(text) || MANIFEST_TYPES.contains(text);
    if let (Some(declared), Some(served)) = (declared, served.filter(is_known))
        && declared != served
    {
        return Err(format!(
            "it says that it is {declared} but was served as {served}"
        ));
    }
    match (value.get("manifests").is_some(), value.get("layers").is_some()) {
        (true, true) => return Err("it has both `manifests` and `layers`".to_owned()),
        (false, false) if value.get("fsLayers").is_some() => {
            return Err(
                "schema 1 images aren't supported: push the image again with a current tool".to_owned(),
            );
        }
        (false, false) => return Err("it has neither `manifests` nor `layers`".to_owned()),
        _ => {}
    }
    if let Some(kind) = declared.or(served.filter(is_known)) {
        let expected = if value.get("manifests").is_some() {
            INDEX_TYPES
        } else {
            MANIFEST_TYPES
        };
        if !expected.contains(&kind) {
            return Err(format!("its content isn't that of a {kind}"));
        }
    }
    if value.get("manifests").is_some() {
        let index: ImageIndex = serde_json::from_value(value).map_err(|error| error.to_string())?;
        return index
            .manifests()
            .iter()
            .map(|entry| Ok((descriptor(entry)?, entry.platform().as_ref().map(platform))))
            .collect::<Result<_, String>>()
            .map(Document::Index);
    }
    let manifest: ImageManifest = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Ok(Document::Manifest(Manifest {
        config: descriptor(manifest.config())?,
        layers: manifest
            .layers()
            .iter()
            .map(descriptor)
            .collect::<Result<_, _>>()?,
    }))
}

fn descriptor(entry: &oci_spec::image::Descriptor) -> Result<Descriptor, String> {
    Ok(Descriptor {
        media_type: entry.media_type().to_string(),
        digest: entry
            .digest()
            .to_string()
            .parse()
            .map_err(|error: cache::digest::ParseDigestError| error.to_string())?,
        size_bytes: entry.size(),
    })
}

fn platform(entry: &oci_spec::image::Platform) -> Platform {
    Platform::new(
        &entry.os().to_string(),
        &entry.architecture().to_string(),
        entry.variant().as_deref(),
    )
}

impl Descriptor {
    /// Fails where bytes aren't those that are meant, or not as many.
    pub(crate) fn check(&self, reference: &str, bytes: &[u8]) -> Result<(), ImageError> {
        let actual = Digest::of(bytes);
        if actual != self.digest {
            return Err(ImageError::WrongDigest {
                reference: reference.to_owned(),
                expected: self.digest,
                actual,
            });
        }
        match bytes.len() as u64 {
            n_bytes if n_bytes == self.size_bytes => Ok(()),
            n_bytes => Err(ImageError::WrongSize {
                what: format!("{} of {reference}", self.digest),
                expected_bytes: self.size_bytes,
                actual: n_bytes.to_string(),
            }),
        }
    }
}

/// Picks the entry of an index for `wanted`; entries without a platform are taken only when there is just one.
/// The error lists what there is.
pub(crate) fn select<'a>(
    entries: &'a [(Descriptor, Option<Platform>)],
    wanted: &Platform,
) -> Result<&'a Descriptor, String> {
    if let [(only, None)] = entries {
        return Ok(only);
    }
    let best = entries
        .iter()
        .filter_map(|(entry, platform)| Some((wanted.distance(platform.as_ref()?)?, entry)))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    // Nested indexes carry no platform of their own; the first one is looked into.
    if let Some((entry, _)) = entries
        .iter()
        .find(|(entry, platform)| platform.is_none() && INDEX_TYPES.contains(&entry.media_type.as_str()))
    {
        return Ok(entry);
    }
    let mut available: Vec<String> = entries
        .iter()
        .filter_map(|(_, platform)| platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(ToString::to_string)
        .collect();
    available.dedup();
    Err(match available.is_empty() {
        true => "none".to_owned(),
        false => available.join(", "),
    })
}

/// What is needed of an image's config: its layers' diff IDs, base layer first, and what it runs on.
#[derive(Debug)]
pub(crate) struct ConfigFacts {
    pub(crate) diff_ids: Vec<DiffId>,
    pub(crate) platform: Platform,
}

/// Reads these facts, strictly.
pub(crate) fn config_facts(config: &[u8]) -> Result<ConfigFacts, String> {
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        variant: Option<String>,
        rootfs: RootFs,
        #[serde(default)]
        history: Option<Vec<Step>>,
    }
    #[derive(serde::Deserialize)]
    struct Step {
        #[serde(default)]
        empty_layer: bool,
    }
    #[derive(serde::Deserialize)]
    struct RootFs {
        #[serde(default, rename = "type")]
        kind: Option<String>,
        /// `null` is how Go writes an empty list.
        #[serde(default)]
        diff_ids: Option<Vec<DiffId>>,
    }
    let config = json::strict(config)?;
    let config: Config = serde_json::from_value(config).map_err(|error| error.to_string())?;
    if let Some(kind) = config.rootfs.kind.filter(|kind| kind != "layers") {
        return Err(format!("rootfs.type is `{kind}`, not `layers`"));
    }
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    let steps = config.history.unwrap_or_default();
    let n_made = steps.iter().filter(|step| !step.empty_layer).count();
    // Fewer are fine: layers needn't have a history.
    if n_made > diff_ids.len() {
        return Err(format!(
            "its history has {n_made} layers but rootfs lists {}",
            diff_ids.len()
        ));
    }
    Ok(ConfigFacts {
        diff_ids,
        platform: Platform::new(&config.os, &config.architecture, config.variant.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

    fn descriptor(extra: &str) -> String {
        format!(r#"{{"mediaType":"m","digest":"{D}","size":3{extra}}}"#)
    }

    #[test]
    fn documents_that_break_the_rules_are_refused() {
        // hardening T52, hardening T53, hardening T54, hardening T55
        let good = format!(
            r#"{{"schemaVersion":2,"config":{0},"layers":[{0}]}}"#,
            descriptor("")
        );
        assert!(matches!(parse(good.as_bytes(), None), Ok(Document::Manifest(m)) if m.layers.len() == 1));
        for (text, content_type, why) in [
            (good.as_str(), Some(INDEX_TYPES[0]), "isn't that of"),
            (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, None, "both"),
            (r#"{"schemaVersion":2}"#, None, "neither"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, "schema 1"),
            ("<html>", None, "expected value"),
            (&good.replace("sha256:0f", "sha256:0F"), None, "digest"),
            (&good.replace("sha256:0f", "sha256:../"), None, "nvalid"),
            (&good.replace("sha256:0f", "sha256:%30f"), None, "nvalid"),
            (&good.replace("sha256:0f", "sha256:0"), None, "nvalid"),
            (&good.replace("sha256:0f", "sha256:0f0"), None, "nvalid"),
            (&good.replace("sha256:", "md5:"), None, "digest"),
            (&good.replace("sha256:", "sha256+b64:"), None, "digest"),
            (&good.replace(":3", ":18446744073709551616"), None, "expected u64"),
            (&good.replace(":3", ":-3"), None, "-3"),
            (
                &format!("{}{}", "[".repeat(5000), "]".repeat(5000)),
                None,
                "more than 64 deep",
            ),
            (
                &good.replacen('{', &format!(r#"{{"mediaType":"{}","#, MANIFEST_TYPES[0]), 1),
                Some(MANIFEST_TYPES[1]),
                "served as",
            ),
        ] {
            let error = parse(text.as_bytes(), content_type).map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{}: {error}", &text[..text.len().min(300)]);
        }
    }

    #[test]
    fn whatever_is_changed_in_a_document_crashes_nobody() {
        // hardening T56
        let (one, history) = (descriptor(""), r#"{"empty_layer":true}"#);
        let documents = [
            format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{one},{one}]}}"#),
            format!(r#"{{"schemaVersion":2,"manifests":[{one},{{"platform":{{"os":"linux"}}}}]}}"#),
            format!(
                r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{D}"]}},"history":[{history},null]}}"#
            ),
        ];
        let words = [
            "null",
            "{",
            "}",
            "[]",
            "-1",
            "\"",
            "1e999",
            "\"sha256:\"",
            ",",
            "\\ud800",
            "true",
        ];
        let mut state = 1_u64;
        let mut random = |below: usize| {
            // xorshift: the same changes in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let mut n_read = 0;
        for round in 0..30_000 {
            let mut bytes = documents[round % documents.len()].clone().into_bytes();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                    1 => bytes.truncate(at + 1),
                    2 => drop(bytes.drain(at..(at + random(40)).min(bytes.len()))),
                    _ => drop(bytes.splice(at..at, words[random(words.len())].bytes())),
                }
                if bytes.is_empty() {
                    bytes.push(b'{');
                }
            }
            let parsed = parse(&bytes, Some(MANIFEST_TYPES[round % 2]));
            n_read += usize::from(parsed.is_ok()) + usize::from(config_facts(&bytes).is_ok());
        }
        assert!(n_read > 0, "some changes do no harm");
    }

    #[test]
    fn the_best_platform_is_selected() {
        let list = |platforms: &[&str]| -> Vec<(Descriptor, Option<Platform>)> {
            platforms
                .iter()
                .map(|text| {
                    let entry = Descriptor {
                        media_type: (*text).to_owned(),
                        digest: D.parse().unwrap(),
                        size_bytes: 1,
                    };
                    (entry, Some(text.parse().unwrap()))
                })
                .collect()
        };
        let check = |wanted: &str, platforms: &[&str], expected: Result<&str, &str>| {
            let entries = list(platforms);
            let wanted: Platform = wanted.parse().unwrap();
            let got = select(&entries, &wanted).map(|entry| entry.media_type.as_str());
            assert_eq!(
                got,
                expected.map_err(ToOwned::to_owned),
                "{wanted} of {platforms:?}"
            );
        };
        check("linux/amd64", &["linux/arm64", "linux/amd64"], Ok("linux/amd64"));
        check("linux/x86_64", &["linux/amd64"], Ok("linux/amd64"));
        check("linux/arm64", &["linux/arm64/v8"], Ok("linux/arm64/v8"));
        check(
            "linux/arm/v7",
            &["linux/arm/v5", "linux/arm/v6"],
            Ok("linux/arm/v6"),
        );
        check("linux/arm/v6", &["linux/arm/v7"], Err("linux/arm/v7"));
        check("linux/amd64", &["linux/amd64/v3"], Err("linux/amd64/v3"));
        check(
            "linux/amd64",
            &["unknown/unknown", "linux/s390x"],
            Err("linux/s390x"),
        );
        check("linux/amd64", &[], Err("none"));
    }

    #[test]
    fn configs_name_their_layers_strictly() {
        let facts = config_facts(
            format!(
                r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
            )
            .as_bytes(),
        )
        .unwrap();
        assert_eq!(
            (facts.diff_ids.len(), facts.platform.to_string().as_str()),
            (1, "linux/amd64")
        );
        assert_eq!(
            config_facts(br#"{"rootfs":{"diff_ids":null}}"#).unwrap().diff_ids,
            []
        );
        for bad in [
            "{}",
            "[]",
            r#"{"rootfs":{"diff_ids":["md5:x"]}}"#,
            r#"{"rootfs":{"type":"tar"}}"#,
            // hardening T55, hardening T58
            r#"{"os":"linux","os":"linux","rootfs":{}}"#,
            r#"{"rootfs":{},"history":[{"empty_layer":true},{"created_by":"x"}]}"#,
        ] {
            assert!(config_facts(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
