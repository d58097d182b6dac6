//! The place where one test plays: a fresh directory, an own store, a clean environment, and a way
//! to run commands there with a deadline.
//!
//! What must be true of the place when the test is over is `validate`'s business.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

/// A command that is still running after this long has hung; ten times as long where tests are long.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a command left behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    /// The exit code; `None` when a signal ended the command.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    /// Returns standard output as text.
    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns standard error as text.
    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A temporary directory with `work/` (current directory of commands) and `store/` ($ASHLAR_ROOT).
pub(crate) struct Scene {
    name: String,
    dir: tempfile::TempDir,
    env: BTreeMap<String, String>,
    cgroup: Option<PathBuf>,
    deadline: Duration,
    /// The numbers of the commands that were started.
    pids: Mutex<BTreeSet<u32>>,
}

impl Scene {
    /// Makes the place for the test called `name`. The caller ends it with `validate::finish`.
    pub(crate) fn new(name: &str) -> Self {
        // /var/tmp and not /tmp: a tmpfs there would hide what a disk shows.
        let dir = tempfile::Builder::new()
            .prefix("ashlar-e2e-")
            .tempdir_in("/var/tmp")
            .unwrap();
        for part in ["work", "store", "home", "tmp"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        let mut scene = Self {
            name: name.to_owned(),
            env: BTreeMap::new(),
            cgroup: make_cgroup(),
            deadline: match std::env::var_os("ASHLAR_LONG") {
                Some(_) => DEADLINE * 10,
                None => DEADLINE,
            },
            pids: Mutex::default(),
            dir,
        };
        scene.settle_environment();
        scene
    }

    /// Gives every command of this test more (or less) time than the usual two minutes.
    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn settle_environment(&mut self) {
        let built = Path::new(env!("CARGO_BIN_EXE_ashlar"))
            .parent()
            .unwrap()
            .display()
            .to_string();
        // Another binary can be tried: a release build, or a peer behind our command line.
        let binary = std::env::var("ASHLAR_E2E_BIN_DIR").unwrap_or(built);
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{binary}:{path}:/usr/sbin:/sbin");
        let store = self.store().display().to_string();
        let work = self.work().display().to_string();
        let pairs = [
            ("PATH", path),
            ("ASHLAR_ROOT", store.clone()),
            ("STORE", store),
            ("WORK", work),
            ("HOME", self.dir.path().join("home").display().to_string()),
            ("TMPDIR", self.dir.path().join("tmp").display().to_string()),
            ("LC_ALL", "C".to_owned()),
            ("NO_COLOR", "1".to_owned()),
            ("TZ", "UTC".to_owned()),
        ];
        for (key, value) in pairs {
            self.set(key, &value);
        }
        // The whole suite can be run on the fallback without EROFS.
        if let Ok(value) = std::env::var("ASHLAR_LOWERS") {
            self.set("ASHLAR_LOWERS", &value);
        }
    }

    /// Returns the name given to `new`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the directory in which commands start.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Returns the root of this test's store.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Returns a path for a file that is neither in the work directory nor in the store.
    pub(crate) fn aside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the directory of everything that belongs to this test.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the cgroup that every command of this test was started in, where one could be made.
    pub(crate) fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// Says whether a command of this test had this number.
    pub(crate) fn started(&self, pid: u32) -> bool {
        self.pids.lock().unwrap().contains(&pid)
    }

    /// Sets an environment variable for the commands that follow.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.env.insert(key.to_owned(), value.to_owned());
    }

    /// Returns the value of a variable that commands of this test see.
    pub(crate) fn var(&self, key: &str) -> Option<&str> {
        self.env.get(key).map(String::as_str)
    }

    /// Runs `ashlar` and panics with its stderr unless it succeeds.
    pub(crate) fn ashlar_ok<S: AsRef<str>>(&self, args: &[S]) -> Output {
        self.must("ashlar", args)
    }

