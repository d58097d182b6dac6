//! Files that are made to be slow, large or deep: each is accepted or refused with an error, in time and memory that
//! grow with its size and not faster.
//!
//! What counts is the processor time of the thread at one size and at eight times that size, so a busy machine does no
//! harm. `ASHLAR_HOSTILE=full` runs each file at the size that its promise names instead, and prints what it took: under a
//! second, optimised, on a machine of 2026.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the kernel's account of the thread is a file, and the times are for people"
)]

use solver::graph::Graph;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use frontend::{
    Answers, ImageConfig, Lowered, NamedContext, Options, Request, ResolvedImage, SourceText, lower, parse,
    render,
};

const GROWTH: usize = 8;

/// Processor time of this thread; the time of the day where the kernel keeps no account.
fn thread_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    match std::fs::read_to_string("/proc/thread-self/schedstat") {
        Ok(text) => Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap()),
        Err(_) => START.elapsed(),
    }
}

/// Parses and lowers; returns the first error, or nothing.
fn outcome(text: &[u8]) -> Result<(), String> {
    let (dockerfile, diagnostics) = parse("Dockerfile", text);
    let source = SourceText::new("Dockerfile", text);
    let first = |diagnostics: &frontend::Diagnostics| {
        let shown: String = diagnostics
            .iter()
            .map(|finding| render(finding, &source, false))
            .collect();
        assert!(shown.len() < 16 << 20, "{} bytes of errors", shown.len());
        let error = diagnostics.iter().find(|d| d.rule.is_none());
        error.unwrap().message.clone()
    };
    let Some(dockerfile) = dockerfile else {
        return Err(first(&diagnostics));
    };
    let mut options = Options::new("linux/amd64".parse().unwrap());
    options
        .named_contexts
        .insert("named".to_owned(), NamedContext::Directory);
    let mut answers = Answers::default();
    for _ in 0..4 {
        match lower(&dockerfile, &options, &answers, &mut Graph::new()) {
            Ok(Lowered::Ready(_)) => return Ok(()),
            Err(diagnostics) => return Err(first(&diagnostics)),
            Ok(Lowered::Need(needed)) => {
                for needed in needed {
                    if let Request::Image(request) = needed.request {
                        let image = ResolvedImage {
                            config: ImageConfig::parse(b"{}").unwrap(),
                            layers: Vec::new(),
                            reference: request.reference.clone(),
                        };
                        answers.images.insert(request, image);
                    }
                }
            }
        }
    }
    panic!("no end of requests");
}

/// A file made at a size, the size that is promised, and a phrase of the error (empty: it is accepted).
struct Hostile {
    name: &'static str,
    full: usize,
    make: fn(usize) -> String,
    refused: &'static str,
}

fn stage(text: &str) -> String {
    format!("FROM scratch\n{text}")
}

/// Lines made of their numbers, below a FROM.
fn numbered(n: usize, line: fn(usize) -> String) -> String {
    stage(&(0..n).map(line).collect::<String>())
}

/// A value of 64 KiB in `a`.
fn big() -> String {
    let doublings = "ENV a=$a$a\n".repeat(10);
    stage(&format!("ENV a={}\n{doublings}", "x".repeat(64)))
}

