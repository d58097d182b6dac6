//! Archives of all kinds, and ones that want out.

use std::io::{Cursor, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use cache::Digest;

use super::*;
use crate::export::{ExportImage, Output, export};
use crate::registry::fixture::{config_of, has_tool, image, run, store, tar_of};
use crate::registry::{fetch_layers, resolve_layout};

fn platform() -> Platform {
    Platform::new("linux", "amd64", None)
}

/// Loads and checks that the very image is there.
fn check(input: Input<'_>, source: &ExportImage, title: &str) {
    let (_dir, store) = store();
    let loaded = load(&store, input, &platform()).unwrap_or_else(|error| panic!("{title}: {error}"));
    let expected = Loaded {
        names: source.names.clone(),
        id: Digest::of(&source.config),
    };
    assert_eq!(loaded, [expected], "{title}");
    for name in &source.names {
        let found = image::find(&store, name).unwrap();
        let layers = found.layers().unwrap();
        assert_eq!(
            (&found.config_bytes, &layers),
            (&source.config, &source.layers),
            "{title}"
        );
        assert!(
            layers.iter().all(|layer| store.layers().contains(layer)),
            "{title}"
        );
    }
}

#[test]
fn what_export_writes_load_reads() {
    let (dir, origin) = store();
    let source = image(&origin, &["docker.io/library/app:1"]);
    for spec in [
        "type=docker",
        "type=docker,compression=gzip",
        "type=oci",
        "type=oci,compression=zstd",
    ] {
        let path = dir.path().join("image.tar");
        let output = Output::parse(&format!("{spec},dest={}", path.display()))
            .unwrap()
            .0;
        export(&origin, &output, &source, None).unwrap();
        check(Input::Path(&path), &source, spec);
        let mut stream = File::open(&path).unwrap();
        check(Input::Stream(&mut stream), &source, spec);
        for tool in ["gzip", "xz", "zstd", "bzip2"] {
            if !has_tool("what_export_writes_load_reads", tool) {
                continue;
            }
            let args = ["-kf", path.to_str().unwrap()];
            run(tool, &args);
            let suffix = [("gzip", "gz"), ("bzip2", "bz2"), ("zstd", "zst"), ("xz", "xz")];
            let suffix = suffix.iter().find(|(name, _)| *name == tool).unwrap().1;
            let compressed = path.with_extension(format!("tar.{suffix}"));
            check(Input::Path(&compressed), &source, &format!("{spec} {tool}"));
        }
    }
    let layout = dir.path().join("layout");
    let output = Output::parse(&format!("type=oci,tar=false,dest={}", layout.display()))
        .unwrap()
        .0;
    export(&origin, &output, &source, None).unwrap();
    check(Input::Path(&layout), &source, "directory");
}

#[test]
fn what_skopeo_writes_load_reads() {
    if !has_tool("what_skopeo_writes_load_reads", "skopeo") {
        return;
    }
    let (dir, origin) = store();
    let source = image(&origin, &["docker.io/library/app:1"]);
    let ours = dir.path().join("ours.tar");
    let output = Output::parse(&format!("type=oci,dest={}", ours.display()))
        .unwrap()
        .0;
    export(&origin, &output, &source, None).unwrap();
    let from = format!("oci-archive:{}:1", ours.display());
    for format in ["docker-archive", "oci-archive"] {
        let theirs = dir.path().join(format);
        run(
            "skopeo",
            &[
                "copy",
                &from,
                &format!("{format}:{}:docker.io/library/app:1", theirs.display()),
            ],
        );
        check(Input::Path(&theirs), &source, format);
    }
}

/// A docker-archive made by hand; `layer` is what the manifest names as the only layer.
fn by_hand(
    layer_path: &str,
    layer: &[u8],
    promised: &[u8],
    change: impl Fn(&mut tar::Builder<Vec<u8>>),
) -> Vec<u8> {
    let config = config_of(&[cache::DiffId::of(promised)]);
    let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["app:1"],"Layers":["{layer_path}"]}}]"#);
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("c.json", &config[..]),
        ("l/layer.tar", layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    change(&mut builder);
    builder.into_inner().unwrap()
}

fn append(builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, bytes).unwrap();
}

fn link(builder: &mut tar::Builder<Vec<u8>>, name: &str, target: &str) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, name, target).unwrap();
}

#[test]
fn layers_that_are_links_inside_an_old_docker_archive_are_found() {
    let layer = tar_of(&[("a", b"a")]);
    let archive = by_hand("m/layer.tar", &layer, &layer, |builder| {
        link(builder, "m/layer.tar", "../l/layer.tar")
    });
    let (_dir, store) = store();
    let loaded = load(&store, Input::Stream(&mut Cursor::new(archive)), &platform()).unwrap();
    assert_eq!(loaded[0].names, ["docker.io/library/app:1"]);
}

