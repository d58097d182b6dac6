//! Pulls, from a real registry and from ones that misbehave.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

mod documents;
mod quirks;

use super::fixture::{Fake, Remote, Reply, Request, has_tool, image, run, store};
use super::*;
use crate::export::{Output, export};

/// Runs a future on a runtime of its own.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Resolves and fetches `app:1` from a fake, impatiently.
fn pull(store: &Arc<Store>, host: &str) -> Result<Resolved, ImageError> {
    pull_trying(store, host, 3)
}

/// Resolves and fetches `app:1` from a fake, with so many tries.
fn pull_trying(store: &Arc<Store>, host: &str, n_tries: u32) -> Result<Resolved, ImageError> {
    let retry = Retry {
        n_tries,
        first_wait: Duration::from_millis(1),
        ..Retry::default()
    };
    pull_with(store, host, retry)
}

fn pull_with(store: &Arc<Store>, host: &str, retry: Retry) -> Result<Resolved, ImageError> {
    let reference = Reference::parse(&format!("{host}/app:1")).unwrap();
    wait(async {
        let session = Session::with_retry(&reference, retry)?;
        let platform = Platform::new("linux", "amd64", None);
        let resolved = resolve_remote(store, session, &platform).await?;
        fetch_layers(store, &resolved, |_| {}).await?;
        Ok(resolved)
    })
}

/// Returns the manifest that the store knows an image by.
fn manifest_of(store: &Store, resolved: &Resolved) -> Option<Digest> {
    store.index().image(&resolved.reference).unwrap()?.manifest
}

fn is_blob(request: &Request, remote: &Remote) -> bool {
    request.path.ends_with(&Digest::of(&remote.blob).hex())
}

