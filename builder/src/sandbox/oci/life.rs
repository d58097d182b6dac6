//! One container of a runtime, from an empty mount namespace to its exit code. Runs as process 1 of the namespaces around it.
//!
//! `create` makes everything but the command's own execution, which begins with `start`: between the two the container is
//! moved into its control groups. Both end; the container's process is this one's child then, as every orphan here, so its
//! end is told by the kernel and not by the runtime. There is no `delete`: what the runtime noted goes with the namespace.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::super::command::{self, Foreseen, Found};
use super::super::error::{Result, SandboxError, Step as _};
use super::super::helper;
use super::super::init::{self, Init};
use super::super::mount::{self, NODEV, NOEXEC, NOSUID, Param, RDONLY};
use super::super::place;
use super::super::rootfs;
use super::super::spec::{Exit, Settings};
use super::super::sys;
use super::super::wire::{self, Report};
use super::console::Console;
use super::reaper::Reaper;
use super::tighten::{mounts_of, tighten};
use super::{Runtime, config, console};

/// The container's name, in a namespace that has no other.
const NAME: &str = "ashlar";
/// What the runtime writes; it is to be small.
const STATE_BYTES: u64 = 16 << 20;
/// Most of its words that are read.
const MAX_WORDS_BYTES: u64 = 64 << 10;
/// Both runtimes end with it when the kernel doesn't execute the command.
const NOT_EXECUTED: i32 = 1;
/// What a fork of this process ends with where the runtime itself isn't executed, as with a shell.
const NOTHING_EXECUTED: i32 = 127;

/// Makes the container and waits for its end, and that of every process in it.
pub(in crate::sandbox) fn contain(init: &Init<'_>, runtime: &Runtime) -> Result<Exit> {
    let settings = init.settings;
    let command = command::Command::new(settings)?;
    init::die_with(init.helper)?;
    rustix::process::setsid().setup("start a session")?;
    mount::make_all_private().setup("make all mounts private")?;
    let root = init::assemble(init)?;
    let root = root.as_fd();
    let root_at = arrange()?;
    mount::attach_at(root, &root_at).setup("attach the root")?;
    init::furnish(root, init, &root_at)?;
    if settings.terminal.is_some() {
        // Runtimes mount the terminal there too, as docker's containers have it; crun doesn't make the place.
        rootfs::write(root, "dev/console", "", 0o600)?;
    }
    drop(rootfs::working_directory(
        root,
        &settings.cwd,
        settings.uid,
        settings.gid,
    )?);
    // This one shows the processes around the container; the runtime mounts the container's own.
    rustix::mount::unmount(format!("{root_at}/proc"), UnmountFlags::DETACH).setup("take /proc away")?;
    let found = match command.foresee(root, settings) {
        Foreseen::Ends(exit) => return Ok(exit),
        Foreseen::Found(found) => found,
    };
    let reaper = match settings.has_init {
        true => Some(Reaper::start(init)?),
        false => None,
    };
    let pids = reaper.as_ref().map(Reaper::pid_namespace);
    let config = config::config(&with_place(settings, &found), &root_at, pids.as_deref())?;
    rootfs::write(
        CWD,
        &place::path("bundle/config.json"),
        &config.to_string(),
        0o600,
    )?;
    init::give(init.streams, false, settings.uid)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    init::ordinary_signals()?;
    let call = Call {
        runtime,
        init,
        reaper: reaper.as_ref(),
    };
    call.run(&found)
}

/// Makes what the runtime sees: processes of this namespace, control groups that it can't write, and a place for its files
/// and the root. Returns where the root is to be.
fn arrange() -> Result<String> {
    let kernel = NOSUID | NOEXEC | NODEV;
    let proc = mount::create("proc", &[Param::Text("source", "proc")], kernel)
        .setup("create a proc")
        .map_err(rootfs::explain_proc)?;
    mount::attach_at(proc.as_fd(), "/proc").setup("mount a /proc for the runtime")?;
    let cgroups = [Param::Text("source", "cgroup2")];
    let cgroups = mount::create("cgroup2", &cgroups, kernel | RDONLY).setup("create a cgroup2")?;
    mount::attach_at(cgroups.as_fd(), "/sys/fs/cgroup").setup("mount control groups for the runtime")?;
    let files = mount::tmpfs(STATE_BYTES, "0700", kernel).setup("make a place for the runtime's files")?;
    for directory in ["root", "state", "bundle"] {
        rustix::fs::mkdirat(&files, directory, Mode::RWXU).setup("make a place for the runtime's files")?;
    }
    mount::attach_at(files.as_fd(), place::PLACE).setup("mount a place for the runtime's files")?;
    Ok(place::path("root"))
}

/// Names the program by its place where the environment says nothing of one: runtimes have no default.
fn with_place(settings: &Settings, found: &Found) -> Settings {
    let mut settings = settings.clone();
    let has_path = settings.env.iter().any(|(name, _)| name == "PATH");
    if let (false, Some(program)) = (has_path, settings.args.first_mut()) {
        program.clone_from(&found.place);
    }
    settings
}

/// A runtime that is about to be called for one container.
struct Call<'a> {
    runtime: &'a Runtime,
    init: &'a Init<'a>,
    /// The container's process 1, if that isn't the command.
    reaper: Option<&'a Reaper>,
}

