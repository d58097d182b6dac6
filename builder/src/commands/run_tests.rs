//! What runs for which flags and which image config: tables.

use cache::Digest;
use clap::Parser;
use serde_json::json;

use super::*;
use crate::cli::{Cli, Command};

fn settle(argv: &str, config: Value) -> Result<Process, Failure> {
    let words = ["ashlar", "run"].into_iter().chain(argv.split_whitespace());
    let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else {
        panic!("not a run: {argv}");
    };
    let image = StoredImage {
        config_bytes: Vec::new(),
        id: Digest::from_bytes([0xab; 32]),
        rows: Vec::new(),
        config: json!({ "config": config }),
    };
    let environment = Environment {
        vars: [("HOST".to_owned(), "h".to_owned())].into(),
        root: true,
    };
    process(&args, &image, &environment)
}

#[test]
fn commands_follow_entrypoint_and_cmd() {
    let both = json!({"Entrypoint": ["e", "1"], "Cmd": ["c"]});
    for (argv, config, expected) in [
        ("app", &both, "e 1 c"),
        ("app x -y", &both, "e 1 x -y"),
        ("--entrypoint p app", &both, "p"),
        ("--entrypoint p app x", &both, "p x"),
        ("--entrypoint sh app -c 1 -m 2", &both, "sh -c 1 -m 2"),
        ("--rm -it app sh -c --rm", &json!({"Cmd": ["c"]}), "sh -c --rm"),
        ("app", &json!({"Cmd": ["c", "d"], "Entrypoint": null}), "c d"),
    ] {
        assert_eq!(
            settle(argv, config.clone()).unwrap().args.join(" "),
            expected,
            "{argv}"
        );
    }
    let failure = settle("--entrypoint= app", both).unwrap_err();
    assert!(failure.render(false).contains("nothing to run"), "{failure:?}");
    assert_eq!(failure.exit_code(), 2);
}

#[test]
fn flags_win_over_the_config() {
    let config = json!({"Env": ["A=1", "PATH=/p"], "User": "u", "WorkingDir": "/w"});
    let plain = settle("app x", config.clone()).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(plain.env, [pair("PATH", "/p"), pair("A", "1")]);
    assert_eq!(
        (plain.user.as_str(), plain.cwd.as_str(), plain.network),
        ("u", "/w", Network::Default)
    );
    assert_eq!(plain.hostname, "abababababab");
    let flagged = settle(
        "-t -e A=2 -e HOST -e NONE -u v:g -w /x -h box --network none app x",
        config,
    )
    .unwrap();
    assert_eq!(
        flagged.env,
        [
            pair("PATH", "/p"),
            pair("TERM", "xterm"),
            pair("A", "2"),
            pair("HOST", "h")
        ]
    );
    assert_eq!(
        (flagged.user.as_str(), flagged.cwd.as_str(), flagged.network),
        ("v:g", "/x", Network::None)
    );
    assert_eq!(flagged.hostname, "box");
}

#[test]
fn nonsense_is_refused() {
    for (argv, expected) in [
        ("-w relative app x", "is not absolute"),
        ("-e =1 app x", "the name is empty"),
        ("--network other app x", "unknown network mode"),
    ] {
        assert!(
            settle(argv, json!({}))
                .unwrap_err()
                .render(false)
                .contains(expected),
            "{argv}"
        );
    }
}