/// Pulls from a registry that answers as `answer` says; returns the error, and the requests it took. Whatever the
/// failure, the layer must not be there after it.
fn check_failure(
    answer: impl Fn(&Remote, &Request) -> Reply + Send + Sync + 'static,
) -> (String, Vec<Request>) {
    let remote = Remote::new();
    let (_dir, store) = store();
    let layer = config_facts(&remote.config).unwrap().diff_ids[0];
    let fake = Fake::start(move |request| answer(&remote, request));
    let error = pull(&store, &fake.host).unwrap_err().to_string();
    assert!(!store.layers().contains(&layer), "{error}");
    let scratch = std::fs::read_dir(store.root().join("blobs/sha256")).unwrap();
    for blob in scratch {
        let path = blob.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(Digest::of(&std::fs::read(&path).unwrap()).hex(), name, "{error}");
    }
    (error, fake.requests())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn failures_are_told_and_leave_nothing_behind() {
    type Answer = fn(&Remote, &Request) -> Reply;
    let cases: [(&str, Answer, &str); 12] = [
        (
            "absent",
            |_, _| Reply::status(404),
            "app:1: not found in its registry",
        ),
        ("forbidden", |_, _| Reply::status(403), "pull access denied for"),
        (
            "basic login",
            |_, _| Reply::status(401).header("WWW-Authenticate", "Basic realm=x"),
            "pull access denied for",
        ),
        (
            "its own words",
            |_, _| Reply {
                body: br#"{"errors":[{"code":"X","message":"too\u001b[31m busy"}]}"#.to_vec(),
                ..Reply::status(503)
            },
            "503 Service Unavailable: too[31m busy",
        ),
        ("html", |_, _| Reply::ok("<html>"), "is malformed: expected value"),
        (
            "giant manifest",
            |_, _| Reply::ok(vec![b' '; (4 << 20) + 1]),
            "expected 4194304 bytes but there are more",
        ),
        (
            "unprotected redirect",
            |_, _| Reply::status(307).header("Location", "http://192.0.2.1/x"),
            "a redirect to an unprotected address",
        ),
        (
            "redirect loop",
            |_, request| Reply::status(302).header("Location", request.path.clone()),
            "more than 10 redirects",
        ),
        (
            "other config",
            |remote, request| match request.path.contains(&Digest::of(&remote.config).hex()) {
                true => Reply::ok("{}"),
                false => remote.answer(request),
            },
            "but the bytes are sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        ),
        (
            "other blob of the same size",
            |remote, request| {
                let mut remote = remote.clone();
                if is_blob(request, &remote) {
                    remote.blob.reverse();
                }
                remote.answer(request)
            },
            "wrong header checksum",
        ),
        (
            "shorter blob",
            |remote, request| match is_blob(request, remote) {
                true => Reply::ok(&remote.blob[..1000]),
                false => remote.answer(request),
            },
            "bytes but there are 1000",
        ),
        (
            "unauthorised token realm",
            |_, _| Reply::status(401).header("WWW-Authenticate", "Bearer realm=\"http://192.0.2.1/\""),
            "is not https",
        ),
    ];
    for (name, answer, expected) in cases {
        let (error, _) = check_failure(answer);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn what_is_final_is_asked_once_and_what_may_pass_three_times() {
    let count = |status: u16| check_failure(move |_, _| Reply::status(status)).1.len();
    assert_eq!([404, 403, 400, 429, 500, 503].map(count), [1, 1, 1, 3, 3, 3]);
    let (_dir, store) = store();
    let error = pull(&store, "127.0.0.1:1").unwrap_err().to_string();
    assert!(
        error.contains("cannot reach the registry of 127.0.0.1:1/app:1"),
        "{error}"
    );
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    for honours_ranges in [true, false] {
        let remote = Remote::new();
        let layer = config_facts(&remote.config).unwrap().diff_ids[0];
        let (blob_digest, half) = (Digest::of(&remote.blob), remote.blob.len() / 2);
        let asked = remote.clone();
        let fake = Fake::start(move |request| {
            if !is_blob(request, &remote) {
                return remote.answer(request);
            }
            let whole = Reply::ok(remote.blob.clone());
            match request.headers.get("range") {
                None if request.n_before == 0 => Reply {
                    length: Some(remote.blob.len()),
                    body: remote.blob[..half].to_vec(),
                    ..whole
                },
                Some(range) if honours_ranges => {
                    let start: usize = range["bytes=".len()..range.len() - 1].parse().unwrap();
                    let part = format!("bytes {start}-{}/{}", remote.blob.len() - 1, remote.blob.len());
                    Reply {
                        status: 206,
                        body: remote.blob[start..].to_vec(),
                        ..Reply::default()
                    }
                    .header("Content-Range", part)
                }
                _ => whole,
            }
        });
        let (_dir, store) = store();
        pull(&store, &fake.host).unwrap();
        assert!(store.layers().contains(&layer));
        assert_eq!(store.blobs().read(&blob_digest, 1 << 30).unwrap(), asked.blob);
        let ranges: Vec<_> = fake
            .requests()
            .iter()
            .filter_map(|one| one.headers.get("range").cloned())
            .collect();
        assert_eq!(ranges, [format!("bytes={half}-")]);
    }
}

#[test]
fn a_token_is_fetched_once_and_stays_with_its_host() {
    let remote = Remote::new();
    let elsewhere = {
        let remote = remote.clone();
        Fake::start(move |_| Reply::ok(remote.blob.clone()))
    };
    let other = elsewhere.host.clone();
    let fake = Fake::start(move |request| {
        let host = request.headers["host"].clone();
        if request.path.starts_with("/token") {
            return Reply::ok(r#"{"token":"t0p"}"#);
        }
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer t0p") {
            let challenge =
                format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:all:*\"");
            return Reply::status(401).header("WWW-Authenticate", challenge);
        }
        match is_blob(request, &remote) {
            true => Reply::status(307).header("Location", format!("http://{other}/blob")),
            false => remote.answer(request),
        }
    });
    let (_dir, store) = store();
    pull(&store, &fake.host).unwrap();
    let tokens: Vec<String> = fake
        .requests()
        .into_iter()
        .map(|one| one.path)
        .filter(|path| path.starts_with("/t"))
        .collect();
    assert_eq!(tokens, ["/token?service=s&scope=repository%3Aapp%3Apull"]);
    let redirected = elsewhere.requests();
    assert_eq!(redirected.len(), 1);
    assert!(!redirected[0].headers.contains_key("authorization"));
}

#[test]
fn an_index_leads_to_the_platform_and_no_deeper_than_allowed() {
    let remote = Remote::new();
    let index = |digest: &Digest, size: usize, arch: &str| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{arch}"}}}}]}}"#
        )
    };
    let serve = |document: String| {
        let remote = remote.clone();
        Fake::start(move |request| match request.path.as_str() {
            "/v2/app/manifests/1" => Reply::ok(document.clone()),
            path if path.starts_with("/v2/app/manifests/") => Reply::ok(remote.manifest.clone()),
            _ => remote.answer(request),
        })
    };
    let manifest = Digest::of(&remote.manifest);
    let good = serve(index(&manifest, remote.manifest.len(), "amd64"));
    let (_dir, store) = store();
    let pulled = pull(&store, &good.host).unwrap();
    assert_eq!(manifest_of(&store, &pulled), Some(manifest));

    let other = serve(index(&manifest, 1, "s390x"));
    let error = pull(&store, &other.host).unwrap_err().to_string();
    assert!(
        error.contains("has no image for linux/amd64; it has linux/s390x"),
        "{error}"
    );

    let lying = serve(index(&Digest::of(b"x"), 1, "amd64"));
    let error = pull(&store, &lying.host).unwrap_err();
    assert!(matches!(error, ImageError::WrongDigest { .. }), "{error}");
}

/// Returns an index of one entry.
fn index_of(digest: &Digest, size: usize) -> Vec<u8> {
    let entry = serde_json::json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest.to_string(), "size": size,
    });
    serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [entry]})).unwrap()
}

