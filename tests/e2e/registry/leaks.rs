//! Secrets that addresses, options and variables carry: they reach whom they are for, and are written down nowhere.

use std::path::Path;

use super::faults::{Act, Faults};
use super::{Options, Registry, USER};
use crate::scene::{Output, Scene};
use crate::validate;

/// What may not be found, in the forms in which it could be.
const TOKEN: &str = "q7Zt4kVw9LxN2mB8RcYhJ5sPdF3gA6eU";

fn forms() -> Vec<String> {
    use base64::Engine as _;
    // All but the ends, which depend on what stands beside it.
    let inner = |text: &str| text[2..text.len() - 3].to_owned();
    let encoder = base64::engine::general_purpose::STANDARD_NO_PAD;
    let mut forms = vec![TOKEN.to_owned()];
    for padding in ["", "x", "xx"] {
        forms.push(inner(&encoder.encode(format!("{padding}{TOKEN}"))));
    }
    forms.push(TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect());
    forms
}

/// Fails where the token was said, or is in the store or the outputs, compressed or not.
fn scan(scene: &Scene, what: &str, said: &Output) {
    let store = scene.store().display().to_string();
    let unpack = format!(
        "mkdir -p unpacked && for b in $(find {store} out* -type f); do zcat -f \"$b\" >unpacked/$(basename \"$b\") 2>/dev/null || :; done"
    );
    scene.run("sh", &["-c", &unpack]);
    let unpacked = scene.work().join("unpacked").display().to_string();
    for form in forms() {
        for text in [said.stdout_text(), said.stderr_text()] {
            assert!(!text.contains(&form), "{what}: {text}");
        }
        let found = scene.run("grep", &["-rlaF", "--", &form, &store, &unpacked]);
        assert_eq!(found.code, Some(1), "{what}: {}", found.stdout_text());
    }
    std::fs::remove_dir_all(scene.work().join("unpacked")).unwrap();
}

/// A server of files that knows one path; its log says whether the token came through.
fn server(registry: &Registry) -> Faults {
    Faults::start(&registry.host, |seen| match seen.path.starts_with("/file") {
        true => Act::status(200).body("content"),
        false => Act::status(404),
    })
}

fn build(scene: &Scene, dockerfile: &str, more: &[&str]) -> Output {
    std::fs::write(scene.work().join("Dockerfile"), dockerfile).unwrap();
    let words = [
        "build",
        "-o",
        "type=oci,dest=out.tar",
        "--provenance=mode=min",
        "--metadata-file",
        "out.json",
    ];
    scene.run("ashlar", &[&words[..], more, &["."]].concat())
}

