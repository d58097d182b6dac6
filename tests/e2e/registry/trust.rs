//! Whom to trust, and whom to ask first: private authorities, certificates of our own, mirrors, blocked registries.

use super::faults::{Act, Faults};
use super::{Options, Registry};
use crate::machine;
use crate::scene::{Output, Scene};
use crate::validate;

/// Writes a file below `~/.config`.
pub(super) fn configure(scene: &Scene, name: &str, text: &str) {
    let path = scene.aside("home/.config").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn pull(scene: &Scene, name: &str) -> Output {
    scene.run("ashlar", &["pull", "-q", name])
}

#[test]
fn a_private_authority_is_trusted_where_somebody_says_so_and_nowhere_else() {
    // hardening T77
    let scene = Scene::new("trust_tls");
    let options = Options {
        has_tls: true,
        has_logins: true,
        ..Options::default()
    };
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), options) else {
        return;
    };
    registry.fill(&scene, "team/app:1");
    let name = format!("{}/team/app:1", registry.host);
    let own = |entry: &str| format!("[registry.\"{}\"]\n{entry}\n", registry.host);
    let ca = registry.authority().display().to_string();

    // TLS is asked for, but nobody vouches for the certificate: no way around it is tried.
    let wrong = scene.aside("other.pem");
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other -keyout /dev/null -out";
    scene.must("sh", &["-c", &format!("{make} {} 2>/dev/null", wrong.display())]);
    configure(
        &scene,
        "ashlar/registries.toml",
        &own(&format!("ca = [\"{}\"]", wrong.display())),
    );
    let refused = pull(&scene, &name);
    assert_eq!(refused.code, Some(3));
    let said = refused.stderr_text();
    assert!(
        said.contains("cannot reach the registry") && said.contains("certificate"),
        "{said}"
    );

    configure(
        &scene,
        "ashlar/registries.toml",
        &own(&format!("ca = [\"{ca}\"]")),
    );
    super::login::log_in(&scene, &registry.host);
    assert_eq!(pull(&scene, &name).code, Some(0));
    // And back, with the same trust and login; others find it there.
    let pushed = format!("{}/own/app:1", registry.host);
    scene.ashlar_ok(&["tag", &name, &pushed]);
    scene.ashlar_ok(&["push", "-q", &pushed]);
    let login = format!("{}:{}", super::USER.0, super::USER.1);
    let there = format!("docker://{pushed}");
    let certs = scene.aside("certs");
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::copy(&ca, certs.join("ca.crt")).unwrap();
    let certs = certs.display().to_string();
    scene.must(
        "skopeo",
        &["inspect", "--cert-dir", &certs, "--creds", &login, &there],
    );
    configure(
        &scene,
        "ashlar/registries.toml",
        &own("insecure = true\nhttp = false"),
    );
    assert_eq!(pull(&scene, &name).code, Some(0));
    configure(&scene, "ashlar/registries.toml", "");

    // As podman and docker have it.
    configure(
        &scene,
        &format!("containers/certs.d/{}/ca.crt", registry.host),
        &std::fs::read_to_string(&ca).unwrap(),
    );
    assert_eq!(pull(&scene, &name).code, Some(0));
    drop(registry);
    validate::finish(scene);
}

#[test]
fn mirrors_are_asked_first_and_the_registry_itself_when_they_fail() {
    // hardening R17
    let scene = Scene::new("trust_mirrors");
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), Options::default()) else {
        return;
    };
    registry.fill(&scene, "copies/team/app:1");
    registry.fill(&scene, "team/app:1");
    let origin = Faults::start(&registry.host, |_| Act::Pass);
    let broken = Faults::start(&registry.host, |_| Act::status(500));
    let good = Faults::start(&registry.host, |_| Act::Pass);
    let name = format!("{}/team/app:1", origin.host);
    let config = |mirrors: &[String]| format!("[registry.\"{}\"]\nmirrors = {mirrors:?}\n", origin.host);

    configure(
        &scene,
        "ashlar/registries.toml",
        &config(&[broken.host.clone(), format!("{}/copies", good.host)]),
    );
    assert_eq!(pull(&scene, &name).code, Some(0));
    assert_eq!(origin.take_lines(), [""; 0]);
    let lines = good.take_lines();
    assert_eq!(lines[0], "GET /v2/copies/team/app/manifests/1");
    // A mirror isn't asked twice for the same: there is somebody else.
    assert_eq!(broken.take_lines().len(), lines.len());

    // One that doesn't answer is asked once; one that lacks the image sends us on.
    std::fs::remove_dir_all(scene.store()).unwrap();
    configure(
        &scene,
        "ashlar/registries.toml",
        &config(&["127.0.0.1:1".to_owned(), format!("{}/nothing", good.host)]),
    );
    assert_eq!(pull(&scene, &name).code, Some(0));
    assert_eq!(origin.take_lines().len(), 4);

    configure(&scene, "ashlar/registries.toml", "");
    let rule = format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", origin.host);
    configure(&scene, "containers/registries.conf", &rule);
    let blocked = pull(&scene, &name);
    assert!(
        blocked.stderr_text().contains("may not be used"),
        "{}",
        blocked.stderr_text()
    );
    let moved = format!(
        "[[registry]]\nprefix = \"{}/team\"\nlocation = \"{}/copies/team\"\n",
        origin.host, good.host
    );
    good.take();
    configure(&scene, "containers/registries.conf", &moved);
    assert_eq!(pull(&scene, &name).code, Some(0));
    assert_eq!(good.take_lines(), ["HEAD /v2/copies/team/app/manifests/1"]);
    configure(&scene, "ashlar/registries.toml", "[registry");
    assert!(
        pull(&scene, &name)
            .stderr_text()
            .contains("registries.toml is malformed")
    );
    drop(registry);
    validate::finish(scene);
}

