//! Mistakes that are told before anything is asked for, all in one run, and none that isn't one.

use super::*;

/// The lines and beginnings of the errors, and what was asked for before.
fn errors(text: &str, options: &Options) -> (String, Vec<String>) {
    let (result, asked) = lowered(text, options);
    let source = SourceText::new("Dockerfile", text.as_bytes());
    let Err(diagnostics) = result else {
        return (String::new(), asked);
    };
    let line = |error: &crate::Diagnostic| {
        let line = error.span.map_or(0, |span| source.line_number(span.start));
        let words: Vec<&str> = error.message.split(' ').take(3).collect();
        format!("{line} {}", words.join(" "))
    };
    (diagnostics.iter().map(line).collect::<Vec<_>>().join("; "), asked)
}

#[rustfmt::skip]
#[test]
fn all_mistakes_are_told_before_images_are_asked_for() {
    for (id, text, target, expected) in [
        ("several stages", "FROM base AS a\nSTOPSIGNAL FOO\nEXPOSE x\nFROM other\nCOPY --from=7 a b\nRUN --network=host x\nCOPY --from=a c d /e",
            None, "2 Invalid signal: FOO; 3 invalid containerPort: x; 5 invalid stage index; 6 entitlement network.host is"),
        ("FROM and more", "FROM base$nope AS a\nFROM --platform=x/y/z/w a\nVOLUME \"\"\nENV a=${b", None, "2 failed to parse; 3 VOLUME specified can; 4 failed to process"),
        ("no follow-up errors", "FROM $nope\nENV a=${B:?}\nRUN --mount=source=x y\nCOPY a b c", None, "1 base name ($nope)"),
        ("target", "FROM base AS a\nSTOPSIGNAL FOO", Some("b"), "0 target stage \"b\"; 2 Invalid signal: FOO"),
        ("mounts", "FROM base\nRUN --mount=target=/ --mount=target=/x,from=9 --security=sandbox x\nRUN --mount=target=${x y", None, "2 invalid mount target; 2 invalid stage index; 3 failed to process"),
        ("in a trigger", "FROM scratch AS a\nONBUILD STOPSIGNAL FOO\nONBUILD COPY --from=9 a b\nFROM a\nSTOPSIGNAL BAR", None, "4 invalid stage index; 4 Invalid signal: FOO; 5 Invalid signal: BAR"),
        ("stages that aren't built", "FROM base AS a\nCOPY --from=b a b\nFROM base\nSTOPSIGNAL X", None, "4 Invalid signal: X"),
    ] {
        let options = Options { target: target.map(str::to_owned), ..options() };
        let (found, asked) = errors(text, &options);
        assert_eq!(found, expected, "{id}");
        assert_eq!(asked, Vec::<String>::new(), "{id}");
    }
}

#[rustfmt::skip]
#[test]
fn what_a_base_decides_waits_for_it() {
    for (id, text) in [
        ("a variable", "ENV x=${LANG:?}"),
        ("one that comes from another", "ENV x=$LANG\nENV y=${x:?}"),
        ("one that was known", "ENV x=\nENV x=$LANG\nVOLUME $x"),
        ("ARG", "ARG x=$LANG\nVOLUME $x"),
        ("working directory", "COPY a b /srv"),
        ("and of mounts", "RUN --mount=source=x y"),
        ("below it", "WORKDIR $LANG\nCOPY a b /srv/C"),
        ("inherited", "FROM base\nCOPY a b /srv\nENV x=${LANG:?}"),
    ] {
        let (found, asked) = errors(&format!("FROM base AS b\n{text}"), &options());
        assert_eq!((found.as_str(), asked.len()), ("", 1), "{id}");
    }
    // And then it is judged.
    let (found, asked) = errors("FROM base\nSTOPSIGNAL $LANG\nENV x=${NO:?}\nCOPY a b /app", &options());
    assert_eq!(found, "2 Invalid signal: C; 3 failed to process; 4 when using COPY");
    assert_eq!(asked.len(), 1);
}
