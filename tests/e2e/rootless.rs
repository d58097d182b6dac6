//! Builds by ordinary users: the same images as root's, with many ids and with one, and nothing left behind.
//!
//! The tests run as root, which makes users for them and removes them again; each has a name of its own, so that several
//! runs don't meet. hardening T87 and the digests of execution.md §6.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::scene::{Output, Scene};
use crate::{machine, rootfs, validate};

/// What every build is told: the base, and the time of what it makes.
const BUILD: [&str; 4] = [
    "--build-context",
    "busybox=busybox",
    "--build-arg",
    "SOURCE_DATE_EPOCH=1700000000",
];

/// Whether a user may use more ids than its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ids {
    Many,
    One,
}

/// useradd and its kin lock files of the system, and give up when they have to wait.
static ACCOUNTS: Mutex<()> = Mutex::new(());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A user made for one test.
struct User {
    name: String,
}

impl User {
    fn new(ids: Ids) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ashlar-{}-{number}", std::process::id());
        // System users get no subordinate ids by themselves.
        account(
            "useradd",
            &["--system", "--no-create-home", "--user-group", &name],
        );
        let user = Self { name };
        if ids == Ids::Many {
            let first = 1_000_000_000 + 65_536 * (number + 100 * (std::process::id() % 100));
            let range = format!("{first}-{}", first + 65_535);
            account(
                "usermod",
                &["--add-subuids", &range, "--add-subgids", &range, &user.name],
            );
        }
        user
    }
}

impl Drop for User {
    fn drop(&mut self) {
        account("userdel", &[&self.name]);
    }
}

fn account(program: &str, args: &[&str]) {
    let _one_at_a_time = ACCOUNTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = machine::find_program(program).unwrap();
    let output = Command::new(path).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

/// A scene that belongs to a user, or to root.
pub(crate) struct Place {
    scene: Scene,
    user: Option<User>,
}

impl Place {
    /// Makes a place for a new user with these ids; for root without.
    pub(crate) fn new(name: &str, ids: Option<Ids>) -> Self {
        let mut scene = Scene::new(name);
        let path = scene.var("PATH").unwrap().to_owned();
        let built = machine_binary(&path);
        // Where tests are built an ordinary user may not look.
        std::fs::copy(built, scene.aside("ashlar")).unwrap();
        scene.must("cp", &["-a", rootfs::busybox().to_str().unwrap(), "busybox"]);
        scene.set("PATH", &format!("{}:{path}", scene.dir().display()));
        let user = ids.map(User::new);
        if let Some(user) = &user {
            let all = scene.dir().to_str().unwrap().to_owned();
            scene.must("chown", &["-R", &format!("{0}:{0}", user.name), &all]);
        }
        Self { scene, user }
    }

    /// Writes a file of the work directory, always with the same time.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.scene.work().join(name), text).unwrap();
        // Copies keep it.
        self.scene.must("touch", &["-d", "@7", name]);
    }

    /// Copies a file into the work directory, from where an ordinary user may not look.
    pub(crate) fn bring(&self, from: &Path, name: &str) {
        self.scene.must("cp", &[from.to_str().unwrap(), name]);
        if let Some(user) = &self.user {
            self.scene.must("chown", &[&format!("{0}:{0}", user.name), name]);
        }
    }

    /// Runs a program as the place's user.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        match &self.user {
            None => self.scene.run(args[0], &args[1..]),
            Some(user) => {
                let mut all = vec!["--reuid", &user.name, "--regid", &user.name, "--clear-groups"];
                all.extend(args);
                self.scene.run("setpriv", &all)
            }
        }
    }

    fn build(&self, args: &[&str]) -> Output {
        let mut all = vec!["ashlar", "build"];
        all.extend(BUILD);
        all.extend(args);
        self.run(&all)
    }

    /// Checks what must hold at the end.
    pub(crate) fn finish(self) {
        validate::finish(self.scene);
    }
}

fn machine_binary(path: &str) -> PathBuf {
    let mut dirs = path.split(':').map(|dir| PathBuf::from(dir).join("ashlar"));
    dirs.find(|file| file.is_file()).unwrap()
}

/// Says whether users can be made here; skips visibly where not.
fn usable(name: &str) -> bool {
    usable_with(name, &[])
}

/// The same, where more programs are needed.
pub(crate) fn usable_with(name: &str, programs: &[&str]) -> bool {
    let always = [
        "root",
        "exec:useradd",
        "exec:newuidmap",
        "exec:setpriv",
        "exec:unshare",
    ];
    let missing = machine::missing(&always).or_else(|| machine::missing(programs));
    if let Some(reason) = &missing {
        machine::skip(name, reason);
    }
    missing.is_none()
}