#[test]
fn indexes_in_indexes_end_somewhere() {
    // hardening T57
    let pull_below = |n_indexes: usize| {
        let remote = Remote::new();
        let mut documents = vec![remote.manifest.clone()];
        for _ in 0..n_indexes {
            let inner = documents.last().unwrap();
            documents.push(index_of(&Digest::of(inner), inner.len()));
        }
        let fake = Fake::start(move |request| {
            let asked = documents
                .iter()
                .find(|one| request.path.ends_with(&Digest::of(one).hex()));
            match request.path.as_str() {
                "/v2/app/manifests/1" => Reply::ok(documents.last().unwrap().clone()),
                _ => asked.map_or_else(|| remote.answer(request), |one| Reply::ok(one.clone())),
            }
        });
        let (_dir, store) = store();
        pull(&store, &fake.host)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(pull_below(MAX_INDEX_DEPTH), Ok(()));
    let error = pull_below(MAX_INDEX_DEPTH + 1).unwrap_err();
    assert!(error.contains("more than 4 deep"), "{error}");
}

#[test]
fn layers_that_are_not_the_configs_are_refused() {
    // hardening T58
    let swapped = |n_layers: usize, diff_id: Option<DiffId>| {
        let remote = Remote::new();
        let own = config_facts(&remote.config).unwrap().diff_ids[0];
        let diff_ids = vec![diff_id.unwrap_or(own); n_layers];
        let config = super::fixture::config_of(&diff_ids);
        let manifest = Remote::manifest(&config, &Digest::of(&remote.blob), remote.blob.len());
        let remote = Remote {
            config,
            manifest,
            ..remote
        };
        let (_dir, store) = store();
        let fake = Fake::start(move |request| remote.answer(request));
        let error = pull(&store, &fake.host).unwrap_err().to_string();
        assert!(!store.layers().contains(&own), "{error}");
        error
    };
    let error = swapped(2, None);
    assert!(error.contains("lists 2 layers but the manifest has 1"), "{error}");
    let error = swapped(0, None);
    assert!(error.contains("lists 0 layers but the manifest has 1"), "{error}");
    let error = swapped(1, Some(DiffId::of(b"something else")));
    assert!(error.contains("layer sha256:"), "{error}");
}

#[test]
fn a_part_that_was_not_asked_for_starts_the_download_again() {
    // hardening R15
    let remote = Remote::new();
    let layer = config_facts(&remote.config).unwrap().diff_ids[0];
    let fake = Fake::start(move |request| {
        if !is_blob(request, &remote) {
            return remote.answer(request);
        }
        let half = remote.blob.len() / 2;
        let whole = Reply::ok(remote.blob.clone());
        match request.headers.get("range") {
            None if request.n_before == 0 => Reply {
                length: Some(remote.blob.len()),
                body: remote.blob[..half].to_vec(),
                ..whole
            },
            // Says where it begins, and it is elsewhere.
            Some(_) => Reply {
                status: 206,
                body: remote.blob[10..].to_vec(),
                ..Reply::default()
            }
            .header("Content-Range", format!("bytes 10-{0}/{0}", remote.blob.len())),
            None => whole,
        }
    });
    let (_dir, store) = store();
    pull(&store, &fake.host).unwrap();
    assert!(store.layers().contains(&layer));
}

#[test]
fn a_registry_that_cannot_be_asked_for_a_digest_is_asked_for_the_manifest() {
    let remote = Remote::new();
    let heads = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = Arc::clone(&heads);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "HEAD" => {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Reply::status(405)
        }
        _ => remote.answer(request),
    });
    let (_dir, store) = store();
    pull(&store, &fake.host).unwrap();
    pull(&store, &fake.host).unwrap();
    assert_eq!(heads.load(std::sync::atomic::Ordering::Relaxed), 1);
    // The manifest, config and layer; then the manifest, twice.
    assert_eq!(fake.requests().len(), 5);
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts Debian's registry on a free port.
fn real_registry(dir: &Path) -> (Running, String) {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let host = format!("127.0.0.1:{port}");
    let config = dir.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
        dir.join("registry").display()
    );
    std::io::Write::write_all(&mut std::fs::File::create(&config).unwrap(), text.as_bytes()).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(&host).is_err() {
        assert!(std::time::Instant::now() < deadline, "the registry did not start");
        std::thread::yield_now();
    }
    (running, host)
}

