//! `ashlar run`, the doing: a container on an image's layers, in the foreground.
//!
//! What runs is settled in `run`. Changes go to scratch space on disk, because nobody knows how much a person will try
//! out, and are forgotten, unless `--commit` makes an image of them.

use std::os::fd::AsFd;
use std::sync::Arc;

use cache::tree::View;
use cache::{DiffId, Store};
use serde_json::{Value, json};
use solver::op::Network;

use super::foreground::Foreground;
use super::run::{self, Process};
use super::terminal::Terminal;
use crate::cli::RunArgs;
use crate::clock;
use crate::image::{self, StoredImage};
use crate::ops::{self, Bounds, Lowers};
use crate::options::{self, ContainerLimits, Environment, tag_name};
use crate::report::{self, Failure, Kind};
use crate::runtime;
use crate::sandbox::{
    self, Cancel, Exit, NetworkWants, Networks, SandboxError, Settings, Spec, Stdio, Upper,
};
use crate::upkeep::{self, Told};

/// Runs a container in the foreground and returns the exit code of its command.
pub(crate) fn run(args: &RunArgs, store: Store, environment: &Environment) -> Result<u8, Failure> {
    let store = Arc::new(store);
    let image = image::find_to_use(&store, args.image())?;
    let process = run::process(args, &image, environment)?;
    let terminal = args
        .tty
        .then(|| Terminal::of_stdin(args.interactive))
        .transpose()?;
    let commit = args.commit.as_deref().map(tag_name).transpose()?;
    let layers = image.layers()?;
    let opened: Result<Vec<_>, _> = layers.iter().map(|layer| store.layers().get(layer)).collect();
    let view = View::of_layers(opened.map_err(|error| machine(&error))?).map_err(|error| machine(&error))?;
    let network = process.network;
    let limits = options::limits(&args.limits)?;
    let oci_runtime = options::oci_runtime(args.oci_runtime.as_deref(), environment);
    let settings = settings(process, &view, terminal.as_ref())?;
    let is_to_stay = commit.is_some();
    let container = Container {
        changes: Changes {
            store: Arc::clone(&store),
            image,
            layers,
            view,
            settings,
            network,
            limits,
            oci_runtime,
            commit,
        },
        terminal,
        interactive: args.interactive,
    };
    let exit = runtime::run(container.run())?;
    if is_to_stay {
        upkeep::after_arrival(&store, environment, Told::All);
    }
    exit.why
        .iter()
        .chain(&exit.limit)
        .for_each(|why| report::note(why));
    Ok(u8::try_from(exit.code).unwrap_or(u8::MAX))
}

fn machine(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::of(Kind::Machine, error)
}

fn settings(process: Process, view: &View, terminal: Option<&Terminal>) -> Result<Settings, Failure> {
    let user = ops::credentials(&process.user, view).map_err(|error| Failure::of(Kind::Build, &error))?;
    Ok(Settings {
        args: process.args,
        env: process.env,
        cwd: process.cwd,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        home: Some(user.home),
        hostname: process.hostname,
        terminal: terminal.map(Terminal::size),
        ..Settings::default()
    })
}

/// A container that is about to run.
struct Container {
    changes: Changes,
    terminal: Option<Terminal>,
    interactive: bool,
}

impl Container {
    /// Runs it, and keeps what is to be kept.
    async fn run(self) -> Result<Exit, Failure> {
        let foreground = Foreground {
            terminal: self.terminal,
            interactive: self.interactive,
        };
        let changes = self.changes;
        foreground
            .run(move |stdio, cancel| changes.make(stdio, cancel))
            .await
    }
}

/// What a container runs on, and what becomes of it.
struct Changes {
    store: Arc<Store>,
    image: StoredImage,
    layers: Vec<DiffId>,
    view: View,
    settings: Settings,
    network: Network,
    limits: ContainerLimits,
    oci_runtime: Option<String>,
    /// Name of the image that keeps the changes.
    commit: Option<String>,
}

impl Changes {
    /// Blocks until the container has ended, and its changes are kept.
    fn make(mut self, stdio: Stdio<'_>, cancel: Cancel<'_>) -> Result<Exit, Failure> {
        let lowers = Lowers::new(Arc::clone(&self.store)).by(self.oci_runtime.clone());
        let stack = lowers.stack(&self.layers).map_err(|error| machine(&error))?;
        let stack: Vec<_> = stack.iter().map(AsRef::as_ref).collect();
        let helper = lowers.helper().map_err(|error| machine(&error))?;
        let networks = Networks::new(NetworkWants {
            host: false,
            resolver: ops::resolves_on_loopback().map_err(|error| machine(&error))?,
        });
        // Of a cancelled one the signal is what is reported.
        let failed = |error| match error {
            SandboxError::Cancelled => Failure::cancelled(libc::SIGINT),
            other => machine(&other),
        };
        let network = networks.take(self.network, &helper, cancel).map_err(failed)?;
        network.warning.iter().for_each(|warning| report::warn(warning));
        let bounds = Bounds::new(self.limits.clone(), report::warn);
        bounds.apply(&mut self.settings);
        let cgroup = bounds.cgroup(report::warn).map_err(|error| machine(&error))?;
        ops::name_network(&mut self.settings, &network, &[]).map_err(|error| machine(&error))?;
        let scratch = lowers.scratch_dir().map_err(|error| machine(&error))?;
        let upper = Upper::directory(scratch.as_fd()).map_err(|error| machine(&error))?;
        ops::describe(&upper, &self.view).map_err(|error| machine(&error))?;
        let spec = Spec {
            lowers: &stack,
            upper: Some(&upper),
            mounts: &[],
            network: network.namespace(),
            cgroup: Some(&cgroup),
            settings: &self.settings,
        };
        let exit = sandbox::run(&helper, &spec, stdio, cancel).map_err(failed)?;
        if let Some(name) = &self.commit {
            self.keep(name, &upper)?;
        }
        Ok(exit)
    }

    /// Makes an image of the changes, with the settings of the one that it stands on.
    fn keep(&self, name: &str, upper: &Upper) -> Result<(), Failure> {
        let layer = ops::pack_changes(&self.store, &self.view, upper).map_err(|error| machine(&error))?;
        let mut config = self.image.config.clone();
        let now = clock::rfc3339(clock::now_unix());
        let entry = json!({
            "created": now,
            "created_by": self.settings.args.join(" "),
            "comment": "ashlar run --commit",
        });
        let lists = [
            ("/rootfs/diff_ids", json!(layer.to_string())),
            ("/history", entry),
        ];
        config["created"] = json!(now);
        for (place, value) in lists {
            match config.pointer_mut(place) {
                Some(Value::Array(list)) => list.push(value),
                _ if place == "/history" => config["history"] = json!([value]),
                _ => {
                    return Err(Failure::machine(format!(
                        "the config of image {} has no layers",
                        self.image.id
                    )));
                }
            }
        }
        let config = serde_json::to_vec(&config).expect("because a JSON value has only strings as keys");
        let names = [name.to_owned()];
        let id = image::commit(&self.store, &config, None, &[], &names).map_err(|error| machine(&error))?;
        report::note(&format!("{} is {id}", image::familiar(name)));
        Ok(())
    }
}
