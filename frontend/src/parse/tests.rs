//! Spec: dockerfile.md §20.1 (P), §20.2 (K), §20.3 (J), §20.5 (H); each case is named by its id.

use crate::ast::{Command, Dockerfile, Kind};
use crate::diagnostic::{Diagnostics, Severity};
use crate::{SourceText, parse, render};

/// Returns all findings as one line each.
fn findings(diagnostics: &Diagnostics) -> Vec<String> {
    let line = |finding: &crate::Diagnostic| {
        let label = finding
            .label
            .as_ref()
            .map(|label| format!(" ({label})"))
            .unwrap_or_default();
        format!("{}{label}", finding.message)
    };
    diagnostics.iter().map(line).collect()
}

#[track_caller]
fn parsed(text: &str) -> Dockerfile {
    let (dockerfile, diagnostics) = parse("Dockerfile", text.as_bytes());
    dockerfile.unwrap_or_else(|| panic!("{text:?}: {:?}", findings(&diagnostics)))
}

/// The file is refused, and one of the messages holds `phrase`.
#[track_caller]
fn refused(text: &str, phrase: &str) {
    let (dockerfile, diagnostics) = parse("Dockerfile", text.as_bytes());
    let findings = findings(&diagnostics);
    assert!(dockerfile.is_none(), "{text:?} is accepted");
    assert!(
        findings.iter().any(|finding| finding.contains(phrase)),
        "{text:?}: {findings:?}"
    );
}

/// The rules that fire.
#[track_caller]
fn rules(text: &str) -> Vec<(&'static str, usize)> {
    let (_, diagnostics) = parse("Dockerfile", text.as_bytes());
    let source = SourceText::new("Dockerfile", text.as_bytes());
    let warnings = diagnostics
        .iter()
        .filter(|finding| finding.severity == Severity::Warning);
    let place = |finding: &crate::Diagnostic| source.line_number(finding.span.unwrap().start);
    warnings
        .map(|finding| (finding.rule.unwrap().name(), place(finding)))
        .collect()
}

/// The last instruction of the last stage.
#[track_caller]
fn last(text: &str) -> Kind {
    let dockerfile = parsed(&format!("FROM scratch\n{text}"));
    dockerfile
        .stages
        .last()
        .unwrap()
        .instructions
        .last()
        .unwrap()
        .kind
        .clone()
}

