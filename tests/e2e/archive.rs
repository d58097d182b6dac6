//! Images as others would read them: docker-archives, OCI layouts (tar or directory) and plain root
//! file systems, turned into a config and a tree. Every digest that is written is checked.
//!
//! Small images only: a whole archive is held in memory.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::tree::Tree;

/// An image, read completely.
pub(crate) struct Image {
    /// The config as JSON; `Null` for a plain root file system.
    pub(crate) config: Value,
    /// `sha256:…` of the config's bytes; empty for a plain root file system.
    pub(crate) id: String,
    /// The merged file tree.
    pub(crate) tree: Tree,
    /// The names that the archive gives the image.
    pub(crate) names: Vec<String>,
    /// The media types of the layers, where a manifest tells them.
    pub(crate) media_types: Vec<String>,
}

/// Reads whatever stands at `path`; what it is, is told by its content.
pub(crate) fn read(path: &Path) -> Result<Image, String> {
    if path.is_dir() {
        if !path.join("oci-layout").exists() {
            return Ok(plain(Tree::from_dir(path)));
        }
        let load = |name: &str| {
            let file = path.join(name);
            std::fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))
        };
        return read_oci(&load);
    }
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let bytes = decompress(bytes)?;
    read_tar(&bytes)
}

/// Reads an image archive or a root file system from the bytes of a tar.
pub(crate) fn read_tar(bytes: &[u8]) -> Result<Image, String> {
    let members = members(bytes)?;
    let load = |name: &str| {
        members
            .get(name)
            .cloned()
            .ok_or_else(|| format!("the archive has no member {name}"))
    };
    if members.contains_key("manifest.json") {
        read_docker(&load)
    } else if members.contains_key("index.json") {
        read_oci(&load)
    } else {
        let mut tree = Tree::default();
        tree.apply(bytes)?;
        Ok(plain(tree))
    }
}

fn plain(tree: Tree) -> Image {
    Image {
        config: Value::Null,
        id: String::new(),
        tree,
        names: Vec::new(),
        media_types: Vec::new(),
    }
}

type Load<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

fn read_docker(load: Load<'_>) -> Result<Image, String> {
    let manifest = json(&load("manifest.json")?)?;
    let image = manifest.get(0).ok_or("manifest.json lists no image")?;
    let config = load(string(&image["Config"])?)?;
    // Go writes null for an empty list.
    let layers = image["Layers"].as_array().cloned().unwrap_or_default();
    let layers = layers
        .iter()
        .map(|l| load(string(l)?))
        .collect::<Result<Vec<_>, _>>()?;
    // Docker writes null where an image has no name.
    let tags = image["RepoTags"].as_array().cloned().unwrap_or_default();
    let names = tags
        .iter()
        .map(|t| Ok(string(t)?.to_owned()))
        .collect::<Result<_, String>>()?;
    assemble(&config, layers, names, Vec::new())
}

fn read_oci(load: Load<'_>) -> Result<Image, String> {
    let version = json(&load("oci-layout")?)?;
    if version["imageLayoutVersion"] != "1.0.0" {
        return Err(format!("oci-layout says {version}"));
    }
    let index = json(&load("index.json")?)?;
    let mut descriptor = array(&index["manifests"])?
        .first()
        .ok_or("index.json lists no manifest")?
        .clone();
    let names = descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str();
    let names = names.map(str::to_owned).into_iter().collect();
    let mut manifest = json(&blob(load, &descriptor)?)?;
    if let Some(nested) = manifest["manifests"].as_array() {
        descriptor = nested.first().ok_or("a nested index lists no manifest")?.clone();
        manifest = json(&blob(load, &descriptor)?)?;
    }
    let config = blob(load, &manifest["config"])?;
    let descriptors = array(&manifest["layers"])?;
    let layers = descriptors
        .iter()
        .map(|l| blob(load, l))
        .collect::<Result<Vec<_>, _>>()?;
    let media_types = descriptors
        .iter()
        .map(|l| Ok(string(&l["mediaType"])?.to_owned()))
        .collect::<Result<_, String>>()?;
    assemble(&config, layers, names, media_types)
}

