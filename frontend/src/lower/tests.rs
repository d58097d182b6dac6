//! Dockerfiles in, graph, config and warnings out. Spec: dockerfile.md §20; each case is named by its id.
//!
//! Whole files are in `testdata/frontend`, with their results beside them; the tables hold what fits a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cache::DiffId;
use solver::graph::InputView;
use solver::op::{Exec, FileAction, FileOp, Network, Op, Source};

use crate::options::{Build, ImageRequest, Lowered, NamedContext, Options, ResolvedImage};
use crate::{Diagnostics, ImageConfig, Platform, SourceText, lower, parse, render};

fn options() -> Options {
    Options::new("linux/amd64".parse().unwrap())
}

fn with_args(args: &[(&str, &str)]) -> Options {
    let build_args = args
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Options {
        build_args,
        ..options()
    }
}

/// Any image: `base` has settings worth inheriting, `onbuild` has triggers, others are bare.
fn resolve(request: &ImageRequest) -> ResolvedImage {
    let config = match request.reference.as_str() {
        "base" => {
            r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","LANG=C"],"Cmd":["sh"],
            "Entrypoint":["/e"],"User":"me","WorkingDir":"/srv","Labels":{"a":"base"},"Hostname":"kept"},
            "history":[{"created":"2020-01-01T00:00:00Z","created_by":"base"}],"created":"2020-01-01T00:00:00Z"}"#
        }
        "onbuild" => {
            r#"{"architecture":"amd64","os":"linux","config":{"OnBuild":["ARG v=1","COPY --from=other /a /b",
            "RUN make $v"]}}"#
        }
        "badtrigger" => r#"{"config":{"OnBuild":["FROM x"]}}"#,
        _ => r#"{"architecture":"amd64","os":"linux"}"#,
    };
    ResolvedImage {
        config: ImageConfig::parse(config.as_bytes()).unwrap(),
        layers: vec![DiffId::of(request.reference.as_bytes())],
        reference: format!("docker.io/library/{}", request.reference),
    }
}

/// Lowers, answering requests; returns the result and the requests.
fn lowered(text: &str, options: &Options) -> (Result<Box<Build>, Diagnostics>, Vec<String>) {
    let (dockerfile, diagnostics) = parse("Dockerfile", text.as_bytes());
    let Some(dockerfile) = dockerfile else {
        return (Err(diagnostics), Vec::new());
    };
    let mut images = BTreeMap::new();
    let mut asked = Vec::new();
    for _ in 0..10 {
        match lower(&dockerfile, options, &images) {
            Err(diagnostics) => return (Err(diagnostics), asked),
            Ok(Lowered::Ready(build)) => return (Ok(build), asked),
            Ok(Lowered::Need(requests)) => {
                assert!(!requests.is_empty());
                for request in requests {
                    asked.push(format!(
                        "{} {:?} {}",
                        request.reference, request.kind, request.platform
                    ));
                    assert!(
                        images.insert(request.clone(), resolve(&request)).is_none(),
                        "asked again: {request:?}"
                    );
                }
            }
        }
    }
    panic!("no end of requests");
}

#[track_caller]
fn built(text: &str, options: &Options) -> Box<Build> {
    let source = SourceText::new("Dockerfile", text.as_bytes());
    lowered(text, options).0.unwrap_or_else(|diagnostics| {
        let shown: String = diagnostics
            .iter()
            .map(|finding| render(finding, &source, false))
            .collect();
        panic!("{text}\n{shown}");
    })
}

/// The build is refused, and one of the messages holds `phrase`.
#[track_caller]
fn refused(text: &str, options: &Options, phrase: &str) {
    let (result, _) = lowered(text, options);
    let Err(diagnostics) = result else {
        panic!("{text:?} is accepted")
    };
    let source = SourceText::new("Dockerfile", text.as_bytes());
    let shown: String = diagnostics
        .iter()
        .map(|finding| render(finding, &source, false))
        .collect();
    assert!(shown.contains(phrase), "{text:?}: {shown}");
}

#[track_caller]
fn ops(text: &str, options: &Options) -> Vec<Op> {
    let build = built(text, options);
    let mut ops = Vec::new();
    let mut at = build.target;
    // Down the chain of first inputs, then turned round.
    loop {
        let vertex = build.graph.vertex(at);
        ops.push(vertex.op.clone());
        match vertex.inputs.first() {
            Some(input) => at = input.vertex,
            None => break,
        }
    }
    ops.reverse();
    ops
}

/// The last RUN.
#[track_caller]
fn exec(text: &str, options: &Options) -> Exec {
    let last = ops(text, options).into_iter().rev().find_map(|op| match op {
        Op::Exec(exec) => Some(exec),
        _ => None,
    });
    last.unwrap()
}

/// The last file op.
#[track_caller]
fn file(text: &str) -> FileOp {
    let last = ops(text, &options()).into_iter().rev().find_map(|op| match op {
        Op::File(file) => Some(file),
        _ => None,
    });
    last.unwrap()
}

fn history(build: &Build) -> Vec<String> {
    let line = |entry: &crate::config::History| {
        format!(
            "{}{}",
            if entry.empty_layer { "- " } else { "+ " },
            entry.created_by
        )
    };
    build.config.history.iter().map(line).collect()
}

fn labels(build: &Build) -> Vec<String> {
    let vertices = vertices(build);
    vertices
        .iter()
        .map(|id| build.graph.vertex(*id).label.name.clone())
        .collect()
}

/// All vertices that the target needs, inputs first.
fn vertices(build: &Build) -> Vec<solver::graph::VertexId> {
    let mut seen = std::collections::BTreeSet::new();
    let mut work = vec![build.target];
    while let Some(id) = work.pop() {
        if seen.insert(id) {
            work.extend(build.graph.vertex(id).inputs.iter().map(|input| input.vertex));
        }
    }
    seen.into_iter().collect()
}

