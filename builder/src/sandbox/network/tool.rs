//! The programs that connect a network namespace to the outside: how they are found and called, which addresses they use.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use super::keeper::{NAMESPACE_PATH, Plan};
use crate::sandbox::userns::{Namespace, program_in_path};

/// Where pasta answers as a resolver: an address that is nobody's.
const PASTA_RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// slirp4netns' own addresses. Spec: slirp4netns(1).
const SLIRP_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const SLIRP_RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// What a network has beside the way to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wants {
    /// A way to the machine, at [`Tool::host_address`].
    pub(crate) host: bool,
    /// A resolver of its own, at [`Tool::resolver`].
    pub(crate) resolver: bool,
}

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tool {
    kind: Kind,
    program: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pasta,
    Slirp,
}

impl Tool {
    /// Returns the programs that this machine has, the best first: pasta takes half of the time, and hides the machine's
    /// first address too.
    pub(super) fn installed() -> Vec<Self> {
        let found = |(kind, name)| {
            let program = program_in_path(name)?.into_os_string().into_string().ok()?;
            Some(Self { kind, program })
        };
        [(Kind::Pasta, "pasta"), (Kind::Slirp, "slirp4netns")]
            .into_iter()
            .filter_map(found)
            .collect()
    }

    /// Returns one that can't be started.
    #[cfg(test)]
    pub(super) fn broken() -> Self {
        Self {
            kind: Kind::Pasta,
            program: "/no/such/pasta".to_owned(),
        }
    }

    /// Returns what people call it.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Pasta => "pasta",
            Kind::Slirp => "slirp4netns",
        }
    }

    /// Returns how it is to be called for the namespace at [`NAMESPACE_PATH`].
    pub(super) fn plan(&self, wants: Wants) -> Plan {
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
        match self.kind {
            Kind::Pasta => {
                // No port of either side is forwarded to the other; what the container opens goes outside.
                add(&["--config-net", "--quiet", "-t", "none", "-u", "none"]);
                add(&["-T", "none", "-U", "none"]);
                if !wants.host {
                    add(&["--no-map-gw"]);
                }
                // Not without need: whoever asks the machine's resolver itself then gets answers from this address.
                if wants.resolver {
                    add(&["--dns-forward", &PASTA_RESOLVER.to_string()]);
                }
                if Namespace::current().is_initial() {
                    // It would become nobody, who may not enter the namespace. It keeps three capabilities.
                    add(&["--runas", "0:0"]);
                }
                add(&["--netns-only", "--netns", NAMESPACE_PATH]);
            }
            Kind::Slirp => {
                add(&[
                    "--configure",
                    "--mtu=65520",
                    "--enable-sandbox",
                    "--enable-seccomp",
                ]);
                if !wants.host {
                    add(&["--disable-host-loopback"]);
                }
                add(&["--ready-fd=0", "--netns-type=path", NAMESPACE_PATH, "tap0"]);
            }
        }
        Plan {
            program: self.program.clone(),
            args,
            goes_to_background: self.kind == Kind::Pasta,
        }
    }

    /// Returns where the machine can be reached, once the plan says that it can be.
    pub(super) fn host_address(&self) -> Option<IpAddr> {
        match self.kind {
            Kind::Pasta => {
                let routes = fs::read_to_string("/proc/net/route").ok()?;
                default_gateway(&routes).map(IpAddr::V4)
            }
            Kind::Slirp => Some(SLIRP_HOST.into()),
        }
    }

    /// Returns where it answers as a resolver, once the plan says that it does.
    pub(super) fn resolver(&self) -> IpAddr {
        match self.kind {
            Kind::Pasta => PASTA_RESOLVER.into(),
            Kind::Slirp => SLIRP_RESOLVER.into(),
        }
    }
}

/// Finds the gateway of the default route in the kernel's table. Spec: proc_pid_net(5), `route`.
pub(super) fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (destination, gateway) = (fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        // In the byte order of the machine, as the address lies in memory.
        (destination == "00000000" && gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}
