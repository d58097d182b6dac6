//! Where control groups can be made: which hierarchy has which controller, and where in it this process is.
//!
//! Reads what the kernel says and decides; makes nothing but one change: version 2 hands controllers on only when told so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use super::read_below;
use super::settings::Setting;

/// A directory in which groups are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) is_v2: bool,
}

/// The hierarchies that are mounted where this process sees them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// Version 1, by controller.
    v1: BTreeMap<String, Mounted>,
    v2: Option<Mounted>,
}

/// A hierarchy: where it is mounted, and the group of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    mount: PathBuf,
    own: PathBuf,
}

impl Hierarchies {
    /// Reads what the kernel says of this process; nothing where it says nothing.
    pub(super) fn of_process() -> Self {
        let read = |path| read_below(Path::new("/proc/self"), path).unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::parse(&mounts, &read("cgroup"))
    }

    /// Spec: proc_pid_mountinfo(5), cgroups(7).
    pub(super) fn parse(mounts: &str, memberships: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let ([_, _, _, root, mount, ..], [kind, _, options, ..]) = (&before[..], &after[..]) else {
                continue;
            };
            let own = |wanted: &str| {
                let path = membership(memberships, wanted)?;
                // What lies above the mount's root can't be reached through it.
                let below = path.strip_prefix(root.trim_end_matches('/'))?;
                let mount = PathBuf::from(mount);
                let own = mount.join(below.trim_start_matches('/'));
                plain(&own).then_some(Mounted { mount, own })
            };
            match *kind {
                "cgroup2" if found.v2.is_none() => found.v2 = own(""),
                "cgroup" => {
                    for controller in options.split(',') {
                        if let (false, Some(mounted)) = (found.v1.contains_key(controller), own(controller)) {
                            found.v1.insert(controller.to_owned(), mounted);
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Returns where groups with these settings are made. What can't be had is told.
    pub(super) fn places(
        &self,
        wanted: &[Setting],
        parent: Option<&str>,
        warnings: &mut Vec<String>,
    ) -> BTreeMap<Place, Vec<Setting>> {
        let mut places: BTreeMap<Place, Vec<Setting>> = BTreeMap::new();
        for setting in wanted {
            let controller = setting.controller;
            let found = match (self.v1.get(controller), &self.v2) {
                (Some(mounted), _) => Ok(Place {
                    dir: mounted.parent(parent),
                    is_v2: false,
                }),
                (None, Some(mounted)) => v2_place(mounted, controller, parent),
                (None, None) => Err(format!(
                    "this machine offers no control group with the {controller} controller"
                )),
            };
            match found {
                Ok(place) => places.entry(place).or_default().push(setting.clone()),
                Err(reason) => warnings.push(format!("{} has no effect: {reason}", setting.option)),
            }
        }
        places
    }
}

impl Mounted {
    /// Returns the group below which others are made: an absolute parent counts from the hierarchy's root.
    fn parent(&self, parent: Option<&str>) -> PathBuf {
        match parent {
            None => self.own.clone(),
            Some(parent) => match parent.strip_prefix('/') {
                Some(below) => self.mount.join(below),
                None => self.own.join(parent),
            },
        }
    }
}

/// Finds a group of version 2 that hands the controller on. A group that has processes doesn't, but for the root; then
/// it is done beside it, unless that would lead around a limit which holds for this process.
fn v2_place(mounted: &Mounted, controller: &str, parent: Option<&str>) -> std::result::Result<Place, String> {
    let own = mounted.parent(parent);
    let beside = own
        .parent()
        .filter(|_| parent.is_none() && own != mounted.mount && is_unlimited(&own));
    for dir in [Some(own.as_path()), beside].into_iter().flatten() {
        if hands_on(dir, controller) {
            return Ok(Place {
                dir: dir.to_owned(),
                is_v2: true,
            });
        }
    }
    Err(format!(
        "the {controller} controller isn't delegated to {} (systemd-run --scope -p Delegate=yes ashlar … delegates it)",
        own.display()
    ))
}

/// Says whether groups below get the controller, and has it so if it can be.
fn hands_on(dir: &Path, controller: &str) -> bool {
    const FILE: &str = "cgroup.subtree_control";
    let has =
        || read_below(dir, FILE).is_ok_and(|text| text.split_whitespace().any(|known| known == controller));
    has() || {
        // Refused where processes are in the group itself.
        let _refused = File::options()
            .write(true)
            .open(dir.join(FILE))
            .and_then(|mut file| file.write_all(format!("+{controller}").as_bytes()));
        has()
    }
}

fn is_unlimited(dir: &Path) -> bool {
    ["memory.max", "pids.max", "cpu.max", "memory.high"]
        .iter()
        .all(|file| read_below(dir, file).map_or(true, |text| text.starts_with("max")))
}

/// Returns the path of this process in the hierarchy of a controller; of version 2 for the empty name.
fn membership<'a>(memberships: &'a str, controller: &str) -> Option<&'a str> {
    memberships.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_wanted = match controller {
            "" => number == "0" && controllers.is_empty(),
            controller => controllers.split(',').any(|known| known == controller),
        };
        is_wanted.then_some(path)
    })
}

/// Says whether a path has no `..`, which a process that was moved out of its cgroup namespace sees.
fn plain(path: &Path) -> bool {
    path.components()
        .all(|component| matches!(component, Component::RootDir | Component::Normal(_)))
}
