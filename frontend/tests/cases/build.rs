//! From a case's text to a build: parses, lowers, and answers what lowering asks for.

use std::collections::BTreeMap;

use cache::DiffId;
use frontend::{
    Answers, Build, Diagnostics, ImageConfig, ImageRequest, Lowered, NamedContext, Options, Request,
    ResolvedImage, SourceText, foreign_syntax, lower, parse,
};
use solver::graph::Graph;

/// A build and the graph it was lowered onto.
pub(crate) struct Built {
    pub(crate) build: Box<Build>,
    pub(crate) graph: Graph,
}

impl std::ops::Deref for Built {
    type Target = Build;
    fn deref(&self) -> &Build {
        &self.build
    }
}

/// What came of a case.
pub(crate) struct Outcome {
    pub(crate) source: SourceText,
    /// Images that were asked for.
    pub(crate) asked: Vec<String>,
    pub(crate) parsed: Diagnostics,
    pub(crate) lowered: Option<Result<Built, Diagnostics>>,
    /// Value of `syntax`, and its reference.
    pub(crate) syntax: Option<(String, String)>,
}

/// Images that are there without being described: `base` has settings worth inheriting, others are bare.
const BASE: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","LANG=C"],"Cmd":["sh"],
    "Entrypoint":["/e"],"User":"me","WorkingDir":"/srv","Labels":{"a":"base"}},
    "history":[{"created":"2020-01-01T00:00:00Z","created_by":"base"}]}"#;
const BARE: &str = r#"{"architecture":"amd64","os":"linux"}"#;

/// Builds a Dockerfile with the options that a case's lines give.
pub(crate) fn build(text: &str, lines: &[String]) -> Outcome {
    let (options, images) = options(lines);
    let (dockerfile, parsed) = match foreign_syntax("Dockerfile", text.as_bytes(), &options) {
        Some(error) => (None, error.into()),
        None => parse("Dockerfile", text.as_bytes()),
    };
    let mut outcome = Outcome {
        source: SourceText::new("Dockerfile", text.as_bytes()),
        asked: Vec::new(),
        parsed,
        lowered: None,
        syntax: None,
    };
    let Some(dockerfile) = dockerfile else {
        return outcome;
    };
    outcome.syntax = dockerfile.directives.syntax.as_ref().map(|text| {
        let reference = dockerfile.directives.syntax_reference().unwrap_or_default();
        (text.value.clone(), reference.to_owned())
    });
    let mut answers = Answers::default();
    let mut graph = Graph::new();
    for _ in 0..10 {
        match lower(&dockerfile, &options, &answers, &mut graph) {
            Err(diagnostics) => outcome.lowered = Some(Err(diagnostics)),
            Ok(Lowered::Ready(build)) => outcome.lowered = Some(Ok(Built { build, graph })),
            Ok(Lowered::Need(needed)) => {
                for needed in needed {
                    let Request::Image(request) = needed.request else {
                        panic!("cases give no answer to {:?}", needed.request)
                    };
                    outcome
                        .asked
                        .push(format!("{} {}", request.reference, request.platform));
                    let image = image(&request, &images);
                    let twice = answers.images.insert(request, image);
                    assert!(twice.is_none(), "an image is asked for again");
                }
                continue;
            }
        }
        return outcome;
    }
    panic!("no end of requests");
}

fn image(request: &ImageRequest, images: &BTreeMap<String, String>) -> ResolvedImage {
    let reference = request.reference.as_str();
    let config = match images.get(reference) {
        Some(config) => config.as_str(),
        None if reference == "base" => BASE,
        None => BARE,
    };
    ResolvedImage {
        config: ImageConfig::parse(config.as_bytes()).unwrap(),
        layers: vec![DiffId::of(reference.as_bytes())],
        reference: reference.to_owned(),
    }
}

/// Reads the lines of the options; also returns the configs of images.
fn options(lines: &[String]) -> (Options, BTreeMap<String, String>) {
    let mut options = Options::new("linux/amd64".parse().unwrap());
    let mut images = BTreeMap::new();
    for line in lines.iter().filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let pair = || {
            let (name, value) = rest.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        match word {
            "build-arg" => options.build_args.push(pair()),
            "label" => options.labels.push(pair()),
            "target" => options.target = Some(rest.to_owned()),
            "platform" => options.target_platform = rest.parse().unwrap(),
            "build-platform" => options.build_platform = rest.parse().unwrap(),
            "image" => {
                let (name, config) = rest.split_once(' ').unwrap();
                images.insert(name.to_owned(), config.to_owned());
            }
            "context" => {
                let (name, value) = pair();
                let context = match value.strip_prefix("docker-image://") {
                    Some(image) => NamedContext::Image(image.to_owned()),
                    None => NamedContext::Directory,
                };
                options.named_contexts.insert(name, context);
            }
            "show" => {}
            _ => panic!("`{line}` is no option"),
        }
    }
    (options, images)
}
