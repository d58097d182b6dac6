//! Uploads that break, into a registry that follows the specification to the letter where real ones don't.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::registry::Retry;

/// A registry that keeps what it gets of an upload, and goes on from there.
struct Registry {
    log: Vec<String>,
    upload: Vec<u8>,
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    /// Bytes of a PATCH after which its connection breaks; one each.
    cuts: Vec<usize>,
    /// What the next status says besides the truth.
    forgets: bool,
    /// The next parts of a blob are answered with 416, so many.
    n_unsatisfied: usize,
    /// Where uploads are said to go on, up to the number of bytes that are there; `HOST` is this registry.
    location: &'static str,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            log: Vec::new(),
            upload: Vec::new(),
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            cuts: Vec::new(),
            forgets: false,
            n_unsatisfied: 0,
            location: "/upload?state=",
        }
    }
}

impl Registry {
    /// Serves until the process ends; returns the address, too.
    fn start(self) -> (String, Arc<Mutex<Self>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let registry = Arc::new(Mutex::new(self));
        let shared = Arc::clone(&registry);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // One at a time, so that the log has an order.
                shared.lock().unwrap().serve(&stream.unwrap());
            }
        });
        (host, registry)
    }

    fn serve(&mut self, mut stream: &TcpStream) {
        let mut input = BufReader::new(stream);
        let mut head = Vec::new();
        for line in input.by_ref().lines().map_while(Result::ok) {
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let header = |name: &str| {
            let found = head.iter().filter_map(|line| line.split_once(": "));
            found
                .filter(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
                .next_back()
        };
        let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
        let range = header("content-range").unwrap_or("-");
        let mut words = head[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        self.log.push(format!("{method} {path} {range}"));
        let cut = (method == "PATCH" && !self.cuts.is_empty()).then(|| self.cuts.remove(0));
        let mut body = Vec::new();
        let taken = cut.unwrap_or(length);
        input.take(taken as u64).read_to_end(&mut body).unwrap();
        if cut.is_some() {
            self.upload.extend(body);
            return;
        }
        let answer = self.answer(method, path, body);
        let answer = answer.replace("HOST", header("host").unwrap());
        let _ = stream
            .write_all(format!("HTTP/1.1 {answer}Connection: close\r\nContent-Length: 0\r\n\r\n").as_bytes());
    }

    fn answer(&mut self, method: &str, path: &str, body: Vec<u8>) -> String {
        let location = self.location;
        let at = |status: &str, has: usize| {
            let last = has.saturating_sub(1);
            format!("{status} X\r\nLocation: {location}{has}\r\nRange: 0-{last}\r\n")
        };
        let name = path.rsplit('/').next().unwrap().to_owned();
        match method {
            "HEAD" if self.blobs.contains_key(&name) => "200 X\r\n".to_owned(),
            "HEAD" => "404 X\r\n".to_owned(),
            "POST" => {
                self.upload.clear();
                at("202", 0)
            }
            "GET" if std::mem::take(&mut self.forgets) => "404 X\r\n".to_owned(),
            "GET" => at("204", self.upload.len()),
            "PATCH" if self.n_unsatisfied > 0 => {
                self.n_unsatisfied -= 1;
                "416 X\r\n".to_owned()
            }
            "PATCH" => {
                self.upload.extend(body);
                at("202", self.upload.len())
            }
            _ if path.contains("state=") => {
                self.upload.extend(body);
                let bytes = std::mem::take(&mut self.upload);
                self.blobs.insert(Digest::of(&bytes).to_string(), bytes);
                "201 X\r\n".to_owned()
            }
            _ => {
                self.manifests.insert(name, body);
                "201 X\r\n".to_owned()
            }
        }
    }
}

const SIZE: usize = 3 << 20;

fn bytes() -> Vec<u8> {
    (0..SIZE)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// Pushes an image of one large blob; `bytes` are what is behind its name.
fn push_blob(host: &str, bytes: Vec<u8>) -> Result<(), PushError> {
    let manifest = b"{}".to_vec();
    let upload = Upload {
        blobs: vec![Blob {
            digest: Digest::of(&self::bytes()),
            size_bytes: SIZE as u64,
            content: Content::Memory(Arc::from(bytes)),
        }],
        manifests: vec![Document {
            descriptor: Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: Digest::of(&manifest),
                size_bytes: manifest.len() as u64,
            },
            bytes: manifest,
        }],
    };
    let retry = Retry {
        n_tries: 3,
        first_wait: Duration::from_millis(1),
        ..Retry::default()
    };
    let reference = Reference::parse(&format!("{host}/app:1")).unwrap();
    let session = Session::with_retry(&reference, retry).unwrap();
    let report: Report = Arc::new(|_| {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(push(
        &session,
        &upload,
        &["1".to_owned()],
        &Neighbours::default(),
        &report,
    ))
}

fn patches(registry: &Mutex<Registry>) -> Vec<String> {
    let registry = registry.lock().unwrap();
    let patches = registry.log.iter().filter(|line| line.starts_with("PATCH"));
    patches
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn an_upload_that_broke_goes_on_where_the_registry_says() {
    // hardening R16
    let (host, registry) = Registry {
        cuts: vec![1_000_000, 1_500_000],
        ..Registry::default()
    }
    .start();
    push_blob(&host, bytes()).unwrap();
    let last = SIZE - 1;
    assert_eq!(
        patches(&registry),
        [
            "-".to_owned(),
            format!("1000000-{last}"),
            format!("2500000-{last}")
        ]
    );
    let registry = registry.lock().unwrap();
    assert_eq!(registry.blobs.values().collect::<Vec<_>>(), [&bytes()]);
    assert_eq!(registry.manifests["1"], b"{}");
}

#[test]
fn an_upload_that_the_registry_forgot_begins_anew() {
    let (host, registry) = Registry {
        cuts: vec![1_000_000],
        forgets: true,
        ..Registry::default()
    }
    .start();
    push_blob(&host, bytes()).unwrap();
    assert_eq!(patches(&registry), ["-", "-"]);
    assert_eq!(
        registry.lock().unwrap().blobs.values().collect::<Vec<_>>(),
        [&bytes()]
    );
}

#[test]
fn uploads_go_on_wherever_the_registry_says_and_after_a_part_that_it_does_not_want() {
    // hardening R16
    for location in [
        "/elsewhere/upload?state=",
        "http://HOST/upload?session=a%2Fb%3D&state=",
        "another?state=",
        "../../../upload?state=",
        "?state=",
    ] {
        let (host, registry) = Registry {
            location,
            cuts: vec![1_000_000],
            ..Registry::default()
        }
        .start();
        push_blob(&host, bytes()).unwrap_or_else(|error| panic!("{location}: {error}"));
        let registry = registry.lock().unwrap();
        assert_eq!(
            registry.blobs.values().collect::<Vec<_>>(),
            [&bytes()],
            "{location}"
        );
        let put = registry
            .log
            .iter()
            .find(|line| line.contains("PUT") && line.contains("state="));
        let put = put.unwrap();
        assert!(
            put.contains(&format!("state={SIZE}&digest=sha256")),
            "{location}: {put}"
        );
        assert_eq!(
            put.contains("session=a%2Fb%3D&"),
            location.contains("session"),
            "{put}"
        );
        assert_eq!(
            registry.log.last().unwrap(),
            "PUT /v2/app/manifests/1 -",
            "{location}"
        );
    }
    let (host, registry) = Registry {
        n_unsatisfied: 1,
        ..Registry::default()
    }
    .start();
    push_blob(&host, bytes()).unwrap();
    assert_eq!(patches(&registry), ["-", "-"]);
    assert_eq!(registry.lock().unwrap().blobs.len(), 1);
}

#[test]
fn what_never_gets_through_or_is_damaged_moves_no_tag() {
    let (host, registry) = Registry {
        cuts: vec![0; 100],
        ..Registry::default()
    }
    .start();
    let error = push_blob(&host, bytes()).unwrap_err();
    assert!(matches!(error, PushError::Interrupted { .. }), "{error}");
    assert_eq!(registry.lock().unwrap().manifests.len(), 0);

    let (host, registry) = Registry::default().start();
    let mut damaged = bytes();
    damaged[SIZE / 2] ^= 1;
    let error = push_blob(&host, damaged).unwrap_err();
    assert!(matches!(error, PushError::Damaged { .. }), "{error}");
    let error = push_blob(&host, bytes()[..SIZE / 2].to_vec()).unwrap_err();
    assert!(matches!(error, PushError::Read { .. }), "{error}");
    let registry = registry.lock().unwrap();
    assert_eq!((registry.blobs.len(), registry.manifests.len()), (0, 0));
}
