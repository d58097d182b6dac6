//! RUN: layers below, a throw-away upper on top, the process in the sandbox, and the upper packed into the next layer.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::layer::{PackOptions, TreePath};
use cache::tree::View;
use cache::{DiffId, Store};
use rustix::pipe::{PipeFlags, pipe_with};
use solver::op::{Exec, Network, Security};
use solver::{Events, Job, Snapshot, Stream, Subject};

use super::lowers::Lowers;
use super::mounts::{Holding, Step, Wanted};
use super::{Bounds, OpError, Worker, devices, owner, stacked, unpacked};
use crate::cdi::Devices;
use crate::journal::Output;
use crate::options::host_platform;
use crate::runtime::{blocking, elapsed};
use crate::sandbox::{
    self, Cancel, Exit, Networks, Privilege, SandboxError, Settings, Spec, Stdio, TerminalSize, Upper,
};

/// Upper directories are kept in memory up to this much, or up to a quarter of what the machine has free.
const MAX_MEMORY_BYTES: u64 = 8 << 30;

/// Begins what containers need and takes longest, while files are still copied and layers fetched: the sandbox's program
/// and one network. Whoever runs first waits for the rest of it.
pub(super) fn expect(worker: &Worker, op: &Exec, cancel: &solver::Cancel) {
    if op.network == Network::Default && !worker.expects.swap(true, Ordering::Relaxed) {
        let (lowers, networks) = (Arc::clone(&worker.lowers), Arc::clone(&worker.networks));
        let cancel = cancel.clone();
        drop(tokio::spawn(async move {
            // What fails here fails again for the one that needs it, who tells.
            let Ok((kill, cancelled)) = pipe_with(PipeFlags::CLOEXEC) else {
                return;
            };
            let mut work = tokio::task::spawn_blocking(move || {
                if let Ok(helper) = lowers.helper() {
                    networks.prepare(&helper, Cancel::on(kill.as_fd()));
                }
            });
            tokio::select! {
                _ = &mut work => {}
                () = cancel.cancelled() => drop(cancelled),
            }
        }));
    }
}

/// Runs the op and packs what it changed.
pub(super) async fn execute(worker: &Worker, op: &Exec, job: &Job) -> Result<Snapshot, OpError> {
    let below = &job.inputs[0].snapshot;
    let view = worker.view(below).await?;
    let Snapshot::Layers(layers) = below else {
        unreachable!("lowering never runs on a local tree")
    };
    let (kill, cancelled) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| OpError::Scratch { source: error.into() })?;
    let run = Run {
        op: op.clone(),
        layers: Arc::clone(layers),
        view,
        lowers: Arc::clone(&worker.lowers),
        networks: Arc::clone(&worker.networks),
        mounts: Wanted::of(worker, op, job).await?,
        subject: Subject::Vertex(job.id),
        events: job.events.clone(),
        devices: Arc::clone(&worker.devices),
        bounds: Arc::clone(&worker.bounds),
        kept: worker
            .journal
            .as_ref()
            .map(|journal| Mutex::new(journal.output(job.id.index()))),
        keeps_failed: worker.keeps_failed,
        kill,
    };
    let work = blocking(move || run.into_layer());
    tokio::pin!(work);
    let (layer, upper) = tokio::select! {
        result = &mut work => result,
        () = job.cancel.cancelled() => {
            // Hanging up is what the sandbox polls for.
            drop(cancelled);
            work.await
        }
        after = elapsed(worker.step_timeout) => {
            drop(cancelled);
            match work.await {
                Err(OpError::Cancelled) => Err(OpError::TimedOut { after }),
                // It was done after all.
                other => other,
            }
        }
    }?;
    // Freeing what it holds takes time that nobody has to wait for.
    drop(tokio::task::spawn_blocking(move || drop(upper)));
    Ok(stacked(below, layer))
}

/// One RUN, on a blocking thread.
pub(super) struct Run {
    op: Exec,
    layers: Arc<[DiffId]>,
    view: View,
    lowers: Arc<Lowers>,
    networks: Arc<Networks>,
    mounts: Wanted,
    subject: Subject,
    events: Events,
    devices: Arc<Devices>,
    bounds: Arc<Bounds>,
    /// Where the output of the process is kept.
    kept: Option<Mutex<Output>>,
    /// The container of a failed process is wanted.
    keeps_failed: bool,
    kill: OwnedFd,
}

