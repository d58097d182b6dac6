//! What containers have where the machine offers it: a network of their own, limits, and other programs that make them.
//! Without, builds run all the same.

use std::fs::File;

use super::{Check, platforms};
use crate::sandbox::{self, Connected, Limited, Limits, Runtime, Trial};

/// The kinds of limits, with what is tried: so little that no group above can have less.
fn kinds() -> [(&'static str, Limits); 3] {
    let none = Limits::default;
    [
        (
            "memory",
            Limits {
                memory_bytes: Some(64 << 20),
                ..none()
            },
        ),
        (
            "cpus",
            Limits {
                cpu_quota_us: Some(10_000),
                ..none()
            },
        ),
        (
            "pids",
            Limits {
                n_pids: Some(16),
                ..none()
            },
        ),
    ]
}

/// Runs a container with each kind of limit.
pub(super) fn limits(trial: &Trial) -> Vec<Check> {
    let check = |(name, limits): (&'static str, Limits)| limit(name, &trial.limited(&limits));
    kinds().into_iter().map(check).collect()
}

fn limit(name: &'static str, tried: &Limited) -> Check {
    const ADVICE: &str = "root, or a control group of version 2 that is handed to this user (systemd-run --user --scope -p \
                          Delegate=yes ashlar …); until then builds with this limit run without it, and say so";
    match (&tried.place, tried.problems.as_slice()) {
        (Some(place), []) => Check::ok(name, format!("can be limited, in groups below {place}")),
        (Some(place), problems) => {
            let found = format!(
                "can be limited in part, in groups below {place}: {}",
                problems.join("; ")
            );
            Check::limited(name, found, ADVICE)
        }
        (None, problems) => {
            // One kind has several settings, all of which fail alike.
            let mut reasons: Vec<&str> = problems
                .iter()
                .map(|text| {
                    text.split_once(" has no effect: ")
                        .map_or(text.as_str(), |(_, reason)| reason)
                })
                .collect();
            reasons.dedup();
            Check::limited(name, format!("can't be limited: {}", reasons.join("; ")), ADVICE)
        }
    }
}

/// Says what came of connecting a network.
pub(super) fn network(tried: &Connected) -> Check {
    const NAME: &str = "network";
    const WITHOUT: &str =
        "without, RUN uses the machine's own network, loopback included, unless it is told --network=none";
    let problems = tried.problems.join("; ");
    match &tried.program {
        Some(program) if problems.is_empty() => Check::ok(NAME, format!("{program} connects containers")),
        Some(program) => Check::ok(NAME, format!("{program} connects containers; {problems}")),
        None if problems.is_empty() => Check::limited(
            NAME,
            "neither pasta nor slirp4netns is installed",
            format!("install pasta (Debian's package passt) or slirp4netns; {WITHOUT}"),
        ),
        None => {
            let tun = File::options().read(true).write(true).open("/dev/net/tun");
            let advice = match tun {
                Ok(_) => format!("what the message names; {WITHOUT}"),
                Err(error) => format!(
                    "make /dev/net/tun usable for this user (modprobe tun, mode 0666; now: {error}); {WITHOUT}"
                ),
            };
            Check::limited(NAME, problems, advice)
        }
    }
}

/// What came of a container by another program.
struct Tried {
    name: &'static str,
    /// The program's version, or why it makes no container.
    outcome: Result<String, String>,
}

/// Runs a container with each of the runtimes that are installed.
pub(super) fn runtimes() -> Check {
    let installed = Runtime::KNOWN
        .into_iter()
        .filter(|name| Runtime::is_installed(name));
    let tried = installed.map(|name| Tried {
        name,
        outcome: contain_by(name),
    });
    told_of_runtimes(&tried.collect::<Vec<_>>())
}

fn contain_by(name: &str) -> Result<String, String> {
    let program = platforms::own_program().ok_or("not tried: no program is known for this machine")?;
    let executes = |runtime: Runtime| sandbox::trial_by(runtime)?.executes(&program);
    let runtime = Runtime::find(name).map_err(|error| error.to_string())?;
    let version = runtime.version().to_owned();
    match executes(runtime) {
        Ok(true) => Ok(version),
        Ok(false) => Err(format!(
            "{name} {version} makes containers in which programs fail"
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn told_of_runtimes(tried: &[Tried]) -> Check {
    const NAME: &str = "runtimes";
    let works = |tried: &Tried| {
        let version = tried.outcome.as_ref().ok()?;
        Some(format!("{} {version}", tried.name).trim().to_owned())
    };
    let works: Vec<String> = tried.iter().filter_map(works).collect();
    let problems: Vec<&str> = tried
        .iter()
        .filter_map(|tried| tried.outcome.as_ref().err().map(String::as_str))
        .collect();
    let found = match works.as_slice() {
        [] if problems.is_empty() => {
            return Check::ok(
                NAME,
                format!("none of {}, for --oci-runtime only", Runtime::KNOWN.join(", ")),
            );
        }
        [] => problems.join("; "),
        works => {
            let verb = if works.len() == 1 { "makes" } else { "make" };
            let works = format!("{} {verb} containers as well", works.join(" and "));
            std::iter::once(works.as_str())
                .chain(problems.iter().copied())
                .collect::<Vec<_>>()
                .join("; ")
        }
    };
    match problems.is_empty() {
        true => Check::ok(NAME, found),
        false => Check::limited(
            NAME,
            found,
            "what the message names, or another version; only builds with --oci-runtime or ASHLAR_OCI_RUNTIME use it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_network_that_fails_is_told_with_its_cause() {
        let check = |program: Option<&str>, problems: &[&str], verdict: Verdict, words: &[&str]| {
            let found = network(&Connected {
                program: program.map(str::to_owned),
                problems: problems.iter().map(|text| (*text).to_owned()).collect(),
            });
            assert_eq!(found.verdict, verdict, "{found:?}");
            let all = format!("{} {}", found.found, found.advice.unwrap_or_default());
            for word in words {
                assert!(all.contains(word), "{word} is not in {all}");
            }
        };
        check(Some("pasta"), &[], Verdict::Ok, &["pasta connects"]);
        check(
            Some("slirp4netns"),
            &["pasta failed: no tun"],
            Verdict::Ok,
            &["slirp4netns connects", "pasta failed: no tun"],
        );
        check(None, &[], Verdict::Limited, &["installed", "passt", "loopback"]);
        check(
            None,
            &["pasta failed: a", "slirp4netns failed: b"],
            Verdict::Limited,
            &["pasta failed: a; slirp4netns failed: b", "loopback"],
        );
    }

    #[test]
    fn runtimes_that_are_missing_are_no_fault_and_those_that_fail_are() {
        let check = |outcomes: &[(&'static str, Result<&str, &str>)], verdict: Verdict, found: &str| {
            let tried: Vec<Tried> = outcomes
                .iter()
                .map(|&(name, outcome)| Tried {
                    name,
                    outcome: outcome.map(str::to_owned).map_err(str::to_owned),
                })
                .collect();
            let check = told_of_runtimes(&tried);
            assert_eq!((check.verdict, check.found.as_str()), (verdict, found));
            assert_eq!(check.advice.is_some(), verdict != Verdict::Ok);
        };
        check(&[], Verdict::Ok, "none of runc, crun, for --oci-runtime only");
        let both = [("runc", Ok("1.1")), ("crun", Ok("1.8"))];
        check(
            &both,
            Verdict::Ok,
            "runc 1.1 and crun 1.8 make containers as well",
        );
        check(
            &[("runc", Ok("1.1")), ("crun", Err("crun failed"))],
            Verdict::Limited,
            "runc 1.1 makes containers as well; crun failed",
        );
        check(&[("crun", Err("crun failed"))], Verdict::Limited, "crun failed");
    }

    #[test]
    fn a_limit_without_effect_is_never_called_well() {
        let limited = |place: Option<&str>, problems: &[&str]| {
            let place = place.map(str::to_owned);
            let problems = problems.iter().map(|text| (*text).to_owned()).collect();
            limit("memory", &Limited { place, problems })
        };
        assert_eq!(limited(Some("/sys/fs/cgroup (v2)"), &[]).verdict, Verdict::Ok);
        let check = limited(None, &["--memory has no effect: none"]);
        assert_eq!(check.verdict, Verdict::Limited);
        assert_eq!(check.found, "can't be limited: none");
        let twice = ["--cpus has no effect: none", "--cpu-period has no effect: none"];
        assert_eq!(limited(None, &twice).found, check.found);
        assert_eq!(
            limited(Some("/a (v1)"), &["--memory has no effect: no swap file"]).verdict,
            Verdict::Limited
        );
    }
}
