//! `config.json`: the process and its rights, as the settings and the profile have them.
//!
//! Spec: OCI runtime-spec 1.0.2. What is mounted isn't said here but for two: `/proc`, which only the process's own pid
//! namespace can have, and `/dev`, as a mount onto itself, because runtimes fill a `/dev` of their own otherwise.

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::super::error::{Result, Step as _};
use super::super::limits::Ulimit;
use super::super::profile::{self, CAPABILITIES, MASKED, READ_ONLY};
use super::super::spec::{Privilege, Settings};
use super::filter;

/// As many files a runtime may need to have open.
const N_FILES: u64 = 64;

/// Returns the config of a container whose root is at `root`, complete but for `/proc`. Its processes join the pid
/// namespace at `pids`, or get a new one.
pub(super) fn config(settings: &Settings, root: &str, pids: Option<&str>) -> Result<Value> {
    let is_sandboxed = settings.privilege == Privilege::Sandbox;
    let mut pid_namespace = json!({"type": "pid"});
    if let Some(path) = pids {
        pid_namespace["path"] = json!(path);
    }
    let mut linux = json!({"namespaces": [pid_namespace, {"type": "mount"}]});
    if is_sandboxed {
        let absolute =
            |paths: &[&str]| -> Vec<String> { paths.iter().map(|path| format!("/{path}")).collect() };
        linux["maskedPaths"] = json!(absolute(MASKED));
        linux["readonlyPaths"] = json!(absolute(READ_ONLY));
        linux["seccomp"] = filter::seccomp(&profile::default_profile());
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": settings.terminal.is_some(),
            "user": {
                "uid": settings.uid,
                "gid": settings.gid,
                "umask": 0o022,
                "additionalGids": settings.groups,
            },
            "args": settings.args,
            "env": env(settings),
            "cwd": settings.cwd,
            "capabilities": capabilities(settings)?,
            "rlimits": settings.ulimits.iter().map(rlimit).collect::<Vec<_>>(),
            // sudo and ping must work in RUN.
            "noNewPrivileges": false,
        },
        "root": {"path": root, "readonly": false},
        "mounts": [
            {
                "destination": "/proc",
                "type": "proc",
                "source": "proc",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/dev",
                "type": "bind",
                "source": format!("{root}/dev"),
                "options": dev_options(settings.privilege),
            },
        ],
        "linux": linux,
    }))
}

/// As `rootfs` has it; crun forgets the attributes that a mount has already.
fn dev_options(privilege: Privilege) -> Value {
    match privilege {
        Privilege::Sandbox => json!(["rbind", "nosuid", "nodev", "strictatime"]),
        Privilege::Insecure => json!(["rbind", "nosuid", "strictatime"]),
    }
}

/// Runtimes look `HOME` up in the image's files; it is known already.
fn env(settings: &Settings) -> Vec<String> {
    let home = settings.home.iter().map(|home| ("HOME", home.as_str()));
    let has_home = settings.env.iter().any(|(name, _)| name == "HOME");
    let given = settings
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    given
        .chain(home.filter(|_| !has_home))
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// Nothing is inheritable or ambient. Users other than root have the bounding set only, for setuid programs; runtimes
/// would execute files with the others that the user may not.
fn capabilities(settings: &Settings) -> Result<Value> {
    let held = rustix::thread::capabilities(None)
        .setup("read capabilities")?
        .permitted;
    let bounding = match settings.privilege {
        Privilege::Sandbox => held & CapabilitySet::from_bits_retain(CAPABILITIES),
        Privilege::Insecure => held,
    };
    let effective = match settings.uid {
        0 => bounding,
        _ => CapabilitySet::empty(),
    };
    let names = |set: CapabilitySet| -> Vec<String> {
        set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
    };
    Ok(json!({
        "bounding": names(bounding),
        "effective": names(effective),
        "permitted": names(effective),
        "inheritable": [],
        "ambient": [],
    }))
}

/// Says whether a limit leaves a runtime too little to set the container up. Then it gets some more for that.
pub(super) fn is_tight(ulimit: &Ulimit) -> bool {
    ulimit.name == "nofile" && [ulimit.soft, ulimit.hard].iter().flatten().any(|n| *n < N_FILES)
}

fn rlimit(ulimit: &Ulimit) -> Value {
    let least = if is_tight(ulimit) { N_FILES } else { 0 };
    // The kernel's RLIM_INFINITY.
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX).max(least);
    json!({
        "type": format!("RLIMIT_{}", ulimit.name.to_uppercase()),
        "soft": number(ulimit.soft),
        "hard": number(ulimit.hard),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_that_of_the_settings() {
        let settings = Settings {
            args: vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()],
            env: vec![("PATH".to_owned(), "/bin".to_owned())],
            cwd: "/srv".to_owned(),
            uid: 1000,
            gid: 100,
            groups: vec![100, 7],
            home: Some("/home/u".to_owned()),
            ulimits: vec![Ulimit {
                name: "nofile".to_owned(),
                soft: Some(10),
                hard: None,
            }],
            ..Settings::default()
        };
        let config = config(&settings, "/r", None).unwrap();
        let check = |pointer: &str, expected: Value| {
            assert_eq!(config.pointer(pointer), Some(&expected), "{pointer}");
        };
        check("/process/args", json!(["sh", "-c", "id"]));
        check("/process/env", json!(["PATH=/bin", "HOME=/home/u"]));
        check("/process/cwd", json!("/srv"));
        check(
            "/process/user",
            json!({"uid": 1000, "gid": 100, "umask": 18, "additionalGids": [100, 7]}),
        );
        check(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": u64::MAX}]),
        );
        check("/process/capabilities/ambient", json!([]));
        check("/process/capabilities/inheritable", json!([]));
        check("/process/capabilities/effective", json!([]));
        check("/root/path", json!("/r"));
        check("/mounts/1/source", json!("/r/dev"));
        check("/linux/maskedPaths/0", json!("/proc/acpi"));
    }

    #[test]
    fn a_pid_namespace_that_is_there_is_joined() {
        let check = |pids: Option<&str>, expected: Value| {
            let config = config(&Settings::default(), "/r", pids).unwrap();
            assert_eq!(config.pointer("/linux/namespaces/0"), Some(&expected));
        };
        check(None, json!({"type": "pid"}));
        check(
            Some("/proc/7/ns/pid"),
            json!({"type": "pid", "path": "/proc/7/ns/pid"}),
        );
    }

    #[test]
    fn an_insecure_process_is_not_protected_from() {
        let settings = Settings {
            privilege: Privilege::Insecure,
            ..Settings::default()
        };
        let config = config(&settings, "/r", None).unwrap();
        assert_eq!(
            config["linux"],
            json!({"namespaces": [{"type": "pid"}, {"type": "mount"}]})
        );
    }
}
