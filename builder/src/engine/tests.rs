//! Engines that lie, refuse and break off, on a socket; and where engines are looked for.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::export::{ExportImage, Output};
use crate::options::Environment;
use crate::registry::fixture::{image, store};

/// What an engine saw of a request: its first line, and how long its body was.
type Seen = (String, usize);

/// Answers requests on a socket, one a connection, until there are no more answers for loads.
fn serve(path: &Path, answer: impl Fn(&str) -> String + Send + 'static) -> Arc<Mutex<Vec<Seen>>> {
    let listener = UnixListener::bind(path).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(request) = read_request(&mut stream) else {
                continue;
            };
            told.lock().unwrap().push(request.clone());
            stream.write_all(answer(&request.0).as_bytes()).unwrap();
        }
    });
    seen
}

fn read_request(stream: &mut UnixStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let n_read = stream.read(&mut buffer).unwrap();
        if n_read == 0 {
            return None;
        }
        bytes.extend_from_slice(&buffer[..n_read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        if !head.contains("transfer-encoding: chunked") || bytes.ends_with(b"\r\n0\r\n\r\n") {
            let line = String::from_utf8_lossy(&bytes).lines().next().unwrap().to_owned();
            return Some((line, bytes.len() - end));
        }
    }
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    let n_bytes = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {n_bytes}\r\n\r\n{body}")
}

/// What became of a load into an engine that answers so, and what was told meanwhile.
struct Outcome {
    result: Result<Descriptor, EngineError>,
    told: Vec<Told>,
    seen: Vec<Seen>,
}

fn load_into(
    source: &ExportImage,
    store: &Arc<Store>,
    answer: impl Fn(&str) -> String + Send + 'static,
) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let seen = serve(&path, answer);
    let address = format!("unix://{}", path.display());
    let engine = find(&Wanted::Any, &environment(&[("DOCKER_HOST", &address)])).unwrap();
    let (output, _) = Output::engine(Wanted::Any);
    let shipment = Shipment::new(store, source, output.image_options().unwrap(), None).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    let tell: Tell = Arc::new(move |one| hears.lock().unwrap().push(one));
    let loading = async { Ok(load(&engine, store, shipment, &tell).await) };
    let result = crate::runtime::run(loading).unwrap();
    let told = told.lock().unwrap().clone();
    let seen = seen.lock().unwrap().clone();
    Outcome { result, told, seen }
}

fn environment(vars: &[(&str, &str)]) -> Environment {
    let vars = vars
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Environment {
        vars: vars.collect(),
        root: false,
    }
}

const PING: &str = "Api-Version: 1.41\r\n";

#[test]
fn an_engine_that_refuses_what_it_lacks_gets_everything() {
    let (_dir, store) = store();
    let store = Arc::new(store);
    let source = image(&store, &["docker.io/library/app:1"]);
    let id = cache::Digest::of(b"x").to_string();
    let listed = json!([{"Id": id, "RepoTags": ["app:1"]}]).to_string();
    let inspected = json!({"RootFS": {"Layers": source.layers}}).to_string();
    let n_loads = Mutex::new(0);
    let outcome = load_into(&source, &store, move |line| match line {
        line if line.contains("/_ping") => reply("200 OK", PING, "OK"),
        line if line.contains("/v1.41/info") => reply("200 OK", "", "{}"),
        line if line.contains("/v1.41/images/json") => reply("200 OK", "", &listed),
        line if line.contains("/images/sha256:") => reply("200 OK", "", &inspected),
        line if line.contains("/v1.41/images/load") => {
            let mut n_loads = n_loads.lock().unwrap();
            *n_loads += 1;
            reply(
                "200 OK",
                "",
                match *n_loads {
                    1 => "{\"errorDetail\":{\"message\":\"no such layer\"},\"error\":\"no such layer\"}\r\n",
                    _ => "{\"stream\":\"Loaded image: app:1\\n\"}\r\n",
                },
            )
        }
        other => panic!("{other}"),
    });
    outcome.result.unwrap();
    let n_layers = source.layers.len();
    assert!(outcome.told.contains(&Told::Known {
        n_known: n_layers,
        n_layers
    }));
    assert!(outcome.told.contains(&Told::Again("no such layer".to_owned())));
    assert_eq!(
        outcome.told.last(),
        Some(&Told::Said("Loaded image: app:1".to_owned()))
    );
    let loads: Vec<usize> = outcome
        .seen
        .iter()
        .filter(|(line, _)| line.contains("load"))
        .map(|(_, n)| *n)
        .collect();
    assert!(loads.len() == 2 && loads[0] < loads[1], "{loads:?}");
}

