//! What is typed, with which environment, and what it means or why it is refused: tables.

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn environment(vars: &[(&str, &str)]) -> Environment {
    Environment {
        vars: vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        root: false,
    }
}

fn settle(argv: &str, vars: &[(&str, &str)]) -> Result<(BuildOptions, Vec<String>), Failure> {
    let words = ["ashlar", "build"].into_iter().chain(argv.split_whitespace());
    let Command::Build(args) = Cli::try_parse_from(words).unwrap().command else {
        panic!("not a build: {argv}");
    };
    build(&args, Some(Path::new("/store")), &environment(vars))
}

fn check(argv: &str, vars: &[(&str, &str)], matches: impl Fn(&BuildOptions) -> bool) {
    let (options, _) = settle(argv, vars).unwrap();
    assert!(matches(&options), "{argv}: {options:?}");
}

fn check_refused(argv: &str, message: &str) {
    let failure = settle(argv, &[]).unwrap_err();
    assert_eq!(failure.exit_code(), 2, "{argv}");
    let shown = failure.render(false);
    assert!(shown.contains(message), "{argv}: {shown}");
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn a_bare_build_has_dockers_defaults() {
    check(".", &[], |options| {
        options.context == ContextSource::Directory(".".into())
            && options.dockerfile == DockerfileSource::InContext
            && options.progress == Mode::Auto
            && options.network == Network::Default
            && options.tags.is_empty()
            && !options.no_cache
            && !options.pull
            && options.platforms == [host_platform()]
    });
}

#[test]
fn cache_mounts_are_the_projects_unless_a_name_is_given() {
    // hardening T32
    let named = |name: &str| CacheNs::Named(name.to_owned());
    let expect = |argv: &str, variable: &str, expected: &CacheNs| {
        check(argv, &[("ASHLAR_CACHE_NS", variable)], |options| {
            options.cache_ns == *expected
        });
    };
    expect(".", "", &CacheNs::Project);
    expect(".", "team", &named("team"));
    expect("--cache-ns other .", "team", &named("other"));
    expect("--cache-ns= .", "team", &CacheNs::Project);
    expect("--cache-ns global .", "team", &CacheNs::Global);
    expect(".", "global", &CacheNs::Global);
    expect("--cache-ns ../x .", "", &named("../x"));
    check_refused(
        "--cache-ns=a\u{1b}[2J .",
        "invalid name of a cache namespace `a\\u{1b}[2J`",
    );
    check_refused(
        &format!("--cache-ns {} .", "x".repeat(129)),
        "up to 128 bytes without control characters",
    );
}

#[test]
fn flags_and_environment_settle() {
    check("-", &[], |o| o.context == ContextSource::Stdin);
    check("-f - .", &[], |o| o.dockerfile == DockerfileSource::Stdin);
    check("-f a/B .", &[], |o| {
        o.dockerfile == DockerfileSource::File("a/B".into())
    });
    check("-t app -t x.io/a/b:2 -t app:latest .", &[], |o| {
        o.tags == ["docker.io/library/app:latest", "x.io/a/b:2"]
    });
    check(
        "--build-arg A=1 --build-arg B --build-arg C --build-arg A=2 .",
        &[("B", "b")],
        |o| o.build_args == pairs(&[("A", "2"), ("B", "b")]),
    );
    check(".", &[("SOURCE_DATE_EPOCH", "7")], |o| {
        o.build_args == pairs(&[("SOURCE_DATE_EPOCH", "7")])
    });
    check(
        "--build-arg SOURCE_DATE_EPOCH=8 .",
        &[("SOURCE_DATE_EPOCH", "7")],
        |o| o.build_args == pairs(&[("SOURCE_DATE_EPOCH", "8")]),
    );
    check("--label a=b=c --label d .", &[], |o| {
        o.labels == pairs(&[("a", "b=c"), ("d", "")])
    });
}

#[test]
fn more_flags_settle() {
    check("--no-cache .", &[], |o| o.no_cache);
    check("--no-cache=false .", &[], |o| !o.no_cache);
    check("--no-cache-filter a,b --no-cache-filter c .", &[], |o| {
        o.no_cache_filter == ["a", "b", "c"]
    });
    check(".", &[("BUILDKIT_PROGRESS", "plain")], |o| {
        o.progress == Mode::Plain
    });
    check("-q .", &[("BUILDKIT_PROGRESS", "plain")], |o| {
        o.progress == Mode::Quiet
    });
    check("--network none .", &[], |o| o.network == Network::None);
    check("--network host --allow network.host .", &[], |o| {
        o.network == Network::Host && o.allowed.host_network
    });
    check(
        "--add-host a:1.2.3.4 --add-host b=[::1] --add-host c:::2 .",
        &[],
        |o| o.extra_hosts == pairs(&[("a", "1.2.3.4"), ("b", "::1"), ("c", "::2")]),
    );
    check(
        "--allow security.insecure,device=a/b=c --allow device=d .",
        &[],
        |o| {
            let names = ["a/b=c".to_owned(), "d".to_owned()];
            o.allowed.insecure
                && !o.allowed.host_network
                && o.allowed.devices == AllowedDevices::Named(names.into())
        },
    );
    check("--allow device=a --allow device .", &[], |o| {
        o.allowed.devices == AllowedDevices::All
    });
    check(".", &[], |o| o.allowed == Allowed::default());
    check("--add-host a:host-gateway .", &[], |o| o.reaches_host());
    check("--add-host a:1.2.3.4 .", &[], |o| !o.reaches_host());
    check("--shm-size 1.5g .", &[], |o| {
        o.limits.shm_size_bytes == Some(3 << 29)
    });
    check("--shm-size 64MiB .", &[], |o| {
        o.limits.shm_size_bytes == Some(64 << 20)
    });
    check(
        "--provenance=false --sbom=false --push=false --load=false .",
        &[],
        |o| o.outputs.is_empty() && o.load.is_none(),
    );
    let until = |stage: &str, step| {
        let stage = stage.to_owned();
        Some(frontend::Until { stage, step })
    };
    check("--until build:2 .", &[], |o| o.until == until("build", Some(2)));
    check("--until build .", &[], |o| o.until == until("build", None));
    check("--until :3 .", &[], |o| o.until == until("", Some(3)));
    check("--platform local .", &[], |o| o.platforms == [host_platform()]);
    check(
        "--platform linux/arm64,linux/arm/v7 --platform arm64 .",
        &[],
        |o| {
            o.platforms.iter().map(ToString::to_string).collect::<Vec<_>>() == ["linux/arm64", "linux/arm/v7"]
        },
    );
    check("-o - .", &[], BuildOptions::writes_to_stdout);
    check("-o type=oci,dest=- .", &[], BuildOptions::writes_to_stdout);
    check("-o ./- .", &[], |o| !o.writes_to_stdout());
    check("-o a -o type=oci,dest=b .", &[], |o| {
        o.outputs == ["a", "type=oci,dest=b"]
    });
}

#[test]
fn an_engine_can_be_named() {
    check("--load .", &[], |o| o.load == Some(Wanted::Any));
    check("--load=docker .", &[], |o| o.load == Some(Wanted::Docker));
    check("--load=podman .", &[], |o| o.load == Some(Wanted::Podman));
}

#[test]
fn named_contexts_have_kinds() {
    let of = |value: &str| {
        settle(&format!("--build-context n={value} ."), &[]).map(|(o, _)| o.named_contexts[0].1.clone())
    };
    let layout = |dir: &str, reference: Option<&str>| NamedSource::OciLayout {
        dir: dir.into(),
        reference: reference.map(str::to_owned),
    };
    assert_eq!(of("./rootfs"), Ok(NamedSource::Directory("./rootfs".into())));
    assert_eq!(
        of("docker-image://alpine:3"),
        Ok(NamedSource::Image("alpine:3".into()))
    );
    assert_eq!(
        of("https://h/a.tar?x.git"),
        Ok(NamedSource::Http("https://h/a.tar?x.git".into()))
    );
    assert_eq!(of("oci-layout:///a/b"), Ok(layout("/a/b", None)));
    assert_eq!(of("oci-layout://a:1/b:2"), Ok(layout("a:1/b", Some("2"))));
    assert_eq!(
        of("oci-layout://b@sha256:00"),
        Ok(layout("b", Some("@sha256:00")))
    );
    let git = of("https://x/y.git#main:sub");
    assert!(matches!(git, Ok(NamedSource::Git(git)) if git.reference == "main" && git.subdir == "sub"));
    check_refused(
        "--build-context n=target:x .",
        "what `--build-context n` names isn't",
    );
    check_refused("--build-context n= .", "expected NAME=VALUE");
    check_refused(
        "--build-context n=oci-layout:// .",
        "expected oci-layout://DIR[:TAG]",
    );
}

#[test]
fn the_ceiling_is_typed_or_in_the_environment() {
    use crate::upkeep::Amount;
    let env = [
        ("ASHLAR_GC_MAX_USED_SPACE", "5g"),
        ("ASHLAR_GC_MIN_FREE_SPACE", "0"),
    ];
    check("--gc-max-used-space 20% .", &env, |options| {
        let ceiling = options.ceiling;
        (
            ceiling.max_used_space,
            ceiling.min_free_space,
            ceiling.reserved_space,
        ) == (Some(Amount::Percent(20)), Some(Amount::Bytes(0)), None)
    });
    check_refused("--gc-reserved-space 101% .", "invalid share of the disk `101%`");
}

#[test]
fn times_are_of_hours_minutes_and_seconds() {
    let check_time = |text: &str, seconds: Option<u64>| {
        let expected = seconds.map(std::time::Duration::from_secs);
        check(&format!("--timeout {text} ."), &[], |options| {
            (options.timeout, options.step_timeout) == (expected, None)
        });
        check(&format!("--step-timeout {text} ."), &[], |options| {
            (options.timeout, options.step_timeout) == (None, expected)
        });
    };
    check_time("2s", Some(2));
    check_time("1h30m5s", Some(5405));
    check_time("0", None);
    check_time("0m", None);
    for text in [
        "2",
        "s",
        "1d",
        "1m2",
        "-1s",
        "1.5s",
        "99999999999999999999s",
        "9999999999999999999h",
    ] {
        check_refused(
            &format!("--timeout={text} ."),
            &format!("invalid duration `{text}`"),
        );
    }
    check_refused("--step-timeout= .", "invalid duration ``");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for flag in ["--builder x", "--debug", "--policy x"] {
        let name = flag.split([' ', '=']).next().unwrap();
        check_refused(
            &format!("{flag} ."),
            &format!("error: `{name}` isn't supported yet\n"),
        );
    }
    // No password of an address is repeated.
    check_refused(
        "https://u:p@x/y.git?a=b",
        "error: invalid address `https://x/y.git?a=b`: unexpected query",
    );
    check_refused("-f https://x/y.git .", "a Dockerfile from a git repository isn't");
    check_refused("--until build:x .", "expected STAGE[:N]");
    check_refused("--until= .", "expected STAGE[:N]");
    check_refused("--load=containerd .", "invalid --load `containerd`");
    check_refused("--platform windows/amd64 .", "cannot build for windows/amd64");
    check_refused("--platform a/b/c/d .", "failed to parse platform");
}

#[test]
fn nonsense_is_refused() {
    check_refused("-f - -", "can't use stdin for both build context and dockerfile");
    check_refused("-t UPPER .", "invalid image name `UPPER`");
    check_refused(
        "-t a@sha256:0000000000000000000000000000000000000000000000000000000000000000 .",
        "can't have a digest",
    );
    check_refused("--annotation a .", "invalid annotation `a`");
    check_refused("--build-arg =x .", "the name is empty");
    check_refused("--label =x .", "the name is empty");
    check_refused("--progress fancy .", "invalid progress mode `fancy`");
    check_refused("-q --progress plain .", "exclude each other");
    check_refused("--network bridge .", "unknown network mode `bridge`");
    check_refused("--network host .", "--allow network.host");
    for wrong in ["security.insecure=1", "Device", "device=", "network", ""] {
        let argv = format!("--allow={wrong} .");
        check_refused(&argv, &format!("unknown entitlement `{wrong}`"));
    }
    check_refused("--allow x .", "unknown entitlement `x`");
    for bad in ["a", "a:b", ":1.2.3.4", "a:1.2.3.4.5", "a=[::1"] {
        check_refused(&format!("--add-host {bad} ."), "expected HOST:IP");
    }
    for bad in [
        "x",
        "1x",
        "1.",
        "99999999999999999999",
        "99999999999999t",
        "1.2.3g",
    ] {
        check_refused(&format!("--shm-size {bad} ."), "invalid size");
    }
}

#[test]
fn old_flags_are_noted() {
    let (options, notes) = settle("--rm --force-rm=false -m 1g --squash .", &[]).unwrap();
    // Those of limits have one.
    assert_eq!(options.limits.limits.memory_bytes, Some(1 << 30));
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| note.ends_with("has no effect")));
}

#[test]
fn the_store_is_where_the_user_wants_it() {
    let check = |flag: Option<&str>, vars: &[(&str, &str)], root: bool, expected: Option<&str>| {
        let environment = Environment {
            root,
            ..environment(vars)
        };
        let found = store_root(flag.map(Path::new), &environment).ok();
        assert_eq!(found.as_deref(), expected.map(Path::new), "{flag:?} {vars:?}");
    };
    let home = [("HOME", "/h"), ("XDG_DATA_HOME", "/x"), ("ASHLAR_ROOT", "/a")];
    check(Some("/f"), &home, true, Some("/f"));
    check(None, &home, true, Some("/a"));
    check(None, &home[..2], true, Some("/var/lib/ashlar"));
    check(None, &home[..2], false, Some("/x/ashlar"));
    check(
        None,
        &[("HOME", "/h"), ("XDG_DATA_HOME", "relative")],
        false,
        Some("/h/.local/share/ashlar"),
    );
    check(None, &[], false, None);
}