/// The graph, config and warnings as text, for snapshots.
fn describe(build: &Build, source: &SourceText) -> String {
    let mut out = String::new();
    for id in vertices(build) {
        let vertex = build.graph.vertex(id);
        let _ = writeln!(out, "{} {}", id.index(), vertex.label.name);
        for input in &vertex.inputs {
            let view = match &input.view {
                InputView::Whole => String::new(),
                InputView::Paths(selection) => format!(" {:?}", selection.patterns),
            };
            let _ = writeln!(out, "    from {}{view}", input.vertex.index());
        }
        match &vertex.op {
            Op::Source(Source::Image { reference, .. }) => {
                let _ = writeln!(out, "    image {reference}");
            }
            Op::Source(source) => {
                let _ = writeln!(out, "    source {source:?}");
            }
            Op::Exec(exec) => {
                let _ = writeln!(out, "    run {:?}", exec.args);
                let _ = writeln!(out, "    in {} as {:?} with {:?}", exec.cwd, exec.user, exec.env);
            }
            Op::File(file) => file.actions.iter().for_each(|action| {
                let _ = writeln!(out, "    {action:?}");
            }),
            Op::Merge => out.push_str("    merge\n"),
        }
    }
    let config: serde_json::Value = serde_json::from_slice(&build.config.to_json()).unwrap();
    let _ = writeln!(out, "{}", serde_json::to_string_pretty(&config).unwrap());
    build
        .warnings
        .iter()
        .for_each(|warning| out.push_str(&render(warning, source, false)));
    out
}

#[track_caller]
fn check_file(name: &str, text: &str, options: &Options) {
    let source = SourceText::new("Dockerfile", text.as_bytes());
    let shown = match lowered(text, options).0 {
        Ok(build) => describe(&build, &source),
        Err(diagnostics) => diagnostics
            .iter()
            .map(|finding| render(finding, &source, false))
            .collect(),
    };
    insta::with_settings!({
        snapshot_path => "../../../testdata/frontend",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(name, shown) });
}

#[test]
fn whole_files() {
    check_file(
        "python",
        include_str!("../../../testdata/frontend/python.Dockerfile"),
        &options(),
    );
    let text = include_str!("../../../testdata/frontend/multistage.Dockerfile");
    check_file("multistage", text, &with_args(&[("VERSION", "2.0")]));
    check_file(
        "heredocs",
        include_str!("../../../testdata/frontend/heredocs.Dockerfile"),
        &options(),
    );
    check_file(
        "mistakes",
        include_str!("../../../testdata/frontend/mistakes.Dockerfile"),
        &options(),
    );
}

#[test]
fn builds_that_are_refused() {
    let plain = options();
    let target = |target: &str| Options {
        target: Some(target.to_owned()),
        ..options()
    };
    for (id, text, options, phrase) in [
        (
            "S5",
            "FROM scratch AS build\nFROM scratch",
            &target("nope"),
            "target stage \"nope\" could not be found",
        ),
        (
            "S5b",
            "FROM scratch AS build",
            &target("bulid"),
            "(did you mean `build`?)",
        ),
        ("S6", "FROM scratch", &target("0"), "could not be found"),
        (
            "S11",
            "FROM scratch\nCOPY --from=9 a b",
            &plain,
            "invalid stage index 9",
        ),
        (
            "S11b",
            "FROM scratch\nCOPY --from=0 a b",
            &plain,
            "invalid stage index 0",
        ),
        (
            "S12",
            "FROM scratch AS a\nCOPY --from=a a b",
            &plain,
            "needs to be defined before current stage \"a\"",
        ),
        (
            "S13",
            "FROM scratch\nCOPY --from=B a b\nFROM scratch AS b\nFROM 0",
            &Options {
                target: None,
                ..options()
            },
            "",
        ),
        (
            "S18",
            "ARG x\nFROM ${x}\nFROM scratch",
            &plain,
            "base name (${x}) should not be blank",
        ),
        (
            "S19",
            "FROM $undef",
            &plain,
            "base name ($undef) should not be blank",
        ),
        (
            "S20",
            "FROM --platform=bad/x/y/z scratch",
            &plain,
            "failed to parse platform bad/x/y/z",
        ),
        (
            "empty",
            "FROM --platform=$X scratch",
            &plain,
            "empty platform value from expression $X",
        ),
        (
            "windows",
            "FROM --platform=windows/amd64 x",
            &plain,
            "platform windows/amd64 is not supported",
        ),
        (
            "S24",
            "FROM scratch\nCOPY --from=$x a b",
            &plain,
            "variable expansion is not supported for --from",
        ),
        (
            "R7",
            "FROM x\nRUN --network=host a",
            &plain,
            "entitlement network.host is not allowed",
        ),
        (
            "mount",
            "FROM x\nRUN --mount=type=cache,target=/x a",
            &plain,
            "RUN --mount is not supported yet",
        ),
        (
            "insecure",
            "FROM x\nRUN --security=insecure a",
            &plain,
            "RUN --security=insecure is not supported yet",
        ),
        (
            "device",
            "FROM x\nRUN --device=a b",
            &plain,
            "RUN --device is not supported yet",
        ),
        (
            "parents",
            "FROM x\nCOPY --parents a b",
            &plain,
            "COPY --parents is not supported yet",
        ),
        (
            "exclude",
            "FROM x\nADD --exclude=a a b",
            &plain,
            "ADD --exclude is not supported yet",
        ),
        (
            "checksum",
            "FROM x\nADD --checksum=a a b",
            &plain,
            "ADD --checksum is not supported yet",
        ),
        (
            "keep",
            "FROM x\nADD --keep-git-dir a b",
            &plain,
            "ADD --keep-git-dir is not supported yet",
        ),
        (
            "http",
            "FROM x\nADD https://a/b /",
            &plain,
            "ADD with an HTTP source is not supported yet",
        ),
        (
            "git",
            "FROM x\nADD git@a:b /",
            &plain,
            "ADD with a git source is not supported yet",
        ),
        (
            "late",
            "FROM x\nENV u=http://a/b\nADD $u /",
            &plain,
            "ADD with a remote source is not supported yet",
        ),
        (
            "syntax",
            "# syntax=foo/bar:1\nFROM x",
            &plain,
            "syntax foo/bar:1 is not supported",
        ),
        (
            "P32",
            "FROM x",
            &with_args(&[("BUILDKIT_SYNTAX", "foo")]),
            "syntax foo is not supported",
        ),
        (
            "C35",
            "FROM x\nCOPY --chmod=64a a b",
            &plain,
            "invalid chmod parameter: '64a'. it should be octal string",
        ),
        (
            "C35b",
            "FROM x\nCOPY --chmod=10000 a b",
            &plain,
            "between 0 and 07777",
        ),
        ("I9", "FROM x\nEXPOSE foo", &plain, "invalid containerPort: foo"),
        ("I13", "FROM x\nSTOPSIGNAL FOO", &plain, "Invalid signal: FOO"),
        (
            "I12",
            "FROM x\nVOLUME $nope",
            &plain,
            "VOLUME specified can not be an empty string",
        ),
        (
            "V15",
            "FROM x\nENV a=${FOO:?msg}",
            &plain,
            "failed to process \"${FOO:?msg}\": FOO: msg",
        ),
        ("V21", "FROM x\nENV a=${x", &plain, "syntax error: missing '}'"),
        (
            "T2",
            "FROM x",
            &with_args(&[("SOURCE_DATE_EPOCH", "x")]),
            "invalid SOURCE_DATE_EPOCH: x",
        ),
        (
            "trigger",
            "FROM badtrigger",
            &plain,
            "FROM isn't allowed as an ONBUILD trigger\n --> Dockerfile:1:1",
        ),
        (
            "K3",
            "# check=error=true\nFROM x as Y",
            &plain,
            "lint violation found for rules: FromAsCasing, StageNameCasing",
        ),
        (
            "K3b",
            "# check=error=true\nFROM x\nWORKDIR a",
            &plain,
            "rules: WorkdirRelativePath",
        ),
    ] {
        if phrase.is_empty() {
            continue;
        }
        let _ = id;
        refused(text, options, phrase);
    }
    refused(
        "FROM scratch\nCOPY --from=B a b\nFROM scratch AS b\nCOPY --from=0 x y",
        &plain,
        "cannot copy from stage \"b\", it needs to be defined before current stage \"0\"",
    );
}

