//! Config, history and warnings. Spec: dockerfile.md §20.

use super::*;

#[rustfmt::skip]
#[test]
fn histories() {
    for (id, text, expected) in [
        ("Y1", "ARG a=1\nARG a=2\nARG b\nRUN x", "- ARG a=1|- ARG a=2|- ARG b|+ RUN |2 a=2 b= /bin/sh -c x # buildkit"),
        ("Y2", "ARG a=1\nENV a=2\nRUN x", "- ARG a=1|- ENV a=2|+ RUN |1 a=2 /bin/sh -c x # buildkit"),
        ("Y6", "RUN <<EOF\na\nb\nEOF", "+ RUN /bin/sh -c a\nb\n # buildkit"),
        ("exec", "RUN [\"a\",\"b c\"]", "+ RUN a b c # buildkit"),
        ("Y7", "COPY --from=x --link --chown=1 --chmod=644 a b c/", "+ COPY --chown=1 --chmod=644 a b c/ # buildkit"),
        ("H8", "COPY f <<A /d/\nx\nA", "+ COPY f <<A /d/ # buildkit"),
        ("ADD", "ENV d=x\nADD $d .", "- ENV d=x|+ ADD x . # buildkit"),
        ("Y8", "ONBUILD RUN x", ""),
        ("Y10", "WORKDIR a\nWORKDIR b", "+ WORKDIR /a|+ WORKDIR /a/b"),
        ("I3", "WORKDIR /", "- WORKDIR /"),
        ("ENV", "ENV a=\"b c\" d=e\nENV k v w", "- ENV a=b c d=e|- ENV k v w"),
        ("LABEL", "LABEL a=b", "- LABEL a=b"),
        ("CMD", "CMD a \"b\"", "- CMD [\"/bin/sh\" \"-c\" \"a \\\"b\\\"\"]"),
        ("ENTRYPOINT", "ENTRYPOINT [\"a\",\"b\"]", "- ENTRYPOINT [\"a\" \"b\"]"),
        ("SHELL", "SHELL [\"/bin/bash\",\"-c\"]", "- SHELL [/bin/bash -c]"),
        ("I11", "EXPOSE 80 443/tcp 1-2/udp", "- EXPOSE [1/udp 2/udp 443/tcp 80/tcp]"),
        ("VOLUME", "VOLUME /a /b", "- VOLUME [/a /b]"),
        ("USER", "USER x\nSTOPSIGNAL SIGTERM\nMAINTAINER me", "- USER x|- STOPSIGNAL SIGTERM|- MAINTAINER me"),
        ("HEALTHCHECK", "HEALTHCHECK --interval=1s --timeout=10s --start-period=3s --start-interval=100ms --retries=5 CMD x", "- HEALTHCHECK {Test:[CMD-SHELL x] Interval:1s Timeout:10s StartPeriod:3s StartInterval:100ms Retries:5}"),
        ("NONE", "HEALTHCHECK NONE", "- HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"),
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

#[rustfmt::skip]
#[test]
fn configs() {
    // Instructions on top of `base`, then a JSON pointer into the config and what is there.
    for (id, text, pointer, expected) in [
        ("J1", "CMD [\"a\",\"b\"]", "/config/Cmd", "[\"a\",\"b\"]"),
        ("J2", "CMD ['a','b']", "/config/Cmd", "[\"/bin/sh\",\"-c\",\"['a','b']\"]"),
        ("J5", "CMD []", "/config/Cmd", "null"),
        ("J5b", "ENTRYPOINT []", "/config/Entrypoint", "null"),
        ("J12", "HEALTHCHECK CMD [\"a\"]", "/config/Healthcheck", "{\"Test\":[\"CMD\",\"a\"]}"),
        ("J13", "ENTRYPOINT [\"x\"]", "/config/Cmd", "null"),
        ("J14", "CMD [\"a\"]\nENTRYPOINT [\"x\"]", "/config/Cmd", "[\"a\"]"),
        ("J15", "VOLUME [\"/a\",\"/b\"]", "/config/Volumes", "{\"/a\":{},\"/b\":{}}"),
        ("V10", "LABEL a=\"multi\\\nline\"", "/config/Labels/a", "\"multiline\""),
        ("V11", "LABEL a=1\nLABEL a=2", "/config/Labels", "{\"a\":\"2\"}"),
        ("V32", "ENV P=\"80 443/tcp\"\nEXPOSE $P", "/config/ExposedPorts", "{\"443/tcp\":{},\"80/tcp\":{}}"),
        ("V33", "ENV d=a e=b\nWORKDIR $d/$e", "/config/WorkingDir", "\"/srv/a/b\""),
        ("V33b", "ENV s=9\nSTOPSIGNAL $s", "/config/StopSignal", "\"9\""),
        ("V34", "CMD echo $x", "/config/Cmd/2", "\"echo $x\""),
        ("V35", "ONBUILD RUN echo $x", "/config/OnBuild", "[\"RUN echo $x\"]"),
        ("H25", "ONBUILD COPY <<EOF /x\na\nEOF", "/config/OnBuild", "[\"COPY <<EOF /x\\na\\nEOF\"]"),
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
    let build = built("FROM scratch", &Options::new(arm));
    let config = &build.config;
    assert_eq!(
        (config.architecture.as_str(), config.variant.as_str()),
        ("arm", "v7"),
        "I24"
    );
}

#[rustfmt::skip]
#[test]
fn warnings() {
    for (id, text, expected) in [
        ("V29", "FROM base\nENV a=$LNAG", "UndefinedVar"),
        ("declared", "FROM base\nARG a\nENV b=$a", ""),
        ("default", "FROM base\nENV a=${x:-1}", ""),
        ("K8", "FROM base\nENV a=$nope\nFROM scratch", ""),
        ("WorkdirRelativePath", "FROM base\nWORKDIR a\nWORKDIR b", "WorkdirRelativePath"),
        ("absolute", "FROM base AS a\nWORKDIR /a\nFROM a\nWORKDIR b", ""),
        ("JSONArgsRecommended", "FROM base\nCMD a\nENTRYPOINT b", "JSONArgsRecommended JSONArgsRecommended"),
        ("shell", "FROM base\nSHELL [\"a\"]\nCMD a", ""),
        ("K1", "# check=skip=JSONArgsRecommended\nFROM base\nCMD a\nWORKDIR a", "WorkdirRelativePath"),
        ("quirk 3", "FROM base AS x\nFROM X", "StageNameCasing"),
        ("triggers", "FROM base AS x\nONBUILD CMD a\nFROM x", ""),
        ("UndefinedArgInFrom", "FROM base$x", "UndefinedArgInFrom"),
    ] {
        let build = built(text, &options());
        let rules: Vec<&str> = build.warnings.iter().filter_map(|warning| warning.rule).map(crate::Rule::name).collect();
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
