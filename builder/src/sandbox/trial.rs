//! Tries containers, for `ashlar doctor`: everything is set up as for a step, on an empty root. What is executed there is
//! nothing, or a program of the caller's.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::error::{Result, SandboxError, Step as _};
use super::limits::Limits;
use super::overlay::Way;
use super::{Cancel, Cgroup, Exit, Helper, Runtime, Settings, Spec, Stdio, Upper, network, run};

/// A machine that mounts overlays, to be tried further.
pub(crate) struct Trial {
    helper: Helper,
}

/// What came of connecting a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connected {
    /// The program that works.
    pub(crate) program: Option<String>,
    /// Why those before it don't.
    pub(crate) problems: Vec<String>,
}

/// What came of setting a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limited {
    /// Where the control group was made, in which a container ran.
    pub(crate) place: Option<String>,
    /// What has no effect, and why.
    pub(crate) problems: Vec<String>,
}

/// Mounts an overlay. The error says why not even that works.
pub(crate) fn trial() -> Result<Trial> {
    Ok(Trial {
        helper: Helper::load()?,
    })
}

/// The same, with containers by another program.
pub(crate) fn trial_by(runtime: Runtime) -> Result<Trial> {
    Ok(Trial {
        helper: Helper::load()?.by(Some(runtime)),
    })
}

impl Trial {
    /// Says how the kernel takes layers, for people.
    pub(crate) fn layers(&self) -> &'static str {
        match self.helper.way() {
            Way::Detached => "layers are taken without being attached anywhere",
            Way::Added => "layers are attached in a private namespace",
            Way::Listed => "layers are attached in a private namespace, and about a hundred are possible",
        }
    }

    /// Makes a container.
    pub(crate) fn container(&self) -> Result<()> {
        self.contain(None)
    }

    /// Connects a network with the programs that are installed, until one works.
    pub(crate) fn network(&self) -> Result<Connected> {
        let (never, _kept) = never()?;
        let cancel = Cancel::on(never.as_fd());
        let (program, problems) = network::first_that_works(&self.helper, cancel)?;
        Ok(Connected { program, problems })
    }

    /// Runs a container with these limits.
    pub(crate) fn limited(&self, limits: &Limits) -> Limited {
        match Cgroup::make(limits, None) {
            Err(error) => Limited {
                place: None,
                problems: vec![error.to_string()],
            },
            Ok((cgroup, mut problems)) => {
                let place = cgroup.place();
                if let Some(place) = &place
                    && let Err(error) = self.contain(Some(&cgroup))
                {
                    problems.push(format!(
                        "no container can enter a control group of {place}: {error}"
                    ));
                    return Limited {
                        place: None,
                        problems,
                    };
                }
                Limited { place, problems }
            }
        }
    }

    /// Says whether a program that does nothing runs in a container.
    pub(crate) fn executes(&self, program: &[u8]) -> Result<bool> {
        let upper = Upper::tmpfs(4 << 20)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(upper.dir(), "nothing", flags, Mode::from_raw_mode(0o755));
        let mut file = File::from(file.step("make a program")?);
        file.write_all(program).step("write a program")?;
        // It couldn't be executed while it is open.
        drop(file);
        Ok(self.end(&upper, None)?.code == 0)
    }

    fn contain(&self, cgroup: Option<&Cgroup>) -> Result<()> {
        /// An empty root has no program; that none was found there says that all the rest worked.
        const NOT_FOUND: i32 = 127;
        match self.end(&Upper::tmpfs(1 << 20)?, cgroup)?.code {
            NOT_FOUND => Ok(()),
            code => Err(SandboxError::Refused {
                reason: format!("an empty container ended with code {code}"),
            }),
        }
    }

    fn end(&self, upper: &Upper, cgroup: Option<&Cgroup>) -> Result<Exit> {
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .step("open /dev/null")?;
        let settings = Settings {
            args: vec!["/nothing".to_owned()],
            ..Settings::default()
        };
        let spec = Spec {
            lowers: &[],
            upper: Some(upper),
            mounts: &[],
            network: None,
            cgroup,
            settings: &settings,
        };
        let stdio = Stdio {
            stdin: None,
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            on_terminal: None,
        };
        let (never, _kept) = never()?;
        run(&self.helper, &spec, stdio, Cancel::on(never.as_fd()))
    }
}

/// Returns what nothing ever comes from, as long as its other end is kept.
fn never() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")
}
