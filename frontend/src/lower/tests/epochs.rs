//! `SOURCE_DATE_EPOCH`. Spec: dockerfile.md §14, §20.13.

use super::*;
use crate::options::{HttpRequest, ResolvedGit, ResolvedHttp};

/// The epoch, and what a stage sees of it; a file's time is 99, or none if its address ends in `0`; a
/// commit's is 98.
fn epoch(text: &str, options: &Options) -> String {
    let (dockerfile, diagnostics) = parse("Dockerfile", text.as_bytes());
    let dockerfile = dockerfile.unwrap_or_else(|| panic!("{text}: {diagnostics:?}"));
    let mut answers = Answers::default();
    loop {
        match lower(&dockerfile, options, &answers, &mut Graph::new()) {
            Ok(Lowered::Ready(build)) => {
                let env = &build.config.config.env;
                let seen = env.iter().find_map(|entry| entry.strip_prefix("seen="));
                return format!("{:?} {}", build.epoch, seen.unwrap_or_default());
            }
            Ok(Lowered::Need(needs)) => {
                for Needed { request, .. } in needs {
                    answer(request, &mut answers);
                }
            }
            Err(diagnostics) => {
                let messages = diagnostics.iter().map(|error| error.message.clone());
                return messages.collect::<Vec<_>>().join("; ");
            }
        }
    }
}

fn answer(request: Request, answers: &mut Answers) {
    match request {
        Request::Http(request) => {
            let HttpRequest { url, .. } = &request;
            let file = ResolvedHttp {
                digest: cache::Digest::of(url.as_bytes()),
                last_modified: (!url.ends_with('0')).then_some(99),
            };
            answers.http.insert(request, file);
        }
        Request::Git(request) => {
            assert!(request.wants_time, "{request:?}");
            let commit = ResolvedGit {
                commit: "1".repeat(40),
                reference: String::new(),
                time: Some(98),
            };
            answers.git.insert(request, commit);
        }
        Request::Image(request) => panic!("{request:?}"),
    }
}

#[rustfmt::skip]
#[test]
fn epochs() {
    let target = "FROM scratch\nARG SOURCE_DATE_EPOCH\nENV seen=$SOURCE_DATE_EPOCH";
    for (id, head, arg, expected) in [
        ("T4", "", None, "None "),
        ("T1", "", Some("0"), "Some(0) 0"),
        ("T9", "ARG SOURCE_DATE_EPOCH=5", None, "Some(5) 5"),
        ("T9b", "ARG SOURCE_DATE_EPOCH=5", Some("7"), "Some(7) 7"),
        ("empty", "ARG SOURCE_DATE_EPOCH=5", Some(""), "None "),
        ("before 1970", "", Some("-1"), "Some(-1) -1"),
        ("T2", "", Some("x"), "invalid SOURCE_DATE_EPOCH: x"),
        ("T2b", "ARG SOURCE_DATE_EPOCH=1.5", None, "invalid SOURCE_DATE_EPOCH: 1.5"),
        ("T5", "", Some("context"), "None "),
        ("named", "", Some("dir"), "None "),
        ("T5 http", "", Some("web"), "Some(99) 99"),
        ("T5 git", "", Some("git"), "Some(98) 98"),
        ("T6", "FROM scratch AS src\nADD http://a/b /", Some("src"), "Some(99) 99"),
        ("T6 default", "ARG SOURCE_DATE_EPOCH=Src\nFROM scratch AS src\nADD http://a/b /", None, "Some(99) 99"),
        ("T6 ARG", "ARG h=a\nFROM scratch AS src\nARG n=b$SOURCE_DATE_EPOCH\nADD http://$h/$n /", Some("src"), "Some(99) 99"),
        ("T6 no time", "FROM scratch AS src\nADD http://a/0 /", Some("src"), "None "),
        ("T6 COPY", "FROM scratch AS src\nCOPY a /", Some("src"), "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported COPY instruction"),
        ("T6 base", "FROM busybox AS src\nADD http://a/b /", Some("src"), "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        ("T6 two", "FROM scratch AS src\nADD http://a/b /\nADD http://a/b /", Some("src"), "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        ("T6 two sources", "FROM scratch AS src\nADD http://a/b http://a/c /d/", Some("src"), "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        ("T6 none", "FROM scratch AS src", Some("src"), "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        ("T6 local", "FROM scratch AS src\nADD a /", Some("src"), "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD"),
    ] {
        let mut options = with_args(&arg.map(|arg| ("SOURCE_DATE_EPOCH", arg)).into_iter().collect::<Vec<_>>());
        let git = crate::GitSource::parse("git://a/b.git#v1").unwrap();
        options.named_contexts.extend([
            ("dir".to_owned(), NamedContext::Directory),
            ("web".to_owned(), NamedContext::Http("http://a/b.tar".to_owned())),
            ("git".to_owned(), NamedContext::Git(git)),
        ]);
        assert_eq!(epoch(&format!("{head}\n{target}"), &options), expected, "{id}");
    }
}

#[test]
fn what_a_step_makes_has_the_time() {
    let options = with_args(&[("SOURCE_DATE_EPOCH", "7")]);
    let build = built("ARG SOURCE_DATE_EPOCH=5\nFROM scratch\nWORKDIR /a", &options);
    let Op::File(file) = &build.graph.vertex(build.target).op else {
        panic!()
    };
    assert_eq!(file.epoch, Some(7));
}
