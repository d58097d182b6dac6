//! `ashlar run`, the doing: a container on an image's layers, connected to this process's streams or terminal.
//!
//! What runs is settled in `run`. Changes go to scratch space on disk, because nobody knows how much a person will try
//! out, and are forgotten. A signal to this process kills the container; keys typed at a terminal reach the container
//! as keys.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use cache::tree::View;
use cache::{DiffId, Store};
use rustix::pipe::{PipeFlags, pipe_with};
use solver::op::Network;
use tokio::signal::unix::{SignalKind, signal};

use super::run::{self, Process};
use super::terminal::Terminal;
use crate::cli::RunArgs;
use crate::image;
use crate::ops::{self, Lowers};
use crate::options::Environment;
use crate::report::{self, Failure, Kind};
use crate::runtime::{self, blocking};
use crate::sandbox::{self, Cancel, Exit, SandboxError, Settings, Spec, Stdio, Upper};

/// Runs a container in the foreground and returns the exit code of its command.
pub(crate) fn run(args: &RunArgs, store: Store, environment: &Environment) -> Result<u8, Failure> {
    let store = Arc::new(store);
    let image = image::find(&store, &args.image)?;
    let process = run::process(args, &image, environment)?;
    let terminal = args
        .tty
        .then(|| Terminal::of_stdin(args.interactive))
        .transpose()?;
    let layers = image.layers()?;
    let settings = settings(&store, process, &layers, terminal.as_ref())?;
    let container = Container {
        store,
        layers,
        settings,
        terminal,
        interactive: args.interactive,
    };
    let exit = runtime::run(container.until_signal())?;
    if let Some(why) = &exit.why {
        report::note(why);
    }
    Ok(u8::try_from(exit.code).unwrap_or(u8::MAX))
}

fn machine(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::of(Kind::Machine, error)
}

fn settings(
    store: &Store,
    process: Process,
    layers: &[DiffId],
    terminal: Option<&Terminal>,
) -> Result<Settings, Failure> {
    let opened: Result<Vec<_>, _> = layers.iter().map(|layer| store.layers().get(layer)).collect();
    let view = View::of_layers(opened.map_err(|error| machine(&error))?).map_err(|error| machine(&error))?;
    let user = ops::credentials(&process.user, &view).map_err(|error| Failure::of(Kind::Build, &error))?;
    let network = sandbox::choose(process.network);
    if network.warning.is_some() && process.network == Network::Default {
        report::warn("the container uses the host's network: isolated networks are not available");
    }
    Ok(Settings {
        hosts: ops::hosts(&process.hostname, &[]),
        resolv_conf: ops::resolv_conf().map_err(|error| machine(&error))?,
        args: process.args,
        env: process.env,
        cwd: process.cwd,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        home: Some(user.home),
        hostname: process.hostname,
        net: network.net,
        scripts: Default::default(),
        shm_size_bytes: sandbox::DEFAULT_SHM_BYTES,
        terminal: terminal.map(Terminal::size),
    })
}

/// A container that is about to run.
struct Container {
    store: Arc<Store>,
    layers: Vec<DiffId>,
    settings: Settings,
    terminal: Option<Terminal>,
    interactive: bool,
}

impl Container {
    /// Runs it on a thread of its own, kills it when a signal asks to, and passes changes of the window on.
    async fn until_signal(self) -> Result<Exit, Failure> {
        let watch = |kind| {
            signal(kind).map_err(|error| Failure::machine(format!("cannot watch for signals: {error}")))
        };
        let mut interrupt = watch(SignalKind::interrupt())?;
        let mut terminate = watch(SignalKind::terminate())?;
        let mut window = watch(SignalKind::window_change())?;
        let (kill, alive) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| machine(&io::Error::from(error)))?;
        let master = Arc::new(OnceLock::new());
        let work = {
            let master = Arc::clone(&master);
            blocking(move || self.run(&kill, &master))
        };
        tokio::pin!(work);
        let mut alive = Some(alive);
        let mut received = None;
        loop {
            let number = tokio::select! {
                result = &mut work => {
                    return match received {
                        Some(number) => Err(Failure::cancelled(number)),
                        None => result,
                    };
                }
                _ = interrupt.recv() => libc::SIGINT,
                _ = terminate.recv() => libc::SIGTERM,
                _ = window.recv() => {
                    if let Some(master) = master.get() {
                        Terminal::pass_size_on(master);
                    }
                    continue;
                }
            };
            // Hanging up is what the sandbox polls for.
            drop(alive.take());
            received = Some(number);
        }
    }

    /// Blocks until the container has ended.
    fn run(self, kill: &OwnedFd, master: &Arc<OnceLock<OwnedFd>>) -> Result<Exit, Failure> {
        let lowers = Lowers::new(Arc::clone(&self.store));
        let stack = lowers.stack(&self.layers).map_err(|error| machine(&error))?;
        let stack: Vec<_> = stack.iter().map(AsRef::as_ref).collect();
        let helper = lowers.helper().map_err(|error| machine(&error))?;
        let scratch = lowers.scratch_dir().map_err(|error| machine(&error))?;
        let upper = Upper::directory(scratch.as_fd()).map_err(|error| machine(&error))?;
        let (stdin, stdout, stderr) = (io::stdin(), report::stdout(), report::stderr());
        let raw = self.terminal.map(Terminal::connect).transpose()?;
        let spec = Spec {
            lowers: &stack,
            upper: Some(&upper),
            mounts: &[],
            settings: &self.settings,
        };
        let stdio = Stdio {
            stdin: self.interactive.then(|| stdin.as_fd()),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
            on_terminal: raw.as_ref().map(|raw| {
                let give = |fd| raw.serve(fd, master);
                Box::new(give) as Box<dyn FnOnce(OwnedFd) + Send + '_>
            }),
        };
        let exit = sandbox::run(&helper, &spec, stdio, Cancel::on(kill.as_fd()));
        if let Some(raw) = raw {
            raw.finish();
        }
        match exit {
            // The signal is what is reported.
            Err(SandboxError::Cancelled) => Err(Failure::cancelled(libc::SIGINT)),
            Err(error) => Err(machine(&error)),
            Ok(exit) => Ok(exit),
        }
    }
}
