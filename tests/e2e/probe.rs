//! What a process of a container is and may do, fact for fact, in every way that containers are made.
//!
//! `testdata/probe/probe.c` is process 1 of a RUN and prints facts; `probe.golden` says what they must be, and where one
//! way differs from another. The builder is started by `start.c`, with everything that must not reach a container.
//! Spec: hardening.md §D; its checks 4 and 5. hardening T09, and hardening T13's three answers of system calls.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::rootless::{Ids, Place, ok, usable_with};
use crate::{probe_table::Table, rootfs};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/probe");
const PROGRAMS: [(&str, &str); 2] = [
    ("probe", include_str!("../../testdata/probe/probe.c")),
    ("start", include_str!("../../testdata/probe/start.c")),
];
const GOLDEN: &str = include_str!("../../testdata/probe/probe.golden");

/// A way to make containers.
#[derive(Clone, Copy)]
struct Mode {
    /// The ids of an ordinary user; root without.
    user: Option<Ids>,
    /// What the builder is started through.
    wrapper: &'static [&'static str],
    /// Instructions before the RUN.
    before: &'static str,
    /// Flags of the RUN.
    flags: &'static str,
    /// Arguments of the build.
    args: &'static [&'static str],
    /// What the machine must have.
    needs: &'static [&'static str],
}

const ROOT: Mode = Mode {
    user: None,
    wrapper: &[],
    before: "",
    flags: "--network=none",
    args: &[],
    needs: &[],
};

const USER: &str = "USER app\n";
/// Root without the right to mount, as in a container.
const STRIPPED: &[&str] = &[
    "setpriv",
    "--bounding-set",
    "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+setfcap,+mknod,+sys_chroot",
    "--inh-caps",
    "-all",
];

macro_rules! modes {
    ($($name:ident: $mode:expr,)*) => {
        const MODES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                check(stringify!($name), $mode);
            }
        )*
    };
}

// A line each: the name that the table has for it, and how it is made.
modes! {
    root: ROOT,
    root_user: Mode { before: USER, ..ROOT },
    root_default_network: Mode { flags: "", needs: &["exec:pasta"], ..ROOT },
    root_host_network: Mode { flags: "--network=host", args: &["--allow", "network.host"], ..ROOT },
    root_insecure: Mode { flags: "--network=none --security=insecure", args: &["--allow", "security.insecure"], ..ROOT },
    stripped: Mode { wrapper: STRIPPED, ..ROOT },
    namespace: Mode { wrapper: &["unshare", "-Ur"], ..ROOT },
    rootless: Mode { user: Some(Ids::Many), ..ROOT },
    rootless_user: Mode { user: Some(Ids::Many), before: USER, ..ROOT },
    rootless_host_network: Mode { user: Some(Ids::Many), flags: "--network=host", args: &["--allow", "network.host"], ..ROOT },
    runc: Mode { args: &["--oci-runtime", "runc"], needs: &["exec:runc"], ..ROOT },
    crun: Mode { args: &["--oci-runtime", "crun"], needs: &["exec:crun"], ..ROOT },
    rootless_runc: Mode { user: Some(Ids::Many), args: &["--oci-runtime", "runc"], needs: &["exec:runc"], ..ROOT },
    rootless_crun: Mode { user: Some(Ids::Many), args: &["--oci-runtime", "crun"], needs: &["exec:crun"], ..ROOT },
    rootless_one_runc: Mode { user: Some(Ids::One), args: &["--oci-runtime", "runc"], needs: &["exec:runc"], ..ROOT },
    rootless_one: Mode { user: Some(Ids::One), ..ROOT },
}

/// Returns a directory with the compiled programs.
fn programs() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        PROGRAMS.hash(&mut hasher);
        rootfs::once(&format!("probe-{:x}", hasher.finish()), |into| {
            for (name, _) in PROGRAMS {
                let status = Command::new("cc")
                    .args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
                    .args([into.join(name), Path::new(SOURCES).join(format!("{name}.c"))])
                    .status();
                assert!(status.unwrap().success(), "{name}.c");
            }
        })
    })
}