#[rustfmt::skip]
const FILES: &[Hostile] = &[
    Hostile { name: "lines of comments", full: 700_000, make: |n| stage(&"# a comment\n".repeat(n)), refused: "" },
    Hostile { name: "a line of 8 MB", full: 8 << 20, make: |n| stage(&format!("RUN {}", "a".repeat(n.max(65532)))), refused: "dockerfile line greater than max allowed size of 65535" },
    Hostile { name: "a continued line of 10 MB", full: 200, make: |n| stage(&format!("RUN {}", format!("{}\\\n", "a ".repeat(25_000)).repeat(n))), refused: "" },
    Hostile { name: "continued short lines", full: 1_000_000, make: |n| stage(&format!("RUN {}", "a \\\n".repeat(n))), refused: "" },
    Hostile { name: "blank continued lines", full: 1_000_000, make: |n| stage(&format!("RUN a \\\n{}b", "\n".repeat(n))), refused: "" },
    Hostile { name: "stages", full: 100_000, make: |n| "FROM scratch\n".repeat(n), refused: "" },
    Hostile { name: "a chain of stages", full: 100_000, make: |n| format!("FROM scratch AS s0\n{}", (0..n).map(|i| format!("FROM s{i} AS s{}\nUSER u\n", i + 1)).collect::<String>()), refused: "" },
    Hostile { name: "a chain of stages that inherit ports", full: 100_000, make: |n| format!("FROM scratch AS s0\nEXPOSE 1-65535\n{}", (0..n).map(|i| format!("FROM s{i} AS s{}\n", i + 1)).collect::<String>()), refused: "" },
    Hostile { name: "stages that are all copied from", full: 50_000, make: |n| format!("FROM scratch\n{}", (0..n).map(|i| format!("FROM scratch\nCOPY --from={i} / /\n")).collect::<String>()), refused: "" },
    Hostile { name: "steps", full: 1_000_000, make: |n| numbered(n, |_| "RUN x\n".to_owned()), refused: "" },
    Hostile { name: "instructions without a layer", full: 1_000_000, make: |n| numbered(n, |_| "USER x\n".to_owned()), refused: "" },
    Hostile { name: "directories in directories", full: 100_000, make: |n| numbered(n, |_| "WORKDIR a\n".to_owned()), refused: "" },
    Hostile { name: "commands in a deep directory", full: 500_000, make: |n| stage(&format!("WORKDIR /{}\n{}", "a/".repeat(20_000), "RUN x\n".repeat(n))), refused: "" },
    Hostile { name: "variables", full: 500_000, make: |n| numbered(n, |i| format!("ENV v{i}=x\n")), refused: "" },
    Hostile { name: "variables, each made of the last", full: 300_000, make: |n| numbered(n, |i| format!("ENV v{}=${{v{i}:-x}}\n", i + 1)), refused: "" },
    Hostile { name: "variables and commands", full: 50_000, make: |n| numbered(n, |i| format!("ENV v{i}=x\nRUN y\n")), refused: "" },
    Hostile { name: "arguments and commands", full: 50_000, make: |n| numbered(n, |i| format!("ARG v{i}=x\nRUN y\n")), refused: "" },
    Hostile { name: "unknown variables beside many known ones", full: 50_000, make: |n| stage(&format!("{}{}", (0..250).map(|i| format!("ENV aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{i:06}=x\n")).collect::<String>(), "USER $aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab000000\n".repeat(n))), refused: "" },
    Hostile { name: "unknown variables in FROM", full: 50_000, make: |n| format!("{}{}", (0..250).map(|i| format!("ARG aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{i:06}=x\n")).collect::<String>(), "FROM x$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab000000\n".repeat(n)), refused: "" },
    Hostile { name: "mistakes", full: 700_000, make: |n| numbered(n, |_| "NONSENSE x\n".to_owned()), refused: "unknown instruction: NONSENSE" },
    Hostile { name: "mistakes in variables", full: 500_000, make: |n| numbered(n, |_| "USER ${a:?b}\n".to_owned()), refused: "a: b" },
    Hostile { name: "deep defaults", full: 100_000, make: |n| stage(&format!("ENV a={}x{}", "${a:-\\\n".repeat(n.max(65)), "}".repeat(60_000.min(n)))), refused: "nested more than 64 deep" },
    Hostile { name: "wide defaults", full: 300_000, make: |n| stage(&format!("ENV a={}", "${a:-${b:-c}}\\\n".repeat(n))), refused: "" },
    Hostile { name: "a value that doubles", full: 100_000, make: |n| stage(&format!("ENV a=0123456789\n{}", "ENV a=$a$a\n".repeat(n.max(40)))), refused: "the result is larger than" },
    Hostile { name: "global values that double", full: 100_000, make: |n| format!("ARG a=0123456789\n{}FROM x", "ARG a=$a$a\n".repeat(n.max(40))), refused: "the result is larger than" },
    Hostile { name: "a large value that is copied", full: 500_000, make: |n| format!("{}{}", big(), "USER $a\n".repeat(n.max(5000))), refused: "expand to more than" },
    Hostile { name: "a large value that vanishes", full: 500_000, make: |n| format!("{}{}", big(), "USER u${a##*}\n".repeat(n.max(5000))), refused: "expand to more than" },
    Hostile { name: "patterns of stars", full: 10_000, make: |n| format!("{}{}", big(), "USER u${a//*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*xy/}\n".repeat(n.max(500))), refused: "expand to more than" },
    Hostile { name: "patterns in one word", full: 200_000, make: |n| format!("{}USER u{}", big(), "${a##*x*x*x*x}\\\n".repeat(n.max(5000))), refused: "takes more than" },
    Hostile { name: "patterns in FROM", full: 100_000, make: |n| format!("ARG a=x\n{}{}", "ARG a=$a$a\n".repeat(16), "FROM x${a//*x*x*x*x*x*x*x*x*y/}\n".repeat(n.max(1000))), refused: "expand to more than" },
    Hostile { name: "names of steps", full: 200_000, make: |n| format!("{}{}", big(), "COPY a /${a##*}\n".repeat(n.max(5000))), refused: "expand to more than" },
    Hostile { name: "a long name of nested variables", full: 1_000_000, make: |n| stage(&format!("RUN {}{}{}", "${a:-".repeat(60), "x \\\n".repeat(n), "}".repeat(60))), refused: "" },
    Hostile { name: "heredocs", full: 10_000, make: |n| stage(&format!("RUN cat {}\n{}", "<<E \\\n".repeat(n.max(1001)), "E\n".repeat(n))), refused: "more than 1000 heredocs in one instruction" },
    Hostile { name: "heredocs that end nowhere", full: 1_000_000, make: |n| stage(&format!("RUN <<E\n{}", "a\n".repeat(n))), refused: "unterminated heredoc" },
    Hostile { name: "instructions with a heredoc", full: 300_000, make: |n| numbered(n, |i| format!("RUN <<E\n{i}\nE\n")), refused: "" },
    Hostile { name: "a heredoc of 10 MB", full: 1_000_000, make: |n| stage(&format!("COPY <<E /f\n{}E\n", "0123456789\n".repeat(n))), refused: "" },
    Hostile { name: "digits before a heredoc", full: 60_000, make: |n| stage(&format!("RUN {}<<E\nE\n", "1".repeat(n))), refused: "" },
    Hostile { name: "less-than signs", full: 60_000, make: |n| stage(&format!("RUN {}\n", "<".repeat(n))), refused: "" },
    Hostile { name: "an array", full: 1_000_000, make: |n| stage(&format!("CMD [{}\"a\"]", "\"a\", \\\n".repeat(n))), refused: "" },
    Hostile { name: "an array in arrays", full: 1_000_000, make: |n| stage(&format!("CMD {}", "[ \\\n".repeat(n))), refused: "" },
    Hostile { name: "a document of brackets", full: 60_000, make: |n| "{\"a\":[".repeat(n / 6), refused: "unknown instruction" },
    Hostile { name: "sources", full: 1_000_000, make: |n| stage(&format!("COPY {} /d/", "a \\\n".repeat(n))), refused: "" },
    Hostile { name: "flags", full: 300_000, make: |n| stage(&format!("RUN {} x", "--mount=type=tmpfs,target=/x \\\n".repeat(n))), refused: "" },
    Hostile { name: "an unterminated quote", full: 1_000_000, make: |n| stage(&format!("ENV a=\"{}", "x \\\n".repeat(n))), refused: "" },
    Hostile { name: "pairs", full: 300_000, make: |n| stage(&format!("LABEL {}", (0..n).map(|i| format!("l{i}=v \\\n")).collect::<String>())), refused: "" },
    Hostile { name: "ports", full: 200_000, make: |n| numbered(n.max(100), |_| "EXPOSE 1-65535\n".to_owned()), refused: "expand to more than" },
    Hostile { name: "triggers of triggers' children", full: 100_000, make: |n| format!("FROM scratch AS a\n{}{}", "ONBUILD USER x\n".repeat(1000), (0..n.max(200)).map(|i| format!("FROM a AS b{i}\n")).collect::<String>() + &format!("FROM scratch\n{}", (0..n.max(200)).map(|i| format!("COPY --from=b{i} / /\n")).collect::<String>())), refused: "ONBUILD triggers" },
    Hostile { name: "a long trigger", full: 20_000, make: |n| format!("FROM scratch AS a\nONBUILD RUN {}x\n{}FROM scratch\n{}", format!("{}\\\n", "a".repeat(60_000)).repeat(20), (0..n.max(100)).map(|i| format!("FROM a AS b{i}\n")).collect::<String>(), (0..n.max(100)).map(|i| format!("COPY --from=b{i} / /\n")).collect::<String>()), refused: "ONBUILD triggers" },
    Hostile { name: "directives", full: 500_000, make: |n| "# escape=`\n".repeat(n), refused: "only one escape parser directive" },
    Hostile { name: "rules", full: 30_000, make: |n| format!("# check=skip={}\n{}", "a,".repeat(n.min(30_000)), "FROM x AS Y\n".repeat(n)), refused: "" },
    Hostile { name: "carriage returns", full: 60_000, make: |n| format!("FROM scratch{}\nUSER x", "\r".repeat(n)), refused: "" },
    Hostile { name: "bytes that are no text", full: 60_000, make: |n| stage(&format!("# {}\nUSER x", "\u{fffd}".repeat(n / 3))), refused: "" },
];

