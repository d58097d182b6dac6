//! The words of EXPOSE: `[ip:][host:]port[-port][/proto]`. Spec: dockerfile.md §11.

// From core, to make it plain that no socket is meant.
use core::net::IpAddr;

/// Returns the container ports of one word as `80/tcp`, a range as its single ports. The error is a message.
pub(super) fn parse(word: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = if protocol.is_empty() {
        "tcp".to_owned()
    } else {
        protocol.to_ascii_lowercase()
    };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (front, container) = ports
        .rsplit_once(':')
        .map_or((None, ports), |(front, port)| (Some(front), port));
    if container.is_empty() {
        return Err(format!("invalid port: \"{word}\": no port specified"));
    }
    let Some((first, last)) = range(container) else {
        return Err(format!("invalid containerPort: {container}"));
    };
    if let Some(front) = front {
        let (address, host) = front
            .rsplit_once(':')
            .map_or((None, front), |(ip, host)| (Some(ip), host));
        check_host(address, host, (first, last))?;
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Address and host port mean nothing in an image, but must be well-formed.
fn check_host(address: Option<&str>, host: &str, (first, last): (u16, u16)) -> Result<(), String> {
    if let Some(address) = address {
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
            return Err(format!("invalid IP address: {address}"));
        }
    }
    if host.is_empty() {
        return Ok(());
    }
    let Some((host_first, host_last)) = range(host) else {
        return Err(format!("invalid hostPort: {host}"));
    };
    if first != last && host_last - host_first != last - first {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {first}-{last} and {host_first}-{host_last}"
        ));
    }
    Ok(())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i9_i10_ports_parse() {
        for (word, expected) in [
            ("80", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("8000-8002", "8000/tcp 8001/tcp 8002/tcp"),
            ("127.0.0.1:80:81", "81/tcp"),
            ("[::1]:80:81", "81/tcp"),
            ("80:81/sctp", "81/sctp"),
            ("foo", "invalid containerPort: foo"),
            ("80/foo", "invalid proto: foo"),
            ("80:", "invalid port: \"80:\": no port specified"),
            ("x:80:80", "invalid IP address: x"),
            ("x:80", "invalid hostPort: x"),
            ("70000", "invalid containerPort: 70000"),
            ("9-8", "invalid containerPort: 9-8"),
            (
                "1-2:3-9",
                "invalid ranges specified for container and host Ports: 3-9 and 1-2",
            ),
        ] {
            let shown = parse(word).map_or_else(|message| message, |ports| ports.join(" "));
            assert_eq!(shown, expected, "{word}");
        }
    }
}
