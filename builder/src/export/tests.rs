//! What is written, as other tools read it.

use std::path::Path;

use super::*;
use crate::registry::fixture::{has_tool, image, run, store};

const ONE: Shape = Shape {
    n_platforms: 1,
    has_index: false,
    is_attested: false,
};

fn write(store: &Store, image: &ExportImage, spec: &str, dest: &Path) -> Exported {
    let output = Output::parse(&format!("{spec},dest={}", dest.display()))
        .unwrap()
        .0;
    check(&output, ONE).unwrap();
    export(store, &output, image, None).unwrap()
}

#[test]
fn skopeo_reads_every_form_and_finds_the_same_config() {
    if !has_tool("skopeo_reads_every_form_and_finds_the_same_config", "skopeo") {
        return;
    }
    let (dir, store) = store();
    let source = image(&store, &["docker.io/library/app:1", "localhost/app:other"]);
    for (spec, transport, suffix) in [
        ("type=docker", "docker-archive", ":app:1"),
        ("type=docker", "docker-archive", ":localhost/app:other"),
        ("type=docker", "oci-archive", ":1"),
        ("type=docker,compression=gzip", "docker-archive", ":app:1"),
        ("type=docker,oci-mediatypes=false", "docker-archive", ":app:1"),
        ("type=oci", "oci-archive", ":1"),
        ("type=oci,compression=zstd", "oci-archive", ":other"),
        ("type=oci,compression=uncompressed", "oci-archive", ":1"),
        ("type=oci,tar=false", "oci", ":1"),
    ] {
        let dest = dir.path().join(spec.replace(['=', ','], "-"));
        write(&store, &source, spec, &dest);
        let name = format!("{transport}:{}{suffix}", dest.display());
        let config = run("skopeo", &["inspect", "--config", "--raw", &name]);
        assert_eq!(config.as_bytes(), source.config, "{spec}");
        // Copying reads and checks every blob.
        run(
            "skopeo",
            &[
                "copy",
                &name,
                &format!("dir:{}", dir.path().join("copy").display()),
            ],
        );
    }
}

#[test]
fn umoci_unpacks_the_layout() {
    if !has_tool("umoci_unpacks_the_layout", "umoci") {
        return;
    }
    let (dir, store) = store();
    let source = image(&store, &["docker.io/library/app:1"]);
    let layout = dir.path().join("layout");
    write(&store, &source, "type=oci,tar=false", &layout);
    let bundle = dir.path().join("bundle");
    let from = format!("{}:1", layout.display());
    run(
        "umoci",
        &["unpack", "--rootless", "--image", &from, bundle.to_str().unwrap()],
    );
    assert_eq!(std::fs::read(bundle.join("rootfs/etc/base")).unwrap(), b"base\n");
    assert_eq!(std::fs::read(bundle.join("rootfs/app")).unwrap(), b"#!/bin/sh\n");
}

#[test]
fn equal_images_give_equal_bytes_and_leave_nothing_else() {
    let (dir, first) = store();
    let (_dir, second) = store();
    let names = ["docker.io/library/app:1"];
    for spec in [
        "type=docker",
        "type=oci",
        "type=oci,compression=zstd",
        "type=oci,compression=gzip,compression-level=6",
    ] {
        let (a, b) = (dir.path().join("a.tar"), dir.path().join("b.tar"));
        write(&first, &image(&first, &names), spec, &a);
        write(&second, &image(&second, &names), spec, &b);
        assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap(), "{spec}");
        // A second time nothing is compressed: the same blob is found.
        write(&first, &image(&first, &names), spec, &b);
        assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap(), "{spec}");
    }
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["a.tar", "b.tar", "store"]);
}

