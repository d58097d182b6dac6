//! Limits of containers: `--memory` and its kin, `--resource`, `--ulimit`. Docker's grammars.

use super::values::size_bytes;
use crate::cli::LimitArgs;
use crate::report::Failure;
use crate::sandbox::{Limits, Swap, Ulimit};

/// The least memory that a process can be expected to start in. Spec: docker's own limit.
const MIN_MEMORY_BYTES: u64 = 6 << 20;
/// The kernel's bounds of a period and of a quota, in microseconds. Spec: cgroup-v1 cpu bandwidth control.
const PERIODS_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const MIN_QUOTA_US: u64 = 1_000;
const DEFAULT_PERIOD_US: u64 = 100_000;

/// What a container may use, and what keeps it in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerLimits {
    /// As a whole.
    pub(crate) limits: Limits,
    /// Each of its processes.
    pub(crate) ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm`.
    pub(crate) shm_size_bytes: Option<u64>,
    /// Whether a small process 1 reaps its orphans.
    pub(crate) has_init: bool,
    /// The control group below which its own is made.
    pub(crate) cgroup_parent: Option<String>,
}

/// Settles what was typed: `--resource` stands for the flags of the same names, which win.
pub(crate) fn limits(args: &LimitArgs) -> Result<ContainerLimits, Failure> {
    let args = &with_resources(args)?;
    let number = |flag: &str, text: &Option<String>| -> Result<Option<u64>, Failure> {
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| Failure::usage(format!("invalid {flag} `{text}`: expected a number")))
        };
        // Docker takes 0 for none.
        Ok(text.as_ref().map(parse).transpose()?.filter(|number| *number > 0))
    };
    let memory_bytes = args.memory.as_deref().map(size_bytes).transpose()?;
    let memory_bytes = memory_bytes.filter(|bytes| *bytes > 0);
    if memory_bytes.is_some_and(|bytes| bytes < MIN_MEMORY_BYTES) {
        return Err(Failure::usage("--memory must be at least 6m"));
    }
    let (cpu_quota_us, cpu_period_us) = cpu(
        args,
        number("--cpu-quota", &args.cpu_quota)?,
        number("--cpu-period", &args.cpu_period)?,
    )?;
    let limits = Limits {
        memory_bytes,
        memory_and_swap: swap(args, memory_bytes)?,
        cpu_quota_us,
        cpu_period_us,
        cpu_shares: number("--cpu-shares", &args.cpu_shares)?,
        cpuset_cpus: cpu_list("--cpuset-cpus", &args.cpuset_cpus)?,
        cpuset_mems: cpu_list("--cpuset-mems", &args.cpuset_mems)?,
        n_pids: match args.pids_limit.as_deref() {
            Some("-1") => None,
            _ => number("--pids-limit", &args.pids_limit)?,
        },
    };
    let mut ulimits: Vec<Ulimit> = Vec::new();
    for text in &args.ulimit {
        let limit = ulimit(text)?;
        // The last of a name counts.
        ulimits.retain(|known| known.name != limit.name);
        ulimits.push(limit);
    }
    Ok(ContainerLimits {
        limits,
        ulimits,
        shm_size_bytes: args.shm_size.as_deref().map(size_bytes).transpose()?,
        has_init: args.init,
        cgroup_parent: args.cgroup_parent.as_deref().map(cgroup_parent).transpose()?,
    })
}

/// Reads `--resource KEY=VALUE[,KEY=VALUE]`.
fn with_resources(args: &LimitArgs) -> Result<LimitArgs, Failure> {
    let mut settled = args.clone();
    for (key, value) in pairs(&args.resource)? {
        let place = match key {
            "memory" => &mut settled.memory,
            "memory-swap" => &mut settled.memory_swap,
            "cpus" => &mut settled.cpus,
            "cpu-shares" => &mut settled.cpu_shares,
            "cpu-quota" => &mut settled.cpu_quota,
            "cpu-period" => &mut settled.cpu_period,
            "cpuset-cpus" => &mut settled.cpuset_cpus,
            "cpuset-mems" => &mut settled.cpuset_mems,
            "pids-limit" => &mut settled.pids_limit,
            _ => {
                return Err(
                    Failure::usage(format!("unknown resource `{key}`")).with_help(
                        "one of memory, memory-swap, cpus, cpu-shares, cpu-quota, cpu-period, cpuset-cpus, cpuset-mems, \
                         pids-limit",
                    ),
                );
            }
        };
        place.get_or_insert(value);
    }
    Ok(settled)
}

/// Takes pairs apart. What has no `=` goes on with the list of numbers before it: `cpuset-cpus=0,2`.
fn pairs(given: &[String]) -> Result<Vec<(&str, String)>, Failure> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for text in given {
        for (number, part) in text.split(',').enumerate() {
            match (part.split_once('='), pairs.last_mut()) {
                (Some((key, value)), _) if !value.is_empty() => pairs.push((key, value.to_owned())),
                (None, Some((key, list))) if number > 0 && key.starts_with("cpuset-") => {
                    list.push_str(&format!(",{part}"));
                }
                _ => {
                    return Err(Failure::usage(format!(
                        "invalid --resource `{part}`: expected KEY=VALUE"
                    )));
                }
            }
        }
    }
    Ok(pairs)
}

fn swap(args: &LimitArgs, memory_bytes: Option<u64>) -> Result<Option<Swap>, Failure> {
    let swap = match args.memory_swap.as_deref() {
        None | Some("" | "0") => return Ok(None),
        Some("-1") => Swap::Unlimited,
        Some(text) => Swap::Bytes(size_bytes(text)?),
    };
    match (swap, memory_bytes) {
        (_, None) => Err(Failure::usage("--memory-swap needs --memory as well")),
        (Swap::Bytes(total), Some(memory)) if total < memory => Err(Failure::usage(
            "--memory-swap is memory and swap together, and can't be less than --memory",
        )),
        (swap, _) => Ok(Some(swap)),
    }
}

fn cpu(
    args: &LimitArgs,
    quota_us: Option<u64>,
    period_us: Option<u64>,
) -> Result<(Option<u64>, Option<u64>), Failure> {
    if period_us.is_some_and(|period| !PERIODS_US.contains(&period)) {
        return Err(Failure::usage("--cpu-period must be between 1000 and 1000000"));
    }
    let Some(text) = args.cpus.as_deref() else {
        return match quota_us {
            Some(..MIN_QUOTA_US) => Err(Failure::usage("--cpu-quota must be at least 1000")),
            quota_us => Ok((quota_us, period_us)),
        };
    };
    if quota_us.is_some() || period_us.is_some() {
        return Err(Failure::usage(
            "--cpus is --cpu-quota and --cpu-period in one: give either",
        ));
    }
    let quota_us = cpus(text)
        .ok_or_else(|| Failure::usage(format!("invalid --cpus `{text}`: expected for instance 1.5")))?;
    match quota_us {
        0 => Ok((None, None)),
        1..MIN_QUOTA_US => Err(Failure::usage("--cpus must be at least 0.01")),
        quota_us => Ok((Some(quota_us), None)),
    }
}

/// Reads a number of CPUs as CPU time in a period of the usual length. Digits beyond a microsecond don't count.
fn cpus(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole: u64 = whole.parse().ok()?;
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(5);
    let part = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    is_number.then_some(whole.checked_mul(DEFAULT_PERIOD_US)?.checked_add(part)?)
}

/// Checks a list of numbers and ranges: `0-2,4`.
fn cpu_list(flag: &str, text: &Option<String>) -> Result<Option<String>, Failure> {
    let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let is_part = |part: &str| match part.split_once('-') {
        Some((from, to)) => is_number(from) && is_number(to),
        None => is_number(part),
    };
    match text.split(',').all(is_part) {
        true => Ok(Some(text.clone())),
        false => Err(Failure::usage(format!(
            "invalid {flag} `{text}`: expected for instance 0-2,4"
        ))),
    }
}

/// Reads `NAME=SOFT[:HARD]`; -1 and `unlimited` are no limit.
fn ulimit(text: &str) -> Result<Ulimit, Failure> {
    let invalid = |why: &str| Failure::usage(format!("invalid --ulimit `{text}`: {why}"));
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| invalid("expected NAME=SOFT[:HARD]"))?;
    if !Ulimit::names().any(|known| known == name) {
        let names: Vec<_> = Ulimit::names().collect();
        return Err(invalid("there is no such limit").with_help(format!("one of {}", names.join(", "))));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        text => text.parse().map(Some).map_err(|_| invalid("expected numbers")),
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let limit = Ulimit {
        name: name.to_owned(),
        soft: number(soft)?,
        hard: number(hard)?,
    };
    let is_ordered = match (limit.soft, limit.hard) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(soft), Some(hard)) => soft <= hard,
    };
    match is_ordered {
        true => Ok(limit),
        false => Err(invalid("the soft limit is above the hard one")),
    }
}

fn cgroup_parent(text: &str) -> Result<String, Failure> {
    let is_plain = !text.is_empty() && text.split('/').all(|part| part != ".." && part != ".");
    match is_plain {
        true => Ok(text.to_owned()),
        false => Err(Failure::usage(format!(
            "invalid --cgroup-parent `{text}`: expected the path of a control group"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: impl FnOnce(&mut LimitArgs)) -> Result<ContainerLimits, String> {
        let mut args = LimitArgs::default();
        change(&mut args);
        limits(&args).map_err(|failure| format!("{failure:?}"))
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn limits_are_settled() {
        let check = |change: fn(&mut LimitArgs), expected: Limits| {
            assert_eq!(parsed(change).unwrap().limits, expected);
        };
        let none = Limits::default;
        check(|_| {}, none());
        check(
            |args| args.memory = text("256m"),
            Limits {
                memory_bytes: Some(256 << 20),
                ..none()
            },
        );
        check(
            |args| {
                args.memory = text("1g");
                args.memory_swap = text("-1");
                args.pids_limit = text("-1");
            },
            Limits {
                memory_bytes: Some(1 << 30),
                memory_and_swap: Some(Swap::Unlimited),
                ..none()
            },
        );
        check(
            |args| args.cpus = text("1.5"),
            Limits {
                cpu_quota_us: Some(150_000),
                ..none()
            },
        );
        check(
            |args| {
                args.resource = vec![
                    "memory=64m,cpu-quota=5000".to_owned(),
                    "cpuset-cpus=0-1,3".to_owned(),
                ]
            },
            Limits {
                memory_bytes: Some(64 << 20),
                cpu_quota_us: Some(5_000),
                cpuset_cpus: text("0-1,3"),
                ..none()
            },
        );
        check(
            |args| {
                args.resource = vec!["pids-limit=5".to_owned()];
                args.pids_limit = text("7");
                args.cpu_shares = text("0");
            },
            Limits {
                n_pids: Some(7),
                ..none()
            },
        );
    }

    #[test]
    fn wrong_limits_are_refused() {
        let check = |change: fn(&mut LimitArgs), expected: &str| {
            let error = parsed(change).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(|args| args.memory = text("1m"), "at least 6m");
        check(|args| args.memory = text("much"), "invalid size");
        check(|args| args.memory_swap = text("1g"), "needs --memory");
        check(
            |args| {
                args.memory = text("1g");
                args.memory_swap = text("1m");
            },
            "can't be less",
        );
        for cpus in ["", "-1", "1.", "1.x", "0.001", "99999999999999999999"] {
            let error = parsed(|args| args.cpus = text(cpus)).unwrap_err();
            assert!(error.contains("--cpus"), "{cpus}: {error}");
        }
        check(
            |args| {
                args.cpus = text("1");
                args.cpu_quota = text("5000");
            },
            "give either",
        );
        check(|args| args.cpu_quota = text("5"), "at least 1000");
        check(|args| args.cpu_period = text("5"), "between");
        check(|args| args.cpuset_cpus = text("0,x"), "0-2,4");
        check(|args| args.pids_limit = text("many"), "expected a number");
        check(
            |args| args.resource = vec!["gpus=1".to_owned()],
            "unknown resource `gpus`",
        );
        check(|args| args.resource = vec!["memory".to_owned()], "KEY=VALUE");
        check(|args| args.cgroup_parent = text("/a/../b"), "--cgroup-parent");
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_value() {
        let check = |given: &str, expected: Option<(&str, Option<u64>, Option<u64>)>| {
            let found = ulimit(given).ok();
            let found = found
                .as_ref()
                .map(|limit| (limit.name.as_str(), limit.soft, limit.hard));
            assert_eq!(found, expected, "{given}");
        };
        check("nofile=1024", Some(("nofile", Some(1024), Some(1024))));
        check("nofile=10:20", Some(("nofile", Some(10), Some(20))));
        check("core=-1", Some(("core", None, None)));
        check("stack=5:unlimited", Some(("stack", Some(5), None)));
        for wrong in [
            "nofile",
            "nofile=",
            "nofile=20:10",
            "nofile=-1:10",
            "files=1",
            "nofile=1:2:3",
            "nofile=-2",
        ] {
            check(wrong, None);
        }
        let last = parsed(|args| args.ulimit = vec!["nofile=1".to_owned(), "nofile=2".to_owned()]);
        assert_eq!(last.unwrap().ulimits.len(), 1);
    }
}