/// Makes of an image one for two platforms.
fn for_two(store: &Store, mut source: ExportImage) -> ExportImage {
    let config = String::from_utf8(source.config.clone()).unwrap();
    let config = config.replace("amd64", "s390x").into_bytes();
    let layers = source.layers.clone();
    store.blobs().put(&config, store.incomplete()).unwrap();
    source.further = Some(vec![crate::export::PlatformImage { config, layers }]);
    source
}

#[test]
fn an_engine_that_holds_one_platform_gets_that_of_its_machine() {
    let check = |info: serde_json::Value, expected: &str| {
        let (_dir, store) = store();
        let store = Arc::new(store);
        let source = for_two(&store, image(&store, &["docker.io/library/app:1"]));
        let info = info.to_string();
        let outcome = load_into(&source, &store, move |line| match line {
            line if line.contains("/_ping") => reply("200 OK", PING, "OK"),
            line if line.contains("/info") => reply("200 OK", "", &info),
            line if line.contains("/images/json") => reply("200 OK", "", "[]"),
            _ => reply("200 OK", "", "{}"),
        });
        let top = outcome.result.unwrap();
        assert!(top.media_type.ends_with("manifest.v1+json"), "{top:?}");
        let narrowed = outcome.told.iter().find_map(|told| match told {
            Told::Narrowed {
                platform,
                n_platforms: 2,
                ..
            } => Some(platform.as_str()),
            _ => None,
        });
        assert_eq!(narrowed, Some(expected));
    };
    check(json!({"OSType": "linux", "Architecture": "s390x"}), "linux/s390x");
    check(
        json!({"OSType": "linux", "Architecture": "x86_64"}),
        "linux/amd64",
    );
    // None of them runs there.
    check(
        json!({"OSType": "linux", "Architecture": "riscv64"}),
        "linux/amd64",
    );
}

#[test]
fn an_engine_that_took_too_little_gets_everything() {
    let (_dir, store) = store();
    let store = Arc::new(store);
    let source = for_two(&store, image(&store, &["docker.io/library/app:1"]));
    let (output, _) = Output::engine(Wanted::Any);
    let shipment = Shipment::new(&store, &source, output.image_options().unwrap(), None).unwrap();
    let ids: Vec<String> = shipment
        .documents()
        .map(|bytes| store.blobs().put(bytes, store.incomplete()).unwrap().to_string())
        .collect();
    let (manifest, top) = (ids[0].clone(), ids[2].clone());
    let n_lists = Mutex::new(0);
    let outcome = load_into(&source, &store, move |line| match line {
        line if line.contains("/_ping") => reply("200 OK", PING, "OK"),
        line if line.contains("/info") => {
            let rows = json!({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]});
            reply("200 OK", "", &rows.to_string())
        }
        line if line.contains("/images/json?manifests=1") => {
            let mut n_lists = n_lists.lock().unwrap();
            *n_lists += 1;
            // What was there when it was asked first is gone when it is needed.
            let manifests = json!([{"ID": manifest, "Available": *n_lists == 1}]);
            let listed = json!([{"Id": top, "RepoTags": ["app:1"], "Manifests": manifests}]);
            reply("200 OK", "", &listed.to_string())
        }
        _ => reply("200 OK", "", "{}"),
    });
    assert_eq!(outcome.result.unwrap().digest.to_string(), ids[2]);
    let n_layers = 2 * source.layers.len();
    assert!(
        outcome.told.contains(&Told::Known {
            n_known: n_layers,
            n_layers
        }),
        "{:?}",
        outcome.told
    );
    assert!(
        outcome
            .told
            .contains(&Told::Again("some are missing there".to_owned()))
    );
    let loads = outcome.seen.iter().filter(|(line, _)| line.contains("load"));
    let loads: Vec<usize> = loads.map(|(_, n_bytes)| *n_bytes).collect();
    assert!(loads.len() == 2 && loads[0] < loads[1], "{loads:?}");
}

