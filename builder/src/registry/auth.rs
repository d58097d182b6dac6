//! Anonymous access to registries: reads a `WWW-Authenticate` challenge and says where to get a token.
//!
//! The scope is always ours, never what the server suggests, and a token is only fetched from where it may be.
//! Logins are not supported yet. Spec: distribution, "Token Authentication Specification".

use reqwest::Url;

/// What a registry wants before it answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from `realm`.
    Bearer {
        /// Where tokens are given out.
        realm: String,
        /// Which service the token is for.
        service: Option<String>,
    },
    /// A user name and password.
    Basic,
}

/// Reads the header's value; a bearer challenge wins where several are offered. `None` when neither is known.
pub(crate) fn challenge(header: &str) -> Option<Challenge> {
    let lower = header.to_ascii_lowercase();
    let Some(start) = find_scheme(&lower, "bearer") else {
        return find_scheme(&lower, "basic").map(|_| Challenge::Basic);
    };
    let (mut realm, mut service) = (None, None);
    for (name, value) in parameters(&header[start..]) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            _ => {}
        }
    }
    realm.map(|realm| Challenge::Bearer { realm, service })
}

/// Returns the offset behind a scheme's name.
fn find_scheme(lower: &str, scheme: &str) -> Option<usize> {
    lower
        .match_indices(scheme)
        .find(|(at, _)| {
            let before = lower[..*at].trim_end();
            let after = &lower[at + scheme.len()..];
            (before.is_empty() || before.ends_with(',')) && (after.is_empty() || after.starts_with(' '))
        })
        .map(|(at, _)| at + scheme.len())
}

/// Splits `name="value", name=value`; stops at what isn't one.
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    loop {
        text = text.trim_start_matches([' ', ',', '\t']);
        let Some((name, rest)) = text.split_once('=') else {
            return out;
        };
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => match rest.find(',') {
                Some(comma) => (rest[..comma].trim().to_owned(), &rest[comma..]),
                None => (rest.trim().to_owned(), ""),
            },
        };
        out.push((name.trim().to_owned(), value));
        text = rest;
    }
}

/// Reads up to the closing quote; a backslash keeps the next character.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, next)| next)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// Returns the URL to ask for an anonymous token to read `repository`, or why that must not be asked.
///
/// A registry that is reached over TLS can't send us to an unprotected realm, and one on this machine that is
/// not can only name another on this machine: a realm is the one address that a registry makes us connect to.
pub(crate) fn token_url(
    registry: &Url,
    realm: &str,
    service: Option<&str>,
    repository: &str,
) -> Result<Url, String> {
    let mut url = Url::parse(realm).map_err(|error| format!("token realm `{realm}`: {error}"))?;
    let plain_is_fine = registry.scheme() == "http" && url.host_str().is_some_and(is_loopback);
    match url.scheme() {
        "https" => {}
        "http" if plain_is_fine => {}
        _ => return Err(format!("token realm `{realm}` is not https")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a token realm with a user name in it".to_owned());
    }
    if let Some(service) = service {
        url.query_pairs_mut().append_pair("service", service);
    }
    url.query_pairs_mut()
        .append_pair("scope", &format!("repository:{repository}:pull"));
    Ok(url)
}

/// Says whether a host, without its port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(ToOwned::to_owned),
            })
        };
        for (header, expected) in [
            (
                r#"Bearer realm="https://a/t",service="s, x",scope="repository:x:push""#,
                bearer("https://a/t", Some("s, x")),
            ),
            ("bearer realm=https://a/t", bearer("https://a/t", None)),
            (
                r#"Basic realm="x", Bearer realm="https://b""#,
                bearer("https://b", None),
            ),
            (r#"Basic realm="bearer tokens""#, Some(Challenge::Basic)),
            (r#"Bearer service="s""#, None),
            (r#"Bearer realm="unclosed"#, bearer("unclosed", None)),
            ("Digest x", None),
            ("", None),
        ] {
            assert_eq!(challenge(header), expected, "{header}");
        }
    }

    #[test]
    fn tokens_are_asked_for_reading_one_repository_from_safe_realms() {
        let https = Url::parse("https://r.example").unwrap();
        let http = Url::parse("http://127.0.0.1:5000").unwrap();
        assert_eq!(
            token_url(&https, "https://a/t?x=1", Some("s"), "o/app")
                .unwrap()
                .as_str(),
            "https://a/t?x=1&service=s&scope=repository%3Ao%2Fapp%3Apull"
        );
        token_url(&http, "http://localhost:1/t", None, "a").unwrap();
        for (registry, realm) in [
            (&https, "http://169.254.169.254/"),
            (&http, "http://169.254.169.254/"),
            (&https, "http://127.0.0.1/"),
            (&https, "file:///etc/passwd"),
            (&https, "https://user:pass@a/"),
            (&https, "nonsense"),
        ] {
            assert!(token_url(registry, realm, None, "a").is_err(), "{realm}");
        }
    }
}
