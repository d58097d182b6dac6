//! The commands over a small store: what they print, what they change, and what they refuse.

use cache::index::ImageName;
use cache::{DiffId, Digest, Store};
use clap::Parser;
use serde_json::json;

use super::{history, images, inspect, rmi, tag};
use crate::cli::{Cli, Command};
use crate::report::Failure;

/// 2024-01-02T00:00:00Z, two hours after the newer image was made.
const NOW: i64 = 1_704_153_600;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    app: Digest,
    base: Digest,
}

/// A store with `app:1` (also `x.io/team/app:2`, as pulled) and an older image without a name. Their layers were never
/// fetched, so that sizes are 0.
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let put = |created: &str, cmd: &str| {
        let config = json!({
            "created": created, "author": "me", "architecture": "amd64", "os": "linux",
            "config": {"Env": ["PATH=/bin", "A=1"], "Cmd": [cmd], "Labels": {"k": "v"}},
            "rootfs": {"type": "layers", "diff_ids": [DiffId::of(b"one"), DiffId::of(b"two")]},
            "history": [
                {"created": "2023-12-01T00:00:00Z", "created_by": "COPY rootfs /", "comment": "ashlar"},
                {"created": created, "created_by": "ENV A=1", "comment": "ashlar", "empty_layer": true},
                {"created": created, "created_by": format!("RUN {}", "long ".repeat(20)), "comment": "ashlar"},
            ],
        });
        store
            .blobs()
            .put(config.to_string().as_bytes(), store.incomplete())
            .unwrap()
    };
    let app = put("2024-01-01T22:00:00Z", "app");
    let base = put("2023-12-01T00:00:00Z", "base");
    let manifest = Digest::of(b"manifest");
    for (name, config, manifest) in [
        ("docker.io/library/app:1", app, None),
        ("x.io/team/app:2", app, Some(manifest)),
        (base.to_string().as_str(), base, None),
    ] {
        let name = name.to_owned();
        store
            .index()
            .put_image(&ImageName {
                name,
                config,
                manifest,
                variants: Vec::new(),
                created_unix: NOW,
            })
            .unwrap();
    }
    Fixture {
        _dir: dir,
        store,
        app,
        base,
    }
}

/// Runs a command line and returns its stdout, or how it fails.
fn ashlar(store: &Store, argv: &[&str]) -> Result<String, Failure> {
    let command = Cli::try_parse_from(["ashlar"].iter().chain(argv))
        .unwrap()
        .command;
    let command = match command {
        Command::Image(command) => command.flatten(),
        command => command,
    };
    match command {
        Command::Images(args) => images::images(&args, store, NOW),
        Command::History(args) => history::history(&args, store, NOW),
        Command::Inspect(args) => inspect::inspect(&args, store),
        Command::Tag(args) => tag::tag(&args, store, NOW).map(|()| String::new()),
        Command::Rmi(args) => {
            let mut outcome = rmi::rmi(&args, store);
            outcome.failures.pop().map_or(Ok(outcome.text), Err)
        }
        other => panic!("{other:?} needs more than a store"),
    }
}

fn check(store: &Store, argv: &[&str], expected: &str) {
    assert_eq!(ashlar(store, argv).unwrap(), expected, "{argv:?}");
}

fn check_fails(store: &Store, argv: &[&str], expected: &str, code: u8) {
    let failure = ashlar(store, argv).unwrap_err();
    assert!(
        failure.render(false).contains(expected),
        "{argv:?}: {}",
        failure.render(false)
    );
    assert_eq!(failure.exit_code(), code, "{argv:?}");
}