impl Call<'_> {
    fn run(&self, found: &Found) -> Result<Exit> {
        let (bundle, pid_file) = (place::path("bundle"), place::path("pid"));
        let console = self.init.settings.terminal.map(Console::listen).transpose()?;
        let mut args = vec!["create", "--bundle", &bundle, "--pid-file", &pid_file];
        let socket = console::path();
        if console.is_some() {
            args.extend(["--console-socket", &socket]);
        }
        args.push(NAME);
        let is_created = self.call(&args)?;
        if !is_created {
            let said = self.last_words();
            // What a file's owner and lists say of the user is for the kernel to judge, and the runtime to hear.
            return match said.to_lowercase().contains("permission denied") {
                true => Ok(found.forbidden()),
                false => Err(self.failed("create", &said)),
            };
        }
        if let Some(console) = &console {
            let master = console.receive()?;
            wire::send(self.init.socket, &Report::Terminal, &[master.as_fd()])
                .setup("hand the terminal over")?;
        }
        let pid = self.pid(&pid_file)?;
        let mounts = mounts_of(pid)?;
        tighten(mounts.as_fd(), pid, self.init.settings)?;
        if let Some(reaper) = self.reaper {
            reaper.enter(self.init, mounts.as_fd())?;
        }
        drop(mounts);
        let before = name_of(pid);
        for procs in self.init.cgroups {
            let number = pid.as_raw_nonzero().to_string();
            rustix::io::write(procs, number.as_bytes()).setup("move the container into a control group")?;
        }
        if !self.call(&["start", NAME])? {
            return Err(self.failed("start", &self.last_words()));
        }
        // It is kept for a moment, because its name is that of the runtime still if nothing was executed.
        wait(pid, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        let was_executed = name_of(pid) != before;
        let exit = wait(pid, WaitIdOptions::EXITED)?;
        Ok(match exit.code {
            NOT_EXECUTED if !was_executed => found.not_executed(),
            _ => exit,
        })
    }

    /// Executes the runtime and waits for it; says whether it was content. Not by std's `Command`: the C library's way to
    /// start programs leaves two signals ignored, and a runtime passes that on.
    fn call(&self, args: &[&str]) -> Result<bool> {
        let step = || format!("execute {}", self.runtime.name());
        let text = |text: &[u8]| CString::new(text).map_err(io::Error::from).setup(step());
        let program = text(self.runtime.program().as_os_str().as_bytes())?;
        let (state, log) = (place::path("state"), place::path("log"));
        let options = ["--root", &state, "--log", &log];
        let words = options
            .iter()
            .chain(self.runtime.kind.without_cgroups())
            .chain(args);
        let args: Vec<CString> = std::iter::once(Ok(program.clone()))
            .chain(words.map(|word| text(word.as_bytes())))
            .collect::<Result<_>>()?;
        match sys::fork().setup(step())? {
            None => std::process::exit(self.become_runtime(&program, &args)),
            Some(pid) => Ok(wait(pid, WaitIdOptions::EXITED)?.code == 0),
        }
    }

    /// Returns the exit code of what could not be executed.
    fn become_runtime(&self, program: &CStr, args: &[CString]) -> i32 {
        let [stdin, stdout, stderr] = self.init.streams;
        let is_ready = rustix::stdio::dup2_stdin(stdin)
            .and_then(|()| rustix::stdio::dup2_stdout(stdout))
            .and_then(|()| rustix::stdio::dup2_stderr(stderr))
            .and_then(|()| rustix::process::chdir("/"));
        if is_ready.is_ok() && sys::close_on_exec_from(3).is_ok() {
            let _error = sys::execve(program, args, &[]);
        }
        NOTHING_EXECUTED
    }

    fn pid(&self, file: &str) -> Result<Pid> {
        let text = read(file);
        let number = text.trim().parse().ok();
        number
            .filter(|number| *number > 1)
            .and_then(Pid::from_raw)
            .ok_or_else(|| self.failed("create", &format!("its pid file says `{text}`")))
    }

    fn failed(&self, what: &str, said: &str) -> SandboxError {
        SandboxError::Runtime {
            program: self.runtime.name(),
            reason: format!("failed ({what}): {said}"),
        }
    }

    /// Returns the last line of its log; runc's has fields.
    fn last_words(&self) -> String {
        let log = read(&place::path("log"));
        let last = log.lines().rfind(|line| !line.trim().is_empty());
        let last = last.unwrap_or("no reason given");
        let message = last.split_once(" msg=").map_or(last, |(_, message)| message);
        message.trim_matches('"').replace("\\\"", "\"")
    }
}

/// Reads the beginning of a small file; one that isn't there is empty.
fn read(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut bytes = Vec::new();
    if let Ok(file) = rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        // What can't be read says nothing, and that is said.
        let _partly = File::from(file).take(MAX_WORDS_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns what a process calls itself, also if it has ended and nobody waited for it yet.
fn name_of(pid: Pid) -> String {
    read(&format!("/proc/{}/comm", pid.as_raw_nonzero()))
}

fn wait(pid: Pid, options: WaitIdOptions) -> Result<Exit> {
    let step = "wait for the container";
    let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), options))
        .setup(step)?
        .ok_or_else(|| SandboxError::Refused {
            reason: "the container's process vanished".to_owned(),
        })?;
    Ok(helper::exit_of(&status))
}
