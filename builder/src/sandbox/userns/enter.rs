//! Getting the rights that containers need: as root nothing but private mounts, otherwise a user namespace.
//!
//! With subordinate ids and newuidmap the namespace has all of them, else the user's own only. A child that stays
//! outside writes the maps, because newuidmap must be started there; it ends before this process goes on. Nothing is
//! started again: this process itself moves, so it must have one thread.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;

use super::map::{IdMap, subordinate};
use crate::sandbox::error::{Result, SandboxError, Step as _};
use crate::sandbox::{launch, sys};

/// How this process can run containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entered {
    /// As it was: it had the rights.
    Already,
    /// In a user namespace with many ids.
    Full,
    /// In a user namespace with one user and group; why it isn't more.
    Single(String),
}

/// Set where no user namespace could be entered: why.
static REFUSED: OnceLock<String> = OnceLock::new();

/// Returns why this process can't run containers, if it tried to get the rights and failed.
pub(in crate::sandbox) fn refusal() -> Option<&'static str> {
    REFUSED.get().map(String::as_str)
}

/// Gives this process the rights to run containers, in namespaces of its own. Must be called before any thread starts,
/// once. The error is kept as well: whoever wants a container later gets it again.
pub(crate) fn enter() -> Result<Entered> {
    if has_rights() {
        return launch::enter_private_mounts().map(|()| Entered::Already);
    }
    let entered = new_namespace().and_then(|entered| {
        launch::make_mounts_private()?;
        Ok(entered)
    });
    if let Err(error) = &entered {
        let reason = match error {
            SandboxError::NoNamespace { reason } => reason.clone(),
            other => format!("{other}{}", hint()),
        };
        // The first one counts; there is no second.
        let _first = REFUSED.set(reason.clone());
        return Err(SandboxError::NoNamespace { reason });
    }
    entered
}

/// Says whether this process has root's rights over its mounts, in whichever namespace it is.
pub(crate) fn has_rights() -> bool {
    let capabilities = rustix::thread::capabilities(None);
    rustix::process::geteuid().is_root()
        && capabilities.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// The maps of the new namespace, and who writes them.
enum Plan {
    /// newuidmap and newgidmap, with what the system grants to the user.
    Granted {
        programs: [PathBuf; 2],
        uids: IdMap,
        gids: IdMap,
    },
    /// This program: root that lacks other rights keeps all ids that it has.
    Own { uids: IdMap, gids: IdMap },
    /// The user's own ids only; why.
    Single(String),
}

fn new_namespace() -> Result<Entered> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let plan = plan(uid);
    let step = "make a pipe for the user namespace";
    let (go_ahead, go) = pipe_with(PipeFlags::CLOEXEC).step(step)?;
    let (answer, told) = pipe_with(PipeFlags::CLOEXEC).step(step)?;
    let own = rustix::process::getpid();
    let child = match sys::clone3(0).step("fork for the user namespace")? {
        sys::Side::Child => {
            drop((go, answer));
            write_from_outside(&plan, own, go_ahead, told);
            std::process::exit(0);
        }
        sys::Side::Parent(child) => child,
    };
    drop((go_ahead, told));
    let unshared = sys::unshare_user_and_mounts();
    let wrote = match &unshared {
        Ok(()) => File::from(go).write_all(b"!").and_then(|()| all_of(answer)),
        // Closing the pipe is what the child ends at.
        Err(_) => {
            drop(go);
            Ok(String::new())
        }
    };
    rustix::process::waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED)
        .step("wait for the id maps")?;
    unshared.map_err(|error| SandboxError::NoNamespace {
        reason: format!("cannot make a user namespace: {error}{}", hint()),
    })?;
    let problem = wrote.step("hear of the id maps")?;
    let because = match (plan, problem.as_str()) {
        (Plan::Single(because), _) => because,
        (_, "") => return Ok(Entered::Full),
        (_, problem) => problem.to_owned(),
    };
    if map_of("/proc/self/uid_map").n_ids() > 0 {
        // Half of it was written: the rest can't be had any more.
        return Err(SandboxError::NoNamespace { reason: because });
    }
    write_single(uid, gid)?;
    Ok(Entered::Single(because))
}

fn map_of(path: &str) -> IdMap {
    IdMap::parse(&std::fs::read_to_string(path).unwrap_or_default())
}

fn all_of(pipe: OwnedFd) -> io::Result<String> {
    let mut text = String::new();
    File::from(pipe).take(4096).read_to_string(&mut text)?;
    Ok(text)
}