/// Returns what a command printed, which must have succeeded.
pub(crate) fn ok(output: &Output) -> String {
    assert_eq!(output.code, Some(0), "{}", output.stderr_text());
    output.stdout_text()
}

/// What a RUN can do to the layers below, with times that don't depend on when.
const CHANGES: &str = "\
FROM busybox
RUN mkdir -p /dir/deep /gone /set && touch /dir/deep/old /gone/a && echo text > /set/id && ln /set/id /set/twin
RUN rm -rf /dir/deep /gone && mkdir /dir/deep && touch /dir/deep/new && chmod 6755 /set/id && ln -s /set/id /link && \\
    touch -h -d @7 /link && touch -d @7 /dir/deep/new /dir/deep /dir /set/id /set /
RUN rm /set/twin && touch -d @7 /set && test ! -e /gone && test -e /dir/deep/new && test ! -e /dir/deep/old
FROM busybox
COPY --from=0 / /
WORKDIR /work
COPY --chown=7:8 Dockerfile .
";

/// What needs more users than root.
const OWNERS: &str = "\
FROM busybox
RUN mkdir /own && echo x > /own/file && chown -R 1000:33 /own && touch -d @7 /own/file /own /
USER app
RUN id -u > /own/id && id -G > /own/groups && cat /own/file && touch -d @7 /own/id /own/groups /own
USER root
RUN test \"$(stat -c %u:%g /own/file /own/id | tr '\\n' ' ')\" = '1000:33 1000:1000 '
";

/// A file with a capability, which the kernel keeps in another form in user namespaces.
const CAPABLE: &str = "\
import tarfile
with tarfile.open('capable.tar', 'w', format=tarfile.PAX_FORMAT) as tar:
    entry = tarfile.TarInfo('capable')
    entry.mode, entry.mtime = 0o755, 7
    value = b'\\x01\\x00\\x00\\x02\\x00\\x20' + bytes(14)
    entry.pax_headers = {'SCHILY.xattr.security.capability': value.decode()}
    tar.addfile(entry)
";

#[test]
fn an_ordinary_user_gets_the_image_that_root_gets() {
    if !usable("an_ordinary_user_gets_the_image_that_root_gets") {
        return;
    }
    let build = |ids: Option<Ids>, dockerfile: &str| {
        let place = Place::new("rootless-same", ids);
        place.write("Dockerfile", dockerfile);
        place.write("capable.py", CAPABLE);
        place.scene.must("python3", &["capable.py"]);
        let id = ok(&place.build(&["-t", "it", "."]));
        let again = place.build(&["-t", "it", "."]);
        assert!(
            !again.stderr_text().contains("DONE 0.1"),
            "{}",
            again.stderr_text()
        );
        assert_eq!(ok(&again), id);
        place.finish();
        id
    };
    assert_eq!(build(Some(Ids::One), CHANGES), build(None, CHANGES), "one id");
    assert_eq!(build(Some(Ids::Many), CHANGES), build(None, CHANGES), "many ids");
    assert_eq!(
        build(Some(Ids::Many), OWNERS),
        build(None, OWNERS),
        "other owners"
    );
    let capable = "FROM busybox\nADD capable.tar /bin/\nRUN chmod 711 /bin/capable && touch -d @7 /bin /\n";
    assert_eq!(
        build(Some(Ids::Many), capable),
        build(None, capable),
        "capabilities of files"
    );
}

#[test]
fn runtimes_make_the_same_for_ordinary_users() {
    if !usable_with(
        "runtimes_make_the_same_for_ordinary_users",
        &["exec:runc", "exec:crun"],
    ) {
        return;
    }
    let build = |ids: Option<Ids>, dockerfile: &str, flags: &[&str]| {
        let place = Place::new("rootless-runtime", ids);
        place.write("Dockerfile", dockerfile);
        let id = ok(&place.build(&[flags, &["."]].concat()));
        place.finish();
        id
    };
    let check = |ids: Ids, dockerfile: &str, flags: &[&str]| {
        let found = build(Some(ids), dockerfile, flags);
        assert_eq!(found, build(None, dockerfile, &[]), "{ids:?} {flags:?}");
    };
    check(Ids::One, CHANGES, &["--oci-runtime", "runc"]);
    check(Ids::Many, OWNERS, &["--oci-runtime", "runc", "--init"]);
    check(Ids::Many, OWNERS, &["--oci-runtime", "crun"]);
    check(Ids::One, CHANGES, &["--oci-runtime", "crun", "--init"]);
}

