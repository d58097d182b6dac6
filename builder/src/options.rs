//! Settles what was typed with the environment into plain options, and refuses what isn't supported.
//!
//! After this room nobody looks at argv or at environment variables for meaning. It reads no file and opens nothing;
//! whether a path exists is found out by whoever uses it. The grammars of single values are in `values`.

mod beside;
mod cache_ns;
mod caches;
mod call;
mod ceiling;
mod limits;
mod runtime;
mod sources;
mod values;

pub(crate) use cache_ns::CacheNs;
pub(crate) use call::{Call, Form, Question};
pub(crate) use sources::{ContextSource, DockerfileSource, NamedSource};
use sources::{git_source, is_http, is_remote, sources};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use frontend::{AllowedDevices, Platform, Until};
use solver::op::Network;

pub(crate) use ceiling::parse as ceiling;
pub(crate) use limits::{ContainerLimits, limits};
pub(crate) use runtime::oci_runtime;
pub(crate) use values::{seconds, size_bytes};

use crate::attest::{Attestations, Detail};
use crate::caches::{CacheFrom, CacheTo};
use crate::cdi;
use crate::cli::{BuildArgs, LegacyArgs, RefusedArgs};
use crate::engine::Wanted;
use crate::export::{Annotations, Output};
use crate::lockfile::{self, LockMode};
use crate::progress::Mode;
use crate::registry::Reference;
use crate::report::{Failure, Kind};
use crate::secrets::SecretOption;
use crate::ssh::SshOption;
use crate::upkeep::Ceiling;

/// The part of the process's surroundings that options depend on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// Environment variables; those that aren't UTF-8 are left out.
    pub(crate) vars: BTreeMap<String, String>,
    /// Whether the program runs as root.
    pub(crate) root: bool,
}

impl Environment {
    /// Returns the surroundings of this process.
    pub(crate) fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            vars: std::env::vars_os().filter_map(text).collect(),
            root: rustix::process::geteuid().is_root(),
        }
    }

    /// Returns a variable that is set and not empty.
    pub(crate) fn var(&self, name: &str) -> Option<&str> {
        self.vars
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// Returns the directory of the store: `--root`, `$ASHLAR_ROOT`, or where the user's data belongs.
pub(crate) fn store_root(flag: Option<&Path>, environment: &Environment) -> Result<PathBuf, Failure> {
    if let Some(root) = flag {
        return absolute(root);
    }
    if let Some(root) = environment.var("ASHLAR_ROOT") {
        return absolute(Path::new(root));
    }
    if environment.root {
        return Ok(PathBuf::from("/var/lib/ashlar"));
    }
    // The base directory specification says that a relative value counts as unset.
    if let Some(data) = environment
        .var("XDG_DATA_HOME")
        .filter(|data| data.starts_with('/'))
    {
        return Ok(Path::new(data).join("ashlar"));
    }
    match environment.var("HOME") {
        Some(home) => Ok(Path::new(home).join(".local/share/ashlar")),
        None => Err(Failure::usage("no place for the store: HOME is not set")
            .with_help("set ASHLAR_ROOT or pass --root DIR")),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("invalid store directory `{}`: {error}", path.display())))
}

/// Instead of an address in `--add-host`: that of the machine, as containers see it.
pub(crate) const HOST_GATEWAY: &str = "host-gateway";

/// What `--allow` grants to RUN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// `network.host`
    pub(crate) host_network: bool,
    /// `security.insecure`
    pub(crate) insecure: bool,
    /// `device`, `device=NAME`
    pub(crate) devices: AllowedDevices,
}