/// Loads the blob of a descriptor, and checks its size and digest.
fn blob(load: Load<'_>, descriptor: &Value) -> Result<Vec<u8>, String> {
    let digest = string(&descriptor["digest"])?;
    let bytes = load(&format!("blobs/{}", digest.replacen(':', "/", 1)))?;
    if descriptor["size"] != bytes.len() {
        return Err(format!(
            "{digest}: {} bytes, but its descriptor says {}",
            bytes.len(),
            descriptor["size"]
        ));
    }
    if sha256(&bytes) != digest {
        return Err(format!("{digest}: its content is {}", sha256(&bytes)));
    }
    Ok(bytes)
}

fn assemble(
    config_bytes: &[u8],
    layers: Vec<Vec<u8>>,
    names: Vec<String>,
    media_types: Vec<String>,
) -> Result<Image, String> {
    let config = json(config_bytes)?;
    // A config without layers may leave the list out or write null.
    let diff_ids = config["rootfs"]["diff_ids"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if diff_ids.len() != layers.len() {
        return Err(format!("{} diff IDs for {} layers", diff_ids.len(), layers.len()));
    }
    let mut tree = Tree::default();
    for (layer, diff_id) in layers.into_iter().zip(diff_ids) {
        let tar = decompress(layer)?;
        if sha256(&tar) != string(&diff_id)? {
            return Err(format!("layer {diff_id}: its content is {}", sha256(&tar)));
        }
        tree.apply(&tar[..])?;
    }
    Ok(Image {
        config,
        id: sha256(config_bytes),
        tree,
        names,
        media_types,
    })
}

/// Reads the members of a tar by name; symlinks among them (older docker-archives) are followed.
fn members(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let fault = |e: std::io::Error| format!("not an archive: {e}");
    let mut archive = tar::Archive::new(bytes);
    let mut members = BTreeMap::new();
    let mut links = Vec::new();
    for entry in archive.entries().map_err(fault)? {
        let mut entry = entry.map_err(fault)?;
        let name = String::from_utf8_lossy(&entry.path_bytes())
            .trim_start_matches("./")
            .to_owned();
        if let Some(target) = entry.link_name_bytes() {
            let base = String::from_utf8_lossy(&target)
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            links.push((name, base));
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(fault)?;
        members.insert(name, content);
    }
    for (name, target) in links {
        if let Some(content) = members.get(&target).cloned() {
            members.insert(name, content);
        }
    }
    Ok(members)
}

/// Decompresses gzip and zstd by their magic, and returns everything else as it is.
pub(crate) fn decompress(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    let read = match bytes.get(..4) {
        Some([0x1f, 0x8b, ..]) => flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain),
        Some([0x28, 0xb5, 0x2f, 0xfd]) => {
            zstd::stream::read::Decoder::new(&bytes[..]).and_then(|mut d| d.read_to_end(&mut plain))
        }
        _ => return Ok(bytes),
    };
    read.map_err(|e| format!("cannot decompress: {e}"))?;
    Ok(plain)
}

/// Returns `sha256:…` of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))
}

fn string(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("{value} should be a string"))
}

fn array(value: &Value) -> Result<&Vec<Value>, String> {
    value
        .as_array()
        .ok_or_else(|| format!("{value} should be an array"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn docker_archive(spoil: &[u8]) -> Vec<u8> {
        let layer = pack(&[("hello", b"world\n")]);
        let config = format!(
            r#"{{"rootfs":{{"diff_ids":["{}"]}},"config":{{"User":"app"}}}}"#,
            sha256(&layer)
        );
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&[&layer[..], spoil].concat()).unwrap();
        let manifest = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["l.tar"]}]"#;
        pack(&[
            ("l.tar", &gzip.finish().unwrap()),
            ("c.json", config.as_bytes()),
            ("manifest.json", manifest),
        ])
    }

    #[test]
    fn a_docker_archive_is_read() {
        let image = read_tar(&docker_archive(b"")).unwrap();
        assert_eq!(image.names, ["app:1"]);
        assert_eq!(image.config["config"]["User"], "app");
        assert!(image.tree.get("/hello").is_some());
        assert!(image.media_types.is_empty());
    }

    #[test]
    fn a_layer_that_is_not_what_the_config_says_is_refused() {
        let refused = read_tar(&docker_archive(b"more")).map(|_| ()).unwrap_err();
        assert!(refused.contains("its content is"), "{refused}");
    }

    #[test]
    fn a_tar_without_a_manifest_is_a_root_file_system() {
        let image = read_tar(&pack(&[("etc/hostname", b"h")])).unwrap();
        assert!(image.tree.get("etc/hostname").is_some());
        assert_eq!(image.config, Value::Null);
    }
}