#[test]
fn proxies_of_the_environment_are_used_but_not_for_this_machine() {
    let mut scene = Scene::new("trust_proxy");
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), Options::default()) else {
        return;
    };
    registry.fill(&scene, "team/app:1");
    // A proxy gets the whole address in the request's first line; the registry behind it wants the path only.
    let proxy = Faults::start(&registry.host, |_| Act::status(404));
    let url = format!("http://{}", proxy.host);
    scene.set("HTTP_PROXY", &url);
    scene.set("http_proxy", &url);
    assert_eq!(
        pull(&scene, &format!("{}/team/app:1", registry.host)).code,
        Some(0)
    );
    assert_eq!(proxy.take_lines(), [""; 0]);
    configure(
        &scene,
        "ashlar/registries.toml",
        "[registry.\"quarry.example\"]\nhttp = true\n",
    );
    let far = pull(&scene, "quarry.example/team/app:1");
    assert!(
        far.stderr_text().contains("not found in its registry"),
        "{}",
        far.stderr_text()
    );
    assert_eq!(
        proxy.take_lines(),
        ["GET http://quarry.example/v2/team/app/manifests/1"]
    );
    scene.set("NO_PROXY", "quarry.example");
    pull(&scene, "quarry.example/team/app:1");
    assert_eq!(proxy.take_lines(), [""; 0]);
    drop(registry);
    validate::finish(scene);
}

#[test]
fn a_certificate_out_of_its_time_makes_one_think_of_the_clock() {
    // hardening R18
    let scene = Scene::new("trust_clock");
    let options = Options {
        has_tls: true,
        is_expired: true,
        ..Options::default()
    };
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), options) else {
        return;
    };
    let ca = registry.authority().display().to_string();
    configure(
        &scene,
        "ashlar/registries.toml",
        &format!("[registry.\"{}\"]\nca = [\"{ca}\"]\n", registry.host),
    );
    let year = scene
        .must("date", &["-u", "+clock of this machine says %Y-"])
        .stdout_text();
    let refused = pull(&scene, &format!("{}/team/app:1", registry.host));
    assert_eq!(refused.code, Some(3));
    let said = refused.stderr_text();
    assert!(said.contains("Expired") && said.contains(year.trim()), "{said}");
    drop(registry);
    validate::finish(scene);
}

#[test]
fn what_is_here_needs_no_network() {
    // hardening R17
    let test = "trust_offline";
    if let Some(reason) = machine::missing(&["exec:strace", "exec:unshare"]) {
        machine::skip(test, &reason);
        return;
    }
    let scene = Scene::new(test);
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), Options::default()) else {
        return;
    };
    registry.fill(&scene, "team/app:1");
    let name = format!("{}/team/app:1", registry.host);
    let told = scene.ashlar_ok(&["pull", &name]).stdout_text();
    let digest = told
        .lines()
        .find_map(|line| line.strip_prefix("Digest: "))
        .unwrap();
    let pinned = format!("{}@{digest}", name.strip_suffix(":1").unwrap());
    scene.ashlar_ok(&["pull", "-q", &pinned]);
    drop(registry);
    for (what, base) in [("a tag", &name), ("a digest", &pinned)] {
        std::fs::write(
            scene.work().join("Dockerfile"),
            format!("FROM {base}\nCOPY Dockerfile /\n"),
        )
        .unwrap();
        let build = ["ashlar", "build", "-q", "--no-cache", "."];
        // Not even the loopback is up there.
        scene.must("unshare", &[&["-n"], &build[..]].concat());
        scene.must(
            "strace",
            &[&["-f", "-e", "trace=socket,connect", "-o", "trace"], &build[..]].concat(),
        );
        let trace = std::fs::read_to_string(scene.work().join("trace")).unwrap();
        assert!(trace.contains("exited with 0"), "{trace}");
        assert!(!trace.contains("AF_INET"), "{what}: {trace}");
    }
    // Asking for what is new is what needs one.
    let newest = scene.run("unshare", &["-n", "ashlar", "pull", "-q", &name]);
    assert_eq!(newest.code, Some(3), "{}", newest.stderr_text());
    assert!(
        newest.stderr_text().contains("cannot reach the registry"),
        "{}",
        newest.stderr_text()
    );
    // A pinned one is what it was.
    scene.must("unshare", &["-n", "ashlar", "pull", "-q", &pinned]);
    validate::finish(scene);
}