#[test]
fn engines_that_say_no_or_nonsense_are_quoted() {
    let (_dir, store) = store();
    let store = Arc::new(store);
    let source = image(&store, &["docker.io/library/app:1"]);
    let refusal = reply("500 Internal Server Error", "", "{\"message\":\"disk is full\"}");
    let check = |wrong: &'static str, answer: String, expected: &str| {
        let outcome = load_into(&source, &store, move |line| match line {
            line if line.contains(wrong) => answer.clone(),
            line if line.contains("/_ping") => reply("200 OK", PING, "OK"),
            line if line.contains("/images/json") => reply("200 OK", "", "[]"),
            _ => reply("200 OK", "", "{}"),
        });
        let error = outcome.result.unwrap_err().to_string();
        assert!(error.starts_with("Docker at /"), "{error}");
        assert!(error.contains(expected), "{wrong}: {error}");
    };
    check("_ping", refusal.clone(), "refused: disk is full");
    check("images/json", refusal.clone(), "refused: disk is full");
    check(
        "images/json",
        reply("200 OK", "", "<html>"),
        "can't be understood",
    );
    check("images/load", refusal, "refused: disk is full");
    check(
        "images/load",
        reply("200 OK", "", "{\"error\":\"bad tar\"}"),
        "refused: bad tar",
    );
    check(
        "images/load",
        reply("404 Not Found", "", ""),
        "refused: 404 Not Found",
    );
}

#[test]
fn a_version_in_a_header_is_no_path() {
    let (_dir, store) = store();
    let store = Arc::new(store);
    let source = image(&store, &["docker.io/library/app:1"]);
    let outcome = load_into(&source, &store, |line| match line {
        line if line.contains("/_ping") => reply("200 OK", "Api-Version: ../../x\r\n", "OK"),
        line if line.contains("/images/json") => reply("200 OK", "", "[]"),
        _ => reply("200 OK", "", "{}"),
    });
    outcome.result.unwrap();
    assert!(
        outcome
            .seen
            .iter()
            .any(|(line, _)| line.starts_with("GET /images/json")),
        "{:?}",
        outcome.seen
    );
}

#[test]
fn podman_gets_the_names_that_it_would_give() {
    for (name, expected) in [
        ("docker.io/library/app:1", "localhost/app:1"),
        ("docker.io/team/app:1", "localhost/team/app:1"),
        ("localhost/app:1", "localhost/app:1"),
        ("quay.io/app:1", "quay.io/app:1"),
    ] {
        let name = Reference::parse(name).unwrap();
        assert_eq!(podmans_name(&name).unwrap().to_string(), expected);
    }
}

#[test]
fn addresses_are_places_or_refused() {
    let network = |base: &str| Place::Network {
        base: base.to_owned(),
        tls: None,
    };
    for (address, expected) in [
        ("unix:///run/x.sock", Ok(Place::Socket("/run/x.sock".into()))),
        ("tcp://h:1", Ok(network("http://h:1"))),
        ("tcp://h", Ok(network("http://h:2375"))),
        ("tcp://[::1]:1", Ok(network("http://[::1]:1"))),
        ("unix://x.sock", Err("begins with /")),
        ("ssh://h", Err("ashlar save NAME | ssh HOST docker load")),
        ("npipe:////./pipe/x", Err("expected unix://PATH")),
        ("h:1", Err("expected unix://PATH")),
        ("tcp://", Err("DOCKER_HOST names an engine")),
    ] {
        match (Place::parse(address, None, "DOCKER_HOST"), expected) {
            (Ok(place), Ok(expected)) => assert_eq!(place, expected, "{address}"),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{address}: {error}")
            }
            (found, _) => panic!("{address}: {found:?}"),
        }
    }
    let secure = Place::parse("tcp://h", Some(crate::registry::Tls::default()), "x").unwrap();
    assert!(matches!(secure, Place::Network { base, tls: Some(_) } if base == "https://h:2376"));
}

#[test]
fn where_nobody_is_everything_that_was_tried_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().display().to_string();
    let vars = [("XDG_RUNTIME_DIR", runtime.as_str())];
    match find(&Wanted::Docker, &environment(&vars)) {
        Err(EngineError::Nowhere { tried }) => {
            assert!(
                tried[0].starts_with(&format!("Docker at {runtime}/docker.sock: No such file")),
                "{tried:?}"
            );
            assert_eq!(tried.len(), 2, "{tried:?}");
        }
        // This machine has one.
        found => assert_eq!(found.unwrap().title(), "Docker at /var/run/docker.sock"),
    }
    let _listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
    let found = find(&Wanted::Any, &environment(&vars)).unwrap();
    assert_eq!(found.title(), format!("Docker at {runtime}/docker.sock"));
    // Who is named is it, and nobody else.
    let gone = [vars[0], ("DOCKER_HOST", "unix:///nowhere")];
    let error = find(&Wanted::Any, &environment(&gone)).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot reach Docker at /nowhere"),
        "{error}"
    );
}
