//! What a registry wants before it answers: reads a `WWW-Authenticate` challenge, says where a token is to be had, and
//! to whom credentials may be sent. Asks nobody itself.
//!
//! The scope is always ours, never what the server suggests, and a token is only fetched from where it may be.
//! Spec: distribution, "Token Authentication Specification".

use reqwest::Url;

/// What a request does in a repository, and so what a token for it must allow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Only says who it is.
    Login,
    /// Reads.
    Pull,
    /// Reads and writes.
    Push,
    /// Reads and writes, with blobs taken over from another repository of the same registry.
    Mount {
        /// That repository, without its host.
        from: String,
    },
}

impl Scope {
    /// Returns the `scope` parameters of a token request.
    fn words(&self, repository: &str) -> Vec<String> {
        match self {
            Self::Login => Vec::new(),
            Self::Pull => vec![format!("repository:{repository}:pull")],
            Self::Push => vec![format!("repository:{repository}:pull,push")],
            Self::Mount { from } => vec![
                format!("repository:{repository}:pull,push"),
                format!("repository:{from}:pull"),
            ],
        }
    }
}

/// What a registry wants before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Where a token is asked for, and what for.
#[derive(Debug)]
pub(crate) struct TokenRequest {
    /// The realm, with what it came with.
    pub(crate) realm: Url,
    /// Name and value of what is asked.
    pub(crate) parameters: Vec<(&'static str, String)>,
}

impl TokenRequest {
    /// Reads a bearer challenge of `registry`, or says why its realm must not be asked.
    ///
    /// A registry that is reached over TLS can't send us to an unprotected realm, and one that is not can only name
    /// another on the same host or on this machine: a realm is the one address that a registry makes us connect to.
    pub(crate) fn new(
        registry: &Url,
        (realm, service): (&str, Option<&str>),
        repository: &str,
        scope: &Scope,
    ) -> Result<Self, String> {
        let url = Url::parse(realm).map_err(|error| format!("token realm `{realm}`: {error}"))?;
        let plain_is_fine = registry.scheme() == "http"
            && (url.host_str().is_some_and(is_loopback) || url.host_str() == registry.host_str());
        match url.scheme() {
            "https" => {}
            "http" if plain_is_fine => {}
            _ => return Err(format!("token realm `{realm}` is not https")),
        }
        // Where clouds keep their machines' secrets; no registry gives out tokens there.
        if url.host_str().is_some_and(is_link_local) {
            return Err(format!("token realm `{realm}` is link-local"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a token realm with a user name in it".to_owned());
        }
        let service = service.map(|service| ("service", service.to_owned()));
        let scopes = scope.words(repository).into_iter().map(|word| ("scope", word));
        Ok(Self {
            realm: url,
            parameters: service.into_iter().chain(scopes).collect(),
        })
    }

    /// Returns the address of a `GET` for the token, for `account` where there is one.
    pub(crate) fn url(&self, account: Option<&str>) -> Url {
        let mut url = self.realm.clone();
        if let Some(account) = account {
            url.query_pairs_mut().append_pair("account", account);
        }
        url.query_pairs_mut().extend_pairs(&self.parameters);
        url
    }
}

/// Says whether credentials for `registry` may be sent to `realm`: to the same host, or to one of the same site. A
/// site is the last two labels of a name, or three where the second last is as short as that of `co.uk`.
pub(crate) fn shares_site(registry: &Url, realm: &Url) -> bool {
    let (Some(one), Some(other)) = (registry.host_str(), realm.host_str()) else {
        return false;
    };
    if one == other {
        return true;
    }
    let is_address = |host: &str| host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if is_loopback(one) && is_loopback(other) {
        return true;
    }
    !is_address(one)
        && !is_address(other)
        && site(one).is_some_and(|site_of_one| site(other) == Some(site_of_one))
}

fn site(host: &str) -> Option<&str> {
    let mut dots = host.rmatch_indices('.').map(|(at, _)| at);
    let (last, second) = (dots.next()?, dots.next());
    let start_of_two = second.map_or(0, |dot| dot + 1);
    let is_short = host.len() - last == 3 && last - start_of_two <= 3;
    let dot = if is_short { dots.next() } else { second };
    if is_short && second.is_none() {
        return None;
    }
    Some(&host[dot.map_or(0, |dot| dot + 1)..])
}

/// Says whether a host is an address that only this network segment knows.
fn is_link_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse().is_ok_and(|address| match address {
        std::net::IpAddr::V4(address) => address.is_link_local(),
        std::net::IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|address| address.is_link_local())
        }
    })
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
    fn tokens_are_asked_for_what_is_done_from_safe_realms() {
        // hardening T75, hardening T76
        let https = Url::parse("https://r.example").unwrap();
        let http = Url::parse("http://127.0.0.1:5000").unwrap();
        let url = |realm: &str, service, scope: &Scope| {
            let request = TokenRequest::new(&https, (realm, service), "o/app", scope).unwrap();
            request.url(None).to_string()
        };
        assert_eq!(
            url("https://a/t?x=1", Some("s"), &Scope::Pull),
            "https://a/t?x=1&service=s&scope=repository%3Ao%2Fapp%3Apull"
        );
        assert_eq!(
            url("https://a/t", None, &Scope::Push),
            "https://a/t?scope=repository%3Ao%2Fapp%3Apull%2Cpush"
        );
        let from = "base".to_owned();
        assert_eq!(
            url("https://a/t", None, &Scope::Mount { from }),
            "https://a/t?scope=repository%3Ao%2Fapp%3Apull%2Cpush&scope=repository%3Abase%3Apull"
        );
        TokenRequest::new(&http, ("http://localhost:1/t", None), "a", &Scope::Pull).unwrap();
        for (registry, realm) in [
            (&https, "http://169.254.169.254/"),
            (&http, "http://169.254.169.254/"),
            (&https, "http://127.0.0.1/"),
            (&https, "https://169.254.169.254/latest"),
            (&https, "https://2852039166/"),
            (&https, "https://[::ffff:169.254.169.254]/"),
            (&https, "https://[fe80::1]/"),
            (&https, "file:///etc/passwd"),
            (&https, "https://user:pass@a/"),
            (&https, "nonsense"),
        ] {
            let refused = TokenRequest::new(registry, (realm, None), "a", &Scope::Pull);
            assert!(refused.is_err(), "{realm}");
        }
    }

    #[test]
    fn credentials_stay_within_the_site() {
        // hardening T75
        for (registry, realm, expected) in [
            ("registry-1.docker.io", "auth.docker.io", true),
            ("registry.gitlab.com", "gitlab.com", true),
            ("r.example.co.uk", "auth.example.co.uk", true),
            ("ghcr.io", "ghcr.io", true),
            ("127.0.0.1:5000", "localhost:5001", true),
            ("r.example.co.uk", "evil.co.uk", false),
            ("r.example.org", "example.org.evil.net", false),
            ("r.example.org", "169.254.169.254", false),
            ("10.0.0.1", "11.0.0.1", false),
            ("localhost", "example.org", false),
        ] {
            let url = |host: &str| Url::parse(&format!("https://{host}/")).unwrap();
            assert_eq!(
                shares_site(&url(registry), &url(realm)),
                expected,
                "{registry} {realm}"
            );
        }
    }
}
