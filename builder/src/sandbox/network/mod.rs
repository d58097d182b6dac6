//! Which network a container gets, and networks of one's own.
//!
//! A network of its own is a namespace that a program of the machine (pasta, or slirp4netns) connects to the outside from
//! an ordinary process: no bridge, no address and no firewall rule of the machine is touched, so nothing of it can be
//! left behind. That is why there is no bridge for root either: forwarding and address translation would be state of
//! the machine that outlives a killed build. Making a network takes some ten milliseconds, so a build keeps what a step
//! no longer needs for the next one; two containers never have the same network at the same time, because loopback and
//! abstract sockets belong to it. `keeper` is the process that holds one.
//!
//! Neither program lets a container reach the machine's loopback unless `host-gateway` asks for that. With slirp4netns
//! the machine's outer addresses can be reached, as with docker's bridge; with pasta the first of them is the container's
//! own, and others can be reached.

mod keeper;
#[cfg(test)]
mod tests;
mod tool;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use solver::op::Network as Wanted;

pub(super) use keeper::{NAMESPACES, Plan, keep};
use tool::Tool;
pub(crate) use tool::Wants;

use super::error::{Result, SandboxError};
use super::launch::{Cancel, Helper};
use super::spec::Net;

/// The networks of one build.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    wants: Wants,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The program that works here, once one did.
    tool: Option<Tool>,
    /// Why none does; tried once.
    refusal: Option<String>,
    has_warned: bool,
    idle: Vec<Network>,
}

/// A namespace with access to the outside. Goes when this value does.
#[derive(Debug)]
struct Network {
    namespace: OwnedFd,
    /// Its keeper ends when this is closed.
    _keeper: OwnedFd,
}

/// What a container gets; a network of its own is given back when this value goes.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    from: &'a Networks,
    net: Net,
    network: Option<Network>,
    tool: Option<Tool>,
    /// To be shown to the user.
    pub(crate) warning: Option<String>,
}

impl Networks {
    /// Returns networks that have this.
    pub(crate) fn new(wants: Wants) -> Self {
        Self {
            wants,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses a container's network. Whether `host` may be asked for is the caller's decision.
    ///
    /// # Errors
    /// A program that connected an earlier network fails: then a container must not get the machine's instead, which an
    /// earlier step could bring about by using up what the program needs. Or it was cancelled meanwhile.
    pub(crate) fn take(&self, wanted: Wanted, helper: &Helper, cancel: Cancel<'_>) -> Result<Taken<'_>> {
        let taken = |net, network, tool, warning| Taken {
            from: self,
            net,
            network,
            tool,
            warning,
        };
        match wanted {
            Wanted::None => return Ok(taken(Net::None, None, None, None)),
            Wanted::Host => return Ok(taken(Net::Host, None, None, None)),
            Wanted::Default => {}
        }
        let mut state = self.state();
        self.settle(&mut state, helper, cancel)?;
        if let Some(network) = state.idle.pop() {
            return Ok(taken(Net::Own, Some(network), state.tool.clone(), None));
        }
        // As many are made at once as are needed.
        if let Some(tool) = state.tool.clone() {
            drop(state);
            let network = connect(helper, tool.plan(self.wants), cancel)?;
            return Ok(taken(Net::Own, Some(network), Some(tool), None));
        }
        let warning = match std::mem::replace(&mut state.has_warned, true) {
            true => None,
            false => state.refusal.as_deref().map(warning),
        };
        Ok(taken(Net::Host, None, None, warning))
    }

    /// Makes the first network, for whoever needs one first, if there isn't one already.
    pub(crate) fn prepare(&self, helper: &Helper, cancel: Cancel<'_>) {
        // A cancelled one has found out nothing: whoever is next tries again.
        let _ = self.settle(&mut self.state(), helper, cancel);
    }

    /// Finds out which program works, once. Others wait meanwhile; the network that it was found out with is theirs.
    fn settle(&self, state: &mut State, helper: &Helper, cancel: Cancel<'_>) -> Result<()> {
        if state.tool.is_some() || state.refusal.is_some() {
            return Ok(());
        }
        match self.find(helper, cancel)? {
            Ok((network, tool)) => {
                state.tool = Some(tool);
                state.idle.push(network);
            }
            Err(reason) => state.refusal = Some(reason),
        }
        Ok(())
    }

    /// Makes a network with the first program that works.
    fn find(&self, helper: &Helper, cancel: Cancel<'_>) -> Result<Found> {
        let tried = try_each(self.wants, helper, cancel)?;
        Ok(tried.found.ok_or_else(|| match tried.problems.as_slice() {
            [] => "neither pasta nor slirp4netns is installed".to_owned(),
            problems => problems.join("; "),
        }))
    }
}

/// A first network and the program that made it, or why none does.
type Found = std::result::Result<(Network, Tool), String>;

/// What came of the installed programs.
struct Tried {
    found: Option<(Network, Tool)>,
    /// Why those before it don't work.
    problems: Vec<String>,
}

/// Tries the installed programs until one works.
fn try_each(wants: Wants, helper: &Helper, cancel: Cancel<'_>) -> Result<Tried> {
    let mut tried = Tried {
        found: None,
        problems: Vec::new(),
    };
    for tool in Tool::installed() {
        match connect(helper, tool.plan(wants), cancel) {
            Ok(network) => {
                tried.found = Some((network, tool));
                break;
            }
            // It says nothing about the program, and nobody must take it for a reason to use the machine's network.
            Err(SandboxError::Cancelled) => return Err(SandboxError::Cancelled),
            Err(error) => tried.problems.push(error.to_string()),
        }
    }
    Ok(tried)
}

/// Makes a network and lets go of it: the program that works, if one does, and why others don't. For `ashlar doctor`.
pub(super) fn first_that_works(helper: &Helper, cancel: Cancel<'_>) -> Result<(Option<String>, Vec<String>)> {
    let tried = try_each(Wants::default(), helper, cancel)?;
    let name = tried.found.map(|(_, tool)| tool.name().to_owned());
    Ok((name, tried.problems))
}

fn connect(helper: &Helper, plan: Plan, cancel: Cancel<'_>) -> Result<Network> {
    let (keeper, namespace) = helper.network(plan, cancel)?;
    Ok(Network {
        namespace,
        _keeper: keeper,
    })
}

fn warning(reason: &str) -> String {
    format!(
        "containers use the machine's own network, loopback included: {reason}; install pasta (Debian's package passt) \
         for a network of their own, or ask for none with --network=none"
    )
}

impl Taken<'_> {
    /// What the container is told.
    pub(crate) fn net(&self) -> Net {
        self.net
    }

    /// The namespace, where it has one of its own with access to the outside.
    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.network.as_ref().map(|network| network.namespace.as_fd())
    }

    /// Returns where the machine can be reached from the container.
    pub(crate) fn host_address(&self) -> Option<IpAddr> {
        match (self.net, &self.tool) {
            (Net::None, _) => None,
            (Net::Own, Some(tool)) if self.from.wants.host => tool.host_address(),
            (Net::Own, _) => None,
            (Net::Host, _) => Some(Ipv4Addr::LOCALHOST.into()),
        }
    }

    /// Returns a resolver for the case that the machine's own are on its loopback, which the container doesn't have.
    pub(crate) fn resolver(&self) -> Option<IpAddr> {
        let has_one = self.net == Net::Own && self.from.wants.resolver;
        let tool = self.tool.as_ref().filter(|_| has_one)?;
        Some(tool.resolver())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(network) = self.network.take() {
            self.from.state().idle.push(network);
        }
    }
}