fn plan(uid: u32) -> Plan {
    if uid == 0 {
        return Plan::Own {
            uids: map_of("/proc/self/uid_map").identity(),
            gids: map_of("/proc/self/gid_map").identity(),
        };
    }
    let name = login_name(uid);
    let who = name.clone().unwrap_or_else(|| uid.to_string());
    let granted = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        match subordinate(&text, name.as_deref(), uid) {
            granted if granted.is_empty() => Err(format!("{path} grants nothing to {who}")),
            granted => Ok(granted),
        }
    };
    let found = |program: &str| program_in_path(program).ok_or_else(|| format!("{program} is not installed"));
    let gather = || {
        let (uids, gids) = (granted("/etc/subuid")?, granted("/etc/subgid")?);
        Ok(Plan::Granted {
            programs: [found("newuidmap")?, found("newgidmap")?],
            uids: IdMap::of_subordinate(uid, &uids),
            gids: IdMap::of_subordinate(rustix::process::getegid().as_raw(), &gids),
        })
    };
    gather().unwrap_or_else(Plan::Single)
}

/// Returns the user's name as `/etc/passwd` has it: the name services need the C library's plug-ins.
fn login_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let named = |line: &str| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    };
    text.lines().find_map(named)
}

/// Finds a program in `PATH`, and where the system keeps its own.
pub(crate) fn program_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/bin", "/usr/sbin", "/bin", "/sbin"])
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| PathBuf::from(dir).join(name))
        .find(|path| path.is_file())
}

/// The child's part: waits until the namespace is there, writes its maps, says what went wrong.
fn write_from_outside(plan: &Plan, process: Pid, go_ahead: OwnedFd, told: OwnedFd) {
    let mut byte = [0];
    if !matches!(File::from(go_ahead).read(&mut byte), Ok(1)) {
        return;
    }
    let problem = match plan {
        Plan::Single(_) => Ok(()),
        Plan::Granted {
            programs: [newuidmap, newgidmap],
            uids,
            gids,
        } => grant(newuidmap, process, uids).and_then(|()| grant(newgidmap, process, gids)),
        Plan::Own { uids, gids } => {
            let write = |kind: &str, map: &IdMap| {
                write_proc(
                    &format!("/proc/{}/{kind}", process.as_raw_nonzero()),
                    &map.to_string(),
                )
                .map_err(|error| format!("root here may not give its ids on ({kind}: {error})"))
            };
            write("uid_map", uids).and_then(|()| write("gid_map", gids))
        }
    };
    if let Err(problem) = problem {
        // Nobody is left to be told otherwise.
        let _gone = File::from(told).write_all(problem.as_bytes());
    }
}

fn grant(program: &PathBuf, process: Pid, map: &IdMap) -> std::result::Result<(), String> {
    let numbers = map
        .ranges()
        .iter()
        .flat_map(|range| [range.inside, range.outside, range.n_ids])
        .map(|number| number.to_string());
    let output = Command::new(program)
        .arg(process.as_raw_nonzero().to_string())
        .args(numbers)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.trim().chars().take(500).collect())
}

/// Makes the user 0 and nobody else. Without groups: the kernel wants that of those who may not set them.
fn write_single(uid: u32, gid: u32) -> Result<()> {
    match write_proc("/proc/self/setgroups", "deny") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).step("give up supplementary groups");
        }
        _ => {}
    }
    let whom = match uid {
        // Linux 5.12 and newer want that of whoever passes root's id on.
        0 => "map root, which lacks CAP_SETFCAP",
        _ => "map the user",
    };
    write_proc("/proc/self/uid_map", &format!("0 {uid} 1\n")).step(whom)?;
    write_proc("/proc/self/gid_map", &format!("0 {gid} 1\n")).step("map the group")
}

fn write_proc(path: &str, text: &str) -> io::Result<()> {
    // In one write: the kernel takes a map once.
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

/// Names the setting of this machine that stands in the way, where one is known to.
fn hint() -> String {
    let says = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let known = [
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "kernel.unprivileged_userns_clone is 0; 1 allows it",
        ),
        (
            "/proc/sys/user/max_user_namespaces",
            "0",
            "user.max_user_namespaces is 0; a larger number allows it",
        ),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns is 1; 0, or an AppArmor profile for this program, allows it",
        ),
    ];
    let found = known.iter().find(|(path, value, _)| says(path, value));
    found.map_or_else(String::new, |(.., hint)| format!(" ({hint})"))
}
