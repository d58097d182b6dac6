//! What engines answer: JSON of Docker's API, which Podman speaks too. Text in, facts out; no I/O.

use cache::{DiffId, Digest};
use frontend::Platform;
use serde::Deserialize;
use serde_json::Value;

/// Longest line of a load's report.
const MAX_LINE_BYTES: usize = 1 << 20;

/// One image of `GET /images/json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    /// Its ID: the digest of its config, or of its manifest where the engine keeps images as registries do.
    pub(super) id: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    manifests: Option<Vec<ListedManifest>>,
}

/// One manifest of an image, from engines that keep images as registries do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct ListedManifest {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, rename = "Available")]
    is_available: bool,
}

impl Listed {
    /// Returns the digests of the manifests all of whose blobs the engine has. One that doesn't tell has what its ID says.
    pub(super) fn manifests(&self) -> impl Iterator<Item = &str> {
        let told = self.manifests.iter().flatten().filter(|one| one.is_available);
        let untold = self.manifests.is_none().then_some(&*self.id);
        told.map(|one| &*one.id).chain(untold)
    }

    /// Says whether it lacks blobs of a manifest that it has.
    pub(super) fn is_incomplete(&self) -> bool {
        let mut told = self.manifests.iter().flatten();
        told.any(|one| !one.is_available)
    }
}

/// Reads the list of images: those that have a name of `names` first, the others in the engine's order.
pub(super) fn images(bytes: &[u8], names: &[String]) -> Result<Vec<Listed>, String> {
    let mut listed: Vec<Listed> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    // Podman's names are whole.
    let is_same = |tag: &String, name: &String| {
        tag == name
            || tag
                .strip_suffix(name.as_str())
                .is_some_and(|before| before.ends_with('/'))
    };
    let is_named = |one: &Listed| {
        let tags = one.repo_tags.iter().flatten();
        tags.into_iter()
            .any(|tag| names.iter().any(|name| is_same(tag, name)))
    };
    listed.sort_by_key(|one| !is_named(one));
    Ok(listed)
}

/// Reads the layers of `GET /images/ID/json`, base layer first. Those that can't be read end the list.
pub(super) fn layers(image: &Value) -> Vec<DiffId> {
    let listed = image.pointer("/RootFS/Layers").and_then(Value::as_array);
    let ids = listed.into_iter().flatten().map(Value::as_str);
    ids.map_while(|id| id?.parse().ok()).collect()
}

/// Reads the digests of the blobs that a manifest lists.
pub(super) fn blobs(manifest: &[u8]) -> Vec<Digest> {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let listed = manifest.get("layers").and_then(Value::as_array);
    let ids = listed
        .into_iter()
        .flatten()
        .map(|layer| layer.get("digest")?.as_str());
    ids.map_while(|id| id?.parse().ok()).collect()
}

/// Says whether `GET /info` tells of containerd's image store: manifests and blobs as in a registry.
pub(super) fn keeps_blobs(info: &[u8]) -> bool {
    let info: Value = serde_json::from_slice(info).unwrap_or_default();
    let rows = info.get("DriverStatus").and_then(Value::as_array);
    rows.into_iter().flatten().any(|row| {
        let cell = |at: usize| row.get(at).and_then(Value::as_str);
        cell(0) == Some("driver-type")
            && cell(1).is_some_and(|kind| kind.starts_with("io.containerd.snapshotter"))
    })
}

/// Reads from `GET /info` what the engine's machine is.
pub(super) fn platform(info: &[u8]) -> Option<Platform> {
    let info: Value = serde_json::from_slice(info).ok()?;
    let text = |key: &str| info.get(key)?.as_str();
    Some(Platform::new(text("OSType")?, text("Architecture")?, None))
}

/// Reads the words of an error: JSON with a message, or plain text.
pub(super) fn refusal(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = value.get("message").and_then(Value::as_str);
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    crate::report::one_line(text.trim())
}

/// What a line of a load's report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Words for the user.
    Said(String),
    /// The load failed.
    Refused(String),
    /// How far it is, or nothing.
    Other,
}

/// The report of a load: JSON objects, one a line, that come in pieces.
#[derive(Default)]
pub(super) struct Report {
    rest: Vec<u8>,
}