#[test]
fn secrets_of_addresses_and_headers_are_told_to_nobody() {
    // hardening T79
    let mut scene = Scene::new("leaks_addresses");
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), Options::default()) else {
        return;
    };
    let server = server(&registry);
    let host = server.host.clone();
    std::fs::write(scene.aside("token"), format!("Bearer {TOKEN}")).unwrap();
    let secret = format!(
        "id=HTTP_AUTH_HEADER_{},src={}",
        host.split(':').next().unwrap(),
        scene.aside("token").display()
    );
    let bad = format!("id=HTTP_AUTH_HEADER,src={}", scene.aside("token").display());
    for progress in ["plain", "rawjson"] {
        let show = ["--no-cache", "--progress", progress];
        let ok = format!("FROM scratch\nADD http://{host}/file /\n");
        let said = build(&scene, &ok, &[&show[..], &["--secret", &secret]].concat());
        assert_eq!(said.code, Some(0), "{}", said.stderr_text());
        let heard = server.take().iter().any(|seen| {
            seen.headers
                .get("authorization")
                .is_some_and(|it| it.contains(TOKEN))
        });
        assert!(heard, "the server gets what it is to get");
        scan(&scene, "a header", &said);
        let missing = format!("FROM scratch\nADD http://{host}/missing /\n");
        let said = build(&scene, &missing, &[&show[..], &["--secret", &bad]].concat());
        assert_ne!(said.code, Some(0));
        scan(&scene, "a header that helps nobody", &said);
        for address in [
            format!("http://mason:{TOKEN}@{host}/file"),
            format!("http://mason:{TOKEN}@{host}/missing"),
            format!("http://mason:{TOKEN}@{host}/x.git"),
            format!("http://{TOKEN}@{host}/x.git#main:sub"),
            format!("http://{host}/file?access_token={TOKEN}"),
            format!("http://{host}/missing?access_token={TOKEN}"),
        ] {
            let dockerfile = format!("FROM scratch\nADD {address} /x/\n");
            let said = build(&scene, &dockerfile, &show);
            let is_there = address.contains("/file");
            assert_eq!(said.code == Some(0), is_there, "{}", said.stderr_text());
            scan(
                &scene,
                &format!("{progress} {}", address.replace(TOKEN, "TOKEN")),
                &said,
            );
        }
    }
    // A proxy that is not there, and one that is.
    for proxy in [
        format!("http://mason:{TOKEN}@127.0.0.1:1"),
        format!("http://mason:{TOKEN}@{host}"),
    ] {
        for name in ["http_proxy", "HTTP_PROXY"] {
            scene.set(name, &proxy);
        }
        let said = build(
            &scene,
            "FROM scratch\nADD http://quarry.example/file /\n",
            &["--no-cache", "--build-arg", &format!("HTTP_PROXY={proxy}")],
        );
        assert_ne!(said.code, Some(0));
        scan(&scene, "a proxy", &said);
    }
    drop(registry);
    validate::finish(scene);
}

#[test]
fn passwords_and_options_are_told_to_nobody() {
    // hardening T79, hardening T80
    let mut scene = Scene::new("leaks_options");
    let Some(registry) = Registry::with_logins(&scene) else {
        return;
    };
    for cache in [
        format!("type=s3,region=x,bucket=x,secret_access_key={TOKEN}"),
        format!("type=gha,token={TOKEN}"),
        format!("type=registry,ref=https://mason:{TOKEN}@quarry.example/cache"),
        format!("type=local,dest=cache,password={TOKEN}"),
    ] {
        let said = build(
            &scene,
            "FROM scratch\nCOPY Dockerfile /\n",
            &["--cache-to", &cache],
        );
        assert_ne!(said.code, Some(0));
        scan(&scene, &cache.replace(TOKEN, "TOKEN"), &said);
    }
    // Logins: refused, kept by a helper that looks at its parent, and used.
    let bin = scene.aside("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let kept = scene.aside("keychain").display().to_string();
    let helper = format!(
        "#!/bin/sh\ncat /proc/$$/environ /proc/$$/cmdline /proc/$PPID/environ /proc/$PPID/cmdline >>{kept}.seen\n\
         grep -a . /proc/$PPID/mem >/dev/null 2>&1 && echo readable >>{kept}.seen\nstat -c 'parent %u' /proc/$PPID/environ >>{kept}.seen\n\
         case $1 in\nstore) cat >{kept} ;;\nget) cat {kept} 2>/dev/null || {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\nesac\n"
    );
    write_program(&bin.join("docker-credential-quarry"), &helper);
    let path = format!("{}:{}", bin.display(), scene.var("PATH").unwrap());
    scene.set("PATH", &path);
    let config = scene.aside("home/.docker");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.json"), "{\"credsStore\": \"quarry\"}").unwrap();
    let args = ["login", "-u", USER.0, "--password-stdin", registry.host.as_str()];
    let refused = scene.run_in(&scene.work(), "ashlar", &args, Some(TOKEN.as_bytes()));
    assert_eq!(refused.code, Some(3));
    scan(&scene, "a wrong password", &refused);
    super::login::log_in(&scene, &registry.host);
    scene.ashlar_ok(&["pull", "-q", &format!("{}/team/app:1", registry.host)]);
    let seen = std::fs::read(format!("{kept}.seen")).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("docker-credential-quarry"), "{seen}");
    assert!(!seen.contains(USER.1), "{seen}");
    drop(registry);
    validate::finish(scene);
}

fn write_program(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