impl Run {
    /// Returns the layer, and the upper that it was packed from, which isn't needed any more.
    fn into_layer(self) -> Result<(DiffId, Upper), OpError> {
        let settings = self.settings()?;
        let holding = self.mounts.hold(&self.step())?;
        let ran = self.until_it_fits(&settings, &holding);
        self.close_log();
        let (exit, upper) = ran?;
        if exit.code == 0 {
            let layer = pack_changes(self.lowers.store(), &self.view, &upper)?;
            return Ok((layer, upper));
        }
        Err(OpError::Exit {
            command: self.mounts.secrets().hide(&self.op.args.join(" ")),
            outcome: outcome(&exit),
            code: exit.code,
            foreign: foreign(&self.op.platform, &exit),
            container: self.keeps_failed.then(|| {
                Box::new(FailedContainer {
                    settings,
                    upper,
                    holding,
                    run: self,
                })
            }),
        })
    }

    /// Runs the process, once more on disk if its changes don't fit into memory.
    fn until_it_fits(&self, settings: &Settings, holding: &Holding) -> Result<(Exit, Upper), OpError> {
        let mut upper = self.first_upper()?;
        let mut exit = self.run(settings, &upper, holding)?;
        if exit.code != 0 && upper.is_full()? {
            self.events
                .warn("a RUN used up the memory meant for its changes; it is run again on disk");
            upper = self.upper_on_disk()?;
            exit = self.run(settings, &upper, holding)?;
        }
        Ok((exit, upper))
    }

    /// Ends what is kept of the output. A log that can't be written is no reason to fail.
    fn close_log(&self) {
        if let Some(kept) = &self.kept
            && let Err(error) = lock(kept).finish()
        {
            let warning = format!("the output of a step could not be kept: {error}");
            self.events.warn(warning);
        }
    }

