//! The command of a container: which program it is, and what it means when that can't be executed.
//!
//! Ends like one that a shell can't find (126, 127), with a reason for people.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, FileType, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::error::{Result, SandboxError};
use super::rootfs::open_inside;
use super::spec::{Exit, Settings};
use super::sys;

/// The default `PATH`, where the environment has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command, as the kernel wants it: everything is allocated before rights are dropped.
pub(super) struct Command {
    name: String,
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let text = |text: String| {
            CString::new(text).map_err(|_| SandboxError::Refused {
                reason: "a NUL in an argument or variable".to_owned(),
            })
        };
        let Some(name) = settings.args.first().cloned() else {
            return Err(SandboxError::Refused {
                reason: "no command to run".to_owned(),
            });
        };
        let path = settings
            .env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map_or(PATH, |(_, value)| value);
        let candidates = if name.contains('/') {
            vec![text(name.clone())?]
        } else {
            // An empty element means the working directory to a shell; that is how surprises are executed.
            let directories = path.split(':').filter(|directory| directory.starts_with('/'));
            directories
                .map(|directory| text(format!("{directory}/{name}")))
                .collect::<Result<_>>()?
        };
        let mut env: Vec<CString> = settings
            .env
            .iter()
            .map(|(name, value)| text(format!("{name}={value}")))
            .collect::<Result<_>>()?;
        if let (Some(home), false) = (
            &settings.home,
            settings.env.iter().any(|(name, _)| name == "HOME"),
        ) {
            env.push(text(format!("HOME={home}"))?);
        }
        let args = settings.args.iter().cloned().map(text).collect::<Result<_>>()?;
        Ok(Self {
            name,
            candidates,
            args,
            env,
        })
    }

    /// Executes the first candidate that can be; says why none could.
    pub(super) fn execute(self) -> Exit {
        let mut outcome = self.missing();
        for candidate in &self.candidates {
            if self.name.is_empty() {
                break;
            }
            let error = sys::execve(candidate, &self.args, &self.env);
            let found = rustix::fs::statat(CWD, candidate.as_c_str(), AtFlags::empty());
            let place = candidate.to_string_lossy().into_owned();
            match Errno::from_io_error(&error) {
                // Not there: the next directory. There, and yet not found: what it needs is missing.
                Some(Errno::NOENT | Errno::NOTDIR) if found.is_err() => {}
                Some(Errno::NOENT) => return Flaw::NoLoader.exit(&place),
                Some(Errno::ACCESS) => {
                    let directory =
                        found.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
                    let flaw = if directory {
                        Flaw::Directory
                    } else {
                        Flaw::NotExecutable
                    };
                    outcome = flaw.exit(&place);
                }
                Some(Errno::NOEXEC) => return Flaw::Format.exit(&place),
                _ => return exit(126, format!("{place}: {error}")),
            }
        }
        outcome
    }

    /// Looks for the program below `root`, as far as that says how it will end.
    pub(super) fn foresee(&self, root: BorrowedFd<'_>, settings: &Settings) -> Foreseen {
        let mut outcome = self.missing();
        for candidate in self.candidates.iter().filter(|_| !self.name.is_empty()) {
            let place = candidate.to_string_lossy().into_owned();
            let inside = match place.starts_with('/') {
                true => place.clone(),
                false => format!("{}/{place}", settings.cwd),
            };
            let found = open_inside(
                root,
                &inside,
                OFlags::PATH | OFlags::CLOEXEC,
                ResolveFlags::empty(),
            );
            let Ok(stat) = found.and_then(|found| rustix::fs::fstat(&found)) else {
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile if stat.st_mode & 0o111 != 0 => {
                    return Foreseen::Found(Found {
                        place,
                        is_program: is_program(root, &inside),
                        is_permitted: is_permitted(&stat, settings),
                    });
                }
                FileType::Directory => outcome = Flaw::Directory.exit(&place),
                _ => outcome = Flaw::NotExecutable.exit(&place),
            }
        }
        Foreseen::Ends(outcome)
    }

    fn missing(&self) -> Exit {
        let place = if self.name.contains('/') {
            "in the image"
        } else {
            "in the PATH of the container"
        };
        exit(127, format!("`{}` not found {place}", self.name))
    }
}

/// What becomes of a command that another program is to execute.
pub(super) enum Foreseen {
    /// It ends so without being tried.
    Ends(Exit),
    /// There is something to execute.
    Found(Found),
}

/// A file that may be executed by somebody, if not by everybody.
pub(super) struct Found {
    /// Where it is.
    pub(super) place: String,
    /// It looks like a program for this machine, or a script.
    is_program: bool,
    /// Its mode lets the user execute it.
    is_permitted: bool,
}

impl Found {
    /// How the command ended if its user may not execute it.
    pub(super) fn forbidden(&self) -> Exit {
        Flaw::NotExecutable.exit(&self.place)
    }

    /// How it ended if the kernel would not execute it.
    pub(super) fn not_executed(&self) -> Exit {
        let flaw = match (self.is_permitted, self.is_program) {
            (false, _) => Flaw::NotExecutable,
            (true, true) => Flaw::NoLoader,
            (true, false) => Flaw::Format,
        };
        flaw.exit(&self.place)
    }
}

/// Says whether the mode of a file that somebody may execute lets the user do it.
fn is_permitted(stat: &Stat, settings: &Settings) -> bool {
    let bit = match settings {
        _ if settings.uid == 0 => 0o111,
        _ if settings.uid == stat.st_uid => 0o100,
        _ if settings.gid == stat.st_gid || settings.groups.contains(&stat.st_gid) => 0o010,
        _ => 0o001,
    };
    stat.st_mode & bit != 0
}

/// Says whether a file begins like what the kernel executes by itself.
fn is_program(root: BorrowedFd<'_>, path: &str) -> bool {
    /// EM_386 and EM_X86_64. Spec: elf(5).
    const MACHINES: [u8; 2] = [3, 62];
    const MACHINE_AT: usize = 18;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut begin = [0; MACHINE_AT + 2];
    let n_read = open_inside(root, path, flags, ResolveFlags::empty())
        .and_then(|file| rustix::io::read(&file, &mut begin))
        .unwrap_or(0);
    match begin.get(..n_read).unwrap_or_default() {
        [b'#', b'!', ..] => true,
        [0x7f, b'E', b'L', b'F', .., machine, 0] => MACHINES.contains(machine),
        _ => false,
    }
}

/// Why a file that is there isn't executed.
#[derive(Clone, Copy)]
enum Flaw {
    NoLoader,
    Directory,
    NotExecutable,
    Format,
}

impl Flaw {
    fn exit(self, place: &str) -> Exit {
        match self {
            Self::NoLoader => exit(
                127,
                format!("{place}: its interpreter or loader is missing in the image"),
            ),
            Self::Directory => exit(126, format!("{place} is a directory")),
            Self::NotExecutable => exit(126, format!("{place} is not executable (permission denied)")),
            Self::Format => {
                let why = "is not a program for this machine, and has no #! line (exec format error)";
                exit(126, format!("{place} {why}"))
            }
        }
    }
}

fn exit(code: i32, why: String) -> Exit {
    Exit {
        code,
        signal: None,
        oom: false,
        limit: None,
        why: Some(why.chars().take(4000).collect()),
    }
}