/// Runs the probe in a container and compares.
fn check(name: &str, mode: Mode) {
    let needs: Vec<&str> = mode.needs.iter().copied().chain(["exec:cc"]).collect();
    if !usable_with(name, &needs) {
        return;
    }
    let found = facts(mode);
    let found = compared_with_outside(&found, &outside(mode));
    let table = Table::parse(GOLDEN, MODES);
    let differences = table.differences(name, &found);
    assert!(
        differences.is_empty(),
        "{name}: what differs from testdata/probe/probe.golden:\n{}\n",
        differences.join("\n")
    );
}

fn facts(mode: Mode) -> BTreeMap<String, String> {
    let place = Place::new("probe", mode.user);
    place.bring(&programs().join("probe"), "busybox/bin/probe");
    place.bring(&programs().join("start"), "start");
    place.write(
        "Dockerfile",
        &format!(
            "FROM busybox\n{}RUN {} [\"/bin/probe\"]\n",
            mode.before, mode.flags
        ),
    );
    let mut args = vec!["./start"];
    args.extend(mode.wrapper);
    args.extend(["ashlar", "build", "--progress", "plain"]);
    args.extend(["--build-context", "busybox=busybox"]);
    args.extend(mode.args);
    args.push(".");
    let output = place.run(&args);
    ok(&output);
    let said = output.stderr_text();
    place.finish();
    parsed(said.lines().filter_map(|line| {
        // A line of a step: its number, the time, what was printed.
        let (number, rest) = line.split_once(' ')?;
        let (time, text) = rest.split_once(' ')?;
        (number.starts_with('#') && time.parse::<f64>().is_ok()).then_some(text)
    }))
}

/// Facts by name; what there is several times (mounts on the same place) is one fact.
fn parsed<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::<String, String>::new();
    for (name, value) in lines.filter_map(|line| line.split_once(" = ")) {
        found
            .entry(name.to_owned())
            .and_modify(|before| *before = format!("{before}, then {value}"))
            .or_insert_with(|| value.to_owned());
    }
    found
}

/// Asks the machine itself, as the builder's user has it.
fn outside(mode: Mode) -> BTreeMap<String, String> {
    let place = Place::new("probe-outside", mode.user);
    place.bring(&programs().join("probe"), "probe");
    let said = ok(&place.run(&["./probe", "outside"]));
    place.finish();
    parsed(said.lines())
}

/// Puts words in the place of what a machine decides.
fn compared_with_outside(
    found: &BTreeMap<String, String>,
    outside: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let told = |(name, value): (&String, &String)| {
        let is_same = outside.get(name) == Some(value);
        let value = match name.split(' ').next() {
            Some("limit") if is_same => "inherited",
            Some("namespace") if is_same => "the machine's",
            Some("namespace") => "another",
            _ => value,
        };
        (name.clone(), value.to_owned())
    };
    found.iter().map(told).collect()
}

/// A table that takes anything for a fact would not be noticed otherwise.
#[test]
fn every_line_of_the_table_can_fail() {
    let table = Table::parse(GOLDEN, MODES);
    for mode in MODES {
        let good = table.example(mode);
        assert!(good.len() > 200, "{mode}: {} facts", good.len());
        assert_eq!(table.differences(mode, &good), Vec::<String>::new(), "{mode}");
        for name in good.keys() {
            let mut bad = good.clone();
            bad.insert(name.clone(), "made up".to_owned());
            let differences = table.differences(mode, &bad);
            assert!(
                differences.len() == 1 || table.takes_anything(mode, name),
                "{mode}, {name}: {differences:?}"
            );
        }
        let mut more = good.clone();
        more.insert("descriptor 9".to_owned(), "/ r of 0".to_owned());
        more.insert("mount /host".to_owned(), "ext4 rw".to_owned());
        assert_eq!(table.differences(mode, &more).len(), 2, "{mode}");
    }
}
