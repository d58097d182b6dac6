//! What the tests of images share: small images, a registry that misbehaves on request, tools that may be missing.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use cache::layer::Limits;
use cache::{DiffId, Digest, Store};
use serde_json::json;

use crate::export::ExportImage;

/// A store in a directory of its own.
pub(crate) fn store() -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, Arc::new(store))
}

/// Makes a tar of regular files.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Returns the config of an image of these layers.
pub(crate) fn config_of(layers: &[DiffId]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(ToString::to_string).collect();
    let history = vec![json!({"created_by": "COPY x / # buildkit"}); ids.len()];
    serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": ids}, "history": history,
    }))
    .unwrap()
}

/// Puts an image of two layers into a store.
pub(crate) fn image(store: &Store, names: &[&str]) -> ExportImage {
    // Long and dull enough to be compressed, and more than one chunk.
    let long = (0..60_000)
        .flat_map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect::<Vec<u8>>();
    let layers = [
        tar_of(&[("etc/base", b"base\n"), ("long", &long)]),
        tar_of(&[("app", b"#!/bin/sh\n")]),
    ]
    .map(|tar| {
        let layers = store.layers();
        let layer = layers
            .import(&tar[..], None, Limits::default(), store.incomplete())
            .unwrap();
        layer.diff_id()
    });
    ExportImage {
        config: config_of(&layers),
        layers: layers.to_vec(),
        further: None,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        attestations: Vec::new(),
        caches: Vec::new(),
    }
}

/// Says whether a tool is there; says so visibly when it isn't.
pub(crate) fn has_tool(test: &str, tool: &str) -> bool {
    let found = Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        eprintln!("SKIP {test}: {tool} is not installed");
    }
    found.is_ok()
}

/// Runs a tool, which must succeed; returns its standard output.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What a fake registry is asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    /// How many requests for this path came before.
    pub(crate) n_before: usize,
}

/// What it answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Announced length, when it is a lie.
    pub(crate) length: Option<usize>,
    pub(crate) way: Way,
}

/// How a body is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Way {
    /// At once.
    #[default]
    Whole,
    /// In chunks of so many bytes, without saying how many there are.
    Chunks(usize),
    /// In chunks, over and over, until nobody listens any more.
    Endless,
    /// So many bytes, then none, on a connection that stays open.
    Stalls(usize),
    /// At once, with a connection that is promised to stay open and is closed.
    ThenGone,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn by(mut self, way: Way) -> Self {
        self.way = way;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A registry on a loopback port; answers in threads that end with the process.
pub(crate) struct Fake {
    pub(crate) host: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", answer)
    }

    pub(crate) fn start_at(
        address: &str,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, requests) = (Arc::new(answer), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                std::thread::spawn(move || serve(&stream.unwrap(), &requests, &*answer));
            }
        });
        Self { host, log }
    }

    /// Returns all requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

/// Answers one request, once it is there to its end, and closes.
fn serve(stream: &TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let headers = lines.by_ref().take_while(|line| !line.is_empty());
    let headers: HashMap<String, String> = headers
        .filter_map(|line| {
            line.split_once(": ")
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        })
        .collect();
    let length = headers.get("content-length");
    let length = length.map_or(0, |length| length.parse().unwrap());
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let request = {
        let mut log = log.lock().unwrap();
        let n_before = log.iter().filter(|other| other.path == path).count();
        let request = Request {
            method: first.split(' ').next().unwrap_or_default().to_owned(),
            path,
            headers,
            n_before,
        };
        log.push(request.clone());
        request
    };
    // What nobody has read when the connection closes would take the answer with it.
    let _ = std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink());
    let reply = answer(&request);
    // The client may have had enough.
    let _ = send(stream, &reply);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = std::io::copy(&mut reader, &mut std::io::sink());
}

fn send(mut stream: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    if reply.way != Way::ThenGone {
        head.push_str("Connection: close\r\n");
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match reply.way {
        Way::Chunks(_) | Way::Endless => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
        _ => {
            let length = reply.length.unwrap_or(reply.body.len());
            head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
        }
    }
    stream.write_all(head.as_bytes())?;
    let chunk = |mut stream: &TcpStream, bytes: &[u8]| {
        let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        stream.write_all(&framed)
    };
    match reply.way {
        Way::Whole | Way::ThenGone => stream.write_all(&reply.body),
        Way::Chunks(size) => {
            reply
                .body
                .chunks(size)
                .try_for_each(|bytes| chunk(stream, bytes))?;
            stream.write_all(b"0\r\n\r\n")
        }
        Way::Endless => loop {
            chunk(stream, &reply.body)?;
        },
        Way::Stalls(n_bytes) => {
            stream.write_all(&reply.body[..n_bytes])?;
            // The client's going away ends the wait.
            stream.read_to_end(&mut Vec::new()).map(|_| ())
        }
    }
}

/// The documents of an image of one gzip layer, as a registry has them.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) blob: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Remote {
    pub(crate) fn new() -> Self {
        let (_dir, store) = store();
        let image = image(&store, &[]);
        let tar = store.layers().get(&image.layers[0]).unwrap();
        let mut blob = Vec::new();
        cache::compress::compress(
            tar.tar_reader(),
            &mut blob,
            cache::compress::Codec::Gzip { level: 1 },
        )
        .unwrap();
        let config = config_of(&image.layers[..1]);
        let manifest = Self::manifest(&config, &Digest::of(&blob), blob.len());
        Self {
            blob,
            config,
            manifest,
        }
    }

    pub(crate) fn manifest(config: &[u8], blob: &Digest, size: usize) -> Vec<u8> {
        serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(config).to_string(), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": blob.to_string(), "size": size}],
        }))
        .unwrap()
    }

    /// Answers as a registry does that has the image as `app:1`.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        let path = request.path.as_str();
        match path.strip_prefix("/v2/app/") {
            Some("manifests/1") => Reply::ok(self.manifest.clone()),
            Some(other) if other == format!("blobs/{}", Digest::of(&self.config)) => {
                Reply::ok(self.config.clone())
            }
            Some(other) if other.starts_with("blobs/") && self.manifest_names(&other[6..]) => {
                Reply::ok(self.blob.clone())
            }
            _ => Reply::status(404),
        }
    }

    fn manifest_names(&self, digest: &str) -> bool {
        String::from_utf8_lossy(&self.manifest).contains(digest)
    }
}