/// Everything that a build is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BuildOptions {
    /// Directory of the store.
    pub(crate) store_root: PathBuf,
    /// The main context.
    pub(crate) context: ContextSource,
    /// The Dockerfile.
    pub(crate) dockerfile: DockerfileSource,
    /// Stage to build; `None`: the last.
    pub(crate) target: Option<String>,
    /// Step to stop after.
    pub(crate) until: Option<Until>,
    /// Build arguments, the last value of each name; with SOURCE_DATE_EPOCH where the environment has it.
    pub(crate) build_args: Vec<(String, String)>,
    /// Named contexts, in order.
    pub(crate) named_contexts: Vec<(String, NamedSource)>,
    /// Labels, the last value of each name.
    pub(crate) labels: Vec<(String, String)>,
    /// Runs every step again.
    pub(crate) no_cache: bool,
    /// Runs every step of these stages again.
    pub(crate) no_cache_filter: Vec<String>,
    /// Names of the result, complete: `docker.io/library/app:1`.
    pub(crate) tags: Vec<String>,
    /// Output specifications, as written; `export` parses them. Empty: the store only.
    pub(crate) outputs: Vec<String>,
    /// Caches to take results from, in order.
    pub(crate) cache_from: Vec<CacheFrom>,
    /// Caches to leave results in.
    pub(crate) cache_to: Vec<CacheTo>,
    /// Pushes the image under its names.
    pub(crate) push: bool,
    /// Loads the image into an engine of this machine.
    pub(crate) load: Option<Wanted>,
    /// With which builds cache mounts are shared.
    pub(crate) cache_ns: CacheNs,
    /// How progress is shown.
    pub(crate) progress: Mode,
    /// File that gets the image ID.
    pub(crate) iidfile: Option<PathBuf>,
    /// File that gets facts about the result, as JSON.
    pub(crate) metadata_file: Option<PathBuf>,
    /// Has these facts tell what could be better in the Dockerfile (BUILDX_METADATA_WARNINGS).
    pub(crate) metadata_warnings: bool,
    /// How much of how the image was built they tell (BUILDX_METADATA_PROVENANCE).
    pub(crate) metadata_provenance: Option<Detail>,
    /// What is said of the image beside it.
    pub(crate) attestations: Attestations,
    /// What the image's manifests and index are marked with.
    pub(crate) annotations: Annotations,
    /// What the image is for, in order, each once; at least one.
    pub(crate) platforms: Vec<Platform>,
    /// Network of RUN where the instruction doesn't say.
    pub(crate) network: Network,
    /// What RUN may ask for besides.
    pub(crate) allowed: Allowed,
    /// The OCI runtime that makes the containers, by name or path.
    pub(crate) oci_runtime: Option<String>,
    /// Where devices are described that RUN may ask for.
    pub(crate) cdi_dirs: Vec<PathBuf>,
    /// Lines for `/etc/hosts`: name to address, or to [`HOST_GATEWAY`].
    pub(crate) extra_hosts: Vec<(String, String)>,
    /// How long the whole build may take.
    pub(crate) timeout: Option<Duration>,
    /// How long each RUN may take.
    pub(crate) step_timeout: Option<Duration>,
    /// Opens a shell in the container of a RUN that failed.
    pub(crate) shell_on_error: bool,
    /// Asks the registry again what base images are.
    pub(crate) pull: bool,
    /// Tells at the end why each step ran.
    pub(crate) explain: bool,
    /// Tells the plan, and follows none of it.
    pub(crate) dry_run: bool,
    /// What is asked instead of a build.
    pub(crate) call: Option<Call>,
    /// What is done with the lock file.
    pub(crate) lock: LockMode,
    /// What containers may use.
    pub(crate) limits: ContainerLimits,
    /// What was said of how much the store may occupy.
    pub(crate) ceiling: Ceiling,
    /// Secrets that RUN may ask for.
    pub(crate) secrets: Vec<SecretOption>,
    /// Agents that RUN may ask for.
    pub(crate) ssh: Vec<SshOption>,
}

impl BuildOptions {
    /// Says whether a build argument that is a switch is on.
    pub(crate) fn flag_arg(&self, name: &str) -> bool {
        let given = self.build_args.iter().rev().find(|(known, _)| known == name);
        given.is_some_and(|(_, value)| matches!(value.as_str(), "1" | "true"))
    }

