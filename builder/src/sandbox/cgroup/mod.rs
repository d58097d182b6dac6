//! Control groups: made for a container when limits were asked for, gone after it.
//!
//! Each is made below the group that this process is in, so that limits that hold for the build hold for its containers
//! too; or below `--cgroup-parent`. The container's first process moves itself, through descriptors of `cgroup.procs`,
//! before it does anything else. A group is locked by whoever made it: what a killed build left is found unlocked, and
//! removed by the next one that makes any. Where no group can be made, containers run without limits, and that is said.
//!
//! Both versions of the interface are supported (`hierarchy` finds where the controllers are, `settings` what is written
//! where). Nothing is made, and nothing looked at, for containers without limits. Not here: device lists (every mount
//! that could hold device nodes is `nodev`), and groups that containers could see.

mod hierarchy;
mod settings;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use hierarchy::{Hierarchies, Place};
use settings::Setting;

use super::error::{Result, SandboxError, Step as _};
use super::limits::Limits;
use super::spec::Exit;

/// Begins the name of every group of ours.
const PREFIX: &str = "ashlar-run-";
/// Files of a group are short.
const FILE_LIMIT_BYTES: u64 = 64 << 10;
/// How often a group is tried to be removed, and how long is waited in between.
const REMOVAL_TRIES: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(1);

/// The groups of one container; removed when this value goes.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    groups: Vec<Group>,
    limits: Limits,
}

/// One directory of one hierarchy.
#[derive(Debug)]
struct Group {
    path: PathBuf,
    /// Locked for as long as this process lives.
    dir: OwnedFd,
    procs: OwnedFd,
    is_v2: bool,
}

impl Cgroup {
    /// Makes groups with these limits. The second value is what the user must hear: limits that can't be had here.
    pub(crate) fn make(limits: &Limits, parent: Option<&str>) -> Result<(Self, Vec<String>)> {
        if limits.is_none() {
            return Ok((Self::default(), Vec::new()));
        }
        let hierarchies = Hierarchies::of_process();
        let (mut groups, mut warnings) = (Vec::new(), Vec::new());
        for (place, settings) in hierarchies.places(&settings::wanted(limits), parent, &mut warnings) {
            sweep(&place.dir);
            match Group::make(&place) {
                Ok(group) => {
                    group.configure(&place, &settings, &mut warnings)?;
                    groups.push(group);
                }
                Err(error) => {
                    let names: Vec<&str> = settings.iter().map(|setting| setting.option).collect();
                    warnings.push(format!(
                        "{} has no effect: no control group can be made in {}: {error}",
                        names.join(", "),
                        place.dir.display()
                    ));
                }
            }
        }
        let limits = limits.clone();
        Ok((Self { groups, limits }, warnings))
    }

    /// Returns where a process writes `0` to become a member.
    pub(super) fn doors(&self) -> Vec<BorrowedFd<'_>> {
        self.groups.iter().map(|group| group.procs.as_fd()).collect()
    }

    /// Says in which group, of which version, its own are made; `None` where there are none.
    pub(crate) fn place(&self) -> Option<String> {
        let group = self.groups.first()?;
        let version = if group.is_v2 { "v2" } else { "v1" };
        Some(format!("{} ({version})", group.path.parent()?.display()))
    }

    /// Returns where its directories are.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|group| group.path.clone()).collect()
    }

    /// Says of a container that ended whether that was for a limit.
    pub(super) fn explain(&self, exit: &mut Exit) {
        if exit.code == 0 || self.groups.is_empty() {
            return;
        }
        // With a group of its own there is no need to guess.
        if let Some(bytes) = self.limits.memory_bytes
            && let Some(n_kills) = self.count(&["memory.events", "memory.oom_control"], "oom_kill")
        {
            exit.oom = n_kills > 0;
            if exit.oom {
                exit.limit = Some(format!("out of memory: the limit is {}", human(bytes)));
            }
        }
        if let Some(n_pids) = self.limits.n_pids
            && exit.limit.is_none()
            && self.count(&["pids.events"], "max").is_some_and(|n| n > 0)
        {
            exit.limit = Some(format!("out of processes: the limit is {n_pids}"));
        }
    }

    /// Reads a counter of the first of these files that there is.
    fn count(&self, files: &[&str], name: &str) -> Option<u64> {
        let text = self
            .groups
            .iter()
            .find_map(|group| files.iter().find_map(|file| group.read(file).ok()))?;
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(' ')?;
            (key == name).then(|| value.trim().parse().ok())?
        })
    }
}

