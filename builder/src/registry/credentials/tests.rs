//! Files of logins: what is found in them, what is refused, how they are written.
#![expect(clippy::disallowed_methods, reason = "directories that only these tests know")]

use std::os::unix::fs::PermissionsExt as _;

use super::file::Kept;
use super::*;

fn file(text: &str) -> (tempfile::TempDir, AuthFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    (dir, AuthFile::new(path))
}

fn password(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

fn check(text: &str, host: &str, repository: &str, expected: Option<Credentials>) {
    let (_dir, file) = file(text);
    let found = file.find(host, repository).unwrap();
    // Not assert_eq: Debug hides what differs.
    assert!(found == expected, "{text} {host}/{repository}: {found:?}");
}

#[test]
fn logins_are_found_as_docker_and_podman_find_them() {
    // dTpw is u:p, djpx is v:q.
    let plain = r#"{"auths":{"r.example:5000":{"auth":"dTpw"}}}"#;
    check(plain, "r.example:5000", "a", password("u", "p"));
    check(plain, "r.example", "a", None);
    let hub = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwAAA="}}}"#;
    check(hub, "docker.io", "library/alpine", password("u", "p"));
    check(
        r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#,
        "docker.io",
        "a/b",
        password("u", "p"),
    );
    let old = r#"{"auths":{"http://r.example/v2/":{"username":"u","password":"p:x"}}}"#;
    check(old, "r.example", "a", password("u", "p:x"));
    let long = r#"{"auths":{"r.example":{"auth":"dTpw"},"r.example/team":{"auth":"djpx"}}}"#;
    check(long, "r.example", "team/app", password("v", "q"));
    check(long, "r.example", "teams/app", password("u", "p"));
    let identity = r#"{"auths":{"r.example":{"auth":"dTpw","identitytoken":"t"}}}"#;
    check(
        identity,
        "r.example",
        "a",
        Some(Credentials::Identity("t".to_owned())),
    );
    let token = r#"{"auths":{"r.example":{"registrytoken":"t"}}}"#;
    check(token, "r.example", "a", Some(Credentials::Token("t".to_owned())));
    for without in ["", "{}", r#"{"auths":{}}"#, r#"{"auths":{"r.example":{}}}"#] {
        check(without, "r.example", "a", None);
    }
}

#[test]
fn broken_files_and_unsafe_helpers_are_refused_without_telling_secrets() {
    // hardening T78, hardening T79
    for (text, expected) in [
        (r#"{"auths": s3cret"#, "no JSON object (at line 1, column 11)"),
        (
            r#"{"auths":{"r.example":{"auth":"s3cret!"}}}"#,
            "is not NAME:PASSWORD in base64",
        ),
        (
            r#"{"credsStore":"../../evil"}"#,
            "has a name that no helper may have",
        ),
        (
            r#"{"credsStore":"x;touch y"}"#,
            "has a name that no helper may have",
        ),
        (
            r#"{"credHelpers":{"r.example":"/bin/sh"}}"#,
            "has a name that no helper may have",
        ),
        (
            r#"{"credsStore":"that-nobody-has"}"#,
            "docker-credential-that-nobody-has is not in PATH",
        ),
    ] {
        let (_dir, file) = file(text);
        let error = file.find("r.example", "a").unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let shown = format!("{:?}", password("u", "s3cret"));
    assert_eq!(shown, "Some(Password)");
}

#[test]
fn a_login_is_kept_for_its_owner_only_and_forgotten_again() {
    let (dir, file) = file(r#"{"psFormat":"x","auths":{"other":{"auth":"dTpw"}}}"#);
    let kept = file.keep("docker.io", "u", "p:q").unwrap();
    assert_eq!(kept, Kept::File(file.path().to_owned()));
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(file.find("docker.io", "library/a").unwrap() == password("u", "p:q"));
    assert!(file.forget("docker.io").unwrap());
    assert!(!file.forget("docker.io").unwrap());
    let text = std::fs::read_to_string(file.path()).unwrap();
    let expected = "{\n  \"psFormat\": \"x\",\n  \"auths\": {\n    \"other\": {\n      \"auth\": \"dTpw\"\n    }\n  }\n}\n";
    assert_eq!(text, expected);
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    let fresh = AuthFile::new(dir.path().join("new/deep/config.json"));
    fresh.keep("r.example", "u", "p").unwrap();
    assert!(fresh.find("r.example", "a").unwrap() == password("u", "p"));
}