    fn step(&self) -> Step<'_> {
        Step {
            lowers: &self.lowers,
            view: &self.view,
            subject: &self.subject,
            events: &self.events,
            kill: self.kill.as_fd(),
        }
    }

    /// Returns an upper in memory where that is good enough, and not the container's own.
    fn first_upper(&self) -> Result<Upper, OpError> {
        if self.bounds.limits_memory() {
            return self.upper_on_disk();
        }
        let upper = self.described(Upper::tmpfs(memory_budget_bytes())?)?;
        match upper.keeps_user_attributes()? {
            true => Ok(upper),
            false => self.upper_on_disk(),
        }
    }

    fn upper_on_disk(&self) -> Result<Upper, OpError> {
        let scratch = self.lowers.scratch_dir()?;
        self.described(Upper::directory(scratch.as_fd())?)
    }

    /// Makes the container's `/` look like the image's.
    fn described(&self, upper: Upper) -> Result<Upper, OpError> {
        describe(&upper, &self.view)?;
        Ok(upper)
    }

    fn settings(&self) -> Result<Settings, OpError> {
        let op = &self.op;
        let credentials = owner::credentials(&op.user, &self.view)?;
        let env = op.env.iter().chain(&op.env_unkeyed).cloned().collect();
        let mut settings = Settings {
            args: op.args.clone(),
            env,
            cwd: op.cwd.clone(),
            uid: credentials.uid,
            gid: credentials.gid,
            groups: credentials.groups,
            home: Some(credentials.home),
            hostname: op.hostname.clone(),
            scripts: op.scripts.clone(),
            terminal: None,
            privilege: match op.security {
                Security::Sandbox => Privilege::Sandbox,
                Security::Insecure => Privilege::Insecure,
            },
            ..Settings::default()
        };
        self.bounds.apply(&mut settings);
        Ok(settings)
    }

    /// Runs the process once, passing its output on.
    fn run(&self, settings: &Settings, upper: &Upper, holding: &Holding) -> Result<Exit, OpError> {
        let pipe =
            || pipe_with(PipeFlags::CLOEXEC).map_err(|error| OpError::Scratch { source: error.into() });
        let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
        std::thread::scope(|scope| {
            scope.spawn(move || self.pass_on(out, Stream::Stdout));
            scope.spawn(move || self.pass_on(err, Stream::Stderr));
            let stdio = Stdio {
                stdin: None,
                stdout: stdout.as_fd(),
                stderr: stderr.as_fd(),
                on_terminal: None,
            };
            // The readers end when nobody can write any more, which is when this ends.
            let cancel = Cancel::on(self.kill.as_fd());
            let exit = self.contain(settings, upper, holding, (stdio, cancel));
            drop((stdout, stderr));
            exit
        })
    }

    /// Runs a process in the step's container, on these streams, until it ends or is cancelled.
    fn contain(
        &self,
        settings: &Settings,
        upper: &Upper,
        holding: &Holding,
        (stdio, cancel): (Stdio<'_>, Cancel<'_>),
    ) -> Result<Exit, OpError> {
        let mut attached = self.mounts.attach(holding, &self.step())?;
        let mut settings = settings.clone();
        let warn = |warning: &str| self.events.warn(warning);
        devices::attach(&self.op, &self.devices, &mut attached, &mut settings, warn)?;
        with_env(&mut settings, &attached.env);
        let lowers = self.lowers.stack(&self.layers)?;
        let lowers: Vec<_> = lowers.iter().map(AsRef::as_ref).collect();
        let helper = self.lowers.helper()?;
        let failed = |error| match error {
            SandboxError::Cancelled => OpError::Cancelled,
            other => other.into(),
        };
        let network = self.networks.take(self.op.network, &helper, cancel);
        let network = network.map_err(failed)?;
        if let Some(warning) = &network.warning {
            self.events.warn(warning);
        }
        let cgroup = self.bounds.cgroup(warn)?;
        super::name_network(&mut settings, &network, &self.op.extra_hosts)?;
        let spec = Spec {
            lowers: &lowers,
            upper: Some(upper),
            mounts: &attached.points,
            network: network.namespace(),
            cgroup: Some(&cgroup),
            settings: &settings,
        };
        sandbox::run(&helper, &spec, stdio, cancel).map_err(failed)
    }

    fn pass_on(&self, from: OwnedFd, stream: Stream) {
        let mut from = std::fs::File::from(from);
        let mut buffer = vec![0; 64 << 10];
        let mut mask = self.mounts.secrets().mask();
        let mut unseen = Unseen::default();
        while let Ok(n_read @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..n_read];
            match mask.is_empty() {
                true => self.log(stream, bytes, &mut unseen),
                false => self.log(stream, &mask.pass(bytes), &mut unseen),
            }
        }
        self.log(stream, &mask.finish(), &mut unseen);
        self.events.log_last(&self.subject, stream, &unseen.0);
    }

    /// Keeps output, and shows it as far as that can be done.
    fn log(&self, stream: Stream, bytes: &[u8], unseen: &mut Unseen) {
        if bytes.is_empty() {
            return;
        }
        if let Some(kept) = &self.kept {
            lock(kept).write(bytes);
        }
        match self.events.log(&self.subject, stream, bytes) {
            true => unseen.0.clear(),
            false => unseen.add(bytes),
        }
    }
}

/// The last bytes of one stream that couldn't be shown: how a step ended is worth more than a flood.
#[derive(Default)]
struct Unseen(Vec<u8>);

impl Unseen {
    const BYTES: usize = 16 << 10;

    fn add(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(Self::BYTES)..];
        let n_old = self.0.len().min(Self::BYTES - new.len());
        self.0.drain(..self.0.len() - n_old);
        self.0.extend_from_slice(new);
    }
}

fn lock(kept: &Mutex<Output>) -> MutexGuard<'_, Output> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The container of a step whose process failed, with everything as that left it.
pub(crate) struct FailedContainer {
    run: Run,
    settings: Settings,
    upper: Upper,
    holding: Holding,
}

impl std::fmt::Debug for FailedContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FailedContainer").finish_non_exhaustive()
    }
}

