//! Whether a text can be the name of an image: the rules of registries, without asking one.
//!
//! What a name means is the resolver's business. Spec: distribution, reference grammar.

/// Longest name, without tag and digest.
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// Says whether `text` could be looked up: `alpine`, `host:5000/a/b:tag@sha256:…`.
pub(crate) fn is_valid(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if !digest.is_none_or(is_digest) {
        return false;
    }
    // A colon before the last slash is the port's.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if !tag.is_none_or(is_tag) || name.len() > MAX_NAME_BYTES {
        return false;
    }
    // A bare ID is no name.
    if name.len() == 64 && is_hex(name) {
        return false;
    }
    match name.split_once('/') {
        Some((host, path)) if is_host_like(host) => is_host(host) && path.split('/').all(is_component),
        _ => name.split('/').all(is_component),
    }
}

/// Tells `localhost/x` and `a.b/x` from `user/x`.
fn is_host_like(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !port.is_none_or(is_port) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return address
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    }
    name.split('.').all(|part| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Letters and digits with single separators between them: a dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let is_word = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && component
            .split(is_word)
            .filter(|between| !between.is_empty())
            .all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG_BYTES
        && tag.bytes().next().is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|char: char| char.is_ascii_alphabetic()) && hex.len() >= 32 && is_hex(hex)
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_is_none() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for name in [
            "alpine",
            "alpine:3.20",
            "user/app:Tag_1",
            "localhost/app",
            "localhost:5000/app",
            "[::1]:5000/app",
            "Host/app",
            "a.io/b/c__d-e.f:x@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            &format!("x@{digest}"),
        ] {
            assert!(is_valid(name), "{name}");
        }
        for name in [
            "",
            ":latest",
            "alpine:",
            "alpine:.x",
            "Alpine",
            "a//b",
            "a/B",
            "a..b",
            "a___b",
            "-a",
            "a b",
            "x@sha256:1",
            "host:port/x",
            &"a".repeat(64),
            &"a/".repeat(200),
        ] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