#[test]
fn images_are_asked_for_only_when_reached() {
    let text = "FROM a AS x\nFROM b AS y\nCOPY --from=c / /\nFROM x\nCOPY --from=d / /";
    let asked = |text: &str, options: &Options| lowered(text, options).1.join("\n");
    assert_eq!(
        asked(text, &options()),
        "a Registry linux/amd64\nd Registry linux/amd64",
        "S17, S14"
    );
    let target = Options {
        target: Some("Y".to_owned()),
        ..options()
    };
    assert_eq!(
        asked(text, &target),
        "b Registry linux/amd64\nc Registry linux/amd64",
        "S4"
    );
    assert_eq!(
        asked("FROM onbuild AS a\nFROM onbuild", &options()),
        "onbuild Registry linux/amd64\nother Registry linux/amd64",
        "I20"
    );
    let cross = Options {
        target_platform: "linux/arm64".parse().unwrap(),
        ..options()
    };
    let text = "FROM --platform=$BUILDPLATFORM a AS x\nFROM x AS y\nFROM b\nCOPY --from=y / /";
    assert_eq!(
        asked(text, &cross),
        "a Registry linux/amd64\nb Registry linux/arm64",
        "S21, S23"
    );
    assert_eq!(asked("FROM scratch\nCOPY --from=scratch / /", &options()), "");
    assert_eq!(
        asked("FROM busybox AS busybox\nFROM busybox", &options()),
        "busybox Registry linux/amd64",
        "S15"
    );
}

#[test]
fn named_contexts_stand_for_images_and_stages() {
    let layout = NamedContext::OciLayout {
        path: "/l".to_owned(),
        reference: "v1".to_owned(),
    };
    for (id, text, contexts, asked) in [
        (
            "S28",
            "FROM x",
            vec![("x", NamedContext::Image("y".to_owned()))],
            "y Registry linux/amd64",
        ),
        (
            "S29",
            "FROM docker.io/library/alpine:latest",
            vec![("alpine", layout)],
            "v1 OciLayout { path: \"/l\" } linux/amd64",
        ),
        (
            "S30",
            "FROM x",
            vec![("x::linux/arm64", NamedContext::Directory)],
            "x Registry linux/amd64",
        ),
        (
            "S30b",
            "FROM x",
            vec![("x::linux/amd64", NamedContext::Directory)],
            "",
        ),
        (
            "S31",
            "FROM x",
            vec![("x", NamedContext::Image("scratch".to_owned()))],
            "",
        ),
        (
            "S35",
            "FROM scratch",
            vec![("scratch", NamedContext::Image("y".to_owned()))],
            "",
        ),
        (
            "S34",
            "FROM x",
            vec![("z", NamedContext::Image("y".to_owned()))],
            "x Registry linux/amd64",
        ),
        (
            "stage",
            "FROM a AS s\nRUN x\nFROM s",
            vec![("s", NamedContext::Image("y".to_owned()))],
            "y Registry linux/amd64",
        ),
    ] {
        let named_contexts = contexts
            .into_iter()
            .map(|(name, context)| (name.to_owned(), context))
            .collect();
        let options = Options {
            named_contexts,
            ..options()
        };
        assert_eq!(lowered(text, &options).1.join("\n"), asked, "{id}");
        assert!(lowered(text, &options).0.is_ok(), "{id}");
    }
    let named_contexts = BTreeMap::from([("src".to_owned(), NamedContext::Directory)]);
    let build = built(
        "FROM scratch\nCOPY --from=src a b\nCOPY c d",
        &Options {
            named_contexts,
            ..options()
        },
    );
    assert_eq!(build.contexts.iter().collect::<Vec<_>>(), ["context", "src"]);
}