#[test]
fn images_are_listed() {
    let Fixture { store, app, base, .. } = &fixture();
    let (short_app, short_base) = (&app.hex()[..12], &base.hex()[..12]);
    let table = ashlar(store, &["images"])
        .unwrap()
        .replace(short_app, "<app-id>    ")
        .replace(short_base, "<base-id>   ");
    insta::assert_snapshot!(table, @r"
    REPOSITORY      TAG       IMAGE ID       CREATED       SIZE
    app             1         <app-id>       2 hours ago   0B
    x.io/team/app   2         <app-id>       2 hours ago   0B
    <none>          <none>    <base-id>      4 weeks ago   0B
    ");
    check(
        store,
        &["image", "ls", "-q"],
        &format!("{short_app}\n{short_base}\n"),
    );
    check(store, &["images", "-q", "--no-trunc", "app"], &format!("{app}\n"));
    check(
        store,
        &["images", "--format", "{{.Repository}}:{{.Tag}}"],
        "app:1\nx.io/team/app:2\n<none>:<none>\n",
    );
    check(
        store,
        &["images", "--format", "table {{.Tag}}\\t{{.Size}}", "app"],
        "TAG       SIZE\n1         0B\n",
    );
    check(
        store,
        &["images", "-f", "dangling=true", "--format", "{{.Repository}}"],
        "<none>\n",
    );
    check(
        store,
        &[
            "images",
            "-f",
            "reference=*/*/app:*",
            "--format",
            "{{.Repository}}",
        ],
        "x.io/team/app\n",
    );
    check(
        store,
        &["images", "-f", "reference=a*", "--format", "{{.Tag}}"],
        "1\n",
    );
    let filtered = |filters: &[&str], expected: &str| {
        let mut argv = vec!["images", "--format", "{{.Repository}}"];
        argv.extend(filters.iter().flat_map(|filter| ["-f", filter]));
        check(store, &argv, expected);
    };
    filtered(&["reference=a*", "reference=*/*/*"], "app\nx.io/team/app\n");
    filtered(&["reference=a*", "dangling=true"], "");
    filtered(&["label=k", "reference=a*"], "app\n");
    filtered(&["label=k=v", "dangling=true"], "<none>\n");
    filtered(&["label=k=w"], "");
    filtered(&["label=z"], "");
    filtered(&["before=app:1"], "<none>\n");
    filtered(&["since=app:1"], "");
    filtered(&[&format!("since={}", base.hex())], "app\nx.io/team/app\n");
    check_fails(
        store,
        &["images", "-f", "before=nothing"],
        "no such image: nothing",
        1,
    );
    check(store, &["images", "nothing", "-q"], "");
    let digests = ashlar(store, &["images", "--digests", "x.io/team/app"]).unwrap();
    assert!(
        digests.contains(&Digest::of(b"manifest").to_string()),
        "{digests}"
    );
    let json = ashlar(store, &["images", "--format", "json", "app"]).unwrap();
    assert!(json.starts_with(r#"{"Repository":"app","Tag":"1""#), "{json}");
    check_fails(store, &["images", "-f", "x=y"], "invalid filter `x=y`", 2);
}

#[test]
fn history_is_newest_first() {
    let Fixture { store, app, .. } = &fixture();
    let table = ashlar(store, &["history", "app:1"])
        .unwrap()
        .replace(&app.hex()[..12], "<app-id>    ");
    insta::assert_snapshot!(table, @r"
    IMAGE          CREATED       CREATED BY                                      SIZE      COMMENT
    <app-id>       2 hours ago   RUN long long long long long long long long …   0B        ashlar
    <missing>      2 hours ago   ENV A=1                                         0B        ashlar
    <missing>      4 weeks ago   COPY rootfs /                                   0B        ashlar
    ");
    check(
        store,
        &["history", "-q", "--no-trunc", "app:1"],
        &format!("{app}\n<missing>\n<missing>\n"),
    );
    check(
        store,
        &[
            "history",
            "--human=false",
            "--format",
            "{{.CreatedAt}} {{.Size}}",
            "app:1",
        ],
        "2024-01-01T22:00:00Z 0\n2024-01-01T22:00:00Z 0\n2023-12-01T00:00:00Z 0\n",
    );
}

#[test]
fn inspect_shows_fields_as_docker_does() {
    let Fixture { store, app, .. } = &fixture();
    // As docker 28 shows them: by the types of its structures, whether an image has them or not.
    for (format, expected) in [
        ("{{.ID}}", app.to_string().as_str()),
        ("{{.Variant}}|{{.OsVersion}}|{{.GraphDriver.Name}}", "||ashlar"),
        ("{{.GraphDriver.Data.MergedDir}}", "<no value>"),
        ("{{.Config.Volumes}}{{.Config.ExposedPorts}}", "map[]map[]"),
        (
            "{{.Config.Entrypoint}}{{.Config.Shell}}{{.Config.OnBuild}}",
            "[][][]",
        ),
        (
            "{{.Config.User}}{{.Config.StopSignal}}|{{.Config.ArgsEscaped}}",
            "|false",
        ),
        ("{{.Config.Healthcheck}}", "<nil>"),
        (
            "{{with .Config}}{{.Volumes}}{{end}}{{$c := .Config}}{{$c.Shell}}",
            "map[][]",
        ),
        ("{{.Config.Labels.Env}}", "<no value>"),
        ("{{json .Config.Volumes}} {{len .Config.Volumes}}", "null 0"),
        (
            "{{json .Config}}",
            r#"{"Env":["PATH=/bin","A=1"],"Cmd":["app"],"Labels":{"k":"v"}}"#,
        ),
    ] {
        check(
            store,
            &["inspect", "-f", format, "app:1"],
            &format!("{expected}\n"),
        );
    }
    for (format, expected) in [
        ("{{.VirtualSize}}", "no field `.VirtualSize`"),
        ("{{.ContainerConfig}}", "no field `.ContainerConfig`"),
        ("{{.Config.Hostname}}", "no field `.Config.Hostname`"),
        (
            "{{with .Config}}{{.Nothing}}{{end}}",
            "no field `.Config.Nothing`",
        ),
    ] {
        check_fails(store, &["inspect", "-f", format, "app:1"], expected, 2);
    }
}

#[test]
fn inspect_speaks_dockers_json() {
    let Fixture { store, app, .. } = &fixture();
    let text = ashlar(store, &["inspect", "app:1"]).unwrap();
    insta::with_settings!({filters => vec![(r"sha256:[0-9a-f]{64}", "<digest>")]}, {
        insta::assert_snapshot!(text, @r#"
        [
            {
                "Id": "<digest>",
                "RepoTags": [
                    "app:1",
                    "x.io/team/app:2"
                ],
                "RepoDigests": [
                    "x.io/team/app@<digest>"
                ],
                "Parent": "",
                "Comment": "ashlar",
                "Created": "2024-01-01T22:00:00Z",
                "DockerVersion": "",
                "Author": "me",
                "Architecture": "amd64",
                "Os": "linux",
                "Size": 0,
                "GraphDriver": {
                    "Data": null,
                    "Name": "ashlar"
                },
                "RootFS": {
                    "Type": "layers",
                    "Layers": [
                        "<digest>",
                        "<digest>"
                    ]
                },
                "Metadata": {
                    "LastTagTime": "2024-01-02T00:00:00Z"
                },
                "Config": {
                    "Cmd": [
                        "app"
                    ],
                    "Entrypoint": null,
                    "Env": [
                        "PATH=/bin",
                        "A=1"
                    ],
                    "Labels": {
                        "k": "v"
                    },
                    "OnBuild": null,
                    "User": "",
                    "Volumes": null,
                    "WorkingDir": ""
                }
            }
        ]
        "#);
    });
    check(
        store,
        &["inspect", "-f", "{{.Id}} {{.Config.Env}}", &app.hex()[..8]],
        &format!("{app} [PATH=/bin A=1]\n"),
    );
    check(
        store,
        &["inspect", "-f", "{{json .Config.Labels}}", "app:1", "app:1"],
        "{\"k\":\"v\"}\n{\"k\":\"v\"}\n",
    );
    check_fails(store, &["inspect", "nothing"], "no such image: nothing", 1);
    check_fails(store, &["inspect", "app"], "no such image: app", 1);
}

#[test]
fn names_are_given_and_taken() {
    let Fixture { store, app, base, .. } = &fixture();
    let by_digest = format!("x.io/team/app@{}", Digest::of(b"manifest"));
    check(store, &["tag", &base.hex()[..12], "base:1"], "");
    check(store, &["tag", &by_digest, "base:2"], "");
    check(
        store,
        &["inspect", "-f", "{{.Id}}", "base:1", "base:2"],
        &format!("{base}\n{app}\n"),
    );
    // The name goes to another image.
    check(store, &["tag", "app:1", "base:1"], "");
    check(
        store,
        &["inspect", "-f", "{{.Id}}", "base:1"],
        &format!("{app}\n"),
    );
    check_fails(store, &["tag", "app:1", "Bad"], "invalid image name `Bad`", 2);
    check_fails(store, &["tag", "nothing", "a"], "no such image: nothing", 1);
    check_fails(store, &["rmi", &app.hex()[..12]], "has 4 names", 1);
    check(store, &["rmi", "app:1"], "Untagged: app:1\n");
    check_fails(store, &["rmi", "app:1"], "no such image: app:1", 1);
    check(store, &["rmi", "-f", "app:1"], "");
    check(
        store,
        &["image", "rm", "--force", &app.hex()[..12]],
        &format!("Untagged: base:1\nUntagged: base:2\nUntagged: x.io/team/app:2\nDeleted: {app}\n"),
    );
    check(store, &["rmi", &base.to_string()], &format!("Deleted: {base}\n"));
    check(store, &["images", "-q"], "");
}

#[test]
fn with_its_last_name_an_image_goes() {
    let Fixture { store, base, .. } = &fixture();
    // Built again without a name, it is kept by its ID too.
    check(store, &["tag", &base.to_string(), "base:1"], "");
    check(
        store,
        &["rmi", "base:1"],
        &format!("Untagged: base:1\nDeleted: {base}\n"),
    );
    check_fails(store, &["inspect", &base.to_string()], "no such image", 1);
}

#[test]
fn a_damaged_image_says_so_and_can_be_forgotten() {
    let Fixture { store, app, .. } = &fixture();
    let path = store.root().join("blobs/sha256").join(app.hex());
    std::fs::remove_file(path).unwrap();
    check_fails(
        store,
        &["inspect", "app:1"],
        "cannot read the config of image sha256:",
        3,
    );
    check(
        store,
        &["rmi", "-f", &app.hex()[..12]],
        &format!("Untagged: app:1\nUntagged: x.io/team/app:2\nDeleted: {app}\n"),
    );
}
