//! Tries a container, for `ashlar doctor`: everything is set up as for a step, on an empty root, and nothing is executed.

use std::fs::File;
use std::os::fd::AsFd as _;

use super::error::{Result, SandboxError, Step as _};
use super::overlay::Way;
use super::{Cancel, Helper, Settings, Spec, Stdio, Upper, run};

/// What a trial found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trial {
    /// How the kernel takes layers, for people.
    pub(crate) layers: &'static str,
    /// Why no container could be made, though an overlay can be mounted.
    pub(crate) problem: Option<String>,
}

/// Mounts an overlay and makes a container. The error says why not even the overlay works.
pub(crate) fn trial() -> Result<Trial> {
    let helper = Helper::load()?;
    let layers = match helper.way() {
        Way::Detached => "layers are taken without being attached anywhere",
        Way::Added => "layers are attached in a private namespace",
        Way::Listed => "layers are attached in a private namespace, and about a hundred are possible",
    };
    let problem = contain(&helper).err().map(|error| error.to_string());
    Ok(Trial { layers, problem })
}

fn contain(helper: &Helper) -> Result<()> {
    /// An empty root has no program; that none was found there says that all the rest worked.
    const NOT_FOUND: i32 = 127;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .step("open /dev/null")?;
    let settings = Settings {
        args: vec!["/nothing".to_owned()],
        ..Settings::default()
    };
    let upper = Upper::tmpfs(1 << 20)?;
    let spec = Spec {
        lowers: &[],
        upper: Some(&upper),
        mounts: &[],
        network: None,
        cgroup: None,
        settings: &settings,
    };
    let stdio = Stdio {
        stdin: None,
        stdout: null.as_fd(),
        stderr: null.as_fd(),
        on_terminal: None,
    };
    // Nothing ever comes from it.
    let (never, _kept) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")?;
    let exit = run(helper, &spec, stdio, Cancel::on(never.as_fd()))?;
    match exit.code {
        NOT_FOUND => Ok(()),
        code => Err(SandboxError::Refused {
            reason: format!("an empty container ended with code {code}"),
        }),
    }
}
