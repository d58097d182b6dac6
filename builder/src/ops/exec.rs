//! RUN: layers below, a throw-away upper on top, the process in the sandbox, and the upper packed into the next layer.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cache::DiffId;
use cache::layer::{PackOptions, TreePath};
use cache::tree::View;
use rustix::pipe::{PipeFlags, pipe_with};
use solver::op::Exec;
use solver::{Events, Job, Snapshot, Stream, Subject};

use super::lowers::Lowers;
use super::mounts::{Holding, Step, Wanted};
use super::{OpError, Worker, owner, stacked, unpacked};
use crate::options::host_platform;
use crate::runtime::blocking;
use crate::sandbox::{self, Cancel, Exit, SandboxError, Settings, Spec, Stdio, Upper};

/// Upper directories are kept in memory up to this much, or up to a quarter of what the machine has free.
const MAX_MEMORY_BYTES: u64 = 8 << 30;

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
        mounts: Wanted::of(worker, op, job).await?,
        subject: Subject::Vertex(job.id),
        events: job.events.clone(),
        shm_size_bytes: worker.shm_size_bytes,
        kill,
    };
    let work = blocking(move || run.to_layer());
    tokio::pin!(work);
    let layer = tokio::select! {
        result = &mut work => result,
        () = job.cancel.cancelled() => {
            // Hanging up is what the sandbox polls for.
            drop(cancelled);
            work.await
        }
    }?;
    Ok(stacked(below, layer))
}

/// One RUN, on a blocking thread.
struct Run {
    op: Exec,
    layers: Arc<[DiffId]>,
    view: View,
    lowers: Arc<Lowers>,
    mounts: Wanted,
    subject: Subject,
    events: Events,
    shm_size_bytes: u64,
    kill: OwnedFd,
}

impl Run {
    fn to_layer(&self) -> Result<DiffId, OpError> {
        let settings = self.settings()?;
        let holding = self.mounts.hold(&self.step())?;
        let upper = self.described(Upper::tmpfs(memory_budget_bytes())?)?;
        if !upper.keeps_user_attributes()? {
            return self.on_disk(&settings, &holding);
        }
        let exit = self.run(&settings, &upper, &holding)?;
        if exit.code != 0 && upper.is_full()? {
            drop(upper);
            self.events
                .warn("a RUN used up the memory meant for its changes; it is run again on disk");
            return self.on_disk(&settings, &holding);
        }
        self.pack(&exit, &upper)
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

    fn on_disk(&self, settings: &Settings, holding: &Holding) -> Result<DiffId, OpError> {
        let scratch = self.lowers.scratch_dir()?;
        let upper = self.described(Upper::directory(scratch.as_fd())?)?;
        let exit = self.run(settings, &upper, holding)?;
        self.pack(&exit, &upper)
    }

    /// Makes the container's `/` look like the image's.
    fn described(&self, upper: Upper) -> Result<Upper, OpError> {
        if let Some(root) = self.view.lookup(&TreePath::root()) {
            upper.describe_root(root.meta)?;
        }
        Ok(upper)
    }

    fn pack(&self, exit: &Exit, upper: &Upper) -> Result<DiffId, OpError> {
        if exit.code != 0 {
            return Err(OpError::Exit {
                command: self.op.args.join(" "),
                outcome: outcome(exit),
                code: exit.code,
                foreign: foreign(&self.op.platform, exit),
            });
        }
        let store = self.lowers.store();
        let layer = store.layers().write(store.incomplete(), |writer| {
            let is_below = |path: &TreePath| self.view.lookup(path).is_some();
            let options = PackOptions {
                marks: unpacked::marks(),
                ..PackOptions::default()
            };
            Ok::<_, OpError>(cache::layer::pack(upper.dir(), writer, &options, &is_below)?)
        })?;
        Ok(layer.diff_id())
    }

    fn settings(&self) -> Result<Settings, OpError> {
        let op = &self.op;
        let credentials = owner::credentials(&op.user, &self.view)?;
        let net = self.lowers.network(op.network, &self.events);
        let env = op.env.iter().chain(&op.env_unkeyed).cloned().collect();
        Ok(Settings {
            args: op.args.clone(),
            env,
            cwd: op.cwd.clone(),
            uid: credentials.uid,
            gid: credentials.gid,
            groups: credentials.groups,
            home: Some(credentials.home),
            hostname: op.hostname.clone(),
            hosts: super::hosts(&op.hostname, &op.extra_hosts),
            resolv_conf: super::resolv_conf()?,
            net,
            scripts: op.scripts.clone(),
            shm_size_bytes: self.shm_size_bytes,
            terminal: None,
        })
    }

    /// Runs the process once, passing its output on.
    fn run(&self, settings: &Settings, upper: &Upper, holding: &Holding) -> Result<Exit, OpError> {
        let attached = self.mounts.attach(holding, &self.step())?;
        let settings = &with_env(settings, &attached.env);
        let lowers = self.lowers.stack(&self.layers)?;
        let lowers: Vec<_> = lowers.iter().map(AsRef::as_ref).collect();
        let helper = self.lowers.helper()?;
        let pipe =
            || pipe_with(PipeFlags::CLOEXEC).map_err(|error| OpError::Scratch { source: error.into() });
        let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
        std::thread::scope(|scope| {
            scope.spawn(move || self.pass_on(out, Stream::Stdout));
            scope.spawn(move || self.pass_on(err, Stream::Stderr));
            let spec = Spec {
                lowers: &lowers,
                upper: Some(upper),
                mounts: &attached.points,
                settings,
            };
            let stdio = Stdio {
                stdin: None,
                stdout: stdout.as_fd(),
                stderr: stderr.as_fd(),
                on_terminal: None,
            };
            let exit = sandbox::run(&helper, &spec, stdio, Cancel::on(self.kill.as_fd()));
            // The readers end when nobody can write any more.
            drop((stdout, stderr));
            match exit {
                Err(SandboxError::Cancelled) => Err(OpError::Cancelled),
                other => Ok(other?),
            }
        })
    }

    fn pass_on(&self, from: OwnedFd, stream: Stream) {
        let mut from = std::fs::File::from(from);
        let mut buffer = vec![0; 64 << 10];
        let mut mask = self.mounts.secrets().mask();
        while let Ok(n_read @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..n_read];
            match mask.is_empty() {
                true => self.events.log(self.subject.clone(), stream, bytes),
                false => self.events.log(self.subject.clone(), stream, &mask.pass(bytes)),
            }
        }
        let rest = mask.finish();
        if !rest.is_empty() {
            self.events.log(self.subject.clone(), stream, &rest);
        }
    }
}

/// Adds what mounts bring: a variable of theirs replaces the step's own.
fn with_env(settings: &Settings, env: &[(String, String)]) -> Settings {
    let mut settings = settings.clone();
    for (name, value) in env {
        settings.env.retain(|(known, _)| known != name);
        settings.env.push((name.clone(), value.clone()));
    }
    settings
}

/// Says how a process ended, in the words that users of other builders search for.
fn outcome(exit: &Exit) -> String {
    let mut text = format!("exit code: {}", exit.code);
    if let Some(signal) = exit.signal {
        text.push_str(&format!(" (killed by signal {signal})"));
    }
    if exit.oom {
        text.push_str(": out of memory");
    }
    if let Some(why) = &exit.why {
        text.push_str(": ");
        text.push_str(why);
    }
    text
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