#[track_caller]
fn run(text: &str) -> String {
    match last(text) {
        Kind::Run(run) => match run.command {
            Command::Shell(text) => text,
            Command::Exec(args) => format!("{args:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[rustfmt::skip]
#[test]
fn p_refused_files() {
    let stage = |text: &str| format!("FROM scratch\n{text}");
    for (text, phrase) in [
        ("", "the Dockerfile cannot be empty"),
        ("# a\n\n  # b\n", "file with no instructions"),
        ("ARG A=1", "dockerfile contains no stages to build"),
        ("RUN x\nFROM scratch", "no build stage in current context"),
        ("FRO scratch", "unknown instruction: FRO (did you mean `FROM`?)"),
        (&stage("COPPY . /"), "unknown instruction: COPPY (did you mean `COPY`?)"),
        (&stage("XYZZY a"), "unknown instruction: XYZZY"),
        ("# escape=x\nFROM scratch", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM scratch", "only one escape parser directive can be used"),
        (&stage(&format!("RUN {}", "a".repeat(65535))), "dockerfile line greater than max allowed size of 65535"),
        (&stage("EXPOSE"), "EXPOSE requires at least one argument"),
        (&stage("USER"), "USER requires exactly one argument"),
        (&stage("WORKDIR  "), "WORKDIR requires exactly one argument"),
        (&stage("ENV"), "ENV requires at least one argument"),
        (&stage("ARG"), "ARG requires at least one argument"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a XX b", "FROM requires either one or three arguments"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a AS 1abc", "invalid name for build stage: \"1abc\", name can't start with a number or contain symbols"),
        ("FROM a AS a/b", "name can't start with a number or contain symbols"),
        ("FROM --platfrom=x a", "unknown flag: --platfrom (did you mean `--platform`?)"),
        (&stage("RUN --foo x"), "unknown flag: --foo"),
        (&stage("RUN --network=foo x"), "invalid network mode \"foo\""),
        (&stage("RUN --security=x y"), "security \"x\" is not valid"),
        (&stage("COPY a"), "COPY requires at least two arguments, but only one was provided. Destination could not be determined"),
        (&stage("COPY --link= a b"), "missing a value on flag: --link"),
        (&stage("COPY --link=maybe a b"), "expecting boolean value for flag --link, not: maybe"),
        (&stage("COPY --from=a --from=b a b"), "duplicate flag specified: --from"),
        (&stage("ADD --from=x a b"), "unknown flag: --from"),
        (&stage("STOPSIGNAL --x 9"), "unknown flag: --x"),
        (&stage("ARG --x a"), "unknown flag: --x"),
        (&stage("COPY http://x/y /"), "source can't be a URL for COPY"),
        (&stage("COPY https://x/y.git /"), "source can't be a git ref for COPY"),
        (&stage("ENV k"), "ENV must have two arguments"),
        (&stage("ENV a=b c"), "can't find = in \"c\""),
        (&stage("ENV =x"), "ENV names can not be blank"),
        (&stage("ARG =x"), "ARG names can not be blank"),
        (&stage("SHELL bash -c"), "SHELL requires the arguments to be in JSON form"),
        (&stage("SHELL []"), "SHELL requires at least one argument"),
        (&stage("CMD [\"a\", 1]"), "arrays must be comprised of strings only"),
        (&stage("VOLUME [\" \"]"), "VOLUME specified can not be an empty string"),
        (&stage("HEALTHCHECK"), "HEALTHCHECK requires at least one argument"),
        (&stage("HEALTHCHECK NONE x"), "HEALTHCHECK NONE takes no arguments"),
        (&stage("HEALTHCHECK FOO x"), "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        (&stage("HEALTHCHECK CMD"), "Missing command after HEALTHCHECK CMD"),
        (&stage("HEALTHCHECK --interval=0.5ms CMD x"), "Interval \"interval\" cannot be less than 1ms"),
        (&stage("HEALTHCHECK --timeout=-1s CMD x"), "Interval \"timeout\" cannot be less than 1ms"),
        (&stage("HEALTHCHECK --retries=-1 CMD x"), "--retries cannot be negative (-1)"),
        (&stage("ONBUILD ONBUILD RUN x"), "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        (&stage("ONBUILD FROM x"), "FROM isn't allowed as an ONBUILD trigger"),
        (&stage("ONBUILD maintainer x"), "MAINTAINER isn't allowed as an ONBUILD trigger"),
        (&stage("ONBUILD RUNN x"), "unknown instruction: RUNN"),
        (&stage("COPY x <<EOF\nEOF"), "COPY cannot accept a heredoc as a destination"),
        (&stage("ADD x <<EOF\nEOF"), "ADD cannot accept a heredoc as a destination"),
        (&stage("RUN <<EOF\nx\n"), "unterminated heredoc"),
        (&stage("COPY <<'E a"), "matching single-quote"),
        ("# check=foo=bar\nFROM scratch", "invalid check option \"foo=bar\""),
    ] {
        refused(text, phrase);
    }
}

#[test]
fn p_all_mistakes_are_found() {
    let (_, diagnostics) = parse("Dockerfile", b"FROM\nENV\nCOPY a\nRUN ok\nFOO\n");
    assert_eq!(diagnostics.len(), 4, "{:?}", findings(&diagnostics));
}

#[rustfmt::skip]
#[test]
fn p_logical_lines() {
    for (id, text, expected) in [
        ("P8", "RUN echo a\\\r\n&& echo b\r\n", "echo a&& echo b"),
        ("P9", "   RUN true", "true"),
        ("P10", "RUN echo a \\\n   b", "echo a    b"),
        ("P11", "RUN echo a \\   \n b", "echo a  b"),
        ("P12", "RUN echo a\\\\\nRUN echo b", "echo b"),
        ("P12b", "RUN echo a\\\\\\\nRUN echo b", "echo b"),
        ("P13", "RUN a \\\n   # comment\nb", "a b"),
        ("P14", "RUN a \\\n# comment\n# more\nRUN b", "a RUN b"),
        ("P16", "RUN echo foo # bar", "echo foo # bar"),
        ("P17", "# comment \\\nRUN x", "x"),
        ("P19", "RUN x \\", "x"),
        ("P20", "RUN a \\\n\\\nb", "a b"),
        ("P33", "RUN", ""),
        ("J4", "RUN [\"echo\",\"x\"]junk", "[\"echo\",\"x\"]junk"),
        ("J11", "RUN [\"echo\",\"$HOME\"]", "[\"echo\", \"$HOME\"]"),
        ("J16", "RUN   [ \"a\" ]  ", "[\"a\"]"),
        ("flags", "RUN --network=none -- --x", "--x"),
        ("H27", "RUN echo \"<<EOF\"", "echo \"<<EOF\""),
        ("H19", "RUN cat <<< x", "cat <<< x"),
        ("H24", "RUN [\"cat\",\"<<EOF\"]", "[\"cat\", \"<<EOF\"]"),
    ] {
        assert_eq!(run(text), expected, "{id}");
    }
}

#[rustfmt::skip]
#[test]
fn p_accepted_files() {
    for text in [
        "fRoM scratch",
        "\u{feff}FROM scratch",
        "\u{feff}# escape=`\nFROM scratch",
        "FROM a as b",
        "FROM a aS b",
        "FROM\ta\u{b}AS\u{c}b\r",
        "ARG x\nFROM $x",
        "FROM scratch\nCMD []\nENTRYPOINT []",
        &format!("FROM scratch\nRUN {}", "a".repeat(65531)),
        "FROM scratch\nADD http://x/y /",
    ] {
        parsed(text);
    }
}

#[rustfmt::skip]
#[test]
fn p_directives() {
    for (id, text, escape, syntax) in [
        ("P21", "# escape=`\nFROM a", '`', None),
        ("P24", "\n# escape=`\nFROM a", '\\', None),
        ("P25", "# comment\n# escape=`\nFROM a", '\\', None),
        ("P26", "# foo=bar\n# escape=`\nFROM a", '\\', None),
        ("P27", "#escape=\\\nFROM a", '\\', None),
        ("P27b", "# EsCaPe = `\nFROM a", '`', None),
        ("P28", "# syntax=image:tag --opt\n# escape=`\nFROM a", '`', Some("image:tag")),
        ("P29", "#!/usr/bin/env x\n# syntax=ref\nFROM a", '\\', Some("ref")),
    ] {
        let directives = parsed(text).directives;
        assert_eq!(
            (directives.escape, directives.syntax_reference()),
            (escape, syntax),
            "{id}"
        );
    }
    for text in ["//syntax=ref\n", "{\"syntax\":\"ref\"}"] {
        let source = SourceText::new("Dockerfile", text.as_bytes());
        let (directives, _) = crate::directive::read(&source, &mut Diagnostics::default());
        assert_eq!(directives.syntax_reference(), Some("ref"), "P30, P31: {text}");
    }
}

#[rustfmt::skip]
#[test]
fn k_rules_fire_and_can_be_skipped() {
    for (text, expected) in [
        ("fRoM scratch", vec![("ConsistentInstructionCasing", 1)]),
        ("FROM a as b", vec![("FromAsCasing", 1)]),
        ("from a as b", vec![]),
        ("FROM a AS Build", vec![("StageNameCasing", 1)]),
        ("FROM a AS x\nFROM a AS X", vec![("StageNameCasing", 2), ("DuplicateStageName", 2)]),
        ("FROM a\nRUN b \\\n\n\n  c", vec![("NoEmptyContinuation", 5)]),
        ("FROM a\nMAINTAINER x", vec![("MaintainerDeprecated", 2)]),
        ("FROM a\nENV a b", vec![("LegacyKeyValueFormat", 2)]),
        ("FROM a\nLABEL a b", vec![("LegacyKeyValueFormat", 2)]),
        ("FROM a\nONBUILD ENV a b", vec![]),
        ("# check=skip=stagenamecasing\nFROM a as Build", vec![("FromAsCasing", 2)]),
        ("# check=skip=all\nFROM a as Build", vec![]),
        ("FROM a AS scratch", vec![("ReservedStageName", 1)]),
        ("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER x", vec![]),
    ] {
        assert_eq!(rules(text), expected, "{text}");
    }
}

#[rustfmt::skip]
#[test]
fn h_heredocs() {
    // Openers and bodies as `name|expand|chomp|content` for each.
    for (id, text, expected) in [
        ("H1", "RUN <<EOF\na\nb\nEOF", vec!["EOF|true|false|a\nb\n"]),
        ("H4", "RUN python3 <<EOF\nprint()\nEOF\nRUN x", vec![]),
        ("H5", "RUN cat <<A >x && <<B cat > y\n1\nA\n2\nB\n", vec!["A|true|false|1\n", "B|true|false|2\n"]),
        ("H6", "RUN cat <<'EOF'\n$x\nEOF", vec!["EOF|false|false|$x\n"]),
        ("H7", "RUN <<-EOF\n\ta\n  b\n\tEOF", vec!["EOF|true|true|\ta\n  b\n"]),
        ("H17", "RUN cat <<\"one two\"\nx\none two\n", vec!["one two|false|false|x\n"]),
        ("H18", "RUN cat <<$EOF\nx\nEOF\n$EOF\n", vec!["$EOF|true|false|x\nEOF\n"]),
        ("H20", "RUN 3<<EOF cat <&3\nx\nEOF", vec!["EOF|true|false|x\n"]),
        ("H21", "RUN <<EOF\n# c\nFROM x\\\n\nEOF", vec!["EOF|true|false|# c\nFROM x\\\n\n"]),
        ("H22", "RUN <<EOF\nEOF", vec!["EOF|true|false|"]),
        ("H30", "RUN a \\\n <<EOF\nx\nEOF", vec!["EOF|true|false|x\n"]),
        ("blank", "RUN cat << EOF\nx\nEOF", vec!["EOF|true|false|x\n"]),
        ("quote", "RUN cat <<eo\\'f\nx\neo'f", vec!["eo'f|false|false|x\n"]),
        ("crlf", "RUN cat <<EOF\r\nx\r\nEOF\r\n", vec!["EOF|true|false|x\n"]),
        ("H10", "COPY <<A <<A f /d/\n1\nA\n2\nA", vec!["A|true|false|1\n", "A|true|false|2\n"]),
    ] {
        let heredocs = match last(text) {
            Kind::Run(run) => run.heredocs,
            Kind::Copy(copy) => copy.heredocs,
            other => panic!("{id}: {other:?}"),
        };
        let shown: Vec<String> = heredocs
            .iter()
            .map(|heredoc| {
                format!(
                    "{}|{}|{}|{}",
                    heredoc.name, heredoc.expand, heredoc.chomp, heredoc.content
                )
            })
            .collect();
        assert_eq!(shown, expected, "{id}");
    }
}

#[rustfmt::skip]
#[test]
fn copies_have_sources_and_a_destination() {
    for (id, text, expected) in [
        ("J6", "COPY [\"a b\",\"/x y/\"]", "a b -> /x y/"),
        ("P34", "COPY a\tb\u{b}c\u{c}/d", "a,b,c -> /d"),
        ("brackets", "COPY [a b] /d", "[a,b] -> /d"),
        ("H11", "COPY f <<A g /dir/\nx\nA", "f,g -> /dir/"),
        ("H17", "COPY <<\"a b\" /dir/\nx\na b", " -> /dir/"),
        ("trailing blank", "COPY <<A f /dir/ \nx\nA", "f -> /dir/"),
    ] {
        let Kind::Copy(copy) = last(text) else {
            panic!("{id}")
        };
        let sources: Vec<&str> = copy.sources.iter().map(|text| text.value.as_str()).collect();
        assert_eq!(
            format!("{} -> {}", sources.join(","), copy.dest.value),
            expected,
            "{id}"
        );
    }
}

#[rustfmt::skip]
#[test]
fn env_pairs() {
    for (id, text, expected) in [
        ("V3", "ENV k a b  c", vec![("k", "a b  c")]),
        ("V7", "ENV p=\"a b\" q=a\\ b r='$x'", vec![("p", "\"a b\""), ("q", "a\\ b"), ("r", "'$x'")]),
        ("V57", "ENV a=b=c", vec![("a", "b=c")]),
        ("V58", "ENV \"com.x y\"=1", vec![("\"com.x y\"", "1")]),
        ("V59", "ENV a=\"x\\\ny\"", vec![("a", "\"xy\"")]),
    ] {
        let Kind::Env(pairs) = last(text) else {
            panic!("{id}")
        };
        let shown: Vec<(&str, &str)> = pairs
            .pairs
            .iter()
            .map(|(name, value)| (name.value.as_str(), value.value.as_str()))
            .collect();
        assert_eq!(shown, expected, "{id}");
    }
}

#[test]
fn p40_p41_errors_show_their_lines() {
    let text = "FROM scratch\nRUN a\n\nCOPY --chwon=1 \\\n  a \\\n  b\nENV a=1 \\\n    b\n";
    let (_, diagnostics) = parse("Dockerfile", text.as_bytes());
    let source = SourceText::new("Dockerfile", text.as_bytes());
    let shown: String = diagnostics
        .iter()
        .map(|finding| render(finding, &source, false))
        .collect();
    insta::assert_snapshot!(shown, @r#"
    error: unknown flag: --chwon
     --> Dockerfile:4:6
    4 | COPY --chwon=1 \
      |      ^^^^^^^^^ did you mean `--chown`?
    error: Syntax error - can't find = in "b". Must be of the form: name=value
     --> Dockerfile:8:5
    8 |     b
      |     ^
    help: values with blanks need quotes
    "#);
}

#[test]
fn text_that_is_not_utf8_is_refused_in_instructions_only() {
    let (dockerfile, _) = parse("Dockerfile", b"# caf\xe9\nFROM scratch\n");
    assert!(dockerfile.is_some());
    let (dockerfile, diagnostics) = parse("Dockerfile", b"FROM scratch\nENV a=caf\xe9\n");
    assert!(dockerfile.is_none());
    assert_eq!(findings(&diagnostics), ["instruction is not valid UTF-8"]);
}

proptest::proptest! {
    #[test]
    fn parsing_never_panics_and_spans_lie_inside(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        words in proptest::collection::vec(proptest::sample::select(vec![
            "FROM", "RUN", "COPY", "ENV", "ONBUILD", "<<EOF", "EOF", "\n", "\\\n", " ", "--from=", "\"", "'", "$", "${",
            "}", "[", "]", "a=b", "#", "escape=`", "`", "é", "\u{feff}", "\r\n", "HEALTHCHECK", "<<-", "=", "scratch",
        ]), 0..60),
    ) {
        for text in [bytes, words.concat().into_bytes(), format!("FROM a\n{}", words.concat()).into_bytes()] {
            let (dockerfile, diagnostics) = parse("Dockerfile", &text);
            let source = SourceText::new("Dockerfile", &text);
            for finding in &diagnostics {
                let shown = render(finding, &source, true);
                proptest::prop_assert!(shown.ends_with('\n'));
                if let Some(span) = finding.span {
                    proptest::prop_assert!(span.start <= span.end && span.end <= source.text().len());
                }
            }
            for stage in dockerfile.iter().flat_map(|dockerfile| &dockerfile.stages) {
                for instruction in &stage.instructions {
                    proptest::prop_assert!(source.text().get(instruction.span.start..instruction.span.end).is_some());
                }
            }
        }
    }
}
