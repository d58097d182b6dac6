//! `/etc/hosts` and `/etc/resolv.conf` of containers. Spec: hardening.md §D.5.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::OpError;

/// More is not a resolver's configuration.
const LIMIT_BYTES: u64 = 64 << 10;

/// Returns the hosts file: the container itself, and the lines that were asked for, as name and address.
pub(crate) fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// Returns the machine's resolver configuration, which is right for its network; empty when it has none.
pub(crate) fn resolv_conf() -> Result<String, OpError> {
    let path = PathBuf::from("/etc/resolv.conf");
    let mut text = Vec::new();
    match File::open(&path).and_then(|file| file.take(LIMIT_BYTES).read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(OpError::Read { path, source }),
        Ok(_) => {}
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