/// Files that a build refuses after a second of work, which is five without optimisation.
const DEAR: [&str; 7] = [
    "a long trigger",
    "a large value that is copied",
    "ports",
    "patterns of stars",
    "patterns in FROM",
    "a large value that vanishes",
    "names of steps",
];

/// Takes the time of one file; the error must be the one that is promised, where there is one.
fn measure(file: &Hostile, size: usize) -> Duration {
    let text = (file.make)(size).into_bytes();
    assert!(text.len() < 64 << 20, "{}: {} bytes", file.name, text.len());
    let start = thread_time();
    let outcome = outcome(&text);
    let took = thread_time().saturating_sub(start);
    match outcome {
        Err(error) if !file.refused.is_empty() => {
            assert!(error.contains(file.refused), "{}: {error}", file.name);
        }
        // At some size a limit says no; at which is measured by nobody.
        Err(_) => {}
        Ok(()) => assert!(file.refused.is_empty(), "{} is accepted at {size}", file.name),
    }
    took
}

#[test]
fn time_grows_with_the_size() {
    let full = std::env::var_os("ASHLAR_HOSTILE").is_some();
    let mut slow = Vec::new();
    for file in FILES {
        if full {
            let took = measure(file, file.full);
            println!("{took:>8.1?} {}", file.name);
            if took > Duration::from_secs(4) {
                slow.push(format!("{}: {took:.1?} at full size", file.name));
            }
            continue;
        }
        let size = (file.full / 3000).max(2);
        let best = |size| (0..3).map(|_| measure(file, size)).min().unwrap();
        if !file.refused.is_empty() {
            // The limit is the bound; what it takes to reach it is measured at full size, with optimisation.
            if !DEAR.contains(&file.name) {
                measure(file, size);
            }
            continue;
        }
        let (small, large) = (best(size), measure(file, size * GROWTH));
        // Quadratic is eight times the factor. A few milliseconds say nothing, and a chain of stages may cost the
        // square of its length until a limit ends it.
        let bound = small * u32::try_from(GROWTH * 3).unwrap() + Duration::from_millis(100);
        if large > bound {
            slow.push(format!("{}: {small:.1?}, then {large:.1?}", file.name));
        }
    }
    assert!(slow.is_empty(), "slow:\n{}", slow.join("\n"));
}

#[test]
fn lines_have_a_longest_length() {
    // case P18
    assert_eq!(
        outcome(stage(&format!("RUN {}", "a".repeat(65531))).as_bytes()),
        Ok(())
    );
    let long = stage(&format!("RUN {}", "a".repeat(65532)));
    let message = "dockerfile line greater than max allowed size of 65535";
    assert_eq!(outcome(long.as_bytes()), Err(message.to_owned()));
    let body = stage(&format!("COPY <<E /f\n{}\nE\n", "a".repeat(65536)));
    assert_eq!(outcome(body.as_bytes()), Err(message.to_owned()));
}