    /// Says whether even one platform makes an index. Spec: dockerfile.md §8, BUILDKIT_MULTI_PLATFORM.
    pub(crate) fn wants_index(&self) -> bool {
        self.flag_arg("BUILDKIT_MULTI_PLATFORM")
    }

    /// Says whether an output is written to stdout, so that nothing else may be. One that doesn't parse isn't: the
    /// build refuses it.
    pub(crate) fn writes_to_stdout(&self) -> bool {
        self.outputs
            .iter()
            .any(|text| Output::parse(text).is_ok_and(|(output, _)| output.is_stdout()))
    }

    /// Says whether RUN is to reach the machine itself, by a name of its own.
    pub(crate) fn reaches_host(&self) -> bool {
        self.extra_hosts
            .iter()
            .any(|(_, address)| address == HOST_GATEWAY)
    }
}

/// Settles a build. The second value is notes for the user.
pub(crate) fn build(
    args: &BuildArgs,
    root: Option<&Path>,
    environment: &Environment,
) -> Result<(BuildOptions, Vec<String>), Failure> {
    refuse(&args.refused)?;
    let (context, dockerfile) = sources(args)?;
    let allowed = allowed(&args.allow)?;
    let network = network(args, &allowed)?;
    let build_args = build_args(&args.build_arg, environment)?;
    let options = BuildOptions {
        store_root: store_root(root, environment)?,
        context,
        dockerfile,
        target: args.target.clone().filter(|target| !target.is_empty()),
        until: args.until.as_deref().map(values::until).transpose()?,
        cache_to: caches::to(args, &build_args, environment)?,
        build_args,
        named_contexts: args
            .build_context
            .iter()
            .map(|text| values::named_context(text))
            .collect::<Result<_, _>>()?,
        labels: labels(&args.label)?,
        no_cache: args.no_cache.unwrap_or(false),
        no_cache_filter: args.no_cache_filter.clone(),
        tags: tags(&args.tag)?,
        outputs: args.output.clone(),
        cache_from: caches::from(args, environment)?,
        cache_ns: cache_ns::cache_ns(args.cache_ns.as_deref(), environment)?,
        push: args.push.unwrap_or(false),
        load: values::load(args.load.as_deref())?,
        progress: progress(args, environment)?,
        dry_run: args.dry_run,
        explain: args.explain,
        iidfile: args.iidfile.clone(),
        metadata_file: args.metadata_file.clone(),
        metadata_warnings: matches!(environment.var("BUILDX_METADATA_WARNINGS"), Some("1" | "true")),
        metadata_provenance: beside::metadata_provenance(environment)?,
        attestations: beside::attestations(args)?,
        annotations: beside::annotations(&args.annotation)?,
        platforms: platforms(&args.platform, environment)?,
        network,
        allowed,
        oci_runtime: oci_runtime(args.oci_runtime.as_deref(), environment),
        cdi_dirs: match args.cdi_spec_dir.as_slice() {
            [] => cdi::DIRS.map(PathBuf::from).to_vec(),
            dirs => dirs.to_vec(),
        },
        extra_hosts: args
            .add_host
            .iter()
            .map(|text| values::add_host(text))
            .collect::<Result<_, _>>()?,
        timeout: values::timeout(args.timeout.as_deref())?,
        step_timeout: values::timeout(args.step_timeout.as_deref())?,
        shell_on_error: args.on_error.as_deref() == Some("shell"),
        pull: args.pull.unwrap_or(false),
        call: call::parse(args.call.as_deref(), args.check.unwrap_or(false))?,
        lock: lock_mode(args),
        limits: limits(&args.limits)?,
        ceiling: ceiling::parse(&args.ceiling, environment)?,
        secrets: parsed(&args.secret, SecretOption::parse)?,
        ssh: parsed(&args.ssh, SshOption::parse)?,
    };
    if options.lock != LockMode::Off && lockfile::path(&options).is_none() {
        return Err(Failure::usage("--lock and --locked need a Dockerfile in a file")
            .with_help("the lock file is beside the Dockerfile, so that one can't come from stdin"));
    }
    Ok((options, legacy_notes(&args.legacy)))
}

