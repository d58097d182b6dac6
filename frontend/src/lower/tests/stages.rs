//! Images, stages, contexts, triggers, names of steps. Spec: dockerfile.md §20.

use super::*;

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

#[rustfmt::skip]
#[test]
fn named_contexts_stand_for_images_and_stages() {
    let layout = NamedContext::OciLayout {
        path: "/l".to_owned(),
        reference: "v1".to_owned(),
    };
    for (id, text, contexts, asked) in [
        ("S28", "FROM x", vec![("x", NamedContext::Image("y".to_owned()))], "y Registry linux/amd64"),
        ("S29", "FROM docker.io/library/alpine:latest", vec![("alpine", layout)], "v1 OciLayout { path: \"/l\" } linux/amd64"),
        ("S30", "FROM x", vec![("x::linux/arm64", NamedContext::Directory)], "x Registry linux/amd64"),
        ("S30b", "FROM x", vec![("x::linux/amd64", NamedContext::Directory)], ""),
        ("S31", "FROM x", vec![("x", NamedContext::Image("scratch".to_owned()))], ""),
        ("S35", "FROM scratch", vec![("scratch", NamedContext::Image("y".to_owned()))], ""),
        ("S34", "FROM x", vec![("z", NamedContext::Image("y".to_owned()))], "x Registry linux/amd64"),
        ("stage", "FROM a AS s\nRUN x\nFROM s", vec![("s", NamedContext::Image("y".to_owned()))], "y Registry linux/amd64"),
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
fn equal_stages_fold() {
    let build = built(
        "FROM a AS x\nRUN y\nFROM a AS z\nRUN y\nFROM scratch\nCOPY --from=x / /1\nCOPY --from=z / /2",
        &options(),
    );
    assert_eq!(build.graph.len(), 5, "{:?}", labels(&build));
}