impl Group {
    fn make(place: &Place) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let parent = open_dir(CWD, &place.dir).step("open it")?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PREFIX}{}-{number}", rustix::process::getpid().as_raw_nonzero());
            match rustix::fs::mkdirat(&parent, name.as_str(), Mode::from_raw_mode(0o755)) {
                // A killed build's, whose process had our number.
                Err(Errno::EXIST) => continue,
                other => other.step("make a directory")?,
            }
            let path = place.dir.join(&name);
            let Ok(dir) = open_dir(parent.as_fd(), Path::new(&name)) else {
                continue;
            };
            rustix::fs::flock(&dir, FlockOperation::LockShared).step("lock it")?;
            // Somebody may have swept it away before it was locked.
            if rustix::fs::statat(&parent, name.as_str(), AtFlags::empty()).is_err() {
                continue;
            }
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let procs = rustix::fs::openat(&dir, "cgroup.procs", flags, Mode::empty());
            return match procs {
                Ok(procs) => Ok(Self {
                    path,
                    dir,
                    procs,
                    is_v2: place.is_v2,
                }),
                Err(error) => {
                    let _stays = rustix::fs::unlinkat(&parent, name.as_str(), AtFlags::REMOVEDIR);
                    Err(error).step("open its list of processes")
                }
            };
        }
    }

    fn configure(&self, place: &Place, settings: &[Setting], warnings: &mut Vec<String>) -> Result<()> {
        for setting in settings {
            let (file, value) = match place.is_v2 {
                true => (setting.v2.0, setting.v2.1.as_str()),
                false => (setting.v1.0, setting.v1.1.as_str()),
            };
            if file.is_empty() {
                continue;
            }
            let value = match value {
                // A version 1 cpuset is of no use before both of its lists are set.
                settings::INHERIT => read_below(&place.dir, file).unwrap_or_default(),
                value => value.to_owned(),
            };
            match self.write(file, value.trim()) {
                Ok(()) => {}
                Err(Errno::NOENT) => {
                    warnings.push(format!(
                        "{} has no effect: this kernel has no {file}",
                        setting.option
                    ));
                }
                Err(errno) => {
                    return Err(SandboxError::Limit {
                        option: setting.option,
                        file: self.path.join(file),
                        value,
                        source: errno.into(),
                    });
                }
            }
        }
        Ok(())
    }

    fn write(&self, file: &str, value: &str) -> std::result::Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, file, flags, Mode::empty())?;
        // In one write: the kernel takes each as a whole.
        File::from(file)
            .write_all(value.as_bytes())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn read(&self, file: &str) -> std::io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        contents(rustix::fs::openat(&self.dir, file, flags, Mode::empty())?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Every process of the container is gone; but the kernel may count one for a moment after it was waited for. What
        // stays nevertheless the next build sweeps.
        for _ in 0..REMOVAL_TRIES {
            match rustix::fs::unlinkat(CWD, &self.path, AtFlags::REMOVEDIR) {
                Err(Errno::BUSY) => std::thread::sleep(REMOVAL_PAUSE),
                _ => return,
            }
        }
    }
}

/// Removes what killed builds left here.
fn sweep(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let path = dir.join(&name);
        if !name.starts_with(PREFIX) {
            continue;
        }
        let Ok(left) = open_dir(CWD, &path) else { continue };
        if rustix::fs::flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // It may still have dying processes; then a later build does this.
            let _stays = rustix::fs::unlinkat(CWD, &path, AtFlags::REMOVEDIR);
        }
    }
}

fn open_dir(at: BorrowedFd<'_>, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

fn read_below(dir: &Path, file: &str) -> std::io::Result<String> {
    contents(File::open(dir.join(file))?.into())
}

fn contents(file: OwnedFd) -> std::io::Result<String> {
    let mut text = String::new();
    File::from(file)
        .take(FILE_LIMIT_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a size for people, in the largest unit that it is a whole number of.
fn human(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    units
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{bytes} bytes"),
            |(unit, shift)| format!("{} {unit}", bytes >> shift),
        )
}
