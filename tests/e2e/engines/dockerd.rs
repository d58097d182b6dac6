//! A dockerd of the test's own, behind a socket and, with TLS, at an address.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine;

/// A running dockerd; ended with the test, and with it its mounts, which are in a namespace of their own.
pub(super) struct Dockerd {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Dockerd {
    /// Starts one. `None`, visibly, where the machine has none.
    pub(super) fn start(test: &str) -> Option<Self> {
        let needed = [
            "root",
            "exec:dockerd",
            "exec:docker",
            "exec:containerd",
            "exec:openssl",
        ];
        if let Some(reason) = machine::missing(&needed) {
            machine::skip(test, &reason);
            return None;
        }
        for _ in 0..3 {
            match Self::try_start() {
                Ok(dockerd) => return Some(dockerd),
                // Somebody else was faster with that port.
                Err(log) if log.contains("address already in use") => {}
                Err(log) => panic!("dockerd did not start:\n{log}"),
            }
        }
        panic!("no port for dockerd in three tries");
    }

    fn try_start() -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("ashlar-dockerd-")
            .tempdir_in("/var/tmp")
            .unwrap();
        make_certificates(&dir.path().join("certs"));
        let path = dir.path().display();
        std::fs::write(dir.path().join("none.json"), "{}").unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        // Without a bridge and rules of a firewall nothing of the machine changes; not every machine lets limits be raised.
        let script = format!(
            "ulimit -n 20000 2>/dev/null; PATH=$PATH:/usr/sbin:/sbin exec setpriv --pdeathsig TERM \
             unshare --mount --propagation private dockerd --data-root {path}/data --exec-root {path}/exec \
             -H unix://{path}/sock --pidfile {path}/pid --config-file {path}/none.json \
             -H tcp://127.0.0.1:{port} --tlsverify --tlscacert {path}/certs/ca.pem \
             --tlscert {path}/certs/server.pem --tlskey {path}/certs/server-key.pem \
             --iptables=false --ip6tables=false --bridge=none"
        );
        let child = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut dockerd = Self { child, dir, port };
        dockerd.await_answer()?;
        Ok(dockerd)
    }

    fn await_answer(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let answers = |host: &str| {
            let mut version = Command::new("docker");
            version
                .args(["-H", host, "version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            version.status().unwrap().success()
        };
        while !answers(&self.host()) {
            let has_ended = self.child.try_wait().unwrap().is_some();
            if has_ended || Instant::now() > deadline {
                return Err(std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Returns the address of its socket.
    pub(super) fn host(&self) -> String {
        format!("unix://{}/sock", self.dir.path().display())
    }

    /// Returns the address where it asks for a certificate.
    pub(super) fn tls_host(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Returns the directory of the certificates: `ca.pem`, `cert.pem` and `key.pem` of a client, and the server's.
    pub(super) fn certificates(&self) -> PathBuf {
        self.dir.path().join("certs")
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        // It ends its containerd too, unlike one that is killed.
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Makes an authority, and what it vouches for: a server and a client.
fn make_certificates(dir: &Path) {
    const MAKE: &str = "
        new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $new -days 2 -subj /CN=quarry-ca -keyout ca-key.pem -out ca.pem
        sign() { openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile $1.ext -out $2; }
        openssl req $new -subj /CN=localhost -keyout server-key.pem -out server.csr
        printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth\\n' > server.ext
        sign server server.pem
        openssl req $new -subj /CN=mason -keyout key.pem -out client.csr
        printf 'extendedKeyUsage=clientAuth\\n' > client.ext
        sign client cert.pem";
    std::fs::create_dir_all(dir).unwrap();
    let made = Command::new("/bin/sh")
        .args(["-ec", MAKE])
        .current_dir(dir)
        .output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