#[test]
fn environments() {
    let env = |text: &str, options: &Options| {
        let exec = exec(&format!("{text}\nRUN x"), options);
        let list = exec.env.iter().filter(|(name, _)| name != "PATH");
        list.map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let none = options();
    for (id, text, options, expected) in [
        ("V1", "FROM scratch\nENV a=1 b=$a\nENV c=$a", &none, "a=1 b= c=1"),
        (
            "V2",
            "FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc",
            &none,
            "abc=bye def=hello ghi=bye",
        ),
        ("V3", "FROM scratch\nENV k a b  c", &none, "k=a b  c"),
        (
            "V7",
            "FROM scratch\nENV p=\"a b\" q=a\\ b r='$x'",
            &none,
            "p=a b q=a b r=$x",
        ),
        ("V8", "FROM scratch\nENV k=n\nENV $k=v", &none, "k=n n=v"),
        ("V36", "FROM scratch\nARG a=1\nENV a=2", &none, "a=2"),
        ("V37", "FROM scratch\nENV a=2\nARG a=1", &none, "a=1"),
        ("V38", "FROM scratch\nARG a\nENV b=${a-d}", &none, "b=d"),
        ("V39", "FROM scratch\nARG a=\nENV b=${a-d}", &none, "a= b="),
        ("V40", "FROM scratch\nARG a=${", &with_args(&[("a", "x")]), "a=x"),
        ("V41", "ARG v=1\nFROM img:$v\nENV a=[$v]", &none, "a=[]"),
        ("V42", "ARG v=1\nFROM scratch\nARG v", &none, "v=1"),
        ("V42b", "ARG v=1\nFROM scratch\nARG v=2", &none, "v=2"),
        (
            "V42c",
            "ARG v=1\nFROM scratch\nARG v=2",
            &with_args(&[("v", "3")]),
            "v=3",
        ),
        ("V43", "ARG a=1\nARG b=$a.2\nFROM scratch\nARG b", &none, "b=1.2"),
        ("V44", "FROM scratch\nARG a=1 b=2 c", &none, "a=1 b=2"),
        (
            "V45",
            "FROM scratch AS p\nARG a=1\nFROM p\nENV b=$a",
            &none,
            "a=1 b=1",
        ),
        ("V46", "FROM scratch\nENV b=[$a]\nARG a=1", &none, "b=[] a=1"),
        (
            "V51",
            "FROM scratch\nENV a=[$TARGETARCH]\nARG TARGETPLATFORM",
            &none,
            "a=[] TARGETPLATFORM=linux/amd64",
        ),
        (
            "V52",
            "FROM scratch\nARG TARGETOS",
            &with_args(&[("TARGETOS", "foo")]),
            "TARGETOS=foo",
        ),
        (
            "V53",
            "FROM scratch AS last\nARG TARGETSTAGE",
            &none,
            "TARGETSTAGE=last",
        ),
        (
            "V53b",
            "FROM scratch\nARG TARGETSTAGE",
            &none,
            "TARGETSTAGE=default",
        ),
        ("V55", "FROM base\nENV LANG=D a=b", &none, "LANG=D a=b"),
        ("V60", "FROM scratch\nENV a='b '", &none, "a=b "),
        ("S27", "FROM base", &none, "LANG=C"),
        (
            "T9",
            "FROM scratch\nARG SOURCE_DATE_EPOCH",
            &with_args(&[("SOURCE_DATE_EPOCH", "7")]),
            "SOURCE_DATE_EPOCH=7",
        ),
    ] {
        assert_eq!(env(text, options), expected, "{id}");
    }
}

#[test]
fn the_image_keeps_env_but_not_arg() {
    let config = |text: &str| built(text, &options()).config.config.env.join(" ");
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        config("FROM scratch\nENV a=2\nARG a=1\nARG b=3"),
        format!("{path} a=2"),
        "V37, S1"
    );
    assert_eq!(
        config("FROM base\nENV PATH=$PATH:/x"),
        "PATH=/bin:/x LANG=C",
        "V9, I23"
    );
}

