//! What COPY, ADD and WORKDIR do. Spec: dockerfile.md §20.

use super::*;

#[rustfmt::skip]
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
        ("C13", "COPY sub/*/foo a\\*b /d/", "/d/ [\"/sub/*/foo\", \"/a*b\"]"),
        ("C14", "COPY [[]x /", "/ [\"/[[]x\"]"),
        ("J7", "COPY [\"a $LANG\",\"/\"]", "/ [\"/a C\"]"),
        ("V31", "ENV s='a b'\nCOPY $s /d", "/d [\"/a b\"]"),
        ("C17", "WORKDIR /d\nCOPY a b /d", "/d/ [\"/a\", \"/b\"]"),
        ("C50", "COPY --parents a/./b /d/", "/d/ [\"/a/./b\"]"),
        ("C51", "COPY --parents ./x/./y/../z /d/", "/d/ [\"/x/./z\"]"),
        ("C52", "COPY --parents /./a/b a/b/./ a/./b/./c /d/", "/d/ [\"/a/b\", \"/a/b/./\", \"/a/./b/c\"]"),
        ("C53", "COPY --parents **/*.go /d/", "/d/ [\"/**/*.go\"]"),
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

#[rustfmt::skip]
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
        ("C31", "COPY --chown=1000:2000 a b", "Some(\"1000:2000\") None false"),
        ("C34", "COPY --chown=$u:x a b", "Some(\"7:x\") None false"),
        ("C35", "COPY --chmod=4755 a b", "None Some(Octal(2541)) false"),
        ("C36", "COPY --chmod=u=rwX,go=rX a b", "None Some(Symbolic(\"u=rwX,go=rX\")) false"),
        ("C39", "COPY --chmod=$m a b", "None Some(Octal(384)) false"),
        ("A1", "ADD a b", "None None true"),
        ("A3", "ADD --unpack=false a b", "None None false"),
        ("C67", "COPY --link=false a b", "None None false"),
    ] {
        assert_eq!(change(text), expected, "{id}");
    }
    let selection = |text: &str| {
        let build = built(&format!("FROM base\nENV x=y\n{text}"), &options());
        match &build.graph.vertex(build.target).inputs[1].view {
            InputView::Paths(selection) => format!("{:?} {}", selection.excludes, selection.parents),
            InputView::Whole => panic!("{text}"),
        }
    };
    // Patterns of --exclude are never expanded.
    for (id, text, expected) in [
        ("C55", "COPY --exclude=*.png --exclude=!$x a b", "[\"*.png\", \"!$x\"] false"),
        ("C58", "ADD --exclude=a b c", "[\"a\"] false"),
        ("C50", "COPY --parents=true a b", "[] true"),
    ] {
        assert_eq!(selection(text), expected, "{id}");
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

#[rustfmt::skip]
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
        ("H10", "COPY <<A <<B /dir/\n1\nA\n2\nB", "/dir/ A \"1\\n\"; /dir/ B \"2\\n\""),
        ("quirk 9", "COPY <<A <<A /dir/\n1\nA\n2\nA", "/dir/ A \"1\\n\"; /dir/ A \"2\\n\""),
        ("H13", "COPY <<EOF /x\n$v\nEOF", "/x EOF \"1\\n\""),
        ("H13b", "COPY <<\"EOF\" /x\n$v\nEOF", "/x EOF \"$v\\n\""),
        ("H14", "COPY <<EOF /x\n\"q\" \\$v \\\\ a\\\nb\nEOF", "/x EOF \"\\\"q\\\" $v \\\\ ab\\n\""),
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

/// case A18
#[test]
fn files_from_elsewhere_are_asked_for_once_their_address_is_known() {
    let sum = cache::Digest::of(b"x");
    let text = format!(
        "FROM base\nENV u=http://h/a.tar S={sum}\nADD --checksum=$S --chmod=640 $u /d/\n\
         FROM base\nADD x http://h/b y z /d/\nADD --unpack http://u:p@h/c%2A /e"
    );
    let (built, asked) = lowered(&text, &with_args(&[]));
    let built = built.unwrap();
    // The first stage isn't reached, and images come first.
    assert_eq!(asked[1..], ["http://h/b false", "http://u:p@h/c%2A false"]);
    let Op::File(unpacked) = &built.graph.vertex(built.target).op else {
        panic!("no file op")
    };
    let FileAction::Copy(copy) = &unpacked.actions[0] else {
        panic!("no copy")
    };
    assert!(copy.unpack && unpacked.actions.len() == 1);
    let file = built
        .graph
        .vertex(built.graph.vertex(built.target).inputs[1].vertex);
    let Op::Source(Source::Http(http)) = &file.op else {
        panic!("no file")
    };
    assert_eq!((http.name.as_str(), http.mtime), ("c*", 5));
    // No password is kept or shown.
    assert_eq!(http.url, "http://h/c%2A");
    let shown = format!("{:?} {:?}", labels(&built), history(&built));
    assert!(
        !shown.contains("u:p") && shown.contains("ADD http://h/c%2A /e"),
        "{shown}"
    );
    let before = built
        .graph
        .vertex(built.graph.vertex(built.target).inputs[0].vertex);
    let Op::File(mixed) = &before.op else {
        panic!("no file op")
    };
    let inputs: Vec<usize> = mixed
        .actions
        .iter()
        .map(|action| match action {
            FileAction::Copy(copy) => copy.input,
            _ => 0,
        })
        .collect();
    assert_eq!((inputs, before.inputs.len()), (vec![1, 2, 3], 4));

    let (built, asked) = lowered(
        &text,
        &Options {
            target: Some("0".to_owned()),
            ..options()
        },
    );
    assert!(
        built.is_err() && asked.is_empty(),
        "stages have no index as targets"
    );
    let first = text.replace("FROM base\nENV", "FROM base AS first\nENV");
    let (built, asked) = lowered(
        &first,
        &Options {
            target: Some("first".to_owned()),
            ..options()
        },
    );
    assert!(built.is_ok());
    assert_eq!(asked[1..], ["http://h/a.tar true"]);
}
