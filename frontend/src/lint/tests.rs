//! Each rule with BuildKit's words: a file in, the warnings out.

use std::sync::Arc;

use super::Rule;
use crate::call::check;
use crate::options::{Answers, ImageKind, ImageRequest, Options, ResolvedImage};
use crate::{IgnoreFile, ImageConfig, parse};

/// Returns the warnings of a check, as `line Rule: detail`.
fn warnings(text: &str, options: &Options) -> Vec<String> {
    let mut answers = Answers::default();
    let request = ImageRequest {
        reference: "arm".to_owned(),
        kind: ImageKind::Registry,
        platform: options.target_platform.clone(),
    };
    let image = ResolvedImage {
        config: ImageConfig::parse(br#"{"architecture":"arm64","os":"linux"}"#).unwrap(),
        layers: Vec::new(),
        reference: "arm".to_owned(),
    };
    answers.images.insert(request, image);
    let (dockerfile, diagnostics) = parse("Dockerfile", text.as_bytes());
    let dockerfile = dockerfile.unwrap_or_else(|| panic!("{text}: {diagnostics:?}"));
    check(&dockerfile, options, &answers)
        .diagnostics()
        .iter()
        .map(|warning| {
            let line = warning
                .span
                .map_or(0, |span| dockerfile.source.line_number(span.start));
            let rule = warning.rule.unwrap_or_else(|| panic!("{text}: {warning:?}"));
            format!("{line} {rule}: {}", warning.detail())
        })
        .collect()
}

fn options() -> Options {
    let ignore = IgnoreFile::parse(".dockerignore", b"# built\n/out\n*.log\n").unwrap();
    Options {
        build_args: vec![("given".to_owned(), "1".to_owned())],
        ignore: Some(Arc::new(ignore)),
        ..Options::new("linux/amd64".parse().unwrap())
    }
}

/// What precedes each file: it declares the build argument that all are given.
const HEAD: &str = "ARG given\n";

const CASES: &[(&str, &[&str])] = &[
    (
        "FROM scratch AS BadName",
        &["2 StageNameCasing: Stage name 'BadName' should be lowercase"],
    ),
    (
        "FROM scratch as a\nFROM scratch AS b",
        &["2 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"],
    ),
    (
        "FROM scratch\nCOPY a \\\n\n b",
        &["5 NoEmptyContinuation: Empty continuation line"],
    ),
    (
        "FROM scratch\ncopy a b\nCOPY c d",
        &[
            "3 ConsistentInstructionCasing: Command 'copy' should match the case of the command majority (uppercase)",
        ],
    ),
    (
        "from scratch\ncopy a b\nCOPY c d\nLabel e=f",
        &[
            "4 ConsistentInstructionCasing: Command 'COPY' should match the case of the command majority (lowercase)",
            "5 ConsistentInstructionCasing: Command 'Label' should match the case of the command majority (lowercase)",
        ],
    ),
    (
        "FROM scratch AS b\nFROM scratch AS b",
        &["3 DuplicateStageName: Duplicate stage name \"b\", stage names should be unique"],
    ),
    (
        "FROM scratch AS context",
        &["2 ReservedStageName: Stage name should not use the same name as reserved stage \"context\""],
    ),
    (
        "FROM scratch\nENTRYPOINT a",
        &[
            "3 JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to \
         OS signals",
        ],
    ),
    ("FROM scratch\nSHELL [\"/x\"]\nCMD a", &[]),
    (
        "FROM scratch\nMAINTAINER me",
        &["3 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"],
    ),
    (
        "ARG version=1\nFROM a:$verson",
        &[
            "3 UndefinedArgInFrom: FROM argument 'verson' is not declared (did you mean version?)",
            "3 InvalidDefaultArgInFrom: Default value for ARG a:$verson results in empty or invalid base image name",
        ],
    ),
    (
        "FROM scratch\nARG version\nLABEL a=$verson b=$x b=${x:-1}",
        &[
            "4 UndefinedVar: Usage of undefined variable '$verson' (did you mean $version?)",
            "4 UndefinedVar: Usage of undefined variable '$x'",
        ],
    ),
    // Nobody knows what an image sets.
    ("FROM unknown\nLABEL a=$verson", &[]),
    (
        "FROM scratch\nWORKDIR a\nWORKDIR b",
        &[
            "3 WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes",
        ],
    ),
    ("FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b", &[]),
    (
        "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\nHEALTHCHECK NONE\nHEALTHCHECK NONE\nFROM scratch\nCMD [\"c\"]",
        &[
            "3 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only \
         the last one will be used",
            "5 MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage \
         because only the last one will be used",
        ],
    ),
    (
        "FROM scratch\nENV a b",
        &[
            "3 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        ],
    ),
    (
        "FROM arm",
        &[
            "2 InvalidBaseImagePlatform: Base image arm was pulled with platform \"linux/arm64\", expected \
         \"linux/amd64\" for current build",
        ],
    ),
    (
        "FROM --platform=${TARGETPLATFORM} scratch",
        &[
            "2 RedundantTargetPlatform: Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is \
         the default behavior",
        ],
    ),
    ("FROM --platform=$BUILDPLATFORM scratch", &[]),
    (
        "FROM scratch\nARG API_TOKEN\nENV Password=1 PUBLIC_KEY=2 monkey=3 KEY_FILE=4 auth=",
        &[
            "3 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_TOKEN\")",
            "4 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"Password\")",
            "4 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"auth\")",
        ],
    ),
    (
        "FROM a:$given",
        &[
            "2 InvalidDefaultArgInFrom: Default value for ARG a:$given results in empty or invalid base image name",
        ],
    ),
    ("ARG a=b\nFROM $a", &[]),
    (
        "FROM --platform=linux/arm64 scratch",
        &[
            "2 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\"",
        ],
    ),
    ("FROM --platform=linux/arm64 scratch AS for-arm64", &[]),
    (
        "FROM scratch AS a\nFROM scratch\nCOPY out/x /\nADD ./b.log /\nCOPY --from=a out /\nCOPY . /",
        &[
            "4 CopyIgnoredFile: Attempting to Copy file \"out/x\" that is excluded by .dockerignore",
            "5 CopyIgnoredFile: Attempting to Add file \"./b.log\" that is excluded by .dockerignore",
        ],
    ),
    (
        "FROM scratch\nEXPOSE 80/TCP 1-2/Udp 3/tcp",
        &[
            "3 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            "3 ExposeProtoCasing: Defined protocol '1-2/Udp' in EXPOSE instruction should be lowercase",
        ],
    ),
    (
        "FROM scratch\nEXPOSE 127.0.0.1:80:80",
        &[
            "3 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found \
         '127.0.0.1:80:80'",
        ],
    ),
];

#[test]
fn each_rule_fires_with_its_words() {
    let mut fired = std::collections::BTreeSet::new();
    for (text, expected) in CASES {
        let found = warnings(&format!("{HEAD}{text}"), &options());
        assert_eq!(found, *expected, "{text}");
        let names = found.iter().filter_map(|line| line.split([' ', ':']).nth(1));
        fired.extend(names.map(|name| Rule::find(name).unwrap()));
    }
    let experimental = format!("# check=experimental=all\n{HEAD}# words\nFROM scratch AS a");
    assert_eq!(
        warnings(&experimental, &options()),
        ["4 InvalidDefinitionDescription: Comment for FROM should follow the format: `# a <description>`"]
    );
    fired.insert(Rule::InvalidDefinitionDescription);
    let standard: Vec<Rule> = Rule::all().filter(|rule| !rule.is_own()).collect();
    assert_eq!(fired.into_iter().collect::<Vec<_>>(), standard);
}

#[test]
fn rules_of_our_own_only_advise() {
    let text = "# check=error=true;skip=Nonsense\nFROM scratch";
    let found = warnings(text, &options());
    assert_eq!(
        found,
        [
            "0 UnusedBuildArg: Build argument given is not declared by any ARG",
            "1 UnknownRule: There is no rule called `Nonsense`",
        ]
    );
    let (dockerfile, _) = parse("Dockerfile", text.as_bytes());
    assert!(check(&dockerfile.unwrap(), &options(), &Answers::default()).is_clean());
}

#[test]
fn an_ignore_file_with_exceptions_says_nothing() {
    let ignore = IgnoreFile::parse(".dockerignore", b"a\n!b\n").unwrap();
    let options = Options {
        ignore: Some(Arc::new(ignore)),
        build_args: Vec::new(),
        ..options()
    };
    assert_eq!(warnings("FROM scratch\nCOPY a /", &options), Vec::<String>::new());
    let ignore = IgnoreFile::parse(".dockerignore", b"**\n").unwrap();
    let options = Options {
        ignore: Some(Arc::new(ignore)),
        ..options
    };
    assert_eq!(
        warnings("FROM scratch\nCOPY . /", &options),
        ["2 CopyIgnoredFile: Attempting to Copy file \".\" that is excluded by .dockerignore"]
    );
}
