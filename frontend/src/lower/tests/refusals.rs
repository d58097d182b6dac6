//! Builds that are refused, and files that are hostile. Spec: dockerfile.md §20.

use super::*;

#[rustfmt::skip]
#[test]
fn builds_that_are_refused() {
    let plain = options();
    let target = |target: &str| Options {
        target: Some(target.to_owned()),
        ..options()
    };
    for (id, text, options, phrase) in [
        ("S5", "FROM scratch AS build\nFROM scratch", &target("nope"), "target stage \"nope\" could not be found"),
        ("S5b", "FROM scratch AS build", &target("bulid"), "(did you mean `build`?)"),
        ("S6", "FROM scratch", &target("0"), "could not be found"),
        ("S11", "FROM scratch\nCOPY --from=9 a b", &plain, "invalid stage index 9"),
        ("S11b", "FROM scratch\nCOPY --from=0 a b", &plain, "invalid stage index 0"),
        ("S12", "FROM scratch AS a\nCOPY --from=a a b", &plain, "needs to be defined before current stage \"a\""),
        ("S18", "ARG x\nFROM ${x}\nFROM scratch", &plain, "base name (${x}) should not be blank"),
        ("S19", "FROM $undef", &plain, "base name ($undef) should not be blank"),
        ("S20", "FROM --platform=bad/x/y/z scratch", &plain, "failed to parse platform bad/x/y/z"),
        ("empty", "FROM --platform=$X scratch", &plain, "empty platform value from expression $X"),
        ("platform", "FROM --platform=$TARGETPLATFROM scratch", &plain, "did you mean `TARGETPLATFORM`?"),
        ("I26", "FROM windows", &plain, "image docker.io/library/windows is for windows, only linux images can be built\n --> Dockerfile:1:6"),
        ("I26b", "FROM --platform=windows/amd64 x", &plain, "platform windows/amd64 is not supported"),
        ("S24", "FROM scratch\nCOPY --from=$x a b", &plain, "variable expansion is not supported for --from"),
        ("R7", "FROM x\nRUN --network=host a", &plain, "entitlement network.host is not allowed"),
        ("late", "FROM x\nENV u=http://a/b\nCOPY $u /", &plain, "source can't be a URL for COPY"),
        ("A17", "FROM x\nADD --checksum=sha256:00 http://a/b http://a/c /", &plain, "checksum can't be specified for multiple sources"),
        ("A17", "FROM x\nADD --checksum=sha256:00 b /", &plain, "checksum requires HTTP(S) or Git sources"),
        ("A17", "FROM x\nADD --checksum=sha256:00 http://a/b /", &plain, "invalid checksum digest format sha256:00"),
        ("syntax", "# syntax=foo/bar:1\nFROM x", &plain, "syntax foo/bar:1 is not supported"),
        ("P32", "FROM x", &with_args(&[("BUILDKIT_SYNTAX", "foo")]), "syntax foo is not supported"),
        ("C35", "FROM x\nCOPY --chmod=64a a b", &plain, "invalid chmod parameter: '64a'. it should be octal string"),
        ("C35b", "FROM x\nCOPY --chmod=10000 a b", &plain, "between 0 and 07777"),
        ("C16", "FROM x\nCOPY a b /d", &plain, "when using COPY with more than one source file, the destination must be a directory and end with a /\n --> Dockerfile:2:10"),
        ("C16b", "FROM x\nADD a <<B /d\nx\nB", &plain, "when using ADD with more than one source file"),
        ("quirk 16", "FROM x\nHEALTHCHECK --interval=1s NONE", &plain, "HEALTHCHECK NONE takes no flags"),
        ("quirk 16b", "FROM x\nSTOPSIGNAL --foo 9", &plain, "unknown flag: --foo"),
        ("quirk 16c", "FROM x\nARG --foo a", &plain, "unknown flag: --foo"),
        ("I9", "FROM x\nEXPOSE foo", &plain, "invalid containerPort: foo"),
        ("I13", "FROM x\nSTOPSIGNAL FOO", &plain, "Invalid signal: FOO"),
        ("I12", "FROM x\nVOLUME $nope", &plain, "VOLUME specified can not be an empty string"),
        ("V15", "FROM x\nENV a=${FOO:?msg}", &plain, "failed to process \"${FOO:?msg}\": FOO: msg"),
        ("V21", "FROM x\nENV a=${x", &plain, "syntax error: missing '}'"),
        ("T2", "FROM x", &with_args(&[("SOURCE_DATE_EPOCH", "x")]), "invalid SOURCE_DATE_EPOCH: x"),
        ("trigger", "FROM badtrigger", &plain, "FROM isn't allowed as an ONBUILD trigger\n --> Dockerfile:1:1"),
        ("K3", "# check=error=true\nFROM x as Y", &plain, "lint violation found for rules: FromAsCasing, StageNameCasing"),
        ("K3b", "# check=error=true\nFROM x\nWORKDIR a", &plain, "rules: WorkdirRelativePath"),
    ] {
        refused(id, text, options, phrase);
    }
    refused(
        "S13",
        "FROM scratch\nCOPY --from=B a b\nFROM scratch AS b\nCOPY --from=0 x y",
        &plain,
        "cannot copy from stage \"b\", it needs to be defined before current stage \"0\"",
    );
}

#[test]
fn flags_have_limits() {
    let many = format!("FROM x\nRUN {}y", "--mount=type=ssh ".repeat(1001));
    refused(
        "flags",
        &many,
        &options(),
        "more than 1000 flags in one instruction",
    );
    let many = format!("FROM x\nRUN --mount={}type=ssh y", "id=a,".repeat(1000));
    refused("fields", &many, &options(), "more than 1000 fields in one flag");
    let part = format!("{}\\\n", "a".repeat(60_000));
    let long = format!("FROM x\nRUN --mount=target=/{},target=/ y", part.repeat(20));
    refused("length", &long, &options(), "invalid mount target");
    let many = format!("FROM x\nRUN {}y", "\\\n --mount=type=ssh".repeat(900) + "\\\n ");
    assert_eq!(exec(&many, &options()).mounts.len(), 900);
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
    refused("bomb", &bomb, &options(), "the result is larger than");
    // Each line makes a megabyte, and is refused, so that the test itself needs little memory.
    let mut many = String::from("FROM scratch\nENV a=0123456789abcdef\n");
    (0..15).for_each(|_| many.push_str("ENV a=$a$a\n"));
    (0..700).for_each(|_| many.push_str("STOPSIGNAL \"$a\"\n"));
    refused("many", &many, &options(), "expand to more than");
}

proptest::proptest! {
    #[test]
    fn lowering_never_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "\nFROM ", "\nRUN ", "\nCOPY ", "\nADD ", "\nENV ", "\nARG ", "\nWORKDIR ", "\nONBUILD ", "\nEXPOSE ", " AS x", "x",
        " ", "--from=", "0", "$x", "${x", "}", "scratch", "a=b", "<<E", "\nE\n", "/", "..", "[\"a\"]", "\"", ":-", "%%", "\nRUN --mount=", "type=cache", "type=secret", ",", "target=", "from=x", "id=",
        "size=1k", "--device=", "--parents ", "--exclude=", "#", "\nSHELL ", "SOURCE_DATE_EPOCH",
    ]), 0..40)) {
        let (result, _) = lowered(&format!("FROM a AS x\n{}", words.concat()), &options());
        if let Ok(build) = result {
            proptest::prop_assert!(build.target.index() < build.graph.len());
        }
    }
}