#[test]
fn runs() {
    let none = options();
    for (id, text, options, args) in [
        ("shell", "RUN a  b", &none, "/bin/sh|-c|a  b"),
        ("exec", "RUN [\"a\",\"$b\"]", &none, "a|$b"),
        ("P33", "RUN", &none, "/bin/sh|-c|"),
        (
            "J10",
            "SHELL [\"/bin/bash\",\"-ec\"]\nRUN x",
            &none,
            "/bin/bash|-ec|x",
        ),
        ("H1", "RUN <<EOF\na\nb\nEOF", &none, "/bin/sh|-c|a\nb\n"),
        (
            "H3",
            "RUN <<EOF\n#!/bin/x\nb\nEOF",
            &none,
            "/bin/sh|-c|/dev/pipes/EOF",
        ),
        (
            "H4",
            "RUN python3 <<EOF\nx $y\nEOF",
            &none,
            "/bin/sh|-c|python3 <<EOF\nx $y\nEOF",
        ),
        (
            "H5",
            "RUN cat <<A && cat <<-B\n1\nA\n\t2\nB\n",
            &none,
            "/bin/sh|-c|cat <<A && cat <<-B\n1\nA\n\t2\nB",
        ),
        ("H7", "RUN <<-EOF\n\ta\n  b\n\tEOF", &none, "/bin/sh|-c|a\n  b\n"),
        ("H22", "RUN <<EOF\nEOF", &none, "/bin/sh|-c|"),
        (
            "H23",
            "SHELL [\"python3\",\"-c\"]\nRUN <<EOF\nx\nEOF",
            &none,
            "python3|-c|x\n",
        ),
    ] {
        assert_eq!(
            exec(&format!("FROM base\n{text}"), options).args.join("|"),
            args,
            "{id}"
        );
    }
    let script = exec("FROM base\nRUN <<EOF\n#!/bin/x\nb\nEOF", &none).scripts;
    assert_eq!(
        script,
        BTreeMap::from([("/dev/pipes/EOF".to_owned(), "#!/bin/x\nb\n".to_owned())]),
        "H3"
    );
    let run = exec("FROM base\nWORKDIR sub\nUSER a:b\nRUN --network=none x", &none);
    assert_eq!((run.cwd.as_str(), run.user.as_str()), ("/srv/sub", "a:b"), "R2");
    assert_eq!(
        (run.network, run.hostname.as_str()),
        (Network::None, "buildkitsandbox"),
        "R4, R7"
    );
    let host = Options {
        network: Network::Host,
        allow_network_host: true,
        ..options()
    };
    assert_eq!(exec("FROM base\nRUN x", &host).network, Network::Host);
    let named = with_args(&[("BUILDKIT_SANDBOX_HOSTNAME", "h")]);
    assert_eq!(exec("FROM base\nRUN x", &named).hostname, "h", "R4");
}

