//! Texts of `-o` in, outputs or errors out.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn outputs_are_understood() {
    let file = |path: &str| Destination::File(path.into());
    let image = |codec, is_explicit| ImageOptions {
        names: vec![],
        compression: Compression {
            codec,
            is_explicit,
            force: false,
        },
        oci_types: true,
        oci_artifact: true,
        annotations: Annotations::default(),
        since: vec![],
        older: Older::default(),
    };
    let local = || Output::Local {
        dest: "out".into(),
        split: true,
        prefix: String::new(),
    };
    let tar = |dest, split| Output::Tar {
        dest,
        split,
        prefix: String::new(),
    };
    let engine = |wanted| Output::Engine {
        image: image(Codec::None, false),
        wanted,
    };
    for (text, expected) in [
        ("out", local()),
        ("-", tar(Destination::Stdout, true)),
        ("type=local,dest=out", local()),
        ("type=tar,platform-split=false", tar(Destination::Stdout, false)),
        ("dest=a.tar,type=tar", tar(file("a.tar"), true)),
        ("type=cacheonly", Output::CacheOnly),
        ("type=docker", engine(Wanted::Any)),
        (
            "type=docker,context=far",
            engine(Wanted::Context("far".to_owned())),
        ),
        (
            "type=image,\"name=a,b:1\"",
            Output::Image {
                names: vec![
                    "docker.io/library/a:latest".into(),
                    "docker.io/library/b:1".into(),
                ],
            },
        ),
        (
            "type=oci,dest=a.tar",
            Output::OciArchive {
                dest: file("a.tar"),
                image: image(gzip(), false),
            },
        ),
        (
            "type=oci,dest=a,tar=false,compression=zstd",
            Output::OciDirectory {
                dest: "a".into(),
                image: image(zstd(), true),
            },
        ),
        (
            "type=docker,dest=-",
            Output::DockerArchive {
                dest: Destination::Stdout,
                image: image(Codec::None, false),
            },
        ),
        (
            "type=docker,dest=-,\"since=app:1, app:2\"",
            Output::DockerArchive {
                dest: Destination::Stdout,
                image: ImageOptions {
                    since: vec!["app:1".to_owned(), "app:2".to_owned()],
                    ..image(Codec::None, false)
                },
            },
        ),
        (
            "type=oci,compression=gzip,compression-level=9",
            Output::OciArchive {
                dest: Destination::Stdout,
                image: image(Codec::Gzip { level: 9 }, true),
            },
        ),
    ] {
        assert_eq!(Output::parse(text), Ok((expected, Times::default())), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_an_error() {
    for (text, expected) in [
        ("", "invalid output ``"),
        ("type=oci,dest", "invalid output"),
        ("dest=x", "invalid output"),
        ("type=oci,\"dest=x", "invalid output"),
        ("type=zip", "unknown output type `zip`"),
        ("type=local", "needs dest=DIRECTORY"),
        ("type=oci,tar=false", "needs dest=DIRECTORY"),
        ("type=oci,dst=x", "output type `oci` has no attribute `dst`"),
        (
            "type=local,dest=x,compression=gzip",
            "has no attribute `compression`",
        ),
        ("type=oci,tar=maybe", "expected true or false"),
        ("type=oci,compression=lz4", "expected gzip, zstd or uncompressed"),
        ("type=oci,compression=estargz", "isn't supported yet"),
        ("type=oci,compression-level=10", "expected 0 to 9"),
        (
            "type=oci,compression=zstd,compression-level=-1",
            "expected 1 to 22",
        ),
        (
            "type=docker,dest=x,compression-level=1",
            "the layers are not compressed",
        ),
        ("type=image,compression=zstd", "has no attribute `compression`"),
        ("type=registry,unpack=true", "`unpack` isn't supported yet"),
        ("type=docker,since=app:1", "`since` needs dest=FILE"),
        (
            "type=oci,since=app:1",
            "output type `oci` has no attribute `since`",
        ),
        ("type=local,dest=x,mode=delete", "`mode` isn't supported yet"),
        (
            "type=oci,annotation-layer.a=b",
            "unknown annotation level `layer`",
        ),
        (
            "type=local,dest=x,annotation.a=b",
            "has no attribute `annotation`",
        ),
        ("type=image,name=A", "must be lowercase"),
    ] {
        let error = Output::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn times_are_an_outputs_own() {
    let times = |text: &str| Output::parse(text).map(|(_, times)| times);
    let at = |epoch, rewrite| Ok(Times { epoch, rewrite });
    assert_eq!(times("type=oci,source-date-epoch=7"), at(Epoch::At(7), false));
    assert_eq!(times("type=tar,source-date-epoch="), at(Epoch::Off, false));
    assert_eq!(
        times("type=image,rewrite-timestamp=true"),
        at(Epoch::OfBuild, true)
    );
    for (text, expected) in [
        ("type=oci,source-date-epoch=now", "invalid value `now`"),
        (
            "type=image,rewrite-timestamp=true,unpack=true",
            "conflicts with unpack",
        ),
        ("type=cacheonly,rewrite-timestamp=true", "no attribute"),
    ] {
        let error = times(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn annotations_keep_their_capitals_and_an_outputs_own_win() {
    use super::super::annotations::Level;
    let (mut output, _) = Output::parse("type=oci,annotation.Org.A=own,TAR=true").unwrap();
    let mut of_build = Annotations::default();
    of_build.add_flag("Org.A=build").unwrap();
    of_build.add_flag("b=build").unwrap();
    output.annotate(&of_build);
    let found = output
        .image_options()
        .unwrap()
        .annotations
        .at(Level::Manifest, None);
    assert_eq!(
        serde_json::to_string(&found).unwrap(),
        r#"{"Org.A":"own","b":"build"}"#
    );
}

#[test]
fn images_are_pushed_as_they_are_told_to() {
    let check = |text: &str, names: &[&str], codec: Codec, naming: Naming| {
        let image = match Output::parse(text) {
            Ok((Output::Registry { image, naming: found }, _)) if found == naming => image,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(
            (&image.names[..], image.compression.codec),
            (
                &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..],
                codec
            ),
            "{text}"
        );
    };
    let naming = |by_digest, canonical| Naming { by_digest, canonical };
    let name = "docker.io/library/a:latest";
    check(
        "type=registry,name=a,compression=zstd",
        &[name],
        zstd(),
        naming(false, false),
    );
    check("type=registry,push=true", &[], gzip(), naming(false, false));
    check("type=image,push=true", &[], gzip(), naming(false, false));
    check(
        "type=image,name=a,push-by-digest=true",
        &[name],
        gzip(),
        naming(true, false),
    );
    check(
        "type=image,push=true,name-canonical=true",
        &[],
        gzip(),
        naming(false, true),
    );
}
