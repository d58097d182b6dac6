//! What holds for any input: the bodies of the fuzz targets, which a test of the frontend replays on stable Rust.
//!
//! Each takes any bytes, and panics only where the program is wrong.

use std::collections::BTreeMap;

use cache::layer::TreePath;
use frontend::{
    Answers, Diagnostics, Dockerfile, ImageConfig, Lowered, NamedContext, Options, Request, ResolvedImage,
    SourceText, lower as lower_file, parse, render,
};
use solver::Graph;

/// Longer inputs only make the search slow.
const MAX_BYTES: usize = 64 << 10;

/// Reads a file; whatever is found can be shown, at a place that is there.
pub(crate) fn parser(data: &[u8]) {
    read(data);
}

fn read(data: &[u8]) -> Option<Dockerfile> {
    let (dockerfile, diagnostics) = parse("Dockerfile", data);
    let source = SourceText::new("Dockerfile", data);
    show(&diagnostics, &source);
    assert_eq!(dockerfile.is_none(), diagnostics.has_errors());
    let dockerfile = dockerfile?;
    assert!(!dockerfile.stages.is_empty());
    let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    for instruction in dockerfile.globals.iter().chain(instructions) {
        let span = instruction.span;
        assert!(
            source.text().get(span.start..span.end).is_some(),
            "{instruction:?}"
        );
    }
    Some(dockerfile)
}

fn show(diagnostics: &Diagnostics, source: &SourceText) {
    for finding in diagnostics {
        let shown = render(finding, source, true);
        assert!(shown.ends_with('\n'));
        assert!(
            shown
                .chars()
                .all(|c| c == '\n' || c == '\u{1b}' || !c.is_control()),
            "{shown:?}"
        );
        if let Some(span) = finding.span {
            assert!(span.start <= span.end && span.end <= source.text().len());
        }
    }
}

/// A RUN and what follows it, with heredocs.
pub(crate) fn heredocs(data: &[u8]) {
    let mut text = b"FROM scratch\nRUN ".to_vec();
    text.extend(data);
    let Some(dockerfile) = read(&text) else {
        return;
    };
    let source = SourceText::new("Dockerfile", &text);
    for instruction in dockerfile.stages.iter().flat_map(|stage| &stage.instructions) {
        if let frontend::ast::Kind::Run(run) = &instruction.kind {
            for heredoc in &run.heredocs {
                assert!(!heredoc.name.is_empty());
                let body = &source.text()[heredoc.span.start..heredoc.span.end];
                let lines = heredoc.content.lines().count();
                assert!(body.lines().count() >= lines, "{heredoc:?}");
            }
        }
    }
}

/// A value, a line end, and a text that is expanded.
pub(crate) fn expansion(data: &[u8]) {
    let data = String::from_utf8_lossy(&data[..data.len().min(MAX_BYTES)]).into_owned();
    let (value, word) = data.split_once('\n').unwrap_or(("", &data));
    let word = word.replace(['\n', '\r'], " ");
    let mut options = Options::new("linux/amd64".parse().expect("because it is a platform"));
    options.build_args.push(("a".to_owned(), value.to_owned()));
    for text in [
        format!("FROM scratch\nARG a\nARG e=\nUSER {word}\nEXPOSE 1 {word}\n"),
        format!("# escape=`\nARG a\nFROM x{word}\n"),
        format!("FROM scratch\nARG a\nCOPY <<E /\n{word}\nE\n"),
    ] {
        if let Some(dockerfile) = read(text.as_bytes()) {
            lowered(&dockerfile, &options);
        }
    }
}

/// A path, a line end, and an ignore file.
pub(crate) fn ignore(data: &[u8]) {
    let data = &data[..data.len().min(4096)];
    let end = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (path, rules) = (&data[..end], &data[(end + 1).min(data.len())..]);
    let Ok(file) = frontend::IgnoreFile::parse("rules", rules) else {
        return;
    };
    let list = file.list();
    let path = TreePath::clean(path);
    let mut above = TreePath::root();
    let mut closed = false;
    for name in path.components() {
        above.push(name);
        let ignored = list.matches(&above);
        // What lies in a directory that is skipped as a whole must not have been kept.
        assert!(ignored || !closed, "{above} of {file:?}");
        assert_eq!(file.excluding(&above).is_some(), ignored, "{above} of {file:?}");
        closed |= ignored && !list.could_contain(&above);
    }
    if list.is_empty() {
        assert!(!list.matches(&path));
    }
}

/// A whole file.
pub(crate) fn lower(data: &[u8]) {
    if let Some(dockerfile) = read(&data[..data.len().min(MAX_BYTES)]) {
        let mut options = Options::new("linux/amd64".parse().expect("because it is a platform"));
        options.named_contexts = BTreeMap::from([
            ("named".to_owned(), NamedContext::Directory),
            ("other".to_owned(), NamedContext::Image("base".to_owned())),
        ]);
        options.build_args.push(("given".to_owned(), "x y".to_owned()));
        lowered(&dockerfile, &options);
    }
}

/// Lowers, answering that every image has triggers and settings.
fn lowered(dockerfile: &Dockerfile, options: &Options) {
    let config = br#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","b=c"],"Cmd":["sh"],
        "OnBuild":["ARG a=1","COPY --from=another /a /b"]},"history":[{"created_by":"base"}]}"#;
    let mut answers = Answers::default();
    let mut graph = Graph::new();
    for _ in 0..8 {
        match lower_file(dockerfile, options, &answers, &mut graph) {
            Err(diagnostics) => {
                assert!(diagnostics.has_errors());
                return show(&diagnostics, &dockerfile.source);
            }
            Ok(Lowered::Ready(build)) => {
                assert!(build.target.index() < graph.len());
                show(&build.warnings, &dockerfile.source);
                let json = build.config.to_json();
                let again = ImageConfig::parse(&json).expect("because it was just written");
                assert_eq!(again.to_json(), json);
                return;
            }
            Ok(Lowered::Need(needed)) => {
                assert!(!needed.is_empty());
                for needed in needed {
                    let Request::Image(request) = needed.request else {
                        // Commits and files can't be made up.
                        return;
                    };
                    let image = ResolvedImage {
                        config: ImageConfig::parse(config).expect("because it is a config"),
                        layers: Vec::new(),
                        reference: request.reference.clone(),
                    };
                    assert!(answers.images.insert(request, image).is_none(), "asked again");
                }
            }
        }
    }
    panic!("no end of requests");
}