#[test]
fn with_one_id_other_owners_are_refused_with_what_to_do() {
    if !usable("with_one_id_other_owners_are_refused_with_what_to_do") {
        return;
    }
    let place = Place::new("rootless-one", Some(Ids::One));
    let check = |dockerfile: &str, words: &[&str]| {
        place.write("Dockerfile", dockerfile);
        let output = place.build(&["."]);
        let said = output.stderr_text();
        assert_eq!(output.code, Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
    };
    let advice = ["/etc/subuid", "uidmap"];
    check(
        "FROM busybox\nCOPY --chown=1000:0 Dockerfile /a/b\nRUN true\n",
        &["/a of the image belongs to 1000:0", advice[0], advice[1]],
    );
    check(
        "FROM busybox\nUSER app\nRUN id\n",
        &["`/bin/sh -c id` belongs to 1000:1000", advice[0], advice[1]],
    );
    check(
        "FROM busybox\nRUN touch /x && chown 5 /x\n",
        &["Invalid argument", "user and group 0 only"],
    );
    // Without a step that would have to give files away, owners are data like any other.
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN true\nFROM scratch\nCOPY --chown=1000:5 Dockerfile /a\n",
    );
    ok(&place.build(&["-o", "type=tar,dest=out.tar", "."]));
    let listed = ok(&place.run(&["tar", "--numeric-owner", "-tvf", "out.tar"]));
    assert!(listed.contains("1000/5"), "{listed}");
    place.finish();
}

#[test]
fn only_what_runs_something_enters_a_namespace() {
    if !usable_with("only_what_runs_something_enters_a_namespace", &["exec:strace"]) {
        return;
    }
    let place = Place::new("rootless-spared", Some(Ids::Many));
    let entered = |args: &[&str]| {
        let mut all = vec![
            "strace",
            "-f",
            "-e",
            "trace=unshare,execve",
            "-o",
            "trace",
            "ashlar",
        ];
        all.extend(args);
        ok(&place.run(&all));
        let trace = std::fs::read_to_string(place.scene.work().join("trace")).unwrap();
        // strace keeps setuid programs from their rights: that is the way with one id.
        trace.contains("CLONE_NEWUSER")
    };
    place.write("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n");
    let build = ["build", "--build-context", "busybox=busybox", "-t", "copied", "."];
    assert!(!entered(&build));
    assert!(!entered(&["images"]));
    assert!(!entered(&["save", "-o", "out.tar", "copied"]));
    place.write("Dockerfile", "FROM busybox\nRUN true\n");
    assert!(entered(&build));
    // Nothing to see in the text: the base brings the step along.
    place.write("Dockerfile", "FROM busybox\nONBUILD RUN echo x > /brought\n");
    ok(&place.build(&["-t", "base", "."]));
    place.write("Dockerfile", "FROM base\nLABEL a=b\n");
    assert!(entered(&build));
    place.finish();
}

#[test]
fn cache_mounts_can_be_removed_whoever_owns_their_files() {
    if !usable("cache_mounts_can_be_removed_whoever_owns_their_files") {
        return;
    }
    let place = Place::new("rootless-caches", Some(Ids::Many));
    let step = "RUN --mount=type=cache,target=/c mkdir /c/own && touch /c/own/x && chown -R 33 /c/own && chmod 700 /c/own";
    place.write("Dockerfile", &format!("FROM busybox\n{step}\n"));
    ok(&place.build(&["."]));
    ok(&place.run(&["ashlar", "prune", "-f", "--filter", "type=exec.cachemount"]));
    // `mkdir` would fail on what is still there.
    ok(&place.build(&["--no-cache", "-t", "app", "."]));
    let left = |part: &str| std::fs::read_dir(place.scene.store().join(part)).map_or(0, Iterator::count);
    ok(&place.run(&["ashlar", "prune", "-af"]));
    assert!(
        left("layers") > 0 && left("mounts") == 0,
        "an image needs its layers"
    );
    place.finish();
}

#[test]
fn root_of_a_namespace_builds_as_well() {
    if !usable("root_of_a_namespace_builds_as_well") {
        return;
    }
    let id = |ids: Option<Ids>, wrapper: &[&str]| {
        let place = Place::new("rootless-nested", ids);
        place.write("Dockerfile", CHANGES);
        let mut args = wrapper.to_vec();
        args.extend(["ashlar", "build"]);
        args.extend(BUILD);
        args.push(".");
        let id = ok(&place.run(&args));
        place.finish();
        id
    };
    let expected = id(None, &[]);
    assert_eq!(id(None, &["unshare", "-Ur"]), expected);
    assert_eq!(id(Some(Ids::One), &["unshare", "-Ur"]), expected);
    // Root without the right to mount, as in a container: its ids are passed on.
    let caps = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+setfcap,+mknod,+sys_chroot";
    assert_eq!(
        id(None, &["setpriv", "--bounding-set", caps, "--inh-caps", "-all"]),
        expected
    );
}

