//! What the files of configuration make of a name.
#![expect(clippy::disallowed_methods, reason = "directories that only these tests know")]

use super::*;

/// A user's configuration directory, and what it says of names.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(".config").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { dir }
    }

    fn settings(&self) -> Result<Settings, ConfigError> {
        let vars = [("HOME".to_owned(), self.dir.path().display().to_string())];
        Settings::of(&Environment {
            vars: vars.into_iter().collect(),
            root: false,
        })
    }

    /// Returns where a name leads, mirrors first: scheme, address, repository, and whom is trusted.
    fn ways(&self, name: &str) -> Vec<String> {
        let route = self
            .settings()
            .unwrap()
            .route(&Reference::parse(name).unwrap())
            .unwrap();
        let mirrors = route.mirrors.into_iter().map(|mirror| match mirror.serves {
            Serves::All => show(&mirror.host),
            other => format!("{} {other:?}", show(&mirror.host)),
        });
        mirrors.chain([show(&route.origin)]).collect()
    }
}

fn show(host: &Host) -> String {
    let scheme = if host.is_plain { "http" } else { "https" };
    let mut text = format!("{scheme}://{}/{}", host.address, host.repository);
    if host.tls.is_unverified {
        text.push_str(" unverified");
    }
    for path in &host.tls.authorities {
        text.push_str(&format!(" ca={}", path.file_name().unwrap().display()));
    }
    if let Some((certificate, _)) = &host.tls.identity {
        text.push_str(&format!(" shows={}", certificate.file_name().unwrap().display()));
    }
    text
}

#[test]
fn only_this_machine_is_reached_without_tls() {
    // hardening T77
    let home = Home::new(&[]);
    for (name, expected) in [
        ("alpine", "https://registry-1.docker.io/library/alpine"),
        ("ghcr.io/o/a", "https://ghcr.io/o/a"),
        ("192.0.2.1:5000/a", "https://192.0.2.1:5000/a"),
        ("localhost.example.org/a", "https://localhost.example.org/a"),
        ("localhost:5000/a", "http://localhost:5000/a"),
        ("127.9.9.9/a", "http://127.9.9.9/a"),
        ("[::1]:5000/a", "http://[::1]:5000/a"),
    ] {
        assert_eq!(home.ways(name), [expected]);
    }
}

#[test]
fn our_own_file_names_mirrors_and_whom_to_trust() {
    let home = Home::new(&[(
        "ashlar/registries.toml",
        r#"
        [registry."docker.io"]
        mirrors = ["mirror.example:5000", "other.example/hub"]
        [registry."mirror.example:5000"]
        http = true
        [registry."r.example"]
        insecure = true
        realms = ["login.example.net"]
        [registry."localhost:5001"]
        ca = ["/somewhere/ca.pem"]
        keypair = { cert = "/somewhere/me.pem", key = "/somewhere/me.key" }
        "#,
    )]);
    assert_eq!(
        home.ways("alpine"),
        [
            "http://mirror.example:5000/library/alpine",
            "https://other.example/hub/library/alpine",
            "https://registry-1.docker.io/library/alpine",
        ]
    );
    assert_eq!(home.ways("r.example/a"), ["https://r.example/a unverified"]);
    assert_eq!(
        home.ways("localhost:5001/a"),
        ["https://localhost:5001/a ca=ca.pem shows=me.pem"]
    );
    let host = home.settings().unwrap().host("r.example", "a").unwrap();
    let realm = |text: &str| host.trusts_realm(&Url::parse(text).unwrap());
    assert!(realm("https://login.example.net/token") && !realm("https://example.net/token"));
}

#[test]
fn podmans_file_and_certificates_are_honoured() {
    let home = Home::new(&[
        (
            "containers/registries.conf",
            r#"
            unqualified-search-registries = ["quay.io"]
            [[registry]]
            prefix = "r.example/team"
            location = "moved.example/crew"
            [[registry.mirror]]
            location = "m.example/team"
            [[registry.mirror]]
            location = "n.example/team"
            insecure = true
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "*.corp.example"
            insecure = true
            [[registry]]
            location = "bad.example"
            blocked = true
            "#,
        ),
        (
            "containers/registries.conf.d/50.conf",
            "[[registry]]\nlocation = \"localhost:5002\"\n",
        ),
        ("containers/certs.d/localhost:5000/ca.crt", ""),
        ("containers/certs.d/localhost:5000/client.cert", ""),
        ("containers/certs.d/localhost:5000/client.key", ""),
    ]);
    assert_eq!(
        home.ways("r.example/team/app"),
        [
            "https://m.example/team/app",
            "https://n.example/team/app unverified Digests",
            "http://n.example/team/app Digests",
            "https://moved.example/crew/app",
        ]
    );
    assert_eq!(home.ways("r.example/teams/app"), ["https://r.example/teams/app"]);
    assert_eq!(
        home.ways("a.corp.example/x"),
        ["https://a.corp.example/x unverified", "http://a.corp.example/x"]
    );
    assert_eq!(
        home.ways("alpine"),
        ["https://registry-1.docker.io/library/alpine"]
    );
    assert_eq!(
        home.ways("localhost:5000/a"),
        ["https://localhost:5000/a ca=ca.crt shows=client.cert"]
    );
    let blocked = Reference::parse("bad.example/a").unwrap();
    let error = home.settings().unwrap().route(&blocked).unwrap_err().to_string();
    assert!(
        error.starts_with("bad.example/a:latest may not be used: "),
        "{error}"
    );
}

#[test]
fn what_cannot_be_understood_is_an_error() {
    for (name, text, expected) in [
        ("ashlar/registries.toml", "[registry", "is malformed"),
        (
            "ashlar/registries.toml",
            "[registry.\"a.b\"]\ninsecrue = true",
            "unknown field `insecrue`",
        ),
        (
            "containers/registries.conf",
            "[[registry]]\nblocked = 1",
            "is malformed",
        ),
    ] {
        let error = Home::new(&[(name, text)]).settings().unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
}
