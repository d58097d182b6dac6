//! `/etc/hosts` and `/etc/resolv.conf` of containers, which depend on the network. Spec: hardening.md §D.5.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::OpError;
use crate::options::HOST_GATEWAY;
use crate::sandbox::{Net, Settings, Taken};

/// More is not a resolver's configuration.
const LIMIT_BYTES: u64 = 64 << 10;
/// Whom the machine asks.
const MACHINES: &str = "/etc/resolv.conf";
/// What programs are told where systemd-resolved answers on the machine's loopback, and what it asks itself.
const STUB: &str = "127.0.0.53";
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Tells a container of its network. `extra` are names and addresses that were asked for.
pub(crate) fn name_network(
    settings: &mut Settings,
    network: &Taken<'_>,
    extra: &[(String, String)],
) -> Result<(), OpError> {
    settings.net = network.net();
    settings.hosts = hosts(&settings.hostname, extra, network.host_address());
    settings.resolv_conf = match network.net() {
        // The machine's own file is right for its network, and says nothing where there is none.
        Net::Host | Net::None => read(Path::new(MACHINES))?,
        Net::Own => without_loopback(&resolvers()?, network.resolver()),
    };
    Ok(())
}

/// Says whether the machine asks its loopback only, where no container gets to.
pub(crate) fn resolves_on_loopback() -> Result<bool, OpError> {
    let others = without_loopback(&resolvers()?, None);
    Ok(name_servers(&others).next().is_none())
}

/// Returns the configuration of those who really resolve for the machine.
fn resolvers() -> Result<String, OpError> {
    let machines = read(Path::new(MACHINES))?;
    let behind = match name_servers(&machines).eq([STUB]) {
        true => read(Path::new(BEHIND_STUB))?,
        false => String::new(),
    };
    Ok(if behind.is_empty() { machines } else { behind })
}

/// Returns the hosts file: the container itself, and the lines that were asked for. `machine` is what `host-gateway`
/// stands for; where the machine can't be reached, its names stand for nothing.
fn hosts(hostname: &str, extra: &[(String, String)], machine: Option<IpAddr>) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        match (address.as_str(), machine) {
            (HOST_GATEWAY, Some(machine)) => text.push_str(&format!("{machine}\t{name}\n")),
            (HOST_GATEWAY, None) => {}
            (address, _) => text.push_str(&format!("{address}\t{name}\n")),
        }
    }
    text
}

/// Returns a resolver configuration; empty when there is none.
fn read(path: &Path) -> Result<String, OpError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(LIMIT_BYTES).read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            let path = PathBuf::from(path);
            return Err(OpError::Read { path, source });
        }
        Ok(_) => {}
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn name_servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(name_server)
}

/// Returns the address of a `nameserver` line. Spec: resolv.conf(5).
fn name_server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next())?
}

/// Leaves out resolvers on the machine's loopback, which isn't the container's; `instead` takes their place where no
/// other is left. Nobody's public resolver is ever put there: what a build looks up is not theirs to know.
fn without_loopback(text: &str, instead: Option<IpAddr>) -> String {
    let is_loopback = |line: &&str| {
        let address = name_server(line).map(|address| address.split('%').next().unwrap_or_default().parse());
        matches!(address, Some(Ok::<IpAddr, _>(address)) if address.is_loopback())
    };
    let mut kept: String = text
        .lines()
        .filter(|line| !is_loopback(line))
        .map(|line| format!("{line}\n"))
        .collect();
    if let Some(instead) = instead.filter(|_| name_servers(&kept).next().is_none()) {
        kept.push_str(&format!("nameserver {instead}\n"));
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn resolvers_on_the_machines_loopback_are_left_out() {
        let check = |text: &str, expected: &str| {
            let instead = Some(IpAddr::from([169, 254, 1, 1]));
            assert_eq!(without_loopback(text, instead), expected, "{text}");
        };
        check(
            "nameserver 10.0.0.1\nsearch a\n",
            "nameserver 10.0.0.1\nsearch a\n",
        );
        check(
            "nameserver 127.0.0.53\nnameserver 10.0.0.1\n",
            "nameserver 10.0.0.1\n",
        );
        check(
            "nameserver 127.0.0.1\nsearch a",
            "search a\nnameserver 169.254.1.1\n",
        );
        check("nameserver ::1%lo\n", "nameserver 169.254.1.1\n");
        check(
            "# nameserver 127.0.0.1\n",
            "# nameserver 127.0.0.1\nnameserver 169.254.1.1\n",
        );
        check("", "nameserver 169.254.1.1\n");
        assert_eq!(without_loopback("nameserver 127.0.0.1", None), "");
    }

    #[test]
    fn the_machine_has_a_name_only_where_it_can_be_reached() {
        let check = |machine: Option<Ipv4Addr>, expected: &[&str]| {
            let extra = [("a", "10.1.2.3"), ("b", HOST_GATEWAY)];
            let extra = extra.map(|(name, address)| (name.to_owned(), address.to_owned()));
            let text = hosts("box", &extra, machine.map(IpAddr::V4));
            let lines: Vec<_> = text.lines().skip(2).collect();
            assert_eq!(lines, expected);
            assert!(text.starts_with("127.0.0.1\tlocalhost box\n"), "{text}");
        };
        check(Some(Ipv4Addr::new(10, 0, 2, 2)), &["10.1.2.3\ta", "10.0.2.2\tb"]);
        check(None, &["10.1.2.3\ta"]);
    }
}