impl Report {
    /// Takes the next piece; returns the lines that it completes, or what is wrong with them.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<Line>, String> {
        let mut lines = Vec::new();
        for byte in piece {
            match byte {
                b'\n' => lines.push(Self::line(&std::mem::take(&mut self.rest))?),
                _ if self.rest.len() == MAX_LINE_BYTES => return Err("a line without an end".to_owned()),
                byte => self.rest.push(*byte),
            }
        }
        Ok(lines)
    }

    /// Returns what the last line says, where nothing ended it.
    pub(super) fn finish(self) -> Result<Line, String> {
        Self::line(&self.rest)
    }

    fn line(bytes: &[u8]) -> Result<Line, String> {
        let bytes = bytes.trim_ascii();
        if bytes.is_empty() {
            return Ok(Line::Other);
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let text = |path: &str| value.pointer(path).and_then(Value::as_str);
        let refused = text("/errorDetail/message").or(text("/error"));
        let one_line = |text: &str| crate::report::one_line(text.trim());
        Ok(match (refused, text("/stream")) {
            (Some(refused), _) => Line::Refused(one_line(refused)),
            (None, Some(said)) => Line::Said(one_line(said)),
            (None, None) => Line::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A: &str = "sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";
    const B: &str = "sha256:1f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

    #[test]
    fn images_of_the_same_name_come_first() {
        let list = json!([
            {"Id": "1", "RepoTags": null, "Size": 5},
            {"Id": "2"},
            {"Id": "3", "RepoTags": ["x:1", "app:2"]},
            {"Id": "4", "RepoTags": ["docker.io/library/app:1"]},
            {"Id": "5", "RepoTags": ["otherapp:1"]},
        ])
        .to_string();
        let ids = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let listed = images(list.as_bytes(), &names).unwrap();
            listed.into_iter().map(|one| one.id).collect::<String>()
        };
        assert_eq!(ids(&["app:2"]), "31245");
        assert_eq!(ids(&["app:1"]), "41235");
        assert_eq!(ids(&[]), "12345");
        assert!(images(b"{}", &[]).is_err());
    }

    #[test]
    fn what_an_engine_has_of_several_platforms_counts_one_by_one() {
        let check = |image: Value, expected: &[&str], is_incomplete: bool| {
            let images = images(json!([image]).to_string().as_bytes(), &[]).unwrap();
            assert_eq!(images[0].manifests().collect::<Vec<_>>(), expected);
            assert_eq!(images[0].is_incomplete(), is_incomplete);
        };
        check(json!({"Id": "1"}), &["1"], false);
        check(json!({"Id": "1", "Manifests": null}), &["1"], false);
        check(json!({"Id": "1", "Manifests": []}), &[], false);
        let (here, gone) = (json!({"ID": "2", "Available": true}), json!({"ID": "3"}));
        check(json!({"Id": "1", "Manifests": [here]}), &["2"], false);
        check(json!({"Id": "1", "Manifests": [gone, here]}), &["2"], true);
    }

    #[test]
    fn engines_say_what_their_machine_is() {
        let check = |os: &str, architecture: &str, expected: &str| {
            let info = json!({"OSType": os, "Architecture": architecture}).to_string();
            assert_eq!(platform(info.as_bytes()).unwrap().to_string(), expected);
        };
        check("linux", "x86_64", "linux/amd64");
        check("linux", "aarch64", "linux/arm64");
        check("linux", "arm64", "linux/arm64");
        assert_eq!(platform(b"{\"OSType\": \"linux\"}"), None);
        assert_eq!(platform(b"<html>"), None);
    }

    #[test]
    fn layers_and_blobs_are_read_as_far_as_they_make_sense() {
        let (a, b): (DiffId, DiffId) = (A.parse().unwrap(), B.parse().unwrap());
        assert_eq!(layers(&json!({"RootFS": {"Layers": [A, B]}})), [a, b]);
        assert_eq!(layers(&json!({"RootFS": {"Layers": [A, "md5:1", B]}})), [a]);
        assert_eq!(layers(&json!({"RootFS": {}})), []);
        let manifest = json!({"layers": [{"digest": A}, {"digest": 5}, {"digest": B}]}).to_string();
        assert_eq!(blobs(manifest.as_bytes()), [A.parse::<Digest>().unwrap()]);
        assert_eq!(blobs(b"<html>"), []);
    }

    #[test]
    fn an_engine_says_how_it_keeps_images() {
        let info = |rows: Value| keeps_blobs(json!({"DriverStatus": rows}).to_string().as_bytes());
        assert!(info(json!([["driver-type", "io.containerd.snapshotter.v1"]])));
        assert!(!info(json!([["Backing Filesystem", "extfs"], ["driver-type"]])));
        assert!(!info(Value::Null) && !keeps_blobs(b""));
    }

    #[test]
    fn a_report_is_read_in_whatever_pieces_it_comes() {
        let text = "{\"status\":\"Loading layer\",\"id\":\"c0\"}\r\n{\"stream\":\"Loaded image: app:1\\n\"}\r\n\
                    {\"errorDetail\":{\"message\":\"no\\nspace\"},\"error\":\"x\"}\n{\"error\":\"y\"}";
        let expected = [
            Line::Other,
            Line::Said("Loaded image: app:1".to_owned()),
            Line::Refused("no space".to_owned()),
            Line::Refused("y".to_owned()),
        ];
        for n_bytes in [1, 7, 1000] {
            let mut report = Report::default();
            let mut lines = Vec::new();
            for piece in text.as_bytes().chunks(n_bytes) {
                lines.extend(report.push(piece).unwrap());
            }
            lines.push(report.finish().unwrap());
            assert_eq!(lines, expected, "{n_bytes}");
        }
        assert!(Report::default().push(b"<html>\n").is_err());
        assert!(Report::default().push(&vec![b' '; MAX_LINE_BYTES + 1]).is_err());
    }

    #[test]
    fn errors_are_json_or_text() {
        assert_eq!(refusal(b"{\"message\":\"no such image\"}"), "no such image");
        assert_eq!(refusal(b"404 page not found\n"), "404 page not found");
    }
}
