//! What names an image: `alpine`, `ghcr.io/owner/app:1`, `app@sha256:…`. Parsed and completed as Docker does it.
//!
//! Only syntax: nothing here asks a registry or the store whether the name exists.
//! Spec: the grammar in the `distribution/reference` package's documentation.

use std::fmt;
use std::str::FromStr;

use cache::Digest;

/// The registry that a name without a host means.
const DEFAULT_DOMAIN: &str = "docker.io";
/// What names on Docker Hub without an owner belong to.
const OFFICIAL: &str = "library/";
/// Longest name without tag and digest; `distribution/reference` has the same limit.
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// Says why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReferenceError {
    /// Nothing that the grammar knows.
    #[error("invalid reference format: `{0}`")]
    Format(String),
    /// Docker's own words, because people search for them.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Too long.
    #[error("invalid reference format: `{0}…` is longer than {MAX_NAME_BYTES} bytes")]
    TooLong(String),
    /// Would be mistaken for an image ID.
    #[error("invalid repository name ({0}): 64 hexadecimal digits are an image ID, not a name")]
    Identifier(String),
}

/// A complete reference: host and repository, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses `text` and completes it: `alpine` becomes `docker.io/library/alpine:latest`.
    pub(crate) fn parse(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError::Format(text.chars().take(300).collect());
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| bad())?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to the host.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].split_once(':') {
            Some((last, tag)) => (&rest[..name_start + last.len()], Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad());
        }
        let (domain, path) = split_domain(name);
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) && is_path(&path.to_ascii_lowercase()) {
            return Err(ReferenceError::Uppercase(path));
        }
        if !is_domain(&domain) || !is_path(&path) {
            return Err(bad());
        }
        if domain.len() + 1 + path.len() > MAX_NAME_BYTES {
            return Err(ReferenceError::TooLong(name.chars().take(40).collect()));
        }
        let tag = tag
            .or(digest.is_none().then_some("latest"))
            .map(ToOwned::to_owned);
        Ok(Self {
            domain,
            path,
            tag,
            digest,
        })
    }

    /// Returns the host, with its port where it has one: `docker.io`, `localhost:5000`.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the repository's name on that host: `library/alpine`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the tag; `None` only where a digest was given without one.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest that pins this reference.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns what a registry is asked for: the digest if there is one, else the tag.
    pub(crate) fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => unreachable!("parse completes every reference"),
        }
    }

    /// Returns the host and repository without tag and digest.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Returns the short form of [`Reference::repository`] that people write: `alpine`, `owner/app`.
    pub(crate) fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Returns the short form with tag and digest; parses back to the same reference.
    pub(crate) fn familiar(&self) -> String {
        self.with_target(self.familiar_name())
    }

    fn with_target(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_target(self.repository()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Decides, as Docker does, whether what stands before the first slash is a host.
fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL}{path}"));
    }
    (domain.to_owned(), path.to_owned())
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !tag.is_empty()
        && tag.len() <= MAX_TAG_BYTES
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else {
                return false;
            };
            let Ok(_) = address.parse::<std::net::Ipv6Addr>() else {
                return false;
            };
            return match after.strip_prefix(':') {
                Some(port) => is_port(port),
                None => after.is_empty(),
            };
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Checks path components: runs of `[a-z0-9]` joined by `.`, `_`, `__` or any number of `-`.
fn is_path(path: &str) -> bool {
    path.split('/').all(|component| {
        let alphanumeric = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
        let bytes = component.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes
                .split(alphanumeric)
                .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|&byte| byte == b'-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

    #[test]
    fn names_are_completed_as_docker_does() {
        for (text, canonical, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("owner/app", "docker.io/owner/app:latest", "owner/app:latest"),
            (
                "docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            (
                "index.docker.io/library/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            (
                "library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            (
                "localhost:5000/app:1",
                "localhost:5000/app:1",
                "localhost:5000/app:1",
            ),
            (
                "127.0.0.1:5000/a/b/c",
                "127.0.0.1:5000/a/b/c:latest",
                "127.0.0.1:5000/a/b/c:latest",
            ),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            (
                "ghcr.io/o/a__b.c--d:V_1.-x",
                "ghcr.io/o/a__b.c--d:V_1.-x",
                "ghcr.io/o/a__b.c--d:V_1.-x",
            ),
            ("UPPER/app", "UPPER/app:latest", "UPPER/app:latest"),
            ("app:5000", "docker.io/library/app:5000", "app:5000"),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(Reference::parse(canonical).as_ref(), Ok(&reference), "{text}");
            assert_eq!(Reference::parse(familiar).as_ref(), Ok(&reference), "{text}");
        }
    }

    #[test]
    fn a_digest_needs_no_tag_and_wins_over_one() {
        let pinned = Reference::parse(&format!("alpine@{DIGEST}")).unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.target(), DIGEST);
        assert_eq!(pinned.to_string(), format!("docker.io/library/alpine@{DIGEST}"));
        let both = Reference::parse(&format!("alpine:3@{DIGEST}")).unwrap();
        assert_eq!((both.tag(), both.target()), (Some("3"), DIGEST.to_owned()));
        assert_eq!(both.to_string(), format!("docker.io/library/alpine:3@{DIGEST}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            ":tag",
            "a:",
            "a:-x",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a_",
            "https://host/a",
            "host:port/a",
            "host:99999/a",
            "[::1/a",
            "[x]:1/a",
            "a@sha256:1234",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            "a@b@c",
            "../etc",
            "a/../b",
            "host.io/a\0b",
            "é",
        ] {
            assert!(
                matches!(Reference::parse(text), Err(ReferenceError::Format(_))),
                "{text:?}"
            );
        }
        assert!(Reference::parse(&format!("a:{}", "x".repeat(129))).is_err());
        assert_eq!(
            Reference::parse("Alpine"),
            Err(ReferenceError::Uppercase("library/Alpine".to_owned()))
        );
        assert!(matches!(
            Reference::parse(&"a".repeat(300)),
            Err(ReferenceError::TooLong(_))
        ));
        assert!(matches!(
            Reference::parse(&"a".repeat(64)),
            Err(ReferenceError::Identifier(_))
        ));
    }
}