#[test]
fn v49_v50_proxies_are_seen_but_not_keyed_unless_declared() {
    let options = with_args(&[("HTTP_PROXY", "p"), ("no_proxy", "q")]);
    let free = exec("FROM base\nRUN x", &options);
    let pairs = |list: &[(String, String)]| {
        list.iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(pairs(&free.env_unkeyed), "HTTP_PROXY=p no_proxy=q");
    let declared = exec("FROM base\nARG HTTP_PROXY\nRUN x", &options);
    assert_eq!(pairs(&declared.env_unkeyed), "no_proxy=q");
    assert!(pairs(&declared.env).ends_with("HTTP_PROXY=p"));
    let build = built("FROM base\nRUN x", &options);
    assert_eq!(build.unused_build_args, Vec::<String>::new());
    let options = with_args(&[
        ("used", "1"),
        ("unused", "1"),
        ("BUILDKIT_X", "1"),
        ("unused", "2"),
    ]);
    let build = built("FROM scratch AS a\nARG used\nFROM scratch", &options);
    assert_eq!(build.unused_build_args, ["unused"]);
}

#[test]
fn copies() {
    // Instruction, then destination and what is selected of the source.
    for (id, text, expected) in [
        ("C2", "COPY foo /x", "/x [\"/foo\"]"),
        ("C2b", "COPY foo /x/", "/x/ [\"/foo\"]"),
        ("C2c", "COPY foo /x/.", "/x/ [\"/foo\"]"),
        ("C3", "COPY foo .", "/srv/ [\"/foo\"]"),
        ("C3b", "COPY foo \"\"", "/srv/ [\"/foo\"]"),
        ("C3c", "COPY foo $nope", "/srv/ [\"/foo\"]"),
        ("relative", "COPY foo x/../y", "/srv/y [\"/foo\"]"),
        ("C5", "COPY ./dir/. d", "/srv/d [\"/dir\"]"),
        ("C6", "COPY ../foo /", "/ [\"/foo\"]"),
        ("C66", "COPY . /", "/ [\"/\"]"),
        (
            "C13",
            "COPY sub/*/foo a\\*b /d/",
            "/d/ [\"/sub/*/foo\", \"/a*b\"]",
        ),
        ("C14", "COPY [[]x /", "/ [\"/[[]x\"]"),
        ("J7", "COPY [\"a $LANG\",\"/\"]", "/ [\"/a C\"]"),
        ("V31", "ENV s='a b'\nCOPY $s /d", "/d [\"/a b\"]"),
        ("C16", "COPY a b /d", "/d/ [\"/a\", \"/b\"]"),
    ] {
        let build = built(&format!("FROM base\n{text}"), &options());
        let vertex = build.graph.vertex(build.target);
        let Op::File(FileOp { actions, .. }) = &vertex.op else {
            panic!("{id}")
        };
        let [FileAction::Copy(copy)] = &actions[..] else {
            panic!("{id}: {actions:?}")
        };
        let input = &vertex.inputs[copy.input];
        let InputView::Paths(selection) = &input.view else {
            panic!("{id}")
        };
        assert_eq!(
            build.graph.vertex(input.vertex).op,
            Op::Source(Source::Local {
                name: "context".to_owned()
            })
        );
        assert_eq!(
            format!("{} {:?}", copy.dest, selection.patterns),
            expected,
            "{id}"
        );
    }
}

#[test]
fn copies_have_flags() {
    let change = |text: &str| match file(&format!("FROM base\nENV u=7 m=600\n{text}"))
        .actions
        .remove(0)
    {
        FileAction::Copy(copy) => format!("{:?} {:?} {}", copy.change.owner, copy.change.mode, copy.unpack),
        other => panic!("{other:?}"),
    };
    for (id, text, expected) in [
        ("plain", "COPY a b", "None None false"),
        (
            "C31",
            "COPY --chown=1000:2000 a b",
            "Some(\"1000:2000\") None false",
        ),
        ("C34", "COPY --chown=$u:x a b", "Some(\"7:x\") None false"),
        ("C35", "COPY --chmod=4755 a b", "None Some(Octal(2541)) false"),
        (
            "C36",
            "COPY --chmod=u=rwX,go=rX a b",
            "None Some(Symbolic(\"u=rwX,go=rX\")) false",
        ),
        ("C39", "COPY --chmod=$m a b", "None Some(Octal(384)) false"),
        ("A1", "ADD a b", "None None true"),
        ("A3", "ADD --unpack=false a b", "None None false"),
        ("C67", "COPY --link=false a b", "None None false"),
    ] {
        assert_eq!(change(text), expected, "{id}");
    }
    let build = built("FROM base\nCOPY --link --chmod=755 a b", &options());
    let merge = build.graph.vertex(build.target);
    assert_eq!(merge.op, Op::Merge, "C46, C49");
    let layer = build.graph.vertex(merge.inputs[1].vertex);
    assert_eq!(
        build.graph.vertex(layer.inputs[0].vertex).op,
        Op::Source(Source::Scratch)
    );
    assert_eq!(
        labels(&build)[3..],
        [
            "[2/2] COPY --link --chmod=755 a b",
            "[2/2] LINK COPY --link --chmod=755 a b"
        ]
    );
}

#[test]
fn copies_write_heredocs() {
    let writes = |text: &str| {
        let actions = file(&format!("FROM base\nENV v=1\n{text}")).actions;
        let shown = actions.iter().filter_map(|action| match action {
            FileAction::Write { dest, name, data, .. } => {
                Some(format!("{dest} {name} {:?}", String::from_utf8_lossy(data)))
            }
            _ => None,
        });
        shown.collect::<Vec<_>>().join("; ")
    };
    for (id, text, expected) in [
        ("H8", "COPY <<EOF /a\nx\nEOF", "/a EOF \"x\\n\""),
        ("H9", "COPY <<EOF /dir/\nEOF", "/dir/ EOF \"\""),
        (
            "H10",
            "COPY <<A <<B /dir/\n1\nA\n2\nB",
            "/dir/ A \"1\\n\"; /dir/ B \"2\\n\"",
        ),
        (
            "quirk 9",
            "COPY <<A <<A /dir/\n1\nA\n2\nA",
            "/dir/ A \"1\\n\"; /dir/ A \"2\\n\"",
        ),
        ("H13", "COPY <<EOF /x\n$v\nEOF", "/x EOF \"1\\n\""),
        ("H13b", "COPY <<\"EOF\" /x\n$v\nEOF", "/x EOF \"$v\\n\""),
        (
            "H14",
            "COPY <<EOF /x\n\"q\" \\$v \\\\ a\\\nb\nEOF",
            "/x EOF \"\\\"q\\\" $v \\\\ ab\\n\"",
        ),
        ("H26", "ADD <<EOF /x\ny\nEOF", "/x EOF \"y\\n\""),
        ("H29", "COPY <<-EOF /x\n\ty\n\tEOF", "/x EOF \"y\\n\""),
    ] {
        assert_eq!(writes(text), expected, "{id}");
    }
    assert!(
        built("FROM scratch\nCOPY <<EOF /a\nEOF", &options())
            .contexts
            .is_empty()
    );
}

#[test]
fn histories() {
    for (id, text, expected) in [
        (
            "Y1",
            "ARG a=1\nARG a=2\nARG b\nRUN x",
            "- ARG a=1|- ARG a=2|- ARG b|+ RUN |2 a=2 b= /bin/sh -c x # buildkit",
        ),
        (
            "Y2",
            "ARG a=1\nENV a=2\nRUN x",
            "- ARG a=1|- ENV a=2|+ RUN |1 a=2 /bin/sh -c x # buildkit",
        ),
        ("Y6", "RUN <<EOF\na\nb\nEOF", "+ RUN /bin/sh -c a\nb\n # buildkit"),
        ("exec", "RUN [\"a\",\"b c\"]", "+ RUN a b c # buildkit"),
        (
            "Y7",
            "COPY --from=x --link --chown=1 --chmod=644 a b c/",
            "+ COPY --chown=1 --chmod=644 a b c/ # buildkit",
        ),
        ("H8", "COPY f <<A /d/\nx\nA", "+ COPY f <<A /d/ # buildkit"),
        ("ADD", "ENV d=x\nADD $d .", "- ENV d=x|+ ADD x . # buildkit"),
        ("Y8", "ONBUILD RUN x", ""),
        ("Y10", "WORKDIR a\nWORKDIR b", "+ WORKDIR /a|+ WORKDIR /a/b"),
        ("I3", "WORKDIR /", "- WORKDIR /"),
        (
            "ENV",
            "ENV a=\"b c\" d=e\nENV k v w",
            "- ENV a=b c d=e|- ENV k v w",
        ),
        ("LABEL", "LABEL a=b", "- LABEL a=b"),
        ("CMD", "CMD a \"b\"", "- CMD [\"/bin/sh\" \"-c\" \"a \\\"b\\\"\"]"),
        (
            "ENTRYPOINT",
            "ENTRYPOINT [\"a\",\"b\"]",
            "- ENTRYPOINT [\"a\" \"b\"]",
        ),
        ("SHELL", "SHELL [\"/bin/bash\",\"-c\"]", "- SHELL [/bin/bash -c]"),
        (
            "I11",
            "EXPOSE 80 443/tcp 1-2/udp",
            "- EXPOSE [1/udp 2/udp 443/tcp 80/tcp]",
        ),
        ("VOLUME", "VOLUME /a /b", "- VOLUME [/a /b]"),
        (
            "USER",
            "USER x\nSTOPSIGNAL SIGTERM\nMAINTAINER me",
            "- USER x|- STOPSIGNAL SIGTERM|- MAINTAINER me",
        ),
        (
            "HEALTHCHECK",
            "HEALTHCHECK --interval=1s --timeout=10s --start-period=3s --start-interval=100ms --retries=5 CMD x",
            "- HEALTHCHECK {Test:[CMD-SHELL x] Interval:1s Timeout:10s StartPeriod:3s StartInterval:100ms Retries:5}",
        ),
        (
            "NONE",
            "HEALTHCHECK NONE",
            "- HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        ),
    ] {
        let build = built(&format!("FROM scratch\n{text}"), &options());
        assert_eq!(history(&build).join("|"), expected, "{id}");
        assert!(
            build
                .config
                .history
                .iter()
                .all(|entry| entry.comment == "buildkit.dockerfile.v0"),
            "Y5"
        );
    }
    let build = built("FROM base\nRUN x", &options());
    assert_eq!(history(&build), ["+ base", "+ RUN /bin/sh -c x # buildkit"], "Y4");
}

#[test]
fn configs() {
    // Instructions on top of `base`, then a JSON pointer into the config and what is there.
    for (id, text, pointer, expected) in [
        ("J1", "CMD [\"a\",\"b\"]", "/config/Cmd", "[\"a\",\"b\"]"),
        (
            "J2",
            "CMD ['a','b']",
            "/config/Cmd",
            "[\"/bin/sh\",\"-c\",\"['a','b']\"]",
        ),
        ("J5", "CMD []", "/config/Cmd", "null"),
        ("J5b", "ENTRYPOINT []", "/config/Entrypoint", "null"),
        (
            "J12",
            "HEALTHCHECK CMD [\"a\"]",
            "/config/Healthcheck",
            "{\"Test\":[\"CMD\",\"a\"]}",
        ),
        ("J13", "ENTRYPOINT [\"x\"]", "/config/Cmd", "null"),
        ("J14", "CMD [\"a\"]\nENTRYPOINT [\"x\"]", "/config/Cmd", "[\"a\"]"),
        (
            "J15",
            "VOLUME [\"/a\",\"/b\"]",
            "/config/Volumes",
            "{\"/a\":{},\"/b\":{}}",
        ),
        (
            "V10",
            "LABEL a=\"multi\\\nline\"",
            "/config/Labels/a",
            "\"multiline\"",
        ),
        ("V11", "LABEL a=1\nLABEL a=2", "/config/Labels", "{\"a\":\"2\"}"),
        (
            "V32",
            "ENV P=\"80 443/tcp\"\nEXPOSE $P",
            "/config/ExposedPorts",
            "{\"443/tcp\":{},\"80/tcp\":{}}",
        ),
        (
            "V33",
            "ENV d=a e=b\nWORKDIR $d/$e",
            "/config/WorkingDir",
            "\"/srv/a/b\"",
        ),
        ("V33b", "ENV s=9\nSTOPSIGNAL $s", "/config/StopSignal", "\"9\""),
        ("V34", "CMD echo $x", "/config/Cmd/2", "\"echo $x\""),
        (
            "V35",
            "ONBUILD RUN echo $x",
            "/config/OnBuild",
            "[\"RUN echo $x\"]",
        ),
        (
            "H25",
            "ONBUILD COPY <<EOF /x\na\nEOF",
            "/config/OnBuild",
            "[\"COPY <<EOF /x\\na\\nEOF\"]",
        ),
        ("S27", "USER x", "/config/Hostname", "\"kept\""),
        ("I16", "MAINTAINER me", "/author", "\"me\""),
        ("I22", "CMD [\"a\"]", "/config/ArgsEscaped", "true"),
        ("created", "USER x", "/created", "null"),
    ] {
        let build = built(&format!("FROM base\n{text}"), &options());
        let config: serde_json::Value = serde_json::from_slice(&build.config.to_json()).unwrap();
        let value = config.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(value.to_string(), expected, "{id}");
    }
    let labels = vec![("x".to_owned(), "$y".to_owned())];
    let build = built("FROM scratch", &Options { labels, ..options() });
    assert_eq!(build.config.config.labels["x"], "$y", "V12");
    let arm: Platform = "linux/arm/v7".parse().unwrap();
    let config = built("FROM scratch", &Options::new(arm)).config;
    assert_eq!(
        (config.architecture.as_str(), config.variant.as_str()),
        ("arm", "v7"),
        "I24"
    );
}

#[test]
fn onbuild_triggers_run_in_children_only() {
    let build = built(
        "FROM scratch AS a\nONBUILD ENV x=1\nONBUILD COPY <<E /f\n$x\nE\nFROM a AS b\nFROM b",
        &options(),
    );
    assert_eq!(
        history(&build),
        ["- ENV x=1", "+ COPY <<E /f # buildkit"],
        "I18, I19, I21, H25"
    );
    assert!(build.config.config.on_build.is_empty());
    let build = built("FROM onbuild\nRUN own", &options());
    assert_eq!(
        labels(&build),
        [
            "[1/4] FROM docker.io/library/onbuild",
            "FROM docker.io/library/other",
            "[2/4] ONBUILD COPY --from=other /a /b",
            "[3/4] ONBUILD RUN make 1",
            "[4/4] RUN own",
        ],
        "I20"
    );
}

#[test]
fn steps_have_names() {
    let build = built(
        "FROM a AS build\nARG v=1\nWORKDIR /\nrun make $v \\\n  '$v' $nope\nFROM b\nCOPY --from=BUILD /x /\nRUN <<E\nl1\nl2\nE",
        &options(),
    );
    assert_eq!(
        labels(&build),
        [
            "[build 1/3] FROM docker.io/library/a",
            "[build 3/3] RUN make 1   '$v' $nope",
            "[stage-1 1/3] FROM docker.io/library/b",
            "[stage-1 2/3] COPY --from=BUILD /x /",
            "[stage-1 3/3] RUN <<E (l1...)",
        ],
        "S38, S40, S9"
    );
    let run = build
        .graph
        .vertex(solver::graph::VertexId::clone(&vertices(&build)[1]));
    assert_eq!((run.label.line, run.label.last_line), (Some(4), Some(5)));
    assert_eq!(run.label.step, "build RUN 1");
    let cross = Options {
        target_platform: "linux/arm64".parse().unwrap(),
        ..options()
    };
    let build = built(
        "FROM --platform=$BUILDPLATFORM a AS x\nRUN y\nFROM scratch\nCOPY --from=x / /",
        &cross,
    );
    assert_eq!(labels(&build)[1], "[linux/amd64->arm64 x 2/2] RUN y", "S39");
}

#[test]
fn cache_can_be_ignored() {
    let text = "FROM a AS x\nRUN y\nWORKDIR /w\nFROM a\nCOPY --from=x / /";
    let ignored = |options: &Options| {
        let build = built(text, options);
        let names = vertices(&build)
            .into_iter()
            .map(|id| build.graph.vertex(id).label.clone());
        names
            .filter(|label| label.ignore_cache)
            .map(|label| label.step)
            .collect::<Vec<_>>()
    };
    assert_eq!(ignored(&options()), Vec::<String>::new());
    assert_eq!(
        ignored(&Options {
            no_cache: true,
            ..options()
        }),
        ["x RUN 1", "stage-1 COPY 1"]
    );
    assert_eq!(
        ignored(&Options {
            no_cache_filter: vec!["X".to_owned()],
            ..options()
        }),
        ["x RUN 1"]
    );
}

#[test]
fn warnings() {
    for (id, text, expected) in [
        ("V29", "FROM base\nENV a=$LNAG", "UndefinedVar"),
        ("declared", "FROM base\nARG a\nENV b=$a", ""),
        ("default", "FROM base\nENV a=${x:-1}", ""),
        ("K8", "FROM base\nENV a=$nope\nFROM scratch", ""),
        (
            "WorkdirRelativePath",
            "FROM base\nWORKDIR a\nWORKDIR b",
            "WorkdirRelativePath",
        ),
        ("absolute", "FROM base AS a\nWORKDIR /a\nFROM a\nWORKDIR b", ""),
        (
            "JSONArgsRecommended",
            "FROM base\nCMD a\nENTRYPOINT b",
            "JSONArgsRecommended JSONArgsRecommended",
        ),
        ("shell", "FROM base\nSHELL [\"a\"]\nCMD a", ""),
        (
            "K1",
            "# check=skip=JSONArgsRecommended\nFROM base\nCMD a\nWORKDIR a",
            "WorkdirRelativePath",
        ),
        ("quirk 3", "FROM base AS x\nFROM X", "StageNameCasing"),
        ("triggers", "FROM base AS x\nONBUILD CMD a\nFROM x", ""),
        ("UndefinedArgInFrom", "FROM base$x", "UndefinedArgInFrom"),
        ("C16", "FROM base\nCOPY a b /c", "CopyDestinationSlash"),
    ] {
        let build = built(text, &options());
        let rules: Vec<&str> = build.warnings.iter().filter_map(|warning| warning.rule).collect();
        assert_eq!(rules.join(" "), expected, "{id}");
    }
    let options = with_args(&[("BUILDKIT_DOCKERFILE_CHECK", "skip=all")]);
    assert!(
        built("# check=error=true\nFROM base\nWORKDIR a", &options)
            .warnings
            .is_empty(),
        "K6"
    );
}

#[test]
fn epochs() {
    assert_eq!(built("FROM scratch", &options()).epoch, None);
    assert_eq!(
        built("ARG SOURCE_DATE_EPOCH=5\nFROM scratch", &options()).epoch,
        Some(5)
    );
    let options = with_args(&[("SOURCE_DATE_EPOCH", "7")]);
    let build = built("ARG SOURCE_DATE_EPOCH=5\nFROM scratch\nWORKDIR /a", &options);
    assert_eq!(build.epoch, Some(7));
    let Op::File(file) = &build.graph.vertex(build.target).op else {
        panic!()
    };
    assert_eq!(file.epoch, Some(7));
}

#[test]
fn equal_stages_fold() {
    let build = built(
        "FROM a AS x\nRUN y\nFROM a AS z\nRUN y\nFROM scratch\nCOPY --from=x / /1\nCOPY --from=z / /2",
        &options(),
    );
    assert_eq!(build.graph.len(), 5, "{:?}", labels(&build));
}

#[test]
fn large_and_hostile_files_end() {
    let mut chain = String::from("FROM scratch\n");
    (0..20_000).for_each(|step| {
        let _ = writeln!(chain, "RUN echo {step}");
    });
    assert_eq!(built(&chain, &options()).graph.len(), 20_001);
    let mut bomb = String::from("FROM scratch\nENV a=0123456789\n");
    (0..40).for_each(|_| bomb.push_str("ENV a=$a$a\n"));
    refused(&bomb, &options(), "the result is larger than");
    let mut ports = String::from("FROM scratch\n");
    (0..2000).for_each(|_| ports.push_str("EXPOSE 1-65535\n"));
    refused(&ports, &options(), "expand to more than");
}
