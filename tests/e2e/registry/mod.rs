//! Registries to test against: Debian's `docker-registry` on a loopback port, plain, with logins, or with TLS of a
//! private authority. `faults` stands in front of one and misbehaves; the others are the tests.

pub(crate) mod faults;
mod leaks;
mod login;
mod peers;
mod proxied;
mod pull;
mod push;
mod stop;
mod terminal;
mod trust;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine;
use crate::scene::Scene;

/// The user that registries with logins know: name, password.
pub(crate) const USER: (&str, &str) = ("mason", "dressed:stone");
/// The line of `htpasswd` for [`USER`]: the registry knows bcrypt only.
const HTPASSWD: &str = "mason:$2b$04$abcdefghijklmnopqrstuuQ/dYx7uniIJiIHRs/dC/tq8/gVwM1ma\n";

/// What a registry has besides images.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Everybody must be [`USER`].
    pub(crate) has_logins: bool,
    /// Speaks TLS, with a certificate of the authority in `ca.crt`.
    pub(crate) has_tls: bool,
    /// Its certificate was good until yesterday.
    pub(crate) is_expired: bool,
}

/// A running registry; ended with the test.
pub(crate) struct Registry {
    child: Child,
    /// Address and port.
    pub(crate) host: String,
    dir: PathBuf,
}

impl Registry {
    /// Starts one with its files in `dir`. `None`, visibly, where the machine has none.
    pub(crate) fn start(test: &str, dir: &Path, options: Options) -> Option<Self> {
        let needed = ["exec:docker-registry", "exec:skopeo", "exec:openssl", "root"];
        if let Some(reason) = machine::missing(&needed) {
            machine::skip(test, &reason);
            return None;
        }
        std::fs::create_dir_all(dir).unwrap();
        let host = format!("127.0.0.1:{}", free_port());
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: '{host}'\n",
            dir.display()
        );
        if options.has_tls {
            make_certificates(dir, options.is_expired);
            config.push_str(&format!(
                "  tls: {{certificate: {0}/server.crt, key: {0}/server.key}}\n",
                dir.display()
            ));
        }
        if options.has_logins {
            std::fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: quarry, path: {}/htpasswd}}}}\n",
                dir.display()
            ));
        }
        std::fs::write(dir.join("registry.yml"), config).unwrap();
        Some(Self {
            child: serve(dir, &host),
            host,
            dir: dir.to_owned(),
        })
    }

    /// Starts one that only [`USER`] may use, with an image `team/app:1`. `None`, visibly, where the machine has none.
    pub(crate) fn with_logins(scene: &Scene) -> Option<Self> {
        let options = Options {
            has_logins: true,
            ..Options::default()
        };
        let registry = Self::start(scene.name(), &scene.aside("registry"), options)?;
        registry.fill(scene, "team/app:1");
        Some(registry)
    }

    /// Kills it in the middle of whatever it does, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = serve(&self.dir, &self.host);
    }

    /// Empties it.
    pub(crate) fn forget(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _empty = std::fs::remove_dir_all(self.dir.join("data"));
        self.child = serve(&self.dir, &self.host);
    }

    /// Returns its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Returns the digests that a repository has as blobs.
    pub(crate) fn blobs(&self, repository: &str) -> Vec<String> {
        let layers = format!("data/docker/registry/v2/repositories/{repository}/_layers/sha256");
        let Ok(dir) = std::fs::read_dir(self.dir.join(layers)) else {
            return Vec::new();
        };
        dir.map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Returns the file with the private authority's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Builds an image of two layers and puts it in as `name` (repository and tag), with skopeo.
    pub(crate) fn fill(&self, scene: &Scene, name: &str) {
        std::fs::create_dir_all(scene.work().join("seed")).unwrap();
        let noise: Vec<u8> = (0..120_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        std::fs::write(scene.work().join("seed/noise"), noise).unwrap();
        std::fs::write(scene.work().join("seed/app"), "#!/bin/sh\n").unwrap();
        std::fs::write(
            scene.work().join("seed/Dockerfile"),
            "FROM scratch\nCOPY noise /\nCOPY app /\nCMD [\"/app\"]\n",
        )
        .unwrap();
        let root = scene.aside("seed-store").display().to_string();
        scene.ashlar_ok(&[
            "--root",
            &root,
            "build",
            "-q",
            "-o",
            "type=oci,dest=seed.tar",
            "seed",
        ]);
        self.copy_in(scene, "oci-archive:seed.tar", name);
    }

    /// Copies `from`, in skopeo's words, into the registry.
    pub(crate) fn copy_in(&self, scene: &Scene, from: &str, name: &str) {
        let to = format!("docker://{}/{name}", self.host);
        let login = format!("{}:{}", USER.0, USER.1);
        scene.must(
            "skopeo",
            &[
                "copy",
                "-q",
                "--all",
                "--preserve-digests",
                "--dest-tls-verify=false",
                "--dest-creds",
                &login,
                from,
                &to,
            ],
        );
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the registry that is configured in `dir`, and waits until it answers.
fn serve(dir: &Path, host: &str) -> Child {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(dir.join("registry.yml"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(host).is_err() {
        assert!(Instant::now() < deadline, "the registry did not start");
        std::thread::yield_now();
    }
    child
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Makes an authority (`ca.crt`) and a server's certificate of it.
fn make_certificates(dir: &Path, is_expired: bool) {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=quarry-ca \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
            -keyout ca.key -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\nbasicConstraints=CA:FALSE\\n' >ext
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days $1 -extfile ext -out server.crt";
    let days = if is_expired { "-1" } else { "2" };
    let output = Command::new("sh")
        .args(["-ec", script, "certificates", days])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
