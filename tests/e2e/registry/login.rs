//! `ashlar login` and `logout`, and what they open: registries with basic logins and with tokens.

use std::os::unix::fs::PermissionsExt as _;

use super::faults::{Act, Faults};
use super::{Options, Registry, USER};
use crate::scene::Scene;
use crate::validate;

/// Logs [`USER`] in.
pub(super) fn log_in(scene: &Scene, host: &str) {
    let args = ["login", "-u", USER.0, "--password-stdin", host];
    let output = scene.run_in(&scene.work(), "ashlar", &args, Some(USER.1.as_bytes()));
    assert_eq!(output.code, Some(0), "{}", output.stderr_text());
    assert_eq!(output.stdout_text(), "Login Succeeded\n");
}

#[test]
fn a_login_opens_a_registry_until_the_logout() {
    let scene = Scene::new("login_basic");
    let Some(registry) = Registry::with_logins(&scene) else {
        return;
    };
    let name = format!("{}/team/app:1", registry.host);
    let refused = scene.run("ashlar", &["pull", &name]);
    assert_eq!(refused.code, Some(3));
    let hint = format!("try `ashlar login {}`", registry.host);
    assert!(refused.stderr_text().contains(&hint), "{}", refused.stderr_text());

    let args = ["login", "-u", USER.0, "--password-stdin", registry.host.as_str()];
    let wrong = scene.run_in(&scene.work(), "ashlar", &args, Some(b"hammer"));
    assert_eq!(wrong.code, Some(3));
    assert!(
        wrong.stderr_text().contains("was refused"),
        "{}",
        wrong.stderr_text()
    );
    assert!(!wrong.stderr_text().contains("hammer"), "{}", wrong.stderr_text());
    let file = scene.aside("home/.docker/config.json");
    assert!(!file.exists(), "what was refused is not kept");

    log_in(&scene, &registry.host);
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    scene.ashlar_ok(&["pull", &name]);
    // Others read what we keep.
    let auth = file.display().to_string();
    scene.must(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--authfile",
            &auth,
            &format!("docker://{name}"),
        ],
    );

    let out = scene.ashlar_ok(&["logout", &registry.host]);
    assert_eq!(
        out.stdout_text(),
        format!("Removing login credentials for {}\n", registry.host)
    );
    assert_eq!(scene.run("ashlar", &["pull", &name]).code, Some(3));
    // And we read what others keep.
    let login = format!("{}:{}", USER.0, USER.1);
    let base64 = scene
        .must("sh", &["-c", &format!("printf %s '{login}' | base64 -w0")])
        .stdout_text();
    let others = format!(
        "{{\"auths\":{{\"{}/team\":{{\"auth\":\"{base64}\"}}}}}}",
        registry.host
    );
    std::fs::create_dir_all(scene.aside("home/.config/containers")).unwrap();
    std::fs::write(scene.aside("home/.config/containers/auth.json"), others).unwrap();
    scene.ashlar_ok(&["pull", &name]);
    // hardening T79: neither the password nor its encoded form is in the store.
    for secret in [USER.1, base64.as_str()] {
        let found = scene.run(
            "grep",
            &["-rlaF", "--", secret, &scene.store().display().to_string()],
        );
        assert_eq!(found.code, Some(1), "{}", found.stdout_text());
    }
    drop(registry);
    validate::finish(scene);
}