/// Changes an archive that is being made.
type Change = fn(&mut tar::Builder<Vec<u8>>);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn hostile_archives_are_refused_and_name_nothing() {
    let layer = tar_of(&[("a", b"a")]);
    let loops: Change = |builder| link(builder, "x", "x");
    let outside: Change = |builder| link(builder, "x", "/etc/passwd");
    let none: Change = |_| {};
    let cut = |bytes: Vec<u8>, n: usize| bytes[..n].to_vec();
    for (title, archive, expected) in [
        ("nothing", vec![], "neither manifest.json nor index.json"),
        ("noise", vec![0x55; 5000], "is not an image archive"),
        ("some tar", layer.clone(), "neither manifest.json nor index.json"),
        (
            "path out",
            by_hand("../../etc/passwd", &layer, &layer, none),
            "neither in it nor in the store",
        ),
        (
            "absolute path",
            by_hand("/etc/passwd", &layer, &layer, none),
            "neither in it nor in the store",
        ),
        (
            "link out",
            by_hand("x", &layer, &layer, outside),
            "neither in it nor in the store",
        ),
        (
            "link to itself",
            by_hand("x", &layer, &layer, loops),
            "neither in it nor in the store",
        ),
        (
            "other layer",
            by_hand("l/layer.tar", &layer, b"promised", none),
            "is not what was sent",
        ),
        (
            "layer twice, the second a lie",
            by_hand("l/layer.tar", &layer, &layer, |builder| {
                append(builder, "l/layer.tar", b"lie")
            }),
            "layer sha256:",
        ),
        (
            "config twice, the second of nothing",
            by_hand("l/layer.tar", &layer, &layer, |builder| {
                append(builder, "c.json", b"{}")
            }),
            "config c.json",
        ),
        (
            "not a layer",
            by_hand("l/layer.tar", b"no tar", b"no tar", none),
            "layer sha256:",
        ),
        (
            "no images",
            tar_of(&[("manifest.json", b"[]")]),
            "lists no images",
        ),
        (
            "no list",
            tar_of(&[("manifest.json", b"{}")]),
            "manifest.json is malformed",
        ),
        (
            "deep list",
            tar_of(&[("manifest.json", "[".repeat(100_000).as_bytes())]),
            "manifest.json is malformed",
        ),
        (
            "giant list",
            tar_of(&[("manifest.json", &vec![b' '; (4 << 20) + 1])]),
            "is larger than 4194304 bytes",
        ),
        (
            "bad digest",
            tar_of(&[(
                "index.json",
                br#"{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"sha256:../../x","size":1}]}"#,
            )]),
            "index.json is malformed",
        ),
        (
            "cut",
            cut(by_hand("l/layer.tar", &layer, &layer, none), 1000),
            "is not an image archive",
        ),
    ] {
        let (_dir, store) = store();
        let error = match load(&store, Input::Stream(&mut Cursor::new(archive)), &platform()) {
            Ok(loaded) => panic!("{title}: {loaded:?}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(expected), "{title}: {error}");
        assert_eq!(store.index().images().unwrap(), [], "{title}");
    }
}

#[test]
fn a_layout_directory_is_never_left() {
    // hardening T60
    let (dir, origin) = store();
    let source = image(&origin, &["docker.io/library/app:1"]);
    let layout = dir.path().join("layout");
    let output = Output::parse(&format!("type=oci,tar=false,dest={}", layout.display()))
        .unwrap()
        .0;
    let manifest = export(&origin, &output, &source, None).unwrap().manifest.unwrap();
    let blob = layout.join("blobs/sha256").join(manifest.digest.hex());
    let kept = std::fs::read(&blob).unwrap();
    let outside = dir.path().join("outside");
    File::create(&outside).unwrap().write_all(&kept).unwrap();
    let load_again = || {
        let (_dir, store) = store();
        load(&store, Input::Path(&layout), &platform())
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };

    std::fs::remove_file(&blob).unwrap();
    assert!(load_again().contains("is not in it"));
    symlink(&outside, &blob).unwrap();
    let error = load_again();
    assert!(error.contains("symbolic links"), "{error}");
    std::fs::remove_file(&blob).unwrap();
    let made = Command::new("mkfifo")
        .arg(&blob)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    assert!(load_again().contains("is not a regular file"));
    std::fs::remove_file(&blob).unwrap();
    let changed: Vec<u8> = kept
        .iter()
        .map(|byte| if *byte == b'1' { b'2' } else { *byte })
        .collect();
    File::create(&blob).unwrap().write_all(&changed).unwrap();
    let error = load_again();
    assert!(error.contains("but the bytes are"), "{error}");
    std::fs::remove_file(&blob).unwrap();
    std::fs::create_dir(&blob).unwrap();
    assert!(load_again().contains("is not a regular file"));
    std::fs::remove_dir(&blob).unwrap();

    // The same file under another name, changed between two looks at it.
    std::fs::hard_link(&outside, &blob).unwrap();
    let (_dir, target) = store();
    let resolve =
        || futures_util::FutureExt::now_or_never(resolve_layout(&layout, "1", &platform())).unwrap();
    let resolved = resolve().unwrap();
    File::create(&outside).unwrap().write_all(&changed).unwrap();
    assert!(resolve().unwrap_err().to_string().contains("but the bytes are"));
    let config: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    let layer = config["layers"][0]["digest"].as_str().unwrap().to_owned();
    let layer = layout.join("blobs/sha256").join(&layer["sha256:".len()..]);
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    File::create(&layer).unwrap().write_all(&bytes).unwrap();
    let fetched = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(fetch_layers(&target, &resolved, |_| {}));
    assert!(fetched.is_err());
    assert!(!target.layers().contains(&resolved.layers[0].diff_id));

    let index = layout.join("index.json");
    std::fs::rename(&index, dir.path().join("elsewhere.json")).unwrap();
    symlink(dir.path().join("elsewhere.json"), &index).unwrap();
    let error = resolve().unwrap_err().to_string();
    assert!(error.contains("symbolic links"), "{error}");
}

#[test]
fn digests_in_layouts_are_never_paths() {
    // hardening T53
    for bad in [
        "sha256:../../x",
        "sha256:../../../../etc/passwd",
        "md5:x",
        "sha256+b64:x",
        "sha256:%2e%2e",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let list =
            format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{bad}","size":1}}]}}"#);
        let mut index = File::create(dir.path().join("index.json")).unwrap();
        index.write_all(list.as_bytes()).unwrap();
        let source = Source::directory(dir.path()).unwrap();
        for reference in ["", "1", &format!("@{bad}")] {
            let error = layout::find(&source, reference, &platform())
                .map(|_| ())
                .unwrap_err();
            assert!(matches!(error, ImageError::NotAnArchive { .. }), "{bad}: {error}");
        }
    }
}

#[test]
fn names_in_archives_are_names_or_the_archive_is_refused() {
    // hardening T61
    let layer = tar_of(&[("a", b"a")]);
    let config = config_of(&[DiffId::of(&layer)]);
    for (name, expected) in [
        ("app:1", Ok("docker.io/library/app:1")),
        ("quarry.example/app", Ok("quarry.example/app:latest")),
        ("../../x", Err(())),
        ("/etc/passwd", Err(())),
        ("app:1\\u001b[31m", Err(())),
        ("App:1", Err(())),
        ("", Err(())),
    ] {
        let list = format!(r#"[{{"Config":"c.json","RepoTags":["{name}"],"Layers":["l.tar"]}}]"#);
        let archive = tar_of(&[
            ("manifest.json", list.as_bytes()),
            ("c.json", &config),
            ("l.tar", &layer),
        ]);
        let (_dir, store) = store();
        let loaded = load(&store, Input::Stream(&mut Cursor::new(archive)), &platform());
        match expected {
            Ok(expected) => assert_eq!(loaded.unwrap()[0].names, [expected]),
            Err(()) => {
                assert!(
                    matches!(loaded, Err(ImageError::Reference(_))),
                    "{name}: {loaded:?}"
                );
                assert_eq!(store.index().images().unwrap(), [], "{name}");
                assert!(!store.layers().contains(&DiffId::of(&layer)), "{name}");
            }
        }
    }
}

#[test]
fn a_layout_answers_by_tag_by_digest_or_alone() {
    let (dir, origin) = store();
    let source = image(&origin, &["docker.io/library/app:1"]);
    let path = dir.path().join("layout");
    let output = Output::parse(&format!("type=oci,tar=false,dest={}", path.display()))
        .unwrap()
        .0;
    let manifest = export(&origin, &output, &source, None)
        .unwrap()
        .manifest
        .unwrap()
        .digest;
    let layout = Source::directory(&path).unwrap();
    let platform = platform();
    // hardening T61: its names are looked up, and become nobody's here
    let (_dir, target) = store();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let resolved = runtime.block_on(resolve_layout(&path, "1", &platform)).unwrap();
    runtime
        .block_on(fetch_layers(&target, &resolved, |_| {}))
        .unwrap();
    assert!(target.layers().contains(&resolved.layers[0].diff_id));
    assert_eq!(target.index().images().unwrap(), []);
    for reference in [
        "",
        "1",
        "docker.io/library/app:1",
        &format!("@{manifest}"),
        &format!("1@{manifest}"),
    ] {
        let found = layout::find(&layout, reference, &platform).unwrap();
        assert_eq!(
            (Digest::of(&found.manifest_bytes), &found.config),
            (manifest, &source.config),
            "{reference}"
        );
    }
    for reference in ["2", "@sha256:1", &format!("@{}", Digest::of(b"x"))] {
        assert!(
            layout::find(&layout, reference, &platform).is_err(),
            "{reference}"
        );
    }
}

/// Makes of an image one for several architectures, and exports it.
fn for_several(
    store: &Store,
    architectures: &[&str],
    spec: &str,
    path: &Path,
) -> (ExportImage, Vec<Vec<u8>>) {
    let mut source = image(store, &["docker.io/library/app:1"]);
    let config = String::from_utf8(source.config.clone()).unwrap();
    let configs = architectures
        .iter()
        .map(|name| config.replace("amd64", name).into_bytes());
    let configs: Vec<Vec<u8>> = configs.collect();
    source.config = configs[0].clone();
    let further = configs[1..].iter().map(|config| crate::export::PlatformImage {
        config: config.clone(),
        layers: source.layers.clone(),
    });
    source.further = Some(further.collect());
    let output = Output::parse(&format!("{spec},dest={}", path.display()))
        .unwrap()
        .0;
    export(store, &output, &source, None).unwrap();
    (source, configs)
}

/// Writes an archive again, without the entries that `is_left_out` names.
fn without(path: &Path, is_left_out: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let mut builder = tar::Builder::new(Vec::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if !is_left_out(&name) {
            let mut header = entry.header().clone();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            builder.append_data(&mut header, name, &bytes[..]).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

#[test]
fn all_platforms_are_loaded_and_one_gives_the_id() {
    let (dir, origin) = store();
    for spec in ["type=docker", "type=oci"] {
        let check = |architectures: &[&str], own: &str, others: &[&str]| {
            let path = dir.path().join("several.tar");
            let (_, configs) = for_several(&origin, architectures, spec, &path);
            let (_dir, target) = store();
            let loaded = load(&target, Input::Path(&path), &platform()).unwrap();
            let id_of =
                |name: &&str| Digest::of(&configs[architectures.iter().position(|one| one == name).unwrap()]);
            assert_eq!(loaded[0].id, id_of(&own), "{spec} {architectures:?}");
            let row = target.index().image("docker.io/library/app:1").unwrap().unwrap();
            let variants: Vec<_> = row
                .variants
                .iter()
                .map(|one| (one.platform.clone(), one.config))
                .collect();
            let expected: Vec<_> = others
                .iter()
                .map(|name| (format!("linux/{name}"), id_of(name)))
                .collect();
            assert_eq!(variants, expected, "{spec} {architectures:?}");
        };
        check(&["s390x", "amd64", "arm64"], "amd64", &["arm64", "s390x"]);
        check(&["s390x", "arm64"], "arm64", &["s390x"]);
        check(&["amd64"], "amd64", &[]);
    }
}

#[test]
fn what_an_index_lists_may_be_missing_but_not_all_of_it() {
    let (dir, origin) = store();
    for spec in ["type=docker", "type=oci"] {
        let path = dir.path().join("several.tar");
        let (_, configs) = for_several(&origin, &["amd64", "arm64"], spec, &path);
        let source = Source::tar(File::open(&path).unwrap(), String::new()).unwrap();
        let images = layout::images(&source, Wanted::All(&platform())).unwrap();
        let manifests: Vec<String> = images[0]
            .parts
            .iter()
            .map(|part| {
                format!(
                    "blobs/sha256/{}",
                    Digest::of(part.manifest.as_ref().unwrap()).hex()
                )
            })
            .collect();
        let (_dir, target) = store();
        let partial = without(&path, |name| name == manifests[0] || name == "manifest.json");
        let loaded = load(&target, Input::Stream(&mut Cursor::new(partial)), &platform()).unwrap();
        assert_eq!(loaded[0].id, Digest::of(&configs[1]), "{spec}");
        let none = without(&path, |name| {
            manifests.iter().any(|one| one == name) || name == "manifest.json"
        });
        let error = load(&target, Input::Stream(&mut Cursor::new(none)), &platform()).unwrap_err();
        assert!(error.to_string().contains("none of the images"), "{error}");
    }
}

#[test]
fn indexes_of_many_images_are_refused() {
    let (dir, origin) = store();
    let path = dir.path().join("several.tar");
    let names: Vec<String> = (0..=256).map(|n| format!("arch{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for spec in ["type=docker", "type=oci"] {
        for_several(&origin, &names, spec, &path);
        let (_dir, target) = store();
        let error = load(&target, Input::Path(&path), &platform()).unwrap_err();
        assert!(error.to_string().contains("more than 256 images"), "{error}");
        assert_eq!(target.index().images().unwrap(), []);
    }
}
