//! Networks of containers, where this machine has a program for them. Nothing outside of the machine is reached.

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use solver::op::Network;

use super::*;
use crate::sandbox::{Net, NetworkWants, Networks, Taken};

/// A shell function: nobody answers. Whoever is connected stays so, until `timeout` ends that with another code.
const REFUSED: &str = "refused() { busybox timeout 3 busybox nc -w 2 $1 $2 </dev/null; [ $? = 1 ]; };";

/// Returns a network of its own, or says why the test can't be done.
fn own(networks: &Networks) -> Option<Taken<'_>> {
    let taken = networks
        .take(Network::Default, helper(), &Cancel::never())
        .unwrap();
    if taken.net() != Net::Own {
        let reason = taken.warning.as_deref().unwrap_or("no network");
        skip(&format!("needs pasta or slirp4netns: {reason}"));
        return None;
    }
    Some(taken)
}

/// Runs a script in a network.
fn in_network(network: &Taken<'_>, script: &str) -> (i32, String) {
    let root = busybox();
    let dir = open(root.path());
    let lower = Lower::unpacked(dir.as_fd()).unwrap();
    let settings = Settings {
        net: network.net(),
        ..shell(script)
    };
    let outcome = run_on_network(&[&lower], network.namespace(), &settings);
    (outcome.code(), outcome.output)
}

/// The machine's address that the default route starts at. Nothing is sent.
fn outer_address() -> std::io::Result<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9")?;
    Ok(socket.local_addr()?.ip())
}

/// hardening T15: nothing that listens on the machine only is reached from a container's own network.
#[test]
fn the_machines_loopback_and_abstract_sockets_are_out_of_reach() {
    if skipped() {
        return;
    }
    let networks = Networks::default();
    let Some(network) = own(&networks) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = format!("ashlar-canary-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    // As the machine sees it, both are there.
    drop(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(table.contains(&name));
    let script = format!(
        "{REFUSED} refused 127.0.0.1 {port} || exit 1; grep {name} /proc/net/unix && exit 2; \
         gateway=$(busybox ip route | awk '$1 == \"default\" {{ print $3 }}'); [ -n \"$gateway\" ] || exit 3; \
         refused $gateway {port} || exit 4"
    );
    let (code, output) = in_network(&network, &script);
    assert_eq!(code, 0, "{output}");
}

/// hardening T15, the other direction: what the machine's outer address offers isn't offered to containers with pasta.
#[test]
fn the_address_that_containers_share_with_the_machine_is_their_own() {
    if skipped() {
        return;
    }
    let networks = Networks::default();
    let Some(network) = own(&networks) else { return };
    let (Ok(address), true) = (
        outer_address(),
        crate::sandbox::userns::program_in_path("pasta").is_some(),
    ) else {
        return skip("needs pasta and a default route");
    };
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("{REFUSED} refused {address} {port}");
    let (code, output) = in_network(&network, &script);
    assert_eq!(code, 0, "{output}");
}

/// `host-gateway` is the machine's loopback, when that was asked for.
#[test]
fn the_machine_is_reached_when_that_is_asked_for() {
    if skipped() {
        return;
    }
    let networks = Networks::new(NetworkWants {
        host: true,
        resolver: false,
    });
    let Some(network) = own(&networks) else { return };
    let Some(address) = network.host_address() else {
        return skip("needs a default route");
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the machine\n").unwrap();
    });
    // A pipe without end: pasta of 2023 keeps a connection that is half closed at once.
    let script = format!("busybox mkfifo /p && busybox timeout 10 busybox nc -w 5 {address} {port} <>/p");
    let (code, output) = in_network(&network, &script);
    if code != 0 {
        // Nobody waits for somebody who won't come.
        drop(std::net::TcpStream::connect(("127.0.0.1", port)));
    }
    serving.join().unwrap();
    assert_eq!((code, output.trim()), (0, "from the machine"));
}

/// One after the other share a network, two at a time never do.
#[test]
fn networks_are_used_again_but_never_shared() {
    if skipped() {
        return;
    }
    let networks = Networks::default();
    let number = |taken: &Taken<'_>| rustix::fs::fstat(taken.namespace().unwrap()).unwrap().st_ino;
    let Some(first) = own(&networks) else { return };
    let second = own(&networks).unwrap();
    assert_ne!(number(&first), number(&second));
    let kept = number(&first);
    drop(first);
    let again = own(&networks).unwrap();
    assert_eq!(number(&again), kept);
    let (code, output) = in_network(&again, "busybox ip -o addr show lo");
    assert!(code == 0 && output.contains("127.0.0.1"), "{output}");
}