fn lock_mode(args: &BuildArgs) -> LockMode {
    match (args.lock, args.locked) {
        (true, _) => LockMode::Write,
        (_, true) => LockMode::Locked,
        _ => LockMode::Off,
    }
}

fn parsed<T, E: std::error::Error + 'static>(
    given: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Failure> {
    let parsed = given.iter().map(|text| parse(text));
    parsed
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::of(Kind::Usage, &error))
}

/// Returns the failure for what exists elsewhere and not here, yet.
fn not_yet(what: &str) -> Failure {
    Failure::usage(format!("{what} isn't supported yet"))
}

fn refuse(args: &RefusedArgs) -> Result<(), Failure> {
    let given = [
        ("--builder", args.builder.is_some()),
        ("--debug", args.debug == Some(true)),
        ("--policy", !args.policy.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(not_yet(&format!("`{flag}`"))),
        None => Ok(()),
    }
}

fn legacy_notes(args: &LegacyArgs) -> Vec<String> {
    let given = [
        ("--compress", args.compress == Some(true)),
        ("--force-rm", args.force_rm == Some(true)),
        ("--isolation", args.isolation.is_some()),
        ("--rm", args.rm == Some(true)),
        ("--security-opt", !args.security_opt.is_empty()),
        ("--squash", args.squash == Some(true)),
    ];
    let note = |(flag, _): &(&str, bool)| format!("{flag} is accepted for old scripts and has no effect");
    given.iter().filter(|(_, given)| *given).map(note).collect()
}

/// Puts a pair into a list that keeps the first place and the last value of each name.
fn set(list: &mut Vec<(String, String)>, name: &str, value: &str) {
    match list.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => value.clone_into(known),
        None => list.push((name.to_owned(), value.to_owned())),
    }
}

fn build_args(given: &[String], environment: &Environment) -> Result<Vec<(String, String)>, Failure> {
    let mut settled = Vec::new();
    for text in given {
        match text.split_once('=') {
            Some(("", _)) => {
                return Err(Failure::usage(format!(
                    "invalid --build-arg `{text}`: the name is empty"
                )));
            }
            Some((name, value)) => set(&mut settled, name, value),
            // Without a value and not in the environment it counts as not given, as with docker.
            None => {
                if let Some(value) = environment.vars.get(text) {
                    set(&mut settled, text, value);
                }
            }
        }
    }
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    if let Some(epoch) = environment.var(EPOCH)
        && !settled.iter().any(|(name, _)| name == EPOCH)
    {
        set(&mut settled, EPOCH, epoch);
    }
    Ok(settled)
}

fn labels(given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut settled = Vec::new();
    for text in given {
        match text.split_once('=').unwrap_or((text, "")) {
            ("", _) => {
                return Err(Failure::usage(format!(
                    "invalid --label `{text}`: the name is empty"
                )));
            }
            (name, value) => set(&mut settled, name, value),
        }
    }
    Ok(settled)
}

fn tags(given: &[String]) -> Result<Vec<String>, Failure> {
    let mut settled = Vec::new();
    for text in given {
        let name = tag_name(text)?;
        if !settled.contains(&name) {
            settled.push(name);
        }
    }
    Ok(settled)
}

/// Completes a name that an image is to have: `app` becomes `docker.io/library/app:latest`. Digests name content and
/// can't be given.
pub(crate) fn tag_name(text: &str) -> Result<String, Failure> {
    let invalid = |why: &dyn std::fmt::Display| Failure::usage(format!("invalid image name `{text}`: {why}"));
    let reference = Reference::parse(text).map_err(|error| invalid(&error))?;
    match (reference.tag(), reference.digest()) {
        (Some(tag), None) => Ok(format!("{}:{tag}", reference.repository())),
        _ => Err(invalid(&"a name that is given can't have a digest")),
    }
}