#[test]
fn doctor_tells_ordinary_users_what_they_lack() {
    if !usable("doctor_tells_ordinary_users_what_they_lack") {
        return;
    }
    let check = |ids: Ids, expected: &[&str]| {
        let place = Place::new("rootless-doctor", Some(ids));
        let said = ok(&place.run(&["ashlar", "doctor"]));
        for words in expected {
            let is_there = said.lines().any(|line| line.contains(words));
            assert!(is_there, "{ids:?}: `{words}` is not in\n{said}");
        }
        // Nothing of what root has is claimed for others.
        let claims = said
            .lines()
            .filter(|line| line.starts_with("ok") && line.contains("can be limited"));
        assert_eq!(claims.count(), 0, "{said}");
        assert!(!place.scene.store().join("index").exists());
        place.finish();
    };
    let always = "limited  memory     can't be limited: ";
    let erofs = "limited  erofs      ";
    let runtimes = "ok       runtimes   ";
    check(
        Ids::Many,
        &[
            "ok       user       not root; a user namespace with subordinate ids",
            always,
            erofs,
            runtimes,
        ],
    );
    let one = "limited  user       not root; a user namespace with user 0 only, because /etc/subuid grants nothing to ";
    check(
        Ids::One,
        &[
            one,
            "to do: lines for this user in /etc/subuid",
            "ok       container  ",
            always,
            erofs,
            runtimes,
        ],
    );
}

#[test]
fn killing_a_users_build_leaves_nothing() {
    if !usable("killing_a_users_build_leaves_nothing") {
        return;
    }
    for ids in [Ids::Many, Ids::One] {
        let place = Place::new("rootless-kill", Some(ids));
        place.write(
            "Dockerfile",
            "FROM busybox\nRUN echo running; sleep 1000 & sleep 1000\n",
        );
        let script =
            "ashlar build --progress plain --build-context busybox=busybox . 2> log & pid=$!; tries=0
            until grep -q ' running$' log; do
                tries=$((tries + 1)); [ $tries -lt 600 ] || { cat log; exit 1; }; sleep 0.05
            done
            kill -9 $pid; wait $pid || true";
        ok(&place.run(&["sh", "-ec", script]));
        // What was half written goes with the next build, which is right.
        place.write("Dockerfile", "FROM busybox\nRUN echo done > /done\n");
        ok(&place.build(&["-t", "it", "."]));
        assert_eq!(
            ok(&place.run(&["ashlar", "run", "--rm", "it", "cat", "/done"])),
            "done\n"
        );
        // Files of users who exist in the namespace only: a command outside leaves them, the next one inside takes them.
        let script = "ashlar run it sh -c 'mkdir /x; touch /x/y; chown -R 5 /x; chmod 700 /x; echo running; sleep 1000' > out &
            pid=$!; tries=0
            until grep -q running out; do
                tries=$((tries + 1)); [ $tries -lt 600 ] || exit 1; sleep 0.05
            done
            kill -9 $pid; wait $pid || true
            ashlar images -q
            ashlar run it true";
        ok(&place.run(&["sh", "-ec", script]));
        place.finish();
    }
}

#[test]
fn a_store_of_somebody_else_is_refused() {
    if !usable("a_store_of_somebody_else_is_refused") {
        return;
    }
    // hardening T87: another owner, writable by others, a link.
    let place = Place::new("rootless-store", Some(Ids::One));
    let check = |root: &str, prepare: &str| {
        place.scene.must("sh", &["-ec", prepare]);
        let output = place.run(&["ashlar", "--root", root, "images"]);
        assert_eq!(output.code, Some(3), "{root}: {}", output.stderr_text());
        let doctor = place.run(&["ashlar", "--root", root, "doctor"]);
        assert_eq!(doctor.code, Some(1), "{root}: {}", doctor.stdout_text());
        assert!(
            doctor.stdout_text().contains("missing  store"),
            "{}",
            doctor.stdout_text()
        );
    };
    check("roots", "mkdir -m 755 roots");
    check(
        "open",
        &format!(
            "mkdir open && chown {} open && chmod 777 open",
            place.user.as_ref().unwrap().name
        ),
    );
    check("link", "mkdir -m 700 target && ln -s target link");
    place.finish();
}
