//! What a build took from outside, with digests: base images, commits, files. Local directories have no digest; that they
//! were used is told, and that the list is incomplete because of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use cache::Digest;
use frontend::Platform;
use serde_json::{Value, json};
use solver::op::{Op, Source};
use solver::{Graph, VertexId};

use crate::registry::{Origin, Reference, Resolved};

/// What some steps took from outside.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Materials {
    /// `uri` and `digest` of each, in order of use, each once.
    pub(super) list: Vec<Value>,
    /// Names of the local trees.
    pub(super) locals: BTreeSet<String>,
}

impl Materials {
    /// Gathers what the steps took. `hide` takes secrets out of addresses.
    pub(super) fn of(
        graph: &Graph,
        steps: &[VertexId],
        images: &[Arc<Resolved>],
        platform: &Platform,
        hide: &dyn Fn(&str) -> String,
    ) -> Self {
        let mut found = Self::default();
        for id in steps {
            let material = match &graph.vertex(*id).op {
                Op::Source(Source::Image { layers, reference }) => {
                    image(images, layers, reference).map(|image| of_image(image, platform))
                }
                Op::Source(Source::Git(git)) => {
                    let reference = match git.reference.as_str() {
                        "" => &git.commit,
                        reference => reference,
                    };
                    let url = frontend::without_credentials(&git.remote);
                    Some(json!({"uri": hide(&format!("{url}#{reference}")), "digest": commit(&git.commit)}))
                }
                Op::Source(Source::Http(file)) => {
                    let url = hide(&frontend::without_credentials(&file.url));
                    Some(json!({"uri": url, "digest": sha256(&file.digest)}))
                }
                Op::Source(Source::Local { name }) => {
                    found.locals.insert(name.clone());
                    None
                }
                _ => None,
            };
            found.list.extend(material);
        }
        let mut seen = BTreeSet::new();
        found.list.retain(|material| seen.insert(material.to_string()));
        found
    }
}

/// Finds the image that a step begins with, by its layers: among equal ones by what the Dockerfile calls it.
pub(super) fn image<'a>(
    images: &'a [Arc<Resolved>],
    layers: &[cache::DiffId],
    reference: &str,
) -> Option<&'a Resolved> {
    let is_same = |image: &&Arc<Resolved>| {
        image.layers.len() == layers.len() && image.layers.iter().zip(layers).all(|(a, b)| a.diff_id == *b)
    };
    let same = || images.iter().filter(is_same);
    same()
        .find(|image| image.reference == reference)
        .or_else(|| same().next())
        .map(Arc::as_ref)
}

/// An image that was built here and never was in a registry has no manifest: then it is its ID that says what it is.
fn of_image(image: &Resolved, platform: &Platform) -> Value {
    let digest = image.manifest.unwrap_or_else(|| Digest::of(&image.config));
    let platform = crate::export::platform_of(&image.config).unwrap_or_else(|| platform.clone());
    let uri = match &image.origin {
        Origin::OciLayout(dir) => layout_url(dir, &digest, &platform),
        Origin::Local | Origin::Registry(_) | Origin::Objects(_) => image_url(&image.reference, &platform),
    };
    json!({"uri": uri, "digest": sha256(&digest)})
}

/// Returns what a layout is called: where it is on this machine is nobody's business.
pub(super) fn layout_name(dir: &Path) -> String {
    dir.file_name()
        .map_or_else(|| "layout".to_owned(), |name| escaped(&name.to_string_lossy()))
}

/// Returns the package URL of an image in a layout. Spec: the purl specification, its type oci.
fn layout_url(dir: &Path, digest: &Digest, platform: &Platform) -> String {
    let platform = platform.to_string().replace('/', "%2F");
    let name = layout_name(dir);
    format!("pkg:oci/{name}@sha256%3A{}?platform={platform}", digest.hex())
}

/// Returns digests by algorithm, as in-toto has them.
pub(super) fn sha256(digest: &Digest) -> Value {
    json!({"sha256": digest.hex()})
}

/// A commit id is a SHA-1, or a SHA-256 in repositories of the newer kind.
pub(super) fn commit(id: &str) -> Value {
    match id.len() {
        64 => json!({"sha256": id}),
        _ => json!({"sha1": id}),
    }
}

/// Returns an image's package URL: `pkg:docker/alpine@3.17?platform=linux%2Famd64`. What is no reference stands as it
/// is. Spec: the purl specification, and its type docker.
pub(crate) fn image_url(reference: &str, platform: &Platform) -> String {
    let platform = platform.to_string().replace('/', "%2F");
    let Ok(parsed) = Reference::parse(reference) else {
        return format!("pkg:docker/{}?platform={platform}", escaped(reference));
    };
    let tag = parsed.tag().map(|tag| format!("@{tag}"));
    let digest = parsed.digest().map(|digest| format!("digest={digest}&"));
    format!(
        "pkg:docker/{}{}?{}platform={platform}",
        parsed.familiar_name(),
        tag.unwrap_or_default(),
        digest.unwrap_or_default()
    )
}

