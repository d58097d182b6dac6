//! What RUN executes, and in which environment. Spec: dockerfile.md §20.

use super::*;

#[rustfmt::skip]
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
        ("V2", "FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc", &none, "abc=bye def=hello ghi=bye"),
        ("V3", "FROM scratch\nENV k a b  c", &none, "k=a b  c"),
        ("V7", "FROM scratch\nENV p=\"a b\" q=a\\ b r='$x'", &none, "p=a b q=a b r=$x"),
        ("V8", "FROM scratch\nENV k=n\nENV $k=v", &none, "k=n n=v"),
        ("V36", "FROM scratch\nARG a=1\nENV a=2", &none, "a=2"),
        ("V37", "FROM scratch\nENV a=2\nARG a=1", &none, "a=1"),
        ("V38", "FROM scratch\nARG a\nENV b=${a-d}", &none, "b=d"),
        ("V39", "FROM scratch\nARG a=\nENV b=${a-d}", &none, "a= b="),
        ("V40", "FROM scratch\nARG a=${", &with_args(&[("a", "x")]), "a=x"),
        ("V41", "ARG v=1\nFROM img:$v\nENV a=[$v]", &none, "a=[]"),
        ("V42", "ARG v=1\nFROM scratch\nARG v", &none, "v=1"),
        ("V42b", "ARG v=1\nFROM scratch\nARG v=2", &none, "v=2"),
        ("V42c", "ARG v=1\nFROM scratch\nARG v=2", &with_args(&[("v", "3")]), "v=3"),
        ("V43", "ARG a=1\nARG b=$a.2\nFROM scratch\nARG b", &none, "b=1.2"),
        ("V44", "FROM scratch\nARG a=1 b=2 c", &none, "a=1 b=2"),
        ("V45", "FROM scratch AS p\nARG a=1\nFROM p\nENV b=$a", &none, "a=1 b=1"),
        ("V46", "FROM scratch\nENV b=[$a]\nARG a=1", &none, "b=[] a=1"),
        ("V51", "FROM scratch\nENV a=[$TARGETARCH]\nARG TARGETPLATFORM", &none, "a=[] TARGETPLATFORM=linux/amd64"),
        ("V52", "FROM scratch\nARG TARGETOS", &with_args(&[("TARGETOS", "foo")]), "TARGETOS=foo"),
        ("V53", "FROM scratch AS last\nARG TARGETSTAGE", &none, "TARGETSTAGE=last"),
        ("V53b", "FROM scratch\nARG TARGETSTAGE", &none, "TARGETSTAGE=default"),
        ("V55", "FROM base\nENV LANG=D a=b", &none, "LANG=D a=b"),
        ("SBOM", "FROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nARG BUILDKIT_SBOM_SCAN_CONTEXT", &with_args(&[("BUILDKIT_SBOM_SCAN_CONTEXT", "1")]), ""),
        ("I26", "# escape=`\nFROM scratch\nENV d=C:\\a`\n\\b `\n  e=`$d", &none, "d=C:\\a\\b e=$d"),
        ("V60", "FROM scratch\nENV a='b '", &none, "a=b "),
        ("S27", "FROM base", &none, "LANG=C"),
        ("T9", "FROM scratch\nARG SOURCE_DATE_EPOCH", &with_args(&[("SOURCE_DATE_EPOCH", "7")]), "SOURCE_DATE_EPOCH=7"),
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

#[rustfmt::skip]
#[test]
fn runs() {
    let none = options();
    for (id, text, options, args) in [
        ("shell", "RUN a  b", &none, "/bin/sh|-c|a  b"),
        ("exec", "RUN [\"a\",\"$b\"]", &none, "a|$b"),
        ("P33", "RUN", &none, "/bin/sh|-c|"),
        ("J10", "SHELL [\"/bin/bash\",\"-ec\"]\nRUN x", &none, "/bin/bash|-ec|x"),
        ("H1", "RUN <<EOF\na\nb\nEOF", &none, "/bin/sh|-c|a\nb\n"),
        ("H3", "RUN <<EOF\n#!/bin/x\nb\nEOF", &none, "/bin/sh|-c|/dev/pipes/EOF"),
        ("H4", "RUN python3 <<EOF\nx $y\nEOF", &none, "/bin/sh|-c|python3 <<EOF\nx $y\nEOF"),
        ("H5", "RUN cat <<A && cat <<-B\n1\nA\n\t2\nB\n", &none, "/bin/sh|-c|cat <<A && cat <<-B\n1\nA\n\t2\nB"),
        ("H7", "RUN <<-EOF\n\ta\n  b\n\tEOF", &none, "/bin/sh|-c|a\n  b\n"),
        ("H22", "RUN <<EOF\nEOF", &none, "/bin/sh|-c|"),
        ("H23", "SHELL [\"python3\",\"-c\"]\nRUN <<EOF\nx\nEOF", &none, "python3|-c|x\n"),
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
    assert_eq!(build.warnings.len(), 0);
    let options = with_args(&[
        ("used", "1"),
        ("unused", "1"),
        ("BUILDKIT_X", "1"),
        ("unused", "2"),
    ]);
    let build = built("FROM scratch AS a\nARG used\nFROM scratch", &options);
    let warnings: Vec<&str> = build
        .warnings
        .iter()
        .map(|warning| warning.message.as_str())
        .collect();
    assert_eq!(warnings, ["build argument unused is not declared by any ARG"]);
}

// case U8: what a list of contents looks at besides the result
#[test]
fn arguments_say_what_a_list_of_contents_looks_at() {
    let check = |text: &str, options: &Options, expected: (bool, &str)| {
        let scans = built(text, options).scans.clone();
        let names: Vec<&str> = scans.stages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((scans.context, names.join(" ").as_str()), expected, "{text}");
    };
    let rest = "FROM scratch AS a\nCOPY x /\nFROM scratch AS unused\nFROM scratch AS b\nCOPY --from=a /x /\nFROM scratch\nCOPY --from=b /x /";
    let none = options();
    check(rest, &none, (false, ""));
    check(
        &format!("ARG BUILDKIT_SBOM_SCAN_STAGE=true\n{rest}"),
        &none,
        (false, "a b"),
    );
    check(
        &format!("ARG BUILDKIT_SBOM_SCAN_STAGE=b,unused\n{rest}"),
        &none,
        (false, "b"),
    );
    check(
        &format!("ARG BUILDKIT_SBOM_SCAN_CONTEXT\n{rest}"),
        &none,
        (false, ""),
    );
    let given = with_args(&[
        ("BUILDKIT_SBOM_SCAN_CONTEXT", "1"),
        ("BUILDKIT_SBOM_SCAN_STAGE", "true"),
    ]);
    check(
        &format!("ARG BUILDKIT_SBOM_SCAN_CONTEXT\n{rest}"),
        &given,
        (true, ""),
    );
    let in_stage = rest.replacen("COPY x", "ARG BUILDKIT_SBOM_SCAN_STAGE=1\nCOPY x", 1);
    check(&in_stage, &none, (false, "a"));
}