#[test]
fn helpers_keep_and_give_logins() {
    // hardening T78, hardening T80
    let mut scene = Scene::new("login_helper");
    let Some(registry) = Registry::with_logins(&scene) else {
        return;
    };
    let bin = scene.aside("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let helper = bin.join("docker-credential-quarry");
    let kept = scene.aside("keychain").display().to_string();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{kept}.args\ncase $1 in\nstore) cat >{kept} ;;\n\
         get) if [ -f {kept} ]; then cat {kept}; else echo 'credentials not found in native keychain'; exit 1; fi ;;\n\
         erase) rm {kept} ;;\nesac\n"
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), scene.var("PATH").unwrap());
    scene.set("PATH", &path);
    scene.set("DOCKER_CONFIG", &scene.aside("docker").display().to_string());
    std::fs::create_dir_all(scene.aside("docker")).unwrap();
    std::fs::write(scene.aside("docker/config.json"), "{\"credsStore\": \"quarry\"}").unwrap();

    let name = format!("{}/team/app:1", registry.host);
    assert_eq!(scene.run("ashlar", &["pull", &name]).code, Some(3));
    log_in(&scene, &registry.host);
    let config = std::fs::read_to_string(scene.aside("docker/config.json")).unwrap();
    assert!(!config.contains("\"auth\""), "{config}");
    scene.ashlar_ok(&["pull", &name]);
    scene.ashlar_ok(&["logout", &registry.host]);
    assert!(!scene.aside("keychain").exists());
    let args = std::fs::read_to_string(format!("{kept}.args")).unwrap();
    assert!(!args.contains("stone") && !args.contains(USER.0), "{args}");

    std::fs::write(
        scene.aside("docker/config.json"),
        "{\"credsStore\": \"../../evil\"}",
    )
    .unwrap();
    let evil = scene.run("ashlar", &["pull", &name]);
    assert!(
        evil.stderr_text().contains("has a name that no helper may have"),
        "{}",
        evil.stderr_text()
    );
    drop(registry);
    validate::finish(scene);
}

#[test]
fn tokens_are_fetched_for_what_is_done_and_renewed_once_when_they_expire() {
    // hardening T76, hardening T79
    let scene = Scene::new("login_tokens");
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), Options::default()) else {
        return;
    };
    registry.fill(&scene, "team/app:1");
    // The first token is good for two requests: the manifest and the config.
    let faults = Faults::start(&registry.host, |seen| {
        if seen.path.starts_with("/token") {
            let login = seen.headers.get("authorization").map(String::as_str);
            return match login {
                Some("Basic bWFzb246ZHJlc3NlZDpzdG9uZQ==") => {
                    Act::status(200).body(format!("{{\"token\":\"t{}\"}}", seen.n_before))
                }
                _ => Act::status(401),
            };
        }
        let host = seen.headers["host"].clone();
        let is_layer = seen.is_blob() && !seen.path.ends_with("CONFIG");
        match seen.headers.get("authorization").map(String::as_str) {
            Some("Bearer t1") => Act::Pass,
            Some("Bearer t0") if !is_layer || seen.path == "/v2/" => Act::Pass,
            _ => Act::status(401).header(
                "WWW-Authenticate",
                format!("Bearer realm=\"http://{host}/token\",service=\"quarry\",scope=\"repository:all:*\""),
            ),
        }
    });
    log_in(&scene, &faults.host);
    faults.take();
    scene.ashlar_ok(&["pull", &format!("{}/team/app:1", faults.host)]);
    let lines = faults.take_lines();
    let tokens: Vec<&String> = lines.iter().filter(|line| line.contains("/token")).collect();
    let expected = "GET /token?account=mason&service=quarry&scope=repository%3Ateam%2Fapp%3Apull";
    assert_eq!(tokens, [expected, expected], "{lines:?}");
    // A push asks for what it does, and no more, whatever the registry suggests.
    let (from, to) = (
        format!("{}/team/app:1", faults.host),
        format!("{}/own/app:1", faults.host),
    );
    scene.ashlar_ok(&["tag", &from, &to]);
    scene.ashlar_ok(&["push", "-q", &to]);
    let lines = faults.take_lines();
    let mut tokens: Vec<&String> = lines.iter().filter(|line| line.contains("/token")).collect();
    tokens.dedup();
    let write = "GET /token?account=mason&service=quarry&scope=repository%3Aown%2Fapp%3Apull%2Cpush";
    assert!(tokens.iter().all(|line| line.starts_with(write)), "{lines:#?}");
    assert!(!tokens.is_empty(), "{lines:#?}");
    drop(registry);
    validate::finish(scene);
}