    /// Runs a program in the work directory and panics with its stderr unless it succeeds.
    pub(crate) fn must<S: AsRef<str>>(&self, program: &str, args: &[S]) -> Output {
        let output = self.run(program, args);
        let shown: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        assert_eq!(
            output.code,
            Some(0),
            "{}: {program} {} failed\n{}{}",
            self.name,
            shown.join(" "),
            output.stdout_text(),
            output.stderr_text()
        );
        output
    }

    /// Runs a program in the work directory, without input.
    pub(crate) fn run<S: AsRef<str>>(&self, program: &str, args: &[S]) -> Output {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        self.run_in(&self.work(), program, &args, None)
    }

    /// Runs a program in `dir` with `stdin` (nothing when `None`), and ends it at the deadline.
    pub(crate) fn run_in(&self, dir: &Path, program: &str, args: &[&str], stdin: Option<&[u8]>) -> Output {
        let mut command = self.command(program);
        let stdio = if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command
            .args(args)
            .current_dir(dir)
            .stdin(stdio)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
        self.pids.lock().unwrap().insert(child.id());
        if let (Some(bytes), Some(mut pipe)) = (stdin, child.stdin.take()) {
            let bytes = bytes.to_vec();
            // A command that doesn't read its input is not this thread's failure.
            std::thread::spawn(move || pipe.write_all(&bytes));
        }
        self.wait(child, program)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = match &self.cgroup {
            // The shell joins the cgroup before it becomes the program, so that no child escapes it.
            Some(cgroup) => {
                let mut shell = Command::new("/bin/sh");
                shell
                    .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
                    .arg(cgroup.join("cgroup.procs"))
                    .arg(program);
                shell
            }
            None => Command::new(program),
        };
        command.env_clear().envs(&self.env);
        command
    }

    fn wait(&self, mut child: Child, program: &str) -> Output {
        let (done, finished) = mpsc::channel();
        let stdout = reader(child.stdout.take(), done.clone());
        let stderr = reader(child.stderr.take(), done);
        // Both pipes at their end means that the command and all who hold its output are gone.
        let in_time = (0..2).all(|_| finished.recv_timeout(self.deadline).is_ok());
        if !in_time {
            child.kill().unwrap();
        }
        let code = child.wait().unwrap().code();
        if !in_time {
            if let Some(cgroup) = &self.cgroup {
                crate::validate::kill_all(cgroup);
            }
            let (out, err) = (stdout.join().unwrap(), stderr.join().unwrap());
            let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
            panic!(
                "{}: {program} still ran after {:?}\n{out}{err}",
                self.name, self.deadline
            );
        }
        Output {
            code,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            crate::validate::kill_all(cgroup);
            // Where a process still holds it, an empty directory in /sys stays; nothing depends on it.
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

type ReaderThread = std::thread::JoinHandle<Vec<u8>>;

fn reader(pipe: Option<impl Read + Send + 'static>, done: mpsc::Sender<()>) -> ReaderThread {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        // The receiver is gone only when the deadline has passed.
        let _ = done.send(());
        bytes
    })
}

/// Makes a cgroup so that what a command leaves running can be found, whatever it did to its parents.
fn make_cgroup() -> Option<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ashlar-e2e-{}-{number}", std::process::id());
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"]
        .iter()
        .map(Path::new)
        .filter(|root| root.join("cgroup.procs").exists())
        .map(|root| root.join(&name))
        .find(|path| std::fs::create_dir(path).is_ok())
}

#[test]
fn a_command_runs_in_the_scene_with_its_environment_and_input() {
    let mut scene = Scene::new("scene");
    scene.set("GREETING", "hello");
    let script = "pwd; echo $GREETING; cat; echo talk >&2; exit 3";
    let output = scene.run_in(&scene.work(), "sh", &["-c", script], Some(b"typed"));
    assert_eq!(output.code, Some(3));
    assert_eq!(
        output.stdout_text(),
        format!("{}\nhello\ntyped", scene.work().display())
    );
    assert_eq!(output.stderr_text(), "talk\n");
}

#[test]
#[should_panic(expected = "still ran after")]
fn a_command_that_hangs_is_ended_and_fails_the_test() {
    let scene = Scene::new("hang").with_deadline(Duration::from_millis(50));
    scene.run("sh", &["-c", "sleep 1000"]);
}
