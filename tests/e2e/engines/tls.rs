//! Docker at an address, with certificates on both sides: who is trusted, and what people are told where nobody is.

use std::path::Path;

use super::dockerd::Dockerd;
use super::load;
use crate::scene::Scene;

/// Loads over TLS, and fails to where certificates are missing or somebody else's.
pub(super) fn engines_at_addresses_are_trusted_as_docker_does(scene: &mut Scene, dockerd: &Dockerd) {
    let (host, tls_host) = (dockerd.host(), dockerd.tls_host());
    let certificates = dockerd.certificates();
    scene.set("DOCKER_HOST", &tls_host);
    scene.set("DOCKER_TLS_VERIFY", "1");
    scene.set("DOCKER_CERT_PATH", &certificates.display().to_string());
    let (id, bytes) = load(scene, "seven", &["--load", "-t", "app:7"]);
    assert_eq!(bytes.len(), 1);
    // Docker's own client does with the same variables.
    assert_eq!(super::docker::id(scene, "app:7"), id);

    let directory = |scene: &Scene, name: &str, files: &[(&Path, &str)]| {
        let directory = scene.aside(name);
        std::fs::create_dir_all(&directory).unwrap();
        for (from, name) in files {
            std::fs::copy(from, directory.join(name)).unwrap();
        }
        directory.display().to_string()
    };
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| certificates.join(name));
    let stranger = directory(scene, "stranger", &[(&ca, "ca.pem")]);
    // Its alert may be lost when it hangs up.
    refused(scene, &stranger, "cannot reach Docker at https://");
    // An authority is trusted alone, not besides those of the system.
    let other = scene.aside("other.pem");
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other -keyout /dev/null -out";
    scene.must("sh", &["-c", &format!("{make} {} 2>/dev/null", other.display())]);
    let theirs = [(&*other, "ca.pem"), (&*cert, "cert.pem"), (&*key, "key.pem")];
    let theirs = directory(scene, "theirs", &theirs);
    scene.set("SSL_CERT_FILE", &ca.display().to_string());
    refused(scene, &theirs, "invalid peer certificate: UnknownIssuer");
    scene.set("SSL_CERT_FILE", "");
    let empty = directory(scene, "empty", &[]);
    refused(scene, &empty, "it has no ca.pem");

    // Without verification any authority will do.
    scene.set("DOCKER_TLS_VERIFY", "");
    scene.set("DOCKER_TLS", "1");
    scene.set("DOCKER_CERT_PATH", &theirs);
    let (id, _) = load(scene, "eight", &["--load", "-t", "app:8"]);
    scene.set("DOCKER_TLS", "");
    refused(scene, &theirs, "Docker at http://");
    scene.set("DOCKER_CERT_PATH", "");
    scene.set("DOCKER_HOST", &host);
    assert_eq!(super::docker::id(scene, "app:8"), id);
}

fn refused(scene: &mut Scene, certificates: &str, expected: &str) {
    scene.set("DOCKER_CERT_PATH", certificates);
    super::context(scene, "never");
    let output = scene.run("ashlar", &["build", "--load", "."]);
    assert_ne!(output.code, Some(0), "{certificates}");
    let said = output.stderr_text();
    assert!(said.contains(expected), "{expected}: {said}");
}
