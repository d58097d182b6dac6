//! What is written, as other tools read it.

use std::path::Path;

use super::*;
use crate::registry::fixture::{has_tool, image, run, store};

fn write(store: &Store, image: &ExportImage, spec: &str, dest: &Path) -> Exported {
    let output = Output::parse(&format!("{spec},dest={}", dest.display())).unwrap();
    check(&output).unwrap();
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
    let output = Output::parse(&format!("type=oci,tar=false,dest={}", layout.display())).unwrap();
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
        let output = Output::parse(&format!("{spec},dest={}", path.display())).unwrap();
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
    .unwrap();
    assert!(matches!(check(&missing), Err(ExportError::Destination { .. })));
    let full = Output::parse("type=docker,dest=/dev/full").unwrap();
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
    crate::image::commit(&store, &source.config, &source.names).unwrap();
    crate::image::commit(&store, &other.config, &["docker.io/library/b:1".to_owned()]).unwrap();
    let images = ["a:1", "b:1"].map(|name| crate::image::find(&store, name).unwrap());
    let path = dir.path().join("saved.tar");
    save(&store, &Destination::File(path.clone()), &images).unwrap();
    let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .collect();
    // Four documents, two directories, two manifests, two configs, two layers.
    assert_eq!(names.len(), 12, "{names:?}");

    let (_dir, target) = crate::registry::fixture::store();
    let loaded = crate::archive::load(&target, crate::archive::Input::Path(&path), "linux/amd64").unwrap();
    assert_eq!(loaded.len(), 2);
    let prefix = &images[0].id.hex()[..12];
    let found = crate::image::find(&target, prefix).unwrap();
    assert_eq!((found.id, &found.names), (images[0].id, &source.names));
    assert!(found.size_bytes(&target).unwrap() > 240_000);
}