#[test]
fn a_layout_directory_keeps_other_names_and_replaces_its_own() {
    let (dir, store) = store();
    let mut source = image(&store, &["docker.io/library/app:1"]);
    let layout = dir.path().join("layout");
    write(&store, &source, "type=oci,tar=false", &layout);
    let old = std::fs::read(layout.join("index.json")).unwrap();
    write(&store, &source, "type=oci,tar=false", &layout);
    assert_eq!(std::fs::read(layout.join("index.json")).unwrap(), old);
    source.names = vec!["docker.io/library/app:2".to_owned()];
    write(&store, &source, "type=oci,tar=false", &layout);
    source.layers.pop();
    source.config = crate::registry::fixture::config_of(&source.layers);
    let exported = write(&store, &source, "type=oci,tar=false", &layout);
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        entries[1]["digest"],
        exported.manifest.unwrap().digest.to_string()
    );
    // Something else than an index is not overwritten.
    std::fs::File::create(layout.join("index.json")).unwrap();
    let output = Output::parse(&format!("type=oci,tar=false,dest={}", layout.display()))
        .unwrap()
        .0;
    assert!(matches!(
        export(&store, &output, &source, None),
        Err(ExportError::Conflict { .. })
    ));
}

#[test]
fn a_failed_output_leaves_no_file() {
    let (dir, store) = store();
    let mut source = image(&store, &[]);
    source.layers.push(DiffId::of(b"gone"));
    let path = dir.path().join("out.tar");
    for spec in ["type=docker", "type=oci", "type=tar"] {
        let output = Output::parse(&format!("{spec},dest={}", path.display()))
            .unwrap()
            .0;
        assert!(export(&store, &output, &source, None).is_err(), "{spec}");
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "only the store"
    );
    let missing = Output::parse(&format!(
        "type=oci,dest={}",
        dir.path().join("no/x.tar").display()
    ))
    .unwrap()
    .0;
    assert!(matches!(
        check(&missing, ONE),
        Err(ExportError::Destination { .. })
    ));
    let full = Output::parse("type=docker,dest=/dev/full").unwrap().0;
    let error = export(&store, &full, &image(&store, &[]), None).unwrap_err();
    assert!(matches!(error, ExportError::Write { .. }), "{error}");
}

#[test]
fn several_images_are_saved_in_one_archive_with_shared_layers_once() {
    let (dir, store) = store();
    let source = image(&store, &["docker.io/library/a:1"]);
    let mut other = source.clone();
    other.layers.pop();
    other.config = crate::registry::fixture::config_of(&other.layers);
    source.commit(&store).unwrap();
    crate::image::commit(
        &store,
        &other.config,
        None,
        &[],
        &["docker.io/library/b:1".to_owned()],
    )
    .unwrap();
    let stored = ["a:1", "b:1"].map(|name| crate::image::find(&store, name).unwrap());
    let ids = stored.each_ref().map(|image| image.id);
    let images = stored.map(|image| ExportImage::from_stored(image, Vec::new()).unwrap());
    let path = dir.path().join("saved.tar");
    save(
        &store,
        &Destination::File(path.clone()),
        &images,
        Lists::DockerToo,
        &[],
    )
    .unwrap();
    let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .collect();
    // Four documents, two directories, two manifests, two configs, two layers.
    assert_eq!(names.len(), 12, "{names:?}");

    let (_dir, target) = crate::registry::fixture::store();
    let platform = frontend::Platform::new("linux", "amd64", None);
    let loaded = crate::archive::load(&target, crate::archive::Input::Path(&path), &platform).unwrap();
    assert_eq!(loaded.len(), 2);
    let prefix = &ids[0].hex()[..12];
    let found = crate::image::find(&target, prefix).unwrap();
    assert_eq!(found.id, ids[0]);
    assert!(found.names().eq(&source.names));
    assert!(found.size_bytes(&target).unwrap() > 240_000);
}

