//! Whom to trust, and whom to ask first: private authorities, certificates of our own, mirrors, blocked registries.

use super::faults::{Act, Faults};
use super::{Options, Registry};
use crate::scene::{Output, Scene};
use crate::validate;

/// Writes a file below `~/.config`.
fn configure(scene: &Scene, name: &str, text: &str) {
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