/// Escapes what isn't part of a path.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use cache::DiffId;
    use solver::op::{Git, Http};

    use super::*;
    use crate::registry::LayerSource;

    #[test]
    fn images_have_package_urls() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (reference, expected) in [
            ("alpine", "pkg:docker/alpine@latest?platform=linux%2Farm%2Fv7"),
            (
                "docker.io/library/alpine:3.17",
                "pkg:docker/alpine@3.17?platform=linux%2Farm%2Fv7",
            ),
            (
                "ghcr.io/a/b:1",
                "pkg:docker/ghcr.io/a/b@1?platform=linux%2Farm%2Fv7",
            ),
            (
                &format!("a@{digest}"),
                &format!("pkg:docker/a?digest={digest}&platform=linux%2Farm%2Fv7"),
            ),
            ("/a dir:x", "pkg:docker//a%20dir:x?platform=linux%2Farm%2Fv7"),
        ] {
            let platform = "linux/arm/v7".parse().unwrap();
            assert_eq!(image_url(reference, &platform), expected);
        }
    }

    /// Sources of all kinds.
    fn graph(layer: DiffId, digest: Digest) -> Graph {
        let from = |reference: &str| {
            Op::Source(Source::Image {
                layers: vec![layer],
                reference: reference.to_owned(),
            })
        };
        let git = |reference: &str| {
            Op::Source(Source::Git(Git {
                remote: "https://u:word@host/x.git".to_owned(),
                reference: reference.to_owned(),
                commit: "a".repeat(40),
                subdir: String::new(),
                keep_git_dir: false,
                submodules: false,
                mtime: None,
            }))
        };
        let url = "https://u:word@host/f".to_owned();
        let name = "f".to_owned();
        let file = Op::Source(Source::Http(Http {
            url,
            digest,
            name,
            mtime: 0,
        }));
        let name = "context".to_owned();
        let local = Op::Source(Source::Local { name });
        let mut graph = Graph::new();
        for op in [
            from("docker.io/library/base:1"),
            git("refs/heads/main"),
            git(""),
            file,
            local,
        ] {
            graph.add(op, Vec::new(), solver::Label::default());
        }
        graph
    }

    #[test]
    fn layouts_are_told_without_their_place() {
        let digest = Digest::from_bytes([1; 32]);
        let platform = "linux/amd64".parse().unwrap();
        assert_eq!(
            layout_url(Path::new("/home/me/a layout"), &digest, &platform),
            format!(
                "pkg:oci/a%20layout@sha256%3A{}?platform=linux%2Famd64",
                "01".repeat(32)
            )
        );
        assert_eq!(layout_name(Path::new("..")), "layout");
    }

    // case U7: images by digest, commits, files
    #[test]
    fn what_came_from_outside_is_told_once_with_its_digest() {
        let layer = DiffId::from_bytes([7; 32]);
        let image = |reference: &str, manifest| {
            Arc::new(Resolved {
                reference: reference.to_owned(),
                manifest,
                config: br#"{"os":"linux","architecture":"arm64"}"#.to_vec(),
                layers: vec![LayerSource {
                    diff_id: layer,
                    blob: None,
                    made_unix: None,
                }],
                origin: Origin::Local,
            })
        };
        let digest = Digest::from_bytes([1; 32]);
        let images = [
            image("docker.io/library/other:1", None),
            image("docker.io/library/base:1", Some(digest)),
        ];
        let graph = graph(layer, digest);
        let steps: Vec<VertexId> = graph.ids().collect();
        let platform = "linux/amd64".parse().unwrap();
        let found = Materials::of(&graph, &steps, &images, &platform, &str::to_owned);
        let told: Vec<String> = found.list.iter().map(Value::to_string).collect();
        let (commit, digest) = ("a".repeat(40), "01".repeat(32));
        assert_eq!(
            told,
            [
                format!(
                    r#"{{"uri":"pkg:docker/base@1?platform=linux%2Farm64","digest":{{"sha256":"{digest}"}}}}"#
                ),
                format!(r#"{{"uri":"https://host/x.git#refs/heads/main","digest":{{"sha1":"{commit}"}}}}"#),
                format!(r#"{{"uri":"https://host/x.git#{commit}","digest":{{"sha1":"{commit}"}}}}"#),
                format!(r#"{{"uri":"https://host/f","digest":{{"sha256":"{digest}"}}}}"#),
            ]
        );
        assert_eq!(found.locals, BTreeSet::from(["context".to_owned()]));
    }

    #[test]
    fn commits_are_digests() {
        assert_eq!(commit(&"a".repeat(40))["sha1"], "a".repeat(40));
        assert_eq!(commit(&"b".repeat(64))["sha256"], "b".repeat(64));
    }
}