fn progress(args: &BuildArgs, environment: &Environment) -> Result<Mode, Failure> {
    let typed = args.progress.as_deref();
    let mode = typed
        .or_else(|| environment.var("BUILDKIT_PROGRESS"))
        .unwrap_or("auto");
    let mode: Mode = mode.parse().map_err(|error| Failure::of(Kind::Usage, &error))?;
    match args.quiet.unwrap_or(false) {
        true if matches!(typed, None | Some("quiet" | "auto" | "none")) => Ok(Mode::Quiet),
        true => Err(Failure::usage(format!(
            "--quiet and --progress={} exclude each other",
            typed.unwrap_or_default()
        ))),
        false => Ok(mode),
    }
}

/// Reads `--allow`: what isn't known is an error, never nothing.
fn allowed(given: &[String]) -> Result<Allowed, Failure> {
    let mut allowed = Allowed::default();
    for entitlement in given {
        match entitlement.split_once('=').unwrap_or((entitlement, "")) {
            ("network.host", "") => allowed.host_network = true,
            ("security.insecure", "") => allowed.insecure = true,
            ("device", "") if !entitlement.contains('=') => allowed.devices = AllowedDevices::All,
            ("device", name) if !name.is_empty() => match &mut allowed.devices {
                AllowedDevices::All => {}
                AllowedDevices::Named(names) => {
                    names.insert(name.to_owned());
                }
                none @ AllowedDevices::None => {
                    *none = AllowedDevices::Named([name.to_owned()].into());
                }
            },
            _ => {
                return Err(Failure::usage(format!("unknown entitlement `{entitlement}`"))
                    .with_help("one of network.host, security.insecure, device, device=NAME"));
            }
        }
    }
    Ok(allowed)
}

fn network(args: &BuildArgs, allowed: &Allowed) -> Result<Network, Failure> {
    match args.network.as_deref() {
        None | Some("" | "default") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") if allowed.host_network => Ok(Network::Host),
        Some("host") => Err(Failure::usage("--network host needs an entitlement")
            .with_help("add --allow network.host to give RUN the machine's own network")),
        Some(other) => {
            Err(Failure::usage(format!("unknown network mode `{other}`"))
                .with_help("one of default, none, host"))
        }
    }
}

/// Returns the machine's own platform.
pub(crate) fn host_platform() -> Platform {
    Platform::new("linux", std::env::consts::ARCH, None)
}

/// Settles the platform of a command that knows only one: what was typed, $DOCKER_DEFAULT_PLATFORM, else this machine's.
pub(crate) fn one_platform(given: Option<&str>, environment: &Environment) -> Result<Platform, Failure> {
    let given: Vec<String> = given.into_iter().map(ToOwned::to_owned).collect();
    match platforms(&given, environment)?.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Failure::usage("only one platform can be named here")),
    }
}

fn platforms(given: &[String], environment: &Environment) -> Result<Vec<Platform>, Failure> {
    let wanted: Vec<&str> = match given {
        [] => environment.var("DOCKER_DEFAULT_PLATFORM").into_iter().collect(),
        given => given
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .collect(),
    };
    let host = host_platform();
    let mut platforms = Vec::new();
    for text in wanted {
        let platform = match text {
            "local" => host.clone(),
            text => Platform::parse(text, &host).map_err(|error| Failure::of(Kind::Usage, &error))?,
        };
        if platform.os != "linux" {
            return Err(Failure::usage(format!("cannot build for {platform}"))
                .with_help("only images for linux can be built"));
        }
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.is_empty() {
        platforms.push(host);
    }
    Ok(platforms)
}

#[cfg(test)]
#[path = "options/tests.rs"]
mod tests;