/// Puts a third layer on the usual image: links, modes, a whiteout, a second name of a file.
fn with_links(store: &Store) -> ExportImage {
    let mut image = image(store, &[]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, mode: u32, target: Option<&str>, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_100_000_000);
        header.set_size(bytes.len() as u64);
        match target {
            Some(target) => builder.append_link(&mut header, name, target).unwrap(),
            None => builder.append_data(&mut header, name, bytes).unwrap(),
        }
    };
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    add(Directory, "closed", 0o500, None, b"");
    add(Regular, "closed/tool", 0o4755, None, b"tool");
    add(Link, "closed/twin", 0o4755, Some("closed/tool"), b"");
    add(Symlink, "to-etc", 0o777, Some("/etc"), b"");
    add(Regular, ".wh.long", 0o644, None, b"");
    let tar = builder.into_inner().unwrap();
    let layers = store.layers();
    let layer = layers
        .import(
            &tar[..],
            None,
            cache::layer::Limits::default(),
            store.incomplete(),
        )
        .unwrap();
    image.layers.push(layer.diff_id());
    image.config = crate::registry::fixture::config_of(&image.layers);
    image
}

#[test]
fn the_flat_tar_has_the_merged_files() {
    let (dir, store) = store();
    let source = with_links(&store);
    let path = dir.path().join("flat.tar");
    write(&store, &source, "type=tar", &path);
    let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
    let entries: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let link = entry
                .link_name()
                .unwrap()
                .map(|link| format!(" -> {}", link.display()));
            let (header, path) = (entry.header(), entry.path().unwrap());
            format!(
                "{} {:o}{}",
                path.display(),
                header.mode().unwrap(),
                link.unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(
        entries,
        [
            "app 644",
            "closed/ 500",
            "closed/tool 4755",
            "closed/twin 4755 -> closed/tool",
            "etc/ 755",
            "etc/base 644",
            "to-etc 777 -> /etc",
        ]
    );
    let output = Output::parse(&format!("type=tar,dest={}", path.display()))
        .unwrap()
        .0;
    export(&store, &output, &source, Some(7)).unwrap();
    let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
    assert!(
        archive
            .entries()
            .unwrap()
            .all(|entry| entry.unwrap().header().mtime().unwrap() == 7)
    );
}

#[test]
fn files_are_merged_into_a_directory_and_never_through_a_link() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let (dir, store) = store();
    let source = with_links(&store);
    let (dest, outside) = (dir.path().join("out"), dir.path().join("outside"));
    for path in [&dest, &outside] {
        std::fs::create_dir(path).unwrap();
    }
    symlink(&outside, dest.join("etc")).unwrap();
    symlink(outside.join("app"), dest.join("app")).unwrap();
    std::fs::File::create(dest.join("mine")).unwrap();
    // Twice: what the first one wrote must not be in the way of the second.
    for _ in 0..2 {
        write(&store, &source, "type=local", &dest);
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(std::fs::read(dest.join("etc/base")).unwrap(), b"base\n");
    assert_eq!(std::fs::read(dest.join("app")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(
        std::fs::read_link(dest.join("to-etc")).unwrap(),
        Path::new("/etc")
    );
    let (tool, twin) = (dest.join("closed/tool"), dest.join("closed/twin"));
    let (tool, twin) = (std::fs::metadata(tool).unwrap(), std::fs::metadata(twin).unwrap());
    assert_eq!(
        (tool.ino(), tool.mode() & 0o7777, tool.mtime()),
        (twin.ino(), 0o4755, 1_100_000_000)
    );
    assert_eq!(
        std::fs::metadata(dest.join("closed")).unwrap().mode() & 0o7777,
        0o500
    );
    let mut names: Vec<_> = std::fs::read_dir(&dest)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["app", "closed", "etc", "mine", "to-etc"]);

    std::fs::remove_file(dest.join("app")).unwrap();
    std::fs::create_dir(dest.join("app")).unwrap();
    let output = Output::parse(dest.to_str().unwrap()).unwrap().0;
    assert!(
        export(&store, &output, &source, None).is_err(),
        "a directory is not removed for a file"
    );
    assert!(dest.join("app").is_dir());
}