#[test]
fn an_image_comes_back_from_a_real_registry() {
    let test = "an_image_comes_back_from_a_real_registry";
    if !["docker-registry", "skopeo"]
        .iter()
        .all(|tool| has_tool(test, tool))
    {
        return;
    }
    let (dir, origin) = store();
    let source = image(&origin, &["docker.io/library/app:1"]);
    let (registry, host) = real_registry(dir.path());
    for codec in ["gzip", "zstd", "uncompressed"] {
        let layout = dir.path().join(codec);
        let spec = format!("type=oci,tar=false,dest={},compression={codec}", layout.display());
        export(&origin, &Output::parse(&spec).unwrap().0, &source, None).unwrap();
        let name = format!("{host}/team/app:{codec}");
        let from = format!("oci:{}:1", layout.display());
        let to = format!("docker://{name}");
        run(
            "skopeo",
            &[
                "copy",
                "--dest-tls-verify=false",
                "--preserve-digests",
                &from,
                &to,
            ],
        );
    }
    let (_dir, target) = store();
    let platform = Platform::new("linux", "amd64", None);
    for codec in ["gzip", "zstd", "uncompressed"] {
        let name = format!("{host}/team/app:{codec}");
        let resolved = wait(resolve(&target, &name, &platform, false)).unwrap();
        assert!(matches!(resolved.origin, Origin::Registry(_)));
        assert_eq!(resolved.config, source.config);
        let finished = std::sync::Mutex::new(0);
        wait(fetch_layers(&target, &resolved, |transfer| {
            *finished.lock().unwrap() += usize::from(transfer.is_finished);
        }))
        .unwrap();
        for layer in &source.layers {
            assert!(target.layers().contains(layer), "{codec}");
        }
        // The first round brings the layers; the same layers in another form need no download.
        assert_eq!(*finished.lock().unwrap(), if codec == "gzip" { 2 } else { 0 });
    }
    for layer in &source.layers {
        let kept = target.index().layer_blob(layer, PULLED_GZIP).unwrap().unwrap();
        assert!(target.blobs().contains(&kept.digest));
    }
    drop(registry);
    let name = format!("{host}/team/app:gzip");
    let again = wait(resolve(&target, &name, &platform, false)).unwrap();
    assert!(matches!(again.origin, Origin::Local));
    let error = wait(resolve(&target, &name, &platform, true)).unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");

    // A base image goes out in the very blobs in which it came.
    let spec = format!("type=oci,tar=false,dest={}", dir.path().join("again").display());
    let exported = export(&target, &Output::parse(&spec).unwrap().0, &source, None).unwrap();
    assert_eq!(
        exported.manifest.map(|manifest| manifest.digest),
        manifest_of(&target, &again)
    );
}