impl FailedContainer {
    /// Runs a shell where the process failed: same files, mounts, environment, directory and user. `stdio` is the user's,
    /// `terminal` the size of theirs. Blocks.
    pub(crate) fn shell(
        &self,
        stdio: Stdio<'_>,
        terminal: TerminalSize,
        cancel: Cancel<'_>,
    ) -> Result<Exit, OpError> {
        self.upper.again()?;
        let mut settings = self.settings.clone();
        // The step's own shell where it had one: others may not be there.
        let shell = settings.args.first().filter(|program| is_shell(program)).cloned();
        settings.args = vec![shell.unwrap_or_else(|| "/bin/sh".to_owned())];
        settings.terminal = Some(terminal);
        if !settings.env.iter().any(|(name, _)| name == "TERM") {
            settings.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        self.run
            .contain(&settings, &self.upper, &self.holding, (stdio, cancel))
    }
}

/// Says whether a program is a shell that people can talk to.
fn is_shell(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    matches!(name, "sh" | "bash" | "ash" | "dash" | "zsh" | "ksh" | "fish")
}

/// Gives an upper's root the mode, owner and time of the image's, so that a change of nothing is no change.
pub(crate) fn describe(upper: &Upper, view: &View) -> Result<(), OpError> {
    match view.lookup(&TreePath::root()) {
        Some(root) => Ok(upper.describe_root(root.meta)?),
        None => Ok(()),
    }
}

/// Writes what a container changed of `view` as a layer.
pub(crate) fn pack_changes(store: &Store, view: &View, upper: &Upper) -> Result<DiffId, OpError> {
    let layer = store.layers().write(store.incomplete(), |writer| {
        let is_below = |path: &TreePath| view.lookup(path).is_some();
        let options = PackOptions {
            marks: unpacked::marks(),
            ..PackOptions::default()
        };
        Ok::<_, OpError>(cache::layer::pack(upper.dir(), writer, &options, &is_below)?)
    })?;
    Ok(layer.diff_id())
}

/// Adds what mounts bring: a variable of theirs replaces the step's own.
fn with_env(settings: &mut Settings, env: &[(String, String)]) {
    for (name, value) in env {
        settings.env.retain(|(known, _)| known != name);
        settings.env.push((name.clone(), value.clone()));
    }
}

/// Says how a process ended, in the words that users of other builders search for.
fn outcome(exit: &Exit) -> String {
    const KILLED: i32 = 128 + libc::SIGKILL;
    let mut text = format!("exit code: {}", exit.code);
    let name = |signal: i32| signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned);
    match (exit.signal, exit.code) {
        (Some(signal), _) => text.push_str(&format!(" (killed by {})", name(signal))),
        (None, KILLED) if !exit.oom && exit.limit.is_none() => {
            text.push_str(" (128 + SIGKILL: killed by the step itself, from outside, or for want of memory)");
        }
        // What a shell says of a command that was killed.
        (None, code @ 129..) if let Some(name) = signal_name(code - 128) => {
            text.push_str(&format!(" (128 + {name})"));
        }
        _ => {}
    }
    match &exit.limit {
        Some(limit) => text.push_str(&format!(": {limit}")),
        None if exit.oom => text.push_str(": out of memory"),
        None => {}
    }
    if let Some(why) = &exit.why {
        text.push_str(": ");
        text.push_str(why);
    }
    text
}

/// Names the signals that end processes. Spec: signal(7).
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

/// Returns the platform of programs that this machine could not execute, if that may be why nothing ran.
fn foreign(platform: &str, exit: &Exit) -> Option<String> {
    let is_foreign = exit.why.is_some() && platform != host_platform().to_string();
    is_foreign.then(|| platform.to_owned())
}

/// Returns how much memory the changes of one RUN may take before it is run again on disk.
pub(super) fn memory_budget_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let free = (info.freeram as u64 + info.bufferram as u64).saturating_mul(u64::from(info.mem_unit));
    (free / 4).clamp(64 << 20, MAX_MEMORY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// hardening R42, case R53: codes are told as they are, and what is known of them.
    #[test]
    fn how_a_process_ended_is_told() {
        let check = |code, signal, (oom, limit): (bool, Option<&str>), expected: &str| {
            let exit = Exit {
                code,
                signal,
                oom,
                limit: limit.map(str::to_owned),
                why: None,
            };
            assert_eq!(outcome(&exit), format!("exit code: {expected}"));
        };
        let plain = (false, None);
        for code in [0, 1, 2, 100, 125, 126, 127, 128, 255] {
            check(code, None, plain, &code.to_string());
        }
        check(139, None, plain, "139 (128 + SIGSEGV)");
        check(143, None, plain, "143 (128 + SIGTERM)");
        check(139, Some(11), plain, "139 (killed by SIGSEGV)");
        check(162, Some(34), plain, "162 (killed by signal 34)");
        let killed = "137 (128 + SIGKILL: killed by the step itself, from outside, or for want of memory)";
        check(137, None, plain, killed);
        check(137, None, (true, None), "137 (128 + SIGKILL): out of memory");
        let limit = Some("out of memory: the limit is 6 MiB");
        check(
            137,
            None,
            (true, limit),
            "137 (128 + SIGKILL): out of memory: the limit is 6 MiB",
        );
        check(1, None, (true, limit), "1: out of memory: the limit is 6 MiB");
    }
}
