//! Dockerfiles in, graph, config and warnings out. Spec: dockerfile.md §20; each case is named by its id.
//!
//! Whole files are in `testdata/frontend`, with their results beside them; the tables hold what fits a line.

mod configs;
mod early;
mod epochs;
mod files;
mod mounts;
mod processes;
mod refusals;
mod stages;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cache::DiffId;
use solver::graph::{Graph, InputView};
use solver::op::{Exec, FileAction, FileOp, Network, Op, Source};

use crate::options::{
    Answers, Build, ImageRequest, Lowered, NamedContext, Needed, Options, Request, ResolvedHttp,
    ResolvedImage,
};
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
        "windows" => r#"{"architecture":"amd64","os":"windows"}"#,
        "badtrigger" => r#"{"config":{"OnBuild":["FROM x"]}}"#,
        _ => r#"{"architecture":"amd64","os":"linux"}"#,
    };
    ResolvedImage {
        config: ImageConfig::parse(config.as_bytes()).unwrap(),
        layers: vec![DiffId::of(request.reference.as_bytes())],
        reference: format!("docker.io/library/{}", request.reference),
    }
}

/// A build and the graph it was lowered onto.
#[derive(Debug)]
struct Built {
    build: Box<Build>,
    graph: Graph,
}

impl std::ops::Deref for Built {
    type Target = Build;
    fn deref(&self) -> &Build {
        &self.build
    }
}

/// Lowers, answering requests; returns the result and the requests.
fn lowered(text: &str, options: &Options) -> (Result<Built, Diagnostics>, Vec<String>) {
    let (dockerfile, diagnostics) = parse("Dockerfile", text.as_bytes());
    let Some(dockerfile) = dockerfile else {
        return (Err(diagnostics), Vec::new());
    };
    let mut answers = Answers::default();
    let mut asked = Vec::new();
    let mut graph = Graph::new();
    for _ in 0..10 {
        match lower(&dockerfile, options, &answers, &mut graph) {
            Err(diagnostics) => return (Err(diagnostics), asked),
            Ok(Lowered::Ready(build)) => return (Ok(Built { build, graph }), asked),
            Ok(Lowered::Need(requests)) => {
                assert!(!requests.is_empty());
                for Needed { request, .. } in requests {
                    let request = match request {
                        Request::Image(request) => request,
                        Request::Http(request) => {
                            asked.push(format!("{} {:?}", request.url, request.checksum.is_some()));
                            let file = ResolvedHttp {
                                digest: cache::Digest::of(request.url.as_bytes()),
                                last_modified: Some(5),
                            };
                            assert!(answers.http.insert(request, file).is_none(), "asked again");
                            continue;
                        }
                        Request::Git(_) => panic!("no commit is asked for: {request:?}"),
                    };
                    asked.push(format!(
                        "{} {:?} {}",
                        request.reference, request.kind, request.platform
                    ));
                    assert!(
                        answers
                            .images
                            .insert(request.clone(), resolve(&request))
                            .is_none(),
                        "asked again: {request:?}"
                    );
                }
            }
        }
    }
    panic!("no end of requests");
}

#[track_caller]
fn built(text: &str, options: &Options) -> Built {
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
fn refused(id: &str, text: &str, options: &Options, phrase: &str) {
    let (result, _) = lowered(text, options);
    let Err(diagnostics) = result else {
        panic!("{id}: {text:?} is accepted")
    };
    let source = SourceText::new("Dockerfile", text.as_bytes());
    let shown: String = diagnostics
        .iter()
        .map(|finding| render(finding, &source, false))
        .collect();
    assert!(shown.contains(phrase), "{id}: {text:?}: {shown}");
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

fn history(build: &Built) -> Vec<String> {
    let line = |entry: &crate::config::History| {
        format!(
            "{}{}",
            if entry.empty_layer { "- " } else { "+ " },
            entry.created_by
        )
    };
    build.config.history.iter().map(line).collect()
}

fn labels(build: &Built) -> Vec<String> {
    let vertices = vertices(build);
    vertices
        .iter()
        .map(|id| build.graph.vertex(*id).label.name.clone())
        .collect()
}

/// All vertices that the target needs, inputs first.
fn vertices(build: &Built) -> Vec<solver::graph::VertexId> {
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
fn describe(build: &Built, source: &SourceText) -> String {
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
        snapshot_path => "../../../../testdata/frontend",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(name, shown) });
}

#[test]
fn whole_files() {
    check_file(
        "python",
        include_str!("../../../../testdata/frontend/python.Dockerfile"),
        &options(),
    );
    let text = include_str!("../../../../testdata/frontend/multistage.Dockerfile");
    check_file("multistage", text, &with_args(&[("VERSION", "2.0")]));
    check_file(
        "heredocs",
        include_str!("../../../../testdata/frontend/heredocs.Dockerfile"),
        &options(),
    );
    check_file(
        "mistakes",
        include_str!("../../../../testdata/frontend/mistakes.Dockerfile"),
        &options(),
    );
}
