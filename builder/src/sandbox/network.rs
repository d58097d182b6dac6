//! Which network a container gets.
//!
//! Own namespaces with access to the outside (pasta, slirp4netns, bridges) are not offered yet, so the default is the
//! host's network, and says so.

use solver::op::Network;

use super::spec::Net;

/// The network that was chosen, and what the user must hear about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkChoice {
    /// What the container gets.
    pub(crate) net: Net,
    /// To be shown once per build.
    pub(crate) warning: Option<&'static str>,
}

/// Chooses for a step. Whether `host` may be asked for is the caller's decision.
pub(crate) fn choose(wanted: Network) -> NetworkChoice {
    match wanted {
        Network::None => NetworkChoice {
            net: Net::None,
            warning: None,
        },
        Network::Host => NetworkChoice {
            net: Net::Host,
            warning: None,
        },
        Network::Default => NetworkChoice {
            net: Net::Host,
            warning: Some(
                "RUN uses the host's network: isolated networks with outside access are not available",
            ),
        },
    }
}
