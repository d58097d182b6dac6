//! Takes secrets out of addresses in a text, before it is shown or written down: what stands before the `@` of a host, and
//! values of query parameters that sound like one. Knows addresses by their `://`; other secrets are not its business.

/// What stands for a secret.
const MASK: &str = "****";

/// Words in the names of query parameters whose values are nobody's business.
const SECRET_WORDS: [&str; 9] = [
    "token",
    "secret",
    "password",
    "passwd",
    "signature",
    "credential",
    "apikey",
    "api_key",
    "auth",
];

/// Returns an address without user name and password, and without what its query has of secrets: they belong into nothing
/// that is kept or shown.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
    let mut out = format!("{scheme}://");
    redact_address(&rest[host..], &mut out);
    out
}

/// Returns the text without the secrets of the addresses in it.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |char: char| {
            char.is_whitespace() || char.is_control() || matches!(char, '"' | '\'' | '`' | '<' | '>')
        };
        let address = &behind[..behind.find(ends).unwrap_or(behind.len())];
        // An address within an address is looked at by itself.
        let own = address.find("://").unwrap_or(address.len());
        redact_address(&address[..own], &mut out);
        rest = &behind[own..];
    }
    out.push_str(rest);
    out
}

/// Appends an address, without its scheme.
fn redact_address(address: &str, out: &mut String) {
    let (authority, path) = address.split_at(address.find(['/', '?', '#']).unwrap_or(address.len()));
    match authority.rfind('@') {
        Some(at) => {
            out.push_str(MASK);
            out.push_str(&authority[at..]);
        }
        None => out.push_str(authority),
    }
    let Some(query) = path.find('?') else {
        out.push_str(path);
        return;
    };
    let (path, query) = path.split_at(query + 1);
    out.push_str(path);
    let (query, fragment) = query.split_at(query.find('#').unwrap_or(query.len()));
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret(name) => {
                out.push_str(name);
                out.push('=');
                out.push_str(MASK);
            }
            _ => out.push_str(pair),
        }
    }
    out.push_str(fragment);
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
        || matches!(name.as_str(), "key" | "sig" | "pass" | "pw")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_addresses_are_masked_and_nothing_else() {
        // hardening T79
        for (text, expected) in [
            ("https://user:pass@host/x", "https://****@host/x"),
            ("clone https://t0ken@host: no", "clone https://****@host: no"),
            (
                "`ssh://git@host:22/a.git#main`",
                "`ssh://****@host:22/a.git#main`",
            ),
            ("http://a:b@c:d@host?x=1", "http://****@host?x=1"),
            (
                "https://h/f?a=1&access_token=t&X-Amz-Signature=s&b=2#sec",
                "https://h/f?a=1&access_token=****&X-Amz-Signature=****&b=2#sec",
            ),
            (
                "https://h/f?key=k&monkey=m&token=",
                "https://h/f?key=****&monkey=m&token=",
            ),
            (
                "http://p/https://u:p@h/?sig=s",
                "http://p/https://****@h/?sig=****",
            ),
            ("two: ftp://a@b ftp://c@d.", "two: ftp://****@b ftp://****@d."),
            ("https://host/a@b?x=c@d", "https://host/a@b?x=c@d"),
            ("mail@host, a=b://", "mail@host, a=b://"),
            ("://@", "://****@"),
            ("", ""),
        ] {
            assert_eq!(redact(text), expected, "{text}");
            assert_eq!(redact(expected), expected, "{text}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        for (url, shown) in [
            ("https://u:p@h/x", "https://h/x"),
            ("https://u:p@x@h?a", "https://h?a"),
            ("https://h/x@y", "https://h/x@y"),
            ("https://u@h/x?token=t&a=b#c", "https://h/x?token=****&a=b#c"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
