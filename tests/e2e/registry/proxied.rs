//! A registry behind nginx, which speaks HTTP/2 and takes its leave of every connection after a few requests.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Options, Registry, free_port, make_certificates};
use crate::machine;
use crate::scene::Scene;
use crate::validate;

/// How many requests a connection lives.
const N_REQUESTS: usize = 2;

/// A running nginx; ended with the test.
struct Nginx {
    child: Child,
    host: String,
}

impl Nginx {
    /// Starts one in front of a registry, with its files in `dir`.
    fn start(dir: &Path, registry: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        make_certificates(dir, false);
        let host = format!("127.0.0.1:{}", free_port());
        let path = dir.display();
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let places: String = places
            .iter()
            .map(|name| format!("{name}_temp_path {path}/{name};\n"))
            .collect();
        let config = format!(
            "user root;\ndaemon off;\nworker_processes 1;\npid {path}/pid;\nerror_log {path}/error;\nevents {{}}\nhttp {{\n{places}\
             log_format seen '$server_protocol $connection $status $request_method $uri';\naccess_log {path}/seen seen;\n\
             client_max_body_size 0;\nserver {{\nlisten {host} ssl http2;\nssl_certificate {path}/server.crt;\n\
             ssl_certificate_key {path}/server.key;\nkeepalive_requests {N_REQUESTS};\nlocation / {{\n\
             proxy_pass http://{registry};\nproxy_set_header Host $http_host;\nproxy_set_header X-Forwarded-Proto https;\n\
             proxy_request_buffering off;\nproxy_http_version 1.1;\n}}\n}}\n}}\n"
        );
        std::fs::write(dir.join("nginx.conf"), config).unwrap();
        let program = machine::find_program("nginx").unwrap();
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("error"));
        let child = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut nginx = Self { child, host };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&nginx.host).is_err() {
            let has_ended = nginx.child.try_wait().unwrap().is_some();
            let error = std::fs::read_to_string(dir.join("error")).unwrap_or_default();
            assert!(
                !has_ended && Instant::now() < deadline,
                "nginx did not start: {error}"
            );
            std::thread::yield_now();
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it, unlike with one that is killed.
        let pid = i32::try_from(self.child.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn connections_that_take_their_leave_are_replaced() {
    // hardening R19: GOAWAY
    let scene = Scene::new("registry/goaway");
    if let Some(reason) = machine::missing(&["exec:nginx"]) {
        machine::skip(scene.name(), &reason);
        return;
    }
    let Some(registry) = Registry::start(scene.name(), &scene.aside("registry"), Options::default()) else {
        return;
    };
    let dir = scene.aside("nginx");
    let nginx = Nginx::start(&dir, &registry.host);
    let trust = format!(
        "[registry.\"{}\"]\nca = [\"{}/ca.crt\"]\nhttp = false\n",
        nginx.host,
        dir.display()
    );
    super::trust::configure(&scene, "ashlar/registries.toml", &trust);

    let mut dockerfile = "FROM scratch\n".to_owned();
    for n in 0..8 {
        std::fs::write(scene.work().join(format!("f{n}")), vec![n; 200_000]).unwrap();
        dockerfile.push_str(&format!("COPY f{n} /\n"));
    }
    std::fs::write(scene.work().join("Dockerfile"), dockerfile).unwrap();
    let name = format!("{}/team/app:1", nginx.host);
    let built = scene
        .ashlar_ok(&["build", "-q", "--push", "-t", &name, "."])
        .stdout_text();
    let elsewhere = scene.aside("elsewhere").display().to_string();
    scene.ashlar_ok(&["--root", &elsewhere, "pull", "-q", &name]);
    let id = scene.ashlar_ok(&["--root", &elsewhere, "inspect", "-f", "{{.Id}}", &name]);
    assert_eq!(id.stdout_text(), built);

    let seen = std::fs::read_to_string(dir.join("seen")).unwrap();
    let mut connections: BTreeMap<&str, usize> = BTreeMap::new();
    for line in seen.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "HTTP/2.0", "{line}");
        *connections.entry(words[1]).or_default() += 1;
    }
    // Manifest, config and eight layers, there and back.
    let n_requests: usize = connections.values().sum();
    assert!(n_requests >= 30, "{seen}");
    assert!(connections.len() >= 5, "{seen}");
    drop(nginx);
    drop(registry);
    validate::finish(scene);
}
